"""Losses, one value per example, so that callers choose how to weigh and average them.

Dimension letters: B examples of a batch, K classes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from eigen_jax.registry import Registry

Loss = Callable[[Array, Array], Array]  # logits [B, K] floating and labels [B] in [0, K) to [B] float32

LOSSES: Registry[Loss] = Registry("loss")


def cross_entropy(logits: Array, labels: Array) -> Array:
    """[B] float32, nats, of logits [B, K], any floating dtype, computed in float32, and labels [B] in [0, K)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def squared_hinge(logits: Array, labels: Array) -> Array:
    """[B] float32: the sum over classes of max(0, 1 - y z)^2, y being 1 for the true class and -1 for each other.

    A classifier of each class against all others: the L2-SVM of Lee et al., "Deeply-Supervised Nets" (2015). Arguments
    are those of `cross_entropy`.
    """
    signs = 2 * jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32) - 1
    return jnp.square(jnp.maximum(0, 1 - signs * logits.astype(jnp.float32))).sum(axis=-1)


LOSSES.add("cross-entropy", cross_entropy)
LOSSES.add("squared-hinge", squared_hinge)


def mimicry_loss(
    logits: Array,
    labels: Array,
    teacher_logits: Array,
    *,
    weight: float,
    temperature: float,
    loss: Loss = cross_entropy,
) -> Array:
    """[B] float32: a loss of the true class, mixed with that of a teacher's softened prediction (Eq. 3 and 4).

    (1 - alpha) H(y, softmax(z)) + alpha T^2 H(softmax(v / T), softmax(z / T)), for logits z of the student, v of the
    teacher and H(p, q) = -sum p log q. Arguments are those of `cross_entropy`; the teacher's logits, [B, K], get no
    gradient; `weight` is alpha, from 0 to 1, `temperature` T, more than 0. Another `loss` replaces the first term's.

    The teacher is the target of the second cross-entropy, as in Hinton et al., "Distilling the Knowledge in a Neural
    Network" (2015), Section 2; Eq. 3 has the two the other way round. Its gradient shrinks as 1 / T^2, so the factor
    T^2 of Eq. 3 keeps the shares of both at any temperature.
    """
    targets = jax.nn.softmax(jax.lax.stop_gradient(teacher_logits).astype(jnp.float32) / temperature)
    softened = optax.softmax_cross_entropy(logits.astype(jnp.float32) / temperature, targets)
    return (1 - weight) * loss(logits, labels) + weight * temperature**2 * softened
