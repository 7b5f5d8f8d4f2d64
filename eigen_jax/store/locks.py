"""Locks of files, which keep other processes and threads out; one that dies holds none."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from eigen_jax.errors import EigenError

ShouldStop = Callable[[], bool]  # whether work is to be saved and left

LOCK = ".lock"  # the name of a folder's own lock

_POLL = 0.5  # seconds between two looks at whether to go on waiting


class StoppedError(Exception):
    """Work was left because it was asked to stop; what was done is saved."""


class InUseError(EigenError):
    """Another process or thread holds a lock."""


def never() -> bool:
    """A `ShouldStop` that lets everything go on."""
    return False


@contextlib.contextmanager
def held(
    path: Path,
    *,
    patience: float = math.inf,
    should_stop: ShouldStop = never,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Holds a lock, a file of its own, while the block runs; the folder that it lies in is made where it is missing.

    Where others hold it, `on_wait` is called once, and it is waited for: InUseError after `patience` seconds,
    StoppedError where `should_stop` says so. OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, deadline = filelock.FileLock(path), time.monotonic() + patience
    timeout = 0.0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=timeout)
        except filelock.Timeout:
            if not timeout:
                on_wait()
            if should_stop():
                raise StoppedError(f"another process holds {path}") from None
            if time.monotonic() >= deadline:
                advice = "wait for it or end it, or choose another folder"
                raise InUseError(f"{path.parent} is in use by another process; {advice}") from None
            timeout = _POLL
    try:
        yield
    finally:
        lock.release()
