"""Losses, one value per example, so that callers choose how to weigh and average them.

Dimension letters: B examples of a batch, K classes.
"""

import jax.numpy as jnp
import optax
from jax import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy of the softmax of `logits` with the true class, in nats.

    Args:
        logits: [B, K], any floating dtype; computed in float32.
        labels: [B] integers in [0, K).

    Returns:
        [B] float32, the loss of each example.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
