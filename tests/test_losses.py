"""Losses against NumPy float64 and values by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_layers import log_softmax

from eigen_jax.losses import LOSSES, cross_entropy, mimicry_loss, squared_hinge


@partial(jax.jit, static_argnames=("loss", "weight", "temperature"))
def computed(loss, logits, *others, **options):
    """Each example's loss, and the gradient of their sum by the student's logits."""

    def total(logits):
        losses = loss(logits, *others, **options)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(logits)
    return losses, gradient


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cross_entropy_is_per_example_and_float32(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(scale=5, size=(16, 10)), dtype)
    labels = rng.integers(0, 10, 16).astype(np.int32)

    exact = np.asarray(logits, np.float64)
    expected = np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(16), labels]

    loss, _ = computed(cross_entropy, logits, jnp.asarray(labels))
    assert loss.shape == (16,)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_equal_logits_is_a_logarithm_and_of_large_ones_is_finite():
    logits = jnp.array([[0.0, 0.0], [1e4, 0.0], [1e4, 0.0]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1, 0, 1])), [np.log(2), 0.0, 1e4], rtol=1e-6)


def mimicry_in_float64(student, labels, teacher, weight: float, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Each example's loss, and the gradient of their sum by the student's logits, written out by hand."""
    logits, teacher_logits = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    true_class = np.eye(logits.shape[1])[np.asarray(labels)]
    softened_teacher = np.exp(log_softmax(teacher_logits / temperature))
    hard = -(true_class * log_softmax(logits)).sum(axis=1)
    soft = -(softened_teacher * log_softmax(logits / temperature)).sum(axis=1)
    loss = (1 - weight) * hard + weight * temperature**2 * soft
    gradient = (1 - weight) * (np.exp(log_softmax(logits)) - true_class)
    gradient += weight * temperature * (np.exp(log_softmax(logits / temperature)) - softened_teacher)
    return loss, gradient


def drawn_logits(seed: int, scale: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    generator = np.random.default_rng(seed)
    logits, teacher_logits = (scale * generator.normal(size=(2, 32, 10))).astype(np.float32)
    labels = generator.integers(0, 10, 32).astype(np.int32)
    return jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(teacher_logits)


@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
@pytest.mark.parametrize(("weight", "temperature"), [(0.9, 5.0), (0.5, 1.0), (1.0, 20.0), (0.0, 5.0), (0.3, 0.5)])
def test_mimicry_and_its_gradient_are_those_of_equations_3_and_4(weight, temperature, scale):
    drawn, options = drawn_logits(0, scale), {"weight": weight, "temperature": temperature}
    losses, gradient = computed(mimicry_loss, *drawn, **options)
    expected, expected_gradient = mimicry_in_float64(*drawn, **options)
    assert losses.shape == (32,)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected, rtol=2e-6, atol=2e-6 * max(1, temperature**2))
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=3e-6 * temperature)


def test_no_gradient_flows_into_the_teacher():
    logits, labels, teacher = drawn_logits(3, 2.0)
    gradient = jax.grad(lambda t: mimicry_loss(logits, labels, t, weight=0.9, temperature=5.0).sum())(teacher)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_mimicry_computes_in_float32_whatever_it_is_given(dtype):
    logits, labels, teacher = drawn_logits(4, 2.0)
    rounded = [logits.astype(dtype), labels, teacher.astype(dtype)]
    wide = [logits.astype(dtype).astype(jnp.float32), labels, teacher.astype(dtype).astype(jnp.float32)]
    losses, _ = computed(mimicry_loss, *rounded, weight=0.9, temperature=5.0)
    np.testing.assert_array_equal(losses, computed(mimicry_loss, *wide, weight=0.9, temperature=5.0)[0])


def test_squared_hinge_is_each_class_against_all_others():
    logits, labels, teacher = drawn_logits(5, 2.0)
    losses, gradient = computed(squared_hinge, logits, labels)
    exact = np.asarray(logits, np.float64)
    expected, slopes = np.zeros(32), np.zeros((32, 10))
    for example, label in enumerate(np.asarray(labels)):
        for one in range(10):
            sign = 1 if one == label else -1
            short = max(0.0, 1 - sign * exact[example, one])
            expected[example] += short**2
            slopes[example, one] = -2 * sign * short
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-6)
    assert {"cross-entropy": cross_entropy, "squared-hinge": squared_hinge} == LOSSES
    # In place of the first term of Eq. 3.
    options = {"weight": 0.25, "temperature": 2.0}
    mixed, _ = computed(partial(mimicry_loss, loss=squared_hinge), logits, labels, teacher, **options)
    soft, _ = computed(mimicry_loss, logits, labels, teacher, weight=1.0, temperature=2.0)
    np.testing.assert_allclose(mixed, 0.75 * expected + 0.25 * np.asarray(soft), rtol=1e-5)
