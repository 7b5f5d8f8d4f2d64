"""CIFAR-10 and CIFAR-100 through tensorflow-datasets, without TensorFlow.

tensorflow-datasets downloads the official "binary version" archive, checks its SHA-256 and keeps
the prepared set. Its own builders unpack and decode with TensorFlow; the builders here have the
same names, versions and features, and so write what `tfds.data_source("cifar100")` reads, with
Python's `tarfile` and Pillow. Importing this module imports tensorflow-datasets.
"""

import io
import logging
import tarfile
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

from eigen_jax.data.types import DataError, RawDataset

_PROBE_SECONDS = 15.0  # tensorflow-datasets itself retries for minutes before it gives up

_logger = logging.getLogger(__name__)


class _TarfileBuilder:
    """The part of a CIFAR builder that needs no TensorFlow; mixed into tensorflow-datasets' own."""

    _cifar_info: Any  # of the stock builder: where the archive is and what is in it
    info: Any

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        layout = self._cifar_info
        contents = _read_archive(Path(dl_manager.download(layout.url)))
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
            labels = {key: int(label) for key, label in zip(keys, record[: len(keys)], strict=True)}
            yield index, {"id": f"{split_prefix}{index:05d}", "image": io.BytesIO(_png(pixels)), **labels}


# The stock builders keep their names in tensorflow-datasets' register.
with registered.skip_registration():

    class _Cifar10(_TarfileBuilder, cifar.Cifar10):
        name = "cifar10"

    class _Cifar100(_TarfileBuilder, cifar.Cifar100):
        name = "cifar100"


_BUILDERS: dict[str, Any] = {"cifar10": _Cifar10, "cifar100": _Cifar100}


def read_tfds(name: str, *, tfds_dir: Path) -> RawDataset:
    """Reads a CIFAR set, in its official order, with tensorflow-datasets; downloads and prepares it the first time.

    Args:
        name: "cifar10" or "cifar100".
        tfds_dir: tensorflow-datasets' data folder. An archive that is put into its
            `downloads/manual` is used in place of a download.

    Raises:
        DataError: the download fails or has the wrong checksum, or the folder cannot be written or read.
    """
    builder = _BUILDERS[name](data_dir=tfds_dir, file_format="array_record")
    # `builder.is_prepared()` says the same, and warns of what is normal before the first download.
    if not (Path(builder.data_dir) / "dataset_info.json").is_file():
        archive = PurePosixPath(builder._cifar_info.url).name
        if not (tfds_dir / "downloads" / "manual" / archive).exists():
            _check_reachable(builder._cifar_info.url, name)
        _prepare(builder)
    try:
        (train_images, train_labels), (test_images, test_labels) = (_read_split(builder, s) for s in ("train", "test"))
    except Exception as error:  # array_record and the image decoder each have errors of their own
        raise DataError(
            f"the prepared {name} in {builder.data_dir} cannot be read ({_reason(error)}); "
            "delete that folder, and it is made again"
        ) from error
    return RawDataset(
        name=name,
        class_names=tuple(builder.info.features["label"].names),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )


def no_data_message(name: str, reason: str) -> str:
    """One line that says why there is no data and which three ways there are to get some."""
    return (
        f"no data for {name}: {reason}; connect to the network and it is downloaded, or give --data-dir with the "
        "official python-version folder or archive, or run `python -m experiments.digits`, which needs neither"
    )


def _check_reachable(url: str, name: str) -> None:
    """Fails at once where a download cannot succeed."""
    try:
        requests.head(url, timeout=_PROBE_SECONDS, allow_redirects=True).raise_for_status()
    except requests.RequestException as error:
        raise DataError(no_data_message(name, f"{url} cannot be reached ({type(error).__name__})")) from error


def _prepare(builder: tfds.core.GeneratorBasedBuilder) -> None:
    _logger.info("preparing %s in %s; this happens once", builder.name, builder.data_dir)
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(force_checksums_validation=True))
    except DataError:
        raise
    except NonMatchingChecksumError as error:
        downloads = Path(builder.data_dir).parents[1] / "downloads"
        raise DataError(
            f"the archive of {builder.name} in {downloads} has a wrong checksum; delete that folder and start again"
        ) from error
    except tfds.download.DownloadError as error:
        raise DataError(no_data_message(builder.name, f"the download failed ({_reason(error)})")) from error
    except Exception as error:  # tensorflow-datasets has no exception of its own for most failures
        raise DataError(
            f"tensorflow-datasets could not prepare {builder.name} in {builder.data_dir} ({_reason(error)})"
        ) from error


def _read_archive(path: Path) -> dict[str, bytes]:
    """Every file of a tar archive by its bare name."""
    try:
        with tarfile.open(path) as archive:
            files = {PurePosixPath(member.name).name: archive.extractfile(member) for member in archive}
            return {name: file.read() for name, file in files.items() if file is not None}
    except (EOFError, tarfile.TarError) as error:
        reason = type(error).__name__
        raise DataError(f"{path} is truncated or damaged ({reason}); delete it and start again") from error


def _read_split(builder: tfds.core.GeneratorBasedBuilder, split: str) -> tuple[np.ndarray, np.ndarray]:
    """A split's images [N, 32, 32, 3] uint8 and labels [N] int32, in the official order."""
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.empty((len(source), 32, 32, 3), np.uint8)
    labels = np.empty(len(source), np.int32)
    for example in source:
        # tensorflow-datasets shuffles what it writes; the id keeps the place.
        position = int(example["id"].decode().rpartition("_")[2])
        images[position] = np.asarray(Image.open(io.BytesIO(example["image"])))
        labels[position] = example["label"]
    return images, labels


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="png", compress_level=1)
    return stream.getvalue()


def _reason(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"
