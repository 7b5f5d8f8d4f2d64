"""Tables and figures of the paper on one data set: all of them, or those that are named.

    python -m experiments.reproduce --dataset digits --seeds 0 1 2
    python -m experiments.reproduce table3 figure4 --dataset cifar10 --preset small --data-dir PATH
    python -m experiments.reproduce table1 --dataset cifar10 --preset small --budget 3e13 --only nin eden eigen
    python -m experiments.reproduce figure3 --dataset cifar10 --preset small --step-sizes 1 10 --generations 3

Says first which runs are needed and which exist. A run that several need is made once; interrupted,
the same command goes on.

Cost, by seed: a search, one without mimicry, three or four final trainings, six primary successions; Table 1's
searches and trainings, a budget each; and a teacher for all.
"""

import dataclasses
import inspect
import itertools
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eigen_jax.data import load_dataset
from eigen_jax.errors import EigenError
from eigen_jax.registry import check_there_is
from eigen_jax.report import ReportError, Table, to_markdown
from eigen_jax.report.files import write_files
from eigen_jax.search import BarrenSearchError, BudgetError
from eigen_jax.store.run_files import RunFolderError
from eigen_jax.training import TooLargeError
from experiments.commands import command
from experiments.process import configure
from experiments.progress import duration
from experiments.recipes import RECIPES
from experiments.reproduce import figures, systems, table1, tables
from experiments.reproduce.figures import Picture
from experiments.reproduce.output import check_keeps_more, check_writable, write
from experiments.reproduce.request import Request, read_request
from experiments.reproduce.runs import (
    Choice,
    DataFacts,
    HandDesigned,
    Retraining,
    Run,
    Search,
    Study,
    is_finished,
    measure_latency,
    note_machine,
)
from experiments.retrain import retrain
from experiments.runner import search
from experiments.settings import Settings, SettingsError, flag_of


class Experiment(NamedTuple):
    tell: Callable[[Study], Table | Picture]  # of finished runs; its docstring is what the help says
    runs: Callable[[Study], tuple[Run, ...]]  # that it needs
    # Whether it tells of those of its runs that have finished, whichever others are refused, or not to be made.
    is_partial: bool = False
    pages: Callable[[Study], Mapping[str, str]] = lambda study: {}  # further ones, by the ending of their names


# In the order in which they are made: those that need the fewest further runs first.
EXPERIMENTS: Mapping[str, Experiment] = {
    "figure1": Experiment(figures.figure1, lambda study: study.eigen[:1]),
    "figure2": Experiment(figures.figure2, lambda study: study.eigen),
    "figure4": Experiment(figures.figure4, lambda study: study.eigen),
    "table2": Experiment(tables.table2, lambda study: study.eigen),
    "table5": Experiment(
        tables.table5, lambda study: (*study.eigen, *study.retrainings(Choice.FOUND, mimicry=(False, True)))
    ),
    "table4": Experiment(tables.table4, lambda study: (*study.eigen, *study.retrainings(*Choice))),
    "table3": Experiment(tables.table3, lambda study: (*study.eigen, *study.plain)),
    "figure3": Experiment(figures.figure3, lambda study: tuple(itertools.chain(*study.step_sizes.values()))),
    "table1": Experiment(
        table1.table1,
        systems.runs,
        is_partial=True,
        pages=lambda study: {"-systems.md": table1.describe_systems(study)},
    ),
}


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Makes tables and figures of the paper."""
    names, options = read_names(sys.argv[1:] if argv is None else argv)
    request = read_request(options, about=f"{__doc__}\n{_describe_experiments()}")
    for name in names:
        _check_compares(name, request.settings)
    if set(names) != {"table1"} and (request.only or request.recipes != tuple(RECIPES)):
        raise SettingsError("--only and --recipes are of table1; ask for it alone, or leave them out")
    if "table1" in names:
        systems.check(request)
    check_writable(request.output)
    make(dataclasses.replace(request, settings=configure(request.settings)), names)


def read_names(argv: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names of the experiments that a command line asks for, in the order of `EXPERIMENTS`, and its options.

    Names stand before the options, or among them where they cannot be the value of one. Without any, all are meant.
    """
    first = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    for name in first:
        check_there_is("table or figure", name, sorted(EXPERIMENTS))
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

    Raises ReportError, after all others are made, for experiments whose runs have not finished and are not to be made,
    or do not show what these tell of, such as a duplicate where none was bred.
    """
    study = Study(request, None if request.draw_only else DataFacts.of(load_dataset(request.settings.data)))
    runs_of = {name: EXPERIMENTS[name].runs(study) for name in names}
    for name, runs in runs_of.items():
        check_keeps_more(name, request=request, runs=runs)
    needed = distinct(itertools.chain(*runs_of.values()))
    _announce(needed)
    finished = [run for run in needed if state(run) == "finished"]
    check_together(finished, study)  # before any other is made
    study.data = study.data or next((run.origin.data for run in finished if run.origin.data), None)
    maker = RunMaker(needed, study.data, refused=study.refused)
    failures, untold = [], []
    for name, runs in runs_of.items():
        experiment = EXPERIMENTS[name]
        if not request.draw_only:
            maker.make(distinct(runs), may_refuse=experiment.is_partial)
        told_of = tuple(run for run in runs if state(run) == "finished" or not experiment.is_partial)
        if request.draw_only and (unfinished(told_of) or not told_of):
            untold.append(name)
            continue
        try:
            _tell(name, told_of, study)
        except (ReportError, RunFolderError) as error:
            failures.append(f"{name}: {error}")
    if untold:
        left = unfinished(needed)
        where = f" in {left[0].folder}" if left[0].folder else ""
        failures.append(
            f"{len(left)} of {len(needed)} runs have not finished, the first is {left[0].label}{where};"
            f" {', '.join(untold)} cannot be told of: make the runs with the same command without --draw-only"
        )
    if failures:
        raise ReportError("; ".join(failures))


def _tell(name: str, runs: Sequence[Run], study: Study) -> None:
    """Writes and shows what an experiment tells of its runs; raises ReportError, RunFolderError."""
    if not runs and study.refused:
        why = next(iter(study.refused.values()))
        raise ReportError(f"none of its runs can be made; of the first, {why.told(flag_of)}")
    check_together((run for run in runs if run.folder is not None), study)
    experiment = EXPERIMENTS[name]
    told = experiment.tell(study)
    paths = write(told, name, study=study, runs=runs)
    paths += write_files(study.request.output / name, experiment.pages(study))
    print(f"\n{to_markdown(told) if isinstance(told, Table) else told.caption}".rstrip(), flush=True)
    print("\n".join(f"wrote {path}" for path in paths), flush=True)


def state(run: Run) -> str:
    """What there is of a run: "finished", "begun", "missing", or "not needed" where there is nothing to train."""
    if run.folder is None:
        return "not needed" if isinstance(run, Retraining) and is_finished(run.search.folder) else "missing"
    if is_finished(run.folder):
        return "finished"
    return "begun" if run.folder.is_dir() and any(run.folder.iterdir()) else "missing"


def unfinished(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if state(run) in ("begun", "missing")]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """The runs without those that have another's folder, searches first: trainings wait for them."""
    by_place: dict[object, Run] = {}
    for run in sorted(runs, key=lambda run: isinstance(run, Retraining)):
        by_place.setdefault(run.folder or run, run)
    return list(by_place.values())


def check_together(runs: Iterable[Run], study: Study) -> None:
    """Reads finished runs, and checks that they were made with the same data, those of the study where it knows them.

    Raises ReportError where they were not, mimicked different teachers, or one of them cannot be read.
    """
    preprocessing = study.request.settings.data.preprocessing
    known = {} if study.data is None else {"other data": (study.data.fingerprint, "this command's")}
    for run in runs:
        # Read as well, so that damage shows before more is made.
        _ = run.result, run.individuals if isinstance(run, Search) else None
        origin = run.origin
        fingerprint: str | None = origin.data_fingerprint
        if run.settings is not None and run.settings.data.preprocessing != preprocessing:
            # The command that made it noted the data that this preprocessing gives.
            fingerprint = origin.machine.data.fingerprint if origin.machine and origin.machine.data else None
        for what, own in (("other data", fingerprint), ("another teacher", origin.teacher_fingerprint)):
            if own is None:
                continue
            expected, whose = known.setdefault(what, (own, f"that of {run.label}"))
            if own != expected:
                raise ReportError(
                    f"{run.label} was made with {what} (fingerprint {own[:12]}, {whose} is {expected[:12]});"
                    " choose another --runs-dir, or the data and teacher of before"
                )


def _announce(runs: Sequence[Run]) -> None:
    states = [state(run) for run in runs]
    counts = ", ".join(f"{states.count(each)} {each}" for each in ("finished", "begun", "missing"))
    # Two trainings may turn out to be of one network.
    at_most = "At most " if any(run.folder is None for run in runs) else ""
    print(f"{at_most}{len(runs)} runs are needed: {counts}")
    for run, own in zip(runs, states, strict=True):
        where = str(run.folder)
        if isinstance(run, Retraining) and run.folder is None:
            waits = own == "missing"
            where = f"once {run.search.label} has ended" if waits else f"{run.search.label} has no such network"
        print(f"  {own:<10}  {run.label:<64}  {where}", flush=True)


@dataclasses.dataclass
class RunMaker:
    """Makes runs that have not finished, one after another, and says before each how far all of them are."""

    needed: Sequence[Run]  # all that are to be made in the end, distinct
    data: DataFacts | None  # of all of them
    clock: Callable[[], float] = time.monotonic  # seconds from any fixed time on
    refused: dict[Path, EigenError] = dataclasses.field(default_factory=dict)  # by run folder, filled with why

    def __post_init__(self) -> None:
        self.began = self.clock()
        self.took: dict[type, list[float]] = defaultdict(list)

    def make(self, runs: Iterable[Run], *, may_refuse: bool = False) -> None:
        """Makes those of these runs that have not finished; trainings come after the searches of their networks.

        Those that the budget does not pay for, that no memory holds, or in which nothing survives, are noted if they
        may be, else it raises BudgetError, TooLargeError or BarrenSearchError.
        """
        for run in runs:
            # Asked one by one: two trainings may turn out to be of one network.
            if not unfinished([run]) or run.settings is None:
                continue
            began = self.clock()
            left, after = [each for each in unfinished(self.needed) if each.folder not in self.refused], ""
            if all(self.took[type(each)] for each in left):
                seconds = sum(statistics.mean(self.took[type(each)]) for each in left)
                after = f", about {duration(seconds)} left"
            number, so_far = len(self.needed) - len(left) + 1, duration(began - self.began)
            print(f"\nRun {number} of {len(self.needed)}: {run.label} ({so_far} so far{after})", flush=True)
            try:
                self._make(run, run.settings)
            except (BudgetError, TooLargeError, BarrenSearchError) as error:
                if not may_refuse:
                    raise
                self.refused[run.settings.run_dir] = error
                print(f"{run.label}: {error.told(flag_of)}", flush=True)
                continue
            self.took[type(run)].append(self.clock() - began)

    def _make(self, run: Run, settings: Settings) -> None:
        if isinstance(run, Search):
            search(settings)
        elif run.network is not None:
            also = run.also if isinstance(run, HandDesigned) else None
            if cause := retrain(settings, run.network, also=also):
                print(f"{run.label}: the training diverged ({cause})", flush=True)
        # What trains a network that is given does not time it.
        latency = measure_latency(run) if isinstance(run, HandDesigned) else None
        note_machine(settings.run_dir, self.data, latency)


def _check_compares(name: str, settings: Settings) -> None:
    if name in ("table3", "table5") and settings.teacher == "none":
        raise SettingsError("--teacher is none; it must be cache or live where mimicry is compared with none")
    if name in ("table4", "table5") and settings.search.final_until == 0:
        raise SettingsError("--final-steps is 0; it must be at least 1 where networks are trained again")
    if name in ("table4", "figure2") and settings.search.evolution.max_duplication_generations == 0:
        raise SettingsError("--max-duplication-generations is 0; it must be at least 1 where duplication is shown")


def _describe_experiments() -> str:
    """What each experiment is, what it costs, and what the paper reports: for the help."""
    texts = {name: inspect.getdoc(experiment.tell) for name, experiment in sorted(EXPERIMENTS.items())}
    printed = {name: tables.describe_published(name) for name in texts} | {"table1": table1.describe_printed()}
    paragraphs = [f"{name}: {text}\n{printed[name]}".rstrip() for name, text in texts.items()]
    return "\n\n".join(text.replace("\n\n", "\n").replace("\n", "\n  ") for text in paragraphs)


if __name__ == "__main__":
    sys.exit(main())
