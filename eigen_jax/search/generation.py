"""One generation: children trained to the landmarks, those below the thresholds extinct, all recorded."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Container, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, count_flops, count_parameters, decode
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.evolution import EvolutionState, Phase, Survival, children, survival_selection
from eigen_jax.executor import Job, Outcome, prepare_job, run_job
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.mutation import Operator
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.observer import SearchObserver
from eigen_jax.training import Batch, Teacher, TrainState, batch_shapes, evaluate


@dataclasses.dataclass(kw_only=True)
class Candidate:
    """An individual of the generation under way."""

    architecture: Architecture
    key: Array
    same_as: Reference | None = None  # whose measurements these are
    fitness: list[float] = dataclasses.field(default_factory=lambda: [math.nan] * 3)  # at the landmarks
    cause: str | None = None
    state: TrainState | None = None  # at the last landmark that it was trained to
    test_accuracy: float | None = None  # of survivors only
    compile_seconds: float = 0.0
    train_seconds: float = 0.0

    def record(self, landmark: int, outcome: Outcome) -> None:
        """Takes over what became of the training to a landmark."""
        self.fitness[landmark] = outcome.fitness
        self.cause, self.state = outcome.cause, outcome.state
        self.compile_seconds += outcome.compile_seconds
        self.train_seconds += outcome.train_seconds


class GenerationTrainer:
    """Trains the generations of one search, and remembers what it measured."""

    def __init__(
        self, key: Array, config: SearchConfig, dataset: Dataset, teacher: Teacher | None, observer: SearchObserver
    ) -> None:
        self.key = key
        self.config = config
        self.dataset = dataset
        self.teacher = teacher
        self.observer = observer
        self.measured: dict[Architecture, Individual] = {}  # whose training gave an architecture's fitness
        self.tested: dict[Reference, float] = {}  # test accuracy of those that survived

    def remember(self, individuals: Iterable[Individual]) -> None:
        """Lets later individuals of the same architectures take the measurements over."""
        for individual in individuals:
            if individual.same_as is None:
                self.measured.setdefault(individual.architecture, individual)
            if individual.test_accuracy is not None:
                self.tested[individual.same_as or individual.reference] = individual.test_accuracy

    def candidates(self, evolution: EvolutionState) -> list[Candidate]:
        """The generation's individuals; what is known of equal architectures is taken over."""
        key = jax.random.fold_in(self.key, evolution.generation)
        genomes = jax.device_get(evolution.population.genomes)
        candidates = []
        for index in range(int(children(evolution).sum())):
            genome = jax.tree.map(lambda leaf, index=index: leaf[index], genomes)
            architecture = decode(genome, spec=self.config.genome)
            candidate = Candidate(architecture=architecture, key=jax.random.fold_in(key, index))
            known = self.measured.get(architecture)
            if known is not None and (known.cause is not None or not self.config.reevaluate):
                candidate.same_as = known.reference
                landmarks = (known.t1, known.t2, known.t3)
                candidate.fitness = [math.nan if each.fitness is None else each.fitness for each in landmarks]
                candidate.cause = known.cause
            candidates.append(candidate)
        return candidates

    def train_to_landmarks(self, evolution: EvolutionState, candidates: list[Candidate]) -> Survival:
        """Algorithm 1: trains to each landmark in turn, and extinguishes after the first two."""
        alive = np.asarray(children(evolution))
        for landmark in range(3):
            self._measure(int(evolution.generation), landmark, candidates, alive)
            survival = jax.device_get(
                survival_selection(evolution.thresholds, self.fitness(candidates), config=self.config.evolution)
            )
            if landmark < 2:
                survives = (survival.survives_first, survival.survives_second)[landmark]
                threshold = (survival.thresholds.first, survival.thresholds.second)[landmark]
                self.observer.individuals_extinct(
                    landmark=landmark,
                    indices=np.flatnonzero(alive & ~survives).tolist(),
                    threshold=float(str(threshold)),
                )
                alive = survives
        return survival

    def fitness(self, candidates: Sequence[Candidate]) -> Array:
        """[P, 3] float32; NaN where there is none, as in slots without a child."""
        fitness = np.full((self.config.evolution.population_size, 3), np.nan, np.float32)
        fitness[: len(candidates)] = [candidate.fitness for candidate in candidates]
        return jnp.asarray(fitness)

    def test_survivors(self, generation: int, candidates: list[Candidate], survival: Survival) -> None:
        """Measures the survivors on the test images, for the record only: nothing is selected by it."""
        for index in np.flatnonzero(survival.survives).tolist():
            candidate = candidates[index]
            if candidate.same_as is not None:
                # It has survived before, or earlier in this generation: thresholds never fall.
                candidate.test_accuracy = self.tested[candidate.same_as]
                continue
            assert candidate.state is not None, "who survives was trained to the end"
            candidate.test_accuracy = evaluate(
                candidate.state,
                self.dataset.test_images,
                self.dataset.test_labels,
                network=build_network(
                    candidate.architecture, num_classes=self.dataset.num_classes, dtype=self.config.train.dtype
                ),
                batch_size=self.config.train.eval_batch_size,
            )
            self.tested[Reference(generation=generation, index=index)] = candidate.test_accuracy

    def _measure(self, generation: int, landmark: int, candidates: list[Candidate], alive: np.ndarray) -> None:
        """Gives every living candidate its fitness at a landmark; equal ones of a generation are trained once."""
        first_of: dict[Architecture, int] = {}
        living = np.flatnonzero(alive).tolist()
        for position, index in enumerate(living):
            candidate = candidates[index]
            twin = first_of.setdefault(candidate.architecture, index)
            if twin != index and (candidates[twin].cause is not None or not self.config.reevaluate):
                original = candidates[twin]
                candidate.same_as = original.same_as or Reference(generation=generation, index=twin)
                candidate.fitness, candidate.cause = original.fitness, original.cause
            elif candidate.same_as is None:
                following = (candidates[later] for later in living[position + 1 :])
                self._prepare(landmark, candidate, following, first_of)
                candidate.record(landmark, self._train(index, landmark, candidate))
            fitness = candidate.fitness[landmark]
            self.observer.individual_measured(
                index=index,
                landmark=landmark,
                fitness=fitness if math.isfinite(fitness) else None,
                cause=candidate.cause,
                same_as=candidate.same_as,
            )

    def _prepare(
        self, landmark: int, candidate: Candidate, following: Iterable[Candidate], seen: Container[Architecture]
    ) -> None:
        """Compiles for a candidate, and for the next one with another network, beside the training to come."""
        others = (each for each in following if each.same_as is None and each.architecture not in seen)
        for each in (candidate, *itertools.islice(others, 1)):
            prepare_job(self._job(landmark, each), each.state, self.dataset, self._batch_shapes)

    @functools.cached_property
    def _batch_shapes(self) -> Batch:
        return batch_shapes(self.key, self.dataset, config=self.config.train, teacher=self.teacher)

    def _job(self, landmark: int, candidate: Candidate) -> Job:
        return Job(
            key=candidate.key,
            architecture=candidate.architecture,
            until=self.config.landmarks[landmark],
            config=self.config.train,
        )

    def _train(self, index: int, landmark: int, candidate: Candidate) -> Outcome:
        until = self.config.landmarks[landmark]

        def on_progress(step: int, loss: float, steps_per_second: float) -> None:
            self.observer.training_progress(
                index=index, landmark=landmark, step=step, until=until, loss=loss, steps_per_second=steps_per_second
            )

        job = self._job(landmark, candidate)
        return run_job(job, candidate.state, self.dataset, teacher=self.teacher, on_progress=on_progress)


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
                seconds_compiling=candidate.compile_seconds,
                seconds_training=candidate.train_seconds,
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
