"""Writes tables and pictures, with all that is needed to make them again."""

import dataclasses
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eigen_jax.report import ReportError, Table, provenance_notes, save_figure, write_table
from eigen_jax.report.files import write_text
from experiments.paper.figures import Picture
from experiments.paper.plans import Plan, Search
from experiments.paper.records import TEACHER_PARTS, DataFacts, Origin, SearchRecord, TrainingRecord
from experiments.paper.request import Request
from experiments.paper.running import Runs
from experiments.settings import SettingsError

_NOT_NOTED = "not noted"
# What a page notes of how much it tells of.
_EXTENT = re.compile(r"^- (Seeds|Step sizes|Generations of each search): ([\d, ]+)$", re.MULTILINE)
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


def check_keeps_more(name: str, *, request: Request, plans: Sequence[Plan]) -> None:
    """Checks that what was told of more seeds, or for Figure 3 of more besides, is not overwritten.

    Args:
        name: of the experiment.
        request: what is asked for.
        plans: the runs that it will be told of.

    Raises:
        SettingsError: a page is there that tells of all that is asked for and of more.
        ReportError: the page that is there cannot be read.
    """
    page = request.output / f"{name}.md"
    try:
        text = page.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ReportError(f"cannot read {page}: {error.strerror}; choose another --output") from None
    noted = {label: {int(number) for number in re.findall(r"\d+", numbers)} for label, numbers in _EXTENT.findall(text)}
    asked = {"Seeds": {plan.seed for plan in plans}}
    if name == "figure3":
        asked["Step sizes"] = set(request.step_sizes)
        asked["Generations of each search"] = {request.generations}
    if not noted.keys() >= asked.keys():
        return
    comparisons = [_compare(label, noted[label], own) for label, own in asked.items()]
    if all(has >= wants for has, wants in comparisons) and any(has > wants for has, wants in comparisons):
        there = "; ".join(f"{label.lower()} {', '.join(map(str, sorted(noted[label])))}" for label in asked)
        raise SettingsError(f"{page} tells of more than is asked for ({there}); choose another --output to keep it")


def _compare(label: str, noted: set[int], asked: set[int]) -> tuple[set[int], set[int]]:
    """Sets of which one holds the other where it tells of more: numbers of generations count up to the last."""
    if label != "Generations of each search":
        return noted, asked
    return set(range(max(noted, default=0))), set(range(max(asked)))


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
    shown = plans if isinstance(told, Table) or told.plans is None else told.plans
    notes = (*told.notes, *_origin_notes(name, request=request, plans=shown, runs=runs))
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
    provenance = provenance_notes(
        command=request.command(name),
        machine=_join(_describe_machine(origin.machine) for origin in origins),
        versions={name: _join(origin.versions.get(name, _NOT_NOTED) for origin in origins) for name in _VERSIONS},
        seeds=sorted({plan.seed for plan in plans}),
        compute=_compute(records),
    )
    return (_describe_data(origins, runs.facts), *provenance)


def _records(plans: Sequence[Plan], runs: Runs) -> list[SearchRecord | TrainingRecord]:
    """Of the plans' runs, each once."""
    records: dict[Path, SearchRecord | TrainingRecord] = {}
    for plan in plans:
        if isinstance(plan, Search):
            records[plan.settings.run_dir] = runs.search(plan)
        elif (training := runs.training(plan)) is not None:
            records[training.folder] = training
    return list(records.values())


def _compute(records: Iterable[SearchRecord | TrainingRecord]) -> Mapping[str, float | None]:
    """Seconds of each part of the work; the teacher counts once, however many runs mimic it."""
    total: dict[str, float] = {}
    teacher: dict[str, float | None] = {}
    for record in records:
        parts: Mapping[str, float | None]
        if isinstance(record, TrainingRecord):
            parts = {"training again": record.seconds}
        else:
            parts = record.seconds
            for part, heading in TEACHER_PARTS.items():
                if part in record.teacher_seconds and teacher.get(heading) is None:
                    teacher[heading] = record.teacher_seconds[part]
        for part, seconds in parts.items():
            total[part] = total.get(part, 0.0) + (seconds or 0.0)
    return {**{part: seconds for part, seconds in total.items() if seconds}, **teacher}


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
