"""Losses against NumPy float64 and values by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax import losses


def test_cross_entropy_of_equal_logits_is_the_log_of_the_number_of_classes():
    loss = losses.cross_entropy(jnp.zeros((3, 8)), jnp.array([0, 3, 7]))
    np.testing.assert_allclose(loss, [np.log(8.0)] * 3, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cross_entropy_is_per_example_and_float32(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(scale=5, size=(16, 10)), dtype)
    labels = rng.integers(0, 10, 16).astype(np.int32)

    exact = np.asarray(logits, np.float64)
    expected = np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(16), labels]

    loss = losses.cross_entropy(logits, jnp.asarray(labels))
    assert loss.shape == (16,)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_large_logits_is_finite():
    loss = losses.cross_entropy(jnp.array([[1e4, 0.0], [1e4, 0.0]]), jnp.array([0, 1]))
    np.testing.assert_allclose(loss, [0.0, 1e4])
