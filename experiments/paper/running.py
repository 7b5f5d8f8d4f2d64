"""Makes the runs that experiments need, each once, and finds those that were made before."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax

from eigen_jax.architecture import Architecture
from eigen_jax.data.types import DatasetName
from experiments.paper.plans import Plan, Retraining, Search
from experiments.paper.records import (
    DataFacts,
    Origin,
    SearchRecord,
    TrainingRecord,
    check_together,
    is_begun,
    is_finished,
    note_machine,
    read_search,
    read_training,
)
from experiments.progress import duration
from experiments.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Makers:
    """What makes runs. Both go on with a run that was interrupted."""

    search: Callable[[Settings], object]
    train: Callable[[Settings, Architecture], str | None]  # gives the cause where it diverges


@dataclasses.dataclass(kw_only=True)
class Runs:
    """The runs of experiments: finds, makes and reads them."""

    data: DataFacts | None  # that runs are made with; None where none is made
    searches: dict[Search, SearchRecord] = dataclasses.field(default_factory=dict)  # read so far
    trainings: dict[Path, TrainingRecord] = dataclasses.field(default_factory=dict)  # folder to what was read

    def search(self, plan: Search) -> SearchRecord:
        """The record of a finished search.

        Raises:
            ReportError: it has not finished, or its folder is another run's.
        """
        if plan not in self.searches:
            record = read_search(plan)
            check_together([*self.origins(), (plan, record.origin)], self.data)
            self.searches[plan] = record
        return self.searches[plan]

    def training(self, plan: Retraining) -> TrainingRecord | None:
        """The record of a finished training; None where the search has no network of that choice.

        Raises:
            ReportError: it has not finished, or its folder is another run's.
        """
        architecture = self.architecture(plan)
        if architecture is None:
            return None
        folder = plan.settings_for(architecture).run_dir
        if folder not in self.trainings:
            record = read_training(plan, architecture)
            check_together([*self.origins(), (plan, record.origin)], self.data)
            self.trainings[folder] = record
        return self.trainings[folder]

    def architecture(self, plan: Retraining) -> Architecture | None:
        """The network that a training is of; None where the search has no such network."""
        individual = self.search(plan.search).chosen(plan.choice)
        return None if individual is None else individual.architecture

    @property
    def facts(self) -> DataFacts | None:
        """Of the data of all these runs: as loaded, or as noted beside a run that was read; None if neither."""
        noted = (origin.data for _, origin in self.origins() if origin.data is not None)
        return self.data or next(noted, None)

    def origins(self) -> Iterator[tuple[Plan, Origin]]:
        """Of all runs that were read."""
        for search in self.searches.values():
            yield search.plan, search.origin
        for training in self.trainings.values():
            yield training.plan, training.origin

    def folder(self, plan: Plan) -> Path | None:
        """Where a run lies; None where its search has not finished, or has no network to train.

        Raises:
            ReportError: the search's folder is another run's.
        """
        if isinstance(plan, Search):
            return plan.settings.run_dir
        if not is_finished(plan.search.settings.run_dir):
            return None
        architecture = self.architecture(plan)
        return None if architecture is None else plan.settings_for(architecture).run_dir

    def state(self, plan: Plan) -> str:
        """What there is of a run: "finished", "begun", "missing", or "not needed" where there is nothing to train."""
        folder = self.folder(plan)
        if folder is None:
            waits = isinstance(plan, Retraining) and not is_finished(plan.search.settings.run_dir)
            return "missing" if waits else "not needed"
        if is_finished(folder):
            return "finished"
        return "begun" if is_begun(folder) else "missing"

    def distinct(self, plans: Iterable[Plan]) -> tuple[Plan, ...]:
        """The plans without those whose run is another's, searches first: trainings wait for them."""
        unique = list(dict.fromkeys(plans))
        ordered = sorted(unique, key=lambda plan: isinstance(plan, Retraining))
        by_place: dict[object, Plan] = {}
        for plan in ordered:
            by_place.setdefault(self.folder(plan) or plan, plan)
        return tuple(by_place.values())


def describe_runs(runs: Runs, plans: Sequence[Plan]) -> Iterator[str]:
    """Says which runs are needed and which of them exist, a line each."""
    states = {plan: runs.state(plan) for plan in plans}
    counts = (f"{sum(each == state for each in states.values())} {state}" for state in ("finished", "begun", "missing"))
    # Two trainings may turn out to be of one network.
    at_most = "At most " if any(runs.folder(plan) is None for plan in plans) else ""
    yield f"{at_most}{len(plans)} runs are needed: {', '.join(counts)}"
    for plan, state in states.items():
        place = runs.folder(plan)
        where = "" if place is None else str(place)
        if isinstance(plan, Retraining) and place is None:
            waits = state == "missing"
            where = f"once {plan.search.label} has ended" if waits else f"{plan.search.label} has no such network"
        yield f"  {state:<10}  {plan.label:<64}  {where}".rstrip()


def read_finished(runs: Runs, plans: Iterable[Plan]) -> None:
    """Reads the runs that have finished, before any other is made.

    Raises:
        ReportError: one of them is another run's, damaged, or of other data.
    """
    for plan in plans:
        if runs.state(plan) == "finished":
            runs.search(plan) if isinstance(plan, Search) else runs.training(plan)


def unfinished(runs: Runs, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """The plans whose runs are still to be made, or to be made to their end."""
    return tuple(plan for plan in plans if runs.state(plan) in ("begun", "missing"))


def describe_unfinished(runs: Runs, plans: Sequence[Plan], *, untold: Sequence[str]) -> str:
    """Says how many runs are unfinished, which is the first, and which experiments are not told of for that.

    Args:
        runs: finds them.
        plans: all that are needed; one of them at least is unfinished.
        untold: names of experiments.
    """
    left = unfinished(runs, plans)
    folder = runs.folder(left[0])
    where = f" in {folder}" if folder else ""
    return (
        f"{len(left)} of {len(plans)} runs have not finished, the first is {left[0].label}{where}; {', '.join(untold)}"
        " cannot be told of: make the runs with the same command without --draw-only"
    )


@dataclasses.dataclass(kw_only=True)
class RunMaker:
    """Makes runs that have not finished, one after another, and says before each how far all of them are."""

    runs: Runs
    needed: Sequence[Plan]  # all that are to be made in the end, distinct
    dataset: DatasetName
    makers: Makers
    tell: Callable[[str], None]  # gets the lines
    clock: Callable[[], float] = time.monotonic  # seconds from any fixed time on
    took: dict[type, list[float]] = dataclasses.field(default_factory=lambda: {Search: [], Retraining: []})

    def __post_init__(self) -> None:
        self.began = self.clock()

    def make(self, plans: Iterable[Plan]) -> None:
        """Makes those of these runs that have not finished; trainings come after the searches of their networks.

        Raises:
            EigenError, Interrupted.
        """
        for plan in plans:
            # Asked one by one: two trainings may turn out to be of one network.
            if unfinished(self.runs, [plan]):
                self.tell(f"\n{self._headline(plan, unfinished(self.runs, self.needed))}")
                run_began = self.clock()
                self._make(plan)
                self.took[type(plan)].append(self.clock() - run_began)

    def _headline(self, plan: Plan, left: Sequence[Plan]) -> str:
        number = len(self.needed) - len(left) + 1
        so_far = duration(self.clock() - self.began)
        seconds = _seconds_left(self.took, left)
        after = "" if seconds is None else f", about {duration(seconds)} left"
        return f"Run {number} of {len(self.needed)}: {plan.label} ({so_far} so far{after})"

    def _make(self, plan: Plan) -> None:
        # Otherwise about 1 MB of each architecture that was ever trained stays in memory.
        jax.clear_caches()
        if isinstance(plan, Search):
            settings = plan.settings
            self.makers.search(settings)
        else:
            architecture = self.runs.architecture(plan)
            assert architecture is not None, "a training without a network is not needed"
            settings = plan.settings_for(architecture)
            if cause := self.makers.train(settings, architecture):
                self.tell(f"{plan.label}: the training diverged ({cause})")
        note_machine(settings.run_dir, self.runs.data)


def _seconds_left(took: dict[type, list[float]], left: Sequence[Plan]) -> float | None:
    """By the mean of the runs of each kind so far; None while a kind that is left has none."""
    if not all(took[type(plan)] for plan in left):
        return None
    return sum(sum(took[type(plan)]) / len(took[type(plan)]) for plan in left)
