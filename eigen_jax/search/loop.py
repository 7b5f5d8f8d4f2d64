"""The loop: breed, train to the landmarks, extinguish, select, record, save; then the final training."""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from eigen_jax import lineage
from eigen_jax.architecture import Architecture
from eigen_jax.builder import Network, build_network
from eigen_jax.config import describe, name_of
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.executor import Executor, InlineExecutor
from eigen_jax.fitness import Fitness, accuracy, num_objectives
from eigen_jax.genome import OPERATORS
from eigen_jax.layer_kinds import BUILT_IN, KINDS
from eigen_jax.lineage import Fate, Individual, fittest
from eigen_jax.processor import ImageProcessor
from eigen_jax.resumable import Care
from eigen_jax.search.budget import TeacherFlops, check_budget, search_keys
from eigen_jax.search.candidates import Candidate, candidates_of, reference
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.final import Evaluation, TrainedNetwork, evaluate_network, train_network
from eigen_jax.search.folder import RunFolder
from eigen_jax.search.generation import Context, Generation
from eigen_jax.search.observer import SearchObserver
from eigen_jax.search.results import SearchResult, describe_mimicry, sum_flops, summarise
from eigen_jax.search.states import States, name_of_strategy
from eigen_jax.store import checkpoint
from eigen_jax.store.locks import StoppedError
from eigen_jax.store.records import to_fields
from eigen_jax.store.run_files import Reference, RunFolderError, RunSeconds, write_result
from eigen_jax.strategies import Eigen, State, Strategy
from eigen_jax.training import Programs, Teacher, TrainConfig, TrainState, abstract_state

PyTree = Any

BARREN = 3  # populations without a survivor after which a search in which nothing ever survived is given up


class BarrenSearchError(EigenError):
    """A search in which nothing survives."""


@dataclasses.dataclass(kw_only=True)
class _Progress:
    """A search between two generations; a checkpoint holds the state and the weights."""

    generation: int  # that is next: how many are over
    state: State  # of the strategy
    best: Individual | None  # the fittest so far
    variables: PyTree | None  # its trained weights
    spent: int = 0  # training FLOPs of all individuals; of those of older records, none are known


def run_search(
    config: SearchConfig,
    dataset: Dataset,
    folder: str | Path,
    *,
    strategy: Strategy | None = None,
    fitness: Fitness = accuracy,
    teacher: Teacher | None = None,
    teacher_flops: TeacherFlops | None = None,
    executor: Executor | None = None,
    care: Care | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    observer: SearchObserver | None = None,
) -> SearchResult:
    """Searches until the strategy is done and trains the network found, or goes on with an interrupted search.

    The record of an interrupted search is the same, but for times, as that of one that was not, on the same machine
    and versions, with the same switches of JAX (see `eigen_jax.surroundings`; another one is warned of), where the
    device computes deterministically (the CPU does).

    Args:
        config, dataset: the search space must be of the data's image shape and number of classes.
        folder: the run folder; made where it is missing.
        strategy: who breeds and selects, in the config's search space; by default, EIGEN with `config.evolution`.
        fitness: what a measurement is worth, in as many objectives as the strategy has. The network found is the
            first of those with the highest first objective.
        teacher: whom all networks mimic; None for plain cross-entropy. Where the final training is on the validation
            images as well, it must know them as the examples that follow the training images.
        teacher_flops: what the teacher takes of the budget, and of the FLOPs that are recorded; by default nothing.
        executor: where individuals are trained, with this data set and teacher; by default, one after the other here.
        care: of individuals and of the final training; an executor that is given has its own `should_stop`.
        settings: what settings.json says of the run, and must be the same for it to go on; by default, all of `config`.
        notes: what else settings.json says of it.

    Raises:
        StoppedError: it was asked to stop; the same call goes on.
        BarrenSearchError: nothing survived the first generations.
        ExecutorError: individuals cannot be trained, for a reason that lies in none of them.
        ConfigError: the config is not for this data set, a batch is larger than the training set, config,
            strategy and fitness do not go together, or the budget is too small, see `check_budget`.
        FitnessError: the fitness gives no numbers.
        RunFolderError: the folder cannot be written, is in use, belongs to another run (another teacher makes it
            another run), or has lost its checkpoints.
        LineageError, CheckpointError: a file of the run is damaged or cannot be written.
        FinalTrainingError: the final training failed for a reason that can pass.
    """
    check_data(config, dataset)
    strategy = strategy or Eigen(spec=config.genome, config=config.evolution)
    _check_together(config, strategy, fitness)
    teacher_flops = teacher_flops or TeacherFlops()
    care, observer = care or Care(), observer or SearchObserver()
    if settings is None:
        settings = describe(config)
        # Another number of devices rounds otherwise, and goes on with the same checkpoints.
        del settings["train"]["devices"]
    described = {
        **settings,
        "dataset": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "teacher_fingerprint": teacher.fingerprint if teacher else None,
        **_described_own(config, strategy),
        "fitness": name_of(fitness),
    }
    with contextlib.ExitStack() as owned:
        programs = owned.enter_context(Programs())
        check_budget(config, strategy, teacher_flops, programs=programs)
        run = owned.enter_context(RunFolder.open(folder, described, notes or {}))
        if executor is None:
            executor = owned.enter_context(InlineExecutor(dataset, teacher=teacher, should_stop=care.should_stop))
        search = _Search(
            config=config,
            strategy=strategy,
            fitness=fitness,
            dataset=dataset,
            teacher=teacher,
            folder=run,
            care=care,
            observer=observer,
            executor=executor,
            teacher_flops=teacher_flops,
            programs=programs,
        )
        result = search.run()
    observer.search_ended(result=result)
    return result


def _described_own(config: SearchConfig, strategy: Strategy) -> dict[str, Any]:
    """What a record says of a strategy, and of the layer kinds and operators that are not the library's own."""
    space = config.genome
    fields = {field.name: getattr(strategy, field.name) for field in dataclasses.fields(strategy)}
    given = {"spec": space, "config": config.evolution, "objectives": strategy.objectives}
    return {
        "strategy": name_of_strategy(type(strategy)),
        **{f"strategy_{name}": name_of(value) for name, value in fields.items() if given.get(name) != value},
        **{f"kind_{name}": name_of(KINDS.find(name).layer) for name in space.kinds if name not in BUILT_IN},
        **{f"operator_{name}": name_of(OPERATORS.find(name).apply) for name in space.operators},
    }


def _check_together(config: SearchConfig, strategy: Strategy, fitness: Fitness) -> None:
    if not isinstance(strategy, Strategy):
        raise ConfigError(None, "the strategy is {!r}; it must be an eigen_jax.Strategy", strategy)
    landmarks = strategy.landmarks(config.landmarks)
    if len(landmarks) != strategy.num_landmarks or list(landmarks) != sorted(set(landmarks)):
        rule = "the strategy measures after {} steps; it must be {} numbers in ascending order"
        raise ConfigError(None, rule, landmarks, strategy.num_landmarks)
    if strategy.spec != config.genome:
        raise ConfigError(
            None, "the strategy breeds in another search space than that of the config; give it {}", "config.genome"
        )
    if (objectives := num_objectives(fitness)) != strategy.objectives:
        rule = "the fitness {} gives {} objectives, and the strategy compares {}; choose others that go together"
        raise ConfigError(None, rule, name_of(fitness), objectives, strategy.objectives)


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


@dataclasses.dataclass(kw_only=True)
class _Search(Context):
    programs: Programs

    def __post_init__(self) -> None:
        super().__post_init__()
        breeding_key, self.training_key, self.final_key = search_keys(self.config)
        is_bounded = self.budget is not None
        how: dict[str, Any] = {"strategy": self.strategy, "has_budget": is_bounded, "programs": self.programs}
        self.states = States(key=breeding_key, **how)
        self.ahead: dict[Reference, Candidate] = {}  # individuals of later generations, bred already

    def run(self) -> SearchResult:
        progress = self._resume()
        self.observer.search_started(generation=progress.generation, landmarks=self.landmarks)
        self._tell_spending(progress)
        while not self.strategy.is_done(progress.state) and (following := self._run_generation(progress)):
            progress = following
            weights = {} if progress.best is None else {"variables": progress.variables}
            checkpoint.save(self.folder.checkpoints, progress.generation, {"evolution": progress.state, **weights})
            self._forget(before=progress.generation, state=progress.state)
            self._tell_spending(progress)
        return self._finish(progress)

    def _resume(self) -> _Progress:
        """The search after the last generation that was saved, or its start."""
        step = checkpoint.latest_step(self.folder.checkpoints)
        recorded = lineage.read(self.folder.lineage) if self.folder.lineage.exists() else ()
        # Without a checkpoint, the record holds at most the generation that was killed before the first.
        if step is None and recorded and recorded[-1].generation > 0:
            raise RunFolderError(
                f"{self.folder.path} has a record of {recorded[-1].generation + 1} generations and no intact"
                " checkpoint; put its checkpoints back, or choose another folder"
            )
        lineage.truncate(self.folder.lineage, step or 0)
        if step is None:
            return _Progress(generation=0, state=self.states.first(), best=None, variables=None)
        recorded = tuple(each for each in recorded if each.generation < step)
        self.remember(recorded)
        abstract = self.states.abstract()
        state = checkpoint.restore(self.folder.checkpoints, "evolution", step=step, abstract=abstract)
        self._forget(before=step, state=state)
        best, variables = fittest(recorded), None
        if best is not None:
            network = self._abstract_state(best).variables
            variables = checkpoint.restore(self.folder.checkpoints, "variables", step=step, abstract=network)
        spent = sum(each.training_flops or 0 for each in recorded)
        return _Progress(generation=step, state=state, best=best, variables=variables, spent=spent)

    def _network(self, architecture: Architecture) -> Network:
        return build_network(architecture, num_classes=self.dataset.num_classes, dtype=self.config.train.dtype)

    def _abstract_state(self, individual: Individual) -> TrainState:
        network, shape = self._network(individual.architecture), individual.architecture.input_shape
        train = self.config.with_training(individual.training).train
        return abstract_state(network=network, config=train, input_shape=shape)

    def _forget(self, *, before: int, state: State) -> None:
        """Drops what individuals of generations `before` one left beside the record, but for what can be inherited."""
        self.journal.forget(before=before)
        if self.forebears:
            ancestors = map(reference, jax.device_get(self.strategy.ancestors(state)))
            kept = {*ancestors, *self._parents(state)}
            self.forebears = {place: each for place, each in self.forebears.items() if place in kept}
        self.folder.clear_individuals(before=before, kept=self.forebears)

    def _parents(self, state: State) -> list[Reference]:
        """Of whom those who are due, or in training, descend."""
        parents = jax.device_get(self.strategy.population(state)).parents.reshape(-1, 2)
        return list(filter(None, map(reference, parents)))

    def _check_goes_on(self, progress: _Progress, slots: int) -> None:
        """Raises `StoppedError` or `BarrenSearchError` where the next generation is not wanted, or has no chance."""
        if self.care.should_stop():
            raise StoppedError("the search was stopped between two generations")
        if progress.best is not None or not progress.generation:
            return
        individuals = lineage.read(self.folder.lineage)
        if len(individuals) < BARREN * slots:
            return
        causes = collections.Counter(each.cause for each in individuals if each.fate is Fate.FAILED)
        problem = "none has a finite fitness; mend it, or loosen its limits"
        for cause, count in causes.most_common(1):
            problem = f"{causes.total()} failed, {count} of them because {cause!r}; lower the learning rate or the size"
            problem += " of the networks"
        raise BarrenSearchError(
            f"nothing survived in {progress.generation} generations: of {len(individuals)} individuals {problem}, and"
            " start in a new run folder"
        )

    def _price_of(self, best: Individual | None) -> int:
        return self.price(best.architecture) if best else 0

    def _tell_spending(self, progress: _Progress) -> None:
        if self.budget is not None:
            self.observer.budget_spent(budget=self.budget, spent=progress.spent)

    def _run_generation(self, progress: _Progress) -> _Progress | None:
        """Trains, extinguishes, selects and records one generation; None where no budget is left for it."""
        number, state = progress.generation, progress.state
        population = self.strategy.population(state)
        self._check_goes_on(progress, len(population.places))
        candidates = candidates_of(self.strategy, population, self.training_key, known=self.ahead)
        generation, of_best = Generation(number, state, candidates, self), self._price_of(progress.best)
        if self.budget and not generation.is_paid_for(self.budget, progress.spent, of_best):
            return None
        self.ahead = {each.place: each for each in generation.ahead}
        self.observer.generation_started(
            generation=number,
            phase=self.strategy.phase(state),
            title=self.strategy.title(state),
            architectures={each.place: each.architecture for each in candidates},
            quota=self.strategy.quota(state),
        )
        fitness = generation.train()
        spent = progress.spent + sum(map(generation.flops, generation.due))
        share = self.budget.share(spent, of_best) if self.budget else 0.0
        following = self.states.following(number + 1, state, fitness, share)
        parents = self._parents(following)
        individuals = generation.record(parents)
        lineage.append(self.folder.lineage, individuals)
        self.remember(individuals)
        best, variables = fittest([progress.best, *individuals]), progress.variables
        if best is not None and best.generation == number:
            # Trained in this generation, and not taken over from an older one: ties keep the older one.
            variables = generation.variables(best.reference, self._abstract_state(best))
        self.observer.generation_ended(
            individuals=individuals,
            best_fitness=best.end.fitness[0] if best and best.end and best.end.fitness else -math.inf,
            parent=next(iter(parents), None),
        )
        return _Progress(generation=number + 1, state=following, best=best, variables=variables, spent=spent)

    def _finish(self, progress: _Progress) -> SearchResult:
        """Trains and tests the best network, and saves it and the result."""
        self.folder.clear_individuals(before=progress.generation)  # from whom nobody inherits any more
        individuals, best, config = lineage.read(self.folder.lineage), progress.best, self.config
        of_best, until = self._price_of(best), self.config.final_until
        if best and self.budget:
            until = self.budget.final_until(progress.spent, of_best)
        searched, final = self._train_best(best, progress.variables, until) if best else (None, None)
        test = final.test if final and final.test else searched
        seconds = math.fsum(each.seconds_compiling + each.seconds_training for each in individuals)
        result = SearchResult(
            best=best,
            validation_accuracy=best.accuracy if best else None,
            search_test_accuracy=searched.accuracy if searched else None,
            final_validation_accuracy=final.validation_accuracy if final else None,
            test_accuracy=test.accuracy if test else None,
            mirrored_test_accuracy=test.mirrored_accuracy if test else None,
            test_logits=test.logits_digest if test else None,
            confusion=test.confusion if test else None,
            final_cause=final.cause if final else None,
            generations=progress.generation,
            trained=sum(individual.same_as is None for individual in individuals),
            network=summarise(best.architecture, config, best.reference) if best else None,
            dtype=config.train.dtype,
            seconds=RunSeconds(search=seconds, final=final.seconds if final else None),
            training_flops=sum_flops(self.teacher_flops.once, until * of_best, individuals),
            mimicry=describe_mimicry(config.train, self.teacher),
        )
        write_result(self.folder.path, {name: value for name, value in to_fields(result).items() if name != "best"})
        return result

    def _train_best(self, best: Individual, variables: PyTree, until: int) -> tuple[Evaluation, TrainedNetwork | None]:
        """Tests the weights of the search, which are saved where the final training is turned off, or diverges."""
        train = self.config.train
        how: dict[str, Any] = {"batch_size": train.eval_batch_size, "mirrored": train.flip}
        searched = evaluate_network(self._network(best.architecture), variables, self.dataset, **how)
        trained = None
        if until:
            self.observer.final_training_started(best=best, until=until)
            trained = train_network(
                self.final_key,
                best.architecture,
                self.dataset,
                self.folder.final_checkpoints,
                config=self.config.with_training(best.training),
                until=until,
                teacher=self.teacher,
                care=self.care,
                on_progress=lambda step, loss, rate: self.observer.final_training_progress(
                    step=step, loss=loss, steps_per_second=rate
                ),
                programs=self.programs,
            )
        found = trained.variables if trained and trained.test else variables
        self.folder.save_network(best.architecture, found, ImageProcessor.of(self.dataset))
        return searched, trained
