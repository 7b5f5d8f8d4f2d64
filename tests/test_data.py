"""Splitting, preprocessing and its cache, and whole data sets, against independent computations."""

import dataclasses
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from refusals import refuses
from sklearn.datasets import load_digits

from eigen_jax.data import (
    DataConfig,
    DataError,
    Dataset,
    fit_zca,
    gcn_zca,
    global_contrast_normalize,
    join_validation,
    load_dataset,
    loading,
    preprocessing,
    read_raw,
    standardize,
    stratified_split,
)
from eigen_jax.errors import ConfigError


def random_images(count: int, shape: tuple[int, ...] = (4, 5, 3), seed: int = 0) -> np.ndarray:
    """Images whose neighbouring pixels go together, so that there is something to whiten."""
    smooth = np.random.default_rng(seed).normal(size=(count, *shape)).cumsum(axis=1).cumsum(axis=2)
    return np.clip(128 + 20 * smooth, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("size", "quotas"), [(10, [5, 3, 2]), (14, [7, 4, 3])])
def test_a_split_is_a_partition_in_proportion_rounded_by_largest_remainder(size, quotas):
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    np.random.default_rng(0).shuffle(labels)
    kept, held_out = stratified_split(labels, size, num_classes=3, seed=0)
    assert sorted([*kept, *held_out]) == list(range(100))
    # Of 14, exact quotas are 7, 4.2 and 2.8.
    assert np.bincount(labels[held_out]).tolist() == quotas
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()


def test_a_split_is_what_its_seed_says():
    labels = np.arange(12) % 2
    # NumPy's legacy generator is frozen; by hand: the first two of each class's permutation.
    generator = np.random.RandomState(3)
    expected = [*generator.permutation([0, 2, 4, 6, 8, 10])[:2], *generator.permutation([1, 3, 5, 7, 9, 11])[:2]]
    assert stratified_split(labels, 4, num_classes=2, seed=3)[1].tolist() == sorted(expected)
    assert stratified_split(labels, 4, num_classes=2, seed=4)[1].tolist() != sorted(expected)


def test_a_split_has_every_class_on_both_sides():
    labels = np.arange(2000) % 100
    for size in (100, 1900):
        for rows in stratified_split(labels, size, num_classes=100, seed=0):
            assert len(np.unique(labels[rows])) == 100
    for size in (1, 99, 1901, 2000, 5000):
        message = f"validation_size is {size} of 2000 training images; with 100 classes on both sides it must be from "
        with refuses(ConfigError, f"{message}100 to 1900"):
            stratified_split(labels, size, num_classes=100, seed=0)
    with pytest.raises(DataError, match=r"^class 1 has 1 training images; a stratified split needs at least 2$"):
        stratified_split(np.array([0, 0, 1, 2, 2]), 2, num_classes=3, seed=0)


def gcn_by_hand(image: np.ndarray, scale: float) -> np.ndarray:
    values = [float(value) for value in image.ravel()]
    mean = sum(values) / len(values)
    norm = sum((value - mean) ** 2 for value in values) ** 0.5
    return np.array([(value - mean) / norm * scale for value in values]).reshape(image.shape)


def whiten_by_hand(train: np.ndarray, rows: np.ndarray, bias: float) -> np.ndarray:
    """ZCA from the singular values of the data, without the covariance."""
    mean = train.mean(axis=0)
    _, singular, directions = np.linalg.svd(train - mean, full_matrices=True)
    eigenvalues = np.zeros(train.shape[1])
    eigenvalues[: len(singular)] = singular**2 / len(train)
    return (rows - mean) @ directions.T @ np.diag((eigenvalues + bias) ** -0.5) @ directions


def test_gcn_agrees_with_a_computation_by_hand_and_makes_a_constant_image_zero():
    images = random_images(20)
    result = global_contrast_normalize(images, scale=55.0)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, [gcn_by_hand(image, 55.0) for image in images], rtol=1e-12, atol=1e-12)
    for value in (0, 77, 0.1):
        assert not global_contrast_normalize(np.full((1, 8, 8, 3), value)).any()


@pytest.mark.parametrize("count", [30, 500])  # fewer images than the 60 pixels, and more
def test_gcn_zca_agrees_with_an_independent_computation(count):
    train, other = random_images(count), random_images(40, seed=1)
    results = gcn_zca(train, other, scale=55.0, bias=0.1)
    rows = [np.stack([gcn_by_hand(image, 55.0).ravel() for image in part]) for part in (train, other)]
    for result, part in zip(results, rows, strict=True):
        assert result.dtype == np.float32
        expected = whiten_by_hand(rows[0], part, 0.1)
        np.testing.assert_allclose(result.reshape(len(part), -1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gcn", "gcn_mean"])
def test_contrast_normalization_without_whitening_gives_every_pixel_of_any_image_the_same_contrast(tmp_path, name):
    dataset = load_dataset(digits_config(tmp_path, preprocessing=name))
    raw = read_raw(DataConfig(name="digits"))
    kept, _ = stratified_split(raw.train_labels, 200, num_classes=10, seed=0)
    # Of 64 pixels, where 55 is the norm of 3,072.
    scale = 55.0 * (64 / 3072) ** 0.5
    rows = [
        np.stack([gcn_by_hand(image, scale) for image in part]) for part in (raw.train_images[kept], raw.test_images)
    ]
    mean = rows[0].mean(axis=0) if name == "gcn_mean" else 0.0
    for images, part in zip((dataset.train_images, dataset.test_images), rows, strict=True):
        assert images.dtype == np.float32
        np.testing.assert_allclose(images, part - mean, rtol=1e-5, atol=1e-6)
    assert list(tmp_path.iterdir()) == []
    prints = {
        name: load_dataset(digits_config(tmp_path, preprocessing=name)).fingerprint for name in ("gcn", "gcn_mean")
    }
    assert len({dataset.fingerprint, *prints.values()}) == 2


@pytest.mark.parametrize("bias", [0.1, 3.0])
def test_the_whitened_covariance_is_what_the_formula_says(bias):
    rows = global_contrast_normalize(random_images(400)).reshape(400, -1)
    whitened = fit_zca(rows, bias=bias)(rows)
    eigenvalues, vectors = np.linalg.eigh(np.cov(rows, rowvar=False, bias=True))
    expected = vectors @ np.diag(eigenvalues / (eigenvalues + bias)) @ vectors.T
    np.testing.assert_allclose(np.cov(whitened, rowvar=False, bias=True), expected, atol=1e-9)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-9)


def test_chunks_do_not_show(monkeypatch):
    train = random_images(50)
    whole = gcn_zca(train)[0]
    monkeypatch.setattr(preprocessing, "_CHUNK", 7)
    np.testing.assert_allclose(gcn_zca(train)[0], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transform", [gcn_zca, standardize])
def test_statistics_are_of_the_training_images_alone(transform):
    train = random_images(100)
    first, second = transform(train, random_images(30, seed=1)), transform(train, random_images(30, seed=2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(transform(train, train[:10])[1], first[0][:10])


def test_standardize_agrees_with_a_computation_by_hand():
    train, other = random_images(30), random_images(5, seed=1)
    train[..., 2] = 9
    result = standardize(train, other)[1]
    assert result.dtype == np.float32
    for channel in range(2):
        values = train[..., channel].astype(np.float64).ravel()
        expected = (other[..., channel] - values.mean()) / values.std()
        np.testing.assert_allclose(result[..., channel], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result[..., 2], other[..., 2] - 9.0)


def digits_config(cache_dir: Path | None, **changes) -> DataConfig:
    return dataclasses.replace(DataConfig(name="digits", validation_size=200, cache_dir=cache_dir), **changes)


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory) -> tuple[Path, Dataset]:
    """A cache folder, to be copied before it is written to, and the digits that it was filled with."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, load_dataset(digits_config(folder))


@pytest.fixture
def cache_dir(filled_cache, tmp_path) -> Path:
    """A copy of the filled cache."""
    return shutil.copytree(filled_cache[0], tmp_path / "copy")


@pytest.fixture
def digits(filled_cache) -> Dataset:
    return filled_cache[1]


def test_the_digits_are_those_of_scikit_learn():
    raw = read_raw(DataConfig(name="digits"))
    assert raw.train_images.shape == (1437, 8, 8, 1)
    assert raw.test_images.shape == (360, 8, 8, 1)
    assert np.bincount(raw.test_labels).min() >= 34
    published = load_digits()
    everything = {(image.tobytes(), label) for image, label in zip(published.images, published.target, strict=True)}
    images, labels = np.concatenate([raw.train_images, raw.test_images]), [*raw.train_labels, *raw.test_labels]
    restored = np.rint(images[..., 0] / 255 * 16)
    assert {(image.tobytes(), label) for image, label in zip(restored, labels, strict=True)} == everything


def test_a_dataset_is_on_the_device_and_nothing_is_in_two_parts(digits):
    assert [leaf.dtype.name for leaf in jax.tree.leaves(digits)] == ["float32", "int32"] * 3
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(digits))
    assert digits.train_images.shape == (1237, 8, 8, 1)
    assert digits.validation_images.shape == (200, 8, 8, 1)
    assert digits.num_classes == 10
    parts = [np.asarray(part) for part in (digits.train_images, digits.validation_images, digits.test_images)]
    images = [{image.tobytes() for image in part} for part in parts]
    assert len(set.union(*images)) == sum(map(len, images))


def test_joined_validation_images_follow_the_training_images(digits):
    joined = join_validation(digits)
    for part in ("images", "labels"):
        train, validation, test = (getattr(digits, f"{name}_{part}") for name in ("train", "validation", "test"))
        together = getattr(joined, f"train_{part}")
        np.testing.assert_array_equal(together, np.concatenate([train, validation]))
        assert together.dtype == train.dtype
        np.testing.assert_array_equal(getattr(joined, f"validation_{part}"), validation)
        np.testing.assert_array_equal(getattr(joined, f"test_{part}"), test)
    assert (joined.num_classes, joined.name, joined.fingerprint) == (10, "digits", digits.fingerprint)


def test_images_and_labels_stay_together_and_the_fingerprint_ignores_what_they_do_not_depend_on(tmp_path):
    raw = read_raw(DataConfig(name="digits"))
    dataset = load_dataset(digits_config(tmp_path, preprocessing="standardize"))
    _, rows = stratified_split(raw.train_labels, 200, num_classes=10, seed=0)
    np.testing.assert_array_equal(dataset.validation_labels, raw.train_labels[rows])
    restored = np.asarray(dataset.validation_images)
    # Standardizing one channel is affine: the images correlate perfectly with the raw ones.
    assert np.corrcoef(restored.ravel(), raw.train_images[rows].ravel())[0, 1] > 0.99999
    other = digits_config(tmp_path / "other", preprocessing="standardize", gcn_scale=1.0)
    assert load_dataset(other).fingerprint == dataset.fingerprint


def test_the_real_sample_becomes_a_dataset(cifar_sample, tmp_path):
    config = DataConfig(
        name="cifar100", data_dir=cifar_sample, validation_size=500, preprocessing="standardize", cache_dir=tmp_path
    )
    dataset = load_dataset(config)
    assert dataset.train_images.shape == (4500, 32, 32, 3)
    assert (np.bincount(np.asarray(dataset.validation_labels)) == 5).all()
    np.testing.assert_allclose(np.asarray(dataset.train_images, np.float64).std(axis=(0, 1, 2)), 1, rtol=1e-3)


@pytest.mark.parametrize(
    "changes", [{"validation_size": 201}, {"split_seed": 1}, {"gcn_scale": 1.0}, {"zca_bias": 0.2}]
)
def test_the_fingerprint_and_the_images_change_with_a_setting(digits, cache_dir, changes):
    other = load_dataset(digits_config(cache_dir, **changes))
    assert other.fingerprint != digits.fingerprint
    assert not np.array_equal(other.test_images, digits.test_images)
    assert other.preprocessor != digits.preprocessor
    assert len(list((cache_dir / "preprocessed").iterdir())) == 2


def test_a_second_load_reads_the_cache(digits, cache_dir, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(loading.preprocessing, "fit_gcn_zca", refuse)
    jax.tree.map(np.testing.assert_array_equal, load_dataset(digits_config(cache_dir)), digits)
    with pytest.raises(AssertionError, match="computed again"):
        load_dataset(digits_config(cache_dir, split_seed=1))


def flip_bit(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0x40]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: flip_bit(content, len(content) // 3),
        lambda content: flip_bit(content, 60),
        lambda content: b"not an archive",
    ],
)
def test_a_damaged_cache_file_is_built_again(digits, cache_dir, caplog, damage):
    (path,) = (cache_dir / "preprocessed").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = load_dataset(digits_config(cache_dir))
    assert f"cache file {path} is damaged" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, again, digits)
    caplog.clear()
    load_dataset(digits_config(cache_dir))
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_a_warning_and_leaves_nothing_behind(digits, tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("in the way")
    dataset = load_dataset(digits_config(tmp_path / "file"))
    assert "cannot be written (Not a directory); going on without it" in caplog.text
    np.testing.assert_array_equal(dataset.test_images, digits.test_images)
    monkeypatch.setattr(np, "savez", fail)
    load_dataset(digits_config(tmp_path))
    assert "(No space left on device); going on without it" in caplog.text
    assert not list((tmp_path / "preprocessed").iterdir())


def test_the_cache_is_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DataConfig().cache_folder() == tmp_path / "eigen_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataConfig().cache_folder() == tmp_path / ".cache" / "eigen_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert DataConfig().cache_folder() == tmp_path / ".cache" / "eigen_jax"


def test_without_a_home_folder_only_what_is_to_be_kept_needs_a_place(tmp_path, monkeypatch, nobody):
    load_dataset(digits_config(None, preprocessing="standardize"))
    with refuses(
        ConfigError,
        "cache_dir is not given, and there is no home folder to make one in; name a folder that can be written,"
        " or set XDG_CACHE_HOME to one",
    ):
        load_dataset(digits_config(None))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DataConfig().cache_folder() == tmp_path / "eigen_jax"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mnist"}, "name is 'mnist'; it must be one of cifar10, cifar100, digits, images"),
        ({"preprocessing": "pca"}, "preprocessing is 'pca'; it must be one of gcn_zca, gcn, gcn_mean, standardize"),
        ({"validation_size": 0}, "validation_size is 0; it must be at least 1"),
        ({"split_seed": -1}, "split_seed is -1; it must be from 0 to 4,294,967,295"),
        ({"gcn_scale": 0.0}, "gcn_scale is 0.0; it must be more than 0"),
        ({"zca_bias": float("nan")}, "zca_bias is nan; it must be a finite number"),
        ({"name": "digits", "data_dir": Path("x")}, "data_dir is x, but the digits need none: leave it out"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with refuses(ConfigError, message):
        DataConfig(**settings)


def test_a_validation_part_larger_than_the_data(tmp_path):
    with pytest.raises(ConfigError, match=r"validation_size is 5000 of 1437 training images; .* from 11 to 1426"):
        load_dataset(digits_config(tmp_path, validation_size=5000))


PAIR = np.zeros((3, 2, 2, 1)), np.array([0, 1, 1])


def arrays(seed: int = 0, dtype: type = np.uint8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three parts of images of 4 x 5 x 3 from 0 to 255, in three classes, of which the second has but test images."""
    draw = np.random.default_rng(seed)
    labels = (np.array([2, 0, 0, 2]), np.array([0, 2]), np.array([1, 0, 2], np.uint8))
    return [(draw.integers(0, 256, (len(each), 4, 5, 3)).astype(dtype), each) for each in labels]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float16, jax.numpy.bfloat16])
def test_a_dataset_of_arrays_holds_them_as_they_are(dtype):
    parts = arrays(dtype=dtype)
    dataset = Dataset.from_arrays(*parts)
    assert [leaf.dtype.name for leaf in jax.tree.leaves(dataset)] == ["float32", "int32"] * 3
    for name, (images, labels) in zip(("train", "validation", "test"), parts, strict=True):
        np.testing.assert_array_equal(getattr(dataset, f"{name}_images"), images.astype(np.float64))
        np.testing.assert_array_equal(getattr(dataset, f"{name}_labels"), labels)
    assert (dataset.num_classes, dataset.name) == (3, "arrays")


def test_a_dataset_of_arrays_is_named_and_told_by_its_content():
    parts = arrays()
    dataset = Dataset.from_arrays(*parts, num_classes=7, name="mine")
    assert (dataset.num_classes, dataset.name) == (7, "mine")
    again = Dataset.from_arrays(*[(jax.numpy.asarray(images), labels.tolist()) for images, labels in parts])
    assert again.fingerprint == Dataset.from_arrays(*parts).fingerprint
    train, validation, test = parts
    others = [
        Dataset.from_arrays(*arrays(seed=1)),
        Dataset.from_arrays(validation, train, test),
        Dataset.from_arrays((train[0], np.roll(train[1], 1)), validation, test),
        Dataset.from_arrays(*[(images.reshape(-1, 5, 4, 3), labels) for images, labels in parts]),
        dataset,
    ]
    assert len({each.fingerprint for each in (again, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (PAIR[0], "train is no pair of arrays (too many values to unpack (expected 2)); give images and labels"),
        (None, "train is no pair of arrays ('NoneType' object is not iterable); give images and labels"),
        (
            (PAIR[0][..., 0], PAIR[1]),
            "the train images have shape (3, 2, 2); they must be [N, H, W, C], each at least 1",
        ),
        ((PAIR[0][:0], []), "the train images have shape (0, 2, 2, 1); they must be [N, H, W, C], each at least 1"),
        ((PAIR[0] * 1j, PAIR[1]), "the train images are of dtype complex128; they must be real numbers"),
        ((PAIR[0].astype(str), PAIR[1]), "the train images are of dtype <U32; they must be real numbers"),
        ((PAIR[0] + np.nan, PAIR[1]), "the train images hold NaN or infinity; they must be finite in float32"),
        ((PAIR[0] + 1e300, PAIR[1]), "the train images hold NaN or infinity; they must be finite in float32"),
        ((PAIR[0], PAIR[1][:2]), "the train labels have shape (2,); they must be (3,), one an image"),
        ((PAIR[0], np.eye(3, dtype=int)), "the train labels have shape (3, 3); they must be (3,), one an image"),
        ((PAIR[0], PAIR[1] / 2), "the train labels are of dtype float64; they must be integers"),
        ((PAIR[0], PAIR[1] - 1), "the train labels are from -1 to 0; they must be counted from 0 on"),
        ((PAIR[0], PAIR[1] << 40), "the train labels are from 0 to 1099511627776; they must be counted from 0 on"),
        ((PAIR[0], PAIR[1] + 4), "the largest label is 5; with num_classes 5, labels are below that"),
        (
            (np.zeros((3, 2, 3, 1)), PAIR[1]),
            "the images of the parts differ in shape: train (2, 3, 1), validation (2, 2, 1), test (2, 2, 1); give all"
            " the same H, W, C",
        ),
    ],
)
def test_arrays_that_are_no_dataset_get_one_line(part, line):
    with refuses(DataError, line):
        Dataset.from_arrays(part, PAIR, PAIR, num_classes=5)
    if line.startswith("the train"):
        with refuses(DataError, line.replace("train", "test")):
            Dataset.from_arrays(PAIR, PAIR, part, num_classes=5)
