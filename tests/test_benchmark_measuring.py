"""Timing in turns, and the table."""

from collections.abc import Callable

import jax
import pytest

from experiments.benchmarks import measuring
from experiments.benchmarks.measuring import Effort, NotMeasured, Row, Timing, interleave, not_measured
from experiments.benchmarks.table import COLUMNS, table


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where a test lets it."""

    class Clock:
        now = 0.0

        def advance(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(measuring.time, "sleep", lambda seconds: None)
    return clock


def timed(result: Timing | NotMeasured) -> Timing:
    assert isinstance(result, Timing)
    return result


def test_works_are_called_in_turns_and_the_first_call_counts_apart(clock):
    called: list[str] = []

    def preparing(name: str, preparation: float, seconds: list[float]) -> Callable[[], Callable[[], None]]:
        def prepare():
            clock.advance(preparation)
            left = iter(seconds)

            def work():
                called.append(name)
                clock.advance(next(left))

            return work

        return prepare

    works = {"a": preparing("a", 10, [5, 1, 4, 2]), "b": preparing("b", 0, [1, 1, 1, 1])}
    results = interleave(works, Effort(rounds=3, seconds=60))
    assert called == ["a", "b"] * 4
    a = timed(results["a"])
    assert (a.first, a.seconds, a.median) == (15, (1, 4, 2), 2)


@pytest.mark.parametrize(("cost", "calls"), [(1, 10), (4, 5), (9, 2), (100, 1)])
def test_slow_works_are_called_in_fewer_rounds_and_at_least_once(clock, cost, calls):
    works = {"slow": lambda: lambda: clock.advance(cost), "fast": lambda: lambda: clock.advance(0.001)}
    results = interleave(works, Effort(rounds=10, seconds=21))
    assert len(timed(results["slow"]).seconds) == calls
    assert len(timed(results["fast"]).seconds) == 10


def test_slow_works_are_spread_over_the_rounds(clock):
    called: list[str] = []

    def slow():
        called.append("slow")
        clock.advance(10)

    def fast():
        called.append("fast")
        clock.advance(0.001)

    interleave({"slow": lambda: slow, "fast": lambda: fast}, Effort(rounds=6, seconds=30))
    # After the first call of each: three calls of the slow one, every second round.
    assert called[2:] == ["slow", "fast", "fast"] * 3


def test_what_cannot_be_measured_says_why_and_the_others_go_on(clock):
    def refuse():
        raise NotMeasured("there is none")

    def run_out():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nwhile allocating")

    works = {"absent": refuse, "failing": lambda: refuse, "large": lambda: run_out, "fine": lambda: lambda: None}
    results = interleave(works, Effort(rounds=2, seconds=1))
    assert list(results) == list(works)
    assert str(results["absent"]) == str(results["failing"]) == "there is none"
    assert str(results["large"]) == "RESOURCE_EXHAUSTED: out of memory"
    assert len(timed(results["fine"]).seconds) == 2


def test_a_rate_is_the_median_of_runs_without_the_first(clock):
    seconds, ran = iter([60.0, 2.0, 1.0, 4.0]), []

    def work(run):
        ran.append(run)
        clock.advance(next(seconds))

    row = measuring.measure(work, group="calls", what="calls", method="plain", amount=8, runs=3)
    assert ran == [0, 1, 2, 3]
    assert row.values == {"per_second": 4, "slowest": 2, "fastest": 8, "first_seconds": 60}


def test_the_first_line_that_says_something_is_shown():
    assert measuring.one_line(ValueError("\n\n  no compiler \nat all")) == "no compiler"
    assert measuring.one_line(ValueError()) == "ValueError"


def test_the_table_is_aligned_and_has_the_columns_of_each_group():
    rows = [
        Row(group="steps", what="small", method="ours", values={"share_of_peak": 0.4567, "ms": 12.345}),
        Row(group="steps", what="small", method="PyTorch", values={"ms": 1234.5, "times_pytorch": 1.0}),
        not_measured("there is no such thing as this on the machine", group="steps", what="GPU"),
        Row(group="memory", what="300 networks", values={"mib": 512.0}),
    ]
    assert table(rows).splitlines() == [
        "STEPS                     ms  % of peak  x PyTorch",
        "small         ours      12.3       45.7",
        "small         PyTorch  1,234                     1",
        "GPU                    not measured: there is no such thing as this on the machine",
        "MEMORY                 MiB at the end",
        "300 networks                      512",
    ]


def test_no_rows_are_no_table():
    assert table([]) == ""


def test_columns_have_different_names():
    assert len(set(COLUMNS.values())) == len(COLUMNS)
