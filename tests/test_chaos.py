"""Searches under kills: when they are killed, where they stand, how they are compared; and one killed for real."""

import collections
import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eigen_jax import checkpoint, lineage
from eigen_jax.architecture import Architecture, Layer, to_json
from eigen_jax.lineage import Fate, Individual, Landmark, Reference
from experiments import chaos
from experiments.chaos import DIFFERENT
from experiments.disturbance import campaign
from experiments.disturbance.command import digits_command
from experiments.disturbance.comparison import compare_individuals, first_difference
from experiments.disturbance.moments import Awaits, Moment, Moments
from experiments.disturbance.phases import Phase, phase_of, temporary_files
from experiments.disturbance.processes import Child, Process, has_proc
from experiments.disturbance.summary import Kill, describe, table
from experiments.runner import BAD_INPUT, INTERRUPTED

needs_proc = pytest.mark.skipif(not has_proc(), reason="this system has no /proc/<pid>/task/*/children")

SMALL = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=1),))
EMPTY = Architecture(input_shape=(8, 8, 1), layers=())


def make(generation: int, index: int, phase: str) -> Individual:
    return Individual(
        generation=generation,
        index=index,
        phase=phase,
        parent=Reference(generation=0, index=1),
        operators={"insert_conv": 1},
        architecture=SMALL,
        parameters=96,
        flops=4_608,
        t1=Landmark(fitness=0.5, threshold=0.25),
        t2=Landmark(fitness=0.625),
        t3=Landmark(fitness=0.75),
        test_accuracy=0.5,
        fate=Fate.SURVIVED,
        seconds_compiling=1.5,
        seconds_training=2.5,
    )


INDIVIDUALS = tuple(
    make(generation, index, phase)
    for generation, phase in enumerate(("primary", "primary", "secondary", "duplication"))
    for index in range(2)
)


def write_run(folder: Path, individuals: tuple[Individual, ...] = INDIVIDUALS) -> Path:
    """The folder of a run that ended well."""
    run, teacher = folder / "run", folder / "teacher"
    run.mkdir(parents=True)
    teacher.mkdir()
    (teacher / "teacher.json").write_text('{"ensemble": {}}')
    (run / "settings.json").write_text("{}")
    lineage.append(run / "lineage.jsonl", individuals)
    weights = {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}}
    checkpoint.save(run / "network", 0, {"variables": weights})
    (run / "network" / "genome.json").write_text(to_json(SMALL))
    result = {"test_accuracy": 0.5, "network": {"layers": 1}, "seconds": {"search": 3.0, "final": 1.0}}
    (run / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def reference(tmp_path) -> Path:
    return write_run(tmp_path / "reference")


@pytest.fixture
def other(tmp_path) -> Path:
    return write_run(tmp_path / "other")


# --- The phase that a folder shows -----------------------------------------------------------


def test_every_phase_is_told_from_the_disk(tmp_path):
    run, teacher = tmp_path / "run", tmp_path / "teacher"

    def phase() -> Phase:
        return phase_of(tmp_path, last_generation=1)

    assert phase() is Phase.START
    teacher.mkdir()
    (teacher / ".lock").touch()
    assert phase() is Phase.START
    (teacher / "teacher.json").write_text('{"members": [], "ensemble": null}')
    assert phase() is Phase.TEACHER
    (teacher / "teacher.json").write_text('{"members": [], "ensemble": {"parameters": 3}}')
    assert phase() is Phase.LOGITS
    run.mkdir()
    (run / ".lock").touch()
    assert phase() is Phase.LOGITS
    (run / "settings.json").touch()
    assert phase() is Phase.BETWEEN
    for name in ("primary", "secondary", "duplication"):
        header = {"schema_version": 1, "generation": 3, "phase": name}
        (run / "generation.jsonl").write_text(json.dumps(header) + '\n{"index": 0}\n')
        assert phase() == name
    (run / "generation.jsonl").unlink()
    (run / "lineage.jsonl").write_text('{"generation":0}\n')
    assert phase() is Phase.BETWEEN
    with open(run / "lineage.jsonl", "a") as file:
        file.write('{"generation":1}')
    assert phase() is Phase.BETWEEN  # the line has not ended
    with open(run / "lineage.jsonl", "a") as file:
        file.write("\n")
    assert phase() is Phase.FINAL
    assert phase_of(tmp_path) is Phase.BETWEEN
    (run / "final").mkdir()
    assert phase_of(tmp_path) is Phase.FINAL
    (run / "result.json").touch()
    assert phase() is Phase.ENDED


def test_temporary_files_are_those_in_the_middle_of_being_written(tmp_path):
    for name in (
        "run/checkpoints/.3.saving",
        "run/final/7/.hidden",
        "run/individuals/0/.20.deleting",
        "cache/compiled",
    ):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run/.lock", "run/lineage.jsonl.partial", "cache/x.lock", "cache/x.npy.partial", "cache/compiled/.l"):
        (tmp_path / name).touch()
    (tmp_path / "run/final/7/manifest.json").touch()
    found = {str(path.relative_to(tmp_path)) for path, _ in temporary_files(tmp_path / "run", tmp_path / "cache")}
    assert found == {
        "run/checkpoints/.3.saving",
        "run/individuals/0/.20.deleting",
        "run/lineage.jsonl.partial",
        "cache/x.npy.partial",
    }
    assert temporary_files(tmp_path / "nowhere") == frozenset()


def test_a_temporary_file_that_was_there_before_is_told_from_one_that_is_written_again(tmp_path):
    (tmp_path / "settings.json.partial").touch()
    before = temporary_files(tmp_path)
    assert temporary_files(tmp_path) - before == frozenset()
    time.sleep(0.02)  # longer than the ticks of the file system's clock
    (tmp_path / "settings.json.partial").write_text("{")
    assert len(temporary_files(tmp_path) - before) == 1


# --- The comparison --------------------------------------------------------------------------


def test_equal_runs_have_no_difference(reference, other):
    assert first_difference(reference, other) is None


CHANGES: dict[str, Any] = {
    "generation": 9,
    "phase": "tertiary",
    "index": 9,
    "parent": Reference(generation=0, index=0),
    "operators": {"insert_conv": 2},
    "repeats": (1, 2),
    "architecture": EMPTY,
    "parameters": 97,
    "flops": 4_609,
    "t1": Landmark(fitness=0.5, threshold=0.2500001),
    "t2": Landmark(fitness=0.6250001),
    "t3": Landmark(),
    "test_accuracy": None,
    "fate": Fate.PARENT,
    "cause": "diverged",
    "same_as": Reference(generation=0, index=0),
}
TIMES = ("seconds_compiling", "seconds_training")


def test_the_changes_below_are_of_every_field_but_times():
    assert {*CHANGES, *TIMES} == {field.name for field in dataclasses.fields(Individual)}


@pytest.mark.parametrize("field", CHANGES)
def test_a_difference_in_any_field_is_named(field):
    together: dict[str, dict[str, Any]] = {"repeats": {"operators": None}, "cause": {"fate": Fate.FAILED}}
    needed = together.get(field, {})
    before = dataclasses.replace(INDIVIDUALS[5], **{name: value for name, value in needed.items() if name != "fate"})
    changed = dataclasses.replace(before, **{**needed, field: CHANGES[field]})
    expected = (*INDIVIDUALS[:5], before, *INDIVIDUALS[6:])
    found = (*INDIVIDUALS[:5], changed, *INDIVIDUALS[6:])
    lines = list(compare_individuals(expected, found))
    assert any(line.startswith(f"individual 2.1: {field} is ") for line in lines)
    assert all(line.startswith("individual 2.1: ") for line in lines)


def test_times_are_no_difference():
    later = tuple(dataclasses.replace(each, seconds_compiling=99.0, seconds_training=99.0) for each in INDIVIDUALS)
    assert list(compare_individuals(INDIVIDUALS, later)) == []


@pytest.mark.parametrize("count", [6, 7])
def test_an_individual_too_few_or_too_many_is_a_difference(count):
    assert list(compare_individuals(INDIVIDUALS, INDIVIDUALS[:count])) == [
        f"the lineage has {count} individuals, and 8 in the uninterrupted run"
    ]
    assert list(compare_individuals(INDIVIDUALS[:count], INDIVIDUALS)) == [
        f"the lineage has 8 individuals, and {count} in the uninterrupted run"
    ]


def test_a_result_differs_in_anything_but_seconds(reference, other):
    path = other / "run" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "seconds": {"search": 99.0}}))
    assert first_difference(reference, other) is None
    path.write_text(json.dumps({**result, "network": {"layers": 2}}))
    assert first_difference(reference, other) == "result.json: network.layers is 2, and 1 in the uninterrupted run"
    path.write_text(json.dumps({**result, "more": "x" * 100}))
    difference = first_difference(reference, other)
    assert difference == f"result.json: more is {'x' * 57}..., and None in the uninterrupted run"


@pytest.mark.parametrize("place", [("kernel", (1, 2)), ("bias", (0,))])
def test_weights_differ_in_their_last_bit(reference, other, place):
    name, index = place
    weights = {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}}
    weights["params"][name][index] = np.nextafter(weights["params"][name][index], np.float32(9))
    checkpoint.save(other / "run" / "network", 1, {"variables": weights})
    assert first_difference(reference, other) == (
        f"the weights params/{name} of the network found are not those of the uninterrupted run"
    )


def test_a_network_of_another_architecture_is_a_difference(reference, other):
    (other / "run" / "network" / "genome.json").write_text(to_json(EMPTY))
    assert first_difference(reference, other) == (
        "the network found has another architecture than that of the uninterrupted run"
    )


@pytest.mark.parametrize(
    "name",
    [
        "run/individuals",
        "run/generation.jsonl",
        "run/settings.json.partial",
        "run/network/.0.saving",
        "run/final/.4.deleting",
        "teacher/teacher.json.partial",
        "teacher/member-0",
    ],
)
def test_what_is_left_behind_is_a_difference(reference, other, name):
    (other / name).mkdir(parents=True)
    (reference / "run" / "final").mkdir()
    assert first_difference(reference, other) == f"{other / name} was left behind"


def test_a_damaged_run_is_a_difference_and_no_crash(reference, other):
    (other / "run" / "lineage.jsonl").write_text("nothing\n")
    difference = first_difference(reference, other)
    assert difference is not None
    assert "line 1: the line is not JSON" in difference
    (other / "run" / "lineage.jsonl").unlink()
    difference = first_difference(reference, other)
    assert difference is not None
    assert "cannot read" in difference


# --- The moments -----------------------------------------------------------------------------


def draw(seed: int, count: int = 500, *, kills: int | None = None) -> list[Moment]:
    moments = Moments(seed, start_seconds=5.0, run_seconds=25.0)
    return [moments.draw(number % 12 if kills is None else kills) for number in range(count)]


def test_moments_are_a_function_of_the_seed():
    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_moments_reach_short_and_long_times_and_wait_for_all_that_there_is():
    counted = collections.Counter(moment.awaits for moment in draw(0))
    assert min(counted[kind] for kind in Awaits) > 50
    delays = sorted(moment.delay for moment in draw(0) if moment.awaits is Awaits.NOTHING)
    assert delays[0] < 1 < 5 < delays[len(delays) // 2] < 10 < delays[-1]
    assert sum(delay < 5 for delay in delays) > 30
    assert all(moment.delay >= 5 for moment in draw(0) if moment.awaits is Awaits.WRITING)


def test_a_run_begins_with_a_moment_in_its_start_more_often_than_it_goes_on_with_one():
    def share(kills: int) -> float:
        at_once = [Moments(seed, start_seconds=5.0, run_seconds=25.0).draw(kills) for seed in range(400)]
        return sum(each.awaits is Awaits.NOTHING and each.delay < 5 for each in at_once) / 400

    assert 0.4 < share(0) < 0.6
    assert 0.08 < share(1) < 0.25


def test_no_two_moments_in_a_row_come_within_a_start():
    at_once = [moment.awaits is Awaits.NOTHING and moment.delay < 5 for moment in draw(1, kills=0)]
    assert sum(at_once) > 100
    assert not any(one and two for one, two in itertools.pairwise(at_once))


def test_moments_come_later_the_more_often_a_run_was_killed():
    def mean(kills: int) -> float:
        return float(np.mean([moment.delay - 5 for moment in draw(2, kills=kills) if moment.awaits is Awaits.WRITING]))

    assert 2.5 < mean(0) < 4.5  # a sixth of the work, 3.3 s
    assert mean(40) > 4 * mean(0)


# --- The table -------------------------------------------------------------------------------


def test_the_table_counts_kills_by_phase_and_while_a_file_was_written():
    kills = [
        Kill(run=1, phase=Phase.START, seconds=0.5, written=()),
        Kill(run=1, phase=Phase.PRIMARY, seconds=7.25, written=(Path("run/checkpoints/.1.saving"),)),
        Kill(run=2, phase=Phase.PRIMARY, seconds=8.0, written=()),
    ]
    rows = [line.rsplit(maxsplit=2) for line in table(kills).split("\n")[1:]]
    assert rows == [
        ["start-up, data", "1", "0"],
        ["teacher", "0", "0"],
        ["teacher's logits", "0", "0"],
        ["between generations", "0", "0"],
        ["primary", "2", "1"],
        ["secondary", "0", "0"],
        ["duplication", "0", "0"],
        ["final training", "0", "0"],
        ["after the result", "0", "0"],
        ["all", "3", "1"],
    ]
    assert describe(kills[1], 2) == "kill   2  run 1      7.2 s  primary, while .1.saving was written"


# --- Processes -------------------------------------------------------------------------------

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@needs_proc
def test_a_child_knows_its_descendants_and_whether_they_live(tmp_path):
    script = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(60)"
    child = Child([sys.executable, "-c", script, *SLEEP], cwd=tmp_path, output=tmp_path / "output")
    try:
        assert child.runs_until(lambda: bool(child.descendants()), 20)
        (worker,) = child.workers()
        assert worker in child.descendants()
        assert worker.is_alive
        assert worker.kill()
        assert child.runs_until(lambda: not worker.is_alive, 20)
        assert not worker.is_alive  # a zombie, which its parent has not asked about
        assert not worker.kill()
    finally:
        assert child.kill()
    assert child.exit_code == -signal.SIGKILL


@needs_proc
def test_only_the_workers_of_ray_are_killed_where_there_is_ray(tmp_path):
    script = (
        "import subprocess, sys, time\n"
        "names = ('raylet', 'ray::IDLE', 'ray::Worker.run')\n"
        "for name in names: subprocess.Popen([name, *sys.argv[2:]], executable=sys.argv[1])\n"
        "time.sleep(60)"
    )
    child = Child([sys.executable, "-c", script, *SLEEP], cwd=tmp_path, output=tmp_path / "output")
    processes: tuple[Process, ...] = ()
    try:
        assert child.runs_until(lambda: len(named(child)) == 2 and len(child.descendants()) == 3, 20)
        processes = child.descendants()
        assert len(processes) == 3
        assert [worker.command.split()[0] for worker in child.workers()] == ["ray::Worker.run"]
    finally:
        child.kill()
        for process in processes:
            process.kill()


def named(child: Child) -> list[str]:
    return [process.command for process in child.descendants() if process.command.startswith("ray::")]


def test_a_child_that_ends_by_itself_is_not_killed(tmp_path):
    child = Child([sys.executable, "-c", "print('hello'); raise SystemExit(3)"], cwd=tmp_path, output=tmp_path / "out")
    assert not child.sleeps(60)
    assert not child.runs_until(lambda: True, 60)
    assert not child.kill()
    assert child.exit_code == 3
    assert (tmp_path / "out").read_text() == "hello\n"


# --- The whole of it, with a command that only looks like a search ---------------------------

# Goes through all phases of a run in a second, and goes on after a kill. `mode` makes it go wrong.
FAKE = """
import json, os, shutil, subprocess, sys, time
from pathlib import Path

folder, cache, whole, mode = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) / "run", sys.argv[4]
run, teacher = folder / "run", folder / "teacher"
again = (folder / "begun").exists()
(folder / "begun").touch()


def write(path, text):
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    time.sleep(0.01)
    partial.rename(path)


def work(seconds=0.05):
    if mode != "workers":
        return time.sleep(seconds)
    while (worker := subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(0.15)"])).wait():
        pass


if mode == "failing" and again:
    sys.exit("error: the folder is gone")
time.sleep(0.05)
teacher.mkdir(exist_ok=True)
if not (teacher / "teacher.json").exists():
    write(teacher / "teacher.json", '{"ensemble": null}')
if json.loads((teacher / "teacher.json").read_text())["ensemble"] is None:
    work()
    write(teacher / "teacher.json", '{"ensemble": {}}')
(cache / "logits").mkdir(parents=True, exist_ok=True)
if not (cache / "logits" / "x.npy").exists():
    work()
    write(cache / "logits" / "x.npy", "x")
run.mkdir(exist_ok=True)
write(run / "settings.json", "{}")
if mode == "orphan":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=True)
altered = mode == "forgetful" and again
lines = (whole / ("altered.jsonl" if altered else "lineage.jsonl")).read_text().splitlines(True)
done = (run / "lineage.jsonl").read_text() if (run / "lineage.jsonl").exists() else ""
for generation, name in enumerate(("primary", "primary", "secondary", "duplication")):
    if f'"generation":{generation},' not in done:
        write(run / "generation.jsonl", json.dumps({"generation": generation, "phase": name}) + "\\n")
        (run / "individuals").mkdir(exist_ok=True)
        work()
        done += "".join(lines[2 * generation : 2 * generation + 2])
        write(run / "lineage.jsonl", done)
    shutil.rmtree(run / "individuals", ignore_errors=True)
    (run / "generation.jsonl").unlink(missing_ok=True)
(run / "final").mkdir(exist_ok=True)
work()
if mode == "dirty" and again:
    (run / "final" / ".200.deleting").mkdir(exist_ok=True)
if not (run / "network").exists():
    shutil.rmtree(run / "network.partial", ignore_errors=True)
    shutil.copytree(whole / "network", run / "network.partial")
    (run / "network.partial").rename(run / "network")
write(run / "result.json", (whole / "result.json").read_text())
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Gives a command that only looks like a search, for a mode."""
    script, whole = tmp_path / "fake.py", write_run(tmp_path / "whole")
    script.write_text(FAKE)
    altered = [dataclasses.replace(each, t3=Landmark(fitness=0.7)) for each in INDIVIDUALS]
    lineage.append(whole / "run" / "altered.jsonl", altered)
    monkeypatch.setattr(campaign, "_LINGER", 0.2)

    def of_mode(mode: str):
        def command(folder: Path, cache: Path, *, executor: str, workers: int) -> list[str]:
            return [sys.executable, "-S", str(script), str(folder), str(cache), str(whole), mode]

        return command

    return of_mode


def test_runs_that_go_on_as_they_should_are_equal(capsys, tmp_path, fake):
    folder = tmp_path / "chaos"
    assert chaos.main(["--kills", "8", "--folder", str(folder)], search=fake("well")) == 0
    shown = capsys.readouterr().out
    lines = shown.split("\n")
    kills = [line for line in lines if line.startswith("kill ")]
    runs = sum(line.endswith("ended by itself, equal to the uninterrupted one") for line in lines)
    assert len(kills) == 8
    assert any("was written" in line for line in kills)
    assert f"{runs} of {runs} lineages equal, and so are the results and the networks" in lines
    (total,) = [line.split() for line in lines if line.startswith("all ")]
    assert total[1] == str(len(kills))
    assert lines[0].startswith("cpu: ")
    assert "jax: " in lines[0]
    assert {path.name for path in folder.iterdir()} == {
        "first",
        "reference",
        "cache",
        *(f"run-{number + 1}" for number in range(runs)),
    }


def test_a_temporary_folder_is_removed_when_all_is_well_and_kept_when_not(capsys, tmp_path, fake, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert chaos.main(["--kills", "1"], search=fake("well")) == 0
    assert list((tmp_path / "temporary").iterdir()) == []
    assert chaos.main(["--kills", "1"], search=fake("failing")) == DIFFERENT
    (kept,) = (tmp_path / "temporary").iterdir()
    assert capsys.readouterr().err == (
        f"different: run 1 ended with code 1 and said: error: the folder is gone; the folders are kept in {kept}\n"
    )


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("forgetful", "t3 is Landmark(fitness=0.7, threshold=None), and Landmark(fitness=0.75"),
        ("dirty", "run/final/.200.deleting was left behind"),
        pytest.param("orphan", "(", marks=needs_proc),
    ],
)
def test_a_run_that_comes_out_otherwise_is_named(capsys, tmp_path, fake, mode, said):
    folder = tmp_path / "chaos"
    assert chaos.main(["--kills", "30", "--folder", str(folder)], search=fake(mode)) == DIFFERENT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("different: run ")
    assert said in error
    assert ("outlived its driver" in error) == (mode == "orphan")


@needs_proc
def test_workers_are_killed_and_the_run_goes_on_by_itself(capsys, tmp_path, fake):
    argv = ["--kills", "4", "--folder", str(tmp_path / "chaos"), "--victim", "worker"]
    assert chaos.main(argv, search=fake("workers")) == 0
    lines = capsys.readouterr().out.split("\n")
    assert sum(line.startswith("kill ") for line in lines) == 4
    for run in (tmp_path / "chaos").glob("run-*"):
        assert (run / "output.txt").read_text() == ""


def test_ctrl_c_ends_the_child_with_a_line(capsys, tmp_path, fake):
    folder = tmp_path / "chaos"
    seen = []

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (folder / "first" / "begun").exists():
            time.sleep(0.01)
        seen.append(running(folder))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = chaos.main(["--folder", str(folder)], search=fake("well"))
    thread.join()
    assert code == INTERRUPTED
    assert capsys.readouterr().err == f"interrupted; the folders are kept in {folder}\n"
    assert seen == [1]
    assert running(folder) == 0


def running(folder: Path) -> int:
    """How many processes have a folder on their command line."""
    listed = subprocess.run(
        ["ps", "-ewwo", "stat,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return sum(str(folder) in line and not line.startswith("Z") for line in listed)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--kills", "0"], "--kills: is '0'; it must be a whole number of at least 1; --help explains every setting"),
        (["--victim", "worker", "--executor", "inline"], "--victim is worker, and --executor inline has none;"),
        (["--executor", "slurm"], "--executor: invalid choice: 'slurm'"),
        (["--folder", "FULL"], "which is not empty; choose a new one"),
        (["--folder", "FULL/file/chaos"], "which cannot be used: Not a directory; choose another"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tmp_path, argv, line):
    (tmp_path / "file").touch()
    argv = [word.replace("FULL", str(tmp_path)) for word in argv]
    assert chaos.main(argv) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert line in error


# --- A search that is killed for real --------------------------------------------------------

TINY = (
    *("--preset", "smoke", "--population", "2", "--p", "2", "--capacity", "4", "--seed", "25", "--decay-steps"),
    *("--t1", "8", "--t2", "8", "--t3", "8", "--final-steps", "4", "--eval-batch-size", "360"),
    *("--primary-steps", "2", "--secondary-steps", "2", "--channels", "4", "8", "--max-duplication-generations", "0"),
    *("--max-primary-generations", "1", "--max-secondary-generations", "0"),
    *("--teacher-growth", "4", "--teacher-epochs", "1", "--teacher-batch-size", "400", "--teacher-views", "center"),
)


def test_a_search_that_is_killed_again_and_again_comes_out_as_one_that_is_not(capsys, monkeypatch, tmp_path):
    # Compiling is most of what these processes do, and how well is of no matter here.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    search = functools.partial(digits_command, settings=TINY)
    code = chaos.main(["--kills", "2", "--seed", "4", "--folder", str(tmp_path / "chaos")], search=search)
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    (total,) = [line.split() for line in shown.out.split("\n") if line.startswith("all ")]
    assert total[1] == "2"
