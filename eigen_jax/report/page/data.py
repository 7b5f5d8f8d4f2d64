"""The data in a page, of which its script draws: the individuals of a run, and what they cost, one after another."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from eigen_jax.fitness import COSTS, OBJECTIVES
from eigen_jax.lineage import Individual, Landmark, Reference
from eigen_jax.report.figures import PHASES, pareto_front
from eigen_jax.report.layout import TIMES
from eigen_jax.report.page.drawings import Drawings
from eigen_jax.report.page.run import Run

# What accuracy is shown against, where it was measured.
SHOWN_COSTS = tuple(name for name in COSTS if name != "loss")


def page_data(run: Run) -> dict[str, Any]:
    """All that the script of a page of one run needs, as JSON has it; individuals are named by their positions."""
    drawings = Drawings(num_classes=run.num_classes or 1)
    places = {each.reference: position for position, each in enumerate(run.individuals)}
    data: dict[str, Any] = {
        "fitness": run.fitness,
        "isAccuracy": run.is_of_accuracy,
        "individuals": [_individual(each, places, drawings) for each in run.individuals],
        "spent": spending(run.individuals),
        "steps": list(run.steps) if run.individuals else [],
        "fronts": _fronts(run.individuals),
        "best": places.get(run.best.reference) if run.best else None,
        "isFound": run.result is not None,
        "network": drawings.add(run.shown) if run.shown else None,
        "confusion": run.confusion,
        "classes": [run.class_name(label) for label in range(run.num_classes or 0)],
    }
    return data | drawings.content()


def phase_name(phase: str) -> str:
    """A phase for people."""
    return PHASES.get(phase, (phase, ""))[0]


def spending(individuals: Sequence[Individual]) -> dict[str, list[Any]]:
    """What a search had come to after each individual, [N] each: the best first objective, training FLOPs, seconds.

    The best is None before the first survivor. FLOPs are None where older lines of the record do not tell them; seconds
    are of compiling and training, one individual after another.
    """
    flops = [each.training_flops for each in individuals]
    seconds = [each.seconds_compiling + each.seconds_training for each in individuals]
    known = [each for each in flops if each is not None]
    bests, best = [], -math.inf
    for each in individuals:
        if each.end and each.end.fitness:
            best = max(best, each.end.fitness[0])
        bests.append(best if math.isfinite(best) else None)
    return {
        "best": bests,
        "flops": list(itertools.accumulate(known)) if len(known) == len(flops) else [None] * len(flops),
        "seconds": [round(each, 3) for each in itertools.accumulate(seconds)],
    }


def _individual(each: Individual, places: dict[Reference, int], drawings: Drawings) -> dict[str, Any]:
    last = each.landmarks[-1].measurement if each.landmarks else None
    costs = {name: getattr(last, name) for name in SHOWN_COSTS} if last else {}
    return {
        "name": str(each.reference),
        "generation": each.generation,
        "index": each.index,
        "phase": phase_name(each.phase),
        "parents": [places[parent] for parent in each.parents if parent in places],
        "how": how_made(each),
        "network": drawings.add(each.architecture),
        **costs,
        "parameters": each.parameters,
        "flops": each.flops,
        "fate": each.fate.value,
        "cause": each.cause,
        "sameAs": places.get(each.same_as) if each.same_as else None,
        "landmarks": list(map(_landmark, each.landmarks)),
        "test": each.test_accuracy,
        "training": each.training_flops,
        "seconds": round(each.seconds_compiling + each.seconds_training, 3),
    }


def _landmark(each: Landmark) -> list[float | None]:
    """The first objective, the threshold, the accuracy."""
    accuracy = each.measurement.accuracy if each.measurement else None
    return [each.fitness[0] if each.fitness else None, each.threshold, accuracy]


def how_made(each: Individual) -> str:
    """The operators that an individual came by, or the repeats, in words."""
    if each.repeats is not None:
        return f"gene duplication: its parent's blocks stand {', '.join(map(str, each.repeats))} times"
    applied = [(name, count) for name, count in sorted((each.operators or {}).items()) if count]
    return ", ".join(f"{count} {TIMES} {name.replace('_', ' ')}" for name, count in applied) or "no operator"


def _fronts(individuals: Sequence[Individual]) -> dict[str, list[int]]:
    """The positions on the Pareto front of accuracy and each cost that was measured of all at the end, by cost."""
    ended = [position for position, each in enumerate(individuals) if each.measurement]
    fronts = {}
    for name in SHOWN_COSTS:
        values = [getattr(individuals[position].measurement, name) for position in ended]
        if not values or None in values:
            continue
        accuracies = [individuals[position].accuracy for position in ended]
        points = np.array([accuracies, values], float).T * (1, OBJECTIVES.find(name))
        front = [ended[row] for row in np.flatnonzero(pareto_front(points))]
        fronts[name] = sorted(front, key=lambda position: getattr(individuals[position].measurement, name))
    return fronts
