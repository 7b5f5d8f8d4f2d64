"""Commands on images of one's own: a search, its network trained again and evaluated, and what is refused."""

import functools
import logging
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from commands_data import NETWORK as NETWORK_OF_DIGITS
from commands_data import leave_process_alone, places, refused
from image_files import config_of, write_pictures
from picture_data import CLASSES, FORMATS, make_pictures

from eigen_jax.architecture import Architecture, to_json
from eigen_jax.data import load_dataset, read_raw
from experiments import evaluate, retrain, runner
from experiments.command_line import parse

own_settings = pytest.fixture(leave_process_alone, autouse=True)

COUNTS = {"cat": 14, "dog": 21}
OPTIONS = (
    *("--preset", "smoke", "--channels", "4", "8", "--capacity", "8", "--batch-size", "8", "--eval-batch-size", "5"),
    *("--executor", "inline", "--budget", "none", "--schedule", "constant", "--decay-steps", "--population", "2"),
    *("--p", "2", "--q", "2", "--t1", "1", "--t2", "1", "--t3", "1", "--final-steps", "3", "--primary-steps", "1"),
    *("--max-primary-generations", "1", "--max-secondary-generations", "0", "--max-duplication-generations", "0"),
    *("--min-flops-share", "0", "--redraws", "0", "--candidates", "1"),
)
NETWORK = Architecture(input_shape=(8, 8, 3), layers=NETWORK_OF_DIGITS.layers)
SAME = "logits               identical to those at the end of the run, to the last bit"
search = functools.partial(runner.main, "images")

OWN = """
import numpy as np

from eigen_jax.data import RawDataset


def read(config, progress):
    labels = np.arange(35, dtype=np.int32) % 2
    images = np.arange(35 * 64).reshape(35, 8, 8, 1).astype(np.uint8)
    return RawDataset("images", ("even", "odd"), images, labels, images[:4], labels[:4])
"""


def options_of(folder: Path, *more: str) -> list[str]:
    """Of a run on the pictures in a folder, with all that it writes there."""
    return [*OPTIONS, *places(folder), "--data-dir", str(folder / "pets"), *more]


def trained(folder: Path, *options: str, architecture: Architecture = NETWORK) -> int:
    """Trains a network for images, with all that is written in one folder."""
    (folder / "genome.json").write_text(to_json(architecture))
    return retrain.main([str(folder / "genome.json"), "--dataset", "images", *options])


def test_a_search_is_of_the_images_that_are_found_and_tells_what_was_read(tmp_path, caplog, monkeypatch):
    write_pictures(tmp_path / "pets", COUNTS, size=(8, 8))
    run_search = Mock()
    monkeypatch.setattr(runner, "run_search", run_search)
    with caplog.at_level(logging.INFO):
        assert search(options_of(tmp_path)) == 0
    assert f"read 35 images of 2 classes from {tmp_path}/pets: 25 training, 5 validation, 5 test" in caplog.text
    (config, dataset, _), how = run_search.call_args
    assert (config.genome.input_shape, config.genome.num_classes) == ((8, 8, 3), 2)
    assert dataset.train_images.shape == (25, 8, 8, 3)
    of_data = {"source": "auto", "image_size": None, "test_size": None, "validation_size": None}
    assert how["settings"].items() >= of_data.items()


def test_a_run_goes_on_with_its_own_images_alone(tmp_path, capsys):
    pets, run = write_pictures(tmp_path / "pets", COUNTS, size=(8, 8)), tmp_path / "run-dir"
    command = [str(tmp_path / "genome.json"), "--dataset", "images", *options_of(tmp_path)]
    assert trained(tmp_path, *options_of(tmp_path)) == 0
    capsys.readouterr()
    assert evaluate.main([str(run)]) == 0
    assert SAME in capsys.readouterr().out
    write_pictures(tmp_path / "new", {"dog": 22}, size=(8, 8))
    shutil.copy(tmp_path / "new" / "dog" / "021.png", pets / "dog" / "100.png")
    told = f"the images in {pets} are others than when the run in {run} began"
    for again, options in ((retrain.main, command), (search, options_of(tmp_path))):
        assert refused(capsys, again, *options) == f"{told}; put those back, or choose another run folder"
    assert refused(capsys, evaluate.main, str(run)) == (
        f"{run} was made with other data than those in {pets}; name the right ones with --data-dir"
    )
    (pets / "dog" / "100.png").unlink()
    assert retrain.main(command) == 0
    # Elsewhere, the images are the same.
    pets.rename(tmp_path / "moved")
    assert evaluate.main([str(run), "--data-dir", str(tmp_path / "moved")]) == 0


def test_a_source_of_ones_own_is_read_by_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_images.py").write_text(OWN)
    source, run = ["--source", f"{tmp_path}/my_images.py:read"], str(tmp_path / "run-dir")
    assert trained(tmp_path, *OPTIONS, *places(tmp_path), *source, architecture=NETWORK_OF_DIGITS) == 0
    line = refused(capsys, evaluate.main, run)
    assert line.startswith(f"{run} is of images that a source of your own reads, my_images:read ")
    assert line.endswith("; name it with --source FILE.py:NAME")
    assert evaluate.main([run, *source]) == 0
    assert SAME in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            [],
            "--data-dir is missing; name the folder, the CSV or the .npz of your pictures, or a set of"
            " tensorflow-datasets with --source tfds:NAME",
        ),
        (
            ["--data-dir", "{tmp}/lost"],
            "{tmp}/lost does not exist; name the folder, the CSV or the .npz of your pictures",
        ),
        (["--data-dir", "{tmp}"], "{tmp} has one class alone, 'pets'; is {tmp}/pets meant?"),
        (
            ["--data-dir", "{tmp}/pets", "--test-size", "1"],
            "--test-size is 1 of 35 training images; with 2 classes on both sides it must be from 3 to 32",
        ),
        (["--data-dir", "{tmp}/pets", "--image-size", "2"], "--image-size is 2; it must be from 8 to 1,024"),
        (
            ["--data-dir", "{tmp}/pets", "--source", "cvs"],
            "there is no source of images 'cvs'; did you mean csv? choose from auto, folder, npz, csv, tfds",
        ),
        (["--source", "lost.py:read"], "--source: there is no file {cwd}/lost.py; name one that is there"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, capsys, options, line):
    write_pictures(tmp_path / "pets", COUNTS)
    places = {"tmp": tmp_path, "cwd": Path.cwd()}
    given = [option.format(**places) for option in options]
    assert refused(capsys, search, "--run-dir", f"{tmp_path}/run", *given) == line.format(**places)
    assert not (tmp_path / "run").exists()


def test_published_data_refuse_settings_of_images(capsys):
    line = "--image-size is 32, which is for images of your own, and the data are digits: leave it out"
    assert refused(capsys, functools.partial(runner.main, "digits"), "--image-size", "32") == line


@pytest.mark.parametrize(("options", "batch"), [([], 3), (["--batch-size", "7"], 7), (["--devices", "2"], 2)])
def test_a_batch_is_a_part_of_a_small_set(tmp_path, options, batch):
    pets = str(write_pictures(tmp_path / "pets", COUNTS))
    argv = ["--preset", "small", "--data-dir", pets, "--cache-dir", str(tmp_path), *options]
    settings = parse(argv, program="prog", dataset="images")
    assert settings.search.train.batch_size == batch
    assert settings.search_config().genome.input_shape == (16, 16, 3)


def test_reading_many_pictures_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.progress._PLAIN_EVERY", 0.0)
    pets = str(write_pictures(tmp_path / "pets", COUNTS))
    parse(["--data-dir", pets, "--cache-dir", str(tmp_path)], program="prog", dataset="images")
    assert capsys.readouterr().out == "  reading images: 35 of 35\n"


def test_the_pictures_of_the_script_are_of_every_format_and_none_is_skipped(tmp_path):
    count = len(CLASSES) * len(FORMATS)
    make_pictures(tmp_path / "shapes", count, largest=60)
    config = config_of(tmp_path / "shapes", tmp_path, image_size=32)
    raw = read_raw(config)
    assert len(raw.report) == 2
    dataset = load_dataset(config)
    assert dataset.class_names == CLASSES
    parts = raw.train_labels, raw.validation_labels, raw.test_labels
    assert np.bincount(np.concatenate(parts)).tolist() == [len(FORMATS)] * 3  # type: ignore[arg-type]
    endings = {path.suffix for path in (tmp_path / "shapes").rglob("*.*")}
    assert endings == {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif"}
