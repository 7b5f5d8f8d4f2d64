"""Which pictures can be decoded, and the size that fits many."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from eigen_jax.data.pixels import to_pixels

VERSION = 1  # part of every key: raise it whenever a picture would come out otherwise

MOST_PIXELS = 89_478_485  # of a picture, beyond which Pillow takes it for a decompression bomb
SIZES = (16, 24, 32, 48, 64)  # pixels, of which one is chosen

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")  # modes of Pillow without colours


class SkippedError(Exception):
    """A picture that cannot be read; the text says why, alike for all of which it is so."""


class ColourError(Exception):
    """A picture in colours, where all were to be grey."""


class Look(NamedTuple):
    """What the header of a picture says."""

    shorter: int  # pixels
    is_square: bool
    is_grey: bool


def look_at(image: Image.Image) -> Look:
    """What is known of a picture before it is decoded."""
    return Look(min(image.size), image.width == image.height, image.mode in _GREY)


def choose_size(looks: Sequence[Look]) -> tuple[int, str]:
    """The side of the square that pictures become, in pixels, and why.

    It is their own where all are one small square; else the largest of `SIZES` that is at most their median shorter
    side, or the smallest.
    """
    sides = {look.shorter for look in looks}
    if len(sides) == 1 and all(look.is_square for look in looks) and 8 <= min(sides) <= SIZES[-1]:
        return sides.pop(), "as they are"
    median = statistics.median(look.shorter for look in looks) if looks else 0
    size = max((size for size in SIZES if size <= median), default=SIZES[0])
    return size, f"chosen by the median of their shorter sides, {median:g} pixels"


def decode(image: Image.Image, *, size: int, channels: int) -> np.ndarray:
    """The middle of a picture, its shorter side scaled to `size` pixels, [size, size, channels] uint8; see `to_pixels`.

    Without colours, with one channel, ColourError is raised for a picture that has some. Raises SkippedError for one
    that cannot be decoded.
    """
    if image.width * image.height > MOST_PIXELS:
        raise SkippedError(f"more than {MOST_PIXELS:,} pixels, which a decompression bomb has")
    if image.mode == "F":
        raise SkippedError("pixels that are floating-point numbers")
    if channels == 1 and image.mode not in _GREY:
        raise ColourError
    return to_pixels(image, (size, size, channels))


def why_skipped(error: Exception) -> str:
    """Why a picture cannot be read, for people; raises an error that is not its own."""
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, SkippedError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MOST_PIXELS:,} pixels, which a decompression bomb has"
    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror})"
    # Decoders of damaged files raise nearly anything.
    return "truncated or damaged"
