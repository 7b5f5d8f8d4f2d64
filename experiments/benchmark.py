"""Measures what a search waits for, beside PyTorch where that is installed.

    python -m experiments.benchmark                         # everything
    python -m experiments.benchmark --quick                 # a first look: two minutes on two cores
    python -m experiments.benchmark --only steps parts      # some groups of rows
    python -m experiments.benchmark --json benchmark.json   # the same numbers for programs
    python -m experiments.benchmark --search runs/digits-small   # how much of a finished run was training

Times and rates are medians of calls after the first; what is compared is called in turns. Run it on
an otherwise idle machine.
"""

import dataclasses
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import jax

from eigen_jax.platforms import check_devices_are_there
from eigen_jax.store.files import told_as
from eigen_jax.store.records import write_json
from experiments.allocator import keep_freed_memory
from experiments.benchmarks.machine import describe_machine, describe_versions
from experiments.benchmarks.measuring import Row
from experiments.benchmarks.plan import GROUPS, Plan, quick_plan
from experiments.benchmarks.search import measure_folder
from experiments.benchmarks.table import table
from experiments.command_line import Parser, absolute_path, positive
from experiments.runner import INTERRUPTED, run_command
from experiments.screen import show
from experiments.settings import SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; returns the exit code, see `run_command`."""

    def command() -> int:
        try:
            _show_and_write(_parse(argv))
        except KeyboardInterrupt:
            print("interrupted; nothing was written", file=sys.stderr)
            return INTERRUPTED
        return 0

    return run_command(command)


def _show_and_write(arguments: Namespace) -> None:
    if arguments.search is not None:
        rows = [measure_folder(arguments.search)]
    else:
        _set_up()
        print(_heading(), flush=True)
        rows = _measure(arguments)
    if arguments.json is not None:
        _write(arguments.json, rows)
    show(table(rows))


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(prog="python -m experiments.benchmark", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements: two minutes on two cores")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)} [all]")
    parser.add_argument(
        "--memory", type=positive, metavar="N", help="different networks for the memory [300; none with --quick]"
    )
    parser.add_argument("--json", type=absolute_path, metavar="FILE", help="write the numbers to FILE, too")
    parser.add_argument(
        "--search",
        type=absolute_path,
        metavar="RUN_DIR",
        help="measure nothing; show how much of a finished run was training",
    )
    arguments = parser.parse_args(argv)
    if arguments.json is not None and not arguments.json.parent.is_dir():
        folder = arguments.json.parent
        raise SettingsError(f"there is no folder {folder} to write {arguments.json.name} in; make it")
    return arguments


def _set_up() -> None:
    keep_freed_memory()
    check_devices_are_there()
    # A cache of compiled programs, which the environment can name, would hide what compilation costs.
    jax.config.update("jax_enable_compilation_cache", False)


def _measure(arguments: Namespace) -> list[Row]:
    """All rows of the groups asked for, with a line on stderr for each thing that is measured."""
    only = arguments.only or GROUPS
    asked_for = 300 if not arguments.quick or "memory" in (arguments.only or ()) else None
    memory = arguments.memory or asked_for
    plan = quick_plan(memory=memory) if arguments.quick else Plan(memory=memory)
    began = time.perf_counter()
    rows: list[Row] = []
    for group, measure in GROUPS.items():
        if group in only:

            def progress(what: str, group=group) -> None:
                print(f"{time.perf_counter() - began:4.0f} s  {group}: {what}", file=sys.stderr, flush=True)

            rows.extend(measure(plan, progress))
    return rows


def _heading() -> str:
    return ", ".join(f"{name}: {value}" for name, value in (describe_machine() | describe_versions()).items())


def _write(path: Path, rows: Sequence[Row]) -> None:
    content = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    with told_as(SettingsError, path, "name a file that can be written"):
        write_json(path, content)


if __name__ == "__main__":
    sys.exit(main())
