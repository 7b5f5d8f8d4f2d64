"""From a configuration to arrays on the device, and what is kept between runs on the way."""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from eigen_jax.data import preprocessing
from eigen_jax.data.archives import read_official
from eigen_jax.data.images import Images, PixelImages, StreamedImages
from eigen_jax.data.preprocessing import ContrastWhitening, Preprocessor, Whitening, stratified_split
from eigen_jax.data.sources import SOURCES, Source, find_source
from eigen_jax.data.types import DataConfig, DataError, Dataset, Found, Progress, RawDataset
from eigen_jax.errors import ConfigError
from eigen_jax.store import files, locks
from eigen_jax.store.files import sha256

_logger = logging.getLogger(__name__)


def load_dataset(config: DataConfig, *, device_bytes: int | None = None) -> Dataset:
    """Reads, splits and preprocesses a data set and puts it on the default device.

    Images come from `config.data_dir`; else, for CIFAR, from tensorflow-datasets; the digits are embedded. Where there
    is no validation part, it is held out of the training images, stratified. Whitened images are kept in the cache
    folder (740 MB for CIFAR). Raises DataError where the data cannot be had, read or split; ConfigError where so large
    a part cannot be held out, or there is no folder for a cache.

    Pixels of more than `device_bytes` in all stay where they are read from, and are streamed from there, to the same
    bits; ConfigError where images are then to be whitened.
    """
    raw = read_raw(config)
    for line in raw.report:
        _logger.info("%s", line)
    images, labels, held_out = _split(raw, config)
    fingerprint = _fingerprint(raw, held_out, config)
    if device_bytes is not None and sum(images.nbytes for images in raw.images) > device_bytes:
        (train, validation, test), preprocessor = _stream(images, config)
    else:
        pixels = [all[rows] for all, rows in images]
        (train, validation, test), preprocessor = _preprocess(pixels, config, fingerprint)
    train_labels, validation_labels, test_labels = (jnp.asarray(all[rows]) for all, rows in labels)
    arrays = (train, train_labels, validation, validation_labels, test, test_labels)
    return Dataset(
        *arrays,
        num_classes=len(raw.class_names),
        name=raw.name,
        fingerprint=fingerprint,
        class_names=raw.class_names,
        preprocessor=preprocessor,
    )


def read_raw(config: DataConfig, progress: Progress = lambda done, total: None) -> RawDataset:
    """Reads a data set as it was published, as `load_dataset` does, or images of one's own."""
    return find_source(config)(config, progress)


def resolve(config: DataConfig, progress: Progress = lambda done, total: None) -> DataConfig:
    """The config with what is known of images of one's own, which are read for it; raises as `load_dataset`.

    Pictures are decoded then, into the cache folder, where the next reading finds them. `progress` is told how far it
    is. Of other data sets, all is known.
    """
    if config.name != "images":
        return config
    raw = read_raw(config, progress)
    height, width, channels = raw.train_images.shape[1:]
    found = Found((height, width, channels), len(raw.class_names), len(_held_out(raw, config)[0]))
    return dataclasses.replace(config, found=found)


_Rows = tuple[np.ndarray, np.ndarray]  # an array, and which of its rows


def _split(raw: RawDataset, config: DataConfig) -> tuple[list[_Rows], list[_Rows], np.ndarray]:
    """The images and the labels to train on, to validate and to test, and the rows held out of the published ones."""
    kept, held_out = _held_out(raw, config)
    validation: tuple[_Rows, _Rows] = (raw.train_images, held_out), (raw.train_labels, held_out)
    if raw.validation_images is not None and raw.validation_labels is not None:
        every = np.arange(len(raw.validation_labels))
        validation = (raw.validation_images, every), (raw.validation_labels, every)
    every = np.arange(len(raw.test_labels))
    images = [(raw.train_images, kept), validation[0], (raw.test_images, every)]
    labels = [(raw.train_labels, kept), validation[1], (raw.test_labels, every)]
    return images, labels, held_out


def _held_out(raw: RawDataset, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the published training images that are trained on, and those that are not."""
    labels = raw.train_labels
    if raw.validation_labels is not None:
        return np.arange(len(labels)), np.empty(0, np.int64)
    count = len(raw.class_names)
    return stratified_split(labels, config.validation_size, num_classes=count, seed=config.split_seed)


def _read_digits(config: DataConfig, progress: Progress) -> RawDataset:
    """scikit-learn's digits, [N, 8, 8, 1] uint8, of which 360 are held out here, for good, as there is no test part."""
    # Here and below, slow imports wait until the data set that needs them is asked for.
    from sklearn.datasets import load_digits

    published = load_digits()
    images = np.rint(published.images * (255 / 16)).astype(np.uint8)[..., None]  # of pixels from 0 to 16
    labels = published.target.astype(np.int32)
    train, test = stratified_split(labels, 360, num_classes=10, seed=0)
    class_names = tuple(map(str, published.target_names))
    return RawDataset("digits", class_names, images[train], labels[train], images[test], labels[test])


def _read_cifar(config: DataConfig, progress: Progress) -> RawDataset:
    if config.data_dir is not None:
        return read_official(Path(config.data_dir), name=config.name)
    return _read_downloaded(config.name, config.cache_folder())


def _read_downloaded(name: str, cache_dir: Path) -> RawDataset:
    """A CIFAR set of tensorflow-datasets, decoded once and then kept as plain arrays."""

    def read() -> list[np.ndarray]:
        tfds_dir = cache_dir / "tensorflow_datasets"
        try:
            tfds_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cache folder {cache_dir} cannot be written ({error.strerror}); name another") from error
        from eigen_jax.data.tfds_source import read_tfds

        raw = read_tfds(name, tfds_dir=tfds_dir)
        return [np.asarray(getattr(raw, array)) for array in names]

    names = ("train_images", "train_labels", "test_images", "test_labels", "class_names")
    train, labels, test, test_labels, class_names = kept_arrays(cache_dir / "decoded" / f"{name}.npz", names, read)
    return RawDataset(name, tuple(map(str, class_names)), train, labels, test, test_labels)


SOURCES.add("digits", Source(_read_digits))
SOURCES.add("cifar10", Source(_read_cifar))
SOURCES.add("cifar100", Source(_read_cifar))


def _fingerprint(raw: RawDataset, validation_rows: np.ndarray, config: DataConfig) -> str:
    """SHA-256 of everything that the preprocessed arrays depend on."""
    depends_on = {
        "content": raw.content_hash(),
        "validation": sha256([validation_rows.astype("<i8")]),
        "preprocessing": config.preprocessing,
        "version": preprocessing.VERSION,
    }
    if config.preprocessing != "standardize":
        depends_on |= {"gcn_scale": float(config.gcn_scale)}
    if config.preprocessing == "gcn_zca":
        depends_on |= {"zca_bias": float(config.zca_bias)}
    return sha256([json.dumps(depends_on, sort_keys=True)])


def _stream(parts: list[tuple[np.ndarray, np.ndarray]], config: DataConfig) -> tuple[list[Images], Preprocessor]:
    """The parts, rows of pixels each, left on the host, and what networks see of them."""
    if config.preprocessing != "standardize":
        rule = "{preprocessing} is {}, which needs all images, and they do not fit into memory; choose 'standardize'"
        raise ConfigError(DataConfig, rule, config.preprocessing)
    standardizer = preprocessing.fit_standardizer(*parts[0])
    return [StreamedImages(*part, standardizer.table) for part in parts], standardizer


def _preprocess(parts: list[np.ndarray], config: DataConfig, fingerprint: str) -> tuple[list[Images], Preprocessor]:
    """The parts on the device, and what made them: pixels and a table, or float32, whitened ones by the cache."""
    if config.preprocessing == "standardize":
        standardizer = preprocessing.fit_standardizer(parts[0])
        table = jnp.asarray(standardizer.table)
        return [PixelImages(jnp.asarray(part), table) for part in parts], standardizer
    if config.preprocessing != "gcn_zca":
        # The same contrast of a pixel, whatever their number, where no whitening gives it.
        scale = config.gcn_scale * math.sqrt(parts[0][0].size / (32 * 32 * 3))
        normalizer = preprocessing.fit_gcn(parts[0], scale=scale, subtract_mean=config.preprocessing == "gcn_mean")
        return [jnp.asarray(normalizer(part)) for part in parts], normalizer
    path = config.cache_folder() / "preprocessed" / f"{config.name}-{fingerprint[:32]}.npz"

    def whiten() -> list[np.ndarray]:
        _logger.info("whitening %s; this happens once and may take a minute", config.name)
        started = time.monotonic()
        fitted = preprocessing.fit_gcn_zca(parts[0], scale=config.gcn_scale, bias=config.zca_bias)
        images = list(map(fitted, parts))
        _logger.info("whitened %s in %.1f s", config.name, time.monotonic() - started)
        return [*images, *fitted.whitening.arrays.values()]

    *images, mean, matrix = kept_arrays(path, ("train", "validation", "test", "mean", "matrix"), whiten)
    return list(map(jnp.asarray, images)), ContrastWhitening(config.gcn_scale, Whitening(mean, matrix))


def kept_arrays(path: Path, names: Sequence[str], make: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """The named arrays of a cache file, which are made, and kept there if possible, where it is missing or damaged."""
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as file:
                return [file[name] for name in names]
        except Exception as error:  # a damaged archive raises nearly anything, and all of it means the same
            _logger.warning("cache file %s is damaged (%s) and is built again", path, type(error).__name__)
    arrays, lock = make(), path.with_name(f"{path.name}.lock")
    try:
        with locks.held(lock):
            try:
                with files.replacing(path) as file:
                    np.savez(file, **dict(zip(names, arrays, strict=True)))  # type: ignore[arg-type]
            finally:
                # Where this lets another process in, both write the same bytes.
                lock.unlink(missing_ok=True)
    except OSError as error:
        _logger.warning("cache file %s cannot be written (%s); going on without it", path, error.strerror or error)
    return arrays
