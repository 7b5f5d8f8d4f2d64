"""One generation: trained to the landmarks, those extinct who do not survive them, all recorded.

The fitness of an individual stands in one place at a time: a job measures, its outcome holds the measurement until
the generation is recorded, and `Generation.fitness` is what the strategy is shown of it.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax.architecture import Architecture, count_flops, count_parameters
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.executor import Executor, Job
from eigen_jax.fitness import Fitness, needs, values
from eigen_jax.lineage import Fate, Individual, Landmark, Reference, exact
from eigen_jax.resumable import Care
from eigen_jax.search.budget import Budget, TeacherFlops, expected_flops, price
from eigen_jax.search.candidates import Candidate, Measured, Sort, inheritance, outcomes_of
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.folder import RunFolder
from eigen_jax.search.jobs import Jobs, Task
from eigen_jax.search.journal import Entry, Journal
from eigen_jax.search.observer import SearchObserver
from eigen_jax.store import checkpoint
from eigen_jax.store.locks import never
from eigen_jax.strategies import State, Strategy
from eigen_jax.training import Teacher, TrainState


@dataclasses.dataclass(kw_only=True)
class Context:
    """What stays the same through a search."""

    config: SearchConfig
    strategy: Strategy
    fitness: Fitness
    dataset: Dataset
    teacher: Teacher | None
    folder: RunFolder
    care: Care
    observer: SearchObserver
    executor: Executor  # where individuals are trained
    teacher_flops: TeacherFlops

    def __post_init__(self) -> None:
        self.budget = Budget.of(self.config, self.teacher_flops)
        self.jobs = Jobs(self.executor, self._told)
        self.journal = Journal(self.folder.journal)
        self.reevaluate = self.config.reevaluate or self.strategy.reevaluates
        self.measured = Measured(reevaluate=self.reevaluate)
        self.forebears: dict[Reference, Individual] = {}  # of whom weights can be inherited

    @property
    def landmarks(self) -> tuple[int, ...]:
        return self.strategy.landmarks(self.config.landmarks)

    def remember(self, individuals: Sequence[Individual]) -> None:
        """Takes in those of a generation that is recorded, for those who measure the same or inherit."""
        self.measured.add(individuals)
        # Failures have no weights.
        heirs = (each for each in individuals if each.identities is not None and each.cause is None)
        self.forebears |= {each.reference: each for each in heirs}

    def price(self, architecture: Architecture) -> int:
        """Training FLOPs of one step of a network."""
        return price(architecture, config=self.config, teacher=self.teacher_flops)

    def _told(self, task: Task, step: int, loss: float, steps_per_second: float) -> None:
        place, landmark = task
        told: dict[str, Any] = {"step": step, "loss": loss, "steps_per_second": steps_per_second}
        until = self.landmarks[landmark]
        self.observer.training_progress(individual=place, landmark=landmark, until=until, **told)


class Generation:
    """The generation under way."""

    def __init__(self, number: int, state: State, candidates: Sequence[Candidate], context: Context) -> None:
        """Takes over what is known of equal architectures; `candidates` are of this generation and of later ones."""
        self.number, self.state, self.context = number, state, context
        self._spared = context.strategy.spares(state)
        self.due = [each for each in candidates if each.place.generation == number]
        self.ahead = [each for each in candidates if each.place.generation > number]
        self._paid_ahead = len(self.ahead)
        places = [(each.place.generation, each.place.index) for each in candidates]
        if not self.due or places != sorted(set(places)) or len(self.due) + len(self.ahead) < len(places):
            rule = (
                "the strategy's places in generation {} are {}; each must be given once, in ascending order, from it on"
            )
            raise ConfigError(None, rule, number, places)
        for candidate in self.due:
            is_on_its_way = candidate.outcomes or (candidate.place, 0) in context.jobs
            if not is_on_its_way and (known := self._find(candidate)):
                candidate.take(outcomes_of(known), known.reference)

    def is_paid_for(self, budget: Budget, spent: int, best: int) -> bool:
        """Whether it begins, see `Budget.begins`; of those ahead, it then trains only who is paid for as well."""
        context, landmarks = self.context, self.context.landmarks
        due = [context.price(each.architecture) for each in self.due]
        own = [context.price(each.architecture) for each in self.due if each.same_as is None]
        ahead = [context.price(each.architecture) for each in self.ahead]
        # With several landmarks, what a generation takes is known at its end alone.
        is_sure = len(landmarks) == 1
        self._paid_ahead = budget.number_ahead(spent, best, due, ahead, landmarks[-1]) if is_sure else 0
        expected = expected_flops(own, landmarks, context.strategy.quota(self.state))
        return budget.begins(spent, best, due, expected=expected, most=sum(due) * landmarks[-1])

    def flops(self, candidate: Candidate) -> int:
        """Training FLOPs of a candidate's own steps up to the last landmark that it trained for, reached or not."""
        if candidate.same_as is not None or not candidate.thresholds:
            return 0
        return self.context.landmarks[len(candidate.thresholds) - 1] * self.context.price(candidate.architecture)

    def train(self) -> Array:
        """Trains to each landmark in turn those whom the strategy lets survive; gives the fitness, as of `fitness`."""
        strategy, living = self.context.strategy, self.due
        for landmark in range(strategy.num_landmarks):
            self._measure(landmark, living)
            fitness = self.fitness()
            is_last, threshold = landmark == strategy.num_landmarks - 1, -math.inf
            if is_last:
                alive = np.asarray(jnp.isfinite(fitness[:, landmark]).all(axis=1))
            else:
                alive = np.asarray(strategy.survives(self.state, fitness, landmark))
                threshold = float(strategy.threshold(self.state, fitness, landmark))
                self.context.observer.individuals_extinct(
                    landmark=landmark,
                    individuals=[each.place for each in living if not alive[each.slot]],
                    threshold=exact(threshold),
                )
            for candidate in living:
                candidate.thresholds.append(threshold)
                candidate.survived = is_last and bool(alive[candidate.slot])
            living = [each for each in living if alive[each.slot]]
        return fitness

    def fitness(self) -> Array:
        """[P, L, M] float32; -inf where there is none, as in slots that are not due."""
        fitness = np.array(self.context.strategy.unmeasured(self.state))
        for candidate in self.due:
            for landmark in range(len(candidate.outcomes)):
                if objectives := self._objectives(candidate, landmark):
                    fitness[candidate.slot, landmark] = objectives
        # On the device, a NaN is a fault, which JAX_DEBUG_NANS is to find.
        return jnp.asarray(np.where(np.isnan(fitness), -np.inf, fitness))

    def variables(self, place: Reference, abstract: TrainState) -> Any:
        """The weights of an individual at its end, trained again if need be; `abstract` are its state's shapes."""
        candidate = next(each for each in self.due if each.place == place)
        assert candidate.same_as is None, "it has no weights of its own"
        try:
            return checkpoint.restore(self.context.folder.individual(place), "state", abstract=abstract).variables
        except checkpoint.CheckpointError:
            # Damaged, or lost with the folder, after it was measured.
            task = place, self.context.strategy.num_landmarks - 1
            self.context.jobs.submit(task, self._job(task[1], candidate))
            for _ in self.context.jobs.outcomes([task]):
                pass
            return checkpoint.restore(self.context.folder.individual(place), "state", abstract=abstract).variables

    def record(self, parents: Collection[Reference]) -> list[Individual]:
        """The generation's lines of the record, once it is known of whom the next one descends."""
        counts = {"num_classes": self.context.config.genome.num_classes}
        return [
            Individual(
                generation=each.place.generation,
                phase=self.context.strategy.phase(self.state),
                index=each.place.index,
                parents=each.parents,
                operators=each.operators,
                repeats=each.repeats,
                architecture=each.architecture,
                training=each.training,
                identities=each.identities,
                parameters=count_parameters(each.architecture, **counts),
                flops=count_flops(each.architecture, **counts),
                landmarks=tuple(self._landmark(each, landmark) for landmark in range(len(each.thresholds))),
                test_accuracy=each.outcomes[-1].test_accuracy if each.survived else None,
                fate=_fate(each, parents),
                cause=each.cause,
                same_as=each.same_as,
                training_flops=self.flops(each),
                seconds_compiling=each.seconds.compiling,
                seconds_training=each.seconds.training,
            )
            for each in self.due
        ]

    def _landmark(self, candidate: Candidate, landmark: int) -> Landmark:
        """What the record says of a candidate at a landmark that it trained for."""
        objectives = self._objectives(candidate, landmark)
        fitness = tuple(value for each in objectives if (value := exact(each)) is not None)
        return Landmark(
            step=self.context.landmarks[landmark],
            measurement=candidate.measurement(landmark),
            fitness=fitness if objectives and len(fitness) == len(objectives) else None,
            threshold=exact(candidate.thresholds[landmark]),
        )

    def _objectives(self, candidate: Candidate, landmark: int) -> tuple[float, ...]:
        """What a candidate's measurement at a landmark is worth; none where there is no measurement."""
        if (measurement := candidate.measurement(landmark)) is None:
            return ()
        return values(self.context.fitness, measurement, objectives=self.context.strategy.objectives)

    def _find(self, candidate: Candidate) -> Individual | None:
        return self.context.measured.find(candidate, to_the_end=self._spared)

    def _measure(self, landmark: int, living: Sequence[Candidate]) -> None:
        """Gives every living candidate its outcome at a landmark; equal ones of a generation are trained once."""
        first: dict[Sort, Candidate] = {}
        for candidate in living:
            first.setdefault(candidate.sort, candidate)
        for candidate in first.values():
            if candidate.cause is None and len(candidate.outcomes) <= landmark:
                candidate.same_as = None  # it survived longer than the one whose outcomes it took over
        twins = [candidate for candidate in living if first[candidate.sort] is not candidate]
        self._train(landmark, [each for each in first.values() if each.same_as is None])
        for twin in twins:
            original = first[twin.sort]
            if original.cause is not None or not self.context.reevaluate:
                twin.take(original.outcomes, original.same_as or original.place)
        self._train(landmark, [twin for twin in twins if twin.same_as is None])
        for candidate in living:
            if candidate.same_as is not None:
                self._tell(landmark, candidate)

    def _train(self, landmark: int, candidates: Sequence[Candidate]) -> None:
        """Trains candidates to a landmark, and those of later generations ahead, where they are to be trained."""
        jobs, ahead = self.context.jobs, self._startable(self.due) if landmark == 0 else []
        missing = []
        for candidate in (*candidates, *ahead):
            task = candidate.place, landmark
            if len(candidate.outcomes) > landmark:
                continue
            if outcome := self.context.journal.find(candidate.place, candidate.fingerprint, landmark):
                candidate.add(outcome)
                self._tell(landmark, candidate)
                continue
            if task not in jobs:
                jobs.submit(task, self._job(landmark, candidate))
            if candidate.place.generation == self.number:
                missing.append(task)
        by_place = {each.place: each for each in (*self.due, *self.ahead)}
        for (place, reached), outcome in jobs.outcomes(missing):
            candidate = by_place[place]
            entry = Entry(individual=place, fingerprint=candidate.fingerprint, landmark=reached, outcome=outcome)
            self.context.journal.add(entry)
            candidate.add(outcome)
            self._tell(reached, candidate)

    def _startable(self, before: Sequence[Candidate]) -> Iterator[Candidate]:
        """Who of later generations can be trained ahead: no equal one is known, or is measured before."""
        sorts = {each.sort for each in before}
        for candidate in self.ahead[: self._paid_ahead]:
            if candidate.sort not in sorts and self._find(candidate) is None:
                yield candidate
            sorts.add(candidate.sort)

    def _tell(self, landmark: int, candidate: Candidate) -> None:
        objectives = self._objectives(candidate, landmark)
        self.context.observer.individual_measured(
            individual=candidate.place,
            landmark=landmark,
            measurement=candidate.measurement(landmark),
            fitness=objectives if objectives and all(map(math.isfinite, objectives)) else None,
            cause=candidate.cause,
            same_as=candidate.same_as,
        )

    def _job(self, landmark: int, candidate: Candidate) -> Job:
        context, is_last = self.context, landmark == self.context.strategy.num_landmarks - 1
        return Job(
            name=str(candidate.place),
            key=candidate.key,
            architecture=candidate.architecture,
            until=context.landmarks[landmark],
            config=context.config.with_training(candidate.training).train,
            folder=context.folder.individual(candidate.place),
            inheritance=inheritance(candidate, context.forebears, context.folder),
            tested=is_last,
            timed=is_last or "latency" in needs(context.fitness),
            # The executor asks its own, and a worker in another process could not ask this one.
            care=dataclasses.replace(context.care, should_stop=never),
        )


def _fate(candidate: Candidate, parents: Collection[Reference]) -> Fate:
    if candidate.cause is not None:
        return Fate.FAILED
    if not candidate.survived:
        return Fate.EXTINCT
    return Fate.PARENT if candidate.place in parents else Fate.SURVIVED
