"""All runs that a request may need, each as one object, and how those that are missing are made."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

from eigen_jax.architecture import Architecture
from experiments.progress import duration
from experiments.reproduce.folders import DataFacts, note_machine
from experiments.reproduce.request import Request
from experiments.reproduce.runs import Choice, Retraining, Run, Search, outcome_key, state, unfinished
from experiments.settings import Settings


@dataclasses.dataclass(kw_only=True)
class Study:
    """The runs of a request; nothing is read or made before it is asked for."""

    request: Request
    data: DataFacts | None = None  # of all runs: as loaded, or as noted beside one of them; None if neither

    @property
    def is_papers(self) -> bool:
        """Whether its runs are the paper's experiment: the paper's data set, all of it, and its schedule."""
        request, data = self.request, self.data
        if request.dataset == "digits" or request.preset != "paper" or request.is_changed or data is None:
            return False
        return data.train + data.validation == 50_000 and data.test == 10_000

    @cached_property
    def eigen(self) -> tuple[Search, ...]:
        """EIGEN as the settings have it, a search a seed."""
        return self._searches(self.request.settings, what="EIGEN", slug="eigen")

    @cached_property
    def plain(self) -> tuple[Search, ...]:
        """EIGEN without mimicry, in the search and in the final training."""
        plain = dataclasses.replace(self.request.settings, teacher="none")
        return self._searches(plain, what="EIGEN without mimicry", slug="plain")

    @cached_property
    def step_sizes(self) -> dict[int, tuple[Search, ...]]:
        """Primary successions alone, by their most mutation steps a child, all of equally many generations."""
        common = self.request.settings
        searches = {}
        for size in self.request.step_sizes:
            evolution = dataclasses.replace(
                common.search.evolution,
                primary_steps=size,
                max_primary_generations=self.request.generations,
                max_secondary_generations=0,
                max_duplication_generations=0,
                # The best never gets worse, so a gain of less than nothing never ends a succession.
                saturation_gain=0.0,
            )
            alone = dataclasses.replace(common.search, evolution=evolution, final_steps=0)
            settings = dataclasses.replace(common, search=alone)
            searches[size] = self._searches(settings, what=f"step size {size}", slug=f"steps{size}")
        return searches

    def retrainings(self, choice: Choice, *, mimicry: bool) -> tuple[Retraining, ...]:
        """Trainings of a network of each of EIGEN's searches."""
        return tuple(Retraining(search=search, choice=choice, mimicry=mimicry) for search in self.eigen)

    def _searches(self, common: Settings, *, what: str, slug: str) -> tuple[Search, ...]:
        """A search a seed; `slug` stands for `what` in the names of folders."""
        request, searches = self.request, []
        for seed in request.seeds:
            settings = dataclasses.replace(common, search=dataclasses.replace(common.search, seed=seed))
            key = outcome_key(request.dataset, settings)
            folder = request.runs_dir / f"{request.dataset}-{request.preset}-{slug}-seed{seed}-{key}"
            settings = dataclasses.replace(settings, run_dir=folder)
            searches.append(Search(dataset=request.dataset, label=f"{what}, seed {seed}", settings=settings))
        return tuple(searches)


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
    search: Callable[[Settings], object]  # makes a run, or goes on with one
    train: Callable[[Settings, Architecture], str | None]  # so too; gives the cause where it diverges
    clock: Callable[[], float] = time.monotonic  # seconds from any fixed time on
    took: dict[type, list[float]] = dataclasses.field(default_factory=lambda: {Search: [], Retraining: []})

    def __post_init__(self) -> None:
        self.began = self.clock()

    def make(self, runs: Iterable[Run]) -> None:
        """Makes those of these runs that have not finished; trainings come after the searches of their networks."""
        for run in runs:
            # Asked one by one: two trainings may turn out to be of one network.
            if unfinished([run]):
                print(f"\n{self._headline(run)}", flush=True)
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
        settings = run.settings
        assert settings is not None, "a training without a network is not needed"
        if isinstance(run, Search):
            self.search(settings)
        elif run.network and (cause := self.train(settings, run.network)):
            print(f"{run.label}: the training diverged ({cause})", flush=True)
        note_machine(settings.run_dir, self.study.data)
