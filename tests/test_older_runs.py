"""Run folders, teachers and records of earlier versions are read, evaluated and continued."""

import shutil
import tarfile
from pathlib import Path

import pytest
from commands_data import contents, leave_process_alone, refused

from eigen_jax import lineage
from eigen_jax.lineage import Individual, without_times
from eigen_jax.networks import count_layers
from eigen_jax.search import load_network
from eigen_jax.teacher import read_teacher
from experiments import draw, evaluate
from experiments.runner import main

own_settings = pytest.fixture(leave_process_alone, autouse=True)

RUNS = Path(__file__).parent / "older_runs" / "runs.tar.xz"

# What they were started with.
SIZES = ("--preset", "smoke", "--channels", "4", "8", "--population", "2", "--p", "1", "--capacity", "8")
SCHEDULE = ("--t1", "4", "--t2", "4", "--t3", "4", "--decay-steps", "6", "9", "--final-steps", "8")
SEARCH = (*SIZES, *SCHEDULE, "--primary-steps", "8", "--teacher-growth", "2", "--teacher-epochs", "1")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The runs, to be changed."""
    with tarfile.open(RUNS) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def timeless(folder: Path) -> list[Individual]:
    return [without_times(individual) for individual in lineage.read(folder / "search" / "lineage.jsonl")]


def continued(folder: Path, *argv: str) -> int:
    places = [f"--{name}={folder / place}" for name, place in (("run-dir", "search"), ("teacher-dir", "teacher"))]
    cache = folder.parent / "cache"
    return main("digits", [*SEARCH, "--executor", "inline", f"--cache-dir={cache}", *places, *argv])


@pytest.mark.parametrize("age", ["", "oldest-"])
def test_a_finished_run_is_read_and_evaluated(runs, age, capsys):
    run = runs / f"{age}finished" / "search"
    assert [individual.generation for individual in lineage.read(run / "lineage.jsonl")] == [0, 0, 1, 1, 2, 2, 3, 3]
    architecture, _ = load_network(run)
    assert count_layers(architecture) == 3
    before = contents(run)
    assert evaluate.main([str(run), f"--cache-dir={runs / 'cache'}"]) == 0
    assert "test accuracy        12.2 % of 360 images" in capsys.readouterr().out
    after = contents(run)
    assert {name: after.pop(f"network/{name}") for name in ("processor.json", "preprocessing.safetensors")}
    assert after == before
    assert draw.main([str(run), f"--output={runs / 'pictures'}"]) == 0
    assert {"network.svg", "progress.svg"} <= {path.name for path in (runs / "pictures").iterdir()}
    teacher = read_teacher(runs / f"{age}finished" / "teacher")
    assert teacher.ensemble is not None
    assert teacher.config.growth == 2


# But for the duplicates, which had to meet thresholds in the oldest.
def test_records_of_both_ages_tell_the_same(runs):
    now, then = timeless(runs / "finished"), timeless(runs / "oldest-finished")
    assert now[:6] == then[:6]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was_killed(runs):
    assert continued(runs / "interrupted") == 0
    now, then = timeless(runs / "interrupted"), timeless(runs / "finished")
    assert now[:4] == then[:4]
    # The second individual of the generation that was under way stood in the journal, which no later version reads: it
    # is measured again, and comes out the same.
    assert now[5].landmarks[0].fitness == then[5].landmarks[0].fitness
    assert [individual.reference for individual in now] == [individual.reference for individual in then]


@pytest.mark.slow
def test_a_run_of_the_oldest_version_is_continued(runs, capsys):
    line = refused(capsys, lambda argv: continued(runs / "oldest-interrupted"), quiet=False)
    assert "extinguish-duplicates was True and is now False; choose another folder" in line
    assert continued(runs / "oldest-interrupted", "--extinguish-duplicates") == 0
    assert len(timeless(runs / "oldest-interrupted")) == 8
    # A finished one has its network made anew from its last save.
    shutil.rmtree(runs / "oldest-finished" / "search" / "network")
    assert continued(runs / "oldest-finished", "--extinguish-duplicates") == 0
    assert count_layers(load_network(runs / "oldest-finished" / "search")[0]) == 3
