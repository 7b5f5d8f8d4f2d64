"""How processes that train are set up, this one and its workers: logging, memory, threads, JAX, programs on disk.

Compiled programs are kept between processes and runs. A search compiles one for each network, many in less than the
second below which JAX keeps nothing by default.
"""

import contextlib
import ctypes
import dataclasses
import grp
import logging
import os
import pwd
from pathlib import Path

import jax

from eigen_jax.data import Dataset, load_dataset
from eigen_jax.errors import ConfigError
from eigen_jax.platforms import check_devices_are_there, memory, return_freed_memory
from eigen_jax.store.locks import InUseError, held
from eigen_jax.store.run_files import RunFolderError, read_settings
from experiments.machine import cores
from experiments.settings import Machine, Settings

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

_KEPT_BYTES = 1 << 30  # of memory that was freed
# Options of glibc, by the variables that it reads at the start of a process: their numbers in malloc.h, and values.
_MALLOC = {
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_THRESHOLD_": (-3, _KEPT_BYTES),
    "MALLOC_TRIM_THRESHOLD_": (-1, _KEPT_BYTES),
}

_UNTOLD_BYTES = 8 << 30  # of memory that a device is taken to have which does not tell
_CPU_WORKERS = 2  # the most that are started where nobody said how many
_DRIVER_SHARE = 0.1  # of a device's memory, which workers that share it leave to the driver
_CONTEXT_SHARE = 0.1  # of a worker's part of the rest, which CUDA takes beside what JAX counts
_MEMORY_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # of which one may be set

_CACHE_BYTES = 1 << 30  # what compiled programs may take on disk
_TIME_BYTES = 8  # of the file that says when a program was last used
_PATIENCE = 30.0  # seconds that another process may hold their folder

_logger = logging.getLogger(__name__)


def configure(settings: Settings) -> Settings:
    """Sets this process up, before JAX looks for its devices, and gives the settings with the threads it trains with.

    Raises PlatformError where JAX finds no device.
    """
    configure_logging()
    keep_freed_memory()
    threads = _threads(settings)
    os.environ["NPROC"] = str(threads)
    if settings.machine.executor == "processes":
        # The devices are the workers': this process takes what it needs of their memory, not most of it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Workers have the switches of JAX from this process, see `eigen_jax.surroundings`.
    for name, value in _FIXED.items():
        if (asked := getattr(jax.config, name)) != value:
            _logger.warning("%s=%s is set aside: %s", name.upper(), asked, _REASONS.get(name, _REASON))
            jax.config.update(name, value)
    check_devices_are_there()
    keep_compiled(settings.data.cache_folder())
    return dataclasses.replace(settings, machine=dataclasses.replace(settings.machine, threads=threads))


def environment(settings: Settings) -> dict[str, str]:
    """The variables of processes that train for this one: their threads, and memory and programs kept as here."""
    variables = {"NPROC": str(settings.machine.threads or cores())}
    variables |= {name: str(value) for name, (_, value) in _MALLOC.items()}
    folder = _compiled(settings.data.cache_folder())
    if folder.is_dir() and _has_named_owners(folder):
        variables |= {name.upper(): str(value) for name, value in _cache_options(folder).items()}
    return variables


def worker_environments(settings: Settings) -> list[dict[str, str]]:
    """The variables of each worker process of this machine: as many as are asked for, or as fit.

    On GPUs, each worker sees its own; where several share one, each has its fraction of the memory. Raises
    ConfigError where more GPUs are asked for than there are.
    """
    common, share = environment(settings), settings.machine.worker_gpus
    if jax.default_backend() == "cpu":
        return [common] * (settings.machine.workers or min(_CPU_WORKERS, cores()))
    present, named = jax.local_device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA sees none from the first on that is not there; a worker with that one would compute on the CPU, unsaid.
    visible = named.split(",")[:present] if named else [str(number) for number in range(present)]
    places = _gpu_places(visible, share)
    count = settings.machine.workers or len(places)
    if count > len(places):
        rule = "{workers} is {}; with {worker_gpus} {:g}, the GPUs of this machine hold {}"
        raise ConfigError(Machine, rule, count, share, len(places))
    return [common | place for place in places[:count]]


def _gpu_places(visible: list[str], share: float) -> list[dict[str, str]]:
    if share < 1:
        each = int(1 / share)
        fraction = f"{(1 - _DRIVER_SHARE) * (1 - _CONTEXT_SHARE) / each:.3f}"
        memory = {} if any(name in os.environ for name in _MEMORY_FRACTIONS) else {_MEMORY_FRACTIONS[0]: fraction}
        # One after the other, so that few workers spread over all GPUs.
        return [{"CUDA_VISIBLE_DEVICES": gpu, **memory} for _ in range(each) for gpu in visible]
    width = int(share)
    groups = [visible[start : start + width] for start in range(0, len(visible) - width + 1, width)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]


def load_data(settings: Settings) -> Dataset:
    """The data, streamed where a device's memory is not for them; raises as `load_dataset`."""
    dataset = load_dataset(settings.data, device_bytes=device_bytes(settings))
    return_freed_memory()
    return dataset


def device_bytes(settings: Settings) -> int:
    """Bytes that images, or logits, may take of a device's memory in one process."""
    machine, is_cpu = settings.machine, jax.default_backend() == "cpu"
    workers = 0
    if machine.executor != "inline":
        workers = (machine.workers or _CPU_WORKERS) if is_cpu else max(1, int(1 / machine.worker_gpus))
    told = {} if is_cpu else jax.local_devices()[0].memory_stats() or {}
    available = memory() if is_cpu else told.get("bytes_limit", _UNTOLD_BYTES)
    # The driver has them as well.
    return int(machine.device_memory * available / (1 + workers))


def configure_logging() -> None:
    """Shows what eigen_jax says, and only the warnings of all else."""
    # By force, because absl, which Orbax imports, has set the root logger up before.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("eigen_jax").setLevel(logging.INFO)
    # Orbax and tensorflow-datasets log through absl, with warnings that are of no use to the user.
    logging.getLogger("absl").setLevel(logging.ERROR)


def _threads(settings: Settings) -> int:
    """The threads that are asked for, else those of the run, else all cores: the last bits depend on them."""
    asked, before = settings.machine.threads, None
    with contextlib.suppress(RunFolderError):  # there is none, or a damaged one
        machine = read_settings(settings.run_dir).machine
        before = machine.get("threads") if isinstance(machine, dict) else None
    if not isinstance(before, int) or before < 1:
        return asked or cores()
    if asked not in (None, before):
        told = "the run was started with %d threads, and goes on with %d; what follows may differ from what it would be"
        _logger.warning(told, before, asked)
    return asked or before


def keep_freed_memory() -> bool:
    """Lets the process reuse memory that it freed; gives whether it could: without glibc, nothing changes.

    By default, glibc maps the working memory of each training step on a CPU anew and the kernel clears every page of
    it, a fifth of the time of the step. It keeps it in one arena here.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*option) == 1 for option in _MALLOC.values())


def keep_compiled(cache_dir: Path) -> None:
    """Lets this process keep what it compiles in a folder of the cache; warns where that cannot be."""
    folder = _compiled(cache_dir)
    try:
        _remove_partial(folder)
    except InUseError:
        problem = "cannot be written (another process holds it)"
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
    else:
        if _has_named_owners(folder):
            for name, value in _cache_options(folder).items():
                jax.config.update(name, value)
            return
        problem = "has files of a user or a group without a name, where JAX keeps no compiled programs"
    _logger.warning("cache folder %s %s; going on without it", cache_dir, problem)


def _compiled(cache_dir: Path) -> Path:
    return (cache_dir / "compiled").absolute()


def _cache_options(folder: Path) -> dict[str, str | int | float]:
    return {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": _CACHE_BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }


def _remove_partial(folder: Path) -> None:
    """Removes what a killed process left half-written; JAX would warn of it for ever, and keep nothing more."""
    # JAX writes a program, and then when it was last used, in a file of its own beside it, both under its lock.
    with held(folder / ".lockfile", patience=_PATIENCE):
        for program in folder.glob("*-cache"):
            used = program.with_name(f"{program.name.removesuffix('-cache')}-atime")
            if not used.exists() or used.stat().st_size != _TIME_BYTES:
                program.unlink()
                used.unlink(missing_ok=True)


def _has_named_owners(folder: Path) -> bool:
    """Whether the users and groups of a folder's files have names, without which JAX cannot look at their sizes."""
    try:
        for user, group in {(each.stat().st_uid, each.stat().st_gid) for each in (folder, *folder.iterdir())}:
            pwd.getpwuid(user)
            grp.getgrgid(group)
    except KeyError:
        return False
    return True
