"""JSON that is sound or one error, and the kinds of files whose content is a dataclass."""

import contextlib
import dataclasses
import json
import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from eigen_jax.errors import EigenError, first_line
from eigen_jax.store import files, locks

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]  # so that they can be added up
Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\0]*\Z")]  # a path or a version can be no other

T = TypeVar("T")

_MAX_DEPTH = 64  # of objects and arrays in one another
_MAX_DIGITS = 300  # of an integer, so that each can be made a float
_LONGEST = 200  # characters of a name or a value in a message
_SHOWN = 24  # of a text there


class JSONError(EigenError):
    """Text that is no JSON as `write_json` writes it, or that holds something else."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFile(Generic[T]):
    """A kind of JSON file, of a dataclass's fields and a schema version, and its only reader and writer."""

    name: str  # of the file in its folder
    place: str  # that folder, such as "run folder"
    kind: type[T]
    schema_version: int
    error: type[EigenError]  # what is raised
    advice: str  # what to do about a file that is damaged or missing
    is_exact: bool = False  # whether fields that the dataclass does not have are damage; else they are passed over

    def is_in(self, folder: Path) -> bool:
        """Whether a folder holds the file, damaged or not."""
        return (folder / self.name).exists()

    def read(self, folder: Path) -> T:
        """What the file in a folder says; raises `error` where it is missing, damaged or of another schema version."""
        path = folder / self.name
        try:
            content = convert(read_json(path), dict[str, Any])
            version = content.pop("schema_version", None)
            if type(version) is int and version == self.schema_version:
                record = convert(content, self.kind)
                if self.is_exact and not _is_within(content, to_fields(record)):
                    raise JSONError("it has unknown fields")
                return record
        except OSError as error:
            raise self.error(f"cannot read {path}: {error.strerror}; {self.advice}") from None
        except JSONError as error:
            raise self.error(f"{path} is damaged ({error}); {self.advice}") from None
        shown = reprlib.repr(version)
        raise self.error(f"{path} has schema version {shown}; this version of eigen_jax reads {self.schema_version}")

    def write(self, folder: Path, content: T | Mapping[str, Any]) -> None:
        """Writes the file, of a record or of fields, which may be more than a record's; raises `error`."""
        fields = content if isinstance(content, Mapping) else to_fields(content)
        with files.told_as(self.error, folder / self.name):
            write_json(folder / self.name, {"schema_version": self.schema_version, **fields})

    @contextlib.contextmanager
    def opened(self, folder: Path, **waiting: Any) -> Iterator[None]:
        """Makes the folder where it is missing, and holds its lock while the block runs; `waiting`: see `locks.held`.

        Raises `error` where the folder cannot be written, holds something else or is in use.
        """
        with contextlib.ExitStack() as stack:
            with files.told_as(self.error, folder):
                folder.mkdir(parents=True, exist_ok=True)
                self.check_place(folder)
                stack.enter_context(locks.held(folder / locks.LOCK, **waiting))
            yield

    def check_place(self, folder: Path) -> None:
        """Raises `error` where the folder holds files and not this one."""
        names = {entry.name for entry in folder.iterdir()}
        # A process killed before the file was whole has left these two at most.
        if self.name not in names and names - {locks.LOCK, f"{self.name}{files.PARTIAL}"}:
            raise self.error(f"{folder} holds files but no {self.name}, so it is no {self.place}; choose another")


def to_fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass, and of those in it, but for those that are `msgspec.UNSET`."""
    return dataclasses.asdict(record, dict_factory=lambda fields: {name: v for name, v in fields if v is not UNSET})


def _is_within(part: Any, whole: Any) -> bool:
    """Whether a JSON value has no field that another one does not have, at any depth."""
    if isinstance(part, dict):
        return part.keys() <= whole.keys() and all(_is_within(part[name], whole[name]) for name in part)
    return not isinstance(part, list) or all(map(_is_within, part, whole))


def changes(then: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> tuple[str, list[str]]:
    """The text and the values with which a `ConfigError` says what the named settings were and are now.

    Both are empty where all are as they were. What can be no name of a setting is told as it is.
    """
    texts, values = [], list[str]()
    for name in names:
        if then.get(name) == now.get(name):
            continue
        if name.isidentifier() and len(name) <= _LONGEST:
            texts.append(f"{{{name}}} was {{}} and is now {{}}")
        else:
            texts.append("{} was {} and is now {}")
            values.append(name[:_LONGEST] if name.isprintable() else _shown(name))
        values += [_shown(then.get(name)), _shown(now.get(name))]
    return ", ".join(texts), values


def _shown(value: Any) -> str:
    shown = repr(f"{value[:_SHOWN]}..." if isinstance(value, str) and len(value) > _SHOWN else value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


def convert(content: Any, kind: type[T]) -> T:
    """What a JSON value describes, as a type with annotations, of which integers are floats as well; else JSONError."""
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise JSONError(first_line(error)) from None


def as_json(content: Any) -> Any:
    """A value as it comes back from a JSON file: tuples become lists, paths text."""
    return json.loads(json.dumps(content, default=str))


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON file as `files.write` does; ValueError, TypeError: the content is nothing that JSON can hold."""
    files.write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file, see `parse_json`; raises OSError as well."""
    return parse_json(Path(path).read_bytes())


def parse_json(text: str | bytes) -> Any:
    """The value that JSON describes, bytes in UTF-8; raises JSONError for anything else.

    Stricter than Python's reader: numbers are finite, and integers have at most 300 digits; no
    object has a key twice; objects and arrays are at most 64 deep in one another.
    """
    hooks: dict[str, Any] = {"parse_constant": _finite, "parse_float": _finite, "parse_int": _integer}
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_without_repetition, **hooks)
        _check_depth(value)
    except UnicodeDecodeError:
        raise JSONError("it is no text in UTF-8") from None
    except RecursionError:
        raise JSONError("its arrays and objects are too deep in one another") from None
    except json.JSONDecodeError as error:
        raise JSONError(str(error)) from None
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise JSONError(f"it holds {text[:_SHOWN]}, which is no finite number")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise JSONError(f"it holds an integer of {len(digits):,} digits")
    return int(digits)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(made := dict(pairs)) < len(pairs):
        raise JSONError("it holds an object with one key twice")
    return made


def _check_depth(value: Any, left: int = _MAX_DEPTH) -> None:
    """Checks that code which walks over a value, or shows it, does not run out of stack."""
    if isinstance(value, dict | list):
        if left < 0:
            raise RecursionError
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, left - 1)
