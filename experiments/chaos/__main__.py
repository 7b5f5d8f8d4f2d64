"""Disturbs searches at random moments, again and again, and shows that all come out as an undisturbed one.

    python -m experiments.chaos                                        # 50 kills of whole runs
    python -m experiments.chaos --kills 200 --seed 1 --executor processes --workers 2
    python -m experiments.chaos --victim worker --executor ray         # kills workers; the run goes on by itself
    python -m experiments.chaos --disturbance stop --kills 20          # SIGSTOP, and SIGCONT after some seconds
    python -m experiments.chaos --disturbance terminal --kills 20      # closes the terminal that the run is on

Runs a whole search on the digits, teacher and final training included, twice undisturbed. Then begins further ones,
kills each with SIGKILL (or disturbs it otherwise), and gives the same command again where that has ended it, until it
ends by itself. Exit code 0: all lineages, results and networks are equal, times apart, and nothing half-written was
left. Exit code 1: one is not, and a line says what.
"""

import collections
import functools
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from eigen_jax.store.files import told_as
from experiments.chaos.campaign import NOUNS, Campaign, DifferentError, Disturbance
from experiments.chaos.folders import RUN, TEACHER, Phase
from experiments.chaos.processes import has_proc
from experiments.command_line import Parser, absolute_path, positive
from experiments.commands import INTERRUPTED, command
from experiments.machine import heading
from experiments.progress import duration
from experiments.settings import SettingsError

DIFFERENT = 1  # exit code

# A whole search on the digits, as small as one can be with all of its phases; of one seed whose networks have
# blocks that can be duplicated.
SETTINGS = (
    *("--preset", "smoke", "--seed", "25", "--teacher-members", "2", "--teacher-epochs", "8"),
    *("--max-primary-generations", "2", "--max-secondary-generations", "1", "--final-steps", "200"),
)


def digits_command(folder: Path, cache: Path, *, where: Sequence[str], settings: Sequence[str] = SETTINGS) -> list[str]:
    """The command that runs the search in the folder of a run, or goes on with it."""
    places = ("--run-dir", str(folder / RUN), "--teacher-dir", str(folder / TEACHER), "--cache-dir", str(cache))
    # It saves so often that trainings this short are saved on their way.
    return [sys.executable, "-m", "experiments.digits", *settings, *places, *where, "--save-every", "0.5"]


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(prog="python -m experiments.chaos", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--kills", type=positive, default=50, metavar="N", help="or other disturbances, in all runs together [50]")
    add("--seed", type=int, default=0, metavar="N", help="seed of the moments [0]")
    add("--folder", type=absolute_path, metavar="PATH", help="keep the runs in this new folder [a temporary one]")
    where = "where individuals train [inline; processes with --victim worker]"
    add("--executor", choices=("inline", "processes", "ray"), help=where)
    add("--workers", type=positive, default=2, metavar="N", help="of the executor [2]")
    whom = "run: the search's own process; worker: one of its workers [run]"
    add("--victim", choices=("run", "worker"), default="run", help=whom)
    how = "kill: SIGKILL; stop: SIGSTOP, and SIGCONT some seconds later; terminal: its terminal is closed [kill]"
    add("--disturbance", choices=NOUNS, default="kill", help=how)
    arguments = parser.parse_args(argv)
    kind, is_worker = arguments.disturbance, arguments.victim == "worker"
    arguments.executor = arguments.executor or ("processes" if is_worker else "inline")
    if is_worker and arguments.executor == "inline":
        raise SettingsError("--victim is worker, and --executor inline has none; choose processes or ray")
    if is_worker and not has_proc():
        raise SettingsError("--victim is worker, and this system has no /proc to find workers in; choose run")
    if is_worker and kind != "kill":
        raise SettingsError(f"--disturbance is {kind}, which is done to whole runs; leave out --victim")
    if kind == "terminal" and not has_proc():
        raise SettingsError("--disturbance is terminal, and this system has no /proc to see signals in; choose another")
    return arguments


def _make_folder(path: Path | None) -> Path:
    if path is None:
        return Path(tempfile.mkdtemp(prefix="eigen-chaos-"))
    with told_as(SettingsError, path, "choose another --folder"):
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise SettingsError(f"--folder is {path}, which is not empty; choose a new one")
    return path


@command
def main(argv: Sequence[str] | None = None, *, search: Callable[..., list[str]] = digits_command) -> int:
    """Disturbs what `search` gives the command of, compares and prints; gives 0 or `DIFFERENT`."""
    arguments = _parse(argv)
    began, folder = time.monotonic(), _make_folder(arguments.folder)
    print(heading())
    where = ("--executor", arguments.executor, "--workers", str(arguments.workers))
    what = {"victim": arguments.victim, "kind": arguments.disturbance, "times": arguments.kills, "seed": arguments.seed}
    campaign = Campaign(command=functools.partial(search, where=where), folder=folder, **what)
    try:
        campaign.run()
    except DifferentError as error:
        print(f"different: {error}; the folders are kept in {folder}", file=sys.stderr)
        return DIFFERENT
    except KeyboardInterrupt:
        print(f"interrupted; the folders are kept in {folder}", file=sys.stderr)
        return INTERRUPTED
    noun, done, runs = NOUNS[campaign.kind], campaign.disturbances, campaign.runs
    told = f"{len(done)} {noun}s of {campaign.victim}s (executor {arguments.executor})"
    print(f"\n{told}, in {duration(time.monotonic() - began)}\n\n{table(done, noun)}")
    print(f"\n{runs} of {runs} lineages equal, and so are the results and the networks")
    if arguments.folder is None:
        shutil.rmtree(folder)
    return 0


def table(disturbances: Sequence[Disturbance], noun: str) -> str:
    """The disturbances by phase, those among them that fell into the writing of a file, and the sums."""
    by_phase = collections.Counter(one.phase for one in disturbances)
    written = collections.Counter(one.phase for one in disturbances if one.written)
    rows: list[tuple[str, int | str, int | str]] = [("phase", f"{noun}s", "while a file was written")]
    rows += [(phase, by_phase[phase], written[phase]) for phase in Phase]
    rows.append(("all", by_phase.total(), written.total()))
    return "\n".join(f"{name:19}  {count:>8}  {during:>24}" for name, count, during in rows)


if __name__ == "__main__":
    sys.exit(main())
