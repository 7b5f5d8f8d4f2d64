"""Makes pictures of shapes on textured ground, in every format and mode that cameras and programs leave behind.

    python tests/picture_data.py FOLDER [COUNT]

FOLDER/CLASS then holds COUNT pictures in all (600) of three classes, of 20 to 400 pixels. Two colours, a place, a size
and a turn are drawn for each, so that the shape alone tells the class.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("disc", "square", "triangle")
_SUPERSAMPLING = 3
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, as ITU-R BT.601 has it
_CONTRAST = 60  # of the shape and the ground, also where the picture is grey


def draw(generator: np.random.Generator, shape: str, width: int, height: int) -> Image.Image:
    """A picture in RGB: a shape of one colour on a ground of another, both rough."""
    ground, colour = generator.integers(0, 256, (2, 3))
    while abs((ground - colour) @ _LUMINANCE) < _CONTRAST:
        ground, colour = generator.integers(0, 256, (2, 3))
    scale = _SUPERSAMPLING
    mask = Image.new("L", (width * scale, height * scale))
    shorter = min(width, height) * scale
    radius = shorter * generator.uniform(0.28, 0.42)
    centre = np.array([width, height]) * scale / 2 + generator.uniform(-0.08, 0.08, 2) * shorter
    turn = generator.uniform(0, 2 * np.pi)
    corners = {"square": 4, "triangle": 3}.get(shape)
    if corners is None:
        box = [*(centre - radius), *(centre + radius)]
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    else:
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        ImageDraw.Draw(mask).polygon([tuple(point) for point in points], fill=255)
    share = np.asarray(mask.resize((width, height), Image.Resampling.BOX), np.float64)[..., None] / 255
    rough = generator.normal(0, 18, (height, width, 1)) + _stripes(generator, width, height)
    pixels = share * colour + (1 - share) * (ground + rough) + generator.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _stripes(generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A texture: waves across the ground."""
    angle, length = generator.uniform(0, np.pi), generator.uniform(4, 30)
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin((np.cos(angle) * columns + np.sin(angle) * rows) * 2 * np.pi / length)
    return 20 * waves[..., None]


def _turned(image: Image.Image, path: Path) -> None:
    """As a phone held sideways saves it: turned, and with the turn in its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise to see it
    image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), quality=92, exif=exif)


def _rgba(image: Image.Image, path: Path) -> None:
    alpha = np.full((image.height, image.width, 1), 255, np.uint8)
    alpha[:2] = 0
    pixels = np.concatenate([np.asarray(image), alpha], axis=2)
    Image.fromarray(pixels, "RGBA").save(path.with_suffix(".png"))


def _deep(image: Image.Image, path: Path) -> None:
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path.with_suffix(".png"))


FORMATS: Mapping[str, Callable[[Image.Image, Path], object]] = {
    "jpeg": lambda image, path: image.save(path.with_suffix(".jpg"), quality=90),
    "png": lambda image, path: image.save(path.with_suffix(".png")),
    "webp": lambda image, path: image.save(path.with_suffix(".webp"), quality=90),
    "bmp": lambda image, path: image.save(path.with_suffix(".bmp")),
    "grey": lambda image, path: image.convert("L").save(path.with_suffix(".png")),
    "grey jpeg": lambda image, path: image.convert("L").save(path.with_suffix(".jpeg"), quality=90),
    "palette": lambda image, path: image.quantize(64).save(path.with_suffix(".png")),
    "gif": lambda image, path: image.quantize(128).save(path.with_suffix(".gif")),
    "rgba": _rgba,
    "16 bits": _deep,
    "cmyk": lambda image, path: image.convert("CMYK").save(path.with_suffix(".jpg"), quality=92),
    "tiff": lambda image, path: image.save(path.with_suffix(".tif")),
    "turned": _turned,
}


def make_pictures(folder: Path, count: int = 600, *, seed: int = 0, smallest: int = 20, largest: int = 400) -> None:
    """Writes pictures into a folder, the formats and the classes one after the other."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        shape = CLASSES[number % len(CLASSES)]
        width, height = generator.integers(smallest, largest + 1, 2)
        (folder / shape).mkdir(parents=True, exist_ok=True)
        image = draw(generator, shape, int(width), int(height))
        save = list(FORMATS.values())[number // len(CLASSES) % len(FORMATS)]
        save(image, folder / shape / f"{number:04d}")


if __name__ == "__main__":
    make_pictures(Path(sys.argv[1]), *map(int, sys.argv[2:]))
