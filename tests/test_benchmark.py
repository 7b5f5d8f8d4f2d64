"""The command: what it measures on request, prints and writes; how calls are timed and shown."""

import functools
import itertools
import json
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import measuring
from experiments.benchmark.measuring import COLUMNS, NotMeasured, Plan, Row, compare, interleave, not_measured, table

GROUPS = ["steps", "parts", "mimicry", "evolution", "compile", "search", "workers", "memory"]


@pytest.fixture(autouse=True)
def changed(monkeypatch):
    """The settings of JAX that the command would change in its process, which here is that of the tests."""
    changed: dict[str, Any] = {}
    monkeypatch.setattr(benchmark.jax.config, "update", changed.__setitem__)
    return changed


@pytest.fixture
def measured(monkeypatch):
    """What each group was asked for; it gives one row and takes no time."""
    plans: dict[str, Plan] = {}

    def measure(group, chosen, progress):
        progress("it")
        plans[group] = chosen
        yield Row(group=group, what="it", method="fast", values={"ms": 2.5})

    monkeypatch.setattr(benchmark, "GROUPS", {group: functools.partial(measure, group) for group in benchmark.GROUPS})
    return plans


def test_all_groups_are_measured_printed_and_written(measured, changed, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    assert benchmark.main(["--json", str(path)]) == 0
    assert list(measured) == GROUPS
    assert {chosen.quick for chosen in measured.values()} == {False}
    assert changed == {"jax_enable_compilation_cache": False}
    shown = capsys.readouterr()
    heading, *lines = shown.out.splitlines()
    assert f"jax: {jax.__version__}" in heading
    assert len(lines) == 2 * len(measured), "a head and a row of each group, in one table"
    assert [line.split("s  ")[1] for line in shown.err.splitlines()] == [f"{group}: it" for group in measured]
    written = json.loads(path.read_text())
    assert written.keys() == {"machine", "versions", "rows"}
    assert written["machine"].keys() == {"cpu", "cores", "device"}
    assert {"python", "jax", "flax"} <= written["versions"].keys()
    assert written["rows"][0] == {"group": "steps", "what": "it", "method": "fast", "values": {"ms": 2.5}, "note": ""}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "quick", "groups", "networks"),
    [
        ([], False, GROUPS, 300),
        (["--quick"], True, GROUPS[:-2], None),
        (["--quick", "--memory", "40"], True, [*GROUPS[:-2], "memory"], 40),
        (["--quick", "--only", "memory", "steps"], True, ["steps", "memory"], 300),
        (["--memory", "40", "--only", "memory"], False, ["memory"], 40),
    ],
)
def test_long_groups_are_measured_in_full_runs_or_on_request(measured, capsys, arguments, quick, groups, networks):
    assert benchmark.main(arguments) == 0
    assert list(measured) == groups
    assert {chosen.quick for chosen in measured.values()} == {quick}
    assert ("left out by --quick; --only memory measures it" in capsys.readouterr().out) == (networks is None)
    if networks is not None:
        assert measured["memory"].memory == networks


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(measured, tmp_path, capsys):
    missing = tmp_path / "missing"
    assert benchmark.main(["--json", str(missing / "numbers.json")]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {missing} to write numbers.json in; make it\n"
    assert not measured


class Clock:
    """Time that passes in works alone."""

    def __init__(self):
        self.now, self.called = 0.0, list[str]()
        self.others = 0.0  # cores that others use

    def preparing(self, name, seconds, preparation=0):
        def prepare():
            self.now += preparation
            left = iter(seconds)

            def work():
                self.called.append(name)
                self.now += next(left)

            return work

        return prepare


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(measuring.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(measuring, "_used_by_others", lambda: clock.others * clock.now)
    return clock


def test_works_are_called_in_turns_and_the_first_call_counts_apart(clock):
    works = {"a": clock.preparing("a", [5, 1, 4, 2], preparation=10), "b": clock.preparing("b", [1] * 4)}
    a: Any = interleave(works, Plan(rounds=3, seconds=60))["a"]
    assert clock.called == ["a", "b"] * 4
    assert (a.first, a.seconds) == (15, [1, 4, 2])


def test_a_work_is_held_against_the_medians_of_those_that_were_measured(clock):
    def refuse():
        raise NotMeasured("there is none")

    works = {"a": clock.preparing("a", [5, 1, 4, 2]), "b": refuse, "c": clock.preparing("c", [9, 4, 4, 4])}
    wanted: Any = {"group": "g", "what": "w", "units": {"c": 2}, "flops": 10**10, "tells_first": True}
    rows = list(compare(works, Plan(rounds=3, seconds=60), **wanted, times_plain="a", times_pytorch="b"))
    assert [(row.method, row.note) for row in rows] == [("a", ""), ("b", "not measured: there is none"), ("c", "")]
    assert [row.values for row in rows[::2]] == [
        {"ms": 2_000, "times_plain": 1, "gflops_per_second": 5, "first_seconds": 5},
        {"ms": 2_000, "times_plain": 1, "gflops_per_second": 5, "first_seconds": 9},
    ]


@pytest.mark.parametrize(("cost", "rounds"), [(1, range(10)), (4, (0, 2, 4, 6, 8)), (9, (0, 5)), (100, (0,))])
def test_slow_works_are_called_in_fewer_rounds_at_even_distances_and_at_least_once(clock, cost, rounds):
    works = {"slow": clock.preparing("slow", [cost] * 11), "fast": clock.preparing("fast", [0] * 11)}
    interleave(works, Plan(rounds=10, seconds=21))
    turns = [["slow", "fast"] if turn in rounds else ["fast"] for turn in range(10)]
    assert clock.called == ["slow", "fast", *itertools.chain(*turns)]


def test_what_cannot_be_measured_says_why_and_the_others_go_on(clock):
    def refuse():
        raise NotMeasured("there is none")

    def run_out():
        raise jax.errors.JaxRuntimeError("\n\n  RESOURCE_EXHAUSTED: out of memory \nwhile allocating")

    works = {"absent": refuse, "failing": lambda: refuse, "large": lambda: run_out, "fine": lambda: lambda: None}
    results: Any = interleave(works, Plan(rounds=2, seconds=1))
    assert list(results) == list(works)
    assert results["absent"] == results["failing"] == "there is none"
    assert results["large"] == "RESOURCE_EXHAUSTED: out of memory"
    assert len(results["fine"].seconds) == 2
    assert measuring.first_line(ValueError()) == "ValueError"


def test_a_rate_is_the_median_of_runs_without_the_first(clock):
    def work(run):
        clock.now += [60, 2, 1, 4][run]

    row = measuring.rate_row(work, group="calls", what="calls", method="plain", amount=8, runs=3)
    assert row.values == {"per_second": 4, "slowest": 2, "fastest": 8, "first_seconds": 60}


@pytest.mark.parametrize(("cores", "told"), [(0.05, {}), (1.5, {"others": 1.5})])
def test_what_others_use_of_the_machine_stands_beside_each_time(clock, cores, told):
    clock.others = cores
    works = {"a": clock.preparing("a", [5, 1, 4, 2], preparation=10)}
    (row,) = compare(works, Plan(rounds=3, seconds=60), group="g", what="w")
    assert row.values == pytest.approx({"ms": 2_000} | told)
    b = clock.preparing("b", [1] * 3)()
    rated = measuring.rate_row(lambda run: b(), group="g", what="w", method="m", amount=1, runs=2)
    assert rated.values == pytest.approx({"per_second": 1, "slowest": 1, "fastest": 1, "first_seconds": 1} | told)


def test_what_others_use_is_all_but_idle_time_and_this_process(monkeypatch):
    machine = {"user": 60.0, "nice": 1.0, "system": 5.0, "idle": 90.0, "iowait": 8.0, "steal": 2.0, "guest": 20.0}
    own = SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=30.0, system=3.0, children_user=7.0))
    monkeypatch.setattr(measuring.psutil, "cpu_times", lambda: SimpleNamespace(_asdict=lambda: dict(machine)))
    monkeypatch.setattr(measuring.psutil, "Process", lambda: own)
    assert measuring._used_by_others() == 60 + 1 + 5 + 2 - 30 - 3


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
    assert table([]) == ""
    assert len(set(COLUMNS.values())) == len(COLUMNS), "columns have different names"
