"""Fitness: what a network is measured at, and what its users make of it (Section 3).

A fitness maps a `Measurement` to one number, or to several objectives; of each, more is better, and any sign will do.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from eigen_jax.errors import EigenError, first_line
from eigen_jax.store.records import Count, Fraction, Seconds

Fitness = Callable[["Measurement"], float | Sequence[float]]


class FitnessError(EigenError):
    """A fitness that gives no numbers, or not always as many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of a network at a landmark, on the validation images. None: not measured."""

    accuracy: Fraction  # of the validation images
    loss: float | None = None  # their mean cross-entropy, nats
    parameters: Count  # trainable values, classifier included
    flops: Count  # of one image's forward pass
    latency: Seconds | None = None  # of one image's forward pass, on the device at hand
    batch_latency: Seconds | None = None  # of that of a batch of `TrainConfig.eval_batch_size`
    memory: Count | None = None  # bytes, at the peak of a training step


def accuracy(measurement: Measurement) -> float:
    """Validation accuracy, a fraction: the fitness of the paper's own searches."""
    return measurement.accuracy


def values(fitness: Fitness, measurement: Measurement) -> tuple[float, ...]:
    """The objectives that a fitness makes of a measurement; raises FitnessError where it gives no numbers."""
    try:
        given = fitness(measurement)
        numbers = tuple(map(float, given if isinstance(given, Sequence) else [given]))
    except Exception as error:
        raise FitnessError(f"the fitness {name_of(fitness)} fails on {measurement}: {first_line(error)}") from None
    return numbers


def num_objectives(fitness: Fitness) -> int:
    """M: how many numbers a fitness gives; raises FitnessError as `values` does."""
    return len(values(fitness, _PROBE))


def name_of(fitness: Any) -> str:
    """What a record calls a fitness, or whatever else a user can define."""
    if fitness is accuracy:
        return "accuracy"
    return f"{fitness.__module__}:{fitness.__qualname__}" if hasattr(fitness, "__qualname__") else str(fitness)


def needs_latency(fitness: Fitness) -> bool:
    """Whether a fitness looks at the latency of one image, which is then measured at every landmark."""
    return fitness is not accuracy


_PROBE = Measurement(
    accuracy=0.5, loss=1.0, parameters=1_000, flops=1_000_000, latency=1e-3, batch_latency=1e-2, memory=1_000_000
)
