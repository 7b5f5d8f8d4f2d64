"""Files that are whole or not there: what writing leaves behind where it fails, and what JSON is refused.

A full disk is a small tmpfs where this process may mount one, and a limit on the size of a file
everywhere. A folder that cannot be written is a tmpfs that is mounted read-only for root, whom
permissions do not bind, and a matter of permissions for others.
"""

import contextlib
import dataclasses
import errno
import hashlib
import math
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refuses

from eigen_jax import lineage
from eigen_jax.architecture import Architecture
from eigen_jax.data.loading import kept_arrays
from eigen_jax.executor import Outcome
from eigen_jax.lineage import Fate, Individual, LineageError
from eigen_jax.report import ReportError
from eigen_jax.report.files import write_files as write_report
from eigen_jax.search import RunFolder, RunFolderError
from eigen_jax.search.journal import Entry, Journal
from eigen_jax.store import checkpoint, files
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.records import read_json, write_json
from eigen_jax.store.run_files import Reference, RunResult, RunSeconds, write_result
from experiments.evaluate import _write_logits
from experiments.settings import SettingsError

FIRST = Reference(generation=0, index=0)
IMAGE_ONLY = Architecture(input_shape=(8, 8, 1), layers=())
FULL = "; free some space there, then give the same command again"

Filling = Callable[[], contextlib.AbstractContextManager[None]]  # leaves no space while it lasts
Full = tuple[Path, Filling, str]


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in a new folder."""
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command to make a small file system with")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte is left on the disk of a folder; what lies there may be replaced by nothing larger."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """No file of this process may grow to more than some bytes; the kernel then says that it is too large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["small disk", "size limit"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Full]:
    """A folder, what makes its disk full, and what the system then says."""
    if request.param == "size limit":
        yield tmp_path, limited, os.strerror(errno.EFBIG)
        return
    with mounted(tmp_path / "small", "512k") as folder:
        yield folder, lambda: filled(folder), os.strerror(errno.ENOSPC)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Makes a folder in `tmp_path / "disk"` read-only, and gives what the system says to who writes there."""
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            stack.enter_context(mounted(tmp_path / "disk", "4m"))
        else:
            (tmp_path / "disk").mkdir()

        def protect(folder: Path) -> str:
            if os.geteuid() == 0:
                subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
                return os.strerror(errno.EROFS)
            for each in [folder, *folder.rglob("*")]:
                stack.callback(each.chmod, each.stat().st_mode)
                each.chmod(0o500 if each.is_dir() else 0o400)
            return os.strerror(errno.EACCES)

        yield protect


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder, but for the one that fills the disk and locks."""
    found = (file for file in folder.rglob("*") if file.is_file() and file.name not in ("filler", ".lock"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def individual(generation: int, **fields: Any) -> Individual:
    made: dict[str, Any] = {"index": 0, "parameters": 1, "flops": 1, "parents": (), "operators": {}, "cause": "x"}
    made |= {"phase": "primary", "architecture": IMAGE_ONLY, "fate": Fate.FAILED}
    return Individual(generation=generation, **made | fields)


def result(*, test_accuracy: float | None = None, final_cause: str | None = None) -> RunResult:
    return RunResult(
        test_accuracy=test_accuracy, final_cause=final_cause, network=None, seconds=RunSeconds(final=None), mimicry=None
    )


def test_a_file_is_replaced_as_a_whole_or_added_to_and_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"old")
    (tmp_path / "file.json.partial").write_bytes(b"half of something longer, as a kill leaves it")
    with files.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert (tmp_path / "file.json.partial").read_bytes() == b"new"
    assert contents(tmp_path) == {"file.json": b"new"}
    write_json(path, {"ä": [1, 0.5, None]})
    assert read_json(path) == {"ä": [1, 0.5, None]}
    files.write(path, "ä\n")
    assert path.read_bytes() == b"\xc3\xa4\n"
    for content in (b"one", b"two"):
        files.append(tmp_path / "other", content)
    assert contents(tmp_path)["other"] == b"onetwo"
    for folder in (tmp_path, Path(".")):
        with pytest.raises(IsADirectoryError) as caught:
            files.write(folder, b"")
        assert caught.value.strerror == "Is a directory"
    for wrong, error in ((tmp_path, IsADirectoryError), (tmp_path / "none", FileNotFoundError)):
        with pytest.raises(error):
            read_json(wrong)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt(), ValueError("no")])
def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_halfway() -> None:
        with files.replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail_halfway()
    for content in ({"a": math.nan}, {"a": {1, 2}}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, content)
    assert contents(tmp_path) == {"file": b"old"}


def test_digests_are_of_texts_and_of_the_values_of_arrays(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256("ä".encode() + array.tobytes()).hexdigest()
    assert files.sha256(["ä", array]) == files.sha256(iter(["ä", np.asfortranarray(array)])) == expected
    half = jnp.ones((2, 2), jnp.bfloat16)
    assert (
        files.sha256([np.asarray(half), np.ones(1, np.float32)])
        == hashlib.sha256(b"\x80\x3f" * 4 + b"\x00\x00\x80\x3f").hexdigest()
    )
    (tmp_path / "file").write_bytes(b"content")
    assert files.sha256_of_file(tmp_path / "file") == files.sha256(["content"])


def test_a_record_and_a_run_folder_on_a_full_disk_are_as_they_were(full: Full) -> None:
    folder, filling, reason = full
    path = folder / "lineage.jsonl"
    lineage.append(path, [individual(0, cause="x" * 400)])
    before = contents(folder)
    with filling(), refuses(LineageError, f"cannot write {path}: {reason}{FULL}"):
        lineage.append(path, [individual(1, cause="x" * 10_000)])
    assert contents(folder) == before
    lineage.append(path, [individual(1)])
    assert [each.generation for each in lineage.read(path)] == [0, 1]
    before = contents(folder)
    with filling(), refuses(LineageError, f"cannot write {path}: {reason}{FULL}"):
        lineage.truncate(path, 1)
    assert contents(folder) == before
    line = f"cannot write {folder / 'run'}: {reason}{FULL}"
    with RunFolder.open(folder / "run", {"seed": 1}, {}) as run:
        write_result(run.path, result(test_accuracy=0.5))
        journal, entry = Journal(run.journal), Entry(individual=FIRST, fingerprint="f", landmark=0, outcome=Outcome())
        journal.add(entry)
        before = contents(folder)
        with filling(), refuses(RunFolderError, f"cannot write {folder / 'run' / 'result.json'}: {reason}{FULL}"):
            write_result(run.path, result(test_accuracy=0.75, final_cause="x" * 10_000))
        with filling(), refuses(RunFolderError, line.replace("run:", "run/generation.jsonl:")):
            journal.add(dataclasses.replace(entry, landmark=1, outcome=Outcome(cause="x" * 10_000)))
        assert journal.entries == [entry]
        with filling(), pytest.raises((CheckpointError, RunFolderError), match=reason):
            run.save_network(IMAGE_ONLY, {"params": {"kernel": np.ones(5_000)}})
        assert contents(folder) == before
    refused = refuses(RunFolderError, f"cannot write {folder / 'new' / 'settings.json'}: {reason}{FULL}")
    with filling(), refused, RunFolder.open(folder / "new", {"x": "y" * 9_000}, {}):
        pass
    assert contents(folder) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_checkpoint_on_a_full_disk_leaves_the_steps_before(full: Full) -> None:
    folder, filling, reason = full
    values = np.random.default_rng(0).normal(size=8_000).astype(np.float32)
    checkpoint.save(folder / "steps", 1, {"state": {"value": values}})
    before = contents(folder)
    with filling(), refuses(CheckpointError, f"step 2 cannot be saved in {folder / 'steps'}: {reason}{FULL}"):
        checkpoint.save(folder / "steps", 2, {"state": {"value": values}})
    assert contents(folder) == before
    assert [entry.name for entry in (folder / "steps").iterdir()] == ["1"]
    np.testing.assert_array_equal(checkpoint.restore(folder / "steps", "state")["value"], values)
    checkpoint.save(folder / "steps", 2, {"state": {"value": values}})
    assert checkpoint.steps(folder / "steps") == (1, 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fills_up_while_a_checkpoint_or_a_line_is_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "400k") as folder:
        checkpoint.save(folder / "steps", 1, {"state": {"value": np.zeros(100)}})
        lineage.append(folder / "lineage.jsonl", [individual(0)])
        before = contents(folder)
        free = shutil.disk_usage(folder).free
        # They fit as they are, but not with what Orbax writes beside them.
        values = np.random.default_rng(0).integers(0, 256, free - 1_000, np.uint8)
        with refuses(CheckpointError, f"step 2 cannot be saved in {folder / 'steps'}: No space left on device{FULL}"):
            checkpoint.save(folder / "steps", 2, {"state": {"value": values}})
        with pytest.raises(LineageError, match="No space left on device"):
            lineage.append(folder / "lineage.jsonl", [individual(1, cause="x" * 1_000_000)])  # of which a part fits
        assert contents(folder) == before
        assert shutil.disk_usage(folder).free == free


def test_files_on_a_full_disk_are_as_they_were_and_none_is_partial(
    full: Full, caplog: pytest.LogCaptureFixture
) -> None:
    folder, filling, reason = full
    files.write(folder / "file", b"old")
    write_report(folder / "page", {".md": b"old"})
    kept_arrays(folder / "arrays.npz", ["a"], lambda: [np.zeros(3)])
    before = contents(folder)
    with filling():
        for path in (folder / "file", folder / "new"):
            for write in (files.write, files.append):
                with pytest.raises(OSError, match=reason) as caught:
                    write(path, bytes(5_000))
                assert files.explain(caught.value, "choose another") == reason + FULL
                assert contents(folder) == before
        with refuses(ReportError, f"cannot write {folder / 'page.md'}: {reason}{FULL}"):
            write_report(folder / "page", {".md": bytes(5_000)})
        with refuses(SettingsError, f"cannot write {folder / 'logits.npy'}: {reason}{FULL}"):
            _write_logits(folder / "logits.npy", np.zeros((100, 10)))
        kept_arrays(folder / "arrays.npz", ["a", "one that it lacks"], lambda: [np.ones(9_000)] * 2)
    assert f"cache file {folder / 'arrays.npz'} cannot be written ({reason}); going on without it" in caplog.text
    assert contents(folder) == before
    assert kept_arrays(folder / "arrays.npz", ["a"], lambda: [np.ones(9_000)])[0].size == 3


def test_a_read_only_folder_is_told_of_and_is_as_it_was(
    tmp_path: Path, read_only: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "disk" / "run"
    with RunFolder.open(folder, {"seed": 1}, {}) as run:
        write_result(run.path, result())
    lineage.append(folder / "lineage.jsonl", [individual(0), individual(1)])
    checkpoint.save(folder / "checkpoints", 1, {"state": {"value": np.ones(3)}})
    before = contents(folder)
    reason = read_only(folder)
    unwritten = f"cannot write {folder / 'lineage.jsonl'}: {reason}; choose a folder that can be written"
    with refuses(LineageError, unwritten):
        lineage.append(folder / "lineage.jsonl", [individual(1)])
    with refuses(LineageError, unwritten):
        lineage.truncate(folder / "lineage.jsonl", 1)
    with refuses(RunFolderError, unwritten.replace("lineage.jsonl", "result.json")):
        write_result(run.path, result(test_accuracy=1.0))
    unwritten = f"cannot write {folder}: {reason}; choose a folder that can be written"
    with refuses(RunFolderError, unwritten), RunFolder.open(folder, {"seed": 1}, {}):
        pass
    with pytest.raises(CheckpointError, match=f"^step 2 cannot be saved in .*: {reason}; choose a folder that can"):
        checkpoint.save(folder / "checkpoints", 2, {"state": {"value": np.ones(3)}})
    kept_arrays(folder / "arrays.npz", ["a"], lambda: [np.ones(3)])
    assert f"cannot be written ({reason})" in caplog.text
    assert contents(folder) == before
    assert len(lineage.read(folder / "lineage.jsonl")) == 2
    assert checkpoint.restore(folder / "checkpoints", "state")["value"].shape == (3,)
