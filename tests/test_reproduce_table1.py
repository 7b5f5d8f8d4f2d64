"""Table 1: its rows, their runs under one protocol and budget, what it says of what was not run, and bad input."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from commands_data import SEARCH, SEED, edit
from commands_data import refused as refused_by
from paper_runs import (
    CAUSE,
    LATENCY,
    FakeMakers,
    leave_paper_alone,
    lines_of,
    places,
    refused,
    request_of,
    run,
    study_of,
    values,
)

from eigen_jax.baselines import BASELINES
from eigen_jax.networks import NamedNetwork
from eigen_jax.strategies import STRATEGIES, AgingEvolution, Strategy
from experiments import runner
from experiments.commands import INTERRUPTED
from experiments.presets import PRESETS
from experiments.recipes import COMMON, OWN
from experiments.reproduce import systems, table1
from experiments.reproduce.__main__ import main, read_names
from experiments.reproduce.request import read_request

COUNT, COUNT_TEACHER = table1._count, table1._count_teacher  # which the tests replace

no_global_settings = pytest.fixture(leave_paper_alone, autouse=True)

OF_OWN = "ours: test accuracy, own recipe"
OF_COMMON = "ours: test accuracy, common recipe"
# As Table 1 prints them, from top to bottom: title here, parameters, C10+, C100+, compute on each.
PRINTED = {
    "Maxout": ("-", 90.7, 61.4, "-", "-"),
    "Network in Network": ("-", 91.2, 64.3, "-", "-"),
    "All-CNN-C": ("1.3", 92.8, 66.3, "-", "-"),
    "Deeply Supervised Nets": ("-", 92.0, 65.4, "-", "-"),
    "Highway, 19 layers": ("2.3", 92.3, 67.6, "-", "-"),
    "ResNet-110": ("1.7", 93.4, 72.8, "-", "-"),
    "DenseNet-BC, L = 190, k = 40": ("25.6", 96.5, 82.8, "-", "-"),
    "teacher, four Wide-DenseNet-BC": ("17.2", 96.0, 82.0, "-", "-"),
    "EDEN": ("0.2", 74.5, None, "-", "-"),
    "Genetic CNN": ("-", 92.9, 71.0, "408 GPUH", "408 GPUH"),
    "Large-Scale Evolution": ("5.4 40.4", 94.6, 77.0, "64,000 GPUH", "> 65,536 GPUH"),
    "AG-Evolution": ("-", 90.5, 66.9, "72 GPUH", "136 GPUH"),
    "random search": ("-", None, None, "-", "-"),
    "aging evolution": ("-", None, None, "-", "-"),
    "EIGEN": ("2.6 11.8", 94.6, 78.1, "48 GPUH", "120 GPUH"),
}


def make(folder: Path, *argv: str, makers: FakeMakers | None = None) -> int:
    return run(folder, *argv, names=["table1"], makers=makers)


def row(folder: Path, title: str) -> list[dict[str, str]]:
    """The lines of a row of the table."""
    return [line for line in lines_of(folder / "results" / "table1.csv") if line["system"] == title]


def told(folder: Path, title: str, column: str) -> set[str]:
    """What a row says in a column in place of a number, or the numbers, of all its lines."""
    (heading,) = {name for name in row(folder, title)[0] if name.partition(" (")[0] == column}
    return {line[heading] for line in row(folder, title)} - {""}


@pytest.mark.parametrize("column", [0, 1], ids=["cifar10", "cifar100"])
def test_every_row_says_what_the_paper_prints(column):
    dataset = "cifar100" if column else "cifar10"
    rows = {each.title: each.printed for each in systems.systems(study_of(dataset=dataset))}
    # A strategy that is not in the registry has no row.
    known = {each.title for name, each in systems.SEARCHES.items() if name not in STRATEGIES}
    assert list(rows) == [title for title in PRINTED if title not in known]
    for title, printed in rows.items():
        parameters, *figures = PRINTED[title]
        accuracy, compute = figures[column], figures[2 + column]
        asked = parameters.split()[min(column, len(parameters.split()) - 1)]
        if title == "EDEN" and column:  # it has no figures on CIFAR-100
            asked = "-"
        assert printed.accuracy == (None if accuracy is None else pytest.approx(accuracy / 100)), title
        assert printed.parameters == (None if asked == "-" else pytest.approx(1e6 * float(asked))), title
        assert printed.compute == compute.strip("-"), title


def test_counts_of_the_teacher_and_of_a_network_are_those_of_the_paper():
    # By hand: four members of 4,261,690 for ten classes, and of 4,321,180 for a hundred.
    assert COUNT_TEACHER((32, 32, 3), 10)[0] == 17_046_760
    assert COUNT_TEACHER((32, 32, 3), 100)[0] == 17_284_720
    network = NamedNetwork(name="nin", input_shape=(32, 32, 3))
    assert COUNT(network, 10)[0] == 966_986
    assert COUNT(network, 10)[2] == COUNT(network, 10)[1]
    # Two a tap inside the image: 5 x 5 at 32 pixels has 5 * 32 - 2 * 3 of them along a side, 3 x 3 at 8 has 3 * 8 - 2.
    large = (154**2 * 3 * 192, 74**2 * 96 * 192, 22**2 * 192 * 192)
    ones = (32**2 * (192 * 160 + 160 * 96), 16**2 * 2 * 192**2, 8**2 * (192**2 + 192 * 10))
    taps = 2 * (sum(large) + sum(ones))
    assert COUNT(network, 10)[1] == pytest.approx(taps, rel=0.01)  # the rest is hardly any


def test_all_rows_are_told_of_with_the_numbers_of_each_seed(tmp_path, capsys):
    makers = FakeMakers()
    assert make(tmp_path, "--seeds", "0", "1", "--budget", "1e12", makers=makers) == 0
    designed = sum(each.published is not None for each in BASELINES.values())
    searches = sum(kind.max_objectives == 1 for kind in STRATEGIES.values())
    has_own = sum(kind.identities is not Strategy.identities for kind in STRATEGIES.values())
    assert len(makers.trained) == 2 * 2 * designed
    assert len(makers.searched) == 2 * (searches + has_own + 1)  # EIGEN, with mimicry
    for name, each in BASELINES.items():
        if each.published:
            assert values(tmp_path, "table1", each.title, OF_OWN) == pytest.approx(
                [0.80 + each.layers / 100_000, 0.801 + each.layers / 100_000]
            )
            assert values(tmp_path, "table1", each.title, OF_COMMON) == pytest.approx(
                [0.60 + each.layers / 100_000, 0.601 + each.layers / 100_000]
            )
            assert told(tmp_path, each.title, "parameters, counted") == {str(len(name))}
            assert values(tmp_path, "table1", each.title, "latency of one image") == [LATENCY] * 2
            assert values(tmp_path, "table1", each.title, "time") == [7.0] * 2
    # A seed each: with mimicry, and without.
    assert values(tmp_path, "table1", "EIGEN", OF_OWN) == pytest.approx([0.70, 0.71])
    for title in ("EIGEN", "random search", "aging evolution", "EDEN"):
        assert values(tmp_path, "table1", title, OF_COMMON) == pytest.approx([0.65, 0.66])
        assert values(tmp_path, "table1", title, "parameters, counted") == [2000] * 2
        assert values(tmp_path, "table1", title, "training FLOPs in all") == [1e12] * 2
        assert values(tmp_path, "table1", title, "time") == [120.0, 121.0]  # the search, and 20 s
    assert told(tmp_path, "aging evolution", OF_OWN) == {"as common"}
    assert told(tmp_path, "teacher, four Wide-DenseNet-BC", "parameters, counted") == {"4"}
    for column in (OF_OWN, OF_COMMON, "time"):
        assert told(tmp_path, "teacher, four Wide-DenseNet-BC", column) == {"not run"}
    page = (tmp_path / "results" / "table1.md").read_text()
    assert "each within 1e+12 training FLOPs" in page
    assert "- Seeds: 0, 1\n" in page
    again = FakeMakers()
    assert make(tmp_path, "--seeds", "0", "1", "--budget", "1e12", makers=again) == 0
    assert (again.searched, again.trained) == ([], [])
    assert " 0 begun, 0 missing" in capsys.readouterr().out
    assert (tmp_path / "results" / "table1.md").read_text() == page


def runs_of(*argv: str, dataset: str = "digits") -> dict[tuple[str, str], systems.Search | systems.HandDesigned]:
    """The run of the first seed of each system by each recipe."""
    rows = systems.systems(study_of(*argv, dataset=dataset))
    return {(row.name, recipe): own[0] for row in rows for recipe, own in row.runs.items()}


def test_all_runs_have_one_budget_and_one_common_recipe():
    was = request_of().settings
    for (name, recipe), each in runs_of("--budget", "7e11").items():
        settings = each.settings
        assert settings.search.budget == 7e11
        assert settings.teacher == ("cache" if (name, recipe) == ("eigen", OWN) else "none")
        if recipe == COMMON:
            optimizer = BASELINES[name].common_optimizer if name in BASELINES else was.search.train.optimizer
            assert settings.search.train == dataclasses.replace(was.search.train, optimizer=optimizer)
            assert settings.data.preprocessing == was.data.preprocessing
        if name in BASELINES and recipe == OWN:
            own = BASELINES[name].recipe
            assert settings.search.train.learning_rate == own.train.learning_rate
            assert settings.data.preprocessing == own.preprocessing
        elif recipe == COMMON:
            assert settings.search.final_steps == was.search.final_steps == 550
        if name not in BASELINES:
            assert settings.strategy == name


def test_a_search_of_weights_that_are_inherited_is_tested_with_those(monkeypatch):
    class Inheriting(AgingEvolution):
        """Hands weights down.

        Exact: all.

        Decided: nothing
        at all.
        """

        def identities(self, genome):
            return (0,)

    monkeypatch.setitem(STRATEGIES, "inheriting", Inheriting)
    runs = runs_of()
    assert runs["inheriting", OWN].settings.search.final_steps == 0
    assert runs["inheriting", COMMON].settings.search.final_steps == 550
    last = systems.systems(study_of())[-1]  # a strategy that Table 1 does not know
    assert (last.title, last.about, last.exact, last.decided) == (
        "inheriting",
        "Hands weights down.",
        ("all.",),
        ("nothing at all.",),
    )
    assert last.printed == systems.Printed()
    assert systems.systems(study_of("--final-steps", "0"))[-1].own.startswith("as common")
    # Where the own recipe is the common one, the run is the same.
    assert runs["aging", OWN] is runs["aging", COMMON]


def test_every_preset_can_be_compared():
    for dataset in ("digits", "cifar10"):
        for preset in PRESETS[dataset]:
            systems.check(request_of("--preset", preset, dataset=dataset))


def test_fewer_are_trained_ahead_than_the_population_has():
    for (name, _), each in runs_of("--population", "4", "--ahead", "2").items():
        assert name in BASELINES or each.settings.search.evolution.ahead == 2
    for (name, _), each in runs_of("--population", "4").items():
        assert name in BASELINES or each.settings.search.evolution.ahead == 3


def test_a_strategy_of_several_objectives_is_no_row():
    assert "nsga2" in STRATEGIES
    assert "nsga2" not in systems.names()


def test_without_a_budget_it_is_about_what_eigen_takes():
    # Digits, small: 6 to T1 = 60, 3 for 190 more, 2 for 300 more, in 2 + 1 + 1 generations; 550 steps in the end.
    steps = (6 * 60 + 3 * 190 + 2 * 300) * 4 + 550
    # Of batches of 64 images, with three forward passes of a quarter of 4 M FLOPs each.
    assert systems.budget(request_of().settings) == pytest.approx(3 * 64 * 1e6 * steps, rel=0.05)
    assert systems.budget(request_of().settings) == 1.3e12  # two digits
    paper = request_of("--preset", "paper", dataset="cifar10").settings
    steps = (10 * 5_000 + 5 * 15_000 + 2 * 5_000) * 20 + 25_000  # twenty of as many generations as there may be
    assert systems.budget(paper) == pytest.approx(3 * 128 * 2.5e9 * steps, rel=0.05)
    assert systems.budget(request_of("--preset", "hour", dataset="cifar10").settings) == 2.3e14
    assert systems.budget(request_of("--population", "3").settings) < 1.3e12


def test_only_some_systems_are_run_and_all_that_have_finished_are_told_of(tmp_path):
    makers = FakeMakers()
    assert make(tmp_path, "--only", "random", "nin", "random", "--recipes", "common", makers=makers) == 0
    assert (len(makers.trained), len(makers.searched)) == (1, 1)
    assert told(tmp_path, "Network in Network", OF_OWN) == {"not run"}
    assert told(tmp_path, "EIGEN", OF_COMMON) == told(tmp_path, "EIGEN", "time") == {"not run"}
    assert told(tmp_path, "EIGEN", "published: parameters") == {"2600000.0"}
    assert make(tmp_path, "--only", "aging", makers=makers) == 0
    assert (len(makers.trained), len(makers.searched)) == (1, 2)
    for title, accuracy in (("aging evolution", 0.65), ("random search", 0.65), ("Network in Network", 0.60009)):
        assert values(tmp_path, "table1", title, OF_COMMON) == pytest.approx([accuracy])
    page = (tmp_path / "results" / "table1.md").read_text()
    assert page.count("1,200 images to train on") == 1
    # Drawing alone tells of what has finished, whatever else is asked for.
    assert make(tmp_path, "--draw-only") == 0
    assert values(tmp_path, "table1", "aging evolution", OF_COMMON) == pytest.approx([0.65])
    assert told(tmp_path, "EIGEN", OF_COMMON) == {"not run"}


def test_of_a_network_that_is_trained_by_its_own_recipe_alone_that_is_told(tmp_path):
    assert make(tmp_path, "--only", "nin", "--recipes", "own") == 0
    assert values(tmp_path, "table1", "Network in Network", "latency of one image") == [LATENCY]
    assert told(tmp_path, "Network in Network", OF_COMMON) == {"not run"}


def test_what_the_budget_does_not_pay_for_says_so_and_the_rest_is_made(tmp_path, capsys):
    makers = FakeMakers(too_dear=("nin", "random"), too_large=("maxout",))
    argv = ("--only", "nin", "random", "aging", "maxout", "--budget", "1e6")
    assert make(tmp_path, *argv, makers=makers) == 0
    shown = capsys.readouterr().out
    assert shown.count("--budget is 1e+06; raise it") == 3  # two recipes, and a search
    assert told(tmp_path, "Network in Network", OF_OWN) == {"budget too small"}
    assert told(tmp_path, "random search", OF_COMMON) == {"budget too small"}
    assert shown.count("training takes 25 GB of memory, too much for the machine's 24 GB; make batches smaller") == 2
    assert told(tmp_path, "Maxout", OF_COMMON) == {"memory too small"}
    assert values(tmp_path, "table1", "aging evolution", OF_COMMON) == pytest.approx([0.65])
    numbers = [int(number) for number in re.findall(r"Run (\d) of 6", shown)]
    assert numbers == sorted(numbers)
    assert numbers[-1] <= 6


def test_a_network_that_the_budget_does_not_pay_for_says_so_without_an_attempt(tmp_path, monkeypatch):
    monkeypatch.setattr(table1, "_count", lambda network, classes: (1, 1, 200 if network.name == "nin" else 100))
    # A step of 64 images takes 3 * 64 * 100 FLOPs; by its own recipe, Maxout has batches of 128.
    assert make(tmp_path, "--only", "aging", "--budget", f"{3 * 64 * 100}") == 0
    for title, own, common in (
        ("Network in Network", "budget too small", "budget too small"),
        ("Maxout", "budget too small", "not run"),
        ("DenseNet-BC, L = 190, k = 40", "not run", "not run"),  # whose authors' batches are of 64, too
    ):
        assert (told(tmp_path, title, OF_OWN), told(tmp_path, title, OF_COMMON)) == ({own}, {common})


def test_a_budget_that_pays_for_no_row_is_refused(tmp_path, capsys):
    makers = FakeMakers(too_dear=("nin", "random"))
    argv = ("--only", "nin", "random", "--budget", "1e6")
    line = refused(capsys, tmp_path, *argv, names=["table1"], makers=makers)
    assert line == "table1: none of its runs can be made; of the first, --budget is 1e+06; raise it"
    assert not (tmp_path / "results" / "table1.md").exists()


def test_a_real_budget_that_not_one_individual_fits_into_is_refused(tmp_path, capsys):
    argv = ("--dataset", "digits", *SEARCH, *places(tmp_path), "--budget", "1000", "--only")
    line = refused_by(capsys, lambda argv: main(["table1", *argv]), *argv, "random", "nin", quiet=False)
    assert line.startswith("table1: none of its runs can be made; of the first, --budget is 1e+03, and ")


def test_a_training_that_diverged_and_a_search_without_survivors_have_notes(tmp_path):
    assert make(tmp_path, "--only", "nin", makers=FakeMakers(diverges=True)) == 0
    page = (tmp_path / "results" / "table1.md").read_text()
    assert f"Network in Network, own recipe, seed 0: the training failed ({CAUSE}), so it has no accuracy." in page
    assert told(tmp_path, "Network in Network", OF_COMMON) == {"not measured"}
    assert make(tmp_path, "--only", "random", makers=FakeMakers(nothing_survives=True)) == 0
    page = (tmp_path / "results" / "table1.md").read_text()
    assert "random search, common recipe, seed 0: no network survived all landmarks." in page


def test_an_interrupted_command_goes_on(tmp_path):
    first, second = FakeMakers(interrupt_at=3), FakeMakers()
    argv = ("--only", "nin", "dsn", "eigen")
    assert make(tmp_path, *argv, makers=first) == INTERRUPTED
    assert make(tmp_path, *argv, makers=second) == 0
    made = [*first.trained, *first.searched, *second.trained, *second.searched]
    assert len(made) == len(set(made)) == 6


def test_the_page_of_systems_says_of_each_what_is_exact_and_the_command_that_makes_it(tmp_path):
    assert make(tmp_path, "--only", "nin", "--seeds", "3", "4", "--budget", "1e12") == 0
    page = (tmp_path / "results" / "table1-systems.md").read_text()
    sections = dict(section.split("\n", 1) for section in page.split("\n## ")[1:])
    titles = [line["system"] for line in lines_of(tmp_path / "results" / "table1.csv")]
    assert list(sections) == list(dict.fromkeys(titles))
    for name, each in BASELINES.items():
        if each.published:
            for item in (*each.exact, *each.decided):
                assert f"\n- {item}\n" in sections[each.title]
            (command,) = re.findall(r"```\n(.*)\n```", sections[each.title])
            assert shlex.split(command)[3:6] == ["table1", "--dataset", "digits"]
            names, options = read_names(shlex.split(command)[3:])
            asked = read_request(options, about="")
            assert (names, asked.only, asked.seeds) == (("table1",), (name,), (3, 4))
            assert asked.settings.search.budget == 1e12
    assert "- as the abstract says, architectures evolve together" in sections["EDEN"]
    assert "Own recipe: as common" in sections["aging evolution"]
    assert "mimic a teacher" in sections["EIGEN"]
    assert "```" not in sections["teacher, four Wide-DenseNet-BC"]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("--only", "resnet"), "there is no system 'resnet'; did you mean resnet-110? choose from maxout, nin"),
        (("--only", "nsga2"), "there is no system 'nsga2'; choose from"),
        (("--recipes", "theirs"), "there is no recipe 'theirs'; choose from own, common"),
        (("--budget", "0"), "--budget is 0"),
        (("--sample-size", "7"), "--sample-size is 7; it must be at most --population, which is 6"),
    ],
)
def test_a_wrong_command_line_gets_one_line(tmp_path, capsys, argv, part):
    makers = FakeMakers()
    assert part in refused(capsys, tmp_path, *argv, names=["table1"], makers=makers)
    assert not makers.searched
    assert not makers.trained


def test_systems_are_chosen_of_table_1_alone(tmp_path, capsys):
    line = refused(capsys, tmp_path, "--only", "nin", names=["table1", "table2"])
    assert line == "--only and --recipes are of table1; ask for it alone, or leave them out"


def folder_of(folder: Path, name: str, recipe: str = COMMON, *argv: str) -> Path:
    return runs_of(*places(folder), *argv)[name, recipe].folder


def test_a_folder_of_another_strategy_or_recipe_is_refused(tmp_path, capsys):
    assert make(tmp_path, "--only", "nin", "eden") == 0
    for name, setting, was, value, part in (
        ("eden", "strategy", "eden", "aging", "--strategy was 'aging' and is now 'eden'"),
        ("nin", "recipe", "common", "own", "recipe was 'own' and is now 'common'"),
        ("nin", "baseline", "nin", "dsn", "baseline was 'dsn' and is now 'nin'"),
    ):
        path = folder_of(tmp_path, name) / "settings.json"
        whole = path.read_bytes()
        changed = whole.replace(f'"{setting}": "{was}"'.encode(), f'"{setting}": "{value}"'.encode())
        assert changed != whole
        path.write_bytes(changed)
        assert part in refused(capsys, tmp_path, "--only", "nin", "eden", names=["table1"])
        path.write_bytes(whole)


def test_a_search_does_not_go_on_in_the_folder_of_another_strategy(tmp_path, capsys):
    assert make(tmp_path, "--only", "eden", "--preset", "smoke") == 0
    folder = folder_of(tmp_path, "eden", COMMON, "--preset", "smoke")
    argv = ["--preset", "smoke", "--teacher", "none", "--budget", "6e10"]
    argv += ["--run-dir", str(folder), "--cache-dir", str(tmp_path / "cache")]
    line = refused_by(capsys, lambda argv: runner.main("digits", argv), *argv, "--strategy", "aging", quiet=False)
    assert line.startswith(f"{folder} belongs to a run with other settings: ")
    assert "--strategy was 'eden' and is now 'aging'" in line


def test_runs_of_other_images_are_not_told_of_together_whatever_their_preprocessing(tmp_path, capsys):
    assert make(tmp_path, "--only", "nin") == 0
    noted = folder_of(tmp_path, "nin", OWN) / "machine.json"
    edit(noted, lambda content: content["data"].update(fingerprint="0" * 64))
    line = refused(capsys, tmp_path, "--only", "nin", names=["table1"])
    assert line.startswith("Network in Network, own recipe, seed 0 was made with other data (fingerprint 000000000000")


@pytest.mark.slow
def test_a_real_table_is_made(tmp_path):
    argv = ["table1", "--dataset", "digits", *SEARCH, "--seeds", str(SEED), "--budget", "4e9", "--max-children", "2"]
    argv += [*places(tmp_path), "--only", "nin", "random", "--recipes", "common"]
    assert main(argv) == 0
    for title in ("Network in Network", "random search"):
        (accuracy,) = values(tmp_path, "table1", title, OF_COMMON)
        assert accuracy * 360 == pytest.approx(round(accuracy * 360), abs=1e-6)  # of the digits' test images
        (flops,) = values(tmp_path, "table1", title, "training FLOPs in all")
        assert 0 < flops <= 4e9
        (seconds,) = values(tmp_path, "table1", title, "latency of one image")
        assert 0 < seconds < 10
    assert main([*argv, "--draw-only"]) == 0


def test_without_a_teacher_the_row_of_eigen_is_of_the_searches_of_the_other_tables(tmp_path):
    argv = ("--preset", "hour", *places(tmp_path))  # which has a budget, and no teacher
    study = study_of(*argv, dataset="cifar10")
    row = systems.systems(study)[-1]
    assert row.title == "EIGEN"
    assert row.runs[OWN] is row.runs[COMMON]
    assert [each.folder for each in row.runs[COMMON]] == [each.folder for each in study.eigen]
