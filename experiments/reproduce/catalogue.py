"""The experiments of the paper: which runs each needs, and what is told of them."""

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from eigen_jax.report import Table
from experiments.reproduce import figures, tables
from experiments.reproduce.figures import Picture
from experiments.reproduce.runs import Choice, Run
from experiments.reproduce.study import Study
from experiments.reproduce.tables import describe_published
from experiments.settings import Settings, SettingsError


class Experiment(NamedTuple):
    """A table or a figure of the paper."""

    tell: Callable[[Study], Table | Picture]  # of finished runs; its docstring is what the help says
    runs: Callable[[Study], tuple[Run, ...]]  # that it needs


def describe_experiments() -> str:
    """What each experiment is, what it costs, and what the paper reports: for the help."""
    texts = {name: inspect.getdoc(experiment.tell) for name, experiment in sorted(EXPERIMENTS.items())}
    paragraphs = [f"{name}: {text}\n{describe_published(name)}".rstrip() for name, text in texts.items()]
    return "\n\n".join(text.replace("\n\n", "\n").replace("\n", "\n  ") for text in paragraphs)


def check_compares(name: str, settings: Settings) -> None:
    """Checks that an experiment would compare something; raises SettingsError where it would not."""
    if name in ("table3", "table5") and settings.teacher == "none":
        raise SettingsError("--teacher is none; it must be cache or live where mimicry is compared with none")
    if name in ("table4", "table5") and settings.final_steps == 0:
        raise SettingsError("--final-steps is 0; it must be at least 1 where networks are trained again")
    if name in ("table4", "figure2") and settings.max_duplication_generations == 0:
        raise SettingsError("--max-duplication-generations is 0; it must be at least 1 where duplication is shown")


def _duplication_runs(study: Study) -> tuple[Run, ...]:
    return (*study.eigen, *(run for choice in Choice for run in study.retrainings(choice, mimicry=True)))


def _mimicry_runs(study: Study) -> tuple[Run, ...]:
    plain, mimicking = (study.retrainings(Choice.FOUND, mimicry=mimicry) for mimicry in (False, True))
    return (*study.eigen, *plain, *mimicking)


# In the order in which they are made: those that need the fewest further runs first.
EXPERIMENTS: Mapping[str, Experiment] = {
    "figure1": Experiment(figures.figure1, lambda study: study.eigen[:1]),
    "figure2": Experiment(figures.figure2, lambda study: study.eigen),
    "figure4": Experiment(figures.figure4, lambda study: study.eigen),
    "table1": Experiment(tables.table1, lambda study: study.eigen),
    "table2": Experiment(tables.table2, lambda study: study.eigen),
    "table5": Experiment(tables.table5, _mimicry_runs),
    "table4": Experiment(tables.table4, _duplication_runs),
    "table3": Experiment(tables.table3, lambda study: (*study.eigen, *study.plain)),
    "figure3": Experiment(figures.figure3, lambda study: tuple(itertools.chain(*study.step_sizes.values()))),
}
