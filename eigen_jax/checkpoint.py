"""Checkpoints of named pytrees under numbered steps: each is there whole, or not at all.

A checkpoint is a folder named after its step. It holds one Orbax item per named pytree, and a
manifest with a checksum of every file. Saving writes under a hidden name and renames; deleting
renames to a hidden name and then deletes. So a process killed at any moment leaves only whole
steps, and hidden leftovers that the next `save` clears away.

The manifest is there because Orbax reads array data without a checksum (a flipped bit restores as
another number), and because reading a half-deleted step through Orbax fails late and noisily. A
step whose files do not match its manifest is damaged, and is passed over. Nothing that Orbax reads
from a checkpoint can name code to be run.

Leaves may be JAX or NumPy arrays, typed keys and Python numbers; Orbax cannot store arrays of size
zero, or text. One process writes to a folder at a time.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from eigen_jax import files

PyTree = Any

_MANIFEST = "manifest.json"
_SAVING = "saving"  # suffixes of the hidden names
_DELETING = "deleting"
_SYSTEM_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or that is not there to be read as asked."""


def save(folder: str | Path, step: int, items: Mapping[str, PyTree], *, keep: int = 2) -> None:
    """Saves the named pytrees as one checkpoint, and returns when it is on disk.

    Args:
        folder: where the steps of one run lie; made where it is missing.
        step: at least 0, and later than every intact step in the folder. Damaged steps from
            `step` on are removed.
        items: pytrees by name; a name is a plain file name.
        keep: how many of the newest steps remain, at least 1. With 1, nothing is left to fall
            back on when the newest is damaged later.

    Raises:
        CheckpointError: the step is not a later one, or the checkpoint cannot be written. The
            steps that were there before still are.
    """
    folder = Path(folder).absolute()
    if step < 0 or keep < 1:
        raise CheckpointError(f"step is {step} and keep is {keep}; they must be at least 0 and at least 1")
    for newer in [present for present in _listed_steps(folder) if present >= step]:
        if _is_intact(folder / str(newer)):
            raise CheckpointError(f"step {step} cannot be saved: {folder} has step {newer} already; save a later step")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        _check_space(folder, items)
        written = _write(folder, step, items)
        for damaged in [present for present in _listed_steps(folder) if present >= step]:
            _delete(folder / str(damaged))
        written.rename(folder / str(step))
        files.sync_folder(folder)
        for old in _listed_steps(folder)[:-keep]:
            _delete(folder / str(old))
    except Exception as error:  # Orbax raises nearly anything, and of a full disk not always an OSError
        with contextlib.suppress(OSError):
            _clear_leftovers(folder)
        raise CheckpointError(f"step {step} cannot be saved in {folder}: {_reason(error)}") from error


def steps(folder: str | Path) -> tuple[int, ...]:
    """The steps of the intact checkpoints in `folder`, ascending; none where there is no folder."""
    folder = Path(folder).absolute()
    return tuple(step for step in _listed_steps(folder) if _is_intact(folder / str(step)))


def latest_step(folder: str | Path) -> int | None:
    """The step of the newest intact checkpoint in `folder`, or None where there is none."""
    folder = Path(folder).absolute()
    return next((step for step in reversed(_listed_steps(folder)) if _is_intact(folder / str(step))), None)


def restore(folder: str | Path, name: str, *, step: int | None = None, abstract: PyTree | None = None) -> PyTree:
    """Reads one named pytree of a checkpoint.

    Args:
        folder: as given to `save`.
        name: the item's name.
        step: which checkpoint; the newest intact one where it is None.
        abstract: a pytree of `jax.ShapeDtypeStruct`s or arrays, such as `jax.eval_shape` gives,
            whose structure the result has. Without it, dataclasses and named tuples come back as
            the dictionaries, and tuples as the lists, that Orbax stores.

    Returns:
        The pytree. Its arrays lie where they lay when saved, or on the default device where
        those devices are not here.

    Raises:
        CheckpointError: no such checkpoint or item, damage, or a structure or shape other than
            that of `abstract`.
    """
    folder = Path(folder).absolute()
    if step is None:
        step = latest_step(folder)
        if step is None:
            raise CheckpointError(f"{folder} holds no intact checkpoint; start the run anew, or name another folder")
    elif not _is_intact(folder / str(step)):
        present = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(f"step {step} in {folder} is missing or damaged; the intact steps are: {present}")
    path = folder / str(step)
    if not (path / name).is_dir():
        names = ", ".join(sorted(entry.name for entry in path.iterdir() if entry.is_dir()))
        raise CheckpointError(f"step {step} in {folder} holds no {name!r}; it holds: {names}")
    fallback = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = ocp.args.Composite(**{name: ocp.args.StandardRestore(abstract, fallback_sharding=fallback)})
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(path, args=wanted)[name]
    except Exception as error:  # another structure, or damage that the manifest agrees with, can raise nearly anything
        raise CheckpointError(f"{name!r} of step {step} in {folder} has another form: {_one_line(error)}") from error


def _listed_steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())


def _write(folder: Path, step: int, items: Mapping[str, PyTree]) -> Path:
    path = folder / f".{step}.{_SAVING}"
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        checkpointer.save(path, args=ocp.args.Composite(**args))
    digests = {name: _sha256(path / name) for name in _files_in(path)}
    for name in digests:
        with (path / name).open("rb") as file:
            os.fsync(file.fileno())
    files.write_json(path / _MANIFEST, {"sha256": digests})
    return path


def _files_in(path: Path) -> list[str]:
    """The names of all files in a folder and its folders, but for the manifest's."""
    names = (file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file())
    return [name for name in names if name != _MANIFEST]


def _clear_leftovers(folder: Path) -> None:
    for pattern in (f".*.{_SAVING}*", f".*.{_DELETING}"):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover)


def _delete(path: Path) -> None:
    shutil.rmtree(path.rename(path.with_name(f".{path.name}.{_DELETING}")))


def _is_intact(path: Path) -> bool:
    try:
        digests = files.read_json(path / _MANIFEST)["sha256"]
        same_files = digests.keys() == set(_files_in(path)) != set()
        return same_files and all(_sha256(path / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    return _one_line(error)


def _one_line(error: Exception, limit: int = 300) -> str:
    return " ".join(str(error).split())[:limit]
