"""Tables of results: what was measured over seeds, what the paper reports, and where they came from.

A cell is a number `Measured` over seeds, one that all seeds `Shared`, one `Counted`, one `Quoted` from the
paper, or text. `to_csv` writes every number as it is, `to_markdown` for people. Numbers are kept in base
units, which the column tells: accuracies are fractions, times are seconds.
"""

import csv
import dataclasses
import enum
import functools
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eigen_jax.report.files import ReportError, write_files

NOT_MEASURED = "not measured"
NOT_COMPARABLE = "not comparable"
NOTHING = "none"  # there was nothing to measure

_STATISTICS = ("value", "mean", "sd", "n", "shared", "counted", "quoted", "none")  # in the order of their lines


def format_parameters(value: float, deviation: float | None = None) -> str:
    """Such as "2.6 M", or "42,858" below a million."""
    return _in_units(value, deviation, ("M", 1e6, 1e6))


def format_flops(value: float, deviation: float | None = None) -> str:
    """Such as "1.1 G" or "2.6 M", or in full below a million."""
    return _in_units(value, deviation, ("P", 1e15, 1e15), ("T", 1e12, 1e12), ("G", 1e9, 1e9), ("M", 1e6, 1e6))


def format_seconds(seconds: float, deviation: float | None = None) -> str:
    """A time in the largest unit that it fills at least twice: hours, minutes or seconds."""
    return _in_units(seconds, deviation, ("h", 7_200, 3_600), ("min", 120, 60), ("s", 0, 1))


def format_latency(seconds: float, deviation: float | None = None) -> str:
    """A short time, in seconds, milliseconds or microseconds."""
    return _in_units(seconds, deviation, ("s", 1, 1), ("ms", 1e-3, 1e-3), ("µs", 0, 1e-6))


def _in_units(value: float, deviation: float | None, *units: tuple[str, float, float]) -> str:
    """A number in the first of some units (name, least number, size) that it is large enough for, else in full."""
    for unit, least, size in units:
        if value >= least:
            spread = "" if deviation is None else f" ± {deviation / size:.1f}"
            return f"{value / size:,.1f}{spread} {unit}"
    return _format_count(round(value), deviation)


def _format_fraction(value: float, deviation: float | None, sign: str = "") -> str:
    if deviation is None:
        return f"{100 * value:{sign}.1f}"
    return f"{100 * value:{sign}.2f} ± {100 * deviation:.2f}"


def _format_count(value: float, deviation: float | None) -> str:
    text = f"{int(value):,}" if value == int(value) else f"{value:,.1f}"
    if deviation is None:
        return text
    return f"{text} ± {deviation:,.0f}" if deviation >= 10 else f"{text} ± {deviation:,.1f}"


def _format_number(value: float, deviation: float | None) -> str:
    return f"{value:.3f}" if deviation is None else f"{value:.3f} ± {deviation:.3f}"


class Unit(enum.Enum):
    """What the numbers of a column are: what its head says of them in CSV and in Markdown, and how they are shown."""

    TEXT = "", "", str  # no numbers
    ACCURACY = " (fraction)", ", %", _format_fraction
    GAIN = " (difference of fractions)", ", points", functools.partial(_format_fraction, sign="+")
    PARAMETERS = "", "", format_parameters
    FLOPS = "", "", format_flops
    SECONDS = " (s)", "", format_seconds
    LATENCY = " (s)", "", format_latency
    COUNT = "", "", _format_count  # of anything
    NUMBER = "", "", _format_number  # of a scale of its own

    def __init__(self, in_csv: str, in_markdown: str, show: Callable[[float, float | None], str]):
        self.in_csv, self.in_markdown, self.show = in_csv, in_markdown, show


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A number that was measured, once a seed; raises ReportError where there is none, or one that is not finite."""

    values: Mapping[int, float]  # seed to value, in the column's unit

    def __post_init__(self) -> None:
        if not self.values:
            raise ReportError("a measured cell has no values; give one a seed, or say that it was not measured")
        for seed, value in self.values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ReportError(f"the value of seed {seed} is {value!r}; it must be a finite number")

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.values.values())

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over seeds (n - 1); None for one seed."""
        return statistics.stdev(map(float, self.values.values())) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quoted:
    """A number that the paper reports."""

    value: float  # in the column's unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """A number that was measured once, of something that all seeds share."""

    value: float  # in the column's unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """A number that follows from what is told of, such as a network's parameters, and is the same for all seeds."""

    value: float  # in the column's unit


Cell = Measured | Shared | Counted | Quoted | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    heading: str
    unit: Unit = Unit.TEXT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results; raises ReportError where a row has not one cell a column, or a number in one of text."""

    caption: str  # one line, what the table shows and on which data
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()  # a line each, under the table

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ReportError(f"row {number} has {len(row)} cells; the table has {len(self.columns)} columns")
            for column, cell in zip(self.columns, row, strict=True):
                if column.unit is Unit.TEXT and not isinstance(cell, str):
                    raise ReportError(f"row {number} has a number under {column.heading!r}; give the column its unit")


def measured(values: Mapping[int, float | None], *, absent: str = NOT_MEASURED) -> Cell:
    """The cell of a number (in the column's unit, by seed) that some seeds lack; `absent` where all do."""
    present = {seed: value for seed, value in values.items() if value is not None}
    return Measured(values=present) if present else absent


def gain(values: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> Cell:
    """The cell of value - baseline, each with its own seed's; for a column of `Unit.GAIN`."""
    differences = {
        seed: value - base
        for seed, value in sorted(values.items())
        if value is not None and (base := baseline.get(seed)) is not None
    }
    return measured(differences)


def paper_cell(value: float | None, *, comparable: bool) -> Cell:
    """The cell of a paper's figure, which is withheld where data set or schedule are others; None: there is none."""
    if not comparable:
        return NOT_COMPARABLE
    return "not in the paper" if value is None else Quoted(value=value)


def provenance_notes(
    *,
    command: str,
    machine: str,
    versions: Mapping[str, str],
    seeds: Sequence[int],
    compute: Mapping[str, float | None],
) -> tuple[str, ...]:
    """The lines under a table that say where its numbers came from; `compute` has the seconds of parts of the work."""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [f"{part} {NOT_MEASURED if time is None else format_seconds(time)}" for part, time in compute.items()]
    return (
        f"Command: `{command}`",
        f"Machine: {machine}",
        f"Versions: {packages}",
        f"Seeds: {', '.join(map(str, seeds))}",
        f"Compute, all seeds together: {', '.join(parts) or NOT_MEASURED}",
    )


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, numbers in full, what is None left empty."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def to_csv(table: Table) -> str:
    """The table as CSV, every number in full.

    Two columns stand first. `statistic` is "value" for the line of one seed, then "mean", "sd" (n - 1; left
    out for one seed) and "n" for all of them, "shared" for what was measured once for all, "counted" for what
    is the same by necessity, "quoted" for what the paper reports, and "none" for a row without numbers. `seed`
    is the line's, empty but for "value". Text stands in every line of its row, a number only in those of its
    own statistic.
    """
    heads = (f"{column.heading}{column.unit.in_csv}" for column in table.columns)
    lines: list[Sequence[Any]] = [("statistic", "seed", *heads)]
    for row in table.rows:
        numbers = [_statistics(cell) for cell in row]
        keys = {key for each in numbers for key in each} or {("none", "")}
        for key in sorted(keys, key=lambda key: (_STATISTICS.index(key[0]), key[1])):
            cells = zip(row, numbers, strict=True)
            lines.append((*key, *(cell if isinstance(cell, str) else own.get(key, "") for cell, own in cells)))
    return csv_text(lines)


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown: the caption, the aligned table, the notes."""
    columns = []
    for number, column in enumerate(table.columns):
        texts = [f"{column.heading}{column.unit.in_markdown}"]
        texts += [format_cell(row[number], column.unit) for row in table.rows]
        head, *cells = (text.replace("|", "\\|").replace("\n", " ") for text in texts)
        width, is_text = max(3, *map(len, (head, *cells))), column.unit is Unit.TEXT
        rule = "-" * (width - 1) + ("-" if is_text else ":")
        columns.append([text.ljust(width) if is_text else text.rjust(width) for text in (head, rule, *cells)])
    lines = "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join(filter(None, (f"**{table.caption}**", lines, notes))) + "\n"


def write_table(table: Table, stem: Path) -> tuple[Path, ...]:
    """Writes a table as CSV and as Markdown, as `write_files` writes."""
    return write_files(stem, {".csv": to_csv(table), ".md": to_markdown(table)})


def format_cell(cell: Cell, unit: Unit) -> str:
    """A cell for people: text as it is, a number in its unit, mean ± standard deviation and n over seeds."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Measured):
        return f"{unit.show(cell.mean, cell.deviation)} (n = {len(cell.values)})"
    return unit.show(cell.value, None) + (", once for all seeds" if isinstance(cell, Shared) else "")


def _statistics(cell: Cell) -> dict[tuple[str, int | str], float]:
    """The numbers of a cell by their statistic and their seed."""
    if isinstance(cell, str):
        return {}
    if not isinstance(cell, Measured):
        return {(type(cell).__name__.lower(), ""): cell.value}
    numbers: dict[tuple[str, int | str], float] = {("value", seed): value for seed, value in cell.values.items()}
    numbers |= {("mean", ""): cell.mean, ("n", ""): len(cell.values)}
    return numbers if cell.deviation is None else numbers | {("sd", ""): cell.deviation}
