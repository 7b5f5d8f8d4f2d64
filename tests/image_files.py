"""What the tests of images share: small pictures of one colour, in folders."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eigen_jax.data import DataConfig


def write_pictures(
    root: Path, counts: Mapping[str, int], *, size: tuple[int, int] = (16, 16), mode: str = "RGB"
) -> Path:
    """A folder with so many PNG in each of its folders, no two alike: of class k and number n, red 10 k and green n."""
    for label, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = Image.new("RGB", size, (10 * label, number, 200)).convert(mode)
            image.save(root / folder / f"{number:03d}.png")
    return root


def config_of(path: Path | None, cache_dir: Path, **changes: Any) -> DataConfig:
    """Images at a path, with a cache folder."""
    how: dict[str, Any] = {"preprocessing": "standardize", "validation_size": None}
    return DataConfig(name="images", data_dir=path, cache_dir=cache_dir, **how | changes)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says that it is so large, and holds no pixels."""
    header = np.array([width, height], ">u4").tobytes() + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    length, check = (np.array([number], ">u4").tobytes() for number in (len(content), zlib.crc32(name + content)))
    return length + name + content + check
