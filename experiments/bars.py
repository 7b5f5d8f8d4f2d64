"""Live bars on a terminal, below the lines that are printed; elsewhere a line of progress now and then."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column
from rich.text import Text

_PLAIN_EVERY = 10.0  # seconds between two lines of progress without a terminal


class LiveBars:
    """What shows progress. Used as a context manager, which takes the bars down at the end."""

    def __init__(
        self, console: Console, *, clock: Callable[[], float] = time.monotonic, detail_width: int | None = None
    ) -> None:
        """Makes it, without a bar; `detail_width` characters stand behind one, by default as many as there are."""
        self.console = console
        self.clock = clock
        self.plain_line_at = clock()
        self.bars = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False, table_column=Column(width=14, no_wrap=True)),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(width=detail_width, no_wrap=True)),
            console=console,
            transient=True,
            disable=not console.is_interactive,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def print(self, text: str, style: str = "") -> None:
        """Prints a line above the bars."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def print_plain(self, text: str) -> None:
        """Tells without a terminal what the bars show on one, now and then."""
        now = self.clock()
        if not self.console.is_interactive and now - self.plain_line_at >= _PLAIN_EVERY:
            self.plain_line_at = now
            self.print(f"  {text}", "dim")


def duration(seconds: float) -> str:
    """A time span for people, in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def percent(fraction: float | None) -> str:
    """A fraction in %, with one decimal; a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
