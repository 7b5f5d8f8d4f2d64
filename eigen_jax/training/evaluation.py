"""Evaluation of trained networks: logits, in batches of one size, what follows from them, and how long they take."""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import Array

from eigen_jax.data import Images, take
from eigen_jax.errors import ConfigError
from eigen_jax.training.programs import Programs, compiled
from eigen_jax.training.step import PyTree, TrainState

_Run = Callable[[int], tuple[np.ndarray, float]]  # the logits of the batch that begins at an image, and the seconds

_WARM = 3  # calls of a program that are timed at least, after its first
_CALLS = 10  # calls that tell the latency of an image
_LONGEST = 1.0  # seconds that more of them than `_WARM` may take


def evaluate(
    state: TrainState,
    images: Images,
    labels: Array,
    *,
    network: nn.Module,
    batch_size: int,
    programs: Programs | None = None,
) -> float:
    """The `accuracy` of what `predict` gives."""
    logits = predict(state.variables, images, network=network, batch_size=batch_size, programs=programs)
    return accuracy(logits, labels)


def accuracy(logits: np.ndarray, labels: Array) -> float:
    """The share of logits [N, K], in [0, 1], whose largest is at the label [N]."""
    return float((logits.argmax(axis=-1) == np.asarray(labels)).mean())


@np.errstate(invalid="ignore", over="ignore")
def mean_loss(logits: np.ndarray, labels: Array) -> float | None:
    """The mean cross-entropy of logits [N, K] at labels [N], nats; None where it is not finite."""
    # In float64, in which the largest logits of float32 do not overflow.
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    of_labels = np.take_along_axis(shifted, np.asarray(labels)[:, None], axis=-1)[:, 0]
    loss = float((np.log(np.exp(shifted).sum(axis=-1)) - of_labels).mean())
    return loss if np.isfinite(loss) else None


def predict(
    variables: PyTree, images: Images, *, network: nn.Module, batch_size: int, programs: Programs | None = None
) -> np.ndarray:
    """The logits of images, [N, H, W, C] float32, on the host: [N, K] float32; ConfigError where there are no images.

    Batch normalisation uses its running averages. The last batch is padded, so data sets of all sizes share one
    program; the same weights, images and batch size give the same bits on one machine.
    """
    run = _evaluation(variables, images, network=network, batch_size=batch_size, programs=programs)
    logits = [run(start)[0] for start in range(0, images.shape[0], batch_size)]
    return np.concatenate(logits)[: images.shape[0]]


def predict_timed(
    variables: PyTree, images: Images, *, network: nn.Module, batch_size: int, programs: Programs | None = None
) -> tuple[np.ndarray, float]:
    """What `predict` gives, and the seconds that a batch takes: the median of all but the first, at least three."""
    run = _evaluation(variables, images, network=network, batch_size=batch_size, programs=programs)
    starts = range(0, images.shape[0], batch_size)
    logits, seconds = zip(*map(run, starts), strict=True)
    more = itertools.islice(itertools.cycle(starts), max(0, 1 + _WARM - len(seconds)))
    times = [*seconds, *(run(start)[1] for start in more)]
    return np.concatenate(logits)[: images.shape[0]], statistics.median(times[1:])


def latency(variables: PyTree, images: Images, *, network: nn.Module, programs: Programs | None = None) -> float:
    """Seconds from one image to its logits on the device: the median of some ten calls after the first."""
    run = _evaluation(variables, images, network=network, batch_size=1, programs=programs)
    run(0)
    times: list[float] = []
    while len(times) < _WARM or (len(times) < _CALLS and sum(times) < _LONGEST):
        times.append(run(len(times) % images.shape[0])[1])
    return statistics.median(times)


def _evaluation(
    variables: PyTree, images: Images, *, network: nn.Module, batch_size: int, programs: Programs | None
) -> _Run:
    """What evaluates a batch of images; raises ConfigError where there are none."""
    if len(images) < 1 or batch_size < 1:
        raise ConfigError(None, "{} images in batches of {}; both must be at least 1", len(images), batch_size)
    run_batch = compile_evaluation(variables, images, network=network, batch_size=batch_size, programs=programs)

    def run(start: int) -> tuple[np.ndarray, float]:
        # Past the end, the last one.
        batch = jax.block_until_ready(take(images, np.minimum(start + np.arange(batch_size), len(images) - 1)))
        began = time.perf_counter()
        logits = jax.block_until_ready(run_batch(variables, batch))
        seconds = time.perf_counter() - began
        # Fetched at once, so that two large batches are never in memory.
        return np.asarray(logits), seconds

    return run


def compile_evaluation(
    variables: PyTree, images: Images, *, network: nn.Module, batch_size: int, programs: Programs | None
) -> Callable:
    """The program of `predict` for its arguments, of which the variables may be abstract."""
    batch = jax.ShapeDtypeStruct((batch_size, *images.shape[1:]), images.dtype, sharding=images.sharding)
    return compiled(_logits, (variables, batch), programs=programs, network=network)


def _logits(variables: PyTree, images: Array, *, network: nn.Module) -> Array:
    logits: Any = network.apply(variables, images, train=False)
    return logits
