"""What a search measures, and individuals as a record has them."""

import itertools
from collections.abc import Sequence
from typing import Any

from eigen_jax.architecture import Architecture
from eigen_jax.fitness import Measurement
from eigen_jax.lineage import Fate, Individual, Landmark


def measured(accuracy: float, **fields: Any) -> Measurement:
    """Of global pooling alone."""
    return Measurement(accuracy=accuracy, **{"parameters": 20, "flops": 20} | fields)


def reached(*accuracies: float | None, thresholds: Sequence[float] = (), **fields: Any) -> tuple[Landmark, ...]:
    """Landmarks 100 steps apart, with accuracy as fitness: None where it failed before; the first have thresholds."""
    return tuple(
        Landmark(
            step=100 * number,
            measurement=None if accuracy is None else measured(accuracy, **fields),
            fitness=None if accuracy is None else (accuracy,),
            threshold=threshold,
        )
        for number, (accuracy, threshold) in enumerate(
            zip(accuracies, itertools.chain(thresholds, itertools.repeat(None)), strict=False), start=1
        )
    )


def individual(generation: int, index: int, phase: str, fitness: float | None, **fields: Any) -> Individual:
    """Of global pooling alone; extinct at the first landmark where it has no fitness, else measured at one alone."""
    sizes = {name: fields.get(name, 20) for name in ("parameters", "flops")}
    defaults: dict[str, Any] = {
        "parents": (),
        "operators": None,
        "architecture": Architecture(input_shape=(8, 8, 1), layers=()),
        "landmarks": reached(0.1, thresholds=(0.2,), **sizes) if fitness is None else reached(fitness, **sizes),
        "fate": Fate.EXTINCT if fitness is None else Fate.SURVIVED,
        "seconds_compiling": 1.5,
        "seconds_training": 10.0,
    }
    return Individual(generation=generation, index=index, phase=phase, **(defaults | sizes | fields))
