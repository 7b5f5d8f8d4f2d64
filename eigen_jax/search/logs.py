"""Logs of a search as it runs, for programs that people look at already: CSV files, and TensorBoard's event files.

A curve has a value for each of ascending steps, and says what it is of: an individual, by training steps; "search", by
generations; or "final", the final training. Each point is written once: a search that goes on reads what is there, and
writes what comes after it. Beside the curves, the individuals of every generation are logged.
"""

import csv
import io
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from eigen_jax.errors import EigenError
from eigen_jax.fitness import Measurement
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.registry import Registry
from eigen_jax.search.observer import SearchObserver
from eigen_jax.search.results import SearchResult
from eigen_jax.store import files
from eigen_jax.store.run_files import RunFolderError

FOLDER = "logs"  # in the run folder

_CURVES, _LINEAGE = ("of", "quantity", "step", "value"), "individuals"


class LogError(EigenError):
    """A log that cannot be kept here."""


class Log(SearchObserver):
    """Notes what happens. Used as a context manager, which closes its files; they are opened when the search starts."""

    def __init__(self, run: Path) -> None:
        """Of a run folder, which the search makes."""
        self.folder = run / FOLDER
        self.landmarks: Sequence[int] = ()
        self.last: dict[tuple[str, str], int] = {}  # step of each curve, by what it is of and its quantity

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Opens the files, and finds what stands in them: `last`."""

    def write(self, of: str, quantity: str, step: int, value: float) -> None:
        """Adds a point."""

    def write_generation(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds the individuals of a generation, as `describe` tells of them."""

    def close(self, of: Iterable[str] | None = None) -> None:
        """Closes the files of some curves, or of all."""

    def note(self, of: str, quantity: str, step: int, value: float | None) -> None:
        """Writes a point that is not there yet, unless it is no finite number."""
        if value is not None and math.isfinite(value) and step > self.last.get((of, quantity), -1):
            self.last[of, quantity] = step
            self.write(of, quantity, step, value)

    def search_started(self, *, generation: int, landmarks: Sequence[int]) -> None:
        self.landmarks = landmarks
        with files.told_as(RunFolderError, self.folder):
            self.folder.mkdir(exist_ok=True)
            self.open()

    def training_progress(
        self, *, individual: Reference, landmark: int, step: int, until: int, loss: float, steps_per_second: float
    ) -> None:
        with files.told_as(RunFolderError, self.folder):
            self.note(str(individual), "training_loss", step, loss)

    def individual_measured(
        self,
        *,
        individual: Reference,
        landmark: int,
        measurement: Measurement | None,
        fitness: tuple[float, ...] | None,
        cause: str | None,
        same_as: Reference | None,
    ) -> None:
        of, step = str(individual), self.landmarks[landmark]
        with files.told_as(RunFolderError, self.folder):
            if measurement is not None:
                self.note(of, "validation_accuracy", step, measurement.accuracy)
                self.note(of, "validation_loss", step, measurement.loss)
            for number, value in enumerate(fitness or ()):
                self.note(of, f"objective_{number}" if number else "fitness", step, value)

    def generation_ended(
        self, *, individuals: Sequence[Individual], best_fitness: float, parent: Reference | None
    ) -> None:
        generation = individuals[0].generation
        fates = [each.fate for each in individuals]
        told = {
            "best_fitness": best_fitness,
            "extinct": fates.count(Fate.EXTINCT),
            "failed": fates.count(Fate.FAILED),
            "training_flops": sum(each.training_flops or 0 for each in individuals),
        }
        for landmark in range(len(self.landmarks) - 1):
            levels = (each.landmarks[landmark].threshold for each in individuals if len(each.landmarks) > landmark)
            told[f"threshold_t{landmark + 1}"] = next(filter(None, levels), math.nan)
        with files.told_as(RunFolderError, self.folder):
            for quantity, value in told.items():
                self.note("search", quantity, generation, value)
            if generation > self.last.get(("search", _LINEAGE), -1):
                self.last["search", _LINEAGE] = generation
                self.write_generation(generation, list(map(describe, individuals)))
            self.close([str(each.reference) for each in individuals])

    def final_training_progress(self, *, step: int, loss: float, steps_per_second: float) -> None:
        with files.told_as(RunFolderError, self.folder):
            self.note("final", "training_loss", step, loss)

    def search_ended(self, *, result: SearchResult) -> None:
        with files.told_as(RunFolderError, self.folder):
            self.note("search", "test_accuracy", result.generations, result.test_accuracy)


def describe(individual: Individual) -> dict[str, Any]:
    """An individual as a row of a table: what its line of the record says, but for its layers."""
    applied = ((individual.operators or {}) if individual.repeats is None else {}).items()
    return {
        "individual": str(individual.reference),
        "generation": individual.generation,
        "phase": individual.phase,
        "parents": " ".join(map(str, individual.parents)),
        "operators": " ".join(f"{name}:{count}" for name, count in sorted(applied) if count),
        "repeats": " ".join(map(str, individual.repeats or ())),
        "fate": individual.fate.value,
        "cause": individual.cause,
        "landmarks": len(individual.landmarks),
        "accuracy": individual.accuracy,
        "fitness": " ".join(map(str, (individual.end and individual.end.fitness) or ())),
        "test_accuracy": individual.test_accuracy,
        "parameters": individual.parameters,
        "flops": individual.flops,
        "layers": len(individual.architecture.layers),
        "same_as": None if individual.same_as is None else str(individual.same_as),
        "training_flops": individual.training_flops,
        "seconds": individual.seconds_compiling + individual.seconds_training,
    }


class CSVLog(Log):
    """Two files in the run folder's `logs`: curves.csv, a line a point, and lineage.csv, a line an individual."""

    def open(self) -> None:
        self.curves, self.lineage = self.folder / "curves.csv", self.folder / "lineage.csv"
        for row in _read_csv(self.curves, "step"):
            self.last[row["of"], row["quantity"]] = int(row["step"])
        # A generation can have been written in part.
        self.recorded = {row["individual"] for row in _read_csv(self.lineage, "generation")}

    def write(self, of: str, quantity: str, step: int, value: float) -> None:
        _append_csv(self.curves, [dict(zip(_CURVES, (of, quantity, step, value), strict=True))])

    def write_generation(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        _append_csv(self.lineage, [row for row in rows if row["individual"] not in self.recorded])


def _read_csv(path: Path, counted: str) -> list[dict[str, str]]:
    """The lines of a log, if there is one; one that was not finished is removed. Raises LogError where it is none."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        files.write(path, whole)
    rows = list(csv.DictReader(io.StringIO(whole.decode(errors="replace"))))
    if any(None in row or None in row.values() or not row.get(counted, "").isdecimal() for row in rows):
        raise LogError(f"{path} is damaged, or no log of this version; remove it, and what follows is logged")
    return rows


def _append_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    buffer, is_new = io.StringIO(), not path.exists() or not path.stat().st_size
    writer = csv.DictWriter(buffer, rows[0].keys(), lineterminator="\n")
    if is_new:
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(buffer.getvalue())


class TensorBoardLog(Log):
    """Event files in folders of `logs/tensorboard`, one for each individual, "search" and "final"; needs tensorboardX.

    The individuals of a generation are a text of "search".
    """

    def __init__(self, run: Path) -> None:
        """Raises LogError where tensorboardX is not installed."""
        super().__init__(run)
        try:
            import tensorboardX
        except ImportError:
            raise LogError(
                "tensorboardX is not installed; install the extra: pip install 'eigen_jax[tensorboard]'"
            ) from None
        self.library, self.writers = tensorboardX, dict[str, Any]()

    def open(self) -> None:
        for path in self.folder.glob("tensorboard/*/events.*"):
            for tag, step in _read_events(path):
                curve = path.parent.name, tag.removesuffix("/text_summary")
                self.last[curve] = max(step, self.last.get(curve, -1))

    def write(self, of: str, quantity: str, step: int, value: float) -> None:
        self._writer(of).add_scalar(quantity, value, step)

    def write_generation(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
        cells = (("" if each is None else str(each).replace("|", "\\|") for each in line) for line in lines)
        self._writer("search").add_text(_LINEAGE, "\n".join(f"| {' | '.join(line)} |" for line in cells), number)

    def close(self, of: Iterable[str] | None = None) -> None:
        for name in [*self.writers] if of is None else of:
            if name in self.writers:
                self.writers.pop(name).close()

    def _writer(self, of: str) -> Any:
        if of not in self.writers:
            folder = self.folder / "tensorboard" / of
            # Files are named by the second, and one of the same second would take the other's place.
            suffix = f".{len(list(folder.glob('events.*')))}"
            self.writers[of] = self.library.SummaryWriter(str(folder), flush_secs=1, filename_suffix=suffix)
        return self.writers[of]


def _read_events(path: Path) -> Iterator[tuple[str, int]]:
    """The tag and the step of every value in a file of events, up to one that was not finished.

    A record is its length, in 8 bytes, a checksum of that, the event, and a checksum of that.
    """
    from tensorboardX.proto.event_pb2 import Event

    content, place = path.read_bytes(), 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        start, place = place + 12, place + 12 + length + 4
        if place > len(content):
            return
        event = Event.FromString(content[start : start + length])
        for value in event.summary.value:
            yield value.tag, event.step


LOGS = Registry[type[Log]]("log")
LOGS.add("csv", CSVLog)
LOGS.add("tensorboard", TensorBoardLog)
