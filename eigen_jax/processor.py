"""What a network needs beside its weights to take a new picture, kept with it: preprocessing, shape, class names.

processor.json              the image shape, the class names, and which preprocessing
preprocessing.safetensors   its fitted arrays: "table" of `ChannelTable`; "mean", and "matrix" if there is one, of
                            `ContrastWhitening`
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load, save

from eigen_jax.data import Dataset
from eigen_jax.data.preprocessing import ChannelTable, ContrastWhitening, Whitening
from eigen_jax.errors import EigenError
from eigen_jax.store import files
from eigen_jax.store.files import sha256
from eigen_jax.store.records import Positive, RecordFile

ARRAYS = "preprocessing.safetensors"

Preprocessor = ChannelTable | ContrastWhitening | None


class ProcessorError(EigenError):
    """What is kept with a network is missing or damaged, or does not take what it is given."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageProcessor:
    """From pixels to what a network sees, and from its logits to names."""

    dataset: str  # that it was fitted to
    image_shape: tuple[int, int, int]  # H, W, C
    class_names: tuple[str, ...]  # K
    preprocessor: Preprocessor  # None: not known; networks then take images as they were trained on

    @classmethod
    def of(cls, dataset: Dataset) -> "ImageProcessor":
        """That of a data set. Classes without names are called by their numbers."""
        _, height, width, channels = dataset.train_images.shape
        fitted = dataset.preprocessor
        return cls(
            dataset=dataset.name,
            image_shape=(height, width, channels),
            class_names=dataset.class_names or tuple(map(str, range(dataset.num_classes))),
            preprocessor=fitted if isinstance(fitted, ChannelTable | ContrastWhitening) else None,
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What `ARRAYS` holds."""
        if isinstance(self.preprocessor, ChannelTable):
            return {"table": np.ascontiguousarray(self.preprocessor.table)}
        if isinstance(self.preprocessor, ContrastWhitening):
            arrays = self.preprocessor.whitening.arrays
            return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return {}

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """[N, H, W, C] uint8 to what the network sees, float32; raises a ProcessorError for other arrays."""
        if self.preprocessor is None:
            raise ProcessorError(
                f"nothing says how the pixels of {self.dataset} became images, for the search was given arrays from"
                " Python; preprocess pictures as you did them, and ask the network that eigen_jax.load_network gives"
            )
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.image_shape:
            shape = ", ".join(map(str, self.image_shape))
            told = f"pictures are {pixels.dtype} of shape {pixels.shape}"
            raise ProcessorError(f"{told}; this network takes uint8 of shape (N, {shape})")
        return self.preprocessor(pixels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Record:
    """The content of processor.json."""

    dataset: str
    image_shape: tuple[Positive, Positive, Positive]
    classes: tuple[str, ...]
    preprocessing: Literal["table", "contrast_whitening"] | None
    scale: float | None = None  # of a contrast whitening
    sha256: str | None = None  # of the arrays


_FILE = RecordFile(
    name="processor.json",
    place="network folder",
    kind=_Record,
    schema_version=1,
    error=ProcessorError,
    advice="`python -m experiments.evaluate RUN`, with the data, makes it anew",
)


def save_processor(folder: Path, processor: ImageProcessor) -> None:
    """Writes both files; raises a ProcessorError where they cannot be written."""
    arrays, fitted = processor.arrays, processor.preprocessor
    is_whitening = isinstance(fitted, ContrastWhitening)
    with files.told_as(ProcessorError, folder):
        if arrays:
            files.write(folder / ARRAYS, save(arrays))
    named: Any = "contrast_whitening" if is_whitening else "table" if arrays else None
    _FILE.write(
        folder,
        _Record(
            dataset=processor.dataset,
            image_shape=processor.image_shape,
            classes=processor.class_names,
            preprocessing=named,
            scale=fitted.scale if isinstance(fitted, ContrastWhitening) else None,
            sha256=_digest(arrays) if arrays else None,
        ),
    )


def has_processor(folder: Path) -> bool:
    """Whether a network's folder holds one that can be read."""
    try:
        load_processor(folder)
    except ProcessorError:
        return False
    return True


def load_processor(folder: Path) -> ImageProcessor:
    """What `save_processor` wrote beside a network; raises a ProcessorError where it is missing or damaged."""
    record = _FILE.read(folder)
    arrays: Mapping[str, np.ndarray] = {}
    if record.preprocessing is not None:
        try:
            arrays = load((folder / ARRAYS).read_bytes())
        except Exception as error:  # safetensors raises an error of its own, of no stable name
            told = getattr(error, "strerror", None) or "it is no safetensors file"
            raise ProcessorError(f"cannot read {folder / ARRAYS}: {told}; {_FILE.advice}") from None
        if _digest(arrays) != record.sha256:
            raise ProcessorError(f"{folder / ARRAYS} is damaged; {_FILE.advice}")
    fitted: Preprocessor = None
    if record.preprocessing == "table":
        fitted = ChannelTable(arrays["table"])
    elif record.preprocessing == "contrast_whitening":
        fitted = ContrastWhitening(record.scale or 0.0, Whitening(arrays["mean"], arrays.get("matrix")))
    return ImageProcessor(
        dataset=record.dataset,
        image_shape=record.image_shape,
        class_names=record.classes,
        preprocessor=fitted,
    )


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    return sha256(part for name in sorted(arrays) for part in (name, arrays[name]))
