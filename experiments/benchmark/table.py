"""The rows as one table of text."""

from collections.abc import Sequence
from itertools import groupby

from experiments.benchmark.measuring import Row

# What each column of `Row.values` is called in the table.
COLUMNS = {
    "ms": "ms",
    "images_per_second": "images/s",
    "per_second": "a second",
    "slowest": "slowest",
    "fastest": "fastest",
    "gflops_per_second": "GFLOP/s",
    "share_of_peak": "% of peak",
    "times_pytorch": "x PyTorch",
    "times_single": "x single calls",
    "times_plain": "x plain",
    "first_seconds": "first call, s",
    "seconds": "s",
    "seconds_per_layer": "s a layer",
    "share_training": "% training",
    "share_compiling": "% compiling",
    "times_one_worker": "x one worker",
    "trained": "trained",
    "mib_early": "MiB after 30",
    "mib": "MiB at the end",
    "times_early": "x after 30",
}


def table(rows: Sequence[Row]) -> str:
    """The rows as text, a head for each group with columns of its own; a note runs on to the right."""
    what = max((len(text) for row in rows for text in (row.what, row.group)), default=0)
    method = max((len(row.method) for row in rows), default=0)
    lines = []
    for group, of_group in groupby(rows, key=lambda row: row.group):
        members = list(of_group)
        columns = [name for name in COLUMNS if any(name in row.values for row in members)]
        cells = [[COLUMNS[name] for name in columns]]
        cells += [[_show(name, row.values.get(name)) for name in columns] for row in members]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row, texts in zip([Row(group=group, what=group.upper()), *members], cells, strict=True):
            numbers = "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
            lines.append(f"{row.what:{what}}  {row.method:{method}}  {row.note or numbers}".rstrip())
    return "\n".join(lines)


def _show(column: str, value: float | None) -> str:
    if value is None:
        return ""
    if column.startswith("share"):
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
