"""The command that makes a run again: that it says all of its settings, and where there is none."""

import functools
import shlex
from pathlib import Path
from typing import Any

import pytest
from commands_data import with_values

from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import FORMER_SETTINGS, RunSettings
from experiments.again import command_of
from experiments.command_line import parse
from experiments.presets import PRESETS
from experiments.recipes import with_recipe
from experiments.settings import Settings


def recorded(settings: Settings, **fields: Any) -> RunSettings:
    """What settings.json says of a run."""
    outcome = as_json(settings.outcome()) | {"dataset": settings.data.name, "data_fingerprint": "f"}
    return RunSettings(settings=outcome | fields, **as_json(settings.notes()))


def read(command: str | None, dataset: Any) -> Settings:
    assert command is not None
    python, option, module, *argv = shlex.split(command)
    assert (python, option, module) == ("python", "-m", f"experiments.{dataset}")
    return parse(argv, program="", dataset=dataset)


CHANGES: list[dict[str, Any]] = [
    {},
    {"seed": 3, "flip": False, "channels": (4, 8), "learning_rate": 0.0625, "decay_steps": ()},
    {"budget": 2.3e14, "final_steps": None, "kinds": ("conv", "pool", "add"), "strategy": "aging"},
    {"fitness": "accuracy-flops", "penalty_weight": 0.02, "limits": ("latency=0.001", "loss=2"), "teacher": "none"},
    {
        "strategy": "nsga2",
        "fitness": "accuracy,parameters",
        "run_dir": Path("/a folder/run"),
        "threads": 3,
        "log": ("csv",),
    },
]


@pytest.mark.parametrize("changes", CHANGES, ids=["none", "some", "no value", "a fitness", "several objectives"])
@pytest.mark.parametrize(("dataset", "preset"), [("digits", "smoke"), ("cifar10", "paper")])
def test_the_command_says_the_settings_of_a_run(dataset, preset, changes):
    settings = with_values(PRESETS[dataset][preset], changes)
    again = read(command_of(recorded(settings)), dataset)
    assert as_json(again.outcome()) == as_json(settings.outcome())
    assert str(again.run_dir) == str(settings.run_dir.absolute())
    assert again.machine == settings.machine


def test_the_nearest_preset_is_named():
    settings = with_values(PRESETS["cifar10"]["small"], {"seed": 5})
    command = command_of(recorded(settings)) or ""
    assert command.startswith("python -m experiments.cifar10 --preset small --seed 5 --run-dir ")


def test_what_older_runs_do_not_say_is_as_it_was():
    now = recorded(PRESETS["digits"]["smoke"])
    older = RunSettings(settings={name: v for name, v in now.settings.items() if name not in FORMER_SETTINGS})
    outcome = as_json(read(command_of(older), "digits").outcome())
    assert {name: outcome[name] for name in FORMER_SETTINGS} == FORMER_SETTINGS


def test_the_training_of_a_given_network_has_a_command_of_its_own():
    told = recorded(PRESETS["digits"]["smoke"], retrained="f")
    command = command_of(told, genome="/a b/genome.json") or ""
    assert command.startswith("python -m experiments.retrain '/a b/genome.json' --dataset digits --preset smoke")
    assert command_of(told) is None


@pytest.mark.parametrize(("recipe", "preset"), [("own", "paper"), ("own", "small"), ("common", "small")])
def test_the_training_of_a_hand_designed_network_is_told_by_its_name_and_its_recipe(recipe, preset):
    change = functools.partial(with_recipe, network="dsn", recipe=recipe)
    settings = with_values(change(preset, PRESETS["cifar10"][preset]), {"seed": 4})
    told = recorded(settings, retrained="f", baseline="dsn", recipe=recipe)
    command = command_of(told, genome="unused") or ""
    own = ["python", "-m", "experiments.baseline", "dsn", "--dataset", "cifar10", "--recipe", recipe]
    assert shlex.split(command)[: len(own)] == own
    argv = shlex.split(command)[len(own) :]
    assert argv[:4] == ["--preset", preset, "--seed", "4"]
    assert as_json(parse(argv, program="", dataset="cifar10", change=change).outcome()) == as_json(settings.outcome())


@pytest.mark.parametrize(
    "changes",
    [
        {"fitness": "lean:fitness 0123456789ab"},
        {"strategy": "tournament:Tournament 0123456789ab"},
        {"optimizer": "own:sgd 0123456789ab"},
        {"learning_rate": -1.0},
        {"dataset": "arrays"},
    ],
)
def test_there_is_no_command_for_what_none_can_say(changes, capsys):
    assert command_of(recorded(PRESETS["digits"]["smoke"], **changes)) is None
    assert command_of(RunSettings(settings={"dataset": "digits", "t1": 5})) is None
    assert capsys.readouterr() == ("", "")
