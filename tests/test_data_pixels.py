"""Pictures as pixels: every kind of file that people have, against values by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from eigen_jax.data.pixels import to_pixels

RNG = np.random.default_rng(0)
SHAPE = (4, 4, 3)
WHITE, BLACK = [255, 255, 255], [0, 0, 0]


def saved(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    """The image as it is read from a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def test_a_picture_of_the_right_size_and_kind_stays_to_the_last_bit():
    for shape in ((4, 6, 3), (4, 6, 1)):
        pixels = RNG.integers(0, 256, shape, np.uint8)
        image = Image.fromarray(pixels if shape[2] == 3 else pixels[..., 0])
        for kind in ("PNG", "BMP"):
            given = to_pixels(saved(image, kind), shape)
            assert given.dtype == np.uint8
            np.testing.assert_array_equal(given, pixels)
        np.testing.assert_array_equal(to_pixels(saved(image, "WEBP", lossless=True), shape), pixels)


def test_grey_and_colour_become_one_another():
    grey = RNG.integers(0, 256, (4, 4), np.uint8)
    np.testing.assert_array_equal(to_pixels(saved(Image.fromarray(grey)), SHAPE), np.stack([grey] * 3, axis=-1))
    colour = RNG.integers(0, 256, SHAPE, np.uint8)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    given = to_pixels(saved(Image.fromarray(colour)), (4, 4, 1))
    np.testing.assert_allclose(given[..., 0], luma, atol=0.51)
    bits = grey > 127
    np.testing.assert_array_equal(to_pixels(saved(Image.fromarray(bits)), (4, 4, 1))[..., 0], 255 * bits)
    inks = Image.fromarray(np.full((4, 4, 4), [0, 255, 255, 0], np.uint8), "CMYK")
    assert to_pixels(saved(inks, "TIFF"), SHAPE)[0, 0].tolist() == [255, 0, 0]


def test_sixteen_bits_are_brought_to_eight():
    deep = np.arange(16, dtype=np.uint16).reshape(4, 4) * 257 * 17
    for image in (saved(Image.fromarray(deep)), saved(Image.fromarray(deep.astype(np.int32)), "TIFF")):
        given = to_pixels(image, (4, 4, 1))
        np.testing.assert_array_equal(given[..., 0], np.arange(16).reshape(4, 4) * 17)
    between = np.full((4, 4), 257 * 9 + 129, np.uint16)
    assert set(to_pixels(Image.fromarray(between), SHAPE).ravel().tolist()) == {10}
    floats = np.linspace(-10, 300, 16, dtype=np.float32).reshape(4, 4)
    given = to_pixels(saved(Image.fromarray(floats), "TIFF"), (4, 4, 1))
    np.testing.assert_array_equal(given[..., 0], np.clip(np.round(floats), 0, 255))


def test_what_is_transparent_is_laid_on_white():
    half = np.full((4, 4, 4), [200, 0, 100, 128], np.uint8)
    half[0, 0, 3], half[0, 1, 3] = 0, 255
    given = to_pixels(saved(Image.fromarray(half)), SHAPE)
    assert given[0, 0].tolist() == WHITE
    assert given[0, 1].tolist() == [200, 0, 100]
    np.testing.assert_allclose(given[1, 1], 255 + (np.array([200, 0, 100]) - 255) * 128 / 255, atol=1)
    palette = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    palette.putpalette([*BLACK, 10, 20, 30, 40, 50, 60])
    given = to_pixels(saved(palette, transparency=0), (2, 2, 3))
    assert given.reshape(4, 3).tolist() == [WHITE, [10, 20, 30], [40, 50, 60], WHITE]
    assert to_pixels(saved(palette), (2, 2, 3)).reshape(4, 3).tolist()[0] == BLACK
    veiled = np.array([[[50, 0], [50, 255]], [[50, 255], [50, 0]]], np.uint8)
    given = to_pixels(saved(Image.fromarray(veiled, "LA")), (2, 2, 1))
    assert given.ravel().tolist() == [255, 50, 50, 255]


def test_a_picture_that_lies_on_its_side_is_turned():
    pixels = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned to the left: the picture is to be turned clockwise
    lying = saved(Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(to_pixels(lying, (6, 4, 3)), np.rot90(pixels, -1))


@pytest.mark.parametrize("scale", [1, 8])
def test_the_centre_of_a_wide_or_high_picture_is_kept(scale):
    wide = np.zeros((4 * scale, 12 * scale), np.uint8)
    wide[:, 4 * scale : 8 * scale] = 200
    for array in (wide, wide.T):
        # Smoothing reaches a little over what is cropped.
        np.testing.assert_allclose(to_pixels(Image.fromarray(array), (4, 4, 1)), 200, atol=20 * (scale > 1))


def test_a_small_picture_grows_and_a_large_one_is_smoothed():
    assert to_pixels(Image.fromarray(np.full((1, 3), 70, np.uint8)), (8, 8, 1)).tolist() == [[[70]] * 8] * 8
    board = 255 * (np.indices((64, 64)).sum(axis=0) % 2).astype(np.uint8)
    assert np.abs(to_pixels(Image.fromarray(board), (8, 8, 1)).astype(int) - 127).max() <= 2


def test_a_damaged_file_raises_what_pillow_does():
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8)).save(file, "JPEG")
    with Image.open(io.BytesIO(file.getvalue()[:-500])) as image, pytest.raises(OSError, match="truncated"):
        to_pixels(image, SHAPE)
