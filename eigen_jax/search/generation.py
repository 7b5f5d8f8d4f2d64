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
from eigen_jax.evolution import EvolutionState, Phase, Survival, children, survivors
from eigen_jax.executor import Executor, Job, Outcome
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.mutation import Operator
from eigen_jax.resumable import SAVE_EVERY, Seconds
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.folder import RunFolder
from eigen_jax.search.journal import Journal
from eigen_jax.search.observer import SearchObserver
from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.files import told_as
from eigen_jax.store.run_files import RunFolderError

PyTree = Any

_LAST = 2  # the landmark T1 + T2 + T3


@dataclasses.dataclass(kw_only=True)
class Candidate:
    """An individual of the generation under way."""

    index: int
    architecture: Architecture
    key: Array
    same_as: Reference | None = None  # whose measurements these are
    fitness: list[float] = dataclasses.field(default_factory=lambda: [math.nan] * 3)  # at the landmarks
    cause: str | None = None
    test_accuracy: float | None = None  # of survivors only
    seconds: Seconds = dataclasses.field(default_factory=Seconds)

    def record(self, landmark: int, outcome: Outcome) -> None:
        """Takes over what became of the training to a landmark."""
        self.fitness[landmark] = outcome.fitness
        self.cause, self.test_accuracy = outcome.cause, outcome.test_accuracy
        # What a job that failed says it took, it took after the landmark before.
        self.seconds = outcome.seconds if outcome.cause is None else self.seconds + outcome.seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Care:
    """How individuals are looked after while they train; no outcome depends on it but that of a time limit."""

    save_every: float = SAVE_EVERY  # seconds between two saves of an individual
    time_limit: float | None = None  # seconds that an individual may take, compiling included; None: no limit


class GenerationTrainer:
    """Trains the generations of one search, and remembers what it measured."""

    def __init__(
        self,
        key: Array,
        config: SearchConfig,
        dataset: Dataset,
        run: RunFolder,
        executor: Executor,
        observer: SearchObserver,
        care: Care,
    ) -> None:
        self.key = key
        self.config = config
        self.dataset = dataset
        self.run = run
        self.executor = executor
        self.observer = observer
        self.care = care
        self.measured: dict[Architecture, Individual] = {}  # whose training gave an architecture's fitness
        self.tested: dict[Reference, float] = {}  # test accuracy of those that survived

    def remember(self, individuals: Iterable[Individual]) -> None:
        """Lets later individuals of the same architectures take the measurements over."""
        for individual in individuals:
            known = self.measured.get(individual.architecture)
            # One that went extinct is trained anew as a duplicate, and is then known to the end.
            if individual.same_as is None and (known is None or known.t3.fitness is None):
                self.measured[individual.architecture] = individual
            if individual.test_accuracy is not None:
                self.tested[individual.same_as or individual.reference] = individual.test_accuracy

    def candidates(self, evolution: EvolutionState) -> list[Candidate]:
        """The generation's individuals; what is known of equal architectures is taken over."""
        key = jax.random.fold_in(self.key, evolution.generation)
        spared = bool(self.config.evolution.spares(evolution.phase))
        genomes = jax.device_get(evolution.population.genomes)
        candidates = []
        for index in range(int(children(evolution).sum())):
            genome = jax.tree.map(lambda leaf, index=index: leaf[index], genomes)
            architecture = decode(genome, spec=self.config.genome)
            candidate = Candidate(index=index, architecture=architecture, key=jax.random.fold_in(key, index))
            known = self.measured.get(architecture)
            if known is not None and self._is_enough(known, to_the_end=spared):
                candidate.same_as = known.reference
                landmarks = (known.t1, known.t2, known.t3)
                candidate.fitness = [math.nan if each.fitness is None else each.fitness for each in landmarks]
                candidate.cause = known.cause
            candidates.append(candidate)
        return candidates

    def _is_enough(self, known: Individual, *, to_the_end: bool) -> bool:
        """Whether what is known of an equal individual is taken over; a failure always is."""
        measured = known.t3.fitness is not None or not to_the_end
        return known.cause is not None or (measured and not self.config.reevaluate)

    def train_to_landmarks(self, evolution: EvolutionState, candidates: list[Candidate]) -> Survival:
        """Algorithm 1: trains to each landmark in turn, and extinguishes after the first two.

        What the journal of this generation has is not trained again.
        """
        generation = int(evolution.generation)
        journal = Journal(self.run.journal, generation=generation, phase=Phase(int(evolution.phase)))
        alive = np.asarray(children(evolution))
        for landmark in range(_LAST + 1):
            self._measure(generation, landmark, candidates, alive, journal)
            survival = jax.device_get(survivors(evolution, self.fitness(candidates), config=self.config.evolution))
            if landmark < _LAST:
                survives = (survival.survives_first, survival.survives_second)[landmark]
                threshold = (survival.thresholds.first, survival.thresholds.second)[landmark]
                self.observer.individuals_extinct(
                    landmark=landmark,
                    indices=np.flatnonzero(alive & ~survives).tolist(),
                    threshold=lineage.landmark(None, float(threshold)).threshold,
                )
                alive = survives
        self._remember_tests(generation, candidates, survival)
        return survival

    def fitness(self, candidates: Sequence[Candidate]) -> Array:
        """[P, 3] float32; -inf where there is none, as in slots without a child."""
        fitness = np.full((self.config.evolution.population_size, 3), -np.inf, np.float32)
        fitness[: len(candidates)] = [candidate.fitness for candidate in candidates]
        # On the device, a NaN is a fault, which JAX_DEBUG_NANS is to find.
        return jnp.asarray(np.where(np.isnan(fitness), -np.inf, fitness))

    def variables(self, generation: int, candidate: Candidate, abstract: PyTree) -> PyTree:
        """The weights of a candidate that was trained to the end.

        Args:
            generation: the candidate's.
            candidate: one that was not taken over from another individual.
            abstract: the state's shapes.

        Raises:
            CheckpointError, ExecutorError: they cannot be read, nor trained again.
        """
        folder = self._folder(generation, candidate)
        try:
            return checkpoint.restore(folder, "state", abstract=abstract).variables
        except CheckpointError:
            # Damaged, or lost with the folder, after it was measured.
            list(self.executor.run([self._job(generation, _LAST, candidate)]))
            return checkpoint.restore(folder, "state", abstract=abstract).variables

    def clear(self, *, but: int | None = None) -> None:
        """Removes what the individuals of generations left that are over.

        Args:
            but: the generation under way, whose individuals' states stay.

        Raises:
            RunFolderError: they cannot be removed.
        """
        with told_as(RunFolderError, self.run.path):
            for folder in self.run.individuals.glob("*"):
                if but is None or not folder.name.startswith(f"{but}-"):
                    shutil.rmtree(folder)
            if but is None:
                self.run.journal.unlink(missing_ok=True)
                if self.run.individuals.exists():
                    self.run.individuals.rmdir()

    def _remember_tests(self, generation: int, candidates: list[Candidate], survival: Survival) -> None:
        """Notes the survivors' test accuracy, for the record only: nothing is selected by it."""
        for index in np.flatnonzero(survival.survives).tolist():
            candidate = candidates[index]
            if candidate.same_as is not None:
                # It has survived before, or earlier in this generation: thresholds never fall.
                candidate.test_accuracy = self.tested[candidate.same_as]
            else:
                assert candidate.test_accuracy is not None, "who survives was trained to the end"
                self.tested[Reference(generation=generation, index=index)] = candidate.test_accuracy

    def _measure(
        self, generation: int, landmark: int, candidates: list[Candidate], alive: np.ndarray, journal: Journal
    ) -> None:
        """Gives every living candidate its fitness at a landmark; equal ones of a generation are trained once."""
        living = [candidates[index] for index in np.flatnonzero(alive).tolist()]
        first: dict[Architecture, Candidate] = {}
        for candidate in living:
            first.setdefault(candidate.architecture, candidate)
        twins = [candidate for candidate in living if first[candidate.architecture] is not candidate]
        self._train(generation, landmark, [each for each in first.values() if each.same_as is None], journal)
        for twin in twins:
            original = first[twin.architecture]
            if original.cause is not None or not self.config.reevaluate:
                twin.same_as = original.same_as or Reference(generation=generation, index=original.index)
                twin.fitness, twin.cause = original.fitness, original.cause
        self._train(generation, landmark, [twin for twin in twins if twin.same_as is None], journal)
        for candidate in living:
            if candidate.same_as is not None:
                self._tell(landmark, candidate)

    def _train(self, generation: int, landmark: int, candidates: Sequence[Candidate], journal: Journal) -> None:
        """Trains candidates to a landmark; each is in the journal as soon as it is measured."""
        to_train = []
        for candidate in candidates:
            outcome = journal.outcomes.get((candidate.index, landmark))
            if outcome is None:
                to_train.append(candidate)
            else:
                candidate.record(landmark, outcome)
                self._tell(landmark, candidate)

        def on_progress(position: int, step: int, loss: float, steps_per_second: float) -> None:
            self.observer.training_progress(
                index=to_train[position].index,
                landmark=landmark,
                step=step,
                until=self.config.landmarks[landmark],
                loss=loss,
                steps_per_second=steps_per_second,
            )

        jobs = [self._job(generation, landmark, candidate) for candidate in to_train]
        for position, outcome in self.executor.run(jobs, on_progress=on_progress):
            candidate = to_train[position]
            journal.add(candidate.index, landmark, outcome)
            candidate.record(landmark, outcome)
            self._tell(landmark, candidate)

    def _tell(self, landmark: int, candidate: Candidate) -> None:
        fitness = candidate.fitness[landmark]
        self.observer.individual_measured(
            index=candidate.index,
            landmark=landmark,
            fitness=fitness if math.isfinite(fitness) else None,
            cause=candidate.cause,
            same_as=candidate.same_as,
        )

    def _job(self, generation: int, landmark: int, candidate: Candidate) -> Job:
        return Job(
            name=f"{generation}.{candidate.index}",
            key=candidate.key,
            architecture=candidate.architecture,
            until=self.config.landmarks[landmark],
            config=self.config.train,
            folder=self._folder(generation, candidate),
            tested=landmark == _LAST,
            save_every=self.care.save_every,
            time_limit=self.care.time_limit,
        )

    def _folder(self, generation: int, candidate: Candidate) -> Path:
        return self.run.individuals.absolute() / f"{generation}-{candidate.index}"


def individuals_of(
    evolution: EvolutionState,
    following: EvolutionState,
    candidates: Sequence[Candidate],
    survival: Survival,
    *,
    num_classes: int,
) -> list[Individual]:
    """The generation's lines of the record.

    Args:
        evolution: the state with the generation's population.
        following: the state after it.
        candidates: as trained.
        survival: who lives.
        num_classes: K.
    """
    duplicated = evolution.phase == Phase.DUPLICATION
    counts = np.asarray(evolution.population.operators).tolist()
    repeats = np.asarray(evolution.population.repeats).tolist()
    next_parent = [int(part) for part in following.parent_id]
    first_threshold, second_threshold = float(survival.thresholds.first), float(survival.thresholds.second)
    individuals = []
    for index, candidate in enumerate(candidates):
        survived_first = bool(survival.survives_first[index])
        survived_second = bool(survival.survives_second[index])
        first, second, last = candidate.fitness
        is_parent = [int(evolution.generation), index] == next_parent
        operators = {op.name.lower(): count for op, count in zip(Operator, counts[index], strict=True)}
        individuals.append(
            Individual(
                generation=int(evolution.generation),
                phase=Phase(int(evolution.phase)).name.lower(),
                index=index,
                parent=reference(evolution.parent_id),
                operators=None if duplicated else operators,
                repeats=tuple(repeats[index]) if duplicated else None,
                architecture=candidate.architecture,
                parameters=count_parameters(candidate.architecture, num_classes=num_classes),
                flops=count_flops(candidate.architecture, num_classes=num_classes),
                t1=lineage.landmark(first, first_threshold),
                t2=lineage.landmark(second, second_threshold) if survived_first else lineage.Landmark(),
                t3=lineage.landmark(last if survived_second else None),
                test_accuracy=candidate.test_accuracy,
                fate=_fate(candidate, survived_first, survived_second, is_parent),
                cause=candidate.cause,
                same_as=candidate.same_as,
                seconds_compiling=candidate.seconds.compiling,
                seconds_training=candidate.seconds.training,
            )
        )
    return individuals


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
