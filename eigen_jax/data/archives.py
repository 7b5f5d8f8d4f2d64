"""CIFAR-10 and CIFAR-100 in the official "python version" layout, as a folder or as the archive.

https://www.cs.toronto.edu/~kriz/cifar.html describes the layout. The sets may be smaller than the
official ones: a sample in the same layout is read alike.
"""

import dataclasses
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from eigen_jax.data.types import DataError, RawDataset
from eigen_jax.data.unpickling import unpickle

# What a folder or an archive that cannot be read raises.
_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    title: str
    folder: str
    archive: str
    files: tuple[str, ...]  # of training images, of test images, of names
    labels_key: str
    names_key: str
    num_classes: int


_LAYOUTS = {
    "cifar10": _Layout(
        title="CIFAR-10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        files=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
        labels_key="labels",
        names_key="label_names",
        num_classes=10,
    ),
    "cifar100": _Layout(
        title="CIFAR-100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        files=("train", "test", "meta"),
        labels_key="fine_labels",
        names_key="fine_label_names",
        num_classes=100,
    ),
}


def read_official(data_dir: Path, *, name: str) -> RawDataset:
    """Reads a CIFAR set from disk; no code that a hostile pickle names is run.

    Args:
        data_dir: the unpacked folder (`cifar-10-batches-py`), its parent, the folder that holds the
            archive (`cifar-10-python.tar.gz`), or the archive itself.
        name: "cifar10" or "cifar100".

    Raises:
        DataError: nothing of that set is there, or what is there is not whole, hostile, or cannot be.
    """
    layout = _LAYOUTS[name]
    location = _locate(data_dir, layout)
    contents = _read_folder(location, layout) if location.is_dir() else _read_archive(location, layout)
    labels = {file: f"{location}/{file}" if location.is_dir() else f"{file} in {location}" for file in layout.files}
    parts = {file: unpickle(contents[file], label=labels[file]) for file in layout.files}
    *batches, meta = layout.files
    *train, test = (_read_examples(parts[file], layout, labels[file]) for file in batches)
    return RawDataset(
        name=name,
        class_names=_read_class_names(parts[meta], layout, labels[meta]),
        train_images=np.concatenate([images for images, _ in train]),
        train_labels=np.concatenate([numbers for _, numbers in train]),
        test_images=test[0],
        test_labels=test[1],
    )


def _locate(data_dir: Path, layout: _Layout) -> Path:
    """The folder of the set, or an archive that may hold it, at or in `data_dir`."""
    try:
        if not data_dir.exists():
            raise DataError(f"data folder {data_dir} does not exist; {_wanted(layout)}")
        if not data_dir.is_dir():
            if not tarfile.is_tarfile(data_dir):
                raise DataError(f"{data_dir} is neither a folder nor a whole archive; {_wanted(layout)}")
            return data_dir
        found = {each.title: _find(data_dir, each) for each in (layout, *_LAYOUTS.values())}
    except _UNREADABLE as error:
        raise DataError(f"{data_dir} cannot be read ({_reason(error)}); {_wanted(layout)}") from error
    for title, place in found.items():  # the set itself first
        if place is not None:
            if title != layout.title:
                raise _other_set(place, title, layout)
            return place
    raise _no_set(data_dir, layout)


def _find(data_dir: Path, layout: _Layout) -> Path | None:
    """The folder or the archive of a set in a folder, be it in a folder of the set's name or in two."""
    folder = data_dir / layout.folder
    for place in (folder, folder / layout.folder, data_dir):
        if any((place / file).is_file() for file in layout.files):
            return place
    for place in (data_dir, folder):
        if (place / layout.archive).is_file():
            return place / layout.archive
    return folder if folder.is_dir() else None


def _wanted(layout: _Layout) -> str:
    return f"give the folder that holds {layout.folder} or {layout.archive}"


def _other_set(place: object, title: str, layout: _Layout) -> DataError:
    return DataError(f"{place} holds {title}, not {layout.title}; {_wanted(layout)}")


def _no_set(place: Path, layout: _Layout) -> DataError:
    return DataError(f"{place} does not hold {layout.title}; {_wanted(layout)}")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _read_folder(folder: Path, layout: _Layout) -> dict[str, bytes]:
    contents = {}
    for file in layout.files:
        try:
            contents[file] = (folder / file).read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{folder}/{file} is missing; unpack {layout.archive} again") from error
        except OSError as error:
            raise DataError(f"{folder}/{file} cannot be read ({_reason(error)})") from error
    return contents


def _read_archive(path: Path, layout: _Layout) -> dict[str, bytes]:
    """The files of a set, from the folder in the archive that holds most of them."""
    folders: dict[PurePosixPath, dict[str, bytes]] = {}
    others = []
    try:
        # One pass in the archive's own order: going back would decompress it from the start.
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and _is_of(layout, name):
                    folders.setdefault(name.parent, {})[name.name] = stream.read()
                others += [other.title for other in _LAYOUTS.values() if other is not layout and _is_of(other, name)]
    except _UNREADABLE as error:
        raise DataError(f"{path} is truncated or damaged ({_reason(error)}); get the archive again") from error
    if not folders:
        raise _other_set(path, others[0], layout) if others else _no_set(path, layout)
    contents = max(folders.values(), key=len)
    for file in layout.files:
        if file not in contents:
            raise DataError(f"{file} is missing in {path}, which is no whole {layout.archive}; get the archive again")
    return contents


def _is_of(layout: _Layout, member: PurePosixPath) -> bool:
    """Whether a member of an archive is a file of a set: in a folder of the set's name, or in none."""
    return member.name in layout.files and member.parent.name in (layout.folder, "")


def _read_examples(part: Mapping[str, Any], layout: _Layout, label: str) -> tuple[np.ndarray, np.ndarray]:
    """One batch file's images [N, 32, 32, 3] uint8 and labels [N] int32."""
    if layout.labels_key not in part:
        for other in _LAYOUTS.values():
            if other.labels_key in part:
                raise _other_set(label, other.title, layout)
    for key in ("data", layout.labels_key):
        if key not in part:
            raise DataError(f"{label} has no {key!r}; it is not a {layout.title} file: get it again")
    images, labels = part["data"], _integers(part[layout.labels_key], label)
    if not isinstance(images, np.ndarray):
        raise DataError(f"{label} holds images of type {type(images).__name__}; they must be a uint8 array [N, 3072]")
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3 * 32 * 32:
        raise DataError(f"{label} holds images {images.dtype} {list(images.shape)}; they must be uint8 [N, 3072]")
    if not len(images):
        raise DataError(f"{label} holds no image; get it again")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{label} holds {len(images)} images and {labels.size} labels; it must hold one label an image")
    if labels.min() < 0 or labels.max() >= layout.num_classes:
        wrong = labels[(labels < 0) | (labels >= layout.num_classes)][0]
        raise DataError(f"{label} holds the label {wrong}; {layout.title} has labels 0 to {layout.num_classes - 1}")
    planes = images.reshape(-1, 3, 32, 32)  # red, green, blue
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int32)


def _integers(values: Any, label: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0, object)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{label} holds labels that are not a list of integers; get the file again")
    return array


def _read_class_names(meta: Mapping[str, Any], layout: _Layout, label: str) -> tuple[str, ...]:
    names = meta.get(layout.names_key)
    if not isinstance(names, list) or len(names) != layout.num_classes:
        raise DataError(f"{label} does not name {layout.num_classes} classes; it is not {layout.title}'s: get it again")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names)
