"""The experiments of the paper: which runs each needs, and what is told of them."""

import dataclasses
from collections.abc import Callable, Mapping

from eigen_jax.report import Table
from experiments.paper import figures, tables
from experiments.paper.figures import Picture
from experiments.paper.plans import Choice, Plan, eigen_searches, plain_searches, retrainings, step_size_searches
from experiments.paper.request import Request
from experiments.paper.running import Runs
from experiments.settings import Settings, SettingsError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or a figure of the paper."""

    name: str  # of its command and of its files
    plans: Callable[[Request], tuple[Plan, ...]]  # the runs that it needs
    tell: Callable[[Request, Runs], Table | Picture]  # of finished runs
    check: Callable[[Settings], None]  # raises SettingsError where it would compare nothing


def _needs_nothing(settings: Settings) -> None:
    """Any settings will do."""


def _needs_mimicry(settings: Settings) -> None:
    if settings.teacher == "none":
        raise SettingsError("--teacher is none; it must be cache or live where mimicry is compared with none")


def _needs_trainings(settings: Settings) -> None:
    if settings.search.final_until == 0:
        raise SettingsError("--final-steps is 0; it must be at least 1 where networks are trained again")


def _needs_duplication(settings: Settings) -> None:
    if settings.search.evolution.max_duplication_generations == 0:
        raise SettingsError("--max-duplication-generations is 0; it must be at least 1 where duplication is shown")


def _all_of(*checks: Callable[[Settings], None]) -> Callable[[Settings], None]:
    def check(settings: Settings) -> None:
        for each in checks:
            each(settings)

    return check


def _duplication_plans(request: Request) -> tuple[Plan, ...]:
    trainings = [plan for choice in Choice for plan in retrainings(request, choice, mimicry=True)]
    return (*eigen_searches(request), *trainings)


def _mimicry_plans(request: Request) -> tuple[Plan, ...]:
    trainings = [plan for mimicry in (False, True) for plan in retrainings(request, Choice.FOUND, mimicry=mimicry)]
    return (*eigen_searches(request), *trainings)


def _step_size_plans(request: Request) -> tuple[Plan, ...]:
    return tuple(plan for size in request.step_sizes for plan in step_size_searches(request, size))


# In the order in which they are made: those that need the fewest further runs first.
_ALL = (
    Experiment(
        name="figure1",
        plans=lambda request: eigen_searches(request)[:1],
        tell=figures.figure1,
        check=_needs_nothing,
    ),
    Experiment(name="figure2", plans=eigen_searches, tell=figures.figure2, check=_needs_duplication),
    Experiment(name="figure4", plans=eigen_searches, tell=figures.figure4, check=_needs_nothing),
    Experiment(name="table1", plans=eigen_searches, tell=tables.table1, check=_needs_nothing),
    Experiment(name="table2", plans=eigen_searches, tell=tables.table2, check=_needs_nothing),
    Experiment(
        name="table5",
        plans=_mimicry_plans,
        tell=tables.table5,
        check=_all_of(_needs_mimicry, _needs_trainings),
    ),
    Experiment(
        name="table4",
        plans=_duplication_plans,
        tell=tables.table4,
        check=_all_of(_needs_duplication, _needs_trainings),
    ),
    Experiment(
        name="table3",
        plans=lambda request: (*eigen_searches(request), *plain_searches(request)),
        tell=tables.table3,
        check=_needs_mimicry,
    ),
    Experiment(name="figure3", plans=_step_size_plans, tell=figures.figure3, check=_needs_nothing),
)

EXPERIMENTS: Mapping[str, Experiment] = {experiment.name: experiment for experiment in _ALL}
