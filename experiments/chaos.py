"""Disturbs searches at random moments, again and again, and shows that all come out as an undisturbed one.

    python -m experiments.chaos                                        # 50 kills of whole runs
    python -m experiments.chaos --kills 200 --seed 1 --executor processes --workers 2
    python -m experiments.chaos --victim worker --executor ray         # kills workers; the run goes on by itself
    python -m experiments.chaos --disturbance stop --kills 20          # SIGSTOP, and SIGCONT after some seconds
    python -m experiments.chaos --disturbance terminal --kills 20      # closes the terminal that the run is on

Runs a whole search on the digits, teacher and final training included, twice undisturbed. Then
begins further ones, kills each with SIGKILL (or disturbs it otherwise), and gives the same command
again where that has ended it, until it ends by itself. Exit code 0: all lineages, results and
networks are equal, times apart, and nothing half-written was left. Exit code 1: one is not, and a
line says what.
"""

import contextlib
import functools
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from experiments.benchmarks.machine import describe_machine, describe_versions
from experiments.command_line import Parser, absolute_path, positive
from experiments.disturbance.campaign import NOUNS, Campaign, DisturbedError
from experiments.disturbance.command import digits_command
from experiments.disturbance.processes import has_proc
from experiments.disturbance.summary import table
from experiments.runner import INTERRUPTED, run_command
from experiments.settings import SettingsError

DIFFERENT = 1  # exit code

_EXECUTORS = ("inline", "processes", "ray")
_VICTIMS = ("run", "worker")


def main(argv: Sequence[str] | None = None, *, search: Callable[..., list[str]] = digits_command) -> int:
    """Disturbs, compares and prints.

    Args:
        argv: the command line's arguments; those of the process by default.
        search: gives the command that is disturbed; see `digits_command`.

    Returns:
        The exit code: 0, `DIFFERENT`, or one of `run_command`'s.
    """

    def command() -> int:
        arguments = _parse(argv)
        with _folder(arguments.folder) as folder:
            try:
                _disturb(arguments, folder, search)
            except DisturbedError as error:
                print(f"different: {error}; the folders are kept in {folder}", file=sys.stderr)
                return DIFFERENT
            except KeyboardInterrupt:
                print(f"interrupted; the folders are kept in {folder}", file=sys.stderr)
                return INTERRUPTED
            if arguments.folder is None:
                shutil.rmtree(folder)
        return 0

    return run_command(command)


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(prog="python -m experiments.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--kills", type=positive, default=50, metavar="N", help="or other disturbances, in all runs together [50]"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the moments [0]")
    parser.add_argument(
        "--folder", type=absolute_path, metavar="PATH", help="keep the runs in this new folder [a temporary one]"
    )
    parser.add_argument(
        "--executor", choices=_EXECUTORS, help="where individuals train [inline; processes with --victim worker]"
    )
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="of the executor [2]")
    parser.add_argument(
        "--victim",
        choices=_VICTIMS,
        default="run",
        help="run: the search's own process; worker: one of its workers [run]",
    )
    parser.add_argument(
        "--disturbance",
        choices=NOUNS,
        default="kill",
        help="kill: SIGKILL; stop: SIGSTOP, and SIGCONT some seconds later; terminal: its terminal is closed [kill]",
    )
    arguments = parser.parse_args(argv)
    arguments.executor = arguments.executor or ("processes" if arguments.victim == "worker" else "inline")
    if arguments.victim == "worker":
        if arguments.executor == "inline":
            raise SettingsError("--victim is worker, and --executor inline has none; choose processes or ray")
        if not has_proc():
            raise SettingsError("--victim is worker, and this system has no /proc to find workers in; choose run")
        if arguments.disturbance != "kill":
            raise SettingsError(
                f"--disturbance is {arguments.disturbance}, which is done to whole runs; leave out --victim"
            )
    if arguments.disturbance == "terminal" and not has_proc():
        raise SettingsError("--disturbance is terminal, and this system has no /proc to see signals in; choose another")
    return arguments


@contextlib.contextmanager
def _folder(path: Path | None) -> Iterator[Path]:
    """A new folder: the one asked for, or a temporary one."""
    if path is None:
        yield Path(tempfile.mkdtemp(prefix="eigen-chaos-"))
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_empty = not any(path.iterdir())
    except OSError as error:
        raise SettingsError(f"--folder is {path}, which cannot be used: {error.strerror}; choose another") from None
    if not is_empty:
        raise SettingsError(f"--folder is {path}, which is not empty; choose a new one")
    yield path


def _disturb(arguments: Namespace, folder: Path, search: Callable[..., list[str]]) -> None:
    """Does it all, in a folder of its own.

    Raises:
        DisturbedError: a run did not come out as the undisturbed one.
    """
    began = time.monotonic()
    print(", ".join(f"{name}: {value}" for name, value in (describe_machine() | describe_versions()).items()))
    campaign = Campaign(
        command=functools.partial(search, executor=arguments.executor, workers=arguments.workers),
        folder=folder,
        times=arguments.kills,
        seed=arguments.seed,
        victim=arguments.victim,
        kind=arguments.disturbance,
        tell=functools.partial(print, flush=True),
    )
    record = campaign.run()
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    what = "workers" if arguments.victim == "worker" else "runs"
    noun = NOUNS[campaign.kind]
    count = f"{len(record.disturbances)} {noun}s of {what}"
    print(f"\n{count} (executor {arguments.executor}), in {minutes} min {seconds} s\n")
    print(table(record.disturbances, noun))
    print(f"\n{record.runs} of {record.runs} lineages equal, and so are the results and the networks")


if __name__ == "__main__":
    sys.exit(main())
