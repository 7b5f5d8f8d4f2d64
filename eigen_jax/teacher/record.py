"""teacher.json: what a teacher is, which data it was trained on, and how good it became."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eigen_jax.data import Dataset
from eigen_jax.store.records import Count, Fraction, Positive, RecordFile, Seconds, changes
from eigen_jax.teacher.config import OtherTeacherError, TeacherConfig, TeacherError

_TITLES = {"fingerprint": "fingerprint of preprocessing, split and images"}  # of fields, where the name says too little


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data that a teacher was trained on. Its fields name themselves in messages."""

    name: str  # of the data set
    classes: int  # K
    image_shape: tuple[Positive, Positive, Positive]  # H, W, C
    training_images: int
    validation_images: int
    fingerprint: str  # SHA-256, hexadecimal, of all that the images and their split depend on

    @classmethod
    def of(cls, dataset: Dataset) -> "DataRecord":
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
    """A member that is trained and saved."""

    parameters: Count
    steps: Count  # of training
    validation_accuracy: Fraction
    test_accuracy: Fraction
    train_seconds: Seconds  # without compilation
    compile_seconds: Seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleRecord:
    """All members together."""

    parameters: Count
    validation_accuracy: Fraction
    test_accuracy: Fraction
    fingerprint: str  # of the ensemble


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """The content of teacher.json; TeacherError: more members than the config has, or all together before all are."""

    config: TeacherConfig  # its default for the dtype is that of older records, which name none
    data: DataRecord
    members: tuple[MemberRecord, ...] = ()  # those that are finished, the first ones
    ensemble: EnsembleRecord | None = None  # None until all are
    # Where it was begun, see `eigen_jax.surroundings.describe`; empty in a record that is older than this.
    surroundings: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        trained, wanted = len(self.members), self.config.members
        if trained > wanted or (self.ensemble is not None and trained < wanted):
            raise TeacherError(f"{trained} members of {wanted}")

    def check_is_of(self, data: DataRecord, config: TeacherConfig | None = None, *, folder: Path) -> None:
        """Raises a TeacherError that names what differs, unless the teacher is of these data, and of the config."""
        _check_same(self.data, data, "was trained on other data", folder)
        if config is not None:
            # No weight depends on how many images are evaluated at a time.
            same = dataclasses.replace(self.config, eval_batch_size=config.eval_batch_size)
            _check_same(same, config, "was trained otherwise", folder)


TEACHER = RecordFile(
    name="teacher.json",
    place="teacher's folder",
    kind=TeacherRecord,
    schema_version=1,
    error=TeacherError,
    advice="put the teacher's own file back, or choose another folder",
    is_exact=True,
)


def read_teacher(folder: str | Path) -> TeacherRecord:
    """What is recorded of the teacher in a folder; raises a TeacherError where there is none or it is damaged."""
    folder = Path(folder)
    if not TEACHER.is_in(folder):
        raise TeacherError(f"{folder} holds no teacher: there is no {TEACHER.name} in it; train one")
    return TEACHER.read(folder)


def _check_same(then: Any, now: Any, otherwise: str, folder: Path) -> None:
    before, after = ({_TITLES.get(name, name): value for name, value in vars(each).items()} for each in (then, now))
    text, values = changes(before, after, after)
    if values:
        line = f"the teacher in {{}} {otherwise}: {text}; choose another folder"
        raise OtherTeacherError(type(now), line, folder, *values)
