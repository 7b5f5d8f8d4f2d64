"""What every experiment does: settings from the command line, data, search, result."""

import dataclasses
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

import jax

from eigen_jax.data import load_dataset
from eigen_jax.data.types import DatasetName
from eigen_jax.errors import EigenError
from eigen_jax.platforms import check_devices_are_there
from eigen_jax.resumable import Care
from eigen_jax.search import BarrenSearchError, RunFolderError, SearchResult, check_data, check_run_folder, run_search
from eigen_jax.store.run_files import read_settings
from experiments.allocator import keep_freed_memory
from experiments.command_line import parse
from experiments.compilation_cache import keep_compiled
from experiments.executors import open_executor
from experiments.interruption import Interrupted, held_off
from experiments.machine import cores
from experiments.mimicry import prepare_teacher
from experiments.progress import ConsoleObserver
from experiments.screen import LostOutputError, guarded, make_console
from experiments.settings import Settings, flag_of

BAD_INPUT = 2  # exit codes
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_NO_READER = 141  # 128 + SIGPIPE

# What JAX draws and computes in, as it is by itself: a run must not depend on who started it.
_FIXED = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_x64": False,
    "jax_debug_infs": False,
}
_REASON = "a search would take another course with it; --seed chooses one"
_REASONS = {"jax_debug_infs": "in a search, infinity stands for what is not measured"}

_logger = logging.getLogger(__name__)


def main(name: DatasetName, argv: Sequence[str] | None = None) -> int:
    """Runs the search on a data set; returns the exit code, see `run_command`."""
    argv = sys.argv[1:] if argv is None else argv

    def command() -> None:
        program = f"python -m experiments.{name}"
        settings = configure(parse(argv, program=program, dataset=name))
        if search(settings).best is None:
            raise BarrenSearchError(
                "no network survived all landmarks; train longer or lower the learning rate, in a new run folder"
            )

    return run_command(command)


def run_command(command: Callable[[], int | None]) -> int:
    """Calls a command, and tells mistakes of the user in one line.

    Args:
        command: what is done; prints as `experiments.screen` has it, and may give an exit code of its own.

    Returns:
        The exit code: 0, or the command's own; `BAD_INPUT` after one line on stderr that says what to do,
        before which stands the traceback where JAX was told to look for NaNs and found one; 128 and the
        number of the signal that stopped the command, or that its reader's end stands for.
    """
    with guarded():
        return _exit_code(command)


def _exit_code(command: Callable[[], int | None]) -> int:
    try:
        return command() or 0
    except LostOutputError as error:
        if error.is_reader_gone:
            return _NO_READER
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except EigenError as error:
        print(f"error: {error.told(flag_of)}", file=sys.stderr)
        return BAD_INPUT
    except FloatingPointError as error:
        traceback.print_exc()
        without = "Without JAX_DEBUG_NANS, which looks for it, the same command goes on"
        print(f"error: {error}; the traceback above says where. {without}", file=sys.stderr)
        return BAD_INPUT
    except Interrupted as error:
        print(f"stopped by {error.number.name}, and saved; the same command goes on", file=sys.stderr)
        return 128 + error.number
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what was saved last", file=sys.stderr)
        return INTERRUPTED


def search(settings: Settings) -> SearchResult:
    """Loads the data, prepares the teacher and searches, with progress on the screen.

    Raises:
        EigenError, Interrupted.
    """
    dataset = load_dataset(settings.data)
    config = settings.search_config()
    # Before the teacher, which may take days.
    check_data(config, dataset)
    check_run_folder(settings.run_dir, {**settings.outcome(), "data_fingerprint": dataset.fingerprint})
    console = make_console()
    machine = settings.machine
    with held_off() as should_stop:
        teacher = prepare_teacher(settings, dataset, console, should_stop)
        with (
            open_executor(settings, dataset, teacher, should_stop) as executor,
            ConsoleObserver(config, folder=settings.run_dir, console=console) as observer,
        ):
            return run_search(
                config,
                dataset,
                settings.run_dir,
                teacher=teacher,
                executor=executor,
                care=Care(save_every=machine.save_every, time_limit=machine.time_limit, should_stop=should_stop),
                settings=settings.outcome(),
                notes=settings.notes(),
                observer=observer,
            )


def configure(settings: Settings) -> Settings:
    """Sets logging, memory, threads and JAX up for this process, before JAX looks for its devices.

    Returns:
        The settings, with the threads that the process trains with.

    Raises:
        PlatformError: JAX finds no device.
    """
    configure_logging()
    keep_freed_memory()
    threads = _threads(settings)
    os.environ["NPROC"] = str(threads)
    if settings.machine.executor == "processes":
        # The devices are the workers': this process takes what it needs of their memory, not most of it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _set_switches_aside()
    check_devices_are_there()
    keep_compiled(settings.data.cache_folder())
    return dataclasses.replace(settings, machine=dataclasses.replace(settings.machine, threads=threads))


def _set_switches_aside() -> None:
    """Computes as JAX does by itself. Workers have its switches from this process, see `eigen_jax.surroundings`."""
    for name, value in _FIXED.items():
        if (asked := getattr(jax.config, name)) != value:
            _logger.warning("%s=%s is set aside: %s", name.upper(), asked, _REASONS.get(name, _REASON))
            jax.config.update(name, value)


def _threads(settings: Settings) -> int:
    """The threads that are asked for, else those of the run, else all cores: the last bits depend on them."""
    try:
        machine = read_settings(settings.run_dir).machine
    except RunFolderError:  # there is none, or a damaged one
        machine = None
    before = machine.get("threads") if isinstance(machine, dict) else None
    asked = settings.machine.threads
    if not isinstance(before, int) or before < 1:
        return asked or cores()
    if asked not in (None, before):
        _logger.warning(
            "the run was started with %d threads, and goes on with %d; what follows may differ from what it would be",
            before,
            asked,
        )
    return asked or before


def configure_logging() -> None:
    """Shows what eigen_jax says, and only the warnings of all else."""
    # By force, because absl, which Orbax imports, has set the root logger up before.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("eigen_jax").setLevel(logging.INFO)
    # Orbax and tensorflow-datasets log through absl, with warnings that are of no use to the user.
    logging.getLogger("absl").setLevel(logging.ERROR)
