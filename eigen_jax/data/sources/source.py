"""The seam: what a source of data is, the table of them, and which one a config means."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eigen_jax.data.types import DataConfig, DataError, Progress, RawDataset
from eigen_jax.errors import ConfigError
from eigen_jax.registry import Registry, check_there_is

Read = Callable[[DataConfig, Progress], RawDataset]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set comes from."""

    read: Read  # reads it, all of it; raises DataError, or ConfigError for settings that do not fit
    recognises: Callable[[Path], bool] | None = None  # whether images lie so at a path; None: no source of images


SOURCES: Registry[Source] = Registry("data source")

_PARTS = ("train", "validation", "test")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def find_source(config: DataConfig) -> Read:
    """What reads the data of a config; raises ConfigError or DataError where nothing does."""
    if config.name != "images":
        return SOURCES.find(config.name).read
    if not isinstance(config.source, str):
        return functools.partial(_read_own, config.source)
    kind = config.source.partition(":")[0]
    if kind == "auto":
        return _recognised(config).read
    check_there_is("source of images", kind, ["auto", *_of_images()])
    if kind != "tfds":
        data_dir_of(config)
    return SOURCES[kind].read


def data_dir_of(config: DataConfig) -> Path:
    """The path of images; raises ConfigError where it is not given, DataError where nothing is there."""
    if config.data_dir is None:
        rule = "{data_dir} is missing; name the folder, the CSV or the .npz of your pictures"
        raise ConfigError(DataConfig, f"{rule}, or a set of tensorflow-datasets with {{source}} tfds:NAME")
    path = Path(config.data_dir)
    if not path.exists():
        raise DataError(f"{path} does not exist; name the folder, the CSV or the .npz of your pictures")
    return path


def _read_own(source: Read, config: DataConfig, progress: Progress) -> RawDataset:
    """What a function of the user's own gives, as a set of images; raises DataError where it is none."""
    raw = source(config, progress)
    if not isinstance(raw, RawDataset):
        raise _other(f"of type {type(raw).__name__}; it must be a RawDataset")
    if len(raw.class_names) < 2:
        raise _other(f"with class_names {raw.class_names}; there must be two or more")
    parts = {name: (getattr(raw, f"{name}_images"), getattr(raw, f"{name}_labels")) for name in _PARTS}
    for name, (images, labels) in parts.items():
        if name == "validation" and images is None and labels is None:
            continue
        images, labels, last = np.asarray(images), np.asarray(labels), len(raw.class_names) - 1
        is_alike = images.ndim == 4 and 0 not in images.shape and images.shape[1:] == raw.train_images.shape[1:]
        if images.dtype != np.uint8 or not is_alike:
            shown = f"{images.dtype} {list(images.shape)}; they must be uint8 [N, H, W, C], alike in all parts"
            raise _other(f"with {name} images {shown}")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or labels.min() < 0 or labels.max() > last:
            shown = f"{labels.dtype} {list(labels.shape)}; they must be whole numbers [N], from 0 to {last}"
            raise _other(f"with {name} labels {shown}")
    return dataclasses.replace(raw, name="images")


def _other(what: str) -> DataError:
    return DataError(f"the source of your own gives something {what}")


def _of_images() -> dict[str, Source]:
    return {name: source for name, source in SOURCES.items() if source.recognises is not None}


def _recognised(config: DataConfig) -> Source:
    path = data_dir_of(config)
    for source in _of_images().values():
        if source.recognises is not None and source.recognises(path):
            return source
    advice = "unpack it, and name the folder" if path.suffix.lower() in _ARCHIVES else "name one of these"
    raise DataError(f"{path} is neither a folder, nor a .csv or .tsv, nor an .npz; {advice}")
