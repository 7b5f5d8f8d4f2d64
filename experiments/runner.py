"""What every experiment does: settings from the command line, data, search, result."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from eigen_jax.architecture import ArchitectureError
from eigen_jax.checkpoint import CheckpointError
from eigen_jax.data import DataError, load_dataset
from eigen_jax.data.types import DatasetName
from eigen_jax.evolution import EvolutionConfigError
from eigen_jax.genome import GenomeSpecError
from eigen_jax.lineage import LineageError
from eigen_jax.report import ReportError
from eigen_jax.search import (
    FinalTrainingError,
    RunFolderError,
    SearchConfigError,
    check_data,
    check_run_folder,
    run_search,
)
from eigen_jax.teacher import TeacherError
from eigen_jax.training import TrainConfigError
from experiments.allocator import keep_freed_memory
from experiments.command_line import parse
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.progress import ConsoleObserver, make_console
from experiments.settings import Settings, SettingsError, with_flags
from experiments.teaching import check_settings, prepare_teacher

USER_ERRORS = (
    ArchitectureError,
    CheckpointError,
    DataError,
    EvolutionConfigError,
    FinalTrainingError,
    GenomeSpecError,
    LineageError,
    ReportError,
    RunFolderError,
    SearchConfigError,
    SettingsError,
    TeacherError,
    TrainConfigError,
)

BAD_INPUT = 2  # exit codes
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_COMPILED_BYTES = 1 << 30  # what the cache of compiled programs may take on disk

_logger = logging.getLogger(__name__)


def main(name: DatasetName, argv: Sequence[str] | None = None) -> int:
    """Runs the search on a data set.

    Args:
        name: of the data set.
        argv: the command line's arguments; those of the process by default.

    Returns:
        The exit code, see `run_command`.
    """
    argv = sys.argv[1:] if argv is None else argv

    def command() -> None:
        settings = parse(
            argv, program=f"python -m experiments.{name}", presets=PRESETS[name], default=DEFAULT_PRESET[name]
        )
        check_settings(name, settings)
        configure(settings)
        search(name, settings)

    return run_command(command)


def run_command(command: Callable[[], None]) -> int:
    """Calls a command, and tells mistakes of the user in one line.

    Returns:
        The exit code: 0, `BAD_INPUT` after one line on stderr that says what to do, or
        `INTERRUPTED`.
    """
    try:
        command()
    except USER_ERRORS as error:
        print(f"error: {with_flags(str(error))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what was saved last", file=sys.stderr)
        return INTERRUPTED
    return 0


def search(name: DatasetName, settings: Settings) -> None:
    """Loads the data, prepares the teacher and searches, with progress on the screen.

    Raises:
        one of `USER_ERRORS`.
    """
    dataset = load_dataset(settings.data_config(name))
    config = settings.search_config(dataset)
    # Before the teacher, which may take days.
    check_data(config, dataset)
    check_run_folder(settings.run_dir, {**settings.outcome(), "data_fingerprint": dataset.fingerprint})
    console = make_console()
    teacher = prepare_teacher(name, settings, dataset, console)
    with ConsoleObserver(config, folder=settings.run_dir, console=console) as observer:
        run_search(
            config,
            dataset,
            settings.run_dir,
            teacher=teacher,
            settings=settings.outcome(),
            notes={"folders": settings.folders()},
            observer=observer,
        )


def configure(settings: Settings) -> None:
    """Sets logging, memory and JAX up for this process."""
    configure_logging()
    keep_freed_memory()
    configure_jax(settings.cache_dir)


def configure_logging() -> None:
    """Shows what eigen_jax says, and only the warnings of all else."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("eigen_jax").setLevel(logging.INFO)
    # Orbax and tensorflow-datasets log through absl, with warnings that are of no use to the user.
    logging.getLogger("absl").setLevel(logging.ERROR)


def configure_jax(cache_dir: Path) -> None:
    """Keeps compiled programs between landmarks, generations and runs.

    A search compiles a program for each network, and the networks are small: many compile in less
    than the second below which JAX keeps nothing by default.
    """
    compiled = cache_dir / "compiled"
    try:
        compiled.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _logger.warning("cache folder %s cannot be written (%s); going on without it", cache_dir, error.strerror)
        return
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_compilation_cache_max_size", _COMPILED_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
