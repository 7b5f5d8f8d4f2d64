"""Evaluating a saved network: the same logits in a new process, and one clear line for what cannot be evaluated."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from commands_data import (
    NETWORK,
    contents,
    edit,
    float_dtypes,
    leave_process_alone,
    refused,
    train,
    trained_network,
    watch_dtypes,
)
from sklearn import metrics

from eigen_jax.architecture import Architecture, Layer, to_json
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.networks import build_network
from eigen_jax.search import load_network
from eigen_jax.store import checkpoint
from eigen_jax.training import predict
from experiments import evaluate

ROOT = Path(__file__).resolve().parents[1]
WIDER = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(-1,), channels=5, kernel=3, stride=1),))
OF_CIFAR = Architecture(input_shape=(32, 32, 3), layers=NETWORK.layers)

LOGITS = "logits               "
SAME = f"{LOGITS}identical to those at the end of the run, to the last bit"
UNKNOWN = f"{LOGITS}not compared: the run has no result.json that says what they were"
OTHER = f"{LOGITS}other than those at the end of the run: another machine, other versions or other weights"
own_settings = pytest.fixture(leave_process_alone, autouse=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of a trained network."""
    return trained_network(tmp_path_factory) / "run-dir"


@pytest.fixture(scope="module")
def digits(trained) -> Dataset:
    folder = trained.parent / "cache-dir"
    return load_dataset(DataConfig(name="digits", validation_size=237, preprocessing="standardize", cache_dir=folder))


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of it, to be changed or damaged."""
    return shutil.copytree(trained, tmp_path / "run")


def change(name: str, changed: Callable[[Any], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, changed)


def settle(**changes: Any) -> Callable[[Path], None]:
    return change("settings.json", lambda content: content["settings"].update(changes))


def write(name: str, content: str | bytes) -> Callable[[Path], int]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def logits_of(folder: Path, images: Any) -> np.ndarray:
    architecture, variables = load_network(folder)
    return predict(variables, images, network=build_network(architecture, num_classes=10), batch_size=360)


def macro_f1(labels: Any, logits: np.ndarray) -> float:
    return float(metrics.f1_score(labels, logits.argmax(axis=1), average="macro"))


def lines_of(capsys, folder: Path) -> list[str]:
    capsys.readouterr()
    assert evaluate.main([str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_new_process_replaces_logits_by_the_same_to_the_last_bit(trained, digits, tmp_path):
    before = contents(trained)
    (tmp_path / "logits.npy").write_text("older")
    command = [sys.executable, "-m", "experiments.evaluate", str(trained), "--logits", str(tmp_path / "logits.npy")]
    command += ["--cache-dir", str(tmp_path / "cache")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    written = np.load(tmp_path / "logits.npy", allow_pickle=False)
    here = logits_of(trained, digits.test_images)
    assert (written.shape, written.dtype) == ((360, 10), np.float32)
    np.testing.assert_array_equal(written.view(np.int32), here.view(np.int32))
    tested = (here.argmax(axis=1) == np.asarray(digits.test_labels)).mean()
    seen = logits_of(trained, digits.validation_images).argmax(axis=1) == np.asarray(digits.validation_labels)
    confusion = metrics.confusion_matrix(digits.test_labels, here.argmax(axis=1), labels=range(10))
    mistakes = [(-count, i, j) for (i, j), count in np.ndenumerate(confusion) if i != j and count]
    # 1 * 9 * 4 weights, 2 * 4 values of normalisation, and (4 + 1) * 10 of the classifier.
    assert ended.stdout.splitlines() == [
        "network              1 layers, 94 parameters",
        f"test accuracy        {100 * tested:.1f} % of 360 images",
        f"balanced accuracy    {100 * np.mean(confusion.diagonal() / confusion.sum(axis=1)):.1f} %",
        f"macro-F1             {100 * macro_f1(digits.test_labels, here):.1f} %",
        *(f"confused             {-n} of {confusion[i].sum()} {i} taken for {j}" for n, i, j in sorted(mistakes)[:5]),
        f"validation accuracy  {100 * seen.mean():.1f} % of 237 images",
        SAME,
    ]
    assert contents(trained) == before
    assert {path.name for path in tmp_path.iterdir()} == {"logits.npy", "cache"}


def test_a_network_is_evaluated_in_the_dtype_that_it_was_trained_in(tmp_path, capsys, monkeypatch):
    computed_in = watch_dtypes(monkeypatch)
    assert train(tmp_path, "--dtype", "bfloat16") == 0
    assert computed_in == {"bfloat16"}
    folder = tmp_path / "run-dir"
    assert json.loads((folder / "result.json").read_text())["dtype"] == "bfloat16"
    state = {**checkpoint.restore(folder / "final", "state"), "step": None}
    assert float_dtypes((load_network(folder)[1], state)) == {"float32"}
    assert lines_of(capsys, folder)[-1] == SAME
    settle(dtype="float32")(folder)
    assert lines_of(capsys, folder)[-1] == OTHER


def without_dtypes(folder: Path) -> None:
    edit(folder / "settings.json", lambda content: content["settings"].pop("dtype"))
    edit(folder / "result.json", lambda content: content.pop("dtype"))


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (change("result.json", lambda result: result.update(test_logits="0" * 64)), OTHER),
        (without_dtypes, SAME),  # as runs were before there was another one than float32
        (lambda folder: (folder / "result.json").unlink(), UNKNOWN),
        (write("result.json", "{"), UNKNOWN),
        (write("result.json", "{}"), UNKNOWN),
        (write("result.json", "[]"), UNKNOWN),
    ],
)
def test_logits_are_compared_with_those_of_the_result(copied, capsys, prepare, told):
    prepare(copied)
    assert lines_of(capsys, copied)[-1] == told


def test_a_network_that_was_trained_on_mirror_images_is_evaluated_with_them_as_well(copied, digits, capsys):
    images, lines = digits.test_images, lines_of(capsys, copied)
    settle(flip=True)(copied)
    mirror_images = jnp.asarray(np.asarray(images)[:, :, ::-1])
    both = (logits_of(copied, images) + logits_of(copied, mirror_images)).argmax(axis=1)
    reached = 100 * (both == np.asarray(digits.test_labels)).mean()
    lines.insert(2, f"test accuracy        {reached:.1f} % by the mean logits of an image and its mirror image")
    assert lines_of(capsys, copied) == lines


def test_only_a_final_training_was_trained_on_validation_images(copied, capsys):
    def trained_on() -> bool:
        return lines_of(capsys, copied)[-2].endswith(" % of 237 images, which it was trained on")

    assert not trained_on()
    settle(final_on="train+validation")(copied)
    assert trained_on()
    settle(final_steps=None)(copied)  # as many as the search's, or a budget's
    assert trained_on()
    edit(copied / "result.json", lambda result: result.update(final_cause="it diverged"))
    assert not trained_on()
    edit(copied / "result.json", lambda result: result.update(final_cause=None))
    settle(final_steps=0)(copied)
    assert not trained_on()


@pytest.mark.parametrize("present", ["", "settings.json", "notes.txt"])
def test_a_folder_without_a_network_is_refused(tmp_path, capsys, present):
    folder, advice = tmp_path / "run", "name the folder of a run that has finished"
    if present:
        folder.mkdir()
        (folder / present).write_text("{}")
    line = f"cannot read {folder}/network/genome.json: No such file or directory; {advice}"
    assert refused(capsys, evaluate.main, str(folder)) == line


def drop_a_byte(folder: Path) -> None:
    (largest,) = sorted((folder / "network").rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)[-1:]
    largest.write_bytes(largest.read_bytes()[:-1])


GENOME = "network/genome.json"
DAMAGED = "{run}/settings.json is damaged ("
OF_NO_EXPERIMENT = "{run}/settings.json is of no experiment ("
FROM_PYTHON = (
    "{run}/settings.json does not say how the data were prepared, for its search was started from Python; evaluate its"
    " network there, with the weights that eigen_jax.load_network gives"
)
OTHER_DATA = "{run} was made with other data than those in the cache; name the right ones with --data-dir"
OTHER_SET = "{run}/settings.json is of no experiment (Invalid enum value 'mnist' - at `$.dataset`); "
OTHER_IMAGES = (
    "the network takes images of 32 x 32 x 3, and those of digits are 8 x 8 x 1; choose the data set it is for"
)
OTHER_WEIGHTS = "{run}/network holds the weights of another network than it describes; put the run's own files back"
change_settings = functools.partial(change, "settings.json")


def from_python(folder: Path) -> None:
    """Gives a run such settings as `run_search` writes where it is given none."""
    config: dict[str, Any] = {"seed": 0, "final_steps": 6, "genome": {}, "evolution": {}, "train": {"dtype": "float32"}}
    data = {"dataset": "digits", "data_fingerprint": "0" * 64, "teacher_fingerprint": None}
    edit(folder / "settings.json", lambda content: content.pop("folders"))
    edit(folder / "settings.json", lambda content: content.update(settings=config | data))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (settle(data_fingerprint="0" * 64), OTHER_DATA),
        (settle(dataset="mnist"), OTHER_SET),
        (
            lambda folder: (folder / "settings.json").unlink(),
            "cannot read {run}/settings.json: No such file",
        ),
        (write("settings.json", '{"settings": {'), DAMAGED),
        (change_settings(lambda content: content.pop("folders")), OF_NO_EXPERIMENT),
        (settle(validation_size="many"), OF_NO_EXPERIMENT),
        (settle(dtype="float16"), OF_NO_EXPERIMENT),
        (change_settings(lambda content: content.update(settings=["seed"])), DAMAGED),
        (settle(eval_batch_size=None), OF_NO_EXPERIMENT),
        (from_python, FROM_PYTHON),
        (write(GENOME, "{"), "{run}"),
        (write(GENOME, b"\xff\xfe"), "{run}"),
        (write(GENOME, to_json(OF_CIFAR)), OTHER_IMAGES),
        (write(GENOME, to_json(WIDER)), OTHER_WEIGHTS),
        (drop_a_byte, "{run}/network holds no intact checkpoint; "),
    ],
)
def test_a_damaged_run_gets_one_line_and_writes_nothing(copied, tmp_path, capsys, damage, line):
    damage(copied)
    before = contents(copied)
    message = refused(capsys, evaluate.main, str(copied), "--logits", str(tmp_path / "logits.npy"))
    assert message.startswith(line.format(run=copied))
    assert contents(copied) == before
    assert list(tmp_path.iterdir()) == [copied]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("none/logits.npy", "cannot write {path}: No such file or directory; name a file that can be written"),
        ("folder", "cannot write {path}: Is a directory; name a file that can be written"),
        (".", "cannot write "),
    ],
)
def test_logits_that_cannot_be_written_leave_nothing(trained, tmp_path, capsys, monkeypatch, path, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    where = path if path == "." else str(tmp_path / path)
    assert refused(capsys, evaluate.main, str(trained), "--logits", where).startswith(line.format(path=where))
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "the following arguments are required: run_dir; --help explains every setting"),
        (["{run}", "--data-dir", "/nowhere"], "--data-dir is /nowhere, but the digits need none: leave it out"),
        (["{run}", "--logitz", "x"], "unrecognized arguments: --logitz x; --help explains every setting"),
    ],
)
def test_a_wrong_command_line_gets_one_line(trained, capsys, argv, line):
    assert refused(capsys, evaluate.main, *(each.format(run=trained) for each in argv)) == line
