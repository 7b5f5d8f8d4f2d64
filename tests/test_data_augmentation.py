"""Pad-crop-flip augmentation against a plain NumPy loop, and the distribution of the views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax.data import apply_views, augment, identity_view, num_views, sample_views


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


@pytest.mark.parametrize(("shape", "pad"), [((9, 7, 3), 4), ((8, 8, 1), 1), ((5, 6, 2), 0)])
def test_every_view_is_the_crop_by_hand(shape, pad):
    views = np.arange(num_views(pad), dtype=np.int32)
    images = np.random.default_rng(0).normal(size=(len(views), *shape)).astype(np.float32)
    result = jax.jit(apply_views, static_argnames="pad")(images, views, pad=pad)
    expected = [crop_by_hand(image, int(view), pad) for image, view in zip(images, views, strict=True)]
    np.testing.assert_array_equal(result, np.stack(expected))


def test_a_pad_of_four_has_162_views():
    assert num_views(4) == 162


def test_integer_images_keep_their_dtype():
    images = jnp.arange(2 * 4 * 4, dtype=jnp.uint8).reshape(2, 4, 4, 1)
    assert apply_views(images, jnp.zeros(2, jnp.int32), pad=1).dtype == jnp.uint8


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_the_identity_view_leaves_an_image_as_it_is(pad):
    images = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))
    np.testing.assert_array_equal(apply_views(images, jnp.full(1, identity_view(pad), jnp.int32), pad=pad), images)


def test_views_are_uniform():
    views = np.asarray(sample_views(jax.random.key(0), jnp.arange(162 * 200)))
    counts = np.bincount(views, minlength=162)
    assert len(counts) == 162
    # Chi-squared with 161 degrees of freedom: mean 161, deviation 18; 250 is 5 deviations away.
    assert ((counts - 200) ** 2 / 200).sum() < 250


def test_views_without_flips_are_uniform_over_the_unflipped_ones():
    counts = np.bincount(np.asarray(sample_views(jax.random.key(0), jnp.arange(81 * 200), flip=False)), minlength=162)
    assert counts[1::2].sum() == 0
    # 80 degrees of freedom: mean 80, deviation 13.
    assert ((counts[::2] - 200) ** 2 / 200).sum() < 145


def test_the_view_of_an_example_depends_on_its_id_alone():
    key = jax.random.key(7)
    together = np.asarray(sample_views(key, jnp.arange(64)))
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(sample_views(key, jnp.asarray(order)), together[order])
    np.testing.assert_array_equal(sample_views(key, jnp.asarray([63])), together[63:])


def test_views_change_with_the_key():
    ids = jnp.arange(64)
    first, second = (np.asarray(sample_views(jax.random.key(seed), ids)) for seed in (0, 1))
    assert (first == second).mean() < 0.2


def test_augment_applies_the_sampled_views():
    key = jax.random.key(3)
    images = np.random.default_rng(2).normal(size=(16, 8, 8, 3)).astype(np.float32)
    result = jax.jit(augment, static_argnames=("pad", "flip"))(key, images, pad=2, flip=True)
    views = np.asarray(sample_views(key, jnp.arange(16), pad=2, flip=True))
    expected = [crop_by_hand(image, int(view), 2) for image, view in zip(images, views, strict=True)]
    np.testing.assert_array_equal(result, np.stack(expected))
