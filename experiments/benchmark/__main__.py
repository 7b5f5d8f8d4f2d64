"""Measures what a search waits for, beside PyTorch where that is installed.

    python -m experiments.benchmark                         # everything
    python -m experiments.benchmark --quick                 # a first look: some minutes on two cores
    python -m experiments.benchmark --only steps parts      # some groups of rows
    python -m experiments.benchmark --json benchmark.json   # the same numbers for programs
    python -m experiments.benchmark --search runs/digits-small   # how much of a finished run was training

Times and rates are medians of calls after the first; what is compared is called in turns. Run it on
an otherwise idle machine.
"""

import dataclasses
import functools
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

import jax

from eigen_jax.platforms import check_devices_are_there
from eigen_jax.store.files import told_as
from eigen_jax.store.records import write_json
from experiments.benchmark import searches, steps
from experiments.benchmark.measuring import Plan, Progress, Row, Rows, not_measured, table
from experiments.command_line import Parser, absolute_path, positive
from experiments.commands import INTERRUPTED, command, show
from experiments.machine import describe_machine, describe_versions, heading
from experiments.process import keep_freed_memory
from experiments.settings import SettingsError

GROUPS: Mapping[str, Callable[[Plan, Progress], Rows]] = {
    "steps": steps.measure_steps,
    "parts": steps.measure_parts,
    "mimicry": steps.measure_mimicry,
    "evolution": searches.measure_evolution,
    "compile": steps.measure_compilation,
    "search": searches.measure_search,
    "workers": searches.measure_workers,
    "memory": searches.measure_memory,
}

# What a quick run measures only where it is asked to.
_LONG = ("workers", "memory")


def _parse(argv: Sequence[str] | None) -> Namespace:
    about = (__doc__ or "").partition("\n")[0]
    parser = Parser(prog="python -m experiments.benchmark", description=about)
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and shorter measurements: some minutes on two cores")
    add("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)} [all]")
    add("--memory", type=positive, metavar="N", help="different networks for the memory [300]")
    add("--json", type=absolute_path, metavar="FILE", help="write the numbers to FILE, too")
    add("--search", type=absolute_path, metavar="RUN_DIR", help="only show how much of a finished run was training")
    arguments = parser.parse_args(argv)
    if (path := arguments.json) is not None and not path.parent.is_dir():
        raise SettingsError(f"there is no folder {path.parent} to write {path.name} in; make it")
    return arguments


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes."""
    arguments = _parse(argv)
    try:
        rows = [searches.measure_folder(arguments.search)] if arguments.search else _measure(arguments)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    if (path := arguments.json) is not None:
        told = [dataclasses.asdict(row) for row in rows]
        with told_as(SettingsError, path, "name a file that can be written"):
            write_json(path, {"machine": describe_machine(), "versions": describe_versions(), "rows": told})
    show(table(rows))
    return 0


def _measure(arguments: Namespace) -> list[Row]:
    """All rows of the groups asked for, with a line on stderr for each thing that is measured."""
    keep_freed_memory()
    check_devices_are_there()
    # A cache of compiled programs, which the environment can name, would hide what compilation costs.
    jax.config.update("jax_enable_compilation_cache", False)
    print(heading(), flush=True)
    plan = Plan(memory=arguments.memory or Plan.memory)
    if arguments.quick:
        plan = dataclasses.replace(plan, quick=True, rounds=9, seconds=6, mutation_batches=(256,), runs=2)
    began = time.perf_counter()

    def progress(group: str, what: str) -> None:
        print(f"{time.perf_counter() - began:4.0f} s  {group}: {what}", file=sys.stderr, flush=True)

    rows = []
    asked = [*(arguments.only or ()), *(["memory"] if arguments.memory else [])]
    for group in (group for group in GROUPS if group in (arguments.only or GROUPS)):
        if group in _LONG and arguments.quick and group not in asked:
            told = f"{steps.LEFT_OUT}; --only {group} measures it"
            rows.append(not_measured(told, group=group, what=group))
        else:
            rows += GROUPS[group](plan, functools.partial(progress, group))
    return rows


if __name__ == "__main__":
    sys.exit(main())
