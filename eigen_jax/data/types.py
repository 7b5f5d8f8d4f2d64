"""What the data modules pass to one another, and the error that they raise.

Dimension letters, here and in every module of this package:

    N  images
    H, W, C  height, width and channels of an image
    D  pixels of an image, H * W * C
    K  classes
    B  images of a batch
"""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from eigen_jax.errors import EigenError
from eigen_jax.store.files import sha256

DatasetName = Literal["cifar10", "cifar100", "digits"]
Preprocessing = Literal["gcn_zca", "standardize"]


class DataError(EigenError):
    """Data that cannot be had, cannot be read, or cannot be split as asked: one line for the user."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set, how it is split, and how its images are preprocessed.

    Raises:
        DataError: a value that no data set can be made with.
    """

    name: DatasetName = "cifar10"
    data_dir: Path | None = None  # official "python version" folder or archive; None: tensorflow-datasets
    validation_size: int = 5000  # images held out of the training set
    split_seed: int = 0  # from 0 to 2**32 - 1
    preprocessing: Preprocessing = "gcn_zca"
    gcn_scale: float = 55.0  # L2 norm of an image after contrast normalization
    zca_bias: float = 0.1  # added to the eigenvalues of the covariance
    cache_dir: Path | None = None  # None: `default_cache_dir()`

    def __post_init__(self) -> None:
        if self.name not in get_args(DatasetName):
            raise DataError(f"there is no data set {self.name!r}; choose from {', '.join(get_args(DatasetName))}")
        if self.preprocessing not in get_args(Preprocessing):
            known = ", ".join(get_args(Preprocessing))
            raise DataError(f"there is no preprocessing {self.preprocessing!r}; choose from {known}")
        if self.name == "digits" and self.data_dir is not None:
            raise DataError(f"data folder {self.data_dir} is given, but the digits need none: leave it out")
        if self.validation_size < 1:
            raise DataError(f"validation_size is {self.validation_size}; it must be at least 1 image")
        if not 0 <= self.split_seed < 2**32:
            raise DataError(f"split_seed is {self.split_seed}; it must be from 0 to {2**32 - 1}")
        for name in ("gcn_scale", "zca_bias"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise DataError(f"{name} is {value}; it must be a number above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawDataset:
    """A data set as it was published, on the host."""

    name: str
    class_names: tuple[str, ...]  # K
    train_images: np.ndarray  # [N, H, W, C] uint8
    train_labels: np.ndarray  # [N] int32
    test_images: np.ndarray  # [N, H, W, C] uint8
    test_labels: np.ndarray  # [N] int32

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of every image and label."""
        arrays = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return sha256(part for array in arrays for part in (f"{array.dtype.str}{array.shape}", array))


@struct.dataclass
class Dataset:
    """A data set, split and preprocessed, as arrays on the default device."""

    train_images: Array  # [N, H, W, C] float32
    train_labels: Array  # [N] int32
    validation_images: Array  # [N, H, W, C] float32
    validation_labels: Array  # [N] int32
    test_images: Array  # [N, H, W, C] float32
    test_labels: Array  # [N] int32
    num_classes: int = struct.field(pytree_node=False)  # K
    name: str = struct.field(pytree_node=False)
    fingerprint: str = struct.field(pytree_node=False)  # SHA-256, hexadecimal, of all that the arrays depend on


def join_validation(dataset: Dataset) -> Dataset:
    """The data set with its validation images trained on as well; they follow the training images.

    The validation part stays as it was, and says nothing of what is trained on the result.
    """
    return dataclasses.replace(
        dataset,
        train_images=jnp.concatenate([dataset.train_images, dataset.validation_images]),
        train_labels=jnp.concatenate([dataset.train_labels, dataset.validation_labels]),
    )
