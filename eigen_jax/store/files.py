"""Files that are written whole or not at all, what is told where they cannot be, and digests.

Writing goes to a temporary name, `<name>.partial`, beside the file, waits for the disk and renames. So a process killed
at any moment, or a full disk, leaves the old file or the new one, and at most a partial file, which the next writing
replaces. One process writes to a file at a time.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from eigen_jax.errors import EigenError, first_line
from eigen_jax.store.locks import InUseError

PARTIAL = ".partial"  # what a temporary name ends with

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota of the user or that of the process is used up


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Gives a file to write to, which takes the place of `path` when the block ends without an error.

    With an error, of the block's own or an OSError of writing, `path` is as it was, and the temporary file is gone.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes a file, of text in UTF-8, as a whole; raises as `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def append(path: str | os.PathLike[str], content: bytes) -> None:
    """Adds to the end of a file, which is made where it is missing, and waits for the disk.

    A kill in between leaves a part of it; an OSError leaves none.
    """
    path = Path(path)
    is_new = not path.exists()
    # Unbuffered: a buffer that could not be written is tried again when the file is closed.
    with open(path, "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(size)
                if is_new:
                    path.unlink(missing_ok=True)
            raise
    if is_new:
        sync_folder(path.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Waits until the names in a folder are on disk, where its file system can tell; raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to write to, which gets its name when the block ends without an error."""
    partial = folder.with_name(f"{folder.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        sync_folder(partial)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(folder.parent)


@contextlib.contextmanager
def told_as(
    error: type[EigenError], place: object, advice: str = "choose a folder that can be written"
) -> Iterator[None]:
    """Raises what keeps the block from writing to a place as an error for the user, with advice."""
    try:
        yield
    except InUseError as found:
        raise error(str(found)) from None
    except OSError as found:
        raise error(f"cannot write {place}: {explain(found, advice)}") from None


def explain(error: OSError, advice: str) -> str:
    """Why a file cannot be written, and what to do: to free space where that is it, else the advice."""
    if error.errno in _FULL:
        advice = "free some space there, then give the same command again"
    return f"{error.strerror or first_line(error)}; {advice}"


def sha256(parts: Iterable[str | np.ndarray]) -> str:
    """SHA-256, hexadecimal, of texts, in UTF-8, and the values of arrays, in C order, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        digest.update(content)
    return digest.hexdigest()


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256, hexadecimal, of what a file holds; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
