"""Checkpoints of named pytrees under numbered steps: each is there whole, or not at all.

A checkpoint is a folder named after its step. It holds one Orbax item per named pytree, and a manifest with a checksum
of every file. Saving writes under a hidden name and renames; deleting renames to a hidden name and then deletes. So a
process killed at any moment leaves only whole steps, and hidden leftovers that the next `save` clears away.

The manifest is there because Orbax reads array data without a checksum, and fails late and noisily on a half-deleted
step. It is written after the step was read back, to the last bit: Orbax can write what nobody can read, and only warn.
A step that does not match its manifest is passed over. Nothing that Orbax reads can name code to be run.

Leaves may be JAX or NumPy arrays, typed keys and Python numbers; Orbax cannot store arrays of size zero, or text. One
process writes to a folder at a time.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eigen_jax.errors import EigenError, first_line
from eigen_jax.store import files
from eigen_jax.store.records import JSONError, convert, read_json, write_json

PyTree = Any

_MANIFEST = "manifest.json"
_SAVING = "saving"  # suffixes of the hidden names
_DELETING = "deleting"
_PER_PROCESS = "ocdbt.process_*"  # what Orbax writes of an item first, and joins when it has ended
_JOINED = "manifest.ocdbt"
_SYSTEM_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")

# Orbax tells the threads of its saves by a number that the whole process shares: a save that begins while another
# one is under way takes that one's number, and both wait forever for what only the other is told.
_ONE_AT_A_TIME = threading.Lock()

# In other paths Orbax and TensorStore find patterns ([1]), separators (a backslash), addresses (gs:/) and no text.
_PLAIN_PATH = re.compile(r"[\w/ .,=+@%#~-]*")


class CheckpointError(EigenError):
    """A checkpoint that cannot be written, or that is not there to be read as asked."""


def save(folder: str | Path, step: int, items: Mapping[str, PyTree], *, keep: int = 2) -> None:
    """Saves the named pytrees as one checkpoint, and returns when it is on disk.

    The step is at least 0, and later than every intact one in the folder, which is made where it is missing; damaged
    ones from `step` on are removed. The newest `keep`, at least 1, remain.

    Raises CheckpointError where it is no later step, or cannot be written: what was there before still is.
    """
    folder = Path(folder).absolute()
    if step < 0 or keep < 1:
        raise CheckpointError(f"step is {step} and keep is {keep}; they must be at least 0 and at least 1")
    later = [path for path in _listed(folder) if int(path.name) >= step]
    if there := next(filter(_is_intact, later), None):
        raise CheckpointError(f"step {step} cannot be saved: {folder} has step {there.name} already; save a later step")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        _check_space(folder, items)
        written = _write(folder, step, items)
        for damaged in later:
            _delete(damaged)
        written.rename(folder / str(step))
        files.sync_folder(folder)
        for old in _listed(folder)[:-keep]:
            _delete(old)
    except Exception as error:  # Orbax raises nearly anything
        with contextlib.suppress(OSError):
            _clear_leftovers(folder)
        raise CheckpointError(f"step {step} cannot be saved in {folder}: {_reason(error)}") from error


def steps(folder: str | Path) -> tuple[int, ...]:
    """The steps of the intact checkpoints in `folder`, ascending; none where there is no folder."""
    return tuple(int(path.name) for path in _listed(folder) if _is_intact(path))


def latest_step(folder: str | Path) -> int | None:
    """The newest of `steps`; None where there is none."""
    return next((int(path.name) for path in reversed(_listed(folder)) if _is_intact(path)), None)


def restore(folder: str | Path, name: str, *, step: int | None = None, abstract: PyTree | None = None) -> PyTree:
    """Reads one named pytree of a step, by default of the newest intact one.

    It has the structure of `abstract`, a pytree of `jax.ShapeDtypeStruct`s or arrays. Without that, dataclasses
    and named tuples come back as the dictionaries, and tuples as the lists, that Orbax stores. Arrays lie on
    the devices that they lay on when saved, or on the default one where those are not here.

    Raises CheckpointError: no such checkpoint or item, damage, or another structure or shape than `abstract`.
    """
    folder = Path(folder).absolute()
    if step is None:
        if (step := latest_step(folder)) is None:
            raise CheckpointError(f"{folder} holds no intact checkpoint; start the run anew, or name another folder")
    elif not _is_intact(folder / str(step)):
        present = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(f"step {step} in {folder} is missing or damaged; the intact steps are: {present}")
    path = folder / str(step)
    if not (path / name).is_dir():
        names = ", ".join(sorted(entry.name for entry in path.iterdir() if entry.is_dir()))
        raise CheckpointError(f"step {step} in {folder} holds no {name!r}; it holds: {names}")
    try:
        return _read(path, {name: abstract})[name]
    except Exception as error:  # another structure, or damage that the manifest agrees with, can raise nearly anything
        raise CheckpointError(f"{name!r} of step {step} in {folder} has another form: {first_line(error)}") from error


def is_same(one: Any, two: Any) -> bool:
    """Whether two leaves, arrays, typed keys or Python numbers, are equal to the last bit."""
    if _is_key(one):
        one, two = jax.random.key_data(one), jax.random.key_data(two)
    one, two = np.asarray(one), np.asarray(two)
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


def _listed(folder: str | Path) -> list[Path]:
    """The folders of all steps, intact or not, in their order."""
    return sorted((path for path in Path(folder).glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))


def _write(folder: Path, step: int, items: Mapping[str, PyTree]) -> Path:
    import orbax.checkpoint as ocp  # here and below: importing it takes half as long as importing Flax

    path = folder / f".{step}.{_SAVING}"
    args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
    with _checkpointer(path) as (checkpointer, plain):
        checkpointer.save(plain, args=ocp.args.Composite(**args))
    # To the host, since a device that trains may have no room for a second copy.
    if not jax.tree.all(jax.tree.map(is_same, _read(path, jax.tree.map(_on_host, dict(items))), dict(items))):
        raise ValueError("what was written is read back as something else; choose another folder")
    digests = _digests(path)
    for name in digests:
        with (path / name).open("rb") as file:
            os.fsync(file.fileno())
    write_json(path / _MANIFEST, {"sha256": digests})
    return path


def _read(path: Path, abstract: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Items of a step, by name, each in the structure given for it, or as Orbax stores it where that is None."""
    import orbax.checkpoint as ocp

    fallback = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {name: ocp.args.StandardRestore(tree, fallback_sharding=fallback) for name, tree in abstract.items()}
    with _checkpointer(path) as (checkpointer, plain):
        restored = checkpointer.restore(plain, args=ocp.args.Composite(**wanted))
        return {name: restored[name] for name in abstract}


@contextlib.contextmanager
def _checkpointer(path: Path) -> Iterator[tuple[Any, Path]]:
    """Orbax's checkpointer, for one thread at a time, and a path to the same place that it takes as written."""
    import orbax.checkpoint as ocp

    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        plain = path
        if not _PLAIN_PATH.fullmatch(str(path)):
            link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eigen_jax-"))) / "folder"
            link.symlink_to(path.parent)
            plain = link / path.name
        yield stack.enter_context(ocp.Checkpointer(ocp.CompositeCheckpointHandler())), plain


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(leaf: Any) -> Any:
    """What stands for a leaf of which a copy on the host is wanted."""
    return np.empty(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) and not _is_key(leaf) else leaf


def _digests(path: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder and its folders but the manifest, by name."""
    found = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    return {name: files.sha256_of_file(file) for name, file in found.items() if name != _MANIFEST}


def _clear_leftovers(folder: Path) -> None:
    for leftover in (*folder.glob(f".*.{_SAVING}*"), *folder.glob(f".*.{_DELETING}")):
        shutil.rmtree(leftover)


def _delete(path: Path) -> None:
    shutil.rmtree(path.rename(path.with_name(f".{path.name}.{_DELETING}")))


def _is_intact(path: Path) -> bool:
    try:
        digests = convert(read_json(path / _MANIFEST), dict[str, dict[str, str]])["sha256"]
        # Saves that were never read back can hold items that Orbax did not join.
        joined = all((part.parent / _JOINED).is_file() for part in path.glob(f"*/{_PER_PROCESS}"))
        return joined and {} != digests == _digests(path)
    except (OSError, JSONError, KeyError):
        return False


def _check_space(folder: Path, items: Mapping[str, PyTree]) -> None:
    """Finds a disk too full before Orbax does, whose threads would print what they met with."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(dict(items)) if isinstance(leaf, jax.Array | np.ndarray))
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: Exception) -> str:
    # TensorStore tells what the system said in the text of a ValueError.
    if code := _SYSTEM_ERROR.search(str(error)):
        error = OSError(int(code[1]), os.strerror(int(code[1])))
    if isinstance(error, OSError):
        return files.explain(error, "choose a folder that can be written")
    return first_line(error)
