"""Writes tables and pictures, with all that is needed to make them again."""

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eigen_jax.report import Provenance, ReportError, Table, provenance_notes, save_figure, write_table
from eigen_jax.report.files import write_text
from experiments.paper.figures import Picture
from experiments.paper.plans import Plan, Search
from experiments.paper.records import DataFacts, Origin, SearchRecord, TrainingRecord
from experiments.paper.request import Request
from experiments.paper.running import Runs

_NOT_NOTED = "not noted"
_VERSIONS = ("python", "jax", "jaxlib", "flax", "optax", "numpy", "eigen_jax")


def check_writable(folder: Path) -> None:
    """Makes a folder, and checks that files can be written there.

    Raises:
        ReportError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReportError(f"cannot write {folder}: {error.strerror}; choose another --output") from None


def write(told: Table | Picture, name: str, *, request: Request, plans: Sequence[Plan], runs: Runs) -> tuple[Path, ...]:
    """Writes what is told of an experiment's runs into the request's output folder.

    Args:
        told: the table, or the picture.
        name: of the experiment.
        request: what was asked for.
        plans: the runs that it is told of, which have finished.
        runs: read them.

    Returns:
        The paths of the files.

    Raises:
        ReportError: they cannot be written.
    """
    notes = (*told.notes, *_origin_notes(name, request=request, plans=plans, runs=runs))
    stem = request.output / name
    if isinstance(told, Table):
        return write_table(dataclasses.replace(told, notes=notes), stem)
    paths = [*save_figure(told.figure, stem)]
    for ending, text in told.numbers.items():
        path = stem.with_name(f"{name}{ending}.csv")
        write_text(path, text)
        paths.append(path)
    page = stem.with_name(f"{name}.md")
    lines = "\n".join(f"- {note}" for note in notes)
    write_text(page, f"**{told.caption}**\n\n![{told.caption}]({name}.png)\n\n{lines}\n")
    return (*paths, page)


def _origin_notes(name: str, *, request: Request, plans: Sequence[Plan], runs: Runs) -> tuple[str, ...]:
    records = _records(plans, runs)
    origins = [record.origin for record in records]
    provenance = Provenance(
        command=request.command(name),
        machine=_join(_describe_machine(origin.machine) for origin in origins),
        versions={name: _join(origin.versions.get(name, _NOT_NOTED) for origin in origins) for name in _VERSIONS},
        seeds=sorted({plan.seed for plan in plans}),
        compute=_compute(records),
    )
    return (_describe_data(origins, runs.data), *provenance_notes(provenance))


def _records(plans: Sequence[Plan], runs: Runs) -> list[SearchRecord | TrainingRecord]:
    """Of the plans' runs, each once."""
    records: dict[Path, SearchRecord | TrainingRecord] = {}
    for plan in plans:
        if isinstance(plan, Search):
            records[plan.settings.run_dir] = runs.search(plan)
        elif (training := runs.training(plan)) is not None:
            records[training.folder] = training
    return list(records.values())


def _compute(records: Iterable[SearchRecord | TrainingRecord]) -> Mapping[str, float]:
    """Seconds of each part of the work; a teacher counts once, however many runs mimic it."""
    total: dict[str, float] = {}
    teachers: dict[Path, float] = {}
    for record in records:
        parts: Mapping[str, float | None]
        if isinstance(record, TrainingRecord):
            parts = {"training again": record.seconds}
        else:
            parts = {part: seconds for part, seconds in record.seconds.items() if part != "teacher"}
            if (seconds := record.seconds["teacher"]) is not None:
                teachers[record.plan.settings.teacher_dir] = seconds
        for part, seconds in parts.items():
            total[part] = total.get(part, 0.0) + (seconds or 0.0)
    return {part: seconds for part, seconds in ({**total, "teacher": sum(teachers.values())}).items() if seconds}


def _describe_data(origins: Sequence[Origin], data: DataFacts | None) -> str:
    fingerprint = _join(origin.data_fingerprint[:12] for origin in origins)
    if data is None:
        return f"Data: fingerprint {fingerprint}"
    return (
        f"Data: {data.train:,} images to train on, {data.validation:,} to validate, {data.test:,} to test;"
        f" fingerprint {fingerprint}"
    )


def _describe_machine(machine: Mapping[str, Any] | None) -> str:
    if machine is None:
        return _NOT_NOTED
    cores = f"{machine['cpu']}, {machine['cores']} cores"
    device = machine["device"]
    return cores if device == "cpu" else f"{machine['accelerators']} x {device}; {cores}"


def _join(values: Iterable[str]) -> str:
    """Different values, in their order."""
    return " and ".join(dict.fromkeys(values)) or _NOT_NOTED
