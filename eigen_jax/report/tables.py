"""Tables of results: what was measured over seeds, what the paper reports, and where they came from.

A cell is a number `Measured` over seeds, one that all seeds `Shared`, one `Quoted` from the paper,
or text. `to_csv` writes every number as it is, `to_markdown` for people. Numbers are kept in base
units, which the column tells: accuracies are fractions, times are seconds.
"""

import csv
import dataclasses
import enum
import functools
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eigen_jax.report.files import ReportError, write_text

NOT_MEASURED = "not measured"
NOT_COMPARABLE = "not comparable"
NOTHING = "none"  # there was nothing to measure
PAPER_HEADING = "paper (CIFAR-10, paper's schedule)"


class Unit(enum.Enum):
    """What the numbers of a column are."""

    TEXT = enum.auto()  # no numbers
    ACCURACY = enum.auto()  # a fraction; shown in %
    GAIN = enum.auto()  # the difference of two fractions; shown in percentage points, with its sign
    PARAMETERS = enum.auto()
    FLOPS = enum.auto()
    SECONDS = enum.auto()  # shown in seconds, minutes or hours
    COUNT = enum.auto()  # of anything


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A number that was measured, once a seed.

    Raises:
        ReportError: there is no value, or one that is not finite.
    """

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


Cell = Measured | Shared | Quoted | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column: what it tells, and in which unit."""

    heading: str
    unit: Unit = Unit.TEXT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the numbers of a table came from: the notes under it."""

    command: str  # that makes the table again
    machine: str  # processor or GPU, and how much of it
    versions: Mapping[str, str]  # package to version
    seeds: Sequence[int]
    # Part of the work, such as "search", to seconds, all seeds together; None where they were not measured.
    compute: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results.

    Raises:
        ReportError: a row has not one cell a column, or a number stands in a column of text.
    """

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
    """The cell of a number that some seeds may lack: those are left out, and counted out in n.

    Args:
        values: seed to number, in the column's unit.
        absent: the cell where all seeds lack it.
    """
    present = {seed: value for seed, value in values.items() if value is not None}
    return Measured(values=present) if present else absent


def gain(values: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> Cell:
    """The cell of value - baseline, each with its own seed's; for a column of `Unit.GAIN`."""
    differences: dict[int, float | None] = {}
    for seed in values.keys() & baseline.keys():
        value, base = values[seed], baseline[seed]
        differences[seed] = None if value is None or base is None else value - base
    return measured(dict(sorted(differences.items())))


def paper_column(quantity: str, unit: Unit, *, dataset: str = "CIFAR-10") -> Column:
    """The column of the paper's figures for a quantity, which holds nothing else."""
    heading = PAPER_HEADING.replace("CIFAR-10", dataset)
    return Column(heading=f"{quantity}, {heading}" if quantity else heading, unit=unit)


def paper_cell(value: float | None, *, comparable: bool) -> Cell:
    """The cell of a paper's figure.

    Args:
        value: in the column's unit; None where the paper gives none.
        comparable: whether the row was measured on the paper's data set with the paper's schedule.
            Where it was not, the figure is withheld.
    """
    if not comparable:
        return NOT_COMPARABLE
    return "not in the paper" if value is None else Quoted(value=value)


def provenance_notes(provenance: Provenance) -> tuple[str, ...]:
    """The lines that say where a table's numbers came from."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    compute = ", ".join(
        f"{part} {NOT_MEASURED if seconds is None else format_seconds(seconds)}"
        for part, seconds in provenance.compute.items()
    )
    return (
        f"Command: `{provenance.command}`",
        f"Machine: {provenance.machine}",
        f"Versions: {versions}",
        f"Seeds: {', '.join(map(str, provenance.seeds))}",
        f"Compute, all seeds together: {compute or NOT_MEASURED}",
    )


def to_csv(table: Table) -> str:
    """The table as CSV, every number in full.

    Two columns stand first. `statistic` is "value" for the line of one seed, then "mean", "sd"
    (n - 1; left out for one seed) and "n" for all of them, "shared" for what was measured once for
    all, "quoted" for what the paper reports, and "none" for a row without numbers. `seed` is the
    line's, empty but for "value". Text stands in every line of its row. A number stands only in lines
    of its own statistic.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = (f"{column.heading}{_CSV_UNITS.get(column.unit, '')}" for column in table.columns)
    writer.writerow(["statistic", "seed", *heads])
    for row in table.rows:
        writer.writerows(_csv_lines(row))
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown: the caption, the aligned table, the notes."""
    heads = [_markdown_head(column) for column in table.columns]
    rows = [
        [_escape(format_cell(cell, column.unit)) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    widths = [max(3, *(len(line[place]) for line in [heads, *rows])) for place in range(len(heads))]
    right = [column.unit is not Unit.TEXT for column in table.columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + (":" if is_right else "-") for width, is_right in zip(widths, right, strict=True)]
    parts = [f"**{table.caption}**", "\n".join([line(heads), line(rule), *map(line, rows)])]
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def write_table(table: Table, stem: Path) -> tuple[Path, Path]:
    """Writes a table as CSV and as Markdown, each as a whole file.

    Args:
        table: what is written.
        stem: the files' path without ending; its folder is made.

    Returns:
        The paths of the CSV and of the Markdown.

    Raises:
        ReportError: they cannot be written.
    """
    stem = Path(stem)
    paths = stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.md")
    for path, text in zip(paths, (to_csv(table), to_markdown(table)), strict=True):
        write_text(path, text)
    return paths


def format_cell(cell: Cell, unit: Unit) -> str:
    """A cell for people: text as it is, a number in its unit, mean ± standard deviation and n over seeds."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Quoted):
        return _FORMATS[unit](cell.value, None)
    if isinstance(cell, Shared):
        return f"{_FORMATS[unit](cell.value, None)}, once for all seeds"
    count = len(cell.values)
    return f"{_FORMATS[unit](cell.mean, cell.deviation)} (n = {count})"


def format_parameters(value: float, deviation: float | None = None) -> str:
    """Such as "2.6 M", or "42,858" below a million."""
    return _scaled(value, deviation, ((1e6, "M"),)) if value >= 1e6 else _plain(round(value), deviation)


def format_flops(value: float, deviation: float | None = None) -> str:
    """Such as "1.1 G" or "2.6 M", or in full below a million."""
    return _scaled(value, deviation, ((1e9, "G"), (1e6, "M"))) if value >= 1e6 else _plain(round(value), deviation)


def format_seconds(seconds: float, deviation: float | None = None) -> str:
    """A time in the largest unit that it fills at least twice: hours, minutes or seconds."""
    size, unit = next(((size, unit) for size, unit in ((3_600, "h"), (60, "min")) if seconds >= 2 * size), (1, "s"))
    return _scaled(seconds, deviation, ((size, unit),))


def _format_accuracy(value: float, deviation: float | None) -> str:
    if deviation is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.2f} ± {100 * deviation:.2f}"


def _format_gain(value: float, deviation: float | None) -> str:
    if deviation is None:
        return f"{100 * value:+.1f}"
    return f"{100 * value:+.2f} ± {100 * deviation:.2f}"


def _format_count(value: float, deviation: float | None) -> str:
    return _plain(int(value) if value == int(value) else value, deviation)


def _scaled(value: float, deviation: float | None, scales: Sequence[tuple[float, str]]) -> str:
    """In the first scale that the value fills."""
    size, unit = next((scale for scale in scales if value >= scale[0]), scales[-1])
    spread = "" if deviation is None else f" ± {deviation / size:.1f}"
    return f"{value / size:,.1f}{spread} {unit}"


def _plain(value: float, deviation: float | None) -> str:
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
    if deviation is None:
        return text
    return f"{text} ± {deviation:,.0f}" if deviation >= 10 else f"{text} ± {deviation:,.1f}"


_FORMATS: dict[Unit, Callable[[float, float | None], str]] = {
    Unit.ACCURACY: _format_accuracy,
    Unit.GAIN: _format_gain,
    Unit.PARAMETERS: format_parameters,
    Unit.FLOPS: format_flops,
    Unit.SECONDS: format_seconds,
    Unit.COUNT: _format_count,
}


# Cells of one number, and the statistic that it is.
_ONE_VALUE: dict[type, str] = {Shared: "shared", Quoted: "quoted"}

# What the head of a column says of its unit.
_CSV_UNITS = {Unit.ACCURACY: " (fraction)", Unit.GAIN: " (difference of fractions)", Unit.SECONDS: " (s)"}
_MARKDOWN_UNITS = {Unit.ACCURACY: ", %", Unit.GAIN: ", points"}


def _markdown_head(column: Column) -> str:
    return _escape(f"{column.heading}{_MARKDOWN_UNITS.get(column.unit, '')}")


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _csv_lines(row: Sequence[Cell]) -> list[list[str]]:
    """The lines of one row, as `to_csv` says."""
    numbers = [cell for cell in row if isinstance(cell, Measured)]
    seeds = sorted({seed for cell in numbers for seed in cell.values})

    def line(statistic: str, seed: str, number: Callable[[Measured], float | None]) -> list[str]:
        cells = [statistic, seed]
        for cell in row:
            if isinstance(cell, Measured):
                value = number(cell)
                cells.append("" if value is None else str(value))
            elif isinstance(cell, Shared | Quoted):
                cells.append(str(cell.value) if statistic == _ONE_VALUE[type(cell)] else "")
            else:
                cells.append(cell)
        return cells

    lines = [line("value", str(seed), functools.partial(_value_of, seed)) for seed in seeds]
    if numbers:
        lines.append(line("mean", "", lambda cell: cell.mean))
        if any(cell.deviation is not None for cell in numbers):
            lines.append(line("sd", "", lambda cell: cell.deviation))
        lines.append(line("n", "", lambda cell: len(cell.values)))
    for kind, statistic in _ONE_VALUE.items():
        if any(isinstance(cell, kind) for cell in row):
            lines.append(line(statistic, "", lambda cell: None))
    return lines or [line("none", "", lambda cell: None)]


def _value_of(seed: int, cell: Measured) -> float | None:
    return cell.values.get(seed)
