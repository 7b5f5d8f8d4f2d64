"""A picture of any kind and size as the pixels that a network takes; of Pillow and NumPy alone, as exports have it."""

import numpy as np
from PIL import Image, ImageOps


def to_pixels(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 of `shape` (H, W, C), where C is 1, grey, or 3, RGB.

    The picture is turned as its EXIF data say, laid on white where it is transparent, brought to 8 bits a channel,
    scaled, smoothed where it shrinks, until it just covers H x W, and cropped to its centre; of the right size already,
    it stays as it is. Raises what Pillow does, OSError, SyntaxError and ValueError among it, for a damaged file.
    """
    height, width, channels = shape
    # A JPEG is decoded at half, a quarter or an eighth of its size where that is twice what is asked for.
    image.draft(None, (2 * width, 2 * height))
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, np.float64)
        # Integers are of 16 bits.
        image = Image.fromarray(
            np.clip(np.rint(values if image.mode == "F" else values / 257), 0, 255).astype(np.uint8)
        )
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)).reshape(shape)
