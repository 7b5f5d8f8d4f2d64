"""The experiments of the paper: the runs that they share, what they tell, and one clear line for bad input."""

import dataclasses
import re
import shlex
import statistics
from pathlib import Path

import pytest
from paper_runs import (
    ALL,
    FIGURE3,
    LOGITS_SECONDS,
    PARENT,
    SEEDS,
    TEACHER_SECONDS,
    FakeMakers,
    lines_of,
    places,
    request_of,
    run,
    shared,
    values,
)

from eigen_jax.report import NOT_COMPARABLE, NOTHING
from experiments import paper
from experiments.paper.catalogue import EXPERIMENTS
from experiments.paper.command import main
from experiments.paper.plans import Choice, Plan, eigen_searches, plain_searches, retrainings, step_size_searches
from experiments.paper.request import digest, read_request
from experiments.paper.running import Makers, RunMaker, Runs
from experiments.presets import PRESETS
from experiments.runner import INTERRUPTED


@pytest.fixture(autouse=True)
def no_global_settings(monkeypatch) -> None:
    monkeypatch.setattr(paper.command, "configure", lambda settings: settings)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> tuple[Path, FakeMakers]:
    """Everything, told of fake runs with three seeds."""
    folder, makers = tmp_path_factory.mktemp("paper"), FakeMakers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper.command, "configure", lambda settings: settings)
        assert run(folder, *SEEDS, *FIGURE3, makers=makers) == 0
    return folder, makers


# --- Which runs ------------------------------------------------------------------------------


def test_a_run_that_several_experiments_need_has_one_folder():
    request = request_of(*SEEDS)
    base = set(eigen_searches(request))
    for name in ("table1", "table2", "table3", "table4", "table5", "figure2", "figure4"):
        assert base <= set(EXPERIMENTS[name].plans(request)), name
    assert set(EXPERIMENTS["figure1"].plans(request)) < base
    folders = [plan.settings.run_dir for plan in (*base, *plain_searches(request), *step_size_searches(request, 1))]
    assert len(set(folders)) == 9


def test_a_folder_is_named_by_all_that_the_outcome_depends_on():
    def folders(*argv: str) -> list[str]:
        return [plan.settings.run_dir.name for plan in eigen_searches(request_of(*argv))]

    assert folders(*SEEDS)[1:] == folders("--seeds", "2", "1")
    assert folders("--cache-dir", "elsewhere", "--teacher-dir", "there") == folders()
    for changed in (
        ("--t1", "61"),
        ("--teacher-epochs", "7"),
        ("--pad", "0"),
        ("--dtype", "bfloat16"),
        ("--preset", "smoke"),
        ("--teacher-logits", "x"),
    ):
        assert folders(*changed) != folders()


def test_a_setting_that_older_runs_do_not_name_leaves_their_folder_its_name():
    then = {"t1": 60, "teacher_logits": None, "decay_steps": (350, 480)}
    assert digest({**then, "dtype": "float32", "teacher_dtype": "float32"}) == digest(then)
    assert (
        len({digest(then), digest({**then, "dtype": "bfloat16"}), digest({**then, "teacher_dtype": "bfloat16"})}) == 3
    )
    assert digest(then) != digest({"t1": 60, "decay_steps": (350, 480)})


def test_runs_differ_from_the_base_run_in_what_they_are_for_alone():
    request = request_of("--generations", "4", "--seeds", "3")
    (base,), (plain,), (small,) = eigen_searches(request), plain_searches(request), step_size_searches(request, 10)
    was = base.settings.outcome()

    def changes(now: dict) -> dict:
        return {name: value for name, value in now.items() if was[name] != value}

    assert was["seed"] == 3
    assert changes(plain.settings.outcome()) == {"teacher": "none"}
    assert changes(small.settings.outcome()) == {
        "primary_steps": 10,
        "max_primary_generations": 4,
        "max_secondary_generations": 0,
        "max_duplication_generations": 0,
        "saturation_gain": 0.0,
        "final_steps": 0,
    }
    (with_mimicry,) = retrainings(request, Choice.FOUND, mimicry=True)
    (without,) = retrainings(request, Choice.FOUND, mimicry=False)
    assert changes(with_mimicry.settings_for(PARENT).outcome()) == {}
    assert changes(without.settings_for(PARENT).outcome()) == {"teacher": "none"}


def test_the_teacher_has_a_folder_for_what_it_depends_on():
    def folder(*argv: str) -> Path:
        return request_of("--runs-dir", "r", *argv).settings.teacher_dir

    assert folder().parent == Path("r")
    assert folder() == folder("--t1", "61", "--seeds", "5", "--temperature", "2")
    others = (("--teacher-members", "1"), ("--split-seed", "1"), ("--pad", "0"), ("--teacher-dtype", "bfloat16"))
    assert len({folder(), *(folder(*argv) for argv in others)}) == 1 + len(others)
    assert folder("--teacher-dir", "mine") == Path("mine")
    default = PRESETS["digits"]["small"].teacher_dir
    assert folder(f"--teacher-dir={default}") == default


def test_every_run_is_made_once_and_found_again(reproduced, capsys):
    folder, makers = reproduced
    assert len(makers.searched) == len(set(makers.searched)) == 3 + 3 + 2 * 3
    # A seed: the network found with and without mimicry, and its rival in duplication; the third is shared.
    assert len(makers.trained) == len(set(makers.trained)) == 3 * 3
    before = {path: path.read_bytes() for path in (folder / "results").iterdir()}
    again = FakeMakers()
    capsys.readouterr()
    assert run(folder, *SEEDS, *FIGURE3, makers=again) == 0
    assert not again.searched
    assert not again.trained
    assert "21 runs are needed: 21 finished, 0 begun, 0 missing" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (folder / "results").iterdir()} == before


def test_an_interrupted_command_goes_on(tmp_path, capsys):
    first = FakeMakers(interrupt_at=3)
    assert run(tmp_path, *SEEDS, names=["table3"], makers=first) == INTERRUPTED
    shown = capsys.readouterr()
    assert "6 runs are needed: 0 finished, 0 begun, 6 missing" in shown.out
    assert shown.err.startswith("interrupted; ")
    second = FakeMakers()
    assert run(tmp_path, *SEEDS, names=["table3"], makers=second) == 0
    shown = capsys.readouterr().out
    assert "6 runs are needed: 2 finished, 0 begun, 4 missing" in shown
    assert "Run 3 of 6: EIGEN, seed 2 (" in shown
    assert "Run 6 of 6: EIGEN without mimicry, seed 2 (" in shown
    assert len(first.searched) == 2
    assert len(second.searched) == 4
    assert not set(first.searched) & set(second.searched)


def test_the_time_left_is_that_of_the_runs_before(tmp_path):
    request = request_of("--runs-dir", str(tmp_path), *SEEDS)
    plans: list[Plan] = [*eigen_searches(request), *retrainings(request, Choice.FOUND, mimicry=True)]
    runs, now = Runs(data=None), [0.0]
    lines: list[str] = []
    fake = FakeMakers()

    def search(name, settings):
        now[0] += 100.0
        fake.search(name, settings)

    def train(name, settings, architecture):
        now[0] += 10.0
        fake.train(name, settings, architecture)

    RunMaker(
        runs=runs,
        needed=plans,
        dataset="digits",
        makers=Makers(search=search, train=train),
        tell=lines.append,
        clock=lambda: now[0],
    ).make(plans)
    heads = [line.strip().partition(": ")[0] + " (" + line.partition(" (")[2] for line in lines]
    assert heads == [
        "Run 1 of 6 (0 s so far)",
        "Run 2 of 6 (1 min 40 s so far)",
        "Run 3 of 6 (3 min 20 s so far)",
        "Run 4 of 6 (5 min 0 s so far)",
        "Run 5 of 6 (5 min 10 s so far, about 20 s left)",
        "Run 6 of 6 (5 min 20 s so far, about 10 s left)",
    ]


# --- What is told of them --------------------------------------------------------------------


def test_table_1(reproduced):
    folder, _ = reproduced
    assert values(folder, "table1", "EIGEN", "test accuracy") == [0.70, 0.71, 0.72]
    # The network found: two layers, and the duplicate's four with seed 2.
    assert values(folder, "table1", "EIGEN", "parameters") == [2000, 2000, 4000]
    assert values(folder, "table1", "EIGEN", "search") == [100.0, 101.0, 102.0]
    assert shared(folder, "table1", "EIGEN", "teacher") == str(TEACHER_SECONDS)
    assert shared(folder, "table1", "EIGEN", "teacher's logits") == str(LOGITS_SECONDS)
    assert "75.0 s, once for all seeds" in (folder / "results" / "table1.md").read_text()
    assert values(folder, "table1", "EIGEN", "final training") == [20.0] * 3
    assert all(
        line["test accuracy, paper (CIFAR-10, paper's schedule) (fraction)"] == NOT_COMPARABLE
        for line in (lines_of(folder / "results" / "table1.csv"))
    )


def test_table_2(reproduced):
    folder, _ = reproduced
    for row, validation, parameters, trained, seconds in (
        ("primary alone", 0.50, 1000, 2, 6.0),
        # Of the second generation's two, one was taken over: it was compiled for all the same.
        ("primary and secondary", 0.60, 2000, 3, 10.0),
    ):
        expected = [validation + seed / 100 for seed in range(3)]
        assert values(folder, "table2", row, "validation accuracy") == pytest.approx(expected, abs=1e-12)
        assert values(folder, "table2", row, "test accuracy") == pytest.approx(
            [each - 0.02 for each in expected], abs=1e-12
        )
        assert values(folder, "table2", row, "parameters") == [parameters] * 3
        assert values(folder, "table2", row, "networks trained") == [trained] * 3
        assert values(folder, "table2", row, "compute") == [seconds] * 3
    assert values(folder, "table2", "primary and secondary", "test accuracy gained") == pytest.approx([0.1] * 3)


def test_table_3(reproduced):
    folder, _ = reproduced
    assert values(folder, "table3", "with mimicry", "test accuracy, final training") == [0.70, 0.71, 0.72]
    plain = values(folder, "table3", "without mimicry", "test accuracy, final training")
    assert plain == pytest.approx([0.65, 0.66, 0.67])
    assert values(folder, "table3", "with mimicry", "test accuracy gained") == pytest.approx([0.05] * 3)
    assert shared(folder, "table3", "with mimicry", "teacher") == str(TEACHER_SECONDS)
    assert {
        line["teacher (s)"]
        for line in lines_of(folder / "results" / "table3.csv")
        if line["search"] == "without mimicry"
    } == {NOTHING}
    (deviation,) = [
        float(line["test accuracy, final training (fraction)"])
        for line in lines_of(folder / "results" / "table3.csv")
        if line["statistic"] == "sd" and line["search"] == "without mimicry"
    ]
    assert deviation == pytest.approx(statistics.stdev(plain))


def test_table_4(reproduced):
    folder, _ = reproduced
    # Trained again: 0.60 + layers / 100 + seed / 1000.
    for row, validation, layers in (
        ("without duplication", [0.60, 0.61, 0.62], [2, 2, 2]),
        ("the best duplicate", [0.58, 0.58, 0.75], [4, 4, 4]),
        ("with duplication", [0.60, 0.61, 0.75], [2, 2, 4]),
    ):
        assert values(folder, "table4", row, "validation accuracy") == pytest.approx(validation)
        assert values(folder, "table4", row, "layers") == layers
        expected = [0.60 + count / 100 + seed / 1000 for seed, count in enumerate(layers)]
        assert values(folder, "table4", row, "test accuracy, trained again") == pytest.approx(expected)
    assert values(folder, "table4", "the best duplicate", "test accuracy gained") == pytest.approx([0.02] * 3)
    assert values(folder, "table4", "with duplication", "test accuracy gained") == pytest.approx([0.0, 0.0, 0.02])
    page = (folder / "results" / "table4.md").read_text()
    assert "Seed 0: 1 duplicate, 1 trained to the end; the best, 2.0, repeats its parent's blocks 2-1 times" in page
    assert page.count("is not the network found") == 2


def test_table_5(reproduced):
    folder, _ = reproduced
    expected = [0.62, 0.621, 0.642]
    assert values(folder, "table5", "with mimicry", "test accuracy") == pytest.approx(expected)
    assert values(folder, "table5", "without mimicry", "test accuracy") == pytest.approx(
        [each - 0.04 for each in expected]
    )
    assert values(folder, "table5", "with mimicry", "validation accuracy") == pytest.approx(
        [each + 0.1 for each in expected]
    )
    assert values(folder, "table5", "with mimicry", "training") == [7.0] * 3


def test_figure_3(reproduced):
    folder, _ = reproduced
    lines = lines_of(folder / "results" / "figure3.csv")
    assert {(line["step_size"], line["seed"], line["generation"]) for line in lines if line["seed"]} == {
        (size, seed, generation) for size in ("1", "10") for seed in "012" for generation in "012"
    }
    # 0.50, 0.51, 0.52 at the start, and a thousandth of the step size more a generation.
    means = {
        (line["step_size"], line["generation"]): float(line["best_validation_accuracy"])
        for line in lines
        if line["statistic"] == "mean"
    }
    assert means == pytest.approx(
        {(str(size), str(at)): 0.51 + size * at / 1000 for size in (1, 10) for at in range(3)}
    )
    deviations = [float(line["best_validation_accuracy"]) for line in lines if line["statistic"] == "sd"]
    assert deviations == pytest.approx([0.01] * 6)


def test_figure_4(reproduced):
    folder, _ = reproduced
    lines = lines_of(folder / "results" / "figure4.csv")
    of_seed = {
        seed: [float(line["best_test_accuracy"]) for line in lines if line["seed"] == str(seed)] for seed in range(3)
    }
    # Best by validation: the duplicate of seed 2 takes over, those of the others do not.
    assert of_seed[0] == pytest.approx([0.48, 0.58, 0.58])
    assert of_seed[2] == pytest.approx([0.50, 0.60, 0.75])
    networks = lines_of(folder / "results" / "figure4-networks.csv")
    assert len(networks) == 3 * 6
    assert sorted({int(line["parameters"]) for line in networks}) == [1000, 2000, 4000]


def test_figures_1_and_2_list_the_layers_that_they_draw(reproduced):
    folder, _ = reproduced
    lines = lines_of(folder / "results" / "figure1.csv")
    assert [(line["op"], line["inputs"], line["channels"], line["height"]) for line in lines] == [
        ("conv", "-1", "4", "8"),
        ("conv", "0", "8", "8"),
    ]
    lines = lines_of(folder / "results" / "figure2.csv")
    assert [line["network"] for line in lines] == ["before"] * 2 + ["after"] * 4
    assert "another one" in (folder / "results" / "figure2.md").read_text()


def test_every_experiment_leaves_its_files(reproduced):
    folder, _ = reproduced
    tables = {f"table{number}.{ending}" for number in range(1, 6) for ending in ("csv", "md")}
    figures = {f"figure{number}.{ending}" for number in range(1, 5) for ending in ("png", "svg", "csv", "md")}
    assert {path.name for path in (folder / "results").iterdir()} == tables | figures | {"figure4-networks.csv"}
    for path in (folder / "results").glob("figure*.md"):
        (picture,) = re.findall(r"!\[.*\]\((.*)\)", path.read_text())
        assert (folder / "results" / picture).exists()


def test_the_page_tells_how_to_make_it_again(reproduced):
    folder, _ = reproduced
    for name, own in (("table3", ()), ("figure3", FIGURE3)):
        page = (folder / "results" / f"{name}.md").read_text()
        (command,) = re.findall(r"- Command: `(.*)`", page)
        start, module, *argv = shlex.split(command)[1:]
        assert (start, module) == ("-m", f"experiments.{name}")
        asked = read_request(argv, program="it", about="", experiments=[name])[0]
        assert dataclasses.replace(asked, arguments=(), figure3_arguments=()) == dataclasses.replace(
            request_of(*places(folder), *SEEDS, *own), arguments=(), figure3_arguments=()
        )
        assert "- Seeds: 0, 1, 2" in page
        assert "python 3.11.7, jax 0.10.2" in page
        assert re.search(r"- Machine: .+, \d+ cores", page)
        assert "- Data: 1,200 images to train on, 237 to validate, 360 to test" in page
    page = (folder / "results" / "table3.md").read_text()
    # Searches of 100, 101 and 102 s twice, six final trainings, and one teacher.
    assert "search 10.1 min" in page
    assert "final training 2.0 min" in page
    assert "teacher 75.0 s, teacher's logits 12.5 s" in page


def test_drawing_alone_loads_nothing_and_makes_nothing(reproduced, tmp_path, monkeypatch):
    folder, _ = reproduced
    monkeypatch.setattr(paper.command, "load_dataset", lambda config: pytest.fail("the data were loaded"))
    argv = (*places(folder), "--output", str(tmp_path), *SEEDS, *FIGURE3, "--draw-only")
    makers = FakeMakers()
    assert main(ALL, "", ["--dataset", "digits", *argv], makers=Makers(search=makers.search, train=makers.train)) == 0
    assert not makers.searched
    for path in (folder / "results").glob("*.csv"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    data = "- Data: 1,200 images to train on, 237 to validate, 360 to test"
    assert data in (tmp_path / "table3.md").read_text()
