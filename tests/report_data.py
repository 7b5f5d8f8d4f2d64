"""Individuals as a record has them, for reports."""

from typing import Any

from eigen_jax.architecture import Architecture
from eigen_jax.lineage import Fate, Individual, Landmark


def individual(generation: int, index: int, phase: str, fitness: float | None, **fields: Any) -> Individual:
    """Of global pooling alone; extinct at T1 where it has no fitness."""
    defaults: dict[str, Any] = {
        "parent": None,
        "operators": None,
        "architecture": Architecture(input_shape=(8, 8, 1), layers=()),
        "parameters": 20,
        "flops": 20,
        "fate": Fate.EXTINCT_T1 if fitness is None else Fate.SURVIVED,
        "seconds_compiling": 1.5,
        "seconds_training": 10.0,
    }
    reached = Landmark(fitness=fitness)
    return Individual(generation=generation, index=index, phase=phase, t3=reached, **(defaults | fields))
