"""Pictures to pixels: every format and mode, how they are scaled, and what cannot be read; against values by hand."""

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import png_of_size
from PIL import Image

from eigen_jax.data.decoding import (
    MOST_PIXELS,
    ColourError,
    Look,
    SkippedError,
    choose_size,
    decode,
    look_at,
    why_skipped,
)

RED = (200, 30, 60)


def saved(image: Image.Image, kind: str, **options) -> Image.Image:
    """The picture as it is read from a file of that format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        *[(kind, "RGB", 0) for kind in ("PNG", "BMP", "TIFF")],
        *[("JPEG", "RGB", 3), ("WEBP", "RGB", 6), ("JPEG", "CMYK", 3), ("PNG", "P", 8), ("GIF", "P", 8)],
    ],
)
def test_a_colour_is_the_same_in_every_format(kind, mode, tolerance):
    image = Image.new("RGB", (40, 30), RED)
    pixels = decode(saved(image.quantize(4) if mode == "P" else image.convert(mode), kind), size=16, channels=3)
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
    assert np.abs(pixels.astype(int) - RED).max() <= tolerance


def test_what_is_transparent_becomes_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 128), (0, 0, 8, 4))
    pixels = decode(saved(image, "PNG"), size=8, channels=3)
    assert pixels[6, 3].tolist() == [255, 255, 255]
    assert abs(int(pixels[1, 3, 0]) - 127) <= 1  # 255 (1 - 128 / 255)
    grey = Image.new("LA", (8, 8), (0, 0))
    assert (decode(saved(grey, "PNG"), size=8, channels=1) == 255).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, *RED])
    assert (decode(saved(palette, "PNG", transparency=1), size=8, channels=3) == 255).all()
    assert (decode(saved(palette, "PNG", transparency=0), size=8, channels=3) == RED).all()


@pytest.mark.parametrize(("deep", "flat"), [(0, 0), (65_535, 255), (257, 1), (128, 0), (129, 1), (32_768, 128)])
def test_16_bits_become_8(deep, flat):
    image = Image.fromarray(np.full((8, 8), deep, np.uint16))
    for kind in ("PNG", "TIFF"):
        assert look_at(saved(image, kind)).is_grey
        assert (decode(saved(image, kind), size=8, channels=1) == flat).all()
    assert decode(saved(image, "PNG"), size=8, channels=3).tolist() == [[[flat] * 3] * 8] * 8


def test_a_picture_is_turned_as_its_exif_says():
    image = Image.new("RGB", (24, 16), "blue")
    image.paste("red", (0, 0, 24, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert turned.size == (16, 24)
    np.testing.assert_array_equal(decode(turned, size=16, channels=3), decode(image, size=16, channels=3))


def test_the_shorter_side_is_scaled_and_the_middle_cut_out():
    image = Image.new("RGB", (96, 32), "blue")
    image.paste("red", (32, 0, 64, 32))
    assert (decode(image, size=32, channels=3) == (255, 0, 0)).all()
    tall = image.transpose(Image.Transpose.ROTATE_90)
    assert (decode(tall, size=32, channels=3) == (255, 0, 0)).all()
    assert (decode(image, size=16, channels=3)[:, 2:-2] == (255, 0, 0)).all()
    assert decode(Image.new("RGB", (1, 500), RED), size=8, channels=3).shape == (8, 8, 3)


def test_scaling_averages_what_is_lost():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = decode(Image.fromarray(board.astype(np.uint8)), size=8, channels=1)
    assert np.abs(pixels.astype(int) - 127.5).max() <= 2.5


def test_a_large_jpeg_is_as_if_it_were_decoded_whole():
    rows, columns = np.mgrid[:512, :512] / 511
    image = Image.fromarray((255 * np.stack([rows, columns, rows * columns], axis=2)).astype(np.uint8))
    quick, whole = saved(image, "JPEG", quality=95), saved(image, "PNG")
    difference = decode(quick, size=32, channels=3).astype(int) - decode(whole, size=32, channels=3)
    assert np.abs(difference).max() <= 4


def test_a_grey_set_has_no_picture_in_colours():
    assert decode(Image.new("1", (8, 8), 1), size=8, channels=1).tolist() == [[[255]] * 8] * 8
    with pytest.raises(ColourError):
        decode(Image.new("RGB", (8, 8)), size=8, channels=1)


def reason_of(content: bytes, tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Exception) as caught, Image.open(tmp_path / "file") as image:  # noqa: PT011
        decode(image, size=8, channels=3)
    return why_skipped(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_read_says_why(tmp_path):
    jpeg, png = io.BytesIO(), io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(jpeg, "JPEG")
    noise.save(png, "PNG")
    bomb = f"more than {MOST_PIXELS:,} pixels, which a decompression bomb has"
    assert reason_of(b"hello", tmp_path) == reason_of(b"", tmp_path) == "no image that Pillow knows"
    for content in (jpeg.getvalue(), png.getvalue()):
        assert reason_of(content[: len(content) // 2], tmp_path) == "truncated or damaged"
    assert reason_of(png_of_size(100_000, 100_000), tmp_path) == bomb
    assert reason_of(png_of_size(10_000, 9_000), tmp_path) == bomb
    with pytest.raises(SkippedError, match="floating-point"):
        decode(Image.new("F", (8, 8)), size=8, channels=1)
    with pytest.raises(MemoryError):
        why_skipped(MemoryError())
    assert why_skipped(PermissionError(13, "Permission denied")) == "cannot be opened (Permission denied)"


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        *[((15, 15, 15), 16), ((16, 17, 400), 16), ((47, 47, 47), 32), ((20, 48, 400), 48), ((63, 300, 64), 64)],
        *[((400, 400, 400), 64), ((2, 3, 2), 16)],
    ],
)
def test_the_size_is_the_largest_that_the_median_has(sides, size):
    looks = [Look(side, False, False) for side in sides]
    assert choose_size(looks)[0] == size


def test_small_squares_stay_as_they_are():
    assert choose_size([Look(28, True, True)] * 3) == (28, "as they are")
    assert choose_size([Look(28, True, True), Look(28, False, True)])[0] == 24
    assert choose_size([Look(96, True, True)] * 3)[0] == 64
    assert choose_size([Look(4, True, True)] * 3)[0] == 16
    assert choose_size([])[0] == 16
