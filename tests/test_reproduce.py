"""The experiments of the paper: the runs that they share, what they tell, and one clear line for bad input."""

import dataclasses
import functools
import re
import shlex
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands_data import contents
from paper_runs import (
    CAUSE,
    FIGURE3,
    LOGITS_SECONDS,
    PARENT,
    SEEDS,
    TEACHER_SECONDS,
    FakeMakers,
    individual,
    leave_paper_alone,
    lines_of,
    places,
    request_of,
    run,
    study_of,
    values,
)
from report_data import reached

from eigen_jax.data import DataConfig
from eigen_jax.data.types import DatasetName
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.report import NOT_COMPARABLE, NOTHING, Quoted, Unit
from experiments.commands import INTERRUPTED
from experiments.presets import PRESETS
from experiments.reproduce import __main__ as command
from experiments.reproduce import tables
from experiments.reproduce.__main__ import EXPERIMENTS, RunMaker, read_names
from experiments.reproduce.request import digest, read_request
from experiments.reproduce.runs import Choice, Run, Search, Study
from experiments.reproduce.tables import published
from experiments.settings import Settings

no_global_settings = pytest.fixture(leave_paper_alone, autouse=True)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> Path:
    """The folder of everything, told of fake runs with three seeds."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        leave_paper_alone(patch)
        assert run(folder, *SEEDS, *FIGURE3) == 0
    return folder


@pytest.fixture
def results(reproduced) -> Path:
    return reproduced / "results"


def test_a_run_that_several_experiments_need_has_one_folder():
    study = study_of(*SEEDS, "--step-sizes", "1")
    base = set(study.eigen)
    for name in ("table2", "table3", "table4", "table5", "figure2", "figure4"):
        assert base <= set(EXPERIMENTS[name].runs(study)), name
    assert set(EXPERIMENTS["figure1"].runs(study)) < base
    assert len({search.folder for search in (*base, *study.plain, *study.step_sizes[1])}) == 9


def test_a_folder_is_named_by_all_that_the_outcome_depends_on():
    def folders(*argv: str) -> list[str]:
        return [search.folder.name for search in study_of(*argv).eigen]

    assert folders(*SEEDS)[1:] == folders("--seeds", "2", "1")
    assert folders("--cache-dir", "elsewhere", "--teacher-dir", "there") == folders()
    changes = ("--t1 61", "--teacher-epochs 7", "--pad 0", "--dtype bfloat16", "--preset smoke", "--teacher-logits x")
    for changed in changes:
        assert folders(*changed.split()) != folders()


def test_a_setting_that_older_runs_do_not_name_leaves_their_folder_its_name():
    then = {"t1": 60, "teacher_logits": None, "decay_steps": (350, 480)}
    assert digest({**then, "dtype": "float32", "teacher_dtype": "float32"}) == digest(then)
    later = [digest({**then, name: "bfloat16"}) for name in ("dtype", "teacher_dtype")]
    assert len({digest(then), *later}) == 3
    assert digest(then) != digest({"t1": 60, "decay_steps": (350, 480)})


def test_runs_differ_from_the_base_run_in_what_they_are_for_alone(tmp_path):
    study = study_of("--generations", "4", "--seeds", "3", *places(tmp_path))
    (base,), (plain,), (small,) = study.eigen, study.plain, study.step_sizes[10]
    was = base.settings.outcome()

    def changes(now: dict) -> dict:
        return {name: value for name, value in now.items() if was[name] != value}

    assert was["seed"] == 3
    assert changes(plain.settings.outcome()) == {"teacher": "none"}
    none = ("max_secondary_generations", "max_duplication_generations", "saturation_gain", "final_steps")
    expected = dict.fromkeys(none, 0) | {"primary_steps": 10, "max_primary_generations": 4}
    assert changes(small.settings.outcome()) == expected
    without, with_mimicry = study.retrainings(Choice.FOUND, mimicry=(False, True))
    assert with_mimicry.settings is without.settings is None
    FakeMakers().search(base.settings)
    assert with_mimicry.network == without.network == PARENT
    for training in (with_mimicry, without):
        assert training.settings is not None
        assert changes(training.settings.outcome()) == ({} if training.mimicry else {"teacher": "none"})


def test_the_teacher_has_a_folder_for_what_it_depends_on():
    def folder(*argv: str) -> Path:
        return request_of("--runs-dir", "r", *argv).settings.teacher_dir

    assert folder().parent == Path("r").absolute()
    assert folder() == folder("--t1", "61", "--seeds", "5", "--temperature", "2")
    others = (("--teacher-members", "1"), ("--split-seed", "1"), ("--pad", "0"), ("--teacher-dtype", "bfloat16"))
    assert len({folder(), *(folder(*argv) for argv in others)}) == 1 + len(others)
    assert folder("--teacher-dir", "mine") == Path("mine").absolute()
    default = PRESETS["digits"]["small"].teacher_dir.absolute()
    assert folder(f"--teacher-dir={default}") == default


def test_the_command_that_is_published_names_folders_from_where_it_is_given():
    command = request_of("--runs-dir", str(Path("r").absolute()), "--output", "/o").command("table2")
    assert " --runs-dir r --output /o" in command


def test_every_run_is_made_once_and_found_again(reproduced, results, capsys):
    # Searches of both kinds and two step sizes. A seed: the network found trained with and without mimicry, and
    # its rival in duplication; the third is shared. The makers refuse to make a run again.
    assert len(list(reproduced.glob("runs/*/lineage.jsonl"))) == 3 + 3 + 2 * 3
    assert len(list(reproduced.glob("runs/*/result.json"))) == 3 + 3 + 2 * 3 + 3 * 3
    before, again = contents(results), FakeMakers()
    assert run(reproduced, *SEEDS, *FIGURE3, makers=again) == 0
    assert (again.searched, again.trained) == ([], [])
    assert "21 runs are needed: 21 finished, 0 begun, 0 missing" in capsys.readouterr().out
    assert contents(results) == before


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
    assert (len(first.searched), len(second.searched)) == (2, 4)
    assert not set(first.searched) & set(second.searched)


def test_the_time_left_is_that_of_the_runs_before(tmp_path, capsys, monkeypatch):
    study = study_of("--runs-dir", str(tmp_path), *SEEDS)
    needed: list[Run] = [*study.eigen, *study.retrainings(Choice.FOUND)]
    fake = FakeMakers()

    def clock() -> float:
        return 100.0 * len(fake.searched) + 10.0 * len(fake.trained)

    monkeypatch.setattr(command, "search", fake.search)
    monkeypatch.setattr(command, "retrain", fake.train)
    RunMaker(needed, None, clock).make(needed)
    lines = capsys.readouterr().out.split("\n\n")
    heads = [line.strip().partition(": ")[0] + " (" + line.strip().partition(" (")[2] for line in lines]
    assert heads == [
        "Run 1 of 6 (0 s so far)",
        "Run 2 of 6 (1 min 40 s so far)",
        "Run 3 of 6 (3 min 20 s so far)",
        "Run 4 of 6 (5 min 0 s so far)",
        "Run 5 of 6 (5 min 10 s so far, about 20 s left)",
        "Run 6 of 6 (5 min 20 s so far, about 10 s left)",
    ]


GAINED = "test accuracy gained"
# Columns of each table, and in its rows the number of each seed, or the one that all have.
NUMBERS: dict[str, tuple[tuple, ...]] = {
    "table2": (
        ("validation accuracy", "test accuracy", "parameters", "networks trained", "compute", GAINED),
        ("primary alone", [0.50, 0.51, 0.52], [0.48, 0.49, 0.50], 1000, 2, 6.0),
        # Of the second generation's two, one was taken over: it was compiled for all the same.
        ("primary and secondary", [0.60, 0.61, 0.62], [0.58, 0.59, 0.60], 2000, 3, 10.0, 0.1),
    ),
    "table3": (
        (
            "test accuracy, final training",
            "test accuracy, weights of the search",
            GAINED,
            *("networks trained", "parameters", "final training"),
        ),
        ("without mimicry", [0.65, 0.66, 0.67]),
        # The network found: two layers, and the duplicate's four with seed 2.
        (
            "with mimicry",
            *([0.70, 0.71, 0.72], [0.58, 0.59, 0.75], 0.05, 5, [2000, 2000, 4000], 20.0),
        ),
    ),
    "table4": (
        # Trained again: 0.60 + layers / 100 + seed / 1000.
        ("validation accuracy", "layers", "test accuracy, trained again", GAINED),
        ("without duplication", [0.60, 0.61, 0.62], 2, [0.62, 0.621, 0.622]),
        ("the best duplicate", [0.58, 0.58, 0.75], 4, [0.64, 0.641, 0.642], 0.02),
        ("with duplication", [0.60, 0.61, 0.75], [2, 2, 4], [0.62, 0.621, 0.642], [0.0, 0.0, 0.02]),
    ),
    "table5": (
        ("test accuracy", "validation accuracy", GAINED, "training"),
        ("without mimicry", [0.58, 0.581, 0.602]),
        ("with mimicry", [0.62, 0.621, 0.642], [0.72, 0.721, 0.742], 0.04, 7.0),
    ),
}


@pytest.mark.parametrize("table", NUMBERS)
def test_a_table_has_the_numbers_of_each_seed(reproduced, table):
    columns, *rows = NUMBERS[table]
    for row, *numbers in rows:
        for column, number in zip(columns, numbers, strict=False):
            expected = number if isinstance(number, list) else [number] * 3
            assert values(reproduced, table, row, column) == pytest.approx(expected, abs=1e-12), (row, column)


# Tables 2 to 5 as the paper prints them: for CIFAR-10 and CIFAR-100 the accuracy, then parameters.
PAPERS: dict[tuple[str, str], tuple[tuple[float | None, ...], ...]] = {
    ("table2", "primary alone"): ((93.3, None), (74.7, None)),
    ("table2", "primary and secondary"): ((93.7, None), (76.9, None)),
    ("table3", "without mimicry"): ((92.4, None), (74.8, None)),
    ("table3", "with mimicry"): ((93.7, None), (76.9, None)),
    ("table4", "without duplication"): ((93.7, 1.2), (76.9, 6.1)),
    ("table4", "the best duplicate"): ((None,) * 2,) * 2,
    ("table4", "with duplication"): ((94.6, 2.6), (78.1, 11.8)),
    ("table5", "without mimicry"): ((93.3, None), (73.9, None)),
    ("table5", "with mimicry"): ((94.6, None), (78.1, None)),
}
UNITS = {"test accuracy": ("(fraction)", 100), "parameters": ("", 1e-6)}


@pytest.mark.parametrize("column", [0, 1], ids=["cifar10", "cifar100"])
def test_the_papers_figures_stand_beside_the_rows_that_are_comparable(reproduced, tmp_path, monkeypatch, column):
    dataset: DatasetName = "cifar100" if column else "cifar10"
    monkeypatch.setattr(Study, "is_papers", True)
    monkeypatch.setattr(tables, "published", lambda table, row, _: published(table, row, dataset))
    shutil.copytree(reproduced, tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, *SEEDS, "--draw-only", names=[f"table{number}" for number in range(2, 6)]) == 0
    for (table, row), figures in PAPERS.items():
        lines = [line for line in lines_of(tmp_path / "results" / f"{table}.csv") if row in line.values()]
        for (quantity, (unit, scale)), expected in zip(UNITS.items(), figures[column], strict=True):
            heading = f"{quantity}, paper (CIFAR-10, paper's schedule) {unit}".strip()
            told = {line.get(heading, "") for line in lines} - {"", "not in the paper"}
            assert {round(float(each) * scale, 6) for each in told} == {expected} - {None}, (table, row, quantity)


def test_a_column_of_the_papers_figures_names_the_data_set_that_they_are_for() -> None:
    settings = Settings(data=DataConfig(name="cifar100"))
    study: Any = SimpleNamespace(request=SimpleNamespace(settings=settings), is_papers=True)
    entry, *_ = tables._paper(study, "table4", "with duplication")
    assert entry == ("test accuracy, paper (CIFAR-100, paper's schedule)", Unit.ACCURACY, Quoted(value=0.781))


def test_tables_tell_of_the_teacher_once_what_cannot_be_compared_and_how_duplication_went(reproduced, results):
    assert values(reproduced, "table3", "with mimicry", "teacher", "shared") == [TEACHER_SECONDS]
    assert values(reproduced, "table3", "with mimicry", "teacher's logits", "shared") == [LOGITS_SECONDS]
    assert "75.0 s, once for all seeds" in (results / "table3.md").read_text()
    for line in lines_of(results / "table3.csv"):
        assert line["test accuracy, paper (CIFAR-10, paper's schedule) (fraction)"] == NOT_COMPARABLE
    plain = [line for line in lines_of(results / "table3.csv") if line["search"] == "without mimicry"]
    assert {line["teacher (s)"] for line in plain} == {NOTHING}
    (deviation,) = [line["test accuracy, final training (fraction)"] for line in plain if line["statistic"] == "sd"]
    assert float(deviation) == pytest.approx(statistics.stdev([0.65, 0.66, 0.67]))
    page = (results / "table4.md").read_text()
    assert "Seed 0: 1 duplicate, 1 trained to the end; the best, 2.0, repeats its parent's blocks 2-1 times" in page
    assert page.count("is not the network found") == 2


def test_the_best_duplicate_is_who_came_furthest_then_the_fittest():
    def duplicate(index: int, *accuracies: float, **fields: Any) -> Individual:
        common: dict[str, Any] = {"repeats": (2, 1), "fate": Fate.EXTINCT, "landmarks": reached(*accuracies)}
        return individual(2, index, "duplication", PARENT, None, **common | fields)

    early, worse, best = duplicate(0, 0.9), duplicate(1, 0.8, 0.5), duplicate(2, 0.7, 0.6)
    equal = duplicate(3, 0.9, 0.6)
    failed = duplicate(4, 0.9, 0.9, 0.9, fate=Fate.FAILED, cause=CAUSE)
    search: Any = SimpleNamespace(seed=0, result=SimpleNamespace(found=Reference(generation=1, index=0)))
    search.chosen = functools.partial(Search.chosen, search)
    for search.duplicates, expected in (((early, worse, best, equal, failed), best), ((early, failed), early)):
        assert search.chosen(Choice.BEST_DUPLICATE) is expected
        told = f"0 trained to the end; the best, {expected.reference}, repeats its parent's blocks 2-1 times"
        at = len(expected.landmarks)
        assert f"{told} and is not the network found: it went extinct at T{at}." in tables._describe_duplicates(search)
    search.duplicates = (failed,)
    assert search.chosen(Choice.BEST_DUPLICATE) is None


def test_figure_3(results):
    lines = lines_of(results / "figure3.csv")
    assert {(line["step_size"], line["seed"], line["generation"]) for line in lines if line["seed"]} == {
        (size, seed, generation) for size in ("1", "10") for seed in "012" for generation in "012"
    }
    # 0.50, 0.51, 0.52 at the start, and a thousandth of the step size more a generation.
    means = {(str(size), str(at)): 0.51 + size * at / 1000 for size in (1, 10) for at in range(3)}
    for statistic, expected in (("mean", means), ("sd", dict.fromkeys(means, 0.01))):
        own = [line for line in lines if line["statistic"] == statistic]
        reached = {(each["step_size"], each["generation"]): float(each["best_validation_accuracy"]) for each in own}
        assert reached == pytest.approx(expected)


def test_figure_4(results):
    lines = lines_of(results / "figure4.csv")
    # Best by validation: the duplicate of seed 2 takes over, those of the others do not.
    for seed, expected in (("0", [0.48, 0.58, 0.58]), ("1", [0.49, 0.59, 0.59]), ("2", [0.50, 0.60, 0.75])):
        reached = [float(line["best_test_accuracy"]) for line in lines if line["seed"] == seed]
        assert reached == pytest.approx(expected)
    networks = lines_of(results / "figure4-networks.csv")
    assert len(networks) == 3 * 6
    assert sorted({int(line["parameters"]) for line in networks}) == [1000, 2000, 4000]


def test_figures_1_and_2_list_the_layers_that_they_draw(results):
    lines = [
        [line[name] for name in ("op", "inputs", "channels", "height")] for line in lines_of(results / "figure1.csv")
    ]
    assert lines == [["conv", "-1", "4", "8"], ["conv", "0", "8", "8"]]
    networks = [line["network"] for line in lines_of(results / "figure2.csv")]
    assert networks == ["before"] * 2 + ["after"] * 4
    assert "another one" in (results / "figure2.md").read_text()


def test_every_experiment_leaves_its_files(results):
    tables = {f"table{number}.{ending}" for number in range(2, 6) for ending in ("csv", "md")}
    figures = {f"figure{number}.{ending}" for number in range(1, 5) for ending in ("png", "svg", "csv", "md")}
    assert {path.name for path in results.iterdir()} == tables | figures | {"figure4-networks.csv"}
    for path in results.glob("figure*.md"):
        (picture,) = re.findall(r"!\[.*\]\((.*)\)", path.read_text())
        assert (results / picture).exists()


def test_the_page_tells_how_to_make_it_again(reproduced, results):
    for name in ("table3", "figure3"):
        page = (results / f"{name}.md").read_text()
        (command,) = re.findall(r"- Command: `(.*)`", page)
        start, module, *argv = shlex.split(command)[1:]
        assert (start, module) == ("-m", "experiments.reproduce")
        names, options = read_names(argv)
        assert names == (name,)
        asked = read_request(options, about="")
        made = request_of(*places(reproduced), *SEEDS, *FIGURE3)
        made = dataclasses.replace(made, arguments=asked.arguments)
        assert asked == made
        assert "- Seeds: 0, 1, 2" in page
        assert "python 3.11.7, jax 0.10.2" in page
        assert re.search(r"- Machine: .+, \d+ cores", page)
        assert "- Data: 1,200 images to train on, 237 to validate, 360 to test" in page
    page = (results / "table3.md").read_text()
    # Searches of 100, 101 and 102 s twice, six final trainings, and one teacher.
    assert "search 10.1 min" in page
    assert "final training 2.0 min" in page
    assert "teacher 75.0 s, teacher's logits 12.5 s" in page


def test_drawing_alone_loads_nothing_and_makes_nothing(reproduced, results, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load_dataset", lambda config: pytest.fail("the data were loaded"))
    makers = FakeMakers()
    assert run(reproduced, "--output", str(tmp_path), *SEEDS, *FIGURE3, "--draw-only", makers=makers) == 0
    assert not makers.searched
    for path in results.glob("*.csv"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    facts = "- Data: 1,200 images to train on, 237 to validate, 360 to test"
    assert facts in (tmp_path / "table3.md").read_text()
