"""The loop: breed, train to the landmarks, extinguish, select, record, save; until converged."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax import checkpoint, lineage
from eigen_jax.architecture import Architecture, count_flops, count_parameters, decode, fingerprint
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.evolution import EvolutionState, Phase, Survival, evolution_step, initial_state, survival_selection
from eigen_jax.executor import Job, Outcome, run_job
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.mutation import Operator
from eigen_jax.search.config import SearchConfig, SearchConfigError
from eigen_jax.search.folder import RunFolder, RunFolderError
from eigen_jax.search.observer import SearchObserver, SearchResult
from eigen_jax.training import TrainState, abstract_state, evaluate

PyTree = Any


@dataclasses.dataclass(kw_only=True)
class _Candidate:
    """An individual of the generation under way."""

    architecture: Architecture
    key: Array
    same_as: Reference | None = None  # whose measurements these are
    fitness: list[float] = dataclasses.field(default_factory=lambda: [math.nan] * 3)  # at the landmarks
    cause: str | None = None
    state: TrainState | None = None  # at the last landmark that it was trained to
    compile_seconds: float = 0.0
    train_seconds: float = 0.0

    def record(self, landmark: int, outcome: Outcome) -> None:
        self.fitness[landmark] = outcome.fitness
        self.cause, self.state = outcome.cause, outcome.state
        self.compile_seconds += outcome.compile_seconds
        self.train_seconds += outcome.train_seconds


@dataclasses.dataclass(kw_only=True)
class _Progress:
    """A search between two generations, as a checkpoint holds it."""

    evolution: EvolutionState
    variables: PyTree | None  # the trained weights of the best network; None while there is none


def run_search(
    config: SearchConfig,
    dataset: Dataset,
    folder: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    observer: SearchObserver | None = None,
) -> SearchResult:
    """Searches until both successions have converged, or goes on with a search that was interrupted.

    The record of an interrupted search is the same, but for times, as that of one that was not, on
    the same machine and versions, where the device computes deterministically (the CPU does).

    Args:
        config: the search.
        dataset: the data; `config.genome` must be of its image shape and number of classes.
        folder: the run folder; made where it is missing.
        settings: what settings.json says of the run, and what must be the same for it to go on;
            all of `config` by default.
        notes: what else settings.json says of it.
        observer: who is told of what happens.

    Raises:
        SearchConfigError: the config is not for this data set.
        RunFolderError: the folder cannot be written, is in use, belongs to another run, or has lost
            its checkpoints.
        TrainConfigError: a batch is larger than the training set.
        LineageError, CheckpointError: a file of the run is damaged or cannot be written.
    """
    _check_data(config, dataset)
    observer = observer or SearchObserver()
    described = dataclasses.asdict(config) if settings is None else settings
    described = {**described, "dataset": dataset.name, "data_fingerprint": dataset.fingerprint}
    with RunFolder.open(folder, described, notes or {}) as run:
        search = _Search(config, dataset, run, observer)
        progress = search.resume()
        observer.search_started(generation=int(progress.evolution.generation))
        while progress.evolution.phase != Phase.CONVERGED:
            progress = search.run_generation(progress)
            search.save(progress)
        result = search.finish(progress)
    observer.search_ended(result=result)
    return result


def _check_data(config: SearchConfig, dataset: Dataset) -> None:
    shape = dataset.train_images.shape
    if config.genome.input_shape != shape[1:] or config.genome.num_classes != dataset.num_classes:
        raise SearchConfigError(
            f"the search space is for images {config.genome.input_shape} of {config.genome.num_classes} classes,"
            f" and {dataset.name} has {shape[1:]} of {dataset.num_classes}"
        )
    if config.train.batch_size > shape[0]:
        raise SearchConfigError(
            f"batch_size is {config.train.batch_size}; it must be at most {shape[0]}, the images to train on"
        )


class _Search:
    """What stays the same through a search, and the steps that need it."""

    def __init__(self, config: SearchConfig, dataset: Dataset, run: RunFolder, observer: SearchObserver) -> None:
        self.config = config
        self.dataset = dataset
        self.run = run
        self.observer = observer
        self.evolution_key, self.training_key = jax.random.split(jax.random.key(config.seed))
        self.measured: dict[Architecture, Individual] = {}  # whose training gave an architecture's fitness

    def resume(self) -> _Progress:
        """The search after the last generation that was saved, or its start."""
        begin = functools.partial(initial_state, spec=self.config.genome, config=self.config.evolution)
        generation_key = jax.random.fold_in(self.evolution_key, 0)
        step = checkpoint.latest_step(self.run.checkpoints)
        if step is None:
            self._check_nothing_is_lost()
        lineage.truncate(self.run.lineage, step or 0)
        if step is None:
            return _Progress(evolution=begin(generation_key), variables=None)
        self._remember(lineage.read(self.run.lineage))
        restore = functools.partial(checkpoint.restore, self.run.checkpoints, step=step)
        evolution = restore("evolution", abstract=jax.eval_shape(begin, generation_key))
        if not math.isfinite(evolution.best_fitness):
            return _Progress(evolution=evolution, variables=None)
        state = abstract_state(
            network=build_network(self._decode(evolution.best), num_classes=self.dataset.num_classes),
            config=self.config.train,
            input_shape=self.config.genome.input_shape,
        )
        return _Progress(evolution=evolution, variables=restore("variables", abstract=state.variables))

    def _remember(self, individuals: Iterable[Individual]) -> None:
        """Lets later individuals of the same architectures take the measurements over."""
        for individual in individuals:
            if individual.same_as is None:
                self.measured.setdefault(individual.architecture, individual)

    def _check_nothing_is_lost(self) -> None:
        """Without a checkpoint, the record holds at most the generation that was killed before the first."""
        recorded = lineage.read(self.run.lineage) if self.run.lineage.exists() else ()
        if recorded and recorded[-1].generation > 0:
            raise RunFolderError(
                f"{self.run.path} has a record of {recorded[-1].generation + 1} generations and no intact checkpoint;"
                " put its checkpoints back, or choose another folder"
            )

    def save(self, progress: _Progress) -> None:
        """Saves the search after a generation; its record is on disk already."""
        items = {"evolution": progress.evolution}
        if progress.variables is not None:
            items["variables"] = progress.variables
        checkpoint.save(self.run.checkpoints, int(progress.evolution.generation), items)

    def run_generation(self, progress: _Progress) -> _Progress:
        """Trains, extinguishes, selects and records one generation."""
        evolution = progress.evolution
        generation = int(evolution.generation)
        candidates = self._candidates(evolution)
        architectures = [candidate.architecture for candidate in candidates]
        self.observer.generation_started(
            generation=generation, phase=Phase(int(evolution.phase)), architectures=architectures
        )
        survival = self._train_to_landmarks(evolution, candidates)
        following = evolution_step(
            jax.random.fold_in(self.evolution_key, generation + 1),
            evolution,
            _fitness(candidates),
            spec=self.config.genome,
            config=self.config.evolution,
        )
        individuals = self._individuals(evolution, following, candidates, survival)
        lineage.append(self.run.lineage, individuals)
        self._remember(individuals)
        self.observer.generation_ended(individuals=individuals, best_fitness=float(following.best_fitness))
        variables = progress.variables
        best_generation, best_index = (int(part) for part in following.best_id)
        if best_generation == generation:
            state = candidates[best_index].state
            assert state is not None, "the fittest of all was trained in this generation: ties keep the older one"
            variables = state.variables
        return _Progress(evolution=following, variables=variables)

    def finish(self, progress: _Progress) -> SearchResult:
        """Tests the best network, with the weights that it was measured with, and saves it and the result.

        T1 + T2 + T3 steps are the whole schedule of Section 4.1, so it is trained to the end.
        """
        individuals = lineage.read(self.run.lineage)
        trained = sum(individual.same_as is None for individual in individuals)
        evolution, variables = progress.evolution, progress.variables
        generations = int(evolution.generation)
        best, test_accuracy = None, None
        if variables is not None:
            generation, index = (int(part) for part in evolution.best_id)
            best = next(each for each in individuals if (each.generation, each.index) == (generation, index))
            test_accuracy = self._test(best.architecture, variables)
            self.run.save_network(best.architecture, variables)
        result = SearchResult(
            best=best,
            validation_accuracy=best.t3.fitness if best else None,
            test_accuracy=test_accuracy,
            generations=generations,
            trained=trained,
        )
        self.run.save_result(_describe(result))
        return result

    def _test(self, architecture: Architecture, variables: PyTree) -> float:
        network = build_network(architecture, num_classes=self.dataset.num_classes)
        state = TrainState(step=jnp.asarray(self.config.landmarks[-1], jnp.int32), opt_state=(), **variables)
        batch_size = self.config.train.eval_batch_size
        return evaluate(
            state, self.dataset.test_images, self.dataset.test_labels, network=network, batch_size=batch_size
        )

    def _decode(self, genome) -> Architecture:
        return decode(genome, spec=self.config.genome)

    def _candidates(self, evolution: EvolutionState) -> list[_Candidate]:
        """The generation's individuals; what is known of equal architectures is taken over."""
        key = jax.random.fold_in(self.training_key, evolution.generation)
        genomes = jax.device_get(evolution.population.genomes)
        candidates = []
        for index in range(self.config.evolution.population_size):
            architecture = self._decode(jax.tree.map(lambda leaf, index=index: leaf[index], genomes))
            candidate = _Candidate(architecture=architecture, key=jax.random.fold_in(key, index))
            known = self.measured.get(architecture)
            if known is not None and (known.cause is not None or not self.config.reevaluate):
                candidate.same_as = known.reference
                landmarks = (known.t1, known.t2, known.t3)
                candidate.fitness = [math.nan if each.fitness is None else each.fitness for each in landmarks]
                candidate.cause = known.cause
            candidates.append(candidate)
        return candidates

    def _train_to_landmarks(self, evolution: EvolutionState, candidates: list[_Candidate]) -> Survival:
        """Algorithm 1: trains to each landmark in turn, and extinguishes after the first two."""
        alive = np.ones(len(candidates), bool)
        for landmark in range(3):
            self._measure(int(evolution.generation), landmark, candidates, alive)
            survival = jax.device_get(
                survival_selection(evolution.thresholds, _fitness(candidates), config=self.config.evolution)
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

    def _measure(self, generation: int, landmark: int, candidates: list[_Candidate], alive: np.ndarray) -> None:
        """Gives every living candidate its fitness at a landmark; equal ones of a generation are trained once."""
        first_of: dict[Architecture, int] = {}
        for index in np.flatnonzero(alive).tolist():
            candidate = candidates[index]
            twin = first_of.setdefault(candidate.architecture, index)
            if twin != index and (candidates[twin].cause is not None or not self.config.reevaluate):
                original = candidates[twin]
                candidate.same_as = original.same_as or Reference(generation=generation, index=twin)
                candidate.fitness, candidate.cause = original.fitness, original.cause
            elif candidate.same_as is None:
                candidate.record(landmark, self._train(index, landmark, candidate))
            fitness = candidate.fitness[landmark]
            self.observer.individual_measured(
                index=index,
                landmark=landmark,
                fitness=fitness if math.isfinite(fitness) else None,
                cause=candidate.cause,
                same_as=candidate.same_as,
            )

    def _train(self, index: int, landmark: int, candidate: _Candidate) -> Outcome:
        until = self.config.landmarks[landmark]

        def on_progress(step: int, loss: float, steps_per_second: float) -> None:
            self.observer.training_progress(
                index=index, landmark=landmark, step=step, until=until, loss=loss, steps_per_second=steps_per_second
            )

        job = Job(key=candidate.key, architecture=candidate.architecture, until=until, config=self.config.train)
        return run_job(job, candidate.state, self.dataset, on_progress=on_progress)

    def _individuals(
        self,
        evolution: EvolutionState,
        following: EvolutionState,
        candidates: Sequence[_Candidate],
        survival: Survival,
    ) -> list[Individual]:
        """The generation's lines of the record."""
        generation, num_classes = int(evolution.generation), self.dataset.num_classes
        parent_generation, parent_index = (int(part) for part in evolution.parent_id)
        parent = None
        if parent_generation != EvolutionState.NONE:
            parent = Reference(generation=parent_generation, index=parent_index)
        counts = np.asarray(evolution.population.operators).tolist()
        next_parent = [int(part) for part in following.parent_id]
        first_threshold, second_threshold = float(survival.thresholds.first), float(survival.thresholds.second)
        individuals = []
        for index, candidate in enumerate(candidates):
            survived_first, survived_second = (
                bool(survival.survives_first[index]),
                bool(survival.survives_second[index]),
            )
            first, second, last = candidate.fitness
            individuals.append(
                Individual(
                    generation=generation,
                    phase=Phase(int(evolution.phase)).name.lower(),
                    index=index,
                    parent=parent,
                    operators={op.name.lower(): count for op, count in zip(Operator, counts[index], strict=True)},
                    architecture=candidate.architecture,
                    parameters=count_parameters(candidate.architecture, num_classes=num_classes),
                    flops=count_flops(candidate.architecture, num_classes=num_classes),
                    t1=lineage.landmark(first, first_threshold),
                    t2=lineage.landmark(second, second_threshold) if survived_first else lineage.Landmark(),
                    t3=lineage.landmark(last if survived_second else None),
                    fate=_fate(candidate, survived_first, survived_second, [generation, index] == next_parent),
                    cause=candidate.cause,
                    same_as=candidate.same_as,
                    seconds_compiling=candidate.compile_seconds,
                    seconds_training=candidate.train_seconds,
                )
            )
        return individuals


def _fate(candidate: _Candidate, survived_first: bool, survived_second: bool, is_parent: bool) -> Fate:
    if candidate.cause is not None:
        return Fate.FAILED
    if not survived_first:
        return Fate.EXTINCT_T1
    if not survived_second:
        return Fate.EXTINCT_T2
    return Fate.PARENT if is_parent else Fate.SURVIVED


def _fitness(candidates: Sequence[_Candidate]) -> Array:
    """[P, 3] float32."""
    return jnp.asarray(np.array([candidate.fitness for candidate in candidates], np.float32))


def _describe(result: SearchResult) -> dict[str, Any]:
    """result.json."""
    best = result.best
    network = None
    if best is not None:
        network = {
            "individual": dataclasses.asdict(best.reference),
            "fingerprint": fingerprint(best.architecture),
            "layers": len(best.architecture.layers),
            "parameters": best.parameters,
            "flops": best.flops,
        }
    return {
        "validation_accuracy": result.validation_accuracy,
        "test_accuracy": result.test_accuracy,
        "generations": result.generations,
        "trained": result.trained,
        "network": network,
    }
