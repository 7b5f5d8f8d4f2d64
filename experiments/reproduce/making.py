"""Makes the runs that are missing, each once."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from eigen_jax.architecture import Architecture
from eigen_jax.data.types import DatasetName
from experiments.progress import duration
from experiments.reproduce.folders import note_machine
from experiments.reproduce.runs import Retraining, Run, Search, state, unfinished
from experiments.reproduce.study import Study
from experiments.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Makers:
    """What makes runs. Both go on with a run that was interrupted."""

    search: Callable[[DatasetName, Settings], object]
    train: Callable[[DatasetName, Settings, Architecture], str | None]  # gives the cause where it diverges


def describe_runs(runs: Sequence[Run]) -> Iterator[str]:
    """Says which runs are needed and which of them exist, a line each."""
    states = [state(run) for run in runs]
    counts = ", ".join(f"{states.count(each)} {each}" for each in ("finished", "begun", "missing"))
    # Two trainings may turn out to be of one network.
    at_most = "At most " if any(run.folder is None for run in runs) else ""
    yield f"{at_most}{len(runs)} runs are needed: {counts}"
    for run, own in zip(runs, states, strict=True):
        where = str(run.folder)
        if isinstance(run, Retraining) and run.folder is None:
            waits = own == "missing"
            where = f"once {run.search.label} has ended" if waits else f"{run.search.label} has no such network"
        yield f"  {own:<10}  {run.label:<64}  {where}"


@dataclasses.dataclass(kw_only=True)
class RunMaker:
    """Makes runs that have not finished, one after another, and says before each how far all of them are."""

    study: Study
    needed: Sequence[Run]  # all that are to be made in the end, distinct
    makers: Makers
    tell: Callable[[str], None]  # gets the lines
    clock: Callable[[], float] = time.monotonic  # seconds from any fixed time on
    took: dict[type, list[float]] = dataclasses.field(default_factory=lambda: {Search: [], Retraining: []})

    def __post_init__(self) -> None:
        self.began = self.clock()

    def make(self, runs: Iterable[Run]) -> None:
        """Makes those of these runs that have not finished; trainings come after the searches of their networks.

        Raises:
            EigenError, Interrupted.
        """
        for run in runs:
            # Asked one by one: two trainings may turn out to be of one network.
            if unfinished([run]):
                self.tell(f"\n{self._headline(run)}")
                run_began = self.clock()
                self._make(run)
                self.took[type(run)].append(self.clock() - run_began)

    def _headline(self, run: Run) -> str:
        left = unfinished(self.needed)
        number = len(self.needed) - len(left) + 1
        after = ""
        if all(self.took[type(each)] for each in left):
            # By the mean of the runs of each kind so far.
            means = {kind: sum(seconds) / len(seconds) for kind, seconds in self.took.items() if seconds}
            after = f", about {duration(sum(means[type(each)] for each in left))} left"
        so_far = duration(self.clock() - self.began)
        return f"Run {number} of {len(self.needed)}: {run.label} ({so_far} so far{after})"

    def _make(self, run: Run) -> None:
        settings, dataset = run.settings, self.study.request.dataset
        assert settings is not None, "a training without a network is not needed"
        if isinstance(run, Search):
            self.makers.search(dataset, settings)
        else:
            assert run.network is not None, "as above"
            if cause := self.makers.train(dataset, settings, run.network):
                self.tell(f"{run.label}: the training diverged ({cause})")
        note_machine(settings.run_dir, self.study.data)
