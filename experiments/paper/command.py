"""The commands of the paper's experiments: finds and makes the runs, then writes tables and pictures."""

import dataclasses
import sys
from collections.abc import Sequence

from eigen_jax.data import load_dataset
from eigen_jax.report import ReportError, Table, to_markdown
from experiments.paper.catalogue import EXPERIMENTS
from experiments.paper.output import check_keeps_more, check_writable, write
from experiments.paper.records import DataFacts
from experiments.paper.request import Request, read_request
from experiments.paper.running import (
    Makers,
    RunMaker,
    Runs,
    describe_runs,
    describe_unfinished,
    read_finished,
    unfinished,
)
from experiments.retrain import retrain
from experiments.runner import configure, run_command, search


def main(
    names: Sequence[str], about: str | None, argv: Sequence[str] | None = None, *, makers: Makers | None = None
) -> int:
    """Makes tables and figures of the paper.

    Args:
        names: of the experiments that the command can make.
        about: what its help says.
        argv: the command line's arguments; those of the process by default.
        makers: make the runs; by default, searches and trainings in this process.

    Returns:
        The exit code, see `run_command`.
    """
    argv = sys.argv[1:] if argv is None else argv
    program = f"python -m experiments.{names[0] if len(names) == 1 else 'reproduce'}"

    def command() -> None:
        request, asked = read_request(argv, program=program, about=about or "", experiments=names)
        for name in asked:
            EXPERIMENTS[name].check(request.settings)
        check_writable(request.output)
        request = dataclasses.replace(request, settings=configure(request.settings))
        make(request, asked, makers=makers or Makers(search=search, train=retrain))

    return run_command(command)


def make(request: Request, names: Sequence[str], *, makers: Makers) -> None:
    """Makes what is missing of the runs, and tells of each experiment as soon as its runs have finished.

    Raises:
        ReportError: the runs of some experiments have not finished and are not to be made, or do not
            show what these tell of, such as a duplicate where none was bred; all others are made before.
        EigenError, Interrupted.
    """
    runs = Runs(data=None if request.draw_only else _data_facts(request))
    plans = {name: EXPERIMENTS[name].plans(request) for name in names}
    for name, own in plans.items():
        check_keeps_more(name, request=request, plans=own)
    needed = runs.distinct(plan for own in plans.values() for plan in own)
    for line in describe_runs(runs, needed):
        _tell(line)
    read_finished(runs, needed)
    maker = RunMaker(runs=runs, needed=needed, dataset=request.dataset, makers=makers, tell=_tell)
    failures, untold = [], []
    for name, own in plans.items():
        if request.draw_only and unfinished(runs, own):
            untold.append(name)
            continue
        maker.make(runs.distinct(own))
        try:
            told = EXPERIMENTS[name].tell(request, runs)
        except ReportError as error:
            failures.append(f"{name}: {error}")
            continue
        paths = write(told, name, request=request, plans=own, runs=runs)
        _tell(f"\n{to_markdown(told) if isinstance(told, Table) else told.caption}".rstrip())
        _tell("\n".join(f"wrote {path}" for path in paths))
    if untold:
        failures.append(describe_unfinished(runs, needed, untold=untold))
    if failures:
        raise ReportError("; ".join(failures))


def _data_facts(request: Request) -> DataFacts:
    return DataFacts.of(load_dataset(request.settings.data))


def _tell(line: str) -> None:
    print(line, flush=True)
