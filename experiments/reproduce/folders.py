"""What the folder of a run says: whether it has finished, how it ended, and where it was made."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import msgspec

from eigen_jax.data import Dataset
from eigen_jax.files import JSONError, read_json
from eigen_jax.report.files import ReportError, write_text
from eigen_jax.report.summary import RESULT_VERSION
from eigen_jax.search.folder import with_former_settings
from experiments.machine import describe_machine
from experiments.settings import Settings

T = TypeVar("T")

_MACHINE = "machine.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Of the data that runs are made with."""

    fingerprint: str
    train: int  # images
    validation: int
    test: int

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        """Those of a data set that was loaded."""
        parts = (dataset.train_images, dataset.validation_images, dataset.test_images)
        train, validation, test = (part.shape[0] for part in parts)
        return cls(fingerprint=dataset.fingerprint, train=train, validation=validation, test=test)

    def __str__(self) -> str:
        return f"{self.train:,} images to train on, {self.validation:,} to validate, {self.test:,} to test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """machine.json: what finished a run, and with how much data."""

    cpu: str
    cores: int
    device: str
    accelerators: int
    data: DataFacts | None = None

    def __str__(self) -> str:
        cores = f"{self.cpu}, {self.cores} cores"
        return cores if self.device == "cpu" else f"{self.accelerators} x {self.device}; {cores}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run was made, as settings.json and machine.json say."""

    data_fingerprint: str
    teacher_fingerprint: str | None = None  # of the teacher, as networks asked it; None without mimicry
    versions: dict[str, str]  # package to version
    machine: Machine | None = None  # None where it was not noted

    @property
    def data(self) -> DataFacts | None:
        """None where they were not noted, or are not the run's."""
        data = self.machine and self.machine.data
        return data if data and data.fingerprint == self.data_fingerprint else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSeconds:
    """What a training of a given network took."""

    final: float | None  # of compiling and training


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a training of a given network ended: its result.json."""

    final_validation_accuracy: float | None  # a fraction; None where the validation images were trained on
    test_accuracy: float | None  # a fraction; None where the training diverged
    final_cause: str | None  # why it diverged; None where it did not
    seconds: TrainingSeconds


def is_finished(folder: Path) -> bool:
    """Whether a run has finished there: its result is written last."""
    return (folder / "result.json").exists()


def read_origin(settings: Settings, **more: str) -> Origin:
    """Where the run of these settings, and of what settings.json holds besides them, was made.

    Raises:
        ReportError: its folder is missing, damaged, or that of a run with other settings.
    """
    folder = settings.run_dir
    recorded, origin = read_settings(folder)
    now = json.loads(json.dumps({**settings.outcome(), **more}, default=str))
    then = with_former_settings(recorded, now)
    for name, value in now.items():
        if then.get(name) != value:
            raise ReportError(
                f"{folder} belongs to a run with other settings: {name} was {then.get(name)!r:.40} and is now"
                f" {value!r:.40}; choose another --runs-dir"
            )
    path = folder / _MACHINE
    if not path.exists():
        return origin
    return dataclasses.replace(origin, machine=_read(path, functools.partial(msgspec.convert, type=Machine)))


def read_settings(folder: Path) -> tuple[dict[str, Any], Origin]:
    """What a run's settings.json records; raises ReportError where it is missing or damaged."""

    def convert(content: Any) -> tuple[dict[str, Any], Origin]:
        settings = content["settings"]
        return settings, msgspec.convert({**settings, "versions": content["versions"]}, Origin)

    return _read(folder / "settings.json", convert)


def read_training_result(folder: Path) -> TrainingResult:
    """How a training ended; raises ReportError where its result.json is missing, damaged, or of another version."""
    path = folder / "result.json"

    def convert(content: Any) -> TrainingResult:
        if (version := content["schema_version"]) != RESULT_VERSION:
            known = f"this version of eigen_jax reads {RESULT_VERSION}"
            raise ReportError(f"{path} has schema version {version!r:.40}; {known}")
        return msgspec.convert(content, TrainingResult)

    return _read(path, convert)


def note_machine(folder: Path, data: DataFacts | None) -> None:
    """Writes down beside a run what finished it, and with how much data; raises ReportError where it cannot."""
    noted = {**describe_machine(), "accelerators": len(jax.devices()), "data": data and dataclasses.asdict(data)}
    write_text(folder / _MACHINE, json.dumps(noted, indent=2) + "\n")


def _read(path: Path, convert: Callable[[Any], T]) -> T:
    """What a JSON file holds; `convert` may raise what it meets in content of another shape."""
    try:
        return convert(read_json(path))
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}; make the run with this command again") from None
    except (JSONError, msgspec.ValidationError, KeyError, TypeError):
        raise ReportError(f"{path} is damaged; put back the run's own file") from None
