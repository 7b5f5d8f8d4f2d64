"""Images kept as arrays, as pixels on the device and as pixels on the host: networks see the same bits of all."""

import dataclasses
import itertools
import pickle
import threading
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refuses
from training_data import KEY, SHAPE, SMALL, Convolutional, make_dataset, new_state

from eigen_jax.data import DataConfig, Dataset, PixelImages, StreamedImages, join_validation, load_dataset, mirror, take
from eigen_jax.errors import ConfigError
from eigen_jax.training import predict, train_to
from eigen_jax.training.step import draw_batches

KEPT = ["pixels", "streamed", "mapped", "parts", "apart"]
PARTS = ("train", "validation", "test")


def datasets(tmp_path) -> dict[str, Dataset]:
    """One data set, kept in all ways; by hand, a table of any numbers makes pixels what networks see."""
    draw, plain = np.random.default_rng(0), make_dataset()
    table = draw.normal(size=(256, SHAPE[2])).astype(np.float32)
    sizes = {part: len(getattr(plain, f"{part}_images")) for part in PARTS}
    pixels = draw.integers(0, 256, (sum(sizes.values()), *SHAPE)).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    order = draw.permutation(len(pixels))  # rows need not be in order
    np.save(tmp_path / "ordered.npy", pixels[order])
    ordered = np.load(tmp_path / "ordered.npy", mmap_mode="r")
    kept: dict[str, dict] = {name: {} for name in ("arrays", *KEPT)}
    for part, end in zip(PARTS, itertools.accumulate(sizes.values()), strict=True):
        rows, name = order[end - sizes[part] : end], f"{part}_images"
        seen = np.stack([table[:, channel][pixels[rows][..., channel]] for channel in range(SHAPE[2])], axis=-1)
        kept["arrays"][name] = jnp.asarray(seen)
        kept["pixels"][name] = PixelImages(jnp.asarray(pixels[rows]), jnp.asarray(table))
        kept["streamed"][name] = StreamedImages(pixels, rows, table)
        kept["mapped"][name] = StreamedImages(mapped, rows, table)
        kept["parts"][name] = StreamedImages(ordered[end - sizes[part] : end], np.arange(sizes[part]), table)
        kept["apart"][name] = StreamedImages(pixels[rows], np.arange(sizes[part]), table)
    return {name: dataclasses.replace(plain, **images) for name, images in kept.items()}


@pytest.mark.parametrize("kept", KEPT)
def test_indexed_images_are_those_of_the_array_in_every_way(tmp_path, kept):
    both = datasets(tmp_path)
    images, expected = both[kept].train_images, np.asarray(both["arrays"].train_images)
    assert (images.shape, images.dtype, len(images)) == (expected.shape, np.float32, len(expected))
    for index in (slice(None), slice(3, 9), 4, np.array([5, 1, 1])):
        np.testing.assert_array_equal(images[index], expected[index])
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(take(images, np.array([7, 0])), expected[[7, 0]])
    for turned in (mirror(images), mirror(mirror(mirror(images)))):
        np.testing.assert_array_equal(turned, expected[:, :, ::-1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(jax.device_get(mirror(images))))[:3], expected[:3, :, ::-1])
    joined = join_validation(both[kept]).train_images
    assert type(joined) is type(images)
    np.testing.assert_array_equal(joined, np.concatenate([expected, both["arrays"].validation_images]))


def test_what_is_mapped_goes_to_other_processes_by_its_name(tmp_path):
    both = datasets(tmp_path)
    for kept in ("mapped", "parts"):
        images = both[kept].test_images
        assert len(pickle.dumps(images)) < len(pickle.dumps(both["streamed"].test_images)) / 2
        again = pickle.loads(pickle.dumps(images))
        assert isinstance(again.pixels, np.memmap)
        np.testing.assert_array_equal(again, both["arrays"].test_images)


def test_parts_of_one_file_are_joined_without_being_read(tmp_path):
    joined = join_validation(datasets(tmp_path)["parts"]).train_images
    assert isinstance(joined, StreamedImages)
    assert isinstance(joined.pixels, np.memmap)


@pytest.mark.parametrize("kept", KEPT)
def test_training_and_evaluation_give_the_same_bits(tmp_path, kept):
    both, network = datasets(tmp_path), Convolutional()
    states = {}
    for name in ("arrays", kept):
        # Across the ends of two epochs of four steps, in two parts.
        state, _ = train_to(KEY, new_state(), both[name], 3, network=network, config=SMALL)
        states[name], _ = train_to(KEY, state, both[name], 10, network=network, config=SMALL)
    chex.assert_trees_all_equal(states[kept], states["arrays"])
    ours, plain = (
        predict(states[name].variables, both[name].test_images, network=network, batch_size=5)
        for name in (kept, "arrays")
    )
    np.testing.assert_array_equal(ours, plain)


def test_reading_ahead_ends_with_whoever_reads(tmp_path):
    batches: Any = draw_batches(KEY, datasets(tmp_path)["streamed"], 0, config=SMALL, teacher=None)
    next(batches)
    assert threading.active_count() > 1
    batches.close()
    assert not [each for each in threading.enumerate() if "ThreadPoolExecutor" in each.name]


def test_pixels_of_more_bytes_than_there_are_stay_on_the_host_and_become_the_same(tmp_path):
    config = DataConfig(name="digits", validation_size=200, preprocessing="standardize", cache_dir=tmp_path)
    total = (1_437 + 360) * 64
    fits, streamed = load_dataset(config, device_bytes=total), load_dataset(config, device_bytes=total - 1)
    assert fits.fingerprint == streamed.fingerprint
    for part in PARTS:
        of_both = [getattr(each, f"{part}_images") for each in (fits, streamed)]
        assert list(map(type, of_both)) == [PixelImages, StreamedImages]
        np.testing.assert_array_equal(*of_both)
        np.testing.assert_array_equal(*(getattr(each, f"{part}_labels") for each in (fits, streamed)))
    with refuses(
        ConfigError,
        "preprocessing is gcn_zca, which needs all images, and they do not fit into memory; choose 'standardize'",
    ):
        load_dataset(dataclasses.replace(config, preprocessing="gcn_zca"), device_bytes=total - 1)
