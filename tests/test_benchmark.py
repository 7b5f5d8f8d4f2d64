"""The command: what it measures on request, prints and writes."""

import json

import jax
import pytest

from experiments import benchmark
from experiments.benchmarks import plan
from experiments.benchmarks.measuring import Row


@pytest.fixture(autouse=True)
def _keeps_settings(monkeypatch):
    """The command turns the compilation cache of its process off; this process is that of the tests."""
    monkeypatch.setattr(benchmark.jax.config, "update", lambda name, value: None)


@pytest.fixture
def measured(monkeypatch):
    """What each group was asked for; it gives one row and takes no time."""
    plans: dict[str, plan.Plan] = {}

    def replacement(group: str):
        def measure(chosen, progress):
            progress("it")
            plans[group] = chosen
            yield Row(group=group, what="it", method="fast", values={"ms": 2.5})

        return measure

    monkeypatch.setattr(benchmark, "GROUPS", {group: replacement(group) for group in plan.GROUPS})
    return plans


def test_all_groups_are_measured_printed_and_written(measured, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    assert benchmark.main(["--json", str(path)]) == 0
    assert list(measured) == ["steps", "parts", "mimicry", "evolution", "compile", "search", "workers", "memory"]
    assert {chosen.quick for chosen in measured.values()} == {False}
    shown = capsys.readouterr()
    heading, *lines = shown.out.splitlines()
    assert f"jax: {jax.__version__}" in heading
    assert len(lines) == 2 * len(measured), "a head and a row of each group, in one table"
    assert [line.split("s  ")[1] for line in shown.err.splitlines()] == [f"{group}: it" for group in measured]
    written = json.loads(path.read_text())
    assert written.keys() == {"machine", "versions", "rows"}
    assert written["machine"].keys() == {"cpu", "cores", "device"}
    assert {"python", "jax", "flax"} <= written["versions"].keys()
    row = {"group": "steps", "what": "it", "method": "fast", "values": {"ms": 2.5}, "note": ""}
    assert written["rows"][0] == row
    assert list(tmp_path.iterdir()) == [path]


def test_groups_can_be_chosen(measured, capsys):
    assert benchmark.main(["--quick", "--only", "parts", "steps"]) == 0
    assert list(measured) == ["steps", "parts"]
    assert measured["steps"].quick


@pytest.mark.parametrize(
    ("arguments", "networks"),
    [
        ([], 300),
        (["--quick"], None),
        (["--quick", "--memory", "40"], 40),
        (["--quick", "--only", "memory"], 300),
        (["--memory", "40"], 40),
    ],
)
def test_memory_takes_long_and_is_measured_in_full_runs_or_on_request(measured, arguments, networks):
    assert benchmark.main(arguments) == 0
    assert measured["memory"].memory == networks


def test_a_quick_run_says_what_it_leaves_out():
    quick = plan.quick_plan(memory=None)
    (row,) = plan.GROUPS["memory"](quick, lambda what: None)
    assert row.note == "not measured: left out by --quick; --memory 300 measures it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "everything"], "--only"),
        (["--memory", "none"], "--memory"),
        (["--memory", "0"], "--memory"),
        (["--fast"], "--fast"),
    ],
)
def test_a_mistake_is_told_in_one_line(measured, capsys, arguments, message):
    assert benchmark.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not measured


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(measured, tmp_path, capsys):
    missing = tmp_path / "missing"
    assert benchmark.main(["--json", str(missing / "numbers.json")]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {missing} to write numbers.json in; make it\n"
    assert not measured


def test_an_interruption_ends_with_one_line(monkeypatch, tmp_path, capsys):
    def interrupted(chosen, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "GROUPS", {"steps": interrupted})
    assert benchmark.main(["--json", str(tmp_path / "numbers.json")]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
    assert not list(tmp_path.iterdir())
