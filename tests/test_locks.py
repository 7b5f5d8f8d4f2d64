"""Locks of files: they keep other processes and threads out, and whoever waits is told and can be stopped."""

import threading
from pathlib import Path

import filelock
import pytest
from refusals import refuses

from eigen_jax.store import locks
from eigen_jax.store.locks import InUseError, StoppedError, held


def test_who_has_no_patience_is_refused_and_nobody_after_the_block(tmp_path: Path) -> None:
    refused: list[str | None] = []
    lock = tmp_path / "new" / ".lock"

    def try_it() -> None:
        try:
            with held(lock, patience=0):
                refused.append(None)
        except InUseError as error:
            refused.append(str(error))

    with held(lock):
        (thread := threading.Thread(target=try_it)).start()
        thread.join()
    try_it()
    assert refused == [
        f"{tmp_path}/new is in use by another process; wait for it or end it, or choose another folder",
        None,
    ]


def test_who_waits_is_told_once_and_goes_on_when_the_lock_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_POLL", 0.01)
    other, told = filelock.FileLock(tmp_path / ".lock", thread_local=False), []
    other.acquire()
    asked = iter([False, False, False])

    def should_stop() -> bool:
        if not (waits := next(asked, True)):
            return waits
        other.release()
        return False

    with held(tmp_path / ".lock", should_stop=should_stop, on_wait=lambda: told.append("waits")):
        assert told == ["waits"]
    with other, pytest.raises(StoppedError), held(tmp_path / ".lock", should_stop=lambda: True):
        pass


def test_a_lock_that_cannot_be_made_or_is_held_too_long_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_POLL", 0.01)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="exists"), held(tmp_path / "file" / ".lock"):
        pass
    line = f"{tmp_path} is in use by another process; wait for it or end it, or choose another folder"
    with (
        filelock.FileLock(tmp_path / ".lock"),
        refuses(InUseError, line),
        held(tmp_path / ".lock", patience=0.03),
    ):
        pass
