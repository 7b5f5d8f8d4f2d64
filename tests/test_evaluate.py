"""Evaluating a saved network: the same logits in a new process, and one clear line for what cannot be evaluated."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eigen_jax.architecture import Architecture, Layer, to_json
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.search import load_network
from eigen_jax.training import predict
from experiments import evaluate, retrain
from experiments.runner import BAD_INPUT

ROOT = Path(__file__).resolve().parents[1]
NETWORK = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=2),))
WIDER = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(-1,), channels=5, kernel=3, stride=2),))
TINY = (
    *("--dataset", "digits", "--preset", "smoke", "--teacher", "none", "--final-steps", "20"),
    *("--eval-batch-size", "100", "--validation-size", "200", "--final-on", "train+validation"),
)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch) -> None:
    """Neither logging nor JAX is set up, whatever the command does."""
    monkeypatch.setattr(evaluate, "configure", lambda settings: settings)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache) -> Dataset:
    return load_dataset(DataConfig(name="digits", validation_size=200, preprocessing="standardize", cache_dir=cache))


def train(folder: Path, cache: Path, *more: str) -> Path:
    """The run folder of a training that it makes."""
    (folder / "genome.json").write_text(to_json(NETWORK))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrain, "configure", lambda settings: settings)
        argv = [str(folder / "genome.json"), *TINY, f"--cache-dir={cache}", f"--run-dir={folder / 'run'}", *more]
        assert retrain.main(argv) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory) -> Path:
    """The run folder of a trained network."""
    return train(tmp_path_factory.mktemp("trained"), cache)


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *argv: str) -> str:
    """The line that bad input gets."""
    capsys.readouterr()
    assert evaluate.main(argv) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def settle(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "settings.json", lambda content: content["settings"].update(changes))


def logits_of(folder: Path, images: Any) -> np.ndarray:
    architecture, variables = load_network(folder)
    return predict(variables, images, network=build_network(architecture, num_classes=10), batch_size=100)


def test_a_new_process_gives_the_same_logits_to_the_last_bit(trained, digits, tmp_path):
    before = contents(trained)
    command = [sys.executable, "-m", "experiments.evaluate", str(trained), "--logits", str(tmp_path / "logits.npy")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    written = np.load(tmp_path / "logits.npy", allow_pickle=False)
    here = logits_of(trained, digits.test_images)
    assert (written.shape, written.dtype) == ((360, 10), np.float32)
    np.testing.assert_array_equal(written.view(np.int32), here.view(np.int32))
    tested = (here.argmax(axis=1) == np.asarray(digits.test_labels)).mean()
    seen = logits_of(trained, digits.validation_images).argmax(axis=1) == np.asarray(digits.validation_labels)
    # 1 * 9 * 4 weights, 2 * 4 values of normalisation, and (4 + 1) * 10 of the classifier.
    assert ended.stdout.splitlines() == [
        "network              1 layers, 94 parameters",
        f"test accuracy        {100 * tested:.1f} % of 360 images",
        f"validation accuracy  {100 * seen.mean():.1f} % of 200 images, which it was trained on",
        "logits               identical to those at the end of the run, to the last bit",
    ]
    assert contents(trained) == before
    assert list(tmp_path.iterdir()) == [tmp_path / "logits.npy"]


def comparison(capsys, folder: Path) -> str:
    assert evaluate.main([str(folder)]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_logits_that_have_changed_are_told(copied, capsys):
    edit(copied / "result.json", lambda result: result.update(test_logits="0" * 64))
    assert comparison(capsys, copied) == (
        "logits               other than those at the end of the run: another machine, other versions or other weights"
    )


def test_a_network_is_evaluated_in_the_dtype_that_it_was_trained_in(cache, tmp_path, capsys):
    folder = train(tmp_path, cache, "--dtype", "bfloat16")
    assert json.loads((folder / "result.json").read_text())["dtype"] == "bfloat16"
    same = "logits               identical to those at the end of the run, to the last bit"
    assert comparison(capsys, folder) == same
    settle(dtype="float32")(folder)
    assert comparison(capsys, folder).startswith("logits               other than those at the end of the run: ")


def test_a_run_that_names_no_dtype_is_one_in_float32(copied, capsys):
    edit(copied / "settings.json", lambda content: content["settings"].pop("dtype"))
    edit(copied / "result.json", lambda content: content.pop("dtype"))
    same = "logits               identical to those at the end of the run, to the last bit"
    assert comparison(capsys, copied) == same


@pytest.mark.parametrize("content", [None, "{", "{}", "[]"])
def test_without_a_result_nothing_is_compared(copied, capsys, content):
    if content is None:
        (copied / "result.json").unlink()
    else:
        (copied / "result.json").write_text(content)
    assert comparison(capsys, copied) == (
        "logits               not compared: the run has no result.json that says what they were"
    )


def test_logits_replace_the_file_that_was_there(copied, digits, tmp_path, capsys):
    (tmp_path / "logits.npy").write_text("older")
    assert evaluate.main([str(copied), "--logits", str(tmp_path / "logits.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), logits_of(copied, digits.test_images))


@pytest.mark.parametrize(
    "unchanged",
    [
        pytest.param(lambda folder: settle(final_steps=0)(folder), id="no final training"),
        pytest.param(
            lambda folder: edit(folder / "result.json", lambda result: result.update(final_cause="it diverged")),
            id="a final training that failed",
        ),
    ],
)
def test_weights_of_the_search_were_not_trained_on_validation_images(copied, capsys, unchanged):
    unchanged(copied)
    assert evaluate.main([str(copied)]) == 0
    assert "which it was trained on" not in capsys.readouterr().out


# --- Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("present", [[], ["settings.json"], ["notes.txt"]])
def test_a_folder_without_a_network_is_refused(tmp_path, capsys, present):
    folder = tmp_path / "run"
    if present:
        folder.mkdir()
    for name in present:
        (folder / name).write_text("{}")
    assert refused(capsys, str(folder)) == (
        f"cannot read {folder}/network/genome.json: No such file or directory; name the folder of a run that has"
        " finished"
    )


def drop_a_byte(folder: Path) -> None:
    (largest,) = sorted((folder / "network").rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)[-1:]
    largest.write_bytes(largest.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        pytest.param(
            settle(data_fingerprint="0" * 64),
            "{run} was made with other data than those in the cache; name the right ones with --data-dir",
            id="other data",
        ),
        pytest.param(
            lambda folder: (folder / "settings.json").unlink(),
            "{run}/settings.json is missing, damaged or of no experiment; name the folder of a finished run",
            id="no settings",
        ),
        pytest.param(
            lambda folder: (folder / "settings.json").write_text('{"settings": {'),
            "{run}/settings.json is missing, damaged or of no experiment; name the folder of a finished run",
            id="damaged settings",
        ),
        pytest.param(
            lambda folder: edit(folder / "settings.json", lambda content: content.pop("folders")),
            "{run}/settings.json is missing, damaged or of no experiment; name the folder of a finished run",
            id="settings of the library",
        ),
        pytest.param(
            settle(dataset="mnist"),
            "{run}/settings.json names the data set 'mnist'; known are cifar10, cifar100, digits",
            id="unknown data",
        ),
        pytest.param(settle(validation_size="many"), "{run}/settings.json ", id="a setting of another type"),
        pytest.param(settle(dtype="float16"), "{run}/settings.json is missing, damaged ", id="a dtype that none has"),
        pytest.param(
            lambda folder: edit(folder / "settings.json", lambda content: content.update(settings=["seed"])),
            "{run}/settings.json is missing, damaged ",
            id="settings that are none",
        ),
        pytest.param(settle(eval_batch_size=None), "{run}/settings.json ", id="a batch size that is none"),
        pytest.param(lambda folder: (folder / "network" / "genome.json").write_text("{"), "{run}", id="damaged genome"),
        pytest.param(
            lambda folder: (folder / "network" / "genome.json").write_bytes(b"\xff\xfe"), "{run}", id="genome of bytes"
        ),
        pytest.param(
            lambda folder: (folder / "network" / "genome.json").write_text(
                to_json(Architecture(input_shape=(32, 32, 3), layers=NETWORK.layers))
            ),
            "the network takes images of 32 x 32 x 3, and those of digits are 8 x 8 x 1; choose the data set it is for",
            id="network of other images",
        ),
        pytest.param(
            lambda folder: (folder / "network" / "genome.json").write_text(to_json(WIDER)),
            "{run}",
            id="weights of another network",
        ),
        pytest.param(drop_a_byte, "{run}/network holds no intact checkpoint; ", id="damaged weights"),
    ],
)
def test_a_damaged_run_gets_one_line_and_writes_nothing(copied, tmp_path, capsys, damage, line):
    damage(copied)
    before = contents(copied)
    message = refused(capsys, str(copied), "--logits", str(tmp_path / "logits.npy"))
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
def test_logits_that_cannot_be_written_get_one_line_and_leave_nothing(
    trained, tmp_path, capsys, monkeypatch, path, line
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    where = path if path == "." else str(tmp_path / path)
    assert refused(capsys, str(trained), "--logits", where).startswith(line.format(path=where))
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "the following arguments are required: run_dir; --help explains every setting"),
        (["{run}", "--data-dir", "/nowhere"], "data folder /nowhere is given, but the digits need none: leave it out"),
        (["{run}", "--logitz", "x"], "unrecognized arguments: --logitz x; --help explains every setting"),
    ],
)
def test_a_wrong_command_line_gets_one_line(trained, capsys, argv, line):
    assert refused(capsys, *(each.format(run=trained) for each in argv)) == line
