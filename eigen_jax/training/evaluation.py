"""Evaluation of trained networks: accuracy and logits, in batches of one size."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from eigen_jax.errors import ConfigError
from eigen_jax.training.programs import Programs, compiled
from eigen_jax.training.step import PyTree, TrainState


def evaluate(
    state: TrainState,
    images: Array,
    labels: Array,
    *,
    network: nn.Module,
    batch_size: int,
    programs: Programs | None = None,
) -> float:
    """The share of images, in [0, 1], whose largest logit is at the label [N]; exact. See `predict`."""
    logits = predict(state.variables, images, network=network, batch_size=batch_size, programs=programs)
    return accuracy(logits, labels)


def accuracy(logits: np.ndarray, labels: Array) -> float:
    """The share of logits [N, K], in [0, 1], whose largest is at the label [N]."""
    return float((logits.argmax(axis=-1) == np.asarray(labels)).mean())


def predict(
    variables: PyTree, images: Array, *, network: nn.Module, batch_size: int, programs: Programs | None = None
) -> np.ndarray:
    """The logits of images, [N, H, W, C] float32, on the host: [N, K] float32; ConfigError where there are no images.

    Batch normalisation uses its running averages. The last batch is padded, so data sets of all
    sizes share one program; the same weights ("params" and "batch_stats"), images and batch size give
    the same bits on one machine. Whoever evaluates many networks gives `programs`; by default, JAX
    remembers what it compiled.
    """
    num_examples = images.shape[0]
    if num_examples < 1 or batch_size < 1:
        rule = "{} images in batches of {}; both must be at least 1"
        raise ConfigError(None, rule, num_examples, batch_size)
    run_batch = compile_evaluation(variables, images, network=network, batch_size=batch_size, programs=programs)
    logits = []
    for start in range(0, num_examples, batch_size):
        batch = _padded_batch(images, start, batch_size=batch_size)
        # Fetched at once, so that two large batches are never in memory.
        logits.append(np.asarray(run_batch(variables, batch)))
    return np.concatenate(logits)[:num_examples]


def compile_evaluation(
    variables: PyTree, images: Array, *, network: nn.Module, batch_size: int, programs: Programs | None
) -> Callable:
    """The program of `predict` for its arguments, of which the variables may be abstract."""
    batch = jax.ShapeDtypeStruct((batch_size, *images.shape[1:]), images.dtype, sharding=images.sharding)
    return compiled(_logits, (variables, batch), programs=programs, network=network)


@functools.partial(jax.jit, static_argnames="batch_size")
def _padded_batch(images: Array, start: int | Array, *, batch_size: int) -> Array:
    """[B, H, W, C] images from `start` on; past the end, the last one."""
    return images[jnp.minimum(start + jnp.arange(batch_size), images.shape[0] - 1)]


def _logits(variables: PyTree, images: Array, *, network: nn.Module) -> Array:
    logits: Any = network.apply(variables, images, train=False)
    return logits
