"""The lineage: an append-only record of every individual that a search evaluated.

A file of JSON lines, one an individual, in the order of generation and index. Fields stand in one fixed order and
numbers in Python's shortest exact form, so two runs that did the same wrote the same bytes, but for times. A line
counts once its newline is written: what follows the last newline is what a killed writer left, which `read` leaves out
and `truncate` removes.

A line ends with a checksum of all that it says but the times, and is read only if it stands exactly as it was written.
So any flipped bit is told, but for one that makes another number of seconds. Lines of schema versions 2, which have no
checksum, to 5 are read as well.
"""

import dataclasses
import enum
import json
import os
import reprlib
import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from eigen_jax.architecture import Architecture, ArchitectureError, fingerprint, from_dict, to_dict
from eigen_jax.errors import EigenError
from eigen_jax.fitness import Measurement
from eigen_jax.store import files
from eigen_jax.store.records import Count, Fraction, JSONError, Positive, Seconds, convert, parse_json
from eigen_jax.store.run_files import Reference

SCHEMA_VERSION = 6

_READ = range(2, SCHEMA_VERSION + 1)  # schema versions; the first has no checksums
# What another run of the same may measure otherwise, and what stands for it.
_TIMES = {"seconds_compiling": 0.0, "seconds_training": 0.0, "latency": None, "batch_latency": None, "memory": None}
_WITH_TIMES = {"landmarks", "measurement"}  # fields that hold some of them

Name = Annotated[str, msgspec.Meta(min_length=1)]


class LineageError(EigenError):
    """A record that cannot be written, or a file that is no record of a run."""


class Fate(enum.StrEnum):
    """What became of an individual (Algorithm 1)."""

    PARENT = "parent"  # it survived, and the next generation descends from it
    SURVIVED = "survived"
    EXTINCT = "extinct"  # it did not go on from the last of its landmarks
    FAILED = "failed"  # never measured to its end; `Individual.cause` says why


@dataclasses.dataclass(frozen=True, kw_only=True)
class Landmark:
    """What was measured of an individual at a landmark, what that was worth, and what it had to meet."""

    step: Count | None = None  # training steps since the start; None in records of schema versions before 4
    measurement: Measurement | None = None  # None: it failed before
    fitness: tuple[float, ...] | None = None  # M objectives, finite; None: none, or not all are finite
    threshold: float | None = None  # of the first objective; None: none was applied


def exact(value: float) -> float | None:
    """The shortest decimal that is the same float32 as a scalar of any library; None where that is not finite.

    Selection compares float32, so the record shows the order, and the ties, that selection saw.
    """
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    return float(str(rounded)) if np.isfinite(rounded) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Individual:
    """One individual of a search: one line of the record; raises a LineageError where fields contradict."""

    generation: Count  # from 0, counted through the whole run
    phase: Name  # of the search, such as "primary"
    index: Count  # from 0, within the generation
    parents: tuple[Reference, ...]  # none: of nobody, such as the global-pooling network that EIGEN starts from
    operators: Mapping[str, Count] | None  # times that each operator was applied; None: not made by mutation
    # Of each block of the parent, from the largest map; None: no duplicate.
    repeats: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] | None = None
    architecture: Architecture
    # In which of the run's settings of training its own genome has another.
    training: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    # Of each layer, in its order, and of the classifier: each began with the weights of the same number in the first
    # parent, where those have the same shapes. None: it was trained from scratch.
    identities: tuple[int, ...] | None = None
    parameters: Count  # trainable values, classifier included
    flops: Count  # of one image's forward pass
    landmarks: tuple[Landmark, ...] = ()  # those that it trained for, in their order
    test_accuracy: Fraction | None = None  # of survivors, and no part of selection
    fate: Fate
    cause: Name | None = None  # why it failed; None unless it did
    same_as: Reference | None = None  # whose training gave the fitness; None: its own
    # Of the steps of its own training up to its last landmark, reached or not; None in older records.
    training_flops: Count | None = None
    seconds_compiling: Seconds = 0.0
    seconds_training: Seconds = 0.0

    def __post_init__(self) -> None:
        if self.repeats is not None and self.operators is not None:
            raise LineageError("operators and repeats are both given; an individual is made by one of them")
        if self.fate is Fate.FAILED and self.cause is None:
            raise LineageError("cause is None; an individual that failed must say why")
        if self.fate is not Fate.FAILED and self.cause is not None:
            raise LineageError(f"cause is {reprlib.repr(self.cause)}; it must be none where the fate is {self.fate}")
        if self.fate is not Fate.FAILED and not (self.landmarks and self.landmarks[-1].measurement):
            raise LineageError(f"the last landmark has no measurement; it must have one where the fate is {self.fate}")

    @property
    def parent(self) -> Reference | None:
        return next(iter(self.parents), None)

    @property
    def end(self) -> Landmark | None:
        """The last landmark; None where it was not measured to the end."""
        return self.landmarks[-1] if self.fate in (Fate.PARENT, Fate.SURVIVED) else None

    @property
    def measurement(self) -> Measurement | None:
        """What was measured at the end."""
        return self.end.measurement if self.end else None

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy at the end, a fraction."""
        return self.measurement.accuracy if self.measurement else None

    @cached_property
    def fingerprint(self) -> str:
        """Of the architecture: equal networks have equal ones."""
        return fingerprint(self.architecture)

    @property
    def reference(self) -> Reference:
        return Reference(generation=self.generation, index=self.index)


def fittest(individuals: Iterable[Individual | None]) -> Individual | None:
    """The one whose first objective is the highest at the end, the earliest of equals; None if none was measured."""
    measured = (each for each in individuals if each and each.end and each.end.fitness)
    return max(measured, key=lambda each: each.end.fitness[0], default=None)  # type: ignore[union-attr, index]


def without_times(individual: Individual) -> Individual:
    """The individual with no times and no memory: all that two runs of one configuration share."""
    return _to_individual(_without_times(_fields(individual)))


def to_line(individual: Individual) -> str:
    """The line of JSON that records an individual, without a newline."""
    fields = _fields(individual)
    return _spelt(fields | {"checksum": _checksum(fields)})


def _fields(individual: Individual) -> dict[str, Any]:
    """What a line says, but for its checksum."""
    fields = {field.name: getattr(individual, field.name) for field in dataclasses.fields(individual)}
    del fields["architecture"]  # last, and after its fingerprint: it is the longest by far
    if individual.operators is not None:
        fields["operators"] = dict(sorted(individual.operators.items()))
    for name in ("seconds_compiling", "seconds_training"):
        fields[name] = float(fields[name])
    fields |= {"fingerprint": individual.fingerprint, "architecture": to_dict(individual.architecture)}
    return json.loads(_spelt({"schema_version": SCHEMA_VERSION, **fields}))


def _without_times(content: Any) -> Any:
    if isinstance(content, list):
        return list(map(_without_times, content))
    if not isinstance(content, dict):
        return content
    inner = {name: _without_times(content[name]) for name in content.keys() & _WITH_TIMES}
    return content | inner | {name: nothing for name, nothing in _TIMES.items() if name in content}


def _checksum(fields: Mapping[str, Any]) -> str:
    """CRC-32, in hexadecimal, of all but the times."""
    return f"{zlib.crc32(_spelt(_without_times(fields)).encode()):08x}"


def _spelt(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, allow_nan=False, separators=(",", ":"), default=dataclasses.asdict)


def from_line(line: str | bytes) -> Individual:
    """The individual that a line records; raises a LineageError where it is damaged or of another schema version."""
    try:
        fields = convert(parse_json(line), dict[str, Any])
        version = fields.get("schema_version")
        if type(version) is not int or version not in _READ:
            shown, known = reprlib.repr(version), f"{_READ[0]} to {SCHEMA_VERSION}"
            raise LineageError(f"schema version is {shown}; this version of eigen_jax reads {known}")
        content = {name: value for name, value in fields.items() if name != "checksum"}
        individual = _to_individual(content if version == SCHEMA_VERSION else _modernised(content))
    except ArchitectureError as error:
        raise LineageError(f"architecture: {error}") from None
    except JSONError as error:
        raise LineageError(f"the line is damaged: {error}") from None
    # The same content can be spelt in other ways, as 1e-05 and 1E-05. The oldest lines say it in any way.
    text = line if isinstance(line, str) else line.decode()
    is_sealed = _spelt(fields) == text and fields.get("checksum") == _checksum(content)
    is_as_written = "checksum" not in fields if version == 2 else is_sealed
    if not is_as_written or fields["fingerprint"] != individual.fingerprint:
        raise LineageError("the line is damaged: it is not as it was written")
    return individual


def _to_individual(fields: Mapping[str, Any]) -> Individual:
    """Raises ArchitectureError or JSONError."""
    known = {"schema_version", "fingerprint", *(field.name for field in dataclasses.fields(Individual))}
    if unknown := fields.keys() ^ known:
        raise JSONError(f"it has or lacks {reprlib.repr(sorted(unknown))}")
    return convert({**fields, "architecture": from_dict(fields["architecture"])}, Individual)


def _modernised(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an older schema version as those of the newest."""
    fields = {"training": {}, "identities": None, **fields}
    if fields["schema_version"] < 5:
        fields["training_flops"] = None
    return fields if fields["schema_version"] >= 4 else _with_landmarks(fields)


def _with_landmarks(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of schema version 2 or 3 as those of 4: three landmarks, of accuracy; one parent."""
    names = "parent", "t1", "t2", "t3"
    if wrong := (set(names) - fields.keys()) | (fields.keys() & {"parents", "landmarks"}):
        raise JSONError(f"it has or lacks {reprlib.repr(sorted(wrong))}")
    parent, *former = (fields[name] for name in names)
    counted = {name: fields.get(name) for name in ("parameters", "flops")}
    landmarks = [
        {
            "measurement": None if each.fitness is None else {"accuracy": each.fitness, **counted},
            "fitness": None if each.fitness is None else [each.fitness],
            "threshold": each.threshold,
        }
        for each in convert(former, list[_FormerLandmark])
        if each != _FormerLandmark(fitness=None, threshold=None)
    ]
    newer: dict[str, Any] = {"parents": [] if parent is None else [parent], "landmarks": landmarks}
    if fields.get("fate") in ("extinct_t1", "extinct_t2"):
        newer["fate"] = Fate.EXTINCT
    return {name: value for name, value in fields.items() if name not in names} | newer


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FormerLandmark:
    """What schema versions before 4 say of a landmark."""

    fitness: float | None
    threshold: float | None


def append(path: str | os.PathLike[str], individuals: Iterable[Individual]) -> None:
    """Adds individuals, a whole generation as a rule, to the end of a record, and waits for the disk.

    Raises a LineageError where one holds what no line can, such as NaN, or the file cannot be written, or ends in the
    middle of a line; it is as it was.
    """
    path, lines = Path(path), []
    for each in individuals:
        try:
            from_line(line := to_line(each))  # so that it is sure to be read
        except (ValueError, TypeError) as error:
            raise LineageError(f"individual {each.reference} cannot be recorded: {error}") from None
        lines.append(f"{line}\n")
    with files.told_as(LineageError, path):
        if path.exists() and not _ends_with_a_line(path):
            raise LineageError(f"{path} ends in the middle of a line; truncate it to its last whole generation")
        files.append(path, "".join(lines).encode())


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        return file.read() in (b"", b"\n")


def read(path: str | os.PathLike[str]) -> tuple[Individual, ...]:
    """Reads a record, but for a last line that was not finished; raises a LineageError, which names the line."""
    return tuple(individual for _, individual in _read_lines(path))


def truncate(path: str | os.PathLike[str], generations: int) -> None:
    """Shortens a record, which may be absent for none, to its first generations, so that a search can go on from there.

    The lines that stay are as they were, and a process killed here leaves the old file or the new one. Raises a
    LineageError where the file cannot be read or written, or lacks one of the generations that stay.
    """
    path = Path(path)
    if generations == 0 and not path.exists():
        return
    kept = [(line, individual) for line, individual in _read_lines(path) if individual.generation < generations]
    if missing := set(range(generations)) - {individual.generation for _, individual in kept}:
        raise LineageError(
            f"{path} has no generation {min(missing)}, and the search had finished {generations};"
            " put back the file that belongs to this run, or start a new run folder"
        )
    with files.told_as(LineageError, path):
        files.write(path, b"".join(line + b"\n" for line, _ in kept))


def _read_lines(path: str | os.PathLike[str]) -> list[tuple[bytes, Individual]]:
    """The finished lines of a record, each with its individual."""
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
    try:
        from_line(unfinished[:-1])  # a whole line, but for its newline?
    except LineageError:
        return found
    raise LineageError(f"{path}, line {len(lines) + 1}: its newline is {unfinished[-1:]!r}; the file is damaged")
