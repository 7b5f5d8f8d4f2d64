"""What the folder of a run says: whether it has finished, and where it was made."""

import dataclasses
from pathlib import Path

import jax

from eigen_jax.data import Dataset
from eigen_jax.store import run_files
from eigen_jax.store.files import told_as
from eigen_jax.store.records import JSONError, as_json, convert, read_json, write_json
from eigen_jax.store.run_files import RunFolderError
from experiments.machine import describe_machine
from experiments.settings import Settings

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


def is_finished(folder: Path) -> bool:
    """Whether a run has finished there: its result is written last."""
    return (folder / "result.json").exists()


def read_origin(settings: Settings, **more: str) -> Origin:
    """Where the run of these settings, and of what settings.json holds besides them, was made.

    Raises:
        RunFolderError: its folder is missing, damaged, or that of a run with other settings.
    """
    folder = settings.run_dir
    recorded = run_files.read_settings(folder)
    now = as_json({**settings.outcome(), **more})
    recorded.check_same(now, path=folder, partly=True, advice="choose another --runs-dir")
    noted = folder / _MACHINE
    try:
        origin = convert({**recorded.settings, "versions": recorded.versions}, Origin)
        return dataclasses.replace(origin, machine=convert(read_json(noted), Machine)) if noted.exists() else origin
    except (OSError, JSONError) as error:
        raise RunFolderError(
            f"{folder} has a settings.json or a {_MACHINE} that is damaged ({error}); put back the run's own files"
        ) from None


def note_machine(folder: Path, data: DataFacts | None) -> None:
    """Writes down beside a run what finished it, and with how much data; raises RunFolderError where it cannot."""
    noted = {**describe_machine(), "accelerators": len(jax.devices()), "data": data and dataclasses.asdict(data)}
    with told_as(RunFolderError, folder / _MACHINE, "choose another --runs-dir"):
        write_json(folder / _MACHINE, noted)
