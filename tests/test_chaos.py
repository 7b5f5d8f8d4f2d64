"""Searches under disturbances: when they come, where they stand, how they are compared; and one killed for real."""

import dataclasses
import functools
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands_data import SEARCH
from report_data import individual, reached

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, Layer, to_json
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.store import checkpoint
from experiments.chaos import __main__ as chaos
from experiments.chaos import campaign
from experiments.chaos.__main__ import DIFFERENT, digits_command, table
from experiments.chaos.campaign import Disturbance
from experiments.chaos.folders import (
    Phase,
    compare_individuals,
    first_difference,
    phase_of,
    phases_of,
    temporary_files,
)
from experiments.chaos.processes import Child, Process, has_proc
from experiments.commands import BAD_INPUT, INTERRUPTED

needs_proc = pytest.mark.skipif(not has_proc(), reason="this system has no /proc/<pid>/task/*/children")

SMALL = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=1),))
EMPTY = Architecture(input_shape=(8, 8, 1), layers=())
TIMES = {"latency": 1e-3, "batch_latency": 1e-2}
LANDMARKS = reached(0.5, 0.75, thresholds=(0.25,), **TIMES)
INDIVIDUALS = tuple(
    individual(generation, index, "primary", 0.75, landmarks=LANDMARKS, architecture=SMALL)
    for generation in range(4)
    for index in range(2)
)


def weights() -> dict[str, np.ndarray]:
    return {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}


def result(**changes) -> str:
    """The text of a file of results."""
    return json.dumps({"test_accuracy": 0.5, "network": {"layers": 1}, "seconds": {"search": 3.0}, **changes})


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """The folder of a run that ended well."""
    folder = tmp_path_factory.mktemp("reference")
    run = folder / "run"
    for part in (run, folder / "teacher"):
        part.mkdir()
    (folder / "teacher" / "teacher.json").write_text('{"ensemble": {}}')
    (run / "settings.json").write_text("{}")
    lineage.append(run / "lineage.jsonl", INDIVIDUALS)
    checkpoint.save(run / "network", 0, {"variables": {"params": weights()}})
    (run / "network" / "genome.json").write_text(to_json(SMALL))
    (run / "result.json").write_text(result())
    return folder


def test_every_phase_is_told_from_the_disk(tmp_path):
    for name, text, phase in (
        ("teacher/.lock", "", Phase.START),
        ("teacher/teacher.json", '{"members": [], "ensemble": null}', Phase.TEACHER),
        ("teacher/teacher.json", '{"members": [], "ensemble": {"parameters": 3}}', Phase.LOGITS),
        ("run/settings.json", "", Phase.BETWEEN),
        ("run/individuals/0-0/.lock", "", Phase.PRIMARY),
        ("run/generation.jsonl", '{"schema_version": 2}\n{"landmark": 0}\n', Phase.PRIMARY),
        ("run/individuals/1-1/.lock", "", Phase.PRIMARY),
        ("run/individuals/2-10/.lock", "", Phase.SECONDARY),
        ("run/individuals/3-0/.lock", "", Phase.DUPLICATION),
        ("run/individuals", None, Phase.BETWEEN),
        ("run/lineage.jsonl", '{"generation":2}\n', Phase.BETWEEN),
        ("run/lineage.jsonl", '{"generation":2}\n{"generation":3}', Phase.BETWEEN),  # the line has not ended
        ("run/lineage.jsonl", '{"generation":2}\n{"generation":3}\n', Phase.FINAL),
        ("run/result.json", "", Phase.ENDED),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        if text is None:
            shutil.rmtree(tmp_path / name)
        else:
            (tmp_path / name).write_text(text)
        phases = ("primary", "primary", "secondary", "duplication")
        assert phase_of(tmp_path, phases=phases) is phase, (name, text)


def test_the_phases_of_the_generations_are_those_of_the_record(reference):
    assert phases_of(reference) == ("primary",) * 4


def test_a_file_is_being_written_where_it_changed_since(tmp_path):
    for name in ("old.partial", "new.partial"):
        (tmp_path / name).touch()
    before = temporary_files(tmp_path, tmp_path / "nowhere")
    time.sleep(0.02)  # longer than the ticks of the file system's clock
    (tmp_path / "new.partial").write_text("{")
    assert [path.name for path, _ in temporary_files(tmp_path) - before] == ["new.partial"]


OTHERS: dict[str, Any] = {
    **dict.fromkeys(("generation", "index", "parameters", "flops", "training_flops"), 7),
    **dict.fromkeys(("phase", "cause"), "another"),
    **dict.fromkeys(("seconds_compiling", "seconds_training", "test_accuracy"), 0.125),
    "parents": (Reference(generation=0, index=1),),
    "operators": {"insert_conv": 1},
    "repeats": (1, 2),
    "architecture": EMPTY,
    "training": {"learning_rate": 0.5},
    "identities": (1,),
    "landmarks": reached(0.5, 0.75, thresholds=(0.25,), **TIMES, loss=7.0),
    "fate": Fate.PARENT,
    "same_as": Reference(generation=0, index=1),
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Individual)])
def test_a_difference_in_any_field_but_times_is_named(field):
    failed: dict[str, Any] = {"fate": Fate.FAILED, "cause": "one"} if field == "cause" else {}
    expected = (*INDIVIDUALS[:5], dataclasses.replace(INDIVIDUALS[5], **failed), *INDIVIDUALS[6:])
    changed = dataclasses.replace(expected[5], **{field: OTHERS[field]})
    lines = list(compare_individuals(expected, (*expected[:5], changed, *expected[6:])))
    named = [] if field in ("seconds_compiling", "seconds_training") else [f"individual 2.1: {field}"]
    assert [line.partition(" is ")[0] for line in lines] == named


def test_a_difference_in_latencies_is_none():
    others = [dataclasses.replace(each, landmarks=reached(0.5, 0.75, thresholds=(0.25,))) for each in INDIVIDUALS]
    assert others[0] != INDIVIDUALS[0]
    assert not list(compare_individuals(INDIVIDUALS, tuple(others)))


def test_an_individual_too_few_or_too_many_is_a_difference():
    for wanted, got in ((8, 7), (7, 8)):
        said = f"the lineage has {got} individuals, and {wanted} in the uninterrupted run"
        assert list(compare_individuals(INDIVIDUALS[:wanted], INDIVIDUALS[:got])) == [said]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run/result.json", result(seconds={"search": 99.0}), None),
        (
            "run/result.json",
            result(network={"layers": 2}),
            "result.json: network is {'layers': 2}, and {'layers': 1}",
        ),
        ("run/result.json", result(more="x" * 100), f"result.json: more is '{'x' * 24}...', and None in the uninterru"),
        ("run/network/genome.json", to_json(EMPTY), "the network found has another architecture than that of"),
        ("run/lineage.jsonl", "nothing\n", "line 1: the line is damaged"),
        ("run/individuals", "", "run/individuals was left behind"),
        ("run/network/.0.saving", "", "run/network/.0.saving was left behind"),
        ("teacher/t.json.partial", "", "teacher/t.json.partial was left behind"),
    ],
)
def test_runs_differ_in_anything_but_seconds(reference, tmp_path, name, text, said):
    other = shutil.copytree(reference, tmp_path / "other")
    (other / name).write_text(text)
    difference = first_difference(reference, other)
    assert difference is None if said is None else said in str(difference)


@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_weights_differ_in_their_last_bit(reference, tmp_path, name):
    other, changed = shutil.copytree(reference, tmp_path / "other"), weights()
    changed[name][..., -1:] = np.nextafter(changed[name][..., -1:], np.float32(9))
    checkpoint.save(other / "run" / "network", 1, {"variables": {"params": changed}})
    said = f"the weights params/{name} of the network found are not those of the uninterrupted run"
    assert first_difference(reference, other) == said


def test_the_table_counts_kills_by_phase_and_while_a_file_was_written():
    written = Path("run/checkpoints/.1.saving")
    kills = [Disturbance(run=1, phase=Phase.PRIMARY, seconds=7.25, written=each) for each in ((written,), ())]
    rows = [line.rsplit(maxsplit=2) for line in table(kills, "kill").split("\n")[1:]]
    assert [name for name, *_ in rows] == [*Phase, "all"]
    assert [row for row in rows if row[1:] != ["0", "0"]] == [["primary", "2", "1"], ["all", "2", "1"]]
    assert kills[0].describe(2, "kill") == "kill   2  run 1      7.2 s  primary, while .1.saving was written"


def test_only_workers_are_killed_where_there_is_ray(monkeypatch, tmp_path):
    commands = ["/ray/gcs_server --port 0", "/ray/raylet/raylet", "ray::IDLE", "ray::Worker.run"]
    processes = tuple(Process(pid=1_000 + each, started=0, command=name) for each, name in enumerate(commands))
    monkeypatch.setattr(Child, "descendants", lambda _: processes)
    child = Child([sys.executable, "-c", "raise SystemExit(3)"], cwd=tmp_path, output=tmp_path / "output")
    assert [worker.command for worker in child.workers()] == ["ray::Worker.run"]
    assert not child.runs(60)
    assert not child.end()
    assert child.returncode == 3


# Is done in half a second, and goes on after a kill. `mode` makes it go wrong.
FAKE = """
import os, shutil, signal, subprocess, sys, time
from pathlib import Path

folder, whole, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
run, teacher, again = folder / "run", folder / "teacher", (folder / "begun").exists()
(folder / "begun").write_text(str(os.getpid()))
if mode in ("saving", "deaf"):
    # The terminal is dead by then, which a print would meet.
    signal.signal(signal.SIGHUP, lambda *_: os._exit(129 if mode == "saving" else 1))
if mode == "failing" and again:
    sys.exit("error: the folder is gone")

def write(path, text):
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    time.sleep(0.03)
    partial.rename(path)

def work():
    if mode != "workers":
        return time.sleep(0.05)
    while subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(0.15)"]).wait():
        pass

time.sleep(0.05)
write(teacher / "teacher.json", '{"ensemble": {}}')
write(run / "settings.json", "{}")
if mode == "orphan":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=True)
lines = (whole / "lineage.jsonl").read_text().splitlines(True)
done = (run / "lineage.jsonl").read_text().splitlines(True) if (run / "lineage.jsonl").exists() else []
while len(done) < len(lines):
    work()
    done += lines[len(done) : len(done) + 2]
    write(run / "lineage.jsonl", "".join(done))
if not (run / "network").exists():
    shutil.copytree(whole / "network", run / "network.partial", dirs_exist_ok=True)
    (run / "network.partial").rename(run / "network")
result = (whole / "result.json").read_text()
write(run / "result.json", result.replace("0.5", "0.75") if mode == "forgetful" and again else result)
"""


@pytest.fixture
def fake(reference, monkeypatch):
    """Gives a command that only looks like a search, for a mode."""
    monkeypatch.setattr(campaign, "_LINGER", 0.2)
    python, whole = [sys.executable, "-S", "-c", FAKE], str(reference / "run")
    return lambda mode: lambda folder, cache, **_: [*python, str(folder), whole, mode]


def total_of(shown: str) -> str:
    """The number of kills that the table gives."""
    (total,) = [line.split()[1] for line in shown.split("\n") if line.startswith("all ")]
    return total


def test_runs_that_go_on_as_they_should_are_equal_and_temporary_ones_are_removed(capsys, tmp_path, fake, monkeypatch):
    folder = tmp_path / "chaos"
    assert chaos.main(["--kills", "8", "--folder", str(folder)], search=fake("well")) == 0
    shown = capsys.readouterr().out
    runs = shown.count("ended by itself, equal to the uninterrupted one")
    assert (shown.count("\nkill "), total_of(shown)) == (8, "8")
    assert re.search(r"kill .*was written", shown)
    assert f"\n{runs} of {runs} lineages equal, and so are the results and the networks" in shown
    assert {path.name for path in folder.iterdir()} == {"first", "reference"} | {f"run-{1 + n}" for n in range(runs)}
    shutil.rmtree(folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert chaos.main(["--kills", "1"], search=fake("well")) == 0
    assert list(tmp_path.iterdir()) == []


@needs_proc
def test_workers_are_killed_and_the_run_goes_on_by_itself(capsys, tmp_path, fake):
    argv = ["--kills", "4", "--folder", str(tmp_path / "chaos"), "--victim", "worker"]
    assert chaos.main(argv, search=fake("workers")) == 0
    assert capsys.readouterr().out.count("\nkill ") == 4
    assert {run.read_text() for run in (tmp_path / "chaos").glob("run-*/output.txt")} == {""}


def test_a_run_that_is_stopped_goes_on_in_the_same_process(capsys, tmp_path, fake, monkeypatch):
    monkeypatch.setattr(campaign, "_STOPS", (0.01, 0.1))
    argv = ["--kills", "4", "--folder", str(tmp_path / "chaos"), "--disturbance", "stop"]
    assert chaos.main(argv, search=fake("failing")) == 0  # which a second process would
    shown = capsys.readouterr().out
    assert (shown.count("\nstop "), total_of(shown)) == (4, "4")


@needs_proc
@pytest.mark.parametrize("mode", ["well", "saving"])
def test_a_run_whose_terminal_is_closed_ends_and_goes_on_on_another(capsys, tmp_path, fake, mode):
    argv = ["--kills", "4", "--folder", str(tmp_path / "chaos"), "--disturbance", "terminal"]
    assert chaos.main(argv, search=fake(mode)) == 0
    assert total_of(capsys.readouterr().out) == "4"


@needs_proc
def test_what_is_on_a_terminal_is_that_terminals_own_and_what_it_prints_is_kept(tmp_path):
    program = "import os, sys; print(os.ttyname(2), sys.stdout.isatty()); open('/dev/tty').close(); print('end')"
    child = Child([sys.executable, "-c", program], cwd=tmp_path, output=tmp_path / "output", on_terminal=True)
    child.wait()
    child.end()
    assert child.returncode == 0
    assert re.fullmatch(rb"/dev/\S+ True\r\nend\r\n", (tmp_path / "output").read_bytes())


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("failing", "run 1 ended with code 1 and said: error: the folder is gone"),
        ("forgetful", "result.json: test_accuracy is 0.75, and 0.5 in the uninterrupted run"),
        pytest.param("orphan", "outlived its driver", marks=needs_proc),
    ],
)
def test_a_run_that_comes_out_otherwise_is_named_and_its_folder_kept(capsys, tmp_path, fake, monkeypatch, mode, said):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert chaos.main(["--kills", "30"], search=fake(mode)) == DIFFERENT
    (kept,) = tmp_path.iterdir()
    line = capsys.readouterr().err
    assert re.fullmatch(rf"different: .*{re.escape(said)}.*; the folders are kept in {kept}\n", line)


@needs_proc
def test_a_run_that_does_not_save_when_its_terminal_is_closed_is_named(capsys, tmp_path, fake):
    argv = ["--kills", "30", "--folder", str(tmp_path / "chaos"), "--disturbance", "terminal"]
    assert chaos.main(argv, search=fake("deaf")) == DIFFERENT
    assert re.search(r"^different: run \d+ ended with code 1 when its terminal was closed; ", capsys.readouterr().err)


def test_ctrl_c_ends_the_child_with_a_line(capsys, tmp_path, fake, monkeypatch):
    children: list[Child] = []

    def interrupted(child, *_, **__):
        children.append(child)
        raise KeyboardInterrupt

    monkeypatch.setattr(Child, "runs", interrupted)
    assert chaos.main(["--folder", str(tmp_path / "chaos")], search=fake("well")) == INTERRUPTED
    assert capsys.readouterr().err == f"interrupted; the folders are kept in {tmp_path / 'chaos'}\n"
    assert [child.returncode for child in children] == [-signal.SIGKILL]


def test_a_folder_that_is_not_empty_and_workers_that_there_are_not_are_refused(capsys, tmp_path):
    (tmp_path / "file").touch()
    used, inline = ["--folder", str(tmp_path)], ["--victim", "worker", "--executor", "inline"]
    stop = ["--victim", "worker", "--disturbance", "stop"]
    for argv, said in (
        (used, "is not empty; choose a new one"),
        (inline, "--executor inline has none; choose"),
        (stop, "--disturbance is stop, which is done to whole runs; leave out --victim"),
    ):
        assert chaos.main(argv) == BAD_INPUT
        assert said in capsys.readouterr().err


TINY = (
    *(*SEARCH, "--seed", "25", "--max-duplication-generations", "0", "--teacher-growth", "4"),
    *("--teacher-epochs", "1", "--teacher-batch-size", "400", "--teacher-views", "center"),
)


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_comes_out_as_one_that_is_not(capsys, monkeypatch, tmp_path):
    # Compiling is most of what these processes do, and how well is of no matter here.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    search = functools.partial(digits_command, settings=TINY)
    folder = tmp_path / "-50% #[1]" / "'a' \"b\" back\\slash ü 日本"
    code = chaos.main(["--kills", "2", "--seed", "4", f"--folder={folder}"], search=search)
    shown = capsys.readouterr()
    assert (code, shown.err, total_of(shown.out)) == (0, "", "2")
