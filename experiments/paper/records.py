"""What finished runs left: their records, checked to be those of the plan, and on which data and machine."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from eigen_jax.architecture import Architecture, fingerprint
from eigen_jax.data import Dataset
from eigen_jax.files import JSONError, explain, read_json, write_json
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.report import (
    PhaseSummary,
    ReportError,
    find_individual,
    find_phase,
    is_duplicate,
    read_record,
    read_result,
    summarise_phases,
)
from eigen_jax.report.summary import RESULT_VERSION
from eigen_jax.search.folder import with_former_settings
from eigen_jax.teacher import TeacherError, read_teacher
from experiments.benchmarks.machine import describe_machine
from experiments.paper.plans import Choice, Plan, Retraining, Search
from experiments.settings import Settings, flag

# Of `SearchRecord.teacher_seconds`, and what people call them.
TEACHER_PARTS = {"teacher": "teacher", "logits": "teacher's logits"}

_MACHINE = "machine.json"
_MACHINE_FACTS = {"cpu", "cores", "device", "accelerators"}


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
class Origin:
    """Where a run was made, as its folder says."""

    data_fingerprint: str
    teacher_fingerprint: str | None  # of the teacher, as networks asked it; None without mimicry
    versions: Mapping[str, str]  # package to version
    machine: Mapping[str, Any] | None  # cpu, cores and device; None where it was not noted
    data: DataFacts | None  # None where they were not noted


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search that has finished."""

    plan: Search
    result: Mapping[str, Any]  # as `eigen_jax.report.read_result` gives it
    individuals: tuple[Individual, ...]
    origin: Origin

    @cached_property
    def phases(self) -> tuple[PhaseSummary, ...]:
        """In the order in which the search went through them."""
        return summarise_phases(self.individuals)

    @property
    def found(self) -> Individual | None:
        """The network that the search found; None where nothing survived."""
        network = self.result["network"]
        return None if network is None else find_individual(self.individuals, Reference(**network["individual"]))

    @property
    def before_duplication(self) -> Individual | None:
        """The best network of both successions."""
        ended = [phase for phase in self.phases if phase.phase != "duplication"]
        return ended[-1].best if ended else None

    @property
    def duplicates(self) -> tuple[Individual, ...]:
        """All individuals that repeat a block of their parent."""
        return tuple(filter(is_duplicate, self.individuals))

    @property
    def best_duplicate(self) -> Individual | None:
        """The duplicate that came furthest, the most accurate of those, the earliest of equals; None without any."""
        measured = [each for each in self.duplicates if each.fate is not Fate.FAILED and each.t1.fitness is not None]
        return max(measured, key=_how_far, default=None)

    def chosen(self, choice: Choice) -> Individual | None:
        """The individual whose network a choice means; None where the search has none."""
        return {
            Choice.FOUND: self.found,
            Choice.BEFORE_DUPLICATION: self.before_duplication,
            Choice.BEST_DUPLICATE: self.best_duplicate,
        }[choice]

    def phase(self, name: str) -> PhaseSummary | None:
        """The summary of a phase; None where the search never came to it."""
        return find_phase(self.phases, name)

    @property
    def seconds(self) -> Mapping[str, float | None]:
        """Of the parts of its own: None for a final training that did not take place."""
        own = self.result["seconds"]
        return {"search": own["search"], "final training": own["final"]}

    @property
    def teacher_seconds(self) -> Mapping[str, float | None]:
        """Of the parts that all runs share that mimic its teacher: None where they were not measured."""
        settings, mimicry = self.plan.settings, self.result["mimicry"]
        if mimicry is None:
            return {}
        trained = {"teacher": _seconds_of_training(settings)}
        return trained if settings.teacher == "live" else trained | {"logits": _seconds_of_logits(settings, mimicry)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """A training of a given network that has finished."""

    plan: Retraining
    folder: Path
    validation_accuracy: float | None  # a fraction; None where the validation images were trained on
    test_accuracy: float | None  # a fraction; None where the training diverged
    final_cause: str | None  # why it diverged; None where it did not
    seconds: float | None  # of compiling and training
    origin: Origin


def read_search(plan: Search) -> SearchRecord:
    """Reads a search that has finished.

    Raises:
        ReportError: its folder is missing, empty, another run's, damaged, or not finished.
    """
    folder = plan.settings.run_dir
    result = read_result(folder)
    origin = _read_origin(folder, plan.settings)
    return SearchRecord(plan=plan, result=result, individuals=read_record(folder), origin=origin)


def read_training(plan: Retraining, architecture: Architecture) -> TrainingRecord:
    """Reads a training of a network that has finished.

    Raises:
        ReportError: its folder is missing, another run's, damaged, or not finished.
    """
    settings = plan.settings_for(architecture)
    path = settings.run_dir / "result.json"
    content = _read_json(path)
    version = content.get("schema_version")
    if type(version) is not int or version != RESULT_VERSION:
        raise ReportError(
            f"{path} has schema version {version!r:.40}; this version of eigen_jax reads {RESULT_VERSION}"
        )
    try:
        validation, test = (_number(content[name]) for name in ("final_validation_accuracy", "test_accuracy"))
        seconds = _number(content["seconds"]["final"])
        cause = None if content["final_cause"] is None else str(content["final_cause"])
    except (KeyError, TypeError, ValueError):
        raise ReportError(f"{path} is damaged; remove its folder and make the run again") from None
    _check_network(settings.run_dir, architecture)
    return TrainingRecord(
        plan=plan,
        folder=settings.run_dir,
        validation_accuracy=validation,
        test_accuracy=test,
        final_cause=cause,
        seconds=seconds,
        origin=_read_origin(settings.run_dir, settings),
    )


def is_finished(folder: Path) -> bool:
    """Whether a run has finished there: its result is written last."""
    return (folder / "result.json").exists()


def is_begun(folder: Path) -> bool:
    """Whether a run has left anything there."""
    return folder.is_dir() and any(folder.iterdir())


def note_machine(folder: Path, data: DataFacts | None) -> None:
    """Writes down beside a run which machine finished it, and how much data it was made with.

    Raises:
        ReportError: it cannot be written.
    """
    noted = {**describe_machine(), "accelerators": len(jax.devices())}
    try:
        write_json(folder / _MACHINE, noted if data is None else noted | {"data": dataclasses.asdict(data)})
    except OSError as error:
        reason = explain(error, "choose another --runs-dir")
        raise ReportError(f"cannot write {folder / _MACHINE}: {reason}") from None


def check_together(origins: Iterable[tuple[Plan, Origin]], data: DataFacts | None) -> None:
    """Checks that runs that are told of together were made with the same data, and mimicked one teacher if any.

    Args:
        origins: of the runs.
        data: those that the command line names; None where they were not loaded.

    Raises:
        ReportError: they were not.
    """
    expected = data.fingerprint if data else None
    first: tuple[Plan, str] | None = None
    for plan, origin in origins:
        expected = expected or origin.data_fingerprint
        if origin.data_fingerprint != expected:
            raise ReportError(
                f"{plan.label} was made with other data (fingerprint {origin.data_fingerprint[:12]}, expected"
                f" {expected[:12]}); choose another --runs-dir, or the data of before"
            )
        teacher = origin.teacher_fingerprint
        if teacher is None:
            continue
        first = first or (plan, teacher)
        if teacher != first[1]:
            raise ReportError(
                f"{plan.label} mimicked another teacher (fingerprint {teacher[:12]}) than {first[0].label}"
                f" ({first[1][:12]}); choose another --runs-dir"
            )


def _seconds_of_training(settings: Settings) -> float | None:
    """What the training of a run's teacher took, all members together; None for logits from a file."""
    if settings.teacher_logits is not None:
        return None
    try:
        members = read_teacher(settings.teacher_dir).members
    except TeacherError:
        return None
    return sum(each.train_seconds + each.compile_seconds for each in members)


def _seconds_of_logits(settings: Settings, mimicry: Mapping[str, Any]) -> float | None:
    """What computing a teacher's logits took; None where the cache does not say it."""
    try:
        content = read_json(settings.cache_folder() / "teacher-logits" / f"{mimicry['teacher']}.json")
        return _number(content["seconds"])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _check_network(folder: Path, architecture: Architecture) -> None:
    """Checks that a training's folder is of a network."""
    recorded = _read_settings(folder)[0].get("retrained")
    if recorded != fingerprint(architecture):
        raise ReportError(
            f"{folder} belongs to the training of another network ({recorded!r:.14}, expected"
            f" {fingerprint(architecture)[:12]!r}); remove it, or choose another --runs-dir"
        )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError
    return None if value is None else float(value)


def _how_far(individual: Individual) -> tuple[int, float]:
    fitness = [each.fitness for each in (individual.t1, individual.t2, individual.t3) if each.fitness is not None]
    return len(fitness), fitness[-1]


def _read_origin(folder: Path, settings: Settings) -> Origin:
    recorded, versions = _read_settings(folder)
    expected = json.loads(json.dumps(settings.outcome(), default=str))
    recorded = with_former_settings(recorded, expected)
    for name, value in expected.items():
        if recorded.get(name) != value:
            raise ReportError(
                f"{folder} belongs to a run with other settings: {flag(name)} was {recorded.get(name)!r:.40} and is now"
                f" {value!r:.40}; choose another --runs-dir"
            )
    noted = _read_json(folder / _MACHINE) if (folder / _MACHINE).exists() else None
    if noted is not None and not noted.keys() >= _MACHINE_FACTS:
        raise ReportError(f"{folder / _MACHINE} is damaged; put back the run's own file")
    return Origin(
        data_fingerprint=recorded["data_fingerprint"],
        teacher_fingerprint=recorded.get("teacher_fingerprint"),
        versions=versions,
        machine=noted,
        data=_noted_data(noted, recorded["data_fingerprint"]),
    )


def _read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a run's folder records: the settings, with the fingerprints of data and teacher; and the versions."""
    content = _read_json(folder / "settings.json")
    try:
        recorded, versions = dict(content["settings"]), dict(content["versions"])
        prints = recorded["data_fingerprint"], recorded.get("teacher_fingerprint") or ""
    except (KeyError, TypeError, ValueError):
        prints, versions = (None, None), {}
    if not all(isinstance(each, str) for each in (*prints, *versions.values())):
        raise ReportError(f"{folder / 'settings.json'} is damaged; put back the run's own file")
    return recorded, versions


def _noted_data(noted: Mapping[str, Any] | None, data_fingerprint: str) -> DataFacts | None:
    """The data that were noted beside a run; None where they were not, or are not the run's."""
    try:
        data = DataFacts(**(noted or {})["data"])
    except (KeyError, TypeError):
        return None
    return data if data.fingerprint == data_fingerprint else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}; make the run with this command again") from None
    except JSONError:
        content = None
    if not isinstance(content, dict):
        raise ReportError(f"{path} is damaged; put back the run's own file")
    return content
