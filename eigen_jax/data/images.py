"""Images as they are kept, and as networks see them: float32, whatever they are kept as.

Beside plain arrays there are two that take less of the device's memory: `PixelImages`, and `StreamedImages`, which take
none. Dimension letters are those of `eigen_jax.data.types`.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

_AHEAD = 2  # batches that are read while others are trained on


@struct.dataclass
class PixelImages:
    """Images on the device that are kept as pixels, in a quarter of the memory of those that networks see.

    Indexed, inside a program or outside, it gives those: [..., H, W, C] float32, as would the array of them, of which
    it has the shape. A preprocessing by channel makes each pixel's value one other, so all of it is one table.
    """

    pixels: Array  # [N, H, W, C] uint8
    table: Array  # [256, C] float32, what networks see of each value in each channel

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the images that networks see."""
        return self.table.dtype

    @property
    def sharding(self) -> jax.sharding.Sharding:
        return self.pixels.sharding

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __getitem__(self, index: Any) -> Array:
        return _look_up(self.pixels[index], self.table)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images that are too many for the device: pixels on the host, such as those of a file that is mapped into memory.

    Indexed outside programs, with positions on the host, it gives what `PixelImages` give, to the last bit.
    """

    pixels: np.ndarray  # [M, H, W, C] uint8; what is mapped goes to other processes by the name of its file
    rows: np.ndarray  # [N] int64, which of the M these images are
    table: np.ndarray  # [256, C] float32
    is_mirrored: bool = False

    def __post_init__(self) -> None:
        # A part of an array does not say which part of the file it is, and parts of one array are joined by their rows.
        pixels, rows = _whole(self.pixels, self.rows)
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "rows", rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), *self.pixels.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Of the images that networks see."""
        return self.table.dtype

    @property
    def sharding(self) -> jax.sharding.Sharding:
        """Of what is indexed: on the default device."""
        return jnp.zeros(()).sharding

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Array:
        return _look_up(jnp.asarray(self.read(index)), jnp.asarray(self.table))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def read(self, index: Any) -> np.ndarray:
        """The pixels of positions on the host, [..., H, W, C] uint8."""
        pixels = self.pixels[self.rows[index]]
        return pixels[..., ::-1, :] if self.is_mirrored else pixels

    def read_ahead(self, parts: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Array]]:
        """Yields positions [B] and their images, of each part in turn; the next ones are read by another thread."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming: deque[tuple[np.ndarray, Future[np.ndarray]]] = deque()
            for part in itertools.chain(parts, [None] * _AHEAD):
                if part is not None:
                    coming.append((part, reader.submit(self.read, part)))
                if coming and (part is None or len(coming) > _AHEAD):
                    known, pixels = coming.popleft()
                    yield known, _look_up(jnp.asarray(pixels.result()), jnp.asarray(self.table))

    def __reduce__(self) -> Any:
        if not isinstance(self.pixels, np.memmap):
            return type(self), (self.pixels, self.rows, self.table, self.is_mirrored)
        mapped = self.pixels.filename, self.pixels.offset, self.pixels.shape
        return _remap, (mapped, self.rows, self.table, self.is_mirrored)


# [N, H, W, C], float32 wherever they are indexed; streamed ones outside programs alone.
Images = Array | PixelImages | StreamedImages


def take(images: Images, positions: np.ndarray) -> Array:
    """Images as networks see them, [B, H, W, C] float32, at positions [B] on the host."""
    return images[positions] if isinstance(images, StreamedImages) else _take(images, positions)


def mirror(images: Images) -> Images:
    """Their mirror images, which are kept alike."""
    if isinstance(images, StreamedImages):
        return dataclasses.replace(images, is_mirrored=not images.is_mirrored)
    return jax.tree.map(lambda leaf: leaf[:, :, ::-1] if leaf.ndim == 4 else leaf, images)


def joined(images: Images, others: Images) -> Images:
    """The images of both, of one data set, which are kept alike."""
    if isinstance(images, StreamedImages) and isinstance(others, StreamedImages):
        if images.pixels is others.pixels:
            return dataclasses.replace(images, rows=np.concatenate([images.rows, others.rows]))
        pixels, rows = np.concatenate([images.pixels, others.pixels]), others.rows + len(images.pixels)
        return dataclasses.replace(images, pixels=pixels, rows=np.concatenate([images.rows, rows]))
    if isinstance(images, PixelImages) and isinstance(others, PixelImages):
        return dataclasses.replace(images, pixels=jnp.concatenate([images.pixels, others.pixels]))
    return jnp.concatenate([images[:], others[:]])


def _whole(pixels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The array that one of uint8 is some of the rows of, if it is, and where rows of the part are in it."""
    whole = pixels
    while isinstance(base := whole.base, np.ndarray) and (base.dtype, base.shape[1:]) == (np.uint8, pixels.shape[1:]):
        whole = base
    if whole is pixels or not (pixels.flags.c_contiguous and whole.flags.c_contiguous):
        return pixels, rows
    first, start = (each.__array_interface__["data"][0] for each in (pixels, whole))
    return whole, rows + (first - start) // whole.strides[0]


def _remap(mapped: tuple[Any, int, tuple[int, ...]], *fields: Any) -> StreamedImages:
    name, offset, shape = mapped
    return StreamedImages(np.memmap(name, np.uint8, "r", offset, shape), *fields)


@jax.jit
def _look_up(pixels: Array, table: Array) -> Array:
    return table[pixels, jnp.arange(table.shape[1])]


@jax.jit
def _take(images: Array | PixelImages, positions: Array) -> Array:
    return images[positions]
