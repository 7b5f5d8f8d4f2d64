"""The experiments of the paper: which runs each needs, and what is told of them."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping

from eigen_jax.report import Table
from experiments.reproduce import figures, tables
from experiments.reproduce.figures import Picture
from experiments.reproduce.published import describe_published
from experiments.reproduce.runs import Choice, Run
from experiments.reproduce.study import Study
from experiments.settings import Settings, SettingsError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or a figure of the paper."""

    tell: Callable[[Study], Table | Picture]  # of finished runs; its docstring is what the help says
    runs: Callable[[Study], tuple[Run, ...]]  # that it needs
    checks: tuple[Callable[[Settings], None], ...] = ()  # each raises SettingsError where nothing would be compared


def describe_experiments() -> str:
    """What each experiment is, what it costs, and what the paper reports: for the help."""
    texts = {name: inspect.getdoc(experiment.tell) for name, experiment in sorted(EXPERIMENTS.items())}
    return "\n\n".join(f"{name}: {text}\n{describe_published(name)}".rstrip() for name, text in texts.items())


def _needs_mimicry(settings: Settings) -> None:
    if settings.teacher == "none":
        raise SettingsError("--teacher is none; it must be cache or live where mimicry is compared with none")


def _needs_trainings(settings: Settings) -> None:
    if settings.final_steps == 0:
        raise SettingsError("--final-steps is 0; it must be at least 1 where networks are trained again")


def _needs_duplication(settings: Settings) -> None:
    if settings.max_duplication_generations == 0:
        raise SettingsError("--max-duplication-generations is 0; it must be at least 1 where duplication is shown")


def _eigen(study: Study) -> tuple[Run, ...]:
    return study.eigen


def _duplication_runs(study: Study) -> tuple[Run, ...]:
    return (*study.eigen, *(run for choice in Choice for run in study.retrainings(choice, mimicry=True)))


def _mimicry_runs(study: Study) -> tuple[Run, ...]:
    plain, mimicking = (study.retrainings(Choice.FOUND, mimicry=mimicry) for mimicry in (False, True))
    return (*study.eigen, *plain, *mimicking)


def _step_size_runs(study: Study) -> tuple[Run, ...]:
    return tuple(search for searches in study.step_sizes.values() for search in searches)


# In the order in which they are made: those that need the fewest further runs first.
EXPERIMENTS: Mapping[str, Experiment] = {
    "figure1": Experiment(tell=figures.figure1, runs=lambda study: study.eigen[:1]),
    "figure2": Experiment(tell=figures.figure2, runs=_eigen, checks=(_needs_duplication,)),
    "figure4": Experiment(tell=figures.figure4, runs=_eigen),
    "table1": Experiment(tell=tables.table1, runs=_eigen),
    "table2": Experiment(tell=tables.table2, runs=_eigen),
    "table5": Experiment(tell=tables.table5, runs=_mimicry_runs, checks=(_needs_mimicry, _needs_trainings)),
    "table4": Experiment(tell=tables.table4, runs=_duplication_runs, checks=(_needs_duplication, _needs_trainings)),
    "table3": Experiment(tell=tables.table3, runs=lambda study: (*study.eigen, *study.plain), checks=(_needs_mimicry,)),
    "figure3": Experiment(tell=figures.figure3, runs=_step_size_runs),
}
