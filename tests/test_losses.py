"""Losses against NumPy float64 and values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax.losses import cross_entropy, mimicry_loss


def test_cross_entropy_of_equal_logits_is_the_log_of_the_number_of_classes():
    loss = cross_entropy(jnp.zeros((3, 8)), jnp.array([0, 3, 7]))
    np.testing.assert_allclose(loss, [np.log(8.0)] * 3, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cross_entropy_is_per_example_and_float32(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(scale=5, size=(16, 10)), dtype)
    labels = rng.integers(0, 10, 16).astype(np.int32)

    exact = np.asarray(logits, np.float64)
    expected = np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(16), labels]

    loss = cross_entropy(logits, jnp.asarray(labels))
    assert loss.shape == (16,)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_large_logits_is_finite():
    loss = cross_entropy(jnp.array([[1e4, 0.0], [1e4, 0.0]]), jnp.array([0, 1]))
    np.testing.assert_allclose(loss, [0.0, 1e4])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def mimicry_in_float64(
    student: jax.Array, labels: jax.Array, teacher: jax.Array, weight: float, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
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
    logits, labels, teacher_logits = drawn_logits(0, scale)

    def total(logits):
        return mimicry_loss(logits, labels, teacher_logits, weight=weight, temperature=temperature).sum()

    losses = mimicry_loss(logits, labels, teacher_logits, weight=weight, temperature=temperature)
    expected, gradient = mimicry_in_float64(logits, labels, teacher_logits, weight, temperature)
    assert losses.shape == (32,)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected, rtol=2e-6, atol=2e-6 * max(1, temperature**2))
    np.testing.assert_allclose(jax.grad(total)(logits), gradient, rtol=1e-5, atol=3e-6 * temperature)


def test_without_weight_mimicry_is_cross_entropy_to_the_last_bit():
    logits, labels, teacher_logits = drawn_logits(1, 4.0)

    def mimicry(logits):
        return mimicry_loss(logits, labels, teacher_logits, weight=0.0, temperature=5.0).sum()

    def plain(logits):
        return cross_entropy(logits, labels).sum()

    for computed, expected in zip(jax.value_and_grad(mimicry)(logits), jax.value_and_grad(plain)(logits), strict=True):
        np.testing.assert_array_equal(computed, expected)


def test_mimicry_is_least_where_the_student_predicts_what_the_teacher_does():
    logits, labels, teacher_logits = drawn_logits(2, 2.0)

    def mimicry(student):
        return mimicry_loss(student, labels, teacher_logits, weight=1.0, temperature=5.0)

    np.testing.assert_allclose(jax.grad(lambda student: mimicry(student).sum())(teacher_logits), 0, atol=1e-6)
    assert (mimicry(logits) > mimicry(teacher_logits)).all()


def test_no_gradient_flows_into_the_teacher():
    logits, labels, teacher_logits = drawn_logits(3, 2.0)
    gradient = jax.grad(lambda t: mimicry_loss(logits, labels, t, weight=0.9, temperature=5.0).sum())(teacher_logits)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_mimicry_computes_in_float32_whatever_it_is_given(dtype):
    logits, labels, teacher_logits = drawn_logits(4, 2.0)
    rounded, rounded_teacher = logits.astype(dtype), teacher_logits.astype(dtype)
    np.testing.assert_array_equal(
        mimicry_loss(rounded, labels, rounded_teacher, weight=0.9, temperature=5.0),
        mimicry_loss(
            rounded.astype(jnp.float32), labels, rounded_teacher.astype(jnp.float32), weight=0.9, temperature=5.0
        ),
    )
