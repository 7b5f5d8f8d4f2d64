"""How much to measure, timing, the rows that it gives, and their table."""

import dataclasses
import itertools
import statistics
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import psutil

from eigen_jax.errors import first_line

Work = Callable[[], Any]  # returns when the work is done; on a GPU it waits for the device
Prepare = Callable[[], Work]  # it, or the first call of the work, may raise `NotMeasured`
Progress = Callable[[str], None]  # is told what is measured next

# Threads of OpenMP and XLA spin for milliseconds after a parallel loop, and would take a core from who is timed next.
_PAUSE = 0.02

_IDLE = 0.1  # cores that others may use on a machine that is called idle

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
    "others": "cores others used",
}


class NotMeasured(Exception):
    """A number cannot be had here; says in one line why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to measure. The defaults are those of a full run."""

    quick: bool = False  # leave out what takes long
    rounds: int = 15  # calls at most of each of the works that are compared
    seconds: float = 10.0  # that these calls of one work take, about
    mutation_batches: tuple[int, ...] = (512, 1024, 2048)
    runs: int = 7  # of mutation and of evolution
    memory: int = 300  # networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    group: str  # of rows, with columns of their own
    what: str  # is measured
    method: str = ""  # how it was run
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by column, see `COLUMNS`
    note: str = ""  # in place of the values: why there are none


Rows = Iterator[Row]


class Timing(NamedTuple):
    first: float  # seconds, preparation and compilation included
    seconds: list[float]  # of each later call
    others: Mapping[str, float] = types.MappingProxyType({})  # as `Others.told` meanwhile


class Others:
    """What all but this process use of the machine, from the moment this is made; what it has no core for is theirs."""

    def __init__(self) -> None:
        self._began, self._used = time.perf_counter(), _used_by_others()

    def told(self) -> dict[str, float]:
        """The cores that they use on average, as a value of a row; none where the machine was idle."""
        cores = (_used_by_others() - self._used) / max(time.perf_counter() - self._began, _PAUSE)
        return {"others": cores} if cores > _IDLE else {}


def _used_by_others() -> float:
    """CPU seconds since the machine started."""
    used, own = psutil.cpu_times()._asdict(), psutil.Process().cpu_times()
    for name in ("idle", "iowait", "guest", "guest_nice"):  # a guest's time is in the user's as well
        used.pop(name, None)
    return sum(used.values()) - own.user - own.system


def interleave(works: Mapping[str, Prepare], plan: Plan) -> dict[str, Timing | str]:
    """Times works in turns, so that what else happens on the machine happens to all; or says why there is no timing."""
    ready: dict[str, tuple[Work, list[float]]] = {}
    results: dict[str, float | str] = {}  # what the first call took, or why there was none
    for name, prepare in works.items():
        began = time.perf_counter()
        try:
            work = prepare()
            work()
        except (NotMeasured, jax.errors.JaxRuntimeError) as error:
            results[name] = first_line(error)
        else:
            results[name], ready[name] = time.perf_counter() - began, (work, [])
    others = Others()
    for turn in range(plan.rounds):
        for work, seconds in ready.values():
            # Where so many calls take too long, it is called in some of the rounds only, at even distances.
            taken = seconds[0] if seconds else 0.0
            calls = plan.rounds if taken * plan.rounds <= plan.seconds else max(1, int(plan.seconds / taken))
            if len(seconds) <= turn * calls // plan.rounds:
                time.sleep(_PAUSE)
                began = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - began)
    told = others.told()
    return {
        name: found if isinstance(found, str) else Timing(found, ready[name][1], told)
        for name, found in results.items()
    }


def compare(
    works: Mapping[str, Prepare],
    plan: Plan,
    *,
    group: str,
    what: str,
    units: Mapping[str, int] | None = None,  # by name, of what a call does several of; the times are those of one
    flops: int = 0,  # of one, where their rate is a value, too
    tells_first: bool = False,  # whether the time of the first call is a value, too
    **against: str,  # by column, a work whose time the others are multiples of; left out where it was not measured
) -> Rows:
    """Times works, by name, in turns, see `interleave`, and gives a row for each."""
    results, seconds = interleave(works, plan), dict[str, float]()
    for name, result in results.items():
        if isinstance(result, Timing):
            seconds[name] = statistics.median(result.seconds) / (units or {}).get(name, 1)
    for name, result in results.items():
        if not isinstance(result, Timing):
            yield not_measured(result, group=group, what=what, method=name)
            continue
        values = {column: seconds[name] / seconds[other] for column, other in against.items() if other in seconds}
        values["ms"] = 1e3 * seconds[name]
        if flops:
            values["gflops_per_second"] = flops / seconds[name] / 1e9
        if tells_first:
            values["first_seconds"] = result.first
        values |= result.others
        yield Row(group=group, what=what, method=name, values=values)


def rate_row(work: Callable[[int], object], *, group: str, what: str, method: str, amount: int, runs: int) -> Row:
    """Times calls of `work`, which gets the number of the run and does `amount` of what is counted."""
    seconds, others = [], Others()
    for run in range(1 + runs):
        began = time.perf_counter()
        jax.block_until_ready(work(run))
        seconds.append(time.perf_counter() - began)
    first, *rest = seconds
    taken = {"per_second": statistics.median(rest), "slowest": max(rest), "fastest": min(rest)}
    values = {name: amount / each for name, each in taken.items()} | {"first_seconds": first}
    values |= others.told()
    return Row(group=group, what=what, method=method, values=values)


def not_measured(reason: object, *, group: str, what: str, method: str = "") -> Row:
    return Row(group=group, what=what, method=method, note=f"not measured: {reason}")


def table(rows: Sequence[Row]) -> str:
    """The rows as text, a head for each group with columns of its own; a note runs on to the right."""
    what = max((len(text) for row in rows for text in (row.what, row.group)), default=0)
    method = max((len(row.method) for row in rows), default=0)
    lines = []
    for group, of_group in itertools.groupby(rows, key=lambda row: row.group):
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
