"""Training a hand-designed network from the command line, by its authors' recipe or by a common one."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands_data import contents, leave_process_alone, made_once, places, refused, write_logits
from flax import linen as nn

from eigen_jax.baselines import BASELINES
from eigen_jax.baselines.layers import drop
from eigen_jax.networks import NamedNetwork, count_flops, fingerprint
from eigen_jax.search import load_network
from eigen_jax.store import checkpoint
from experiments import baseline, evaluate, export, report, retrain
from experiments.commands import INTERRUPTED
from experiments.presets import PRESETS

own_settings = pytest.fixture(leave_process_alone, autouse=True)


class Tiny(nn.Module):
    """A convolution and its companion head, and a classifier."""

    num_classes: int
    dtype: Any = jnp.float32
    companions: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), dtype=self.dtype)(images.astype(self.dtype)))
        if self.companions and (train or self.is_initializing()):
            self.sow("companions", "logits", nn.Dense(self.num_classes, name="companion_1")(x.mean((1, 2))))
        return nn.Dense(self.num_classes, name="classifier")(drop(self, x.mean((1, 2)), 0.5, train=train))


TINY = dataclasses.replace(
    BASELINES["dsn"],
    title="Tiny",
    source="No One",
    layers=2,
    module=Tiny,
    in_training=functools.partial(Tiny, companions=True),
)
DIGITS = (8, 8, 1)
TRAINING = ("--dataset", "digits", "--preset", "smoke", "--batch-size", "8", "--eval-batch-size", "360")


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> NamedNetwork:
    """A network of the table that takes no time."""
    monkeypatch.setitem(BASELINES, "tiny", TINY)
    return NamedNetwork(name="tiny", input_shape=DIGITS)


def train(folder: Path, *argv: str, name: str = "tiny", recipe: str = "own") -> int:
    """Trains it for four steps, with all that is written in one folder."""
    own = [name, "--recipe", recipe, *TRAINING, "--final-steps", "4", *places(folder), *argv]
    with mock.patch.dict(BASELINES, tiny=TINY):
        return baseline.main(own)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of a network that has companion heads in training."""
    return made_once(tmp_path_factory, "baseline", train) / "run-dir"


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_a_run_folder_says_what_that_of_any_training_does(trained, tiny, capsys):
    network, variables = load_network(trained)
    assert network == tiny
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert not [name for name in variables["params"] if name.startswith("companion")]
    result = read(trained, "result.json")
    assert result["network"] == {
        "name": "tiny",
        "fingerprint": fingerprint(tiny),
        "layers": 2,
        "parameters": parameters,
        "flops": count_flops(tiny, num_classes=10),
    }
    assert parameters == (9 + 1) * 4 + (4 + 1) * 10
    final = 3 * 4 * 8 * (count_flops(tiny, num_classes=10) + 2 * 4 * 10)  # with the head
    assert result["training_flops"] == {"teacher": 0, "final": final, "total": final}
    assert result["seconds"]["final"] > 0
    assert result["mimicry"] is None
    # The authors trained on all images.
    assert result["final_validation_accuracy"] is None
    settings = read(trained, "settings.json")["settings"]
    told: dict[str, Any] = {
        "baseline": "tiny",
        "recipe": "own",
        "retrained": fingerprint(tiny),
        "optimizer": "dsn",
        "teacher": "none",
    }
    told |= {"loss": "squared-hinge", "learning_rate": 0.025, "preprocessing": "gcn", "final_steps": 4}
    assert {name: settings[name] for name in told} == told
    assert evaluate.main([str(trained)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"network              2 layers, {parameters:,} parameters"
    assert shown[-1] == "logits               identical to those at the end of the run, to the last bit"


def test_a_training_that_is_interrupted_goes_on_to_the_same_bits(trained, tmp_path, monkeypatch):
    save = checkpoint.save

    def save_and_stop(folder, step, items, **options):
        save(folder, step, items, **options)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        assert train(tmp_path, "--save-every", "0") == INTERRUPTED
    assert checkpoint.latest_step(tmp_path / "run-dir" / "final") == 2
    assert train(tmp_path) == 0
    chex.assert_trees_all_equal(load_network(tmp_path / "run-dir")[1], load_network(trained)[1])
    before = contents(tmp_path / "run-dir")
    assert train(tmp_path) == 0
    assert contents(tmp_path / "run-dir") == before


def test_the_network_is_exported_reported_and_trained_on(trained, tiny, tmp_path, capsys):
    line = refused(capsys, export.main, str(trained), "--to", str(tmp_path / "flax"))
    why = "tiny is hand-designed, and layer kinds alone say how they are exported in this format"
    assert line == f"{why}; use --format stablehlo"
    assert export.main([str(trained), "--to", str(tmp_path / "exported"), "--format", "stablehlo"]) == 0
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "the network is that of No One." in card
    assert "| parameters | 90 |" in card
    assert report.main([str(trained), "--output", str(tmp_path / "page.html")]) == 0
    assert "experiments.baseline" in (tmp_path / "page.html").read_text()
    argv = (*TRAINING, "--final-steps", "1", "--teacher", "none", "--learning-rate", "1e-12", *places(tmp_path))
    assert retrain.main(["--from", str(trained), *argv]) == 0
    network, after = load_network(tmp_path / "run-dir")
    assert network == tiny
    chex.assert_trees_all_close(after["params"], load_network(trained)[1]["params"], atol=1e-6)


def test_a_network_mimics_a_teacher_under_the_common_recipe(tmp_path):
    assert train(tmp_path, "--teacher-logits", str(write_logits(tmp_path, 1_200)), recipe="common") == 0
    result = read(tmp_path / "run-dir", "result.json")
    assert (result["mimicry"]["weight"], result["mimicry"]["temperature"]) == (0.9, 5.0)
    assert np.isfinite(result["final_validation_accuracy"])
    settings = read(tmp_path / "run-dir", "settings.json")["settings"]
    preset = PRESETS["digits"]["smoke"].outcome()
    assert settings["optimizer"] == "sgd-companions"
    same = ("learning_rate", "loss", "weight_decay", "preprocessing", "schedule")
    assert {name: settings[name] for name in same} == {name: preset[name] for name in same}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dsn", "resnet-20"])
def test_a_network_of_the_table_is_trained_and_evaluated(tmp_path, capsys, name):
    assert train(tmp_path, name=name) == 0
    assert evaluate.main([str(tmp_path / "run-dir")]) == 0
    assert "logits               identical to those at the end of the run" in capsys.readouterr().out


NO_NAME = "the first argument is not a network's name; python -m experiments.baseline NAME --dataset NAME"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("", NO_NAME),
        ("--dataset digits --recipe own", NO_NAME),
        (
            "resnet-100 --dataset digits --recipe own",
            "there is no baseline 'resnet-100'; did you mean resnet-110? choose",
        ),
        ("nin --dataset digits", "--recipe is missing; choose from own, common"),
        ("nin --dataset digits --recipe theirs", "there is no recipe 'theirs'; choose from own, common"),
        ("nin --recipe own", "--dataset is missing; choose from "),
        ("nin --recipe own --dataset mnist", "there is no data set 'mnist'; choose from "),
        (
            "nin --recipe own --dataset digits --preset smoke --final-steps 0",
            "--final-steps is 0; it must be at least 1",
        ),
        (
            "nin --recipe own --dataset digits --preset smoke --budget 1e6",
            "--budget is 1e+06, and 6.69e+09 training FLOPs are needed for the teacher and one step; raise it",
        ),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(tmp_path, capsys, argv, line):
    options = places(tmp_path) if argv else []
    told = refused(capsys, baseline.main, *argv.split(), *options, quiet=False)
    assert told.startswith(line)
    assert not (tmp_path / "run-dir").exists()


def test_another_recipe_in_the_same_folder_is_refused(trained, capsys):
    before = contents(trained)
    line = refused(capsys, lambda argv: train(trained.parent, recipe="common"), quiet=False)
    assert line.startswith(f"{trained} belongs to a run with other settings: ")
    assert "recipe was 'own' and is now 'common'" in line
    assert contents(trained) == before


def test_the_help_lists_the_networks_and_the_defaults_of_a_recipe(capsys):
    for argv in (["--help"], ["nin", "--recipe", "own", "--dataset", "cifar100", "--help"]):
        with pytest.raises(SystemExit) as ended:
            baseline.main(argv)
        assert ended.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "highway-19" in shown
    assert "nin-cifar100" in shown
