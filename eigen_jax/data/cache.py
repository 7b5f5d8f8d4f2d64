"""Arrays kept on disk between runs. A cache is a convenience: no failure of it stops a run."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eigen_jax.store import files, locks

_logger = logging.getLogger(__name__)


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """The named arrays of a cache file; None where there is none, or a damaged one (every array has a CRC-32)."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as error:  # a damaged archive raises nearly anything, and all of it means the same
        _logger.warning("cache file %s is damaged (%s) and is built again", path, type(error).__name__)
        return None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a cache file whole or not at all; a cache that cannot be written is a warning."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        with locks.held(lock):
            try:
                with files.replacing(path) as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
            finally:
                # Where this lets another process in, both write the same bytes.
                lock.unlink(missing_ok=True)
    except OSError as error:
        _logger.warning("cache file %s cannot be written (%s); going on without it", path, error.strerror or error)
