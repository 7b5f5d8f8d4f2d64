"""teacher.json: what a teacher is, which data it was trained on, and how good it became."""

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from eigen_jax.data import Dataset
from eigen_jax.errors import was_and_is
from eigen_jax.files import JSONError, explain, read_json, write_json
from eigen_jax.teacher.config import OtherTeacherError, TeacherConfig, TeacherError

SCHEMA_VERSION = 1

T = TypeVar("T")

_FILE = "teacher.json"
_SHOWN = 24  # characters of a value in a message
_REASON = 200  # characters of what is wrong with a record
_TITLES = {"fingerprint": "fingerprint of preprocessing, split and images"}  # of fields, where the name says too little


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data that a teacher was trained on. Its fields name themselves in messages."""

    name: str  # of the data set
    classes: int  # K
    image_shape: tuple[int, int, int]  # H, W, C
    training_images: int
    validation_images: int
    fingerprint: str  # SHA-256, hexadecimal, of all that the images and their split depend on

    @classmethod
    def of(cls, dataset: Dataset) -> "DataRecord":
        """What is recorded of a data set."""
        count, height, width, channels = dataset.train_images.shape
        return cls(
            name=dataset.name,
            classes=dataset.num_classes,
            image_shape=(height, width, channels),
            training_images=count,
            validation_images=dataset.validation_images.shape[0],
            fingerprint=dataset.fingerprint,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberRecord:
    """A member that is trained and saved.

    Raises:
        TeacherError: a count or a time below 0, or an accuracy that is no fraction.
    """

    parameters: int
    steps: int  # of training
    validation_accuracy: float  # a fraction
    test_accuracy: float  # a fraction
    train_seconds: float  # without compilation
    compile_seconds: float

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleRecord:
    """All members together; raises as `MemberRecord`."""

    parameters: int
    validation_accuracy: float  # a fraction
    test_accuracy: float  # a fraction
    fingerprint: str  # of the ensemble

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """The content of teacher.json."""

    config: TeacherConfig
    data: DataRecord
    members: tuple[MemberRecord, ...] = ()  # those that are finished, the first ones
    ensemble: EnsembleRecord | None = None  # None until all are
    # Where it was begun, see `eigen_jax.surroundings.describe`; empty in a record that is older than this.
    surroundings: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes teacher.json as a whole: what is killed here leaves the old one or the new one.

        Raises:
            TeacherError: it cannot be written.
        """
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        try:
            write_json(folder / _FILE, content)
        except OSError as error:
            raise TeacherError(f"cannot write {folder / _FILE}: {explain(error, 'choose another folder')}") from None

    def check_is_of(self, config: TeacherConfig, data: DataRecord, *, folder: Path) -> None:
        """Checks that this is the teacher asked for.

        Raises:
            TeacherError: it was trained otherwise, or on other data; names each value that differs.
        """
        self.check_is_for(data, folder=folder)
        # No weight depends on how many images are evaluated at a time.
        same = dataclasses.replace(self.config, eval_batch_size=config.eval_batch_size)
        _check_same(same, config, "the teacher in {} was trained otherwise", folder)

    def check_is_for(self, data: DataRecord, *, folder: Path) -> None:
        """Checks that the teacher was trained on these data.

        Raises:
            TeacherError: it was not; names each value that differs.
        """
        _check_same(self.data, data, "the teacher in {} was trained on other data", folder)


def read_teacher(folder: str | Path) -> TeacherRecord:
    """Reads what is recorded of the teacher in a folder, finished or not.

    Raises:
        TeacherError: there is none, or its record is damaged.
    """
    path = Path(folder) / _FILE
    try:
        content = read_json(path)
        version = content.pop("schema_version")
    except FileNotFoundError:
        raise TeacherError(f"{folder} holds no teacher: there is no {_FILE} in it; train one") from None
    except OSError as error:
        raise TeacherError(f"{path} cannot be read ({error.strerror}); put the teacher's own file back") from None
    except (JSONError, KeyError, TypeError, AttributeError):
        raise TeacherError(f"{path} is damaged; put the teacher's own file back, or choose another folder") from None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise TeacherError(
            f"{path} has schema version {version!r:.40}; this version of eigen_jax reads {SCHEMA_VERSION}"
        )
    try:
        return _parse(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:_REASON]
        raise TeacherError(
            f"{path} is damaged ({reason}); put the teacher's own file back, or choose another folder"
        ) from None


def holds_teacher(folder: str | Path) -> bool:
    """Whether there is a teacher in a folder, finished or not."""
    return (Path(folder) / _FILE).exists()


def _parse(content: Mapping[str, Any]) -> TeacherRecord:
    if unknown := content.keys() - {field.name for field in dataclasses.fields(TeacherRecord)}:
        raise ValueError(f"unknown: {reprlib.repr(sorted(unknown))}")
    ensemble = content["ensemble"]
    record = TeacherRecord(
        # Records older than the choice of a dtype do not name it.
        config=_build(TeacherConfig, {"dtype": "float32"} | content["config"]),
        data=_build(DataRecord, content["data"] | {"image_shape": tuple(content["data"]["image_shape"])}),
        members=tuple(_build(MemberRecord, member) for member in content["members"]),
        ensemble=None if ensemble is None else _build(EnsembleRecord, ensemble),
        surroundings=content.get("surroundings", {}),
    )
    if (
        not all(type(side) is int and side >= 1 for side in record.data.image_shape)
        or len(record.data.image_shape) != 3
    ):
        raise ValueError(f"image_shape is {_shown(record.data.image_shape)}")
    if not all(type(text) is str for part in record.surroundings.values() for text in part.values()):
        raise ValueError(f"surroundings is {_shown(record.surroundings)}")
    trained, wanted = len(record.members), record.config.members
    if trained > wanted or (record.ensemble is not None and trained < wanted):
        raise ValueError(f"{trained} members of {wanted}")
    return record


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of plain fields, each of the type that it is declared with."""
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.type in (int, float, str, bool) and not _is_a(values[field.name], field.type):
            raise ValueError(f"{field.name} is {_shown(values[field.name])}")
    return kind(**values)


def _check_numbers(record: MemberRecord | EnsembleRecord) -> None:
    for field in dataclasses.fields(record):
        value, most = getattr(record, field.name), 1 if field.name.endswith("accuracy") else math.inf
        if field.type in (int, float) and not 0 <= value <= most:
            raise TeacherError(f"{field.name} is {_shown(value)}")


def _is_a(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _check_same(then: T, now: T, otherwise: str, folder: Path) -> None:
    changes = {
        _TITLES.get(name, name): (_shown(before), _shown(vars(now)[name]))
        for name, before in vars(then).items()
        if before != vars(now)[name]
    }
    if changes:
        text, values = was_and_is(changes)
        raise OtherTeacherError(type(now), f"{otherwise}: {text}; choose another folder", folder, *values)


def _shown(value: Any) -> str:
    return repr(f"{value[:_SHOWN]}...") if isinstance(value, str) and len(value) > _SHOWN else reprlib.repr(value)
