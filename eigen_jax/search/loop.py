"""The loop: breed, train to the landmarks, extinguish, select, record, save; then the final training."""

import collections
import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from eigen_jax import lineage, platforms
from eigen_jax.architecture import Architecture, decode
from eigen_jax.builder import Network, build_network
from eigen_jax.config import describe
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.executor import Executor, InlineExecutor
from eigen_jax.lineage import Fate, Individual
from eigen_jax.resumable import Care
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.final import evaluate_network, train_network
from eigen_jax.search.folder import RunFolder
from eigen_jax.search.generation import Context, Generation, Measured, clear_individuals, reference
from eigen_jax.search.observer import SearchObserver
from eigen_jax.search.results import SearchResult, describe_search
from eigen_jax.store import checkpoint
from eigen_jax.store.locks import StoppedError
from eigen_jax.store.run_files import RunFolderError, write_result
from eigen_jax.strategies.eigen import EvolutionState, Phase, evolution_step, genesis
from eigen_jax.training import DivergedError, Programs, Teacher, TrainConfig, TrainState, abstract_state
from eigen_jax.training.programs import compiled

PyTree = Any

BARREN = 3  # generations without a survivor after which a search in which nothing ever survived is given up


class BarrenSearchError(EigenError):
    """A search in which nothing survives."""


@dataclasses.dataclass(kw_only=True)
class _Progress:
    """A search between two generations; a checkpoint holds these items."""

    evolution: EvolutionState
    variables: PyTree | None  # the trained weights of the best network; None while there is none


def run_search(
    config: SearchConfig,
    dataset: Dataset,
    folder: str | Path,
    *,
    teacher: Teacher | None = None,
    executor: Executor | None = None,
    care: Care | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    observer: SearchObserver | None = None,
) -> SearchResult:
    """Searches through all phases and trains the network found, or goes on with a search that was interrupted.

    The record of an interrupted search is the same, but for times, as that of one that was not, on
    the same machine and versions, with the same switches of JAX (see `eigen_jax.surroundings`; another
    one is warned of), where the device computes deterministically (the CPU does).

    Args:
        config, dataset: the search space must be of the data's image shape and number of classes.
        folder: the run folder; made where it is missing.
        teacher: whom all networks mimic, in every phase; None for plain cross-entropy. Where the
            final training is on the validation images as well, it must know them as the examples
            that follow the training images.
        executor: where individuals are trained, with this data set and teacher; by default, one after
            the other in this process.
        care: of individuals and of the final training; an executor that is given has its own `should_stop`.
        settings: what settings.json says of the run, and what must be the same for it to go on;
            all of `config` by default.
        notes: what else settings.json says of it.
        observer: who is told of what happens.

    Raises:
        StoppedError: it was asked to stop; the same call goes on.
        BarrenSearchError: nothing survived the first generations.
        ExecutorError: individuals cannot be trained, for a reason that lies in none of them.
        ConfigError: the config is not for this data set, or a batch is larger than the training set.
        RunFolderError: the folder cannot be written, is in use, belongs to another run (another
            teacher makes it another run), or has lost its checkpoints.
        LineageError, CheckpointError: a file of the run is damaged or cannot be written.
        FinalTrainingError: the final training failed for a reason that can pass.
    """
    check_data(config, dataset)
    care, observer = care or Care(), observer or SearchObserver()
    described = {
        **(_described(config) if settings is None else settings),
        "dataset": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "teacher_fingerprint": teacher.fingerprint if teacher else None,
    }
    with contextlib.ExitStack() as owned:
        run = owned.enter_context(RunFolder.open(folder, described, notes or {}))
        programs = owned.enter_context(Programs())
        if executor is None:
            executor = owned.enter_context(InlineExecutor(dataset, teacher=teacher, should_stop=care.should_stop))
        result = _Search(config, dataset, teacher, run, executor, care, observer, programs).run()
    observer.search_ended(result=result)
    return result


def _described(config: SearchConfig) -> dict[str, Any]:
    """All of a config that the outcome depends on."""
    content = describe(config)
    # Another number of devices rounds otherwise, and goes on with the same checkpoints.
    del content["train"]["devices"]
    return content


def check_data(config: SearchConfig, dataset: Dataset) -> None:
    """Raises `ConfigError` where a config is not for a data set."""
    shape = dataset.train_images.shape
    if config.genome.input_shape != shape[1:] or config.genome.num_classes != dataset.num_classes:
        rule = "the search space is for images {} of {} classes, and {} has {} of {}"
        asked, present = config.genome, (dataset.name, shape[1:], dataset.num_classes)
        raise ConfigError(None, rule, asked.input_shape, asked.num_classes, *present)
    if config.train.batch_size > shape[0]:
        rule = "{batch_size} is {}; it must be at most {}, the images to train on"
        raise ConfigError(TrainConfig, rule, config.train.batch_size, shape[0])


@dataclasses.dataclass
class _Search(Context):
    """A search in its run folder."""

    programs: Programs

    def __post_init__(self) -> None:
        self.measured = Measured(reevaluate=self.config.reevaluate)
        self.evolution_key, self.training_key, self.final_key = jax.random.split(jax.random.key(self.config.seed), 3)

    def run(self) -> SearchResult:
        """Goes through all that is left of the search."""
        progress = self._resume()
        self.observer.search_started(generation=int(progress.evolution.generation))
        while progress.evolution.phase != Phase.CONVERGED:
            self._check_goes_on(progress)
            progress = self._run_generation(progress)
            self._save(progress)
        return self._finish(progress)

    def _resume(self) -> _Progress:
        """The search after the last generation that was saved, or its start."""
        before = genesis(spec=self.config.genome, config=self.config.evolution)
        nobody = jnp.full((self.config.evolution.population_size, 3), -jnp.inf, jnp.float32)
        step = checkpoint.latest_step(self.folder.checkpoints)
        if step is None:
            self._check_nothing_is_lost()
        lineage.truncate(self.folder.lineage, step or 0)
        clear_individuals(self.folder, but=step or 0)
        if step is None:
            return _Progress(evolution=self._evolve(before, nobody), variables=None)
        self.measured.add(lineage.read(self.folder.lineage))
        restore = functools.partial(checkpoint.restore, self.folder.checkpoints, step=step)
        evolution = restore("evolution", abstract=jax.eval_shape(lambda: before))
        if not math.isfinite(evolution.best_fitness):
            return _Progress(evolution=evolution, variables=None)
        state = self._abstract_state(decode(evolution.best, spec=self.config.genome))
        return _Progress(evolution=evolution, variables=restore("variables", abstract=state.variables))

    def _network(self, architecture: Architecture) -> Network:
        return build_network(architecture, num_classes=self.dataset.num_classes, dtype=self.config.train.dtype)

    def _abstract_state(self, architecture: Architecture) -> TrainState:
        network, shape = self._network(architecture), architecture.input_shape
        return abstract_state(network=network, config=self.config.train, input_shape=shape)

    def _check_nothing_is_lost(self) -> None:
        """Without a checkpoint, the record holds at most the generation that was killed before the first."""
        recorded = lineage.read(self.folder.lineage) if self.folder.lineage.exists() else ()
        if recorded and recorded[-1].generation > 0:
            raise RunFolderError(
                f"{self.folder.path} has a record of {recorded[-1].generation + 1} generations and no intact"
                " checkpoint; put its checkpoints back, or choose another folder"
            )

    def _save(self, progress: _Progress) -> None:
        """Saves the search after a generation; its record is on disk already."""
        items = {name: item for name, item in vars(progress).items() if item is not None}
        checkpoint.save(self.folder.checkpoints, int(progress.evolution.generation), items)
        clear_individuals(self.folder)

    def _check_goes_on(self, progress: _Progress) -> None:
        """Raises `StoppedError` or `BarrenSearchError` where the next generation is not wanted, or has no chance."""
        if self.care.should_stop():
            raise StoppedError("the search was stopped between two generations")
        if math.isfinite(progress.evolution.best_fitness) or int(progress.evolution.generation) < BARREN:
            return
        individuals = lineage.read(self.folder.lineage)
        causes = collections.Counter(each.cause for each in individuals if each.fate is Fate.FAILED)
        (cause, count), *_ = causes.most_common(1)
        raise BarrenSearchError(
            f"nothing survived in {BARREN} generations: of {len(individuals)} individuals {causes.total()} failed,"
            f" {count} of them because {cause!r}; lower the learning rate or the size of the networks, and"
            " start in a new run folder"
        )

    def _run_generation(self, progress: _Progress) -> _Progress:
        """Trains, extinguishes, selects and records one generation."""
        generation = Generation(self.training_key, progress.evolution, self.measured, self)
        architectures = [candidate.architecture for candidate in generation.candidates]
        self.observer.generation_started(
            generation=generation.number, phase=generation.phase, architectures=architectures
        )
        survival = generation.train()
        following = self._evolve(progress.evolution, generation.fitness())
        individuals = generation.record(survival, following)
        lineage.append(self.folder.lineage, individuals)
        self.measured.add(individuals)
        self.observer.generation_ended(
            individuals=individuals, best_fitness=float(following.best_fitness), parent=reference(following.parent_id)
        )
        variables, best = progress.variables, reference(following.best_id)
        if best is not None and best.generation == generation.number:
            # Trained in this generation, and not taken over from an older one: ties keep the older one.
            variables = generation.variables(best.index, self._abstract_state(individuals[best.index].architecture))
        return _Progress(evolution=following, variables=variables)

    def _evolve(self, evolution: EvolutionState, fitness: Array) -> EvolutionState:
        arguments = (jax.random.fold_in(self.evolution_key, evolution.generation + 1), evolution, fitness)
        how: dict[str, Any] = {"programs": self.programs, "options": platforms.current().brief_options}
        # Compiled even for people who step through training: operation by operation, it would take minutes.
        with jax.disable_jit(False):
            step = compiled(evolution_step, arguments, spec=self.config.genome, config=self.config.evolution, **how)
            return step(*arguments)

    def _finish(self, progress: _Progress) -> SearchResult:
        """Trains and tests the best network, and saves it and the result."""
        individuals = lineage.read(self.folder.lineage)
        result = SearchResult(
            generations=int(progress.evolution.generation),
            trained=sum(individual.same_as is None for individual in individuals),
            search_seconds=math.fsum(each.seconds_compiling + each.seconds_training for each in individuals),
        )
        if progress.variables is not None:
            place = reference(progress.evolution.best_id)
            best = next(each for each in individuals if each.reference == place)
            result = self._train_best(best, progress.variables, result)
        write_result(self.folder.path, describe_search(result, config=self.config, teacher=self.teacher))
        return result

    def _train_best(self, best: Individual, variables: PyTree, result: SearchResult) -> SearchResult:
        """The final training. Where it is turned off, or diverges, the weights of the search are kept."""
        batch_size = self.config.train.eval_batch_size
        searched = evaluate_network(self._network(best.architecture), variables, self.dataset, batch_size=batch_size)
        result = dataclasses.replace(
            result,
            best=best,
            validation_accuracy=best.t3.fitness,
            search_test_accuracy=searched.accuracy,
            test=searched,
        )
        if self.config.final_until:
            self.observer.final_training_started(best=best, until=self.config.final_until)

            def on_progress(step: int, loss: float, steps_per_second: float) -> None:
                self.observer.final_training_progress(step=step, loss=loss, steps_per_second=steps_per_second)

            began = time.perf_counter()
            try:
                trained = train_network(
                    self.final_key,
                    best.architecture,
                    self.dataset,
                    self.folder.final_checkpoints,
                    config=self.config,
                    teacher=self.teacher,
                    care=self.care,
                    on_progress=on_progress,
                    programs=self.programs,
                )
            except DivergedError as error:
                seconds = time.perf_counter() - began
                result = dataclasses.replace(result, final_cause=str(error), final_seconds=seconds)
            else:
                variables = trained.variables
                result = dataclasses.replace(
                    result,
                    final_validation_accuracy=trained.validation_accuracy,
                    test=trained.test,
                    final_seconds=trained.seconds,
                )
        self.folder.save_network(best.architecture, variables)
        return result
