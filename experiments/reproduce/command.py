"""The command, and the experiments that it knows: finds and makes their runs, then writes tables and pictures."""

import dataclasses
import inspect
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from eigen_jax.data import load_dataset
from eigen_jax.report import ReportError, Table, to_markdown
from eigen_jax.store.run_files import RunFolderError
from experiments import reproduce
from experiments.command_line import did_you_mean
from experiments.commands import run_command
from experiments.process import configure
from experiments.reproduce import figures, tables
from experiments.reproduce.figures import Picture
from experiments.reproduce.folders import DataFacts
from experiments.reproduce.output import check_keeps_more, check_writable, write
from experiments.reproduce.request import Request, read_request
from experiments.reproduce.runs import Choice, Run, check_together, distinct, state, unfinished
from experiments.reproduce.study import RunMaker, Study, describe_runs
from experiments.retrain import retrain
from experiments.runner import search
from experiments.settings import Settings, SettingsError


class Experiment(NamedTuple):
    """A table or a figure of the paper."""

    tell: Callable[[Study], Table | Picture]  # of finished runs; its docstring is what the help says
    runs: Callable[[Study], tuple[Run, ...]]  # that it needs


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


def main(argv: Sequence[str] | None = None) -> int:
    """Makes tables and figures of the paper; returns the exit code, see `run_command`."""
    argv = sys.argv[1:] if argv is None else argv

    def command() -> None:
        names, options = read_names(argv)
        request = read_request(options, about=f"{reproduce.__doc__}\n{_describe_experiments()}")
        for name in names:
            _check_compares(name, request.settings)
        check_writable(request.output)
        request = dataclasses.replace(request, settings=configure(request.settings))
        make(request, names)

    return run_command(command)


def read_names(argv: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names of the experiments that a command line asks for, in the order of `EXPERIMENTS`, and its options.

    Names stand before the options, or among them where they cannot be the value of one. Without any, all are meant.
    Raises SettingsError for a name that there is not.
    """
    first = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    for name in first:
        if name not in EXPERIMENTS:
            known = ", ".join(sorted(EXPERIMENTS))
            hint = did_you_mean(name, EXPERIMENTS)
            raise SettingsError(f"there is no table or figure {name!r}; {hint}choose from {known}")
    named, options = set(first), []
    for before, word in itertools.pairwise(["", *argv[len(first) :]]):
        is_value = before.startswith("-") and "=" not in before and before != "--draw-only"
        if word in EXPERIMENTS and not is_value:
            named.add(word)
        else:
            options.append(word)
    return tuple(name for name in EXPERIMENTS if name in named or not named), options


def make(request: Request, names: Sequence[str]) -> None:
    """Makes what is missing of the runs, and tells of each experiment as soon as its runs have finished.

    Raises:
        ReportError: the runs of some experiments have not finished and are not to be made, or do not
            show what these tell of, such as a duplicate where none was bred; all others are made before.
        EigenError, Interrupted.
    """
    study = Study(request=request)
    if not request.draw_only:
        study.data = DataFacts.of(load_dataset(request.settings.data))
    runs_of = {name: EXPERIMENTS[name].runs(study) for name in names}
    for name, runs in runs_of.items():
        check_keeps_more(name, request=request, runs=runs)
    needed = distinct(itertools.chain(*runs_of.values()))
    for line in describe_runs(needed):
        print(line, flush=True)
    # Before any other is made.
    finished = [run for run in needed if state(run) == "finished"]
    check_together(finished, study.data)
    study.data = study.data or next((run.origin.data for run in finished if run.origin.data), None)
    maker = RunMaker(study=study, needed=needed, search=search, train=retrain)
    failures, untold = [], []
    for name, runs in runs_of.items():
        if request.draw_only and unfinished(runs):
            untold.append(name)
            continue
        maker.make(distinct(runs))
        try:
            check_together((run for run in runs if run.folder is not None), study.data)
            told = EXPERIMENTS[name].tell(study)
        except (ReportError, RunFolderError) as error:
            failures.append(f"{name}: {error}")
            continue
        paths = write(told, name, study=study, runs=runs)
        print(f"\n{to_markdown(told) if isinstance(told, Table) else told.caption}".rstrip(), flush=True)
        print("\n".join(f"wrote {path}" for path in paths), flush=True)
    if untold:
        left = unfinished(needed)
        where = f" in {left[0].folder}" if left[0].folder else ""
        failures.append(
            f"{len(left)} of {len(needed)} runs have not finished, the first is {left[0].label}{where};"
            f" {', '.join(untold)} cannot be told of: make the runs with the same command without --draw-only"
        )
    if failures:
        raise ReportError("; ".join(failures))


def _check_compares(name: str, settings: Settings) -> None:
    """Checks that an experiment would compare something; raises SettingsError where it would not."""
    if name in ("table3", "table5") and settings.teacher == "none":
        raise SettingsError("--teacher is none; it must be cache or live where mimicry is compared with none")
    if name in ("table4", "table5") and settings.search.final_until == 0:
        raise SettingsError("--final-steps is 0; it must be at least 1 where networks are trained again")
    if name in ("table4", "figure2") and settings.search.evolution.max_duplication_generations == 0:
        raise SettingsError("--max-duplication-generations is 0; it must be at least 1 where duplication is shown")


def _describe_experiments() -> str:
    """What each experiment is, what it costs, and what the paper reports: for the help."""
    texts = {name: inspect.getdoc(experiment.tell) for name, experiment in sorted(EXPERIMENTS.items())}
    paragraphs = [f"{name}: {text}\n{tables.describe_published(name)}".rstrip() for name, text in texts.items()]
    return "\n\n".join(text.replace("\n\n", "\n").replace("\n", "\n  ") for text in paragraphs)
