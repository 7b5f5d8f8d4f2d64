"""CIFAR-10 and CIFAR-100 in the official "python version" layout, as a folder or as the archive.

https://www.cs.toronto.edu/~kriz/cifar.html describes the layout. A smaller sample in the same layout is read alike.
"""

import tarfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from eigen_jax.data.types import DataError, RawDataset
from eigen_jax.data.unpickling import unpickle

_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)  # raised by a folder or an archive


class _Layout(NamedTuple):
    title: str
    folder: str
    archive: str
    files: tuple[str, ...]  # of training images, of test images, of names
    labels_key: str
    names_key: str
    num_classes: int


_LAYOUTS = {
    "cifar10": _Layout(
        *("CIFAR-10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
        *("labels", "label_names", 10),
    ),
    "cifar100": _Layout(
        *("CIFAR-100", "cifar-100-python", "cifar-100-python.tar.gz"),
        ("train", "test", "meta"),
        *("fine_labels", "fine_label_names", 100),
    ),
}


def read_official(data_dir: Path, *, name: str) -> RawDataset:
    """Reads "cifar10" or "cifar100" from disk; no code that a hostile pickle names is run.

    `data_dir` is the unpacked folder (`cifar-10-batches-py`), its parent, the folder that holds the archive
    (`cifar-10-python.tar.gz`), or the archive itself. Raises DataError where nothing of that set is there, or
    what is there is not whole, hostile, or cannot be.
    """
    layout = _LAYOUTS[name]
    location = _locate(data_dir, layout)
    contents = _read_folder(location, layout) if location.is_dir() else _read_archive(location, layout)
    *batches, (meta_label, meta) = [(label, unpickle(content, label=label)) for label, content in contents.items()]
    *train, test = [_read_examples(part, layout, label) for label, part in batches]
    names = meta.get(layout.names_key)
    if not isinstance(names, list) or len(names) != layout.num_classes:
        problem = f"does not name {layout.num_classes} classes; it is not {layout.title}'s"
        raise DataError(f"{meta_label} {problem}: get it again")
    class_names = tuple(each.decode("latin1") if isinstance(each, bytes) else str(each) for each in names)
    images, labels = map(np.concatenate, zip(*train, strict=True))
    return RawDataset(name, class_names, images, labels, *test)


def _locate(data_dir: Path, layout: _Layout) -> Path:
    """The folder of the set, or an archive that may hold it, at or in `data_dir`."""
    try:
        if not data_dir.exists():
            raise _no_set(f"data folder {data_dir} does not exist", layout)
        if not data_dir.is_dir():
            if not tarfile.is_tarfile(data_dir):
                raise _no_set(f"{data_dir} is neither a folder nor a whole archive", layout)
            return data_dir
        # The set that is asked for first.
        found = {each.title: place for each in (layout, *_LAYOUTS.values()) if (place := _find(data_dir, each))}
    except _UNREADABLE as error:
        raise _no_set(f"{data_dir} cannot be read ({_reason(error)})", layout) from error
    title, place = next(iter(found.items()), (None, data_dir))
    if title != layout.title:
        raise _other_set(place, title, layout)
    return place


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


def _no_set(problem: str, layout: _Layout) -> DataError:
    return DataError(f"{problem}; give the folder that holds {layout.folder} or {layout.archive}")


def _other_set(place: object, title: str | None, layout: _Layout) -> DataError:
    """Where there is another set, of that title, or none."""
    problem = f"holds {title}, not {layout.title}" if title else f"does not hold {layout.title}"
    return _no_set(f"{place} {problem}", layout)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _read_folder(folder: Path, layout: _Layout) -> dict[str, bytes]:
    """The files of a set, by what messages call them, in the layout's order."""
    contents = {}
    for label in (f"{folder}/{file}" for file in layout.files):
        try:
            contents[label] = Path(label).read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{label} is missing; unpack {layout.archive} again") from error
        except OSError as error:
            raise DataError(f"{label} cannot be read ({_reason(error)})") from error
    return contents


def _read_archive(path: Path, layout: _Layout) -> dict[str, bytes]:
    """As `_read_folder`, from the folder in the archive that holds most of them: one of the set's name, or none."""
    folders: dict[str, dict[PurePosixPath, dict[str, bytes]]] = defaultdict(lambda: defaultdict(dict))
    files = {file for each in _LAYOUTS.values() for file in each.files}
    for name, content in read_members(path, files, advice="get the archive again"):
        for each in _LAYOUTS.values():
            if name.name in each.files and name.parent.name in (each.folder, ""):
                folders[each.title][name.parent][name.name] = content
    if layout.title not in folders:
        raise _other_set(path, next(iter(folders), None), layout)
    contents = max(folders[layout.title].values(), key=len)
    for file in layout.files:
        if file not in contents:
            raise DataError(f"{file} is missing in {path}, which is no whole {layout.archive}; get the archive again")
    return {f"{file} in {path}": contents[file] for file in layout.files}


def read_members(path: Path, names: Collection[str], *, advice: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yields the files of such names in a tar archive, each with its path there; a DataError of damage has advice."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:  # in its own order: going back would decompress it from the start
                place = PurePosixPath(member.name)
                if place.name in names and member.isfile() and (stream := archive.extractfile(member)):
                    yield place, stream.read()
    except _UNREADABLE as error:
        raise DataError(f"{path} is truncated or damaged ({_reason(error)}); {advice}") from error


def _read_examples(part: Mapping[str, Any], layout: _Layout, label: str) -> tuple[np.ndarray, np.ndarray]:
    """One batch file's images [N, 32, 32, 3] uint8 and labels [N] int32."""
    others = [each.title for each in _LAYOUTS.values() if each.labels_key in part]
    if others and layout.title not in others:
        raise _other_set(label, others[0], layout)
    for key in ("data", layout.labels_key):
        if key not in part:
            raise DataError(f"{label} has no {key!r}; it is not a {layout.title} file: get it again")
    images = part["data"]
    try:
        labels = np.asarray(part[layout.labels_key])
    except (ValueError, TypeError, OverflowError):
        labels = np.empty(0, object)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{label} holds labels that are not a list of integers; get the file again")
    if not isinstance(images, np.ndarray):
        raise DataError(f"{label} holds images of type {type(images).__name__}; they must be a uint8 array [N, 3072]")
    if images.dtype != np.uint8 or images.shape[1:] != (3 * 32 * 32,):
        raise DataError(f"{label} holds images {images.dtype} {list(images.shape)}; they must be uint8 [N, 3072]")
    if not len(images):
        raise DataError(f"{label} holds no image; get it again")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{label} holds {len(images)} images and {labels.size} labels; it must hold one label an image")
    if wrong := [each for each in labels.tolist() if not 0 <= each < layout.num_classes]:
        raise DataError(f"{label} holds the label {wrong[0]}; {layout.title} has labels 0 to {layout.num_classes - 1}")
    planes = images.reshape(-1, 3, 32, 32)  # red, green, blue
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int32)
