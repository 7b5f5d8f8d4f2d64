"""How much to measure, timing, and the rows that it gives."""

import dataclasses
import importlib.util
import statistics
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

Work = Callable[[], Any]  # returns when the work is done; on a GPU it waits for the device
Prepare = Callable[[], Work]  # it, or the first call of the work, may raise `NotMeasured`
Progress = Callable[[str], None]  # is told what is measured next

# After its last parallel loop, a thread of an OpenMP or an XLA pool spins for some milliseconds before it
# sleeps. Without a pause it would take a core from whoever is timed next.
_PAUSE = 0.02


class NotMeasured(Exception):
    """A number cannot be had here; says in one line why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to measure. The defaults are those of a full run."""

    quick: bool = False  # leave out what takes long to compile
    rounds: int = 15  # calls at most of each of the works that are compared
    seconds: float = 10.0  # that these calls of one work take, about
    mutation_batches: tuple[int, ...] = (512, 1024, 2048)
    runs: int = 7  # of mutation and of evolution
    memory: int | None = 300  # networks; None: left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    group: str  # of rows, with columns of their own
    what: str  # is measured
    method: str = ""  # how it was run
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by column, see `table.COLUMNS`
    note: str = ""  # in place of the values: why there are none


class Timing(NamedTuple):
    """How long calls of one work took."""

    first: float  # seconds, preparation and compilation included
    seconds: list[float]  # of each later call


def interleave(works: Mapping[str, Prepare], plan: Plan) -> dict[str, Timing | str]:
    """Times works in turns, so that what else happens on the machine happens to all of them.

    A work for which `plan.rounds` calls take too long is called in some of the rounds only, at even
    distances, and at least once.

    Returns:
        By name, the timing, or why there is none.
    """
    ready: dict[str, Work] = {}
    timings: dict[str, Timing] = {}
    failures: dict[str, str] = {}
    for name, prepare in works.items():
        began = time.perf_counter()
        try:
            work = prepare()
            work()
        except (NotMeasured, jax.errors.JaxRuntimeError) as error:
            failures[name] = one_line(error)
        else:
            ready[name], timings[name] = work, Timing(time.perf_counter() - began, [])
    for turn in range(plan.rounds):
        for name, work in ready.items():
            if _is_due(turn, timings[name].seconds, plan):
                time.sleep(_PAUSE)
                began = time.perf_counter()
                work()
                timings[name].seconds.append(time.perf_counter() - began)
    return {name: timings.get(name) or failures[name] for name in works}


def _is_due(turn: int, taken: list[float], plan: Plan) -> bool:
    if not taken:
        return True
    calls = plan.rounds if taken[0] * plan.rounds <= plan.seconds else max(1, int(plan.seconds / taken[0]))
    return len(taken) <= turn * calls // plan.rounds


def compare(
    works: Mapping[str, Prepare],
    plan: Plan,
    *,
    group: str,
    what: str,
    units: Mapping[str, int] | None = None,
    flops: int = 0,
    tells_first: bool = False,
    **against: str,
) -> Iterator[Row]:
    """Times works in turns, see `interleave`, and gives a row for each.

    Args:
        works: by name.
        plan: how long to measure.
        group: of the rows.
        what: is measured.
        units: by name, of what a call does several of; the times are those of one.
        flops: floating-point operations of one, where their rate is a value, too.
        tells_first: whether the time of the first call is a value, too.
        against: by column, a work whose time the others are multiples of; left out where it was not measured.
    """
    results = interleave(works, plan)
    timings = {name: result for name, result in results.items() if isinstance(result, Timing)}
    seconds = {name: statistics.median(each.seconds) / (units or {}).get(name, 1) for name, each in timings.items()}
    for name, result in results.items():
        if name not in timings:
            yield not_measured(result, group=group, what=what, method=name)
            continue
        values = {column: seconds[name] / seconds[other] for column, other in against.items() if other in seconds}
        values["ms"] = 1e3 * seconds[name]
        if flops:
            values["gflops_per_second"] = flops / seconds[name] / 1e9
        if tells_first:
            values["first_seconds"] = timings[name].first
        yield Row(group=group, what=what, method=name, values=values)


def rate_row(work: Callable[[int], object], *, group: str, what: str, method: str, amount: int, runs: int) -> Row:
    """Times calls of `work`, which gets the number of the run and does `amount` of what is counted."""
    seconds = []
    for run in range(1 + runs):
        began = time.perf_counter()
        jax.block_until_ready(work(run))
        seconds.append(time.perf_counter() - began)
    first, *rest = seconds
    values = {
        "per_second": amount / statistics.median(rest),
        "slowest": amount / max(rest),
        "fastest": amount / min(rest),
        "first_seconds": first,
    }
    return Row(group=group, what=what, method=method, values=values)


def not_measured(reason: object, *, group: str, what: str, method: str = "") -> Row:
    """The row that stands where a number cannot be had."""
    return Row(group=group, what=what, method=method, note=f"not measured: {reason}")


def one_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def require_pytorch() -> types.ModuleType:
    """`experiments.benchmark.pytorch`, which cannot be imported without PyTorch.

    Raises:
        NotMeasured: PyTorch is not installed, or cannot use the GPU that JAX uses.
    """
    if importlib.util.find_spec("torch") is None:
        raise NotMeasured("PyTorch is not installed; pip install -e '.[torch]'")
    from experiments.benchmark import pytorch

    pytorch.set_up()
    return pytorch
