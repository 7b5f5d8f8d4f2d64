"""Training a network from its genome.json alone, as a user meets it."""

import json
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest
from commands_data import (
    NETWORK,
    TRAINING,
    contents,
    leave_process_alone,
    places,
    refused,
    train,
    trained_network,
    write_logits,
)
from refusals import refuses
from sklearn import metrics

from eigen_jax.architecture import (
    Architecture,
    ArchitectureError,
    Layer,
    count_flops,
    count_parameters,
    fingerprint,
    to_json,
)
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.search import load_network
from eigen_jax.store import checkpoint
from experiments import retrain
from experiments.commands import INTERRUPTED
from experiments.networks import of_images

EMPTY = Architecture(input_shape=(8, 8, 1), layers=())
NO_FILE = "cannot read {folder}/none.json: No such file or directory; name the genome.json of a network"
CHOOSE = "choose from cifar10, cifar100, digits"
own_settings = pytest.fixture(leave_process_alone, autouse=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of a finished training, with its genome.json beside it."""
    return trained_network(tmp_path_factory) / "run-dir"


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def accuracy_by_hand(variables, images, labels) -> float:
    logits: Any = build_network(NETWORK, num_classes=10).apply(variables, images[:], train=False)
    return float(np.mean(np.argmax(np.asarray(logits), axis=-1) == np.asarray(labels)))


def test_a_network_is_trained_from_its_file_alone(trained, tmp_path):
    config = DataConfig(name="digits", validation_size=237, preprocessing="standardize", cache_dir=tmp_path)
    digits = load_dataset(config)
    architecture, variables = load_network(trained)
    assert architecture == NETWORK
    result = read(trained, "result.json")
    validation = accuracy_by_hand(variables, digits.validation_images, digits.validation_labels)
    assert result["final_validation_accuracy"] == pytest.approx(validation, abs=1e-9)
    tested = accuracy_by_hand(variables, digits.test_images, digits.test_labels)
    assert result["test_accuracy"] == pytest.approx(tested, abs=1e-9)
    logits = build_network(NETWORK, num_classes=10).apply(variables, digits.test_images[:], train=False)
    truth, predicted = np.asarray(digits.test_labels), np.argmax(np.asarray(logits), axis=-1)
    assert result["confusion"] == metrics.confusion_matrix(truth, predicted, labels=range(10)).tolist()
    assert result["network"] == {
        "fingerprint": fingerprint(NETWORK),
        "layers": 1,
        "parameters": count_parameters(NETWORK, num_classes=10),
        "flops": count_flops(NETWORK, num_classes=10),
    }
    assert (result["mimicry"], result["dtype"], result["final_cause"]) == (None, "float32", None)
    assert result["seconds"]["final"] > 0
    settings = read(trained, "settings.json")["settings"]
    assert settings["retrained"] == fingerprint(NETWORK)
    assert settings["data_fingerprint"] == digits.fingerprint
    assert settings["final_steps"] == 6


def test_a_training_that_is_interrupted_goes_on_to_the_same_bits_and_then_trains_no_further(
    trained, tmp_path, monkeypatch, capsys
):
    save, saved = checkpoint.save, []

    def save_and_stop(folder, step, items, **options):
        save(folder, step, items, **options)
        saved.append(step)
        if step == 4:
            raise KeyboardInterrupt

    folder = tmp_path / "run-dir"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        assert train(tmp_path, "--save-every", "0") == INTERRUPTED
    assert capsys.readouterr().err == "interrupted; the same command goes on from what was saved last\n"
    assert saved == [1, 2, 3, 4]
    assert not (folder / "network").exists()
    assert train(tmp_path) == 0
    chex.assert_trees_all_equal(load_network(folder)[1], load_network(trained)[1])
    result = read(folder, "result.json")
    assert result["test_logits"] == read(trained, "result.json")["test_logits"]
    before = contents(folder)
    capsys.readouterr()
    assert train(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"validation accuracy  {100 * result['final_validation_accuracy']:.1f} %",
        f"test accuracy        {100 * result['test_accuracy']:.1f} %",
        f"run folder           {folder}",
    ]
    assert contents(folder) == before


def test_a_network_mimics_the_logits_of_a_file_on_all_images_and_their_mirror_images(tmp_path, capsys):
    logits = write_logits(tmp_path, 1_437)
    assert train(tmp_path, "--teacher-logits", str(logits), "--final-on", "train+validation", "--flip") == 0
    result = read(tmp_path / "run-dir", "result.json")
    fingerprint = read(tmp_path / "run-dir", "settings.json")["settings"]["teacher_fingerprint"]
    assert result["mimicry"] == {"teacher": fingerprint, "weight": 0.9, "temperature": 5.0}
    assert len(fingerprint) == 64
    assert result["final_validation_accuracy"] is None
    out, mirrored = capsys.readouterr().out, f"{100 * result['mirrored_test_accuracy']:.1f} %"
    assert "validation accuracy" not in out
    assert f"test accuracy        {mirrored} by the mean logits of an image and its mirror image\n" in out


def test_a_training_with_other_settings_or_of_another_network_is_refused(trained, tmp_path, capsys):
    before = contents(trained)
    argv = (*TRAINING, "--teacher", "none", *places(trained.parent))
    own, changes = str(trained.parent / "genome.json"), ("--final-steps", "7", "--seed", "1")
    told = "--final-steps was 6 and is now 7, --seed was 0 and is now 1; choose another folder"
    line = f"{trained} belongs to a run with other settings: {told}"
    assert refused(capsys, retrain.main, own, *argv, *changes) == line
    (tmp_path / "other.json").write_text(to_json(EMPTY))
    line = refused(capsys, retrain.main, str(tmp_path / "other.json"), *argv)
    assert f"retrained was '{fingerprint(NETWORK)[:24]}...' and is now '{fingerprint(EMPTY)[:24]}...'; " in line
    assert contents(trained) == before


def test_a_budget_pays_for_as_many_steps_as_fit(trained, tmp_path, capsys):
    assert read(trained, "result.json")["training_flops"]["total"] > 0
    # Without a budget, `train` asks for six.
    step = 3 * count_flops(NETWORK, num_classes=10) * read(trained, "settings.json")["settings"]["batch_size"]
    argv = ["--budget", str(9.5 * step)]
    assert train(tmp_path, *argv) == 0
    expected = {"teacher": 0, "final": 9 * step, "total": 9 * step}
    assert read(tmp_path / "run-dir", "result.json")["training_flops"] == expected
    assert checkpoint.latest_step(tmp_path / "run-dir" / "final") == 9
    (tmp_path / "less").mkdir()
    line = refused(capsys, lambda argv: train(tmp_path / "less", *argv), "--budget", str(step - 1), quiet=False)
    assert "training FLOPs are needed for the teacher and one step; raise it" in line
    assert not (tmp_path / "less" / "run-dir").exists()


def test_training_that_diverges_gets_one_line_and_no_network(tmp_path, capsys):
    argv = ("--learning-rate", "1e30")
    line = refused(capsys, lambda argv: train(tmp_path, *argv, architecture=EMPTY), *argv, quiet=False)
    assert line.startswith("training diverged by step 6: ")
    assert line.endswith("; lower the learning rate")
    assert not (tmp_path / "run-dir" / "network").exists()
    result = read(tmp_path / "run-dir", "result.json")
    assert result["final_cause"] == line
    assert (result["test_accuracy"], result["final_validation_accuracy"], result["test_logits"]) == (None, None, None)


def test_training_goes_on_from_the_weights_of_another_run(trained, tmp_path, capsys):
    argv = (*TRAINING, "--teacher", "none", "--learning-rate", "1e-12", *places(tmp_path))
    assert retrain.main(["--from", str(trained), *argv]) == 0
    before, after = load_network(trained)[1], load_network(tmp_path / "run-dir")[1]
    chex.assert_trees_all_close(after["params"], before["params"], atol=1e-6)
    settings = read(tmp_path / "run-dir", "settings.json")["settings"]
    assert settings["retrained"] == fingerprint(NETWORK)
    # From scratch, it is another run.
    scratch = refused(capsys, retrain.main, str(trained.parent / "genome.json"), *argv)
    assert "started_from was '" in scratch
    both = refused(capsys, retrain.main, str(trained.parent / "genome.json"), "--from", str(trained), *argv)
    assert both == f"{trained.parent}/genome.json and --from {trained} both name a network; leave one out"
    missing = refused(capsys, retrain.main, "--from", str(tmp_path), *argv)
    assert missing.startswith(f"cannot read {tmp_path}/network/genome.json: No such file")


def images_of(shape: tuple[int, ...], classes: int, name: str) -> Dataset:
    part = np.random.default_rng(0).normal(size=(2 * classes, *shape)), np.arange(2 * classes) % classes
    return Dataset.from_arrays(part, part, part, name=name)


def test_a_network_goes_over_to_images_of_another_size_and_no_other_channels():
    halving = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="pool", inputs=(-1,)),))
    assert of_images(NETWORK, images_of((5, 9, 1), 3, "others")).input_shape == (5, 9, 1)
    assert of_images(NETWORK, images_of((5, 9, 1), 3, "others")).layers == NETWORK.layers
    for architecture, shape in ((NETWORK, (8, 8, 3)), (halving, (1, 1, 1))):
        told = "the network was trained on images of 8 x 8 x 1, and its layers do not take those of others, "
        told += f"{' x '.join(map(str, shape))}; choose images of that size and those channels"
        with refuses(ArchitectureError, told):
            of_images(architecture, images_of(shape, 3, "others"))


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            "--dataset digits",
            "the first argument is not a network's genome.json; python -m experiments.retrain GENOME|--from RUN"
            " --dataset NAME [--SETTING VALUE ...]",
        ),
        ("", f"--dataset is missing; {CHOOSE}"),
        ("{genome}", f"--dataset is missing; {CHOOSE}"),
        ("{genome} --dataset cifar", f"there is no data set 'cifar'; did you mean cifar10? {CHOOSE}"),
        ("{genome} --dataset digits --final-steps 0", "--final-steps is 0; it must be at least 1 to train a network"),
        ("{genome} --dataset digits --teacher-depth 11", "--teacher-depth is 11; it must be 6 n + 4"),
        ("{folder}/none.json --dataset digits", NO_FILE),
        ("{folder}/damaged.json --dataset digits", "{folder}/damaged.json: "),
        (
            "{folder}/cifar.json --dataset digits",
            "the network takes images of 32 x 32 x 3, and those of digits are 8 x 8 x 1; choose the data set it is for",
        ),
        ("{genome} --dataset digits --preset smoke --batch-size 1201", "--batch-size is 1201; "),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(trained, tmp_path, capsys, argv, line):
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "damaged.json").write_text('{"schema_version": 1, "layers"')
    (folder / "cifar.json").write_text(to_json(Architecture(input_shape=(32, 32, 3), layers=())))
    argv = argv.format(genome=trained.parent / "genome.json", folder=folder).split()
    own = [*places(tmp_path), f"--cache-dir={trained.parent / 'cache-dir'}"]
    assert refused(capsys, retrain.main, *argv, *own).startswith(line.format(folder=folder))
    assert list(tmp_path.iterdir()) == [folder]
