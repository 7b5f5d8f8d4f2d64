"""What the data modules pass to one another, and the error that they raise.

Dimension letters of this package: N images of H x W x C, D = H W C pixels; K classes; B images of a batch.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from numpy.typing import ArrayLike

from eigen_jax.config import SEED_MAX, Config, setting
from eigen_jax.data.images import Images, joined
from eigen_jax.errors import ConfigError, EigenError, first_line
from eigen_jax.store.files import sha256

DatasetName = Literal["cifar10", "cifar100", "digits", "images"]
Preprocessing = Literal["gcn_zca", "gcn", "gcn_mean", "standardize"]


Progress = Callable[[int, int], None]  # told of images that are read, and of how many there are


class DataError(EigenError):
    """Data that cannot be had, cannot be read, or cannot be split as asked: one line for the user."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What is known of images of one's own once they are read."""

    image_shape: tuple[int, int, int]  # H, W, C
    num_classes: int  # K
    train: int  # images that are trained on, without those held out


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Which data set, how it is split, and how its images are preprocessed."""

    name: DatasetName = setting("cifar10", "the data set; images: of one's own", flag=False)
    data_dir: Path | None = setting(
        None,
        "CIFAR: folder or archive in the official 'python version' layout; without it CIFAR is downloaded by"
        " tensorflow-datasets; images: folder with a folder a class, CSV of files and labels, or .npz of arrays",
    )
    source: str | Callable[..., Any] = setting(
        "auto",
        "images: how they are read; auto: by what --data-dir is; folder, csv, npz; tfds:NAME: a set of"
        " tensorflow-datasets; FILE.py:NAME: a function of your own",
        paper="no such images",
    )
    image_size: int | None = setting(
        None,
        "images: pixels that the shorter side is scaled to, before the middle is cut out; none: chosen from the images",
        paper="no such images",
        at_least=8,
        at_most=1024,
    )
    test_size: int | None = setting(
        None,
        "images: how many are held out for the test where there is no test part; none: a seventh of each class",
        paper="no such images",
        at_least=1,
    )
    cache_dir: Path | None = setting(
        None,
        "folder of what is kept between runs: data sets, compiled programs; by default"
        " $XDG_CACHE_HOME/eigen_jax, else ~/.cache/eigen_jax",
    )
    validation_size: int | None = setting(
        5_000, "training images held out to measure fitness; none: a seventh of each class", at_least=1
    )
    split_seed: int = setting(
        0, "seed that draws the images held out, from 0 to 2**32 - 1", at_least=0, at_most=SEED_MAX
    )
    preprocessing: Preprocessing = setting(
        "gcn_zca",
        "gcn_zca: global contrast normalization and ZCA whitening; gcn: the first alone; gcn_mean: the first, less the"
        " mean image; standardize: mean 0 and deviation 1 a channel",
        paper="gcn_zca",
    )
    gcn_scale: float = setting(
        55.0,
        "L2 norm of an image after contrast normalization; for gcn and gcn_mean, of one of 32 x 32 x 3 pixels",
        above=0,
        flag=False,
    )
    zca_bias: float = setting(0.1, "added to the eigenvalues of the covariance", above=0, flag=False)
    found: Found | None = setting(None, "what is known of images, see `resolve`", flag=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == "digits" and self.data_dir is not None:
            raise ConfigError(DataConfig, "{data_dir} is {}, but the digits need none: leave it out", self.data_dir)
        if self.name == "images":
            return
        for name, default in (("source", "auto"), ("image_size", None), ("test_size", None)):
            if (value := getattr(self, name)) != default:
                rule = f"{{{name}}} is {{}}, which is for images of your own, and the data are {{}}: leave it out"
                raise ConfigError(DataConfig, rule, value, self.name)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C; raises ConfigError for images that are not read yet."""
        if self.name == "images":
            return self._of_images().image_shape
        return (8, 8, 1) if self.name == "digits" else (32, 32, 3)

    @property
    def num_classes(self) -> int:
        """K; raises as `image_shape`."""
        if self.name == "images":
            return self._of_images().num_classes
        return 100 if self.name == "cifar100" else 10

    def _of_images(self) -> Found:
        if self.found is None:
            raise ConfigError(None, "the images are not read yet, so that nothing is known of them; call {}", "resolve")
        return self.found

    def cache_folder(self) -> Path:
        """`cache_dir`, else `$XDG_CACHE_HOME/eigen_jax` or `~/.cache/eigen_jax` (XDG Base Directory Specification 0.8).

        Raises ConfigError where the variable names no absolute path, and the user has no home folder.
        """
        if self.cache_dir is not None:
            return Path(self.cache_dir)
        root = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not root.is_absolute():  # which the specification has ignored
            try:
                root = Path.home() / ".cache"
            except RuntimeError:
                rule = "{cache_dir} is not given, and there is no home folder to make one in; name a folder"
                raise ConfigError(DataConfig, f"{rule} that can be written, or set XDG_CACHE_HOME to one") from None
        return root / "eigen_jax"


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """A data set as it was published, on the host."""

    name: str
    class_names: tuple[str, ...]  # K
    train_images: np.ndarray  # [N, H, W, C] uint8
    train_labels: np.ndarray  # [N] int32
    test_images: np.ndarray  # [N, H, W, C] uint8
    test_labels: np.ndarray  # [N] int32
    validation_images: np.ndarray | None = None  # [N, H, W, C] uint8; None: held out of the training images
    validation_labels: np.ndarray | None = None  # [N] int32
    report: tuple[str, ...] = ()  # what was read and skipped, a line each

    @property
    def images(self) -> list[np.ndarray]:
        """Of all parts."""
        parts = self.train_images, self.validation_images, self.test_images
        return [part for part in parts if part is not None]

    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of every image and label."""
        arrays: tuple[np.ndarray, ...] = self.train_images, self.train_labels, self.test_images, self.test_labels
        if self.validation_images is not None and self.validation_labels is not None:
            arrays += (self.validation_images, self.validation_labels)
        return sha256(part for array in arrays for part in (f"{array.dtype.str}{array.shape}", array))


Part = tuple[ArrayLike, ArrayLike]  # images [N, H, W, C] and labels [N]


@struct.dataclass
class Dataset:
    """A data set, split and preprocessed, as arrays on the default device."""

    train_images: Images  # [N, H, W, C] float32
    train_labels: Array  # [N] int32
    validation_images: Images  # [N, H, W, C] float32
    validation_labels: Array  # [N] int32
    test_images: Images  # [N, H, W, C] float32
    test_labels: Array  # [N] int32
    num_classes: int = struct.field(pytree_node=False)  # K
    name: str = struct.field(pytree_node=False)
    fingerprint: str = struct.field(pytree_node=False)  # SHA-256, hexadecimal, of all that the arrays depend on
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())  # K, or none where they have no names
    # What made the images of pixels, [N, H, W, C] uint8 to float32; None where that is not known.
    preprocessor: Callable[[np.ndarray], np.ndarray] | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def from_arrays(
        cls, train: Part, validation: Part, test: Part, *, num_classes: int | None = None, name: str = "arrays"
    ) -> "Dataset":
        """A data set of arrays at hand.

        Each part is a pair of images [N, H, W, C], of any real dtype, and labels [N], integers from 0 on. Images become
        float32 and are not normalised, uint8 ones neither: whoever has pixels from 0 to 255 standardises them first.
        K is `num_classes`, by default one more than the largest label of all.

        Raises DataError where a part is not as told, or the parts do not belong together.
        """
        given = {"train": train, "validation": validation, "test": test}
        parts = {part: _checked(part, pair) for part, pair in given.items()}
        shapes = {part: images.shape[1:] for part, (images, _) in parts.items()}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
            raise DataError(f"the images of the parts differ in shape: {told}; give all the same H, W, C")
        largest = max(int(labels.max()) for _, labels in parts.values())
        if num_classes is not None and largest >= num_classes:
            raise DataError(f"the largest label is {largest}; with num_classes {num_classes}, labels are below that")
        num_classes = largest + 1 if num_classes is None else num_classes
        arrays = {f"{part}_images": images for part, (images, _) in parts.items()}
        arrays |= {f"{part}_labels": labels for part, (_, labels) in parts.items()}
        content = (each for name, array in arrays.items() for each in (f"{name}{array.shape}", array))
        fingerprint = sha256([f"{num_classes}", *content])
        return cls(**jax.tree.map(jnp.asarray, arrays), num_classes=num_classes, name=name, fingerprint=fingerprint)


def _checked(part: str, pair: Part) -> tuple[np.ndarray, np.ndarray]:
    """The images, float32, and the labels, int32, of a part of a data set; raises DataError."""
    try:
        images, labels = map(np.asarray, pair)
    except (TypeError, ValueError) as error:
        raise DataError(f"{part} is no pair of arrays ({first_line(error)}); give images and labels") from None
    if not (jnp.issubdtype(images.dtype, np.floating) or images.dtype.kind in "biu"):
        raise DataError(f"the {part} images are of dtype {images.dtype}; they must be real numbers")
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(f"the {part} images have shape {images.shape}; they must be [N, H, W, C], each at least 1")
    if labels.dtype.kind not in "iu":
        raise DataError(f"the {part} labels are of dtype {labels.dtype}; they must be integers")
    if labels.shape != images.shape[:1]:
        raise DataError(f"the {part} labels have shape {labels.shape}; they must be {images.shape[:1]}, one an image")
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max - 1:
        raise DataError(f"the {part} labels are from {labels.min()} to {labels.max()}; they must be counted from 0 on")
    with np.errstate(over="ignore"):
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise DataError(f"the {part} images hold NaN or infinity; they must be finite in float32")
    return images, labels.astype(np.int32)


def join_validation(dataset: Dataset) -> Dataset:
    """The data set with its validation images, which stay as they are, trained on as well, after the others."""
    return dataclasses.replace(
        dataset,
        train_images=joined(dataset.train_images, dataset.validation_images),
        train_labels=jnp.concatenate([dataset.train_labels, dataset.validation_labels]),
    )
