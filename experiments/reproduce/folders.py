"""What the folder of a run says: whether it has finished, how it ended, and where it was made."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import jax
import msgspec

from eigen_jax.data import Dataset
from eigen_jax.files import JSONError, read_json
from eigen_jax.report import ReportError
from eigen_jax.report.files import write_text
from eigen_jax.report.summary import RESULT_VERSION
from eigen_jax.search.folder import with_former_settings
from experiments.benchmarks.machine import describe_machine
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """machine.json: what finished a run, and with how much data."""

    cpu: str
    cores: int
    device: str
    accelerators: int
    data: DataFacts | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """What settings.json holds of a run among its settings."""

    data_fingerprint: str
    teacher_fingerprint: str | None = None  # of the teacher, as networks asked it; None without mimicry
    retrained: str | None = None  # of the network; None for a search


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
    """settings.json, as far as it is told of."""

    settings: dict[str, Any]
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run was made."""

    fingerprints: Fingerprints
    versions: dict[str, str]  # package to version
    machine: Machine | None  # None where it was not noted

    @property
    def data(self) -> DataFacts | None:
        """None where they were not noted, or are not the run's."""
        data = self.machine and self.machine.data
        return data if data and data.fingerprint == self.fingerprints.data_fingerprint else None


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


def is_begun(folder: Path) -> bool:
    """Whether a run has left anything there."""
    return folder.is_dir() and any(folder.iterdir())


def read_origin(settings: Settings) -> Origin:
    """Where the run of these settings was made.

    Raises:
        ReportError: its folder is missing, damaged, or that of a run with other settings.
    """
    folder = settings.run_dir
    recorded, fingerprints = read_settings(folder)
    now = json.loads(json.dumps(settings.outcome(), default=str))
    then = with_former_settings(recorded.settings, now)
    for name, value in now.items():
        if then.get(name) != value:
            raise ReportError(
                f"{folder} belongs to a run with other settings: {name} was {then.get(name)!r:.40} and is now"
                f" {value!r:.40}; choose another --runs-dir"
            )
    machine = _read(folder / _MACHINE, Machine) if (folder / _MACHINE).exists() else None
    return Origin(fingerprints=fingerprints, versions=recorded.versions, machine=machine)


def read_settings(folder: Path) -> tuple[Recorded, Fingerprints]:
    """What a run's settings.json records; raises ReportError where it is missing or damaged."""
    path = folder / "settings.json"
    recorded = _read(path, Recorded)
    return recorded, _convert(path, recorded.settings, Fingerprints)


def read_training_result(folder: Path) -> TrainingResult:
    """How a training ended; raises ReportError where its result.json is missing, damaged, or of another version."""
    path = folder / "result.json"
    content = _read(path, dict[str, Any])
    version = content.get("schema_version")
    if type(version) is not int or version != RESULT_VERSION:
        raise ReportError(
            f"{path} has schema version {version!r:.40}; this version of eigen_jax reads {RESULT_VERSION}"
        )
    return _convert(path, content, TrainingResult)


def note_machine(folder: Path, data: DataFacts | None) -> None:
    """Writes down beside a run which machine finished it, and how much data it was made with.

    Raises:
        ReportError: it cannot be written.
    """
    noted = {**describe_machine(), "accelerators": len(jax.devices()), "data": data and dataclasses.asdict(data)}
    write_text(folder / _MACHINE, json.dumps(noted, indent=2) + "\n")


def _read(path: Path, kind: type[T]) -> T:
    try:
        return _convert(path, read_json(path), kind)
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}; make the run with this command again") from None
    except JSONError:
        raise ReportError(f"{path} is damaged; put back the run's own file") from None


def _convert(path: Path, content: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError:
        raise ReportError(f"{path} is damaged; put back the run's own file") from None
