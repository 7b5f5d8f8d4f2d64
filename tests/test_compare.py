"""Comparing variants over seeds: what is planned, what is made once, what the table says."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from commands_data import NETWORK, TRAINING, leave_process_alone

from eigen_jax.architecture import fingerprint, to_json
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import (
    NetworkSummary,
    RunFlops,
    RunResult,
    RunSeconds,
    RunSettings,
    write_result,
    write_settings,
)
from experiments import compare
from experiments.commands import BAD_INPUT

own_settings = pytest.fixture(leave_process_alone, autouse=True)
ACCURACIES = {("plain", 0): 0.5, ("plain", 1): 0.75, ("slow", 0): 0.625, ("slow", 1): 1.0}
VARIANTS = ("--variant", "plain", "--variant", "slow: --learning-rate 0.001 --nesterov")


def result(accuracy: float) -> RunResult:
    return RunResult(
        test_accuracy=accuracy,
        mirrored_test_accuracy=None,
        trained=3,
        network=NetworkSummary(fingerprint="f", layers=1, parameters=90, flops=7_000),
        seconds=RunSeconds(search=60.0, final=2.0),
        mimicry=None,
        training_flops=RunFlops(teacher=0, search=2 * 10**12, final=10**12, total=3 * 10**12),
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of the runs that are made, each with the network that is trained; they train nothing."""
    kept: list[Any] = []

    def make(settings: Any, network: Any) -> None:
        kept.append((settings, network))
        name, _, seed = settings.run_dir.name.partition("-seed")
        described = settings.outcome() | ({"retrained": fingerprint(network)} if network else {})
        settings.run_dir.mkdir(parents=True)
        write_settings(settings.run_dir, RunSettings(settings=as_json(described)))
        write_result(settings.run_dir, result(ACCURACIES[name, int(seed)]))

    monkeypatch.setattr(compare, "make", make)
    return kept


def test_each_variant_is_made_once_a_seed_and_the_table_tells_the_difference(made, tmp_path, capsys):
    command = [*TRAINING, *VARIANTS, "--seeds", "0", "1", "--output", str(tmp_path / "table")]
    assert compare.main(command) == 0
    told = [(each.run_dir.name, each.search.seed, each.search.train.nesterov) for each, _ in made]
    assert told == [
        ("plain-seed0", 0, False),
        ("plain-seed1", 1, False),
        ("slow-seed0", 0, True),
        ("slow-seed1", 1, True),
    ]
    assert [network for _, network in made] == [None] * 4
    assert compare.main(command) == 0
    assert len(made) == 4  # all had ended
    assert compare.main([*command, "--t1", "3"]) == BAD_INPUT
    assert "--t1 was 1 and is now 3" in capsys.readouterr().err
    compare.main(command)
    text = (tmp_path / "table.md").read_text()
    assert text.strip() in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    # 12.5 and 25 points: 18.75 in the mean, a deviation of 12.5 / sqrt(2) = 8.84, of which the error is 6.25.
    assert rows[2][:3] == ["plain", "62.50 ± 17.68 (n = 2)", "the first"]
    assert rows[3][:3] == ["slow", "81.25 ± 26.52 (n = 2)", "+18.75 ± 8.84 (n = 2)"]
    assert rows[3][3:] == [
        "not measured",
        "3 ± 0.0 (n = 2)",
        "90 ± 0.0 (n = 2)",
        "7,000 ± 0.0 (n = 2)",
        "3 ± 0.0 (n = 2)",
    ]
    assert "slow, against the first by seed: +18.75 points, their standard error 6.25" in text
    assert "slow: `--learning-rate 0.001 --nesterov`" in text
    assert "searches 4.0 min, final trainings 8.0 s" in text


def test_a_network_that_is_given_is_trained_in_all(made, tmp_path, capsys):
    (tmp_path / "genome.json").write_text(to_json(NETWORK))
    given = ("--network", str(tmp_path / "genome.json"), "--output", str(tmp_path / "table"))
    assert compare.main([*TRAINING, *VARIANTS, *given]) == 0
    assert [network for _, network in made] == [NETWORK] * 2
    # What another network reached, or a search, is not told as its.
    (tmp_path / "genome.json").write_text(to_json(dataclasses.replace(NETWORK, layers=())))
    for other in (given, given[2:]):
        assert compare.main([*TRAINING, *VARIANTS, *other]) == BAD_INPUT
        assert "belongs to a run with other settings: retrained was" in capsys.readouterr().err
    assert len(made) == 2


def test_runs_are_searches_or_trainings(monkeypatch):
    calls: list[Any] = []
    monkeypatch.setattr(compare, "configure", lambda settings: settings)
    monkeypatch.setattr(compare, "search", lambda settings: calls.append(settings))
    monkeypatch.setattr(compare, "retrain", lambda settings, network: calls.append((settings, network)))
    settings: Any = SimpleNamespace()
    compare.make(settings, None)
    compare.make(settings, NETWORK)
    assert calls == [settings, (settings, NETWORK)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--output", "t"), "two or more variants"),
        (("--output", "t", "--variant", "a", "--variant", "A: --seed 3"), "two or more variants"),
        (VARIANTS, "--output"),
        ((*VARIANTS, "--output", "t", "--variant", ": --seed 3"), "it must be a name"),
        ((*VARIANTS, "--output", "t", "--variant", "c: --optimizer 'sgd"), "cannot be read (No closing quotation)"),
        ((*VARIANTS, "--output", "t", "--variant", "c: --optimizer adamw"), "adamw"),
        ((*VARIANTS, "--output", "t", "--network", "none.json"), "none.json"),
        ((*VARIANTS, "--output", "t", "--seeds", "-1"), "-1"),
        ((*VARIANTS, "--output", "t", "--run-dir=r"), "--run-dir is for a single run; use --output here"),
        ((*VARIANTS, "--output", "t", "--variant", "c: --seed 3"), "--seed is for a single run; use --seeds here"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line_before_anything_is_made(
    made, tmp_path, monkeypatch, capsys, options, told
):
    monkeypatch.chdir(tmp_path)
    assert compare.main([*TRAINING, *options]) == BAD_INPUT
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not made
    assert not list(tmp_path.iterdir())
