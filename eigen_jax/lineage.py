"""The lineage: an append-only record of every individual that a search evaluated.

A file of JSON lines, one an individual, in the order of generation and index. Fields stand in one
fixed order and numbers in Python's shortest exact form, so two runs that did the same wrote the
same bytes, but for the two fields of seconds. A line counts once its newline is written: what
follows the last newline is what a killed writer left, which `read` leaves out and `truncate`
removes.

A line ends with a checksum of all that it says but the seconds, and is read only if it stands
exactly as it was written. So any flipped bit is told, but for one that makes another number of
seconds. Lines of schema version 2, which have no checksum, are read as well.
"""

import dataclasses
import enum
import json
import math
import os
import reprlib
import sys
import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eigen_jax import files
from eigen_jax.architecture import Architecture, ArchitectureError, fingerprint, from_dict, to_dict
from eigen_jax.errors import EigenError
from eigen_jax.files import JSONError

SCHEMA_VERSION = 3

_WITHOUT_CHECKSUM = 2  # the schema version before
_MOST_SECONDS = 1e12  # so that they can be added up
_CHOOSE = "choose a folder that can be written"


class LineageError(EigenError):
    """A record that cannot be written, or a file that is no record of a run."""


class Fate(enum.StrEnum):
    """What became of an individual (Algorithm 1)."""

    PARENT = "parent"  # the fittest survivor: the next generation descends from it
    SURVIVED = "survived"
    EXTINCT_T1 = "extinct_t1"  # below the threshold of Eq. 1
    EXTINCT_T2 = "extinct_t2"  # below the threshold of Eq. 2
    FAILED = "failed"  # never measured to its end; `Individual.cause` says why


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """An individual of the same run, by its place.

    Raises:
        LineageError: a place that is not two integers of at least 0.
    """

    generation: int  # from 0, counted through the whole run
    index: int  # from 0, within the generation

    def __post_init__(self) -> None:
        for name in ("generation", "index"):
            _check_count(name, getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Landmark:
    """What was measured at one of the training lengths T1, T2, T3, and what it had to meet.

    Raises:
        LineageError: a value that is not finite, which JSON cannot hold.
    """

    fitness: float | None = None  # validation accuracy, a fraction; None: not measured
    threshold: float | None = None  # the same unit; None: no threshold was applied here

    def __post_init__(self) -> None:
        for name in ("fitness", "threshold"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))


def landmark(fitness: float | None, threshold: float | None = None) -> Landmark:
    """Makes a `Landmark` of scalars of any library.

    Both are recorded as the shortest decimal that is the same float32: selection compares float32,
    so the record shows the order, and the ties, that selection saw.

    Args:
        fitness: validation accuracy, a fraction; NaN or infinite or None where it was not measured.
        threshold: the level that it had to meet, if any; NaN or infinite counts as None.
    """

    def finite(value: float | None) -> float | None:
        return float(str(np.float32(value))) if value is not None and math.isfinite(value) else None

    return Landmark(fitness=finite(fitness), threshold=finite(threshold))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Individual:
    """One individual of a search: one line of the record.

    Raises:
        LineageError: a field of a wrong type, or that contradicts another.
    """

    generation: int  # from 0, counted through the whole run
    phase: str  # of the search, such as "primary"
    index: int  # from 0, within the generation
    parent: Reference | None  # None: the global-pooling network that the run starts from
    operators: Mapping[str, int] | None  # times that each operator was applied; None: not made by mutation
    repeats: tuple[int, ...] | None = None  # of each block of the parent, from the largest map; None: no duplicate
    architecture: Architecture
    parameters: int  # trainable values, classifier included
    flops: int  # of one image's forward pass
    t1: Landmark = Landmark()
    t2: Landmark = Landmark()
    t3: Landmark = Landmark()
    test_accuracy: float | None = None  # a fraction; of survivors, and no part of selection
    fate: Fate
    cause: str | None = None  # why it failed; None unless it did
    same_as: Reference | None = None  # whose training gave the fitness; None: its own
    seconds_compiling: float = 0.0
    seconds_training: float = 0.0

    def __post_init__(self) -> None:
        for name in ("generation", "index", "parameters", "flops"):
            _check_count(name, getattr(self, name))
        for name in ("seconds_compiling", "seconds_training"):
            _check_number(name, getattr(self, name), least=0, most=_MOST_SECONDS)
        if not isinstance(self.phase, str) or not self.phase:
            raise LineageError(f"phase is {reprlib.repr(self.phase)}; it must be a name")
        if self.operators is not None:
            for operator, count in self.operators.items():
                _check_count(f"operators[{reprlib.repr(operator)}]", count)
        if self.repeats is not None:
            _check_repeats(self.repeats)
            if self.operators is not None:
                raise LineageError("operators and repeats are both given; an individual is made by one of them")
        if self.test_accuracy is not None:
            _check_number("test_accuracy", self.test_accuracy, least=0, most=1)
        if not isinstance(self.fate, Fate):
            raise LineageError(f"fate is {reprlib.repr(self.fate)}; it must be one of {', '.join(Fate)}")
        if self.fate is Fate.FAILED and not (isinstance(self.cause, str) and self.cause):
            raise LineageError(f"cause is {reprlib.repr(self.cause)}; an individual that failed must say why")
        if self.fate is not Fate.FAILED and self.cause is not None:
            raise LineageError(f"cause is {reprlib.repr(self.cause)}; it must be none where the fate is {self.fate}")

    @cached_property
    def fingerprint(self) -> str:
        """Of the architecture: equal networks have equal ones."""
        return fingerprint(self.architecture)

    @property
    def reference(self) -> Reference:
        """What others of the run name this individual by."""
        return Reference(generation=self.generation, index=self.index)


def without_times(individual: Individual) -> Individual:
    """The individual with no seconds: all that two runs of one configuration share."""
    return dataclasses.replace(individual, seconds_compiling=0.0, seconds_training=0.0)


def to_line(individual: Individual) -> str:
    """The line of JSON that records an individual, without a newline."""
    content = _content(individual)
    return f'{content[:-1]},"checksum":"{_checksum(individual)}"}}'


def _content(individual: Individual) -> str:
    """The line without its checksum."""
    fields: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for field in dataclasses.fields(individual):
        value = getattr(individual, field.name)
        if isinstance(value, Reference | Landmark):
            value = dataclasses.asdict(value)
        elif field.name == "operators" and value is not None:
            value = dict(sorted(value.items()))
        elif field.name == "architecture":
            # Last, and after its fingerprint: it is the longest by far.
            continue
        elif field.name.startswith("seconds"):
            value = float(value)
        fields[field.name] = value
    fields["fingerprint"] = individual.fingerprint
    fields["architecture"] = to_dict(individual.architecture)
    return json.dumps(fields, allow_nan=False, separators=(",", ":"))


def _checksum(individual: Individual) -> str:
    """CRC-32, in hexadecimal, of all but the seconds."""
    return f"{zlib.crc32(_content(without_times(individual)).encode()):08x}"


def from_line(line: str | bytes) -> Individual:
    """Reads the individual that a line records.

    Raises:
        LineageError: the line is no JSON, of an unknown schema version, not an individual, or not as
            it was written.
    """
    try:
        fields = files.parse_json(line)
    except JSONError:
        raise LineageError("the line is not JSON; the file is damaged") from None
    if not isinstance(fields, dict):
        raise LineageError("the line is not a JSON object; the file is damaged")
    version = fields.pop("schema_version", None)
    if type(version) is not int or version not in (_WITHOUT_CHECKSUM, SCHEMA_VERSION):
        raise LineageError(
            f"schema version is {reprlib.repr(version)}; this version of eigen_jax reads {_WITHOUT_CHECKSUM} and"
            f" {SCHEMA_VERSION}"
        )
    seals = {"fingerprint"} if version == _WITHOUT_CHECKSUM else {"fingerprint", "checksum"}
    _check_names("an individual", fields, {field.name for field in dataclasses.fields(Individual)} | seals)
    recorded = {name: fields.pop(name) for name in seals}
    individual = _read_individual(fields)
    if recorded["fingerprint"] != individual.fingerprint:
        raise LineageError(
            f"fingerprint is {reprlib.repr(recorded['fingerprint'])}, and its architecture's is"
            f" {individual.fingerprint!r}"
        )
    if version == SCHEMA_VERSION:
        _check_is_as_written(line, individual, recorded["checksum"])
    return individual


def _check_is_as_written(line: str | bytes, individual: Individual, recorded: object) -> None:
    """Checks a line against what it was read as."""
    checksum = _checksum(individual)
    if recorded != checksum:
        raise LineageError(
            f"checksum is {reprlib.repr(recorded)}, and its content's is {checksum!r}; the file is damaged"
        )
    # The same content can be spelt in other ways, as 1e-05 and 1E-05.
    if (line if isinstance(line, str) else line.decode()) != to_line(individual):
        raise LineageError("the line is not spelt as it was written; the file is damaged")


def _read_individual(fields: dict[str, Any]) -> Individual:
    """The individual that the fields of a JSON object describe; all are there, and no others."""
    try:
        fields["architecture"] = from_dict(fields["architecture"])
    except ArchitectureError as error:
        raise LineageError(f"architecture: {error}") from None
    for name in ("t1", "t2", "t3"):
        fields[name] = _read_part(Landmark, name, fields[name])
    for name in ("parent", "same_as"):
        if fields[name] is not None:
            fields[name] = _read_part(Reference, name, fields[name])
    if fields["operators"] is not None and not isinstance(fields["operators"], dict):
        raise LineageError(f"operators is {reprlib.repr(fields['operators'])}; it must be an object or null")
    if fields["repeats"] is not None:
        if not isinstance(fields["repeats"], list):
            raise LineageError(f"repeats is {reprlib.repr(fields['repeats'])}; it must be an array or null")
        fields["repeats"] = tuple(fields["repeats"])
    if fields["fate"] in tuple(Fate):
        fields["fate"] = Fate(fields["fate"])
    return Individual(**fields)


def append(path: str | os.PathLike[str], individuals: Iterable[Individual]) -> None:
    """Adds individuals, a whole generation as a rule, to the end of a record, and waits for the disk.

    Raises:
        LineageError: the file cannot be written, and is as it was; or it ends in the middle of a line.
    """
    lines = "".join(f"{to_line(individual)}\n" for individual in individuals).encode()
    try:
        if Path(path).exists() and not _ends_with_a_line(path):
            raise LineageError(f"{path} ends in the middle of a line; truncate it to its last whole generation")
        files.append_bytes(path, lines)
    except OSError as error:
        raise LineageError(f"cannot write {path}: {files.explain(error, _CHOOSE)}") from None


def read(path: str | os.PathLike[str]) -> tuple[Individual, ...]:
    """Reads a record, in its order; a last line that was not finished is left out.

    Raises:
        LineageError: the file cannot be read, or holds a line that is no individual; the message
            names the file and the line.
    """
    return tuple(individual for _, individual in _read_lines(path))


def truncate(path: str | os.PathLike[str], generations: int) -> None:
    """Shortens a record to its first generations, so that a search can go on from after them.

    The bytes of the lines that stay are as they were. The file is replaced as a whole: a process
    killed here leaves the old one or the new one.

    Args:
        path: the record. It may be absent where `generations` is 0.
        generations: how many stay: those numbered from 0 to generations - 1.

    Raises:
        LineageError: the file cannot be read or written, has a line that is no individual, or
            lacks one of the generations that stay.
    """
    path = Path(path)
    if generations == 0 and not path.exists():
        return
    kept = [(line, individual) for line, individual in _read_lines(path) if individual.generation < generations]
    missing = set(range(generations)) - {individual.generation for _, individual in kept}
    if missing:
        raise LineageError(
            f"{path} has no generation {min(missing)}, and the search had finished {generations};"
            " put back the file that belongs to this run, or start a new run folder"
        )
    try:
        files.write_bytes(path, b"".join(line + b"\n" for line, _ in kept))
    except OSError as error:
        raise LineageError(f"cannot write {path}: {files.explain(error, _CHOOSE)}") from None


def _ends_with_a_line(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _read_lines(path: str | os.PathLike[str]) -> list[tuple[bytes, Individual]]:
    """The finished lines of a record, each with the individual that it tells of."""
    try:
        *lines, unfinished = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise LineageError(f"cannot read {path}: {error.strerror}; name the record of a run") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append((line, from_line(line)))
        except LineageError as error:
            raise LineageError(f"{path}, line {number}: {error}") from None
    if _is_individual(unfinished[:-1]):
        raise LineageError(f"{path}, line {len(lines) + 1}: its newline is {unfinished[-1:]!r}; the file is damaged")
    return found


def _is_individual(line: bytes) -> bool:
    try:
        from_line(line)
    except LineageError:
        return False
    return True


def _read_part(kind: type, name: str, fields: object) -> Any:
    if not isinstance(fields, dict):
        raise LineageError(f"{name} is {reprlib.repr(fields)}; it must be an object")
    _check_names(name, fields, {field.name for field in dataclasses.fields(kind)})
    try:
        return kind(**fields)
    except LineageError as error:
        raise LineageError(f"{name}: {error}") from None


def _check_names(what: str, fields: dict[str, Any], names: set[str]) -> None:
    if wrong := names ^ fields.keys():
        name = min(wrong)
        raise LineageError(f"{what} {'lacks' if name in names else 'has an unknown'} field {reprlib.repr(name)}")


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 0:
        raise LineageError(f"{name} is {reprlib.repr(value)}; it must be an integer of at least 0")


def _check_repeats(repeats: object) -> None:
    if not isinstance(repeats, tuple) or not repeats:
        raise LineageError(f"repeats is {reprlib.repr(repeats)}; it must be a tuple of a count for each block")
    for block, times in enumerate(repeats):
        if type(times) is not int or times < 1:
            raise LineageError(f"repeats[{block}] is {reprlib.repr(times)}; it must be an integer of at least 1")


def _check_number(
    name: str, value: object, least: float = -sys.float_info.max, most: float = sys.float_info.max
) -> None:
    # Compared, not converted: an integer can be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        bounds = f" from 0 to {most:g}" if least == 0 else ""
        raise LineageError(f"{name} is {reprlib.repr(value)}; it must be a finite number{bounds}")
