"""Timing, and the rows that it gives."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

Work = Callable[[], Any]  # returns when the work is done; on a GPU it waits for the device

# After its last parallel loop, a thread of an OpenMP or an XLA pool spins for some milliseconds before it
# sleeps. Without a pause it would take a core from whoever is timed next.
_PAUSE = 0.02


class NotMeasured(Exception):
    """A number cannot be had here; says in one line why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    group: str  # of rows, with columns of their own
    what: str  # is measured
    method: str = ""  # how it was run
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by column, see `table.COLUMNS`
    note: str = ""  # in place of the values: why there are none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How long calls of one work took."""

    first: float  # seconds, preparation and compilation included
    seconds: tuple[float, ...]  # of each later call

    @property
    def median(self) -> float:
        """Seconds a call."""
        return statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure."""

    rounds: int  # calls of each work at most
    seconds: float  # that these calls of one work take, about


def interleave(works: Mapping[str, Callable[[], Work]], effort: Effort) -> dict[str, Timing | NotMeasured]:
    """Times works in turns, so that what else happens on the machine happens to all of them.

    Args:
        works: by name, functions that prepare a work; they or the first call may raise
            `NotMeasured`. The first call is timed apart.
        effort: a work for which `effort.rounds` calls take too long is called in some of the
            rounds only, at even distances, and at least once.
    """
    ready: dict[str, Work] = {}
    failed: dict[str, NotMeasured] = {}
    first, seconds = {}, {}
    for name, prepare in works.items():
        began = time.perf_counter()
        try:
            ready[name] = prepare()
            ready[name]()
        except NotMeasured as reason:
            ready.pop(name, None)
            failed[name] = reason
        except jax.errors.JaxRuntimeError as error:
            ready.pop(name, None)
            failed[name] = NotMeasured(one_line(error))
        first[name], seconds[name] = time.perf_counter() - began, list[float]()
    for turn in range(effort.rounds):
        for name, work in ready.items():
            if _is_due(turn, seconds[name], effort):
                time.sleep(_PAUSE)
                began = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - began)
    return {
        name: failed[name] if name in failed else Timing(first=first[name], seconds=tuple(seconds[name]))
        for name in works
    }


def measure(work: Callable[[int], object], *, group: str, what: str, method: str, amount: int, runs: int) -> Row:
    """Times calls of `work`, which gets the number of the run and does `amount` of what is counted."""

    def seconds(run: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(work(run))
        return time.perf_counter() - start

    first = seconds(0)
    timing = Timing(first=first, seconds=tuple(seconds(run) for run in range(1, runs + 1)))
    return rate_row(timing, group=group, what=what, method=method, amount=amount)


def rate_row(timing: Timing, *, group: str, what: str, method: str, amount: int) -> Row:
    """How many a second, where a call does `amount` of them."""
    values = {
        "per_second": amount / timing.median,
        "slowest": amount / max(timing.seconds),
        "fastest": amount / min(timing.seconds),
        "first_seconds": timing.first,
    }
    return Row(group=group, what=what, method=method, values=values)


def not_measured(reason: NotMeasured | str, *, group: str, what: str, method: str = "") -> Row:
    """The row that stands where a number cannot be had."""
    return Row(group=group, what=what, method=method, note=f"not measured: {reason}")


def one_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _is_due(turn: int, taken: list[float], effort: Effort) -> bool:
    if not taken:
        return True
    calls = effort.rounds if taken[0] * effort.rounds <= effort.seconds else max(1, int(effort.seconds / taken[0]))
    return len(taken) <= turn * calls // effort.rounds
