"""Training a network from its genome.json alone, as a user meets it."""

import json
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest

from eigen_jax import checkpoint
from eigen_jax.architecture import Architecture, Layer, count_flops, count_parameters, fingerprint, to_json
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.search import load_network
from experiments import retrain
from experiments.runner import BAD_INPUT, INTERRUPTED

NETWORK = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=2),))
TINY = (
    *("--dataset", "digits", "--preset", "smoke", "--teacher", "none", "--final-steps", "6"),
    *("--eval-batch-size", "360", "--t1", "1", "--t2", "1", "--t3", "1", "--decay-steps"),
)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch) -> None:
    """Neither logging nor JAX is set up, whatever the command does."""
    monkeypatch.setattr(retrain, "configure", lambda settings: settings)


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "genome.json"
    path.write_text(to_json(NETWORK))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache) -> Dataset:
    """The data that the preset asks for."""
    return load_dataset(DataConfig(name="digits", validation_size=237, preprocessing="standardize", cache_dir=cache))


@pytest.fixture(scope="module")
def trained(genome, cache, tmp_path_factory) -> Path:
    """The run folder of a finished training."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrain, "configure", lambda settings: settings)
        assert run(genome, cache, folder) == 0
    return folder


def run(genome: Path, cache: Path, folder: Path, *argv: str) -> int:
    return retrain.main([str(genome), *TINY, f"--cache-dir={cache}", f"--run-dir={folder}", *argv])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *argv: str) -> str:
    """The line that bad input gets."""
    capsys.readouterr()
    assert retrain.main(argv) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n")


def accuracy_by_hand(variables, images, labels) -> float:
    logits: Any = build_network(NETWORK, num_classes=10).apply(variables, images, train=False)
    return float(np.mean(np.argmax(np.asarray(logits), axis=-1) == np.asarray(labels)))


def test_a_network_is_trained_from_its_file_alone(trained, digits):
    architecture, variables = load_network(trained)
    assert architecture == NETWORK
    result = json.loads((trained / "result.json").read_text())
    validation = accuracy_by_hand(variables, digits.validation_images, digits.validation_labels)
    assert result["final_validation_accuracy"] == pytest.approx(validation, abs=1e-9)
    tested = accuracy_by_hand(variables, digits.test_images, digits.test_labels)
    assert result["test_accuracy"] == pytest.approx(tested, abs=1e-9)
    assert result["network"] == {
        "fingerprint": fingerprint(NETWORK),
        "layers": 1,
        "parameters": count_parameters(NETWORK, num_classes=10),
        "flops": count_flops(NETWORK, num_classes=10),
    }
    assert result["mimicry"] is None
    assert result["dtype"] == "float32"
    assert result["final_cause"] is None
    assert result["seconds"]["final"] > 0
    settings = json.loads((trained / "settings.json").read_text())["settings"]
    assert settings["retrained"] == fingerprint(NETWORK)
    assert settings["data_fingerprint"] == digits.fingerprint
    assert settings["final_steps"] == 6


def test_the_same_command_trains_no_further_and_tells_the_same(trained, genome, cache, capsys):
    before = contents(trained)
    assert run(genome, cache, trained) == 0
    result = json.loads(before["result.json"])
    assert capsys.readouterr().out.splitlines() == [
        f"validation accuracy  {100 * result['final_validation_accuracy']:.1f} %",
        f"test accuracy        {100 * result['test_accuracy']:.1f} %",
        f"run folder           {trained}",
    ]
    assert contents(trained) == before


def test_a_training_that_is_interrupted_goes_on_to_the_same_bits(trained, genome, cache, tmp_path, monkeypatch, capsys):
    save, saved = checkpoint.save, []

    def save_and_stop(folder, step, items, **options):
        save(folder, step, items, **options)
        saved.append(step)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        assert run(genome, cache, tmp_path / "run", "--save-every", "0") == INTERRUPTED
    assert capsys.readouterr().err == "interrupted; the same command goes on from what was saved last\n"
    assert saved == [1, 2, 3, 4]
    assert not (tmp_path / "run" / "network").exists()
    assert run(genome, cache, tmp_path / "run") == 0
    chex.assert_trees_all_equal(load_network(tmp_path / "run")[1], load_network(trained)[1])
    results = [json.loads((folder / "result.json").read_text()) for folder in (tmp_path / "run", trained)]
    assert results[0]["test_logits"] == results[1]["test_logits"]


def test_a_network_mimics_the_logits_of_a_file_on_all_images(genome, cache, tmp_path, capsys):
    np.save(tmp_path / "logits.npy", np.random.default_rng(0).normal(size=(1437, 10)).astype(np.float32))
    argv = ("--teacher", "cache", "--teacher-logits", str(tmp_path / "logits.npy"), "--final-on", "train+validation")
    assert run(genome, cache, tmp_path / "run", *argv) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    fingerprint = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["teacher_fingerprint"]
    assert result["mimicry"] == {"teacher": fingerprint, "weight": 0.9, "temperature": 5.0}
    assert len(fingerprint) == 64
    assert result["final_validation_accuracy"] is None
    assert "validation accuracy" not in capsys.readouterr().out


def test_a_training_with_other_settings_or_of_another_network_is_refused(trained, genome, cache, tmp_path, capsys):
    before = contents(trained)
    folders = (f"--cache-dir={cache}", f"--run-dir={trained}")
    line = refused(capsys, str(genome), *TINY, *folders, "--final-steps", "7", "--seed", "1")
    assert line == (
        f"{trained} belongs to a run with other settings: --final-steps was 6 and is now 7, --seed was 0 and is now 1;"
        " choose another folder"
    )
    other = Architecture(input_shape=(8, 8, 1), layers=())
    (tmp_path / "other.json").write_text(to_json(other))
    line = refused(capsys, str(tmp_path / "other.json"), *TINY, *folders)
    assert f"retrained was '{fingerprint(NETWORK)[:24]}...' and is now '{fingerprint(other)[:24]}...'; " in line
    assert contents(trained) == before


def test_training_that_diverges_gets_one_line_and_no_network(genome, cache, tmp_path, capsys):
    folder = tmp_path / "run"
    capsys.readouterr()
    assert run(genome, cache, folder, "--learning-rate", "1e30") == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: training diverged by step 6: ")
    assert error.endswith("; lower the learning rate\n")
    assert error.count("\n") == 1
    assert not (folder / "network").exists()
    result = json.loads((folder / "result.json").read_text())
    assert result["final_cause"] == error.removeprefix("error: ").rstrip("\n")
    assert (result["test_accuracy"], result["final_validation_accuracy"], result["test_logits"]) == (None, None, None)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["--dataset", "digits"],
            "the first argument is not a network's genome.json; python -m experiments.retrain GENOME --dataset NAME"
            " [--SETTING VALUE ...]",
        ),
        ([], "--dataset is missing; choose from cifar10, cifar100, digits"),
        (["{genome}"], "--dataset is missing; choose from cifar10, cifar100, digits"),
        (
            ["{genome}", "--dataset", "cifar"],
            "there is no data set 'cifar'; did you mean cifar10? choose from cifar10, cifar100, digits",
        ),
        (["{genome}", "--dataset", "digits", "--final-steps", "-1"], "--final-steps is -1; it must be at least 0"),
        (
            ["{genome}", "--dataset", "digits", "--final-steps", "0"],
            "--final-steps is 0; it must be at least 1 to train a network",
        ),
        (
            ["{genome}", "--dataset", "digits", "--teacher-depth", "11"],
            "--teacher-depth is 11; it must be 6 n + 4",
        ),
        (["{genome}", "--dataset", "digits", "--final-step", "5"], "there is no setting '--final-step'; "),
        (
            ["{folder}/none.json", "--dataset", "digits"],
            "cannot read {folder}/none.json: No such file or directory; name the genome.json of a network",
        ),
        (["{folder}/damaged.json", "--dataset", "digits"], "{folder}/damaged.json: "),
        (
            ["{folder}/cifar.json", "--dataset", "digits"],
            "the network takes images of 32 x 32 x 3, and those of digits are 8 x 8 x 1; choose the data set it is for",
        ),
        (
            ["{genome}", "--dataset", "digits", "--preset", "smoke", "--batch-size", "1201"],
            "--batch-size is 1201; ",
        ),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(genome, cache, tmp_path, capsys, argv, line):
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "damaged.json").write_text('{"schema_version": 1, "layers"')
    (folder / "cifar.json").write_text(to_json(Architecture(input_shape=(32, 32, 3), layers=())))
    places = [f"--cache-dir={cache}", f"--run-dir={tmp_path / 'run'}", f"--teacher-dir={tmp_path / 'teacher'}"]
    argv = [each.format(genome=genome, folder=folder) for each in argv]
    assert refused(capsys, *argv, *places).startswith(line.format(folder=folder))
    assert list(tmp_path.iterdir()) == [folder]
