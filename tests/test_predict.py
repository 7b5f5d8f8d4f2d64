"""Classifying pictures: what the network says of them, and a line for each file that is none."""

from pathlib import Path

import numpy as np
import pytest
from commands_data import leave_process_alone, trained_network
from PIL import Image

from eigen_jax.data import DataConfig
from eigen_jax.data.loading import read_raw
from eigen_jax.networks import build_network
from eigen_jax.processor import load_processor
from eigen_jax.search import load_network
from experiments import predict
from experiments.commands import BAD_INPUT

own_settings = pytest.fixture(leave_process_alone, autouse=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of a trained network."""
    return trained_network(tmp_path_factory) / "run-dir"


def test_pictures_get_their_class_and_the_two_next_ones(trained, tmp_path, capsys):
    pixels = read_raw(DataConfig(name="digits")).test_images[:3]
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    assert predict.main([str(trained), *paths]) == 0
    architecture, variables = load_network(trained)
    images = load_processor(trained / "network")(pixels)
    logits = np.asarray(build_network(architecture, num_classes=10).apply(variables, images, train=False), np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for path, shares, line in zip(paths, softmax, capsys.readouterr().out.splitlines(), strict=True):
        best = np.argsort(-shares)[:3]
        assert line == "  ".join([path, *(f"{each} {100 * shares[each]:.1f} %" for each in best)])


def test_bad_files_get_a_line_each_and_the_others_are_classified(trained, tmp_path, capsys):
    good, cut = tmp_path / "good.jpg", tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)).save(good)
    cut.write_bytes(good.read_bytes()[:-900])
    (tmp_path / "text.png").write_text("no picture")
    names = ("text.png", "cut.jpg", "none.png", "good.jpg", "")
    assert predict.main([str(trained), *(str(tmp_path / name) for name in names)]) == BAD_INPUT
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert out.startswith(f"{good}  ")
    first, second, *others = error.splitlines()
    assert first == f"error: {tmp_path}/text.png is no picture that Pillow knows; it is left out"
    assert second.startswith(f"error: {cut} cannot be read (image file is truncated")
    assert others == [
        f"error: {tmp_path}/none.png cannot be read (No such file or directory); it is left out",
        f"error: {tmp_path} cannot be read (Is a directory); it is left out",
    ]


def test_a_decompression_bomb_is_a_bad_file(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(path)
    assert predict.main([str(trained), str(path)]) == BAD_INPUT
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"error: {path} cannot be read (Image size (2500 pixels) exceeds limit of 200 pixels")
    assert len(error.splitlines()) == 1
