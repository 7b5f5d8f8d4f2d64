"""Many steps a call, and compilation ahead: the same weights as single steps that compile when they are needed."""

import dataclasses
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_data import KEY, SMALL, TRACES, Convolutional, Linear, make_dataset, new_state

from eigen_jax import platforms
from eigen_jax.teacher.logits import CachedLogits, MappedLogits
from eigen_jax.training import (
    DivergedError,
    TrainConfig,
    TrainConfigError,
    batch_shapes,
    draw_batch,
    epoch_order,
    evaluate,
    prepare_training,
    programs,
    train_step,
    train_steps,
    train_to,
)
from eigen_jax.training.loop import steps_of_calls
from eigen_jax.training.programs import in_background

# XLA rounds the same sums in another order in a loop's body.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def chunked(monkeypatch) -> int:
    """The GPU's platform with short chunks, on the device at hand; gives the steps of a call."""
    platform = dataclasses.replace(platforms.GPU, steps_per_call=6)
    monkeypatch.setattr(platforms, "current", lambda: platform)
    return platform.steps_per_call


class Live:
    """A teacher that computes its logits from the images."""

    fingerprint = "live"

    def __call__(self, examples, views, images):
        return images.reshape(images.shape[0], 3, -1).mean(axis=-1).astype(jnp.float16)


def stored_logits() -> tuple[np.ndarray, np.ndarray]:
    logits = np.random.default_rng(4).normal(size=(36, 18, 3)).astype(np.float16)  # 3 x 3 crops, flipped or not
    return logits, np.arange(18, dtype=np.int32)


def teacher_of(kind: str):
    logits, slots = stored_logits()
    teachers = {
        "none": None,
        "live": Live(),
        "mapped": MappedLogits(logits, slots, "mapped"),
        "cached": CachedLogits(logits=jnp.asarray(logits), slots=jnp.asarray(slots), fingerprint="cached"),
    }
    return teachers[kind]


@pytest.mark.parametrize("kind", ["none", "live", "mapped", "cached"])
def test_chunks_and_single_steps_give_the_same_weights_through_an_interruption(kind, monkeypatch):
    dataset, network, teacher = make_dataset(), Convolutional(), teacher_of(kind)
    single, report = train_to(KEY, new_state(), dataset, 27, network=network, config=SMALL, teacher=teacher)

    platform = dataclasses.replace(platforms.GPU, steps_per_call=6)
    monkeypatch.setattr(platforms, "current", lambda: platform)
    state = new_state()
    for until in (9, 27):  # chunks of 6, over the ends of epochs of 4
        state, chunk_report = train_to(KEY, state, dataset, until, network=network, config=SMALL, teacher=teacher)
    chex.assert_trees_all_close(state, single, **TOLERANCE)
    assert state.step == 27
    assert chunk_report.steps == 18

    whole, chunk_report = train_to(KEY, new_state(), dataset, 27, network=network, config=SMALL, teacher=teacher)
    chex.assert_trees_all_close(whole, single, **TOLERANCE)
    np.testing.assert_allclose(chunk_report.loss, report.loss, rtol=1e-4)
    np.testing.assert_allclose(chunk_report.accuracy, report.accuracy, atol=0.02)


def test_a_chunk_takes_the_steps_of_its_batches_and_tells_of_each():
    dataset, network = make_dataset(), Convolutional()
    order = epoch_order(KEY, 0, num_examples=36)
    arrays = (order, dataset.train_images, dataset.train_labels)
    batches = [draw_batch(KEY, step, *arrays, batch_size=8, pad=1, flip=True) for step in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    state, metrics = jax.jit(train_steps, static_argnames=("network", "config"))(
        new_state(), stacked, network=network, config=SMALL
    )
    single, losses = new_state(), []
    for batch in batches:
        single, step_metrics = train_step(single, batch, network=network, config=SMALL)
        losses.append(step_metrics.loss)
    chex.assert_trees_all_close(state, single, **TOLERANCE)
    chex.assert_shape(jax.tree.leaves(metrics), (4,))
    np.testing.assert_allclose(metrics.loss, jnp.stack(losses), rtol=1e-4)


@pytest.mark.parametrize(
    ("start", "until", "steps_per_call", "expected"),
    [
        (0, 3, 1, [1, 1, 1]),
        (0, 12, 6, [6, 6]),
        (0, 14, 6, [6, 6, 1, 1]),
        (4, 19, 6, [1, 1, 6, 6, 1]),
        (4, 10, 6, [1, 1, 1, 1, 1, 1]),
        (2, 5, 6, [1, 1, 1]),
    ],
)
def test_chunks_begin_at_multiples_of_their_length(start, until, steps_per_call, expected):
    assert steps_of_calls(start, until, steps_per_call=steps_per_call) == expected


def test_looks_come_between_chunks_and_at_the_end(chunked):
    seen = []
    _, report = train_to(
        KEY,
        new_state(),
        make_dataset(),
        61,
        network=Convolutional(),
        config=SMALL,
        on_progress=lambda *progress: seen.append(progress),
    )
    assert [step for step, _, _ in seen] == [54, 61]  # the first end of a chunk after 50
    assert seen[-1][1] == report.loss
    assert all(rate > 0 for _, _, rate in seen)


def test_divergence_inside_of_a_chunk_is_seen_at_the_look(chunked):
    config = TrainConfig(batch_size=8, learning_rate=1e6, decay_steps=(), pad=1)
    with pytest.raises(DivergedError) as caught:
        train_to(KEY, new_state(Linear(), config), make_dataset(separable=False), 200, network=Linear(), config=config)
    assert caught.value.step == 54


def test_training_in_chunks_leaves_its_input_usable(chunked):
    state = new_state()
    train_to(KEY, state, make_dataset(), 6, network=Convolutional(), config=SMALL)
    chex.assert_trees_all_equal(state, new_state())


def wait_for_background():
    done = threading.Event()
    in_background(done.set)
    assert done.wait(60)


@pytest.mark.parametrize(("kind", "width"), [("none", 6), ("live", 7), ("mapped", 8)])
@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_what_was_prepared_is_all_that_is_traced_and_changes_no_bit(kind, width, steps_per_call, monkeypatch):
    platform = dataclasses.replace(platforms.CPU, steps_per_call=steps_per_call)
    monkeypatch.setattr(platforms, "current", lambda: platform)
    dataset, teacher = make_dataset(), teacher_of(kind)

    def outcome(network):
        state = new_state(network)
        state, _ = train_to(KEY, state, dataset, 4, network=network, config=SMALL, teacher=teacher)
        images, labels = dataset.validation_images, dataset.validation_labels
        return state, evaluate(state, images, labels, network=network, batch_size=SMALL.eval_batch_size)

    monkeypatch.setattr(programs, "_store", programs._Store(8, 1_000))
    TRACES.clear()
    shapes = batch_shapes(KEY, dataset, config=SMALL, teacher=teacher)
    prepare_training(KEY, None, dataset, 4, shapes, network=Convolutional(width=width), config=SMALL)
    wait_for_background()
    prepared = sorted(TRACES)
    assert (width, False, 1) in prepared
    assert (width, False, 10) in prepared
    first = outcome(Convolutional(width=width))
    assert sorted(TRACES) == prepared
    prepare_training(KEY, first[0], dataset, 7, shapes, network=Convolutional(width=width), config=SMALL)
    wait_for_background()
    assert sorted(TRACES) == prepared
    monkeypatch.setattr(programs, "_store", programs._Store(8, 1_000))
    again = outcome(Convolutional(width=width))
    chex.assert_trees_all_equal(first, again)


def test_shapes_of_a_batch_that_is_larger_than_the_training_set_get_one_line():
    with pytest.raises(TrainConfigError) as caught:
        batch_shapes(KEY, make_dataset(), config=TrainConfig(batch_size=37))
    assert str(caught.value) == "batch_size is 37; the training set has only 36 images"
