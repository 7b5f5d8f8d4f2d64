"""Pad-crop-flip augmentation on the device.

A random crop of an image padded by p pixels, flipped or not, has (2p + 1)^2 * 2 outcomes, the *views* of the image.
A view is one integer, so whatever depends on an augmented image (a teacher's logits, say) can be looked up by image
and view. For offsets dy, dx in [0, 2p] into the padded image and flip in {0, 1}:

    view = (dy * (2p + 1) + dx) * 2 + flip
"""

import jax
import jax.numpy as jnp
from jax import Array


def num_views(pad: int) -> int:
    """How many views an image has at this padding (pixels)."""
    return (2 * pad + 1) ** 2 * 2


def identity_view(pad: int) -> int:
    """The view that leaves an image as it is."""
    return num_views(pad) // 2 - 1


def sample_views(key: Array, example_ids: Array, *, pad: int = 4, flip: bool = True) -> Array:
    """Draws a view for each example, uniformly; [B] int32, in [0, num_views(pad)); without `flip` of the unflipped.

    It depends on the key and on the example's own id, [B] integer, so it is the same in any batch, on any devices.
    """
    stride = 1 if flip else 2

    def draw(example_id: Array) -> Array:
        return stride * jax.random.randint(jax.random.fold_in(key, example_id), (), 0, num_views(pad) // stride)

    return jax.vmap(draw)(example_ids)


def apply_views(images: Array, views: Array, *, pad: int = 4) -> Array:
    """Pads with zeros, crops and flips each image, [B, H, W, C] of any dtype, as its view, [B] int32, says.

    `pad`, the pixels of padding on each side, is the one that the views were drawn for.
    """
    height, width = images.shape[1:3]
    offsets, flips = views // 2, views % 2
    rows = (offsets // (2 * pad + 1))[:, None] + jnp.arange(height)[None, :]  # [B, H]
    columns = jnp.arange(width)[None, :]
    columns = jnp.where(flips[:, None] == 1, width - 1 - columns, columns)
    columns = (offsets % (2 * pad + 1))[:, None] + columns  # [B, W]
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # Rows, then columns: on a CPU each copies whole runs of memory, in a fortieth of the time of selecting slices.
    cropped = jnp.take_along_axis(padded, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(cropped, columns[:, None, :, None], axis=2)
