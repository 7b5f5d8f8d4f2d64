"""Writes tables and pictures, with all that is needed to make them again."""

import collections
import dataclasses
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eigen_jax.report import ReportError, Table, provenance_notes, save_figure, write_table
from eigen_jax.report.files import write_files
from eigen_jax.store.files import told_as
from experiments.reproduce.figures import Picture
from experiments.reproduce.request import Request
from experiments.reproduce.runs import Run, Search, Study
from experiments.settings import SettingsError

_NOT_NOTED = "not noted"
_VERSIONS = ("python", "jax", "jaxlib", "flax", "optax", "numpy", "eigen_jax")
_GENERATIONS = "Generations of each search"
# What a page notes of how much it tells of.
_EXTENT = re.compile(rf"^- (Seeds|Step sizes|{_GENERATIONS}): ([\d, ]+)$", re.MULTILINE)


def check_writable(folder: Path) -> None:
    """Makes a folder, and checks that files can be written there; raises ReportError where they cannot."""
    with told_as(ReportError, folder, "choose another --output"):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def check_keeps_more(name: str, *, request: Request, runs: Sequence[Run]) -> None:
    """Raises SettingsError where a page tells of more seeds, or for Figure 3 of more besides, than are asked for."""
    page = request.output / f"{name}.md"
    try:
        text = page.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ReportError(f"cannot read {page}: {error.strerror}; choose another --output") from None
    noted = {label: set(map(int, re.findall(r"\d+", numbers))) for label, numbers in _EXTENT.findall(text)}
    asked = {"Seeds": {run.seed for run in runs}}
    if name == "figure3":
        asked |= {"Step sizes": set(request.step_sizes), _GENERATIONS: {request.generations}}

    def extent(numbers: Mapping[str, set[int]]) -> set[tuple[str, int]]:
        # Generations count up to the last.
        counted = {**numbers, _GENERATIONS: range(max(numbers.get(_GENERATIONS, ()), default=0))}
        return {(label, number) for label in asked for number in counted[label]}

    if noted.keys() >= asked.keys() and extent(noted) > extent(asked):
        told = "; ".join(f"{label.lower()} {', '.join(map(str, sorted(noted[label])))}" for label in asked)
        raise SettingsError(f"{page} tells of more than is asked for ({told}); choose another --output to keep it")


def write(told: Table | Picture, name: str, *, study: Study, runs: Sequence[Run]) -> tuple[Path, ...]:
    """Writes what is told of finished runs; gives the files' paths."""
    shown = runs if isinstance(told, Table) or told.runs is None else told.runs
    notes = (*told.notes, *_origin_notes(name, study=study, runs=shown))
    stem = study.request.output / name
    if isinstance(told, Table):
        return write_table(dataclasses.replace(told, notes=notes), stem)
    lines = "\n".join(f"- {note}" for note in notes)
    texts = {f"{ending}.csv": numbers for ending, numbers in told.numbers.items()}
    texts[".md"] = f"**{told.caption}**\n\n![{told.caption}]({name}.png)\n\n{lines}\n"
    return (*save_figure(told.figure, stem), *write_files(stem, texts))


def _origin_notes(name: str, *, study: Study, runs: Sequence[Run]) -> tuple[str, ...]:
    different = {run.folder: run for run in runs if run.folder is not None}.values()
    origins = [run.origin for run in different]
    provenance = provenance_notes(
        command=study.request.command(name),
        machine=_join(str(origin.machine or _NOT_NOTED) for origin in origins),
        versions={each: _join(origin.versions.get(each, _NOT_NOTED) for origin in origins) for each in _VERSIONS},
        seeds=sorted({run.seed for run in runs}),
        compute=_compute(different),
    )
    images = "" if study.data is None else f"{study.data}; "
    prints = _join(origin.data_fingerprint[:12] for origin in origins)
    return (f"Data: {images}fingerprint {prints}", *provenance)


def _compute(runs: Iterable[Run]) -> Mapping[str, float | None]:
    """Seconds of each part of the work; the teacher counts once, however many runs mimic it."""
    own = collections.defaultdict[str, float](float)
    teacher: dict[str, float | None] = {}
    for run in runs:
        took = run.result.seconds
        if isinstance(run, Search):
            own["search"] += took.search or 0.0
            teacher |= {part: seconds for part, seconds in run.teacher_seconds.items() if teacher.get(part) is None}
        own[run.part] += took.final or 0.0
    return {**{part: seconds for part, seconds in own.items() if seconds}, **teacher}


def _join(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values)) or _NOT_NOTED
