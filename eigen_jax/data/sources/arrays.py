"""An .npz of images and labels: x_train, y_train, x_test, y_test, or train_images and so on, or images, labels."""

import functools
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from eigen_jax.data.decoded import decoded
from eigen_jax.data.pictures import TEST, TRAIN, VALIDATION, Pictures, list_pictures
from eigen_jax.data.sources.folder import stamp_of
from eigen_jax.data.sources.source import SOURCES, Source, data_dir_of
from eigen_jax.data.types import DataConfig, DataError, Progress, RawDataset

# The names of the arrays of images and of labels, and the part of which they are.
_ARRAYS = (
    *(("images", "labels", TRAIN), ("x", "y", TRAIN)),
    *((f"x_{name}", f"y_{name}", part) for name, part in (("train", TRAIN), ("val", VALIDATION), ("test", TEST))),
    *((f"{name}_images", f"{name}_labels", p) for name, p in (("train", TRAIN), ("val", VALIDATION), ("test", TEST))),
)


def list_arrays(path: Path) -> Pictures:
    """The pictures of an .npz: images [N, H, W] or [N, H, W, C] uint8, labels [N] or [N, 1], numbers or texts.

    Classes are named by `class_names`, of which numbers are positions, else by their labels. Raises DataError.
    """
    arrays = _load(path)
    names = [str(each) for each in arrays.pop("class_names", np.empty(0, str)).reshape(-1)]
    images, rows, stamp = dict[str, np.ndarray](), list[tuple[str, str, int, str]](), stamp_of(path)
    for of_images, of_labels, part in _ARRAYS:
        if of_images not in arrays:
            continue
        if of_labels not in arrays:
            raise DataError(f"{path} has {of_images} without {of_labels}; save both")
        images[of_images] = _checked(arrays[of_images], f"{of_images} of {path}")
        labels = _labels(arrays[of_labels], len(images[of_images]), names, f"{of_labels} of {path}")
        rows += [(f"{of_images}[{row:09d}]", label, part, stamp) for row, label in enumerate(labels)]
    if not images:
        known = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{path} has {known}; it must have x_train and y_train, with x_test and y_test, or images and labels"
        )
    return list_pictures(rows, place=str(path), open=functools.partial(_open, images))


def _open(images: dict[str, np.ndarray], name: str) -> Image.Image:
    array, _, row = name.removesuffix("]").partition("[")
    return Image.fromarray(images[array][int(row)])


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise DataError(f"{path} is a single array; save images and labels with numpy.savez")
        with loaded as file:
            return {name: file[name] for name in file}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or 'it is no .npz'}); save it again") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        problem = "holds Python objects" if "allow_pickle" in str(error) else "is no whole .npz"
        raise DataError(f"{path} {problem}; save arrays of numbers with numpy.savez") from error


def _checked(images: np.ndarray, what: str) -> np.ndarray:
    """Images that Pillow takes: [N, H, W] or [N, H, W, C] uint8."""
    if images.dtype != np.uint8:
        raise DataError(f"{what} is of dtype {images.dtype}; images must be uint8, from 0 to 255")
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or 0 in images.shape or (images.ndim == 4 and images.shape[3] not in (3, 4)):
        shape = list(images.shape)
        raise DataError(f"{what} has the shape {shape}; images must be [N, H, W] or [N, H, W, C] of 1, 3 or 4 channels")
    return images


def _labels(labels: np.ndarray, count: int, names: list[str], what: str) -> list[str]:
    """The class of each image by its name."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise DataError(f"{what} has the shape {list(labels.shape)}; it must be [{count}], one label an image")
    if labels.dtype.kind in "US":
        texts = [str(each) for each in labels.astype(str)]
        if names and (unknown := sorted(set(texts) - set(names))):
            raise DataError(f"{what} has {unknown[0]!r}, which class_names does not have")
        return texts
    if labels.dtype.kind not in "iu":
        raise DataError(f"{what} is of dtype {labels.dtype}; labels must be whole numbers or texts")
    if labels.min() < 0 or (names and labels.max() >= len(names)):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        bound = f"from 0 to {len(names) - 1}, as class_names has {len(names)}" if names else "counted from 0 on"
        raise DataError(f"{what} has the label {wrong}; labels must be {bound}")
    return [names[each] if names else str(each) for each in labels.tolist()]


def _read(config: DataConfig, progress: Progress) -> RawDataset:
    return decoded(functools.partial(list_arrays, data_dir_of(config)), config, progress)


SOURCES.add("npz", Source(_read, lambda path: path.suffix.lower() == ".npz"))
