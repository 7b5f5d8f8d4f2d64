"""CIFAR-10, CIFAR-100 and, once it is prepared, any image set through tensorflow-datasets, without TensorFlow.

tensorflow-datasets downloads the official "binary version" archive, checks its SHA-256 and keeps the prepared set. Its
own builders unpack and decode with TensorFlow; the builders here have the same names, versions and features, and so
write what `tfds.data_source("cifar100")` reads, with Python's `tarfile` and Pillow.
"""

import difflib
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.image_classification import cifar

from eigen_jax.data.archives import read_members
from eigen_jax.data.pictures import PART_NAMES, Pictures, list_pictures
from eigen_jax.data.types import DataError, RawDataset

_logger = logging.getLogger(__name__)


class _TarfileBuilder:
    """The part of a CIFAR builder that needs no TensorFlow; mixed into tensorflow-datasets' own."""

    _cifar_info: Any  # of the stock builder: where the archive is and what is in it
    info: Any

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        layout = self._cifar_info
        names = [*layout.train_files, *layout.test_files, *layout.label_files]
        members = read_members(Path(dl_manager.download(layout.url)), names, advice="delete it and start again")
        contents = {place.name: content for place, content in members}
        for key, file in zip(layout.label_keys, layout.label_files, strict=True):
            self.info.features[key].names = contents[file].decode().split()
        return {
            tfds.Split.TRAIN: self._generate_examples("train_", [contents[file] for file in layout.train_files]),
            tfds.Split.TEST: self._generate_examples("test_", [contents[file] for file in layout.test_files]),
        }

    def _generate_examples(self, split_prefix: str, contents: list[bytes]) -> Iterator[tuple[int, dict]]:
        keys = self._cifar_info.label_keys
        records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, len(keys) + 3 * 32 * 32)
        for index, record in enumerate(records):
            pixels = record[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
            png = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(png, format="png", compress_level=1)
            png.seek(0)
            labels = {key: int(label) for key, label in zip(keys, record[: len(keys)], strict=True)}
            yield index, {"id": f"{split_prefix}{index:05d}", "image": png, **labels}


# The stock builders keep their names in tensorflow-datasets' register.
with registered.skip_registration():

    class _Cifar10(_TarfileBuilder, cifar.Cifar10):
        name = "cifar10"

    class _Cifar100(_TarfileBuilder, cifar.Cifar100):
        name = "cifar100"


_OURS: dict[str, Any] = {"cifar10": _Cifar10, "cifar100": _Cifar100}


def read_tfds(name: str, *, tfds_dir: Path) -> RawDataset:
    """Reads "cifar10" or "cifar100", in the official order, with tensorflow-datasets, which prepares it the first time.

    An archive in `downloads/manual` of tensorflow-datasets' data folder, `tfds_dir`, is used in place of a download.
    Raises DataError where that fails or has the wrong checksum, or the folder cannot be written or read.
    """
    builder = _OURS[name](data_dir=tfds_dir, file_format="array_record")
    if not _is_prepared(builder):
        _prepare(builder, tfds_dir / "downloads")
    try:
        parts = *_read_split(builder, "train"), *_read_split(builder, "test")
    except Exception as error:  # array_record and the image decoder each have errors of their own
        problem = f"the prepared {name} in {builder.data_dir} cannot be read ({_reason(error)})"
        raise DataError(f"{problem}; delete that folder, and it is made again") from error
    return RawDataset(name, tuple(builder.info.features["label"].names), *parts)


def list_tfds(name: str, *, tfds_dir: Path) -> Pictures:
    """The pictures of an image classification set, by the splits that are called as parts are.

    It is prepared where it is not yet and that takes no TensorFlow. Raises DataError where there is no such set, it is
    of something else, or it is to be prepared elsewhere.
    """
    builder = _find(name, tfds_dir)
    features, keys = builder.info.features, builder.info.supervised_keys
    image, label = keys if keys and len(keys) == 2 else ("image", "label")
    kinds = {image: tfds.features.Image, label: tfds.features.ClassLabel}
    if not all(isinstance(key, str) and key in features and isinstance(features[key], kinds[key]) for key in kinds):
        raise DataError(f"{name} of tensorflow-datasets is no set of images with a class each; choose another")
    how = f"tfds.builder({name!r}, data_dir={str(tfds_dir)!r}, file_format='array_record').download_and_prepare()"
    advice = f"prepare it where TensorFlow is installed, with {how}"
    try:
        if not _is_prepared(builder):
            _logger.info("preparing %s in %s; this happens once", name, builder.data_dir)
            builder.download_and_prepare()
        splits = [split for split in builder.info.splits if split in PART_NAMES]
        skip = {image: tfds.decode.SkipDecoding()}
        sources = {split: builder.as_data_source(split=split, decoders=skip) for split in splits}
        names, stamp = features[label].int2str, str(builder.info.full_name)
        rows = [
            (f"{split}[{row:09d}]", names(int(source[row][label])), PART_NAMES[split], stamp)
            for split, source in sources.items()
            for row in range(len(source))
        ]
    except Exception as error:  # tensorflow-datasets has no exception of its own for most failures
        problem = f"{name} of tensorflow-datasets cannot be prepared or read here ({_reason(error)})"
        raise DataError(f"{problem}; {advice}") from error
    if not rows:
        raise DataError(f"{name} of tensorflow-datasets has no split called train; choose another set")

    def open_one(name: str) -> Image.Image:
        split, _, row = name.removesuffix("]").partition("[")
        return Image.open(io.BytesIO(sources[split][int(row)][image]))

    return list_pictures(rows, place=f"{name} of tensorflow-datasets", open=open_one)


def _find(name: str, tfds_dir: Path) -> Any:
    try:
        if name in _OURS:
            return _OURS[name](data_dir=tfds_dir, file_format="array_record")
        return tfds.builder(name, data_dir=tfds_dir, file_format="array_record")
    except registered.DatasetNotFoundError as error:
        # The list itself cannot be had without TensorFlow.
        close = difflib.get_close_matches(name, re.findall(r"^\s*- (\w+)$", str(error), re.MULTILINE), n=1)
        hint = f"did you mean {close[0]}?" if close else "its catalogue has the names"
        raise DataError(f"there is no set {name!r} in tensorflow-datasets; {hint}") from error
    except Exception as error:  # of sets that need TensorFlow to be described
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        problem = f"{name} of tensorflow-datasets cannot be used without TensorFlow ({_reason(cause)})"
        raise DataError(f"{problem}; write its images to folders, one a class") from error


def _is_prepared(builder: Any) -> bool:
    # `builder.is_prepared()` says the same, and warns of what is normal before the first download.
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def _prepare(builder: tfds.core.GeneratorBasedBuilder, downloads: Path) -> None:
    name, url = builder.name, builder._cifar_info.url
    if not (downloads / "manual" / PurePosixPath(url).name).exists():
        try:
            # tensorflow-datasets itself retries for minutes before it gives up.
            requests.head(url, timeout=15.0, allow_redirects=True).raise_for_status()
        except requests.RequestException as error:
            raise _no_data(name, f"{url} cannot be reached ({type(error).__name__})") from error
    _logger.info("preparing %s in %s; this happens once", name, builder.data_dir)
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(force_checksums_validation=True))
    except DataError:
        raise
    except NonMatchingChecksumError as error:
        problem = f"the archive of {name} in {downloads} has a wrong checksum"
        raise DataError(f"{problem}; delete that folder and start again") from error
    except tfds.download.DownloadError as error:
        raise _no_data(name, f"the download failed ({_reason(error)})") from error
    except Exception as error:  # tensorflow-datasets has no exception of its own for most failures
        problem = f"tensorflow-datasets could not prepare {name} in {builder.data_dir} ({_reason(error)})"
        raise DataError(problem) from error


def _no_data(name: str, reason: str) -> DataError:
    """Says which three ways there are to get some."""
    return DataError(
        f"no data for {name}: {reason}; connect to the network and it is downloaded, or give --data-dir with the "
        "official python-version folder or archive, or run `python -m experiments.digits`, which needs neither"
    )


def _read_split(builder: tfds.core.GeneratorBasedBuilder, split: str) -> tuple[np.ndarray, np.ndarray]:
    """A split's images [N, 32, 32, 3] uint8 and labels [N] int32, in the official order."""
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    images, labels = np.empty((len(source), 32, 32, 3), np.uint8), np.empty(len(source), np.int32)
    for example in source:
        # tensorflow-datasets shuffles what it writes; the id keeps the place.
        position = int(example["id"].decode().rpartition("_")[2])
        images[position] = np.asarray(Image.open(io.BytesIO(example["image"])))
        labels[position] = example["label"]
    return images, labels


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
