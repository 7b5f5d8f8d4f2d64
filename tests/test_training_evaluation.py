"""Evaluation of trained networks against NumPy float64: logits, accuracy, padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_data import SHAPE, Convolutional, Linear, make_dataset, new_state

from eigen_jax.training import TrainConfigError, accuracy, evaluate, predict


@pytest.mark.parametrize("size", [1, 9, 10, 11, 23])
def test_evaluation_is_exact_at_every_split_size(size):
    rng = np.random.default_rng(size)
    images, labels = rng.normal(size=(size, *SHAPE)).astype(np.float32), rng.integers(0, 3, size).astype(np.int32)
    state = new_state(Linear())
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params["Dense_0"])
    logits = images.reshape(size, -1).astype(np.float64) @ dense["kernel"] + dense["bias"]
    expected = int((logits.argmax(axis=1) == labels).sum()) / size
    arrays = (jnp.asarray(images), jnp.asarray(labels))
    assert evaluate(state, *arrays, network=Linear(), batch_size=10) == expected


@pytest.mark.parametrize("size", [1, 10, 11, 23])
def test_logits_are_of_every_image_in_order_and_of_no_other(size):
    images = np.random.default_rng(size).normal(size=(size, *SHAPE)).astype(np.float32)
    state = new_state(Linear())
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params["Dense_0"])
    logits = predict(state.variables, jnp.asarray(images), network=Linear(), batch_size=10)
    assert isinstance(logits, np.ndarray)
    assert (logits.shape, logits.dtype) == ((size, 3), np.float32)
    expected = images.reshape(size, -1).astype(np.float64) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "batch_size"), [(0, 10), (3, 0)])
def test_logits_of_nothing_get_one_line(size, batch_size):
    variables = new_state(Linear()).variables
    with pytest.raises(TrainConfigError) as caught:
        predict(variables, jnp.zeros((size, *SHAPE)), network=Linear(), batch_size=batch_size)
    assert str(caught.value) == f"{size} images in batches of {batch_size}; both must be at least 1"


def test_accuracy_is_the_share_of_largest_logits_at_the_label():
    logits = np.array([[1, 3, 2], [9, 0, 8], [-1, -2, -3], [0, 0, 1]], np.float32)
    assert accuracy(logits, jnp.array([1, 2, 0, 2])) == 0.75
    assert accuracy(logits, jnp.array([0, 1, 1, 0])) == 0.0


def test_evaluation_uses_the_running_averages():
    dataset, network, state = make_dataset(), Convolutional(), new_state()
    stats = {"BatchNorm_0": {"mean": jnp.full(4, 0.3), "var": jnp.full(4, 2.0)}}
    state = dataclasses.replace(state, batch_stats=stats)
    images, labels = dataset.validation_images, dataset.validation_labels
    logits = network.apply({"params": state.params, "batch_stats": stats}, images, train=False)
    expected = int((np.asarray(logits).argmax(axis=1) == np.asarray(labels)).sum()) / len(labels)
    assert evaluate(state, images, labels, network=network, batch_size=5) == expected
