"""One generation: children trained to the landmarks, those below the thresholds extinct, all recorded."""

import dataclasses
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, count_flops, count_parameters, decode
from eigen_jax.data import Dataset
from eigen_jax.executor import Executor, Job, Outcome
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.mutation import operator_names
from eigen_jax.resumable import Care, Seconds
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.folder import RunFolder
from eigen_jax.search.journal import Journal
from eigen_jax.search.observer import SearchObserver
from eigen_jax.store import checkpoint
from eigen_jax.store.files import told_as
from eigen_jax.store.locks import never
from eigen_jax.store.run_files import RunFolderError
from eigen_jax.strategies.eigen import EvolutionState, Phase, Survival, is_child, spares, survivors
from eigen_jax.training import Teacher, TrainState

PyTree = Any

_LAST = 2  # the landmark T1 + T2 + T3


@dataclasses.dataclass
class Context:
    """What stays the same through a search."""

    config: SearchConfig
    dataset: Dataset
    teacher: Teacher | None
    folder: RunFolder
    executor: Executor  # where individuals are trained
    care: Care
    observer: SearchObserver


@dataclasses.dataclass(kw_only=True)
class Candidate:
    """An individual of the generation under way."""

    index: int
    architecture: Architecture
    key: Array
    trained: list[Outcome] = dataclasses.field(default_factory=list)  # of its own jobs, one a landmark
    same_as: Reference | None = None  # an equal individual, whose outcomes count in place of its own
    taken: list[Outcome] | None = None  # the outcomes of that one, with what it measures from here on

    @property
    def outcomes(self) -> list[Outcome]:
        """What was measured at the landmarks so far."""
        return self.trained if self.taken is None else self.taken

    @property
    def cause(self) -> str | None:
        """Why it failed."""
        return self.outcomes[-1].cause if self.outcomes else None

    @property
    def seconds(self) -> Seconds:
        """What its own jobs took."""
        *before, last = self.trained or [Outcome(fitness=math.nan)]
        # What a job that failed says it took, it took after the landmark before.
        return before[-1].seconds + last.seconds if before and last.cause is not None else last.seconds

    def fitness(self, landmark: int) -> float:
        """NaN where there is none."""
        return self.outcomes[landmark].fitness if landmark < len(self.outcomes) else math.nan


class Measured:
    """What the individuals of a run measured, by their architectures, for later ones of the same."""

    def __init__(self, *, reevaluate: bool) -> None:
        self.reevaluate = reevaluate  # whether all but failures is measured again
        self.individuals: dict[Architecture, Individual] = {}  # whose training gave an architecture's fitness

    def add(self, individuals: Iterable[Individual]) -> None:
        """Lets later individuals take the measurements of these over."""
        for individual in individuals:
            known = self.individuals.get(individual.architecture)
            # One that went extinct is trained anew as a duplicate, and is then known to the end.
            if individual.same_as is None and (known is None or known.t3.fitness is None):
                self.individuals[individual.architecture] = individual

    def find(self, architecture: Architecture, *, to_the_end: bool) -> Individual | None:
        """Whose measurements are taken over: a failure's always are."""
        known = self.individuals.get(architecture)
        if known is None or known.cause is not None:
            return known
        return None if self.reevaluate or (to_the_end and known.t3.fitness is None) else known


class Generation:
    """The generation under way."""

    def __init__(self, key: Array, evolution: EvolutionState, measured: Measured, context: Context) -> None:
        """Takes over what is known of equal architectures; `key` is that of all training."""
        self.evolution = evolution
        self.context = context
        self.config = context.config
        self.number = int(evolution.generation)
        self.phase = Phase(int(evolution.phase))
        self.candidates: list[Candidate] = []
        key = jax.random.fold_in(key, evolution.generation)
        spared = bool(spares(evolution.phase, config=self.config.evolution))
        genomes = jax.device_get(evolution.population.genomes)
        for index in range(int(is_child(evolution).sum())):
            genome = jax.tree.map(lambda leaf, index=index: leaf[index], genomes)
            architecture = decode(genome, spec=self.config.genome)
            candidate = Candidate(index=index, architecture=architecture, key=jax.random.fold_in(key, index))
            if known := measured.find(architecture, to_the_end=spared):
                candidate.same_as, candidate.taken = known.reference, _outcomes_of(known)
            self.candidates.append(candidate)

    def train(self) -> Survival:
        """Algorithm 1: trains to each landmark in turn, and extinguishes after the first two.

        What the journal of this generation has is not trained again.
        """
        journal = Journal(self.context.folder.journal, generation=self.number, phase=self.phase)
        alive = np.asarray(is_child(self.evolution))
        for landmark in range(_LAST + 1):
            self._measure(landmark, [self.candidates[index] for index in np.flatnonzero(alive)], journal)
            survival = jax.device_get(survivors(self.evolution, self.fitness(), config=self.config.evolution))
            if landmark < _LAST:
                survives = (survival.survives_first, survival.survives_second)[landmark]
                threshold = (survival.thresholds.first, survival.thresholds.second)[landmark]
                self.context.observer.individuals_extinct(
                    landmark=landmark,
                    indices=np.flatnonzero(alive & ~survives).tolist(),
                    threshold=lineage.landmark(None, float(threshold)).threshold,
                )
                alive = survives
        return survival

    def fitness(self) -> Array:
        """[P, 3] float32; -inf where there is none, as in slots without a child."""
        fitness = np.full((self.config.evolution.population_size, _LAST + 1), -np.inf, np.float32)
        for candidate in self.candidates:
            fitness[candidate.index] = [candidate.fitness(landmark) for landmark in range(_LAST + 1)]
        # On the device, a NaN is a fault, which JAX_DEBUG_NANS is to find.
        return jnp.asarray(np.where(np.isnan(fitness), -np.inf, fitness))

    def variables(self, index: int, abstract: TrainState) -> PyTree:
        """The weights of a candidate that was trained to the end; `abstract` are its state's shapes.

        Raises a CheckpointError or ExecutorError where they cannot be read, nor trained again.
        """
        candidate = self.candidates[index]
        assert candidate.same_as is None, "it has no weights of its own"
        try:
            return checkpoint.restore(self._folder(candidate), "state", abstract=abstract).variables
        except checkpoint.CheckpointError:
            # Damaged, or lost with the folder, after it was measured.
            list(self.context.executor.run([self._job(_LAST, candidate)]))
            return checkpoint.restore(self._folder(candidate), "state", abstract=abstract).variables

    def record(self, survival: Survival, following: EvolutionState) -> list[Individual]:
        """The generation's lines of the record, once it is known who lives and what follows."""
        population, parent = jax.device_get(self.evolution.population), reference(following.parent_id)
        first, second = float(survival.thresholds.first), float(survival.thresholds.second)
        individuals = []
        duplicated, sizes = self.phase == Phase.DUPLICATION, {"num_classes": self.config.genome.num_classes}
        for index, candidate in enumerate(self.candidates):
            past_first, past_second = bool(survival.survives_first[index]), bool(survival.survives_second[index])
            names = operator_names(self.config.genome)
            counts = {name: int(n) for name, n in zip(names, population.operators[index], strict=True)}
            is_parent = parent == Reference(generation=self.number, index=index)
            individuals.append(
                Individual(
                    generation=self.number,
                    phase=self.phase.name.lower(),
                    index=index,
                    parent=reference(self.evolution.parent_id),
                    operators=None if duplicated else counts,
                    repeats=tuple(population.repeats[index].tolist()) if duplicated else None,
                    architecture=candidate.architecture,
                    parameters=count_parameters(candidate.architecture, **sizes),
                    flops=count_flops(candidate.architecture, **sizes),
                    t1=lineage.landmark(candidate.fitness(0), first),
                    t2=lineage.landmark(candidate.fitness(1), second) if past_first else lineage.Landmark(),
                    t3=lineage.landmark(candidate.fitness(_LAST) if past_second else None),
                    test_accuracy=candidate.outcomes[_LAST].test_accuracy if survival.survives[index] else None,
                    fate=_fate(candidate, past_first, past_second, is_parent),
                    cause=candidate.cause,
                    same_as=candidate.same_as,
                    seconds_compiling=candidate.seconds.compiling,
                    seconds_training=candidate.seconds.training,
                )
            )
        return individuals

    def _measure(self, landmark: int, living: Sequence[Candidate], journal: Journal) -> None:
        """Gives every living candidate its fitness at a landmark; equal ones of a generation are trained once."""
        first: dict[Architecture, Candidate] = {}
        for candidate in living:
            first.setdefault(candidate.architecture, candidate)
        twins = [candidate for candidate in living if first[candidate.architecture] is not candidate]
        self._train(landmark, [each for each in first.values() if each.same_as is None], journal)
        for twin in twins:
            original = first[twin.architecture]
            if original.cause is not None or not self.config.reevaluate:
                place = Reference(generation=self.number, index=original.index)
                twin.same_as, twin.taken = original.same_as or place, original.outcomes
        self._train(landmark, [twin for twin in twins if twin.same_as is None], journal)
        for candidate in living:
            if candidate.same_as is not None:
                self._tell(landmark, candidate)

    def _train(self, landmark: int, candidates: Sequence[Candidate], journal: Journal) -> None:
        """Trains candidates to a landmark; each is in the journal as soon as it is measured."""
        to_train = []
        for candidate in candidates:
            if outcome := journal.outcomes.get((candidate.index, landmark)):
                candidate.trained.append(outcome)
                self._tell(landmark, candidate)
            else:
                to_train.append(candidate)

        def on_progress(position: int, step: int, loss: float, steps_per_second: float) -> None:
            self.context.observer.training_progress(
                index=to_train[position].index,
                landmark=landmark,
                step=step,
                until=self.config.landmarks[landmark],
                loss=loss,
                steps_per_second=steps_per_second,
            )

        jobs = [self._job(landmark, candidate) for candidate in to_train]
        for position, outcome in self.context.executor.run(jobs, on_progress=on_progress):
            candidate = to_train[position]
            journal.add(candidate.index, landmark, outcome)
            candidate.trained.append(outcome)
            self._tell(landmark, candidate)

    def _tell(self, landmark: int, candidate: Candidate) -> None:
        fitness = candidate.fitness(landmark)
        self.context.observer.individual_measured(
            index=candidate.index,
            landmark=landmark,
            fitness=fitness if math.isfinite(fitness) else None,
            cause=candidate.cause,
            same_as=candidate.same_as,
        )

    def _job(self, landmark: int, candidate: Candidate) -> Job:
        return Job(
            name=f"{self.number}.{candidate.index}",
            key=candidate.key,
            architecture=candidate.architecture,
            until=self.config.landmarks[landmark],
            config=self.config.train,
            folder=self._folder(candidate),
            tested=landmark == _LAST,
            # The executor asks its own, and a worker in another process could not ask this one.
            care=dataclasses.replace(self.context.care, should_stop=never),
        )

    def _folder(self, candidate: Candidate) -> Path:
        return self.context.folder.individuals.absolute() / f"{self.number}-{candidate.index}"


def clear_individuals(run: RunFolder, *, but: int | None = None) -> None:
    """Removes what the individuals of all generations left `but` of the one under way; raises a RunFolderError."""
    with told_as(RunFolderError, run.path):
        for folder in run.individuals.glob("*"):
            if but is None or not folder.name.startswith(f"{but}-"):
                shutil.rmtree(folder)
        if but is None:
            run.journal.unlink(missing_ok=True)
            if run.individuals.exists():
                run.individuals.rmdir()


def _outcomes_of(known: Individual) -> list[Outcome]:
    """What the record says that an individual measured, as its jobs said it."""
    # Thresholds never fall: who survives now and was measured to the end before survived then, and was tested.
    landmarks = ((known.t1, None), (known.t2, None), (known.t3, known.test_accuracy))
    outcomes = [
        Outcome(fitness=each.fitness, test_accuracy=tested) for each, tested in landmarks if each.fitness is not None
    ]
    return outcomes if known.cause is None else [*outcomes, Outcome(fitness=math.nan, cause=known.cause)]


def reference(identity: Array) -> Reference | None:
    """The individual that [2] int32 of a generation and an index name; None for the global-pooling network."""
    generation, index = (int(part) for part in identity)
    return None if generation == EvolutionState.NONE else Reference(generation=generation, index=index)


def _fate(candidate: Candidate, survived_first: bool, survived_second: bool, is_parent: bool) -> Fate:
    if candidate.cause is not None:
        return Fate.FAILED
    if not survived_first:
        return Fate.EXTINCT_T1
    if not survived_second:
        return Fate.EXTINCT_T2
    return Fate.PARENT if is_parent else Fate.SURVIVED
