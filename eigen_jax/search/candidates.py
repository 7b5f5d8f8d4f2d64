"""Individuals before they are recorded, and what earlier ones of the same architecture measured."""

import dataclasses
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from eigen_jax.architecture import Architecture, fingerprint
from eigen_jax.executor import Inheritance, Outcome
from eigen_jax.fitness import Measurement
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.resumable import Seconds
from eigen_jax.search.folder import RunFolder
from eigen_jax.store.files import sha256
from eigen_jax.strategies import NONE, Population, Strategy

Sort = Hashable  # of individuals that would measure the same


@dataclasses.dataclass(kw_only=True)
class Candidate:
    """An individual that is not recorded yet."""

    place: Reference
    slot: int  # of the population
    architecture: Architecture
    training: Mapping[str, Any]  # in which settings of training it is another
    identities: tuple[int, ...] | None  # of its layers and its classifier; None: it is trained from scratch
    key: Array  # of its training
    parents: tuple[Reference, ...]
    operators: Mapping[str, int] | None  # None: not made by mutation
    repeats: tuple[int, ...] | None  # None: not made by duplication
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)  # at the landmarks so far
    same_as: Reference | None = None  # the equal individual that the outcomes were taken over from
    seconds: Seconds = dataclasses.field(default_factory=Seconds)  # that its own jobs took
    thresholds: list[float] = dataclasses.field(default_factory=list)  # of the landmarks that it trained for
    survived: bool = False  # measured to the end

    @property
    def sort(self) -> "Sort":
        """What it has in common with those who measure the same."""
        return _sort(self.place if self.identities is not None else None, self.architecture, self.training)

    @property
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of what is trained: of the architecture, where that is all."""
        network = fingerprint(self.architecture)
        if not self.training and self.identities is None:
            return network
        return sha256([json.dumps([network, sorted(self.training.items()), self.identities])])

    @property
    def cause(self) -> str | None:
        return self.outcomes[-1].cause if self.outcomes else None

    def measurement(self, landmark: int) -> Measurement | None:
        """What was measured at a landmark; None if it failed before, or was not trained so far."""
        return self.outcomes[landmark].measurement if landmark < len(self.outcomes) else None

    def add(self, outcome: Outcome) -> None:
        """Adds what one of its own jobs came to."""
        self.outcomes.append(outcome)
        # What a job that failed says it took, it took after the landmark before.
        self.seconds = outcome.seconds if outcome.cause is None else self.seconds + outcome.seconds

    def take(self, outcomes: Sequence[Outcome], of: Reference) -> None:
        self.outcomes, self.same_as = list(outcomes), of


def candidates_of(
    strategy: Strategy, population: Population, key: Array, *, known: Mapping[Reference, Candidate]
) -> list[Candidate]:
    """The individuals of a population in their order, those `known` as they are; `key` is that of all training."""
    population, names = jax.device_get(population), strategy.operator_names()
    found = []
    for slot, place in enumerate(map(reference, population.places)):
        if place is None:
            continue
        if place in known:
            known[place].slot = slot
            found.append(known[place])
            continue
        genome = jax.tree.map(lambda leaf, slot=slot: leaf[slot], population.genomes)
        repeated = bool((population.repeats[slot] > 1).any())
        found.append(
            Candidate(
                place=place,
                slot=slot,
                architecture=strategy.decode(genome),
                training=strategy.training(genome),
                identities=strategy.identities(genome),
                key=jax.random.fold_in(jax.random.fold_in(key, place.generation), place.index),
                parents=tuple(filter(None, map(reference, population.parents[slot]))),
                operators=None if repeated else dict(zip(names, population.operators[slot].tolist(), strict=True)),
                repeats=tuple(population.repeats[slot].tolist()) if repeated else None,
            )
        )
    return found


def inheritance(candidate: Candidate, forebears: Mapping[Reference, Individual], run: RunFolder) -> Inheritance | None:
    """The weights that a candidate starts from, of one of the `forebears`; None: it starts from scratch."""
    parent = forebears.get(candidate.parents[0]) if candidate.parents else None
    if candidate.identities is None or parent is None or parent.identities is None:
        return None
    *own, classifier = candidate.identities
    *bequeathed, former = parent.identities
    positions = {identity: position for position, identity in enumerate(bequeathed)}
    layers = tuple(map(positions.get, own))
    return Inheritance(folder=run.individual(parent.reference), layers=layers, classifier=classifier == former)


def reference(place: Any) -> Reference | None:
    """The individual that [2] integers of a generation and an index name; None for nobody."""
    generation, index = np.asarray(place).tolist()
    return None if generation == NONE else Reference(generation=generation, index=index)


class Measured:
    """What the individuals of a run measured, for later ones that would measure the same."""

    def __init__(self, *, reevaluate: bool) -> None:
        self.reevaluate = reevaluate  # whether all but failures is measured again
        self.individuals: dict[Sort, Individual] = {}  # who measured for a sort, the longest first

    def add(self, individuals: Iterable[Individual]) -> None:
        """Lets later individuals take the measurements of these over, but for what depends on inherited weights."""
        for individual in individuals:
            sort = _sort(None, individual.architecture, individual.training)
            known = self.individuals.get(sort)
            # One that went extinct is trained anew where all train to the end, and is then known to the end.
            is_own = individual.same_as is None and individual.identities is None
            if is_own and (known is None or _is_partial(known)):
                self.individuals[sort] = individual

    def find(self, candidate: Candidate, *, to_the_end: bool) -> Individual | None:
        """Whose measurements are taken over: a failure's always are."""
        known = self.individuals.get(candidate.sort)
        if known is None or known.cause is not None:
            return known
        return None if self.reevaluate or (to_the_end and _is_partial(known)) else known


def _sort(heir: Reference | None, architecture: Architecture, training: Mapping[str, Any]) -> Sort:
    """Those who inherit are of a sort of their own each."""
    return heir, architecture, tuple(sorted(training.items()))


def _is_partial(known: Individual) -> bool:
    """Whether an individual would have been measured further, had others been worse."""
    return known.fate is Fate.EXTINCT and known.landmarks[-1].fitness is not None


def outcomes_of(known: Individual) -> list[Outcome]:
    """What the record says that an individual measured, as its jobs said it."""
    outcomes = [Outcome(measurement=each.measurement) for each in known.landmarks if each.measurement is not None]
    if known.end is not None:
        outcomes[-1] = dataclasses.replace(outcomes[-1], test_accuracy=known.test_accuracy)
    return outcomes if known.cause is None else [*outcomes, Outcome(cause=known.cause)]
