"""Compiled programs kept on disk, between landmarks, generations, processes and runs.

A search compiles a program for each network, and the networks are small: many compile in less
than the second below which JAX keeps nothing by default.
"""

import grp
import logging
import pwd
from pathlib import Path

import filelock
import jax

_BYTES = 1 << 30  # what it may take on disk
_TIME_BYTES = 8  # of the file that says when a program was last used
_PATIENCE = 30.0  # seconds that another process may hold the folder

_logger = logging.getLogger(__name__)


def keep_compiled(cache_dir: Path) -> None:
    """Lets this process keep what it compiles in a folder of the cache; warns where that cannot be written."""
    settings = _settings(cache_dir)
    try:
        _folder(cache_dir).mkdir(parents=True, exist_ok=True)
        _remove_partial(_folder(cache_dir))
    except OSError as error:
        reason = error.strerror or "another process holds it"
        _logger.warning("cache folder %s cannot be written (%s); going on without it", cache_dir, reason)
        return
    if not _has_named_owners(_folder(cache_dir)):
        _logger.warning(
            "cache folder %s has files of a user or a group without a name, where JAX keeps no compiled programs;"
            " going on without it",
            cache_dir,
        )
        return
    for name, value in settings.items():
        jax.config.update(name, value)


def environment(cache_dir: Path) -> dict[str, str]:
    """The variables that let a process that is started with them do the same; none where the folder cannot be used."""
    if not _folder(cache_dir).is_dir() or not _has_named_owners(_folder(cache_dir)):
        return {}
    return {name.upper(): str(value) for name, value in _settings(cache_dir).items()}


def _remove_partial(folder: Path) -> None:
    """Removes what a killed process left half-written; JAX would warn of it for ever, and keep nothing more.

    JAX writes a program, and then when it was last used, in a file of its own beside it, both under its lock.
    """
    with filelock.FileLock(folder / ".lockfile", timeout=_PATIENCE):
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


def _folder(cache_dir: Path) -> Path:
    return cache_dir / "compiled"


def _settings(cache_dir: Path) -> dict[str, str | int | float]:
    return {
        "jax_compilation_cache_dir": str(_folder(cache_dir).absolute()),
        "jax_compilation_cache_max_size": _BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
