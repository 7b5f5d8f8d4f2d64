"""Files that are written whole or not at all, and JSON that is either sound or one error.

Writing goes to a temporary name, `<name>.partial`, beside the file, waits for the disk and renames.
So a process killed at any moment, or a full disk, leaves the old file or the new one, and at most a
partial file, which the next writing replaces. One process writes to a file at a time.
"""

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from eigen_jax.errors import EigenError

PARTIAL = ".partial"  # what a temporary name ends with

_MAX_DEPTH = 64  # of objects and arrays in one another
_MAX_DIGITS = 300  # of an integer, so that each can be made a float

# The disk, the quota of the user or that of the process is used up.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FREE_SPACE = "free some space there, then give the same command again"


class JSONError(EigenError):
    """Text that is no JSON as `write_json` writes it: one line that says why."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Gives a file to write to, which takes the place of `path` when the block ends without an error.

    With an error, of the block's own or of writing, what was at `path` is as it was, and the
    temporary file is gone, so that a full disk is as full as before.

    Raises:
        OSError: it cannot be written.
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


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file as a whole.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file of text, in UTF-8, as a whole; raises as `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON file as a whole.

    Raises:
        OSError: it cannot be written; what was there is as it was.
        ValueError: the content holds a number that is not finite.
        TypeError: the content is nothing that JSON can hold.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def append_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Adds to the end of a file, which is made where it is missing, and waits for the disk.

    Where not all of it can be written, what was written of it is cut off again. A kill in between
    leaves a part of it.

    Raises:
        OSError: it cannot be written; the file is as it was.
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
    """Waits until the names in a folder are on disk, where its file system can tell.

    Raises:
        OSError: they cannot be written.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def parse_json(text: str | bytes) -> Any:
    """The value that JSON describes; bytes are UTF-8.

    Stricter than Python's reader: numbers are finite, and integers have at most 300 digits; no
    object has a key twice; objects and arrays are at most 64 deep in one another.

    Raises:
        JSONError: for anything else.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode()
        value = json.loads(
            decoded,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_without_repetition,
        )
    except UnicodeDecodeError:
        raise JSONError("it is no text in UTF-8") from None
    except RecursionError:
        raise JSONError("its arrays and objects are too deep in one another") from None
    except json.JSONDecodeError as error:
        raise JSONError(str(error)) from None
    _check_depth(value)
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file, see `parse_json`.

    Raises:
        OSError: the file cannot be read.
        JSONError: it is damaged.
    """
    return parse_json(Path(path).read_bytes())


def explain(error: OSError, advice: str) -> str:
    """Why a file cannot be written, and what to do: to free space where that is it, else the advice."""
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    return f"{reason}; {_FREE_SPACE if error.errno in _FULL else advice}"


def _refuse_constant(name: str) -> float:
    raise JSONError(f"it holds {name}, which is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JSONError("it holds a number that is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise JSONError(f"it holds an integer of {len(digits):,} digits")
    return int(digits)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise JSONError("it holds an object with one key twice")
    return made


def _check_depth(value: Any) -> None:
    """Checks that code which walks over a value, or shows it, does not run out of stack."""
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise JSONError("its arrays and objects are too deep in one another")
