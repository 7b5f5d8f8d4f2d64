"""The paper's experiments at the command line: bad input, the paper's own numbers, and one that is run in earnest."""

import dataclasses
import json
import re
from pathlib import Path
from unittest.mock import ANY, Mock

import jax
import numpy as np
import pytest
from commands_data import SEARCH, SEED, edit, ran, write_logits
from matplotlib.figure import Figure
from paper_runs import (
    ALL,
    CAUSE,
    FIGURE3,
    FakeMakers,
    leave_paper_alone,
    lines_of,
    places,
    refused,
    request_of,
    run,
    values,
)

from eigen_jax.report import NOT_MEASURED, NOTHING
from eigen_jax.report.figures import PANELS
from experiments.commands import BAD_INPUT
from experiments.reproduce import __main__ as command
from experiments.reproduce import figures
from experiments.reproduce.__main__ import main, read_names
from experiments.reproduce.runs import DataFacts, Study

no_global_settings = pytest.fixture(leave_paper_alone, autouse=True)
WHOLE = DataFacts(fingerprint="f", train=45_000, validation=5_000, test=10_000)


@pytest.mark.parametrize(
    ("dataset", "argv", "data", "expected"),
    [
        ("cifar10", ("--preset", "paper"), WHOLE, True),
        ("cifar100", ("--preset", "paper", "--seeds", "1", "2", "--data-dir", "x"), WHOLE, True),
        ("cifar10", ("--preset", "small"), WHOLE, False),
        ("cifar10", ("--preset", "paper", "--t1", "4999"), WHOLE, False),
        ("cifar10", ("--preset", "paper", "--teacher-logits", "x"), WHOLE, False),
        ("cifar10", ("--preset", "paper"), dataclasses.replace(WHOLE, train=4_500, validation=500), False),
        ("cifar10", ("--preset", "paper"), dataclasses.replace(WHOLE, test=1_000), False),
        ("cifar10", ("--preset", "paper"), None, False),
        ("digits", ("--preset", "paper"), WHOLE, False),
    ],
)
def test_the_papers_numbers_stand_beside_the_papers_experiment_alone(dataset, argv, data, expected):
    assert Study(request=request_of(*argv, dataset=dataset), data=data).is_papers is expected


@pytest.mark.parametrize("names", [[], *([name] for name in ALL), ["table3", "figure4"]])
def test_a_command_without_runs_says_what_it_cannot_tell_of(tmp_path, capsys, monkeypatch, names):
    argv = [*names, "--dataset", "digits", "--draw-only", *places(tmp_path)]
    assert ran(monkeypatch, "reproduce", *argv) == BAD_INPUT
    told_of = ", ".join(name for name in ALL if name in names or not names)
    assert f"; {told_of} cannot be told of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "names", "options"),
    [
        ("figure4 table3 --dataset digits", ("figure4", "table3"), "--dataset digits"),
        ("--dataset digits table3 figure4", ("figure4", "table3"), "--dataset digits"),
        ("table1 --seeds 0 1 figure3 --t1 7 table1", ("figure3", "table1"), "--seeds 0 1 --t1 7"),
        ("--draw-only table2 --seeds 1", ("table2",), "--draw-only --seeds 1"),
        ("--output=x table2", ("table2",), "--output=x"),
        ("--dataset digits --output table2", ALL, "--dataset digits --output table2"),
    ],
)
def test_names_stand_wherever_they_are_no_value(argv, names, options):
    assert read_names(argv.split()) == (names, options.split())


def test_the_help_tells_of_all_tables_and_figures(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ALL:
        (about,) = re.findall(rf"(?<= ){name}: .*?Cost: ", text)
        assert len(about) > 60
    assert "EIGEN: 94.6 %, 2.6 M parameters, 48 GPUH on CIFAR-10; 78.1 %, 11.8 M parameters, 120 GPUH on" in text
    for row in ("primary alone: 93.3 % on CIFAR-10; 74.7 % on", "without mimicry: 92.4 % on CIFAR-10; 74.8 % on"):
        assert row in text


def test_drawing_alone_keeps_the_papers_numbers_beside_the_papers_experiment(tmp_path, monkeypatch):
    class Loaded:
        fingerprint = "f"
        train_images, validation_images, test_images = np.zeros(45_000), np.zeros(5_000), np.zeros(10_000)

    monkeypatch.setattr(command, "load_dataset", lambda config: Loaded())
    makers = FakeMakers(data_fingerprint="f")

    def tell(*argv: str) -> int:
        return run(tmp_path, "--preset", "paper", *argv, dataset="cifar10", names=["table3"], makers=makers)

    assert tell() == 0
    page = tmp_path / "results" / "table3.md"
    told = page.read_text()
    assert "93.7" in told
    assert "45,000 images to train on" in told
    page.unlink()
    assert tell("--draw-only") == 0
    assert page.read_text() == told
    for noted in tmp_path.glob("runs/*/machine.json"):
        edit(noted, lambda content: content.update(data=None))
    assert tell("--draw-only") == 0
    assert "93.7" not in page.read_text()


def test_fewer_seeds_do_not_overwrite_what_more_told(tmp_path, capsys):
    assert run(tmp_path, "--seeds", "0", "1", names=["figure4"]) == 0
    page = tmp_path / "results" / "figure4.md"
    told = page.read_text()
    makers = FakeMakers()
    line = refused(capsys, tmp_path, "--seeds", "1", names=["figure4"], makers=makers)
    assert line == f"{page} tells of more than is asked for (seeds 0, 1); choose another --output to keep it"
    assert page.read_text() == told
    assert not makers.searched
    for seeds in (("1", "2"), ("0", "1", "2")):
        assert run(tmp_path, "--seeds", *seeds, names=["figure4"]) == 0


def test_a_smaller_figure_3_does_not_overwrite_a_bigger_one(tmp_path, capsys):
    assert run(tmp_path, *FIGURE3, names=["figure3"]) == 0
    for smaller in (("--step-sizes", "10", "--generations", "3"), ("--step-sizes", "1", "10", "--generations", "2")):
        line = refused(capsys, tmp_path, *smaller, names=["figure3"])
        assert "(seeds 0; step sizes 1, 10; generations of each search 3); choose another --output" in line
    assert run(tmp_path, "--step-sizes", "10", "--generations", "4", names=["figure3"]) == 0


def test_runs_that_mimic_different_teachers_are_not_told_of_together(tmp_path, capsys):
    makers = FakeMakers(teachers=("a" * 64, "b" * 64))
    line = refused(capsys, tmp_path, "--seeds", "0", "1", names=["table2"], makers=makers)
    assert line == (
        "table2: EIGEN, seed 1 was made with another teacher (fingerprint bbbbbbbbbbbb, that of EIGEN, seed 0 is"
        " aaaaaaaaaaaa); choose another --runs-dir, or the data and teacher of before"
    )


def test_logits_whose_cost_the_cache_does_not_tell_were_not_measured(tmp_path):
    assert run(tmp_path, names=["table3"]) == 0
    next(tmp_path.glob("cache/teacher-logits/*.json")).write_text('{"sha256": ""}')
    assert run(tmp_path, "--draw-only", names=["table3"]) == 0
    (line,) = [line for line in lines_of(tmp_path / "results" / "table3.csv") if line["statistic"] == "shared"]
    assert line["teacher's logits (s)"] == NOT_MEASURED
    assert "teacher 75.0 s, teacher's logits not measured" in (tmp_path / "results" / "table3.md").read_text()


def test_a_training_that_diverged_has_a_note_and_no_accuracy(tmp_path, capsys):
    assert run(tmp_path, names=["table3", "table4", "table5"], makers=FakeMakers(diverges=True)) == 0
    assert f"the network found trained with mimicry, seed 0: the training diverged ({CAUSE})" in capsys.readouterr().out
    for name, column in (("table4", "test accuracy, trained again"), ("table5", "test accuracy")):
        page = (tmp_path / "results" / f"{name}.md").read_text()
        assert page.count(f"seed 0: the training failed ({CAUSE}), so it has no accuracy.") == 2
        assert values(tmp_path, name, "with mimicry" if name == "table5" else "with duplication", column) == []
    assert values(tmp_path, "table5", "with mimicry", "training") == [7.0]
    assert f"the final training failed ({CAUSE})" in (tmp_path / "results" / "table3.md").read_text()


def the_eigen(folder: Path, name: str) -> Path:
    """A file of the one search of EIGEN."""
    (path,) = folder.glob(f"runs/*eigen*/{name}")
    return path


def test_a_run_that_is_foreign_or_damaged_is_refused(tmp_path, capsys):
    assert run(tmp_path, names=["table5"]) == 0
    for kind, setting, value, part in (
        ("trained", "retrained", "0" * 64, "belongs to a run with other settings: retrained was '0000000000000000"),
        ("eigen", "t1", 61, "belongs to a run with other settings: --t1 was 61 and is now 60"),
        (
            "eigen",
            "data_fingerprint",
            "0" * 64,
            "made with other data (fingerprint 000000000000, this command's is ",
        ),
    ):
        path = sorted(tmp_path.glob(f"runs/*{kind}*/settings.json"))[0]
        whole = path.read_bytes()
        content = json.loads(whole)
        content["settings"][setting] = value
        path.write_text(json.dumps(content))
        assert part in refused(capsys, tmp_path, names=["table5"])
        path.write_bytes(whole)
    for kind in ("eigen", "trained"):
        path = sorted(tmp_path.glob(f"runs/*{kind}*/result.json"))[0]
        whole = path.read_bytes()
        for damage in (b"", b"{", b"[]"):
            path.write_bytes(damage)
            assert str(path) in refused(capsys, tmp_path, names=["table5"])
        path.write_bytes(whole)
    edit(path, lambda content: content.update(schema_version=1))
    assert "has schema version 1" in refused(capsys, tmp_path, names=["table5"])


def test_a_run_that_does_not_name_a_later_setting_is_read(tmp_path, capsys):
    makers = FakeMakers()
    assert run(tmp_path, names=["figure1"], makers=makers) == 0
    path = the_eigen(tmp_path, "settings.json")
    edit(path, lambda content: [content["settings"].pop(name) for name in ("dtype", "teacher_dtype")])
    assert run(tmp_path, names=["figure1"], makers=makers) == 0
    assert len(makers.searched) == 1
    edit(path, lambda content: content["settings"].update(dtype="bfloat16"))
    line = refused(capsys, tmp_path, names=["figure1"])
    assert "belongs to a run with other settings: --dtype was 'bfloat16' and is now 'float32'" in line


def test_figure_2_tells_where_the_one_search_that_it_draws_came_from(tmp_path):
    assert run(tmp_path, "--seeds", "0", "1", names=["figure2"]) == 0
    page = (tmp_path / "results" / "figure2.md").read_text()
    assert "- Seeds: 0\n" in page
    assert "search 100.0 s" in page
    title = "Gene duplication on digits, seed 0, blocks repeated 2-1 times: the best duplicate, not the network found"
    assert title in (tmp_path / "results" / "figure2.svg").read_text()


@pytest.mark.parametrize(
    ("sizes", "panels"),
    [
        ((1, 2, 10, 50, 100, 200), PANELS),
        ((10, 100, 50), PANELS),
        ((10, 1), ((1, 10),)),
        ((1, 50), ((1, 50),)),
        ((1, 2, 50, 100, 7), ((1, 2, 7, 50, 100),)),
    ],
)
def test_figure_3_has_a_panel_for_sizes_that_are_compared(tmp_path, monkeypatch, sizes, panels):
    plot = Mock(return_value=Figure())
    monkeypatch.setattr(figures.report, "plot_step_sizes", plot)
    assert run(tmp_path, "--step-sizes", *map(str, sizes), "--generations", "1", names=["figure3"]) == 0
    plot.assert_called_once_with(ANY, panels=panels, title=ANY)
    assert set(plot.call_args.args[0]) == set(sizes)


def test_drawing_alone_says_what_is_missing_and_draws_what_has_finished(tmp_path, capsys):
    line = refused(capsys, tmp_path, "--draw-only", names=["table3"])
    assert line.startswith("2 of 2 runs have not finished, the first is EIGEN, seed 0 in ")
    assert "table3 cannot be told of" in line
    assert "--draw-only" in line
    assert run(tmp_path, names=["figure1"]) == 0
    (tmp_path / "results" / "figure1.png").unlink()
    line = refused(capsys, tmp_path, "--draw-only", names=["figure1", "table3", "figure4"])
    assert line.startswith("1 of 2 runs have not finished, the first is EIGEN without mimicry, seed 0 in ")
    assert {path.name for path in (tmp_path / "results").iterdir()} > {"figure1.png", "figure4.png"}
    assert not (tmp_path / "results" / "table3.md").exists()


def test_without_a_duplicate_figure_2_says_so_and_the_rest_is_made(tmp_path, capsys):
    makers = FakeMakers(without_duplicates=True)
    line = refused(capsys, tmp_path, names=["figure2", "table4", "table2"], makers=makers)
    assert line.startswith("figure2: no search of seeds 0 measured a duplicate, so there is none to draw")
    assert {path.stem for path in (tmp_path / "results").glob("*.csv")} == {"table4", "table2"}
    assert values(tmp_path, "table4", "the best duplicate", "validation accuracy") == []
    assert values(tmp_path, "table4", "with duplication", "validation accuracy") == [0.60]


def test_a_search_in_which_nothing_survived_is_told_of(tmp_path, capsys):
    makers = FakeMakers(nothing_survives=True)
    line = refused(capsys, tmp_path, *FIGURE3, makers=makers)
    assert line.startswith("figure1: EIGEN, seed 0 found no network to draw")
    assert "figure2: " in line
    assert not makers.trained
    for number in range(2, 6):
        assert NOT_MEASURED in (tmp_path / "results" / f"table{number}.md").read_text()
    assert {line["final training (s)"] for line in lines_of(tmp_path / "results" / "table3.csv")} == {NOTHING}
    assert "- EIGEN, seed 0: no network survived all landmarks." in (tmp_path / "results" / "table3.md").read_text()


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("--seeds",), "--seeds is empty"),
        (("--seeds", "-1"), "seed is -1; it must be from 0"),
        (("--seeds", "1", "0", "1"), "--seeds has 1 twice"),
        (("--seeds", str(2**32)), "seed is 4294967296"),
        (("--seeds", "a"), "--seeds"),
        (("--seed", "1"), "--seed is for a single search; use --seeds"),
        (("--run-dir=x",), "--run-dir is for a single search; use --runs-dir"),
        (("--preset", "large"), "there is no preset 'large'"),
        (("--t1", "0"), "t1 is 0"),
        (("--step-sizes", "0"), "--step-sizes: is '0'; it must be a whole number of at least 1"),
        (("--step-sizes",), "--step-sizes is empty"),
        (("--generations", "0"), "--generations: is '0'; it must be a whole number of at least 1"),
        (("--teacher", "none"), "--teacher is none"),
        (("--final-steps", "0"), "--final-steps is 0"),
        (("--max-duplication-generations", "0"), "--max-duplication-generations is 0"),
    ],
)
def test_a_wrong_command_line_gets_one_line(tmp_path, capsys, argv, part):
    makers = FakeMakers()
    assert part in refused(capsys, tmp_path, *argv, makers=makers)
    assert not makers.searched


@pytest.mark.parametrize(("argv", "part"), [(("table6",), "options: table6"), (("--populaton", "3"), "--population N")])
def test_what_is_no_setting_is_named_and_what_was_meant(tmp_path, capsys, argv, part):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *argv)
    assert ended.value.code == BAD_INPUT
    assert part in " ".join(capsys.readouterr().err.split())


def test_a_table_that_there_is_not_gets_one_line(capsys):
    assert main(["table1", "tabel3", "--dataset", "digits"]) == BAD_INPUT
    error = "error: there is no table or figure 'tabel3'; did you mean table3? choose from figure1, figure2, "
    assert capsys.readouterr().err.startswith(error)


@pytest.mark.parametrize(("argv", "part"), [(["table6"], "table6"), (["--populaton", "3"], "--population N")])
def test_a_setting_that_there_is_not_gets_a_box(capsys, argv, part):
    with pytest.raises(SystemExit) as caught:
        main(["--dataset", "digits", *argv])
    assert caught.value.code == BAD_INPUT
    assert part in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "part"), [([], "--dataset is missing"), (["--dataset", "mnist"], "no data set 'mnist'")]
)
def test_the_data_set_must_be_one_that_there_is(capsys, argv, part):
    assert main(["table1", *argv]) == BAD_INPUT
    assert part in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_said_before_any_run(tmp_path, capsys):
    (tmp_path / "results").touch()
    makers = FakeMakers()
    assert str(tmp_path / "results") in refused(capsys, tmp_path, makers=makers)
    assert not makers.searched


def test_changed_settings_do_not_overwrite_the_results_of_a_preset():
    assert request_of().output == Path("experiments/results/digits-small")
    assert request_of("--data-dir", "x", dataset="cifar10").output == Path("experiments/results/cifar10-paper")
    assert request_of("--t1", "61").output.name.startswith("digits-small-")


def test_a_real_run_is_made_and_told_of(tmp_path, capsys):
    logits = write_logits(tmp_path, 1_200)
    argv = ["--dataset", "digits", *places(tmp_path), *SEARCH, "--seeds", str(SEED), "--teacher-logits", str(logits)]
    argv += ["--max-duplication-generations", "0", "table5", "figure4"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert f"Run 1 of 3: EIGEN, seed {SEED}" in shown
    assert f"Run 3 of 3: the network found trained with mimicry, seed {SEED}" in shown
    (accuracy,) = values(tmp_path, "table5", "with mimicry", "test accuracy")
    assert accuracy * 360 == pytest.approx(round(accuracy * 360), abs=1e-6)  # of the digits' test images
    assert f"jax {jax.__version__}" in (tmp_path / "results" / "table5.md").read_text()
    assert main([*argv, "--draw-only"]) == 0
