"""Pad-crop-flip augmentation against a plain NumPy loop, and the distribution of the views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax.data import apply_views, identity_view, num_views, sample_views

draw = jax.jit(sample_views, static_argnames=("pad", "flip"))
MANY = jnp.arange(162 * 200)


def crop_by_hand(image: np.ndarray, view: int, pad: int) -> np.ndarray:
    """One view of one image, pixel by pixel."""
    height, width, _ = image.shape
    side = 2 * pad + 1
    top, left, flip = view // (2 * side), view // 2 % side, view % 2
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row = row + top - pad
            source_column = (width - 1 - column if flip else column) + left - pad
            if 0 <= source_row < height and 0 <= source_column < width:
                result[row, column] = image[source_row, source_column]
    return result


@pytest.mark.parametrize(
    ("shape", "pad", "count"), [((9, 7, 3), 4, 162), ((8, 8, 1), 1, 18), ((5, 6, 2), 0, 2)], ids=str
)
def test_every_view_is_the_crop_by_hand_and_one_the_image_as_it_is(shape, pad, count):
    assert num_views(pad) == count
    views = np.arange(count, dtype=np.int32)
    images = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    result = jax.jit(apply_views, static_argnames="pad")(images, views, pad=pad)
    expected = [crop_by_hand(image, int(view), pad) for image, view in zip(images, views, strict=True)]
    np.testing.assert_array_equal(result, np.stack(expected))
    np.testing.assert_array_equal(result[identity_view(pad)], images[identity_view(pad)])
    integers = jax.ShapeDtypeStruct(images.shape, jnp.uint8)
    assert jax.eval_shape(lambda images: apply_views(images, jnp.asarray(views), pad=pad), integers).dtype == jnp.uint8


def test_views_are_uniform():
    counts = np.bincount(draw(jax.random.key(0), MANY), minlength=162)
    assert len(counts) == 162
    # Chi-squared with 161 degrees of freedom: mean 161, deviation 18; 250 is 5 deviations away.
    assert ((counts - 200) ** 2 / 200).sum() < 250


def test_views_without_flips_are_uniform_over_the_unflipped_ones():
    counts = np.bincount(draw(jax.random.key(0), MANY, flip=False), minlength=162)
    assert counts[1::2].sum() == 0
    assert len(counts) == 162
    # 80 degrees of freedom: mean 80, deviation 13.
    assert ((counts[::2] - 400) ** 2 / 400).sum() < 145


def test_the_view_of_an_example_depends_on_its_id_and_the_key_alone():
    key = jax.random.key(7)
    together = np.asarray(draw(key, MANY))
    order = np.random.default_rng(0).permutation(len(MANY))
    np.testing.assert_array_equal(draw(key, jnp.asarray(order)), together[order])
    np.testing.assert_array_equal(draw(key, jnp.asarray([63])), together[63:64])
    assert (together == draw(jax.random.key(8), MANY)).mean() < 0.02
