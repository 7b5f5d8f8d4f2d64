"""What the hand-designed networks are made of beside the project's layers: authors' padding, pooling and dropout.

Dimension letters: B images, H x W x C their maps, D maps that go out.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.layers import convolve, max_pool_of

Initializer = nn.initializers.Initializer

# Caffe's "xavier": uniform, variance 1 / fan-in.
xavier = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def symmetric_uniform(limit: float) -> Initializer:
    """Draws values from -limit to limit."""

    def draw(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return draw


def conv(
    channels: int,
    kernel: int,
    *,
    name: str,
    dtype: DTypeLike,
    kernel_init: Initializer,
    pad: int = 0,
    stride: int = 1,
    bias: float | None = 0.0,
) -> nn.Conv:
    """A convolution with `pad` pixels of zeros on each side: [B, H, W, C] to [B, I, J, D] of `dtype`.

    I = floor((H + 2 pad - kernel) / stride) + 1, as in Caffe and in Torch, where SAME padding of an even side would
    begin elsewhere. Each bias starts at `bias`; None: there is none. Variables are float32.
    """
    bias_init = nn.initializers.constant(bias or 0.0)
    sides, padding = (kernel, kernel), ((pad, pad), (pad, pad))
    return nn.Conv(
        channels,
        sides,
        stride,
        padding,
        use_bias=bias is not None,
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=bias_init,
        conv_general_dilated=convolve,
        name=name,
    )


def max_pool(x: Array, side: int, stride: int) -> Array:
    """Maxima of windows that cover the whole map: [B, H, W, C] to [B, I, J, C], I = ceil((H - side) / stride) + 1.

    The last windows may reach past the map, as in Caffe and in cuda-convnet.
    """
    sizes = x.shape[1:3]
    spans = (max(0, -(-(size - side) // stride)) * stride + side for size in sizes)
    rows, columns = ((0, max(0, span - size)) for span, size in zip(spans, sizes, strict=True))
    return max_pool_of(x, side, stride, (rows, columns))


def drop(module: nn.Module, x: Array, rate: float, *, train: bool, rescale: bool = True) -> Array:
    """Zeroes a share `rate` of the values in training, and divides the others by 1 - `rate` if they are to `rescale`.

    For `module`'s compact method. Where no random numbers are given for dropout, all values stay.
    """
    if not (train and module.has_rng("dropout")):
        return x
    dropped = nn.Dropout(rate, deterministic=False)(x)
    return dropped if rescale else (1 - rate) * dropped


def enlarge(images: Array, least: int) -> Array:
    """Images [B, H, W, C] with each pixel repeated, as often as gives both sides at least so many pixels."""
    factor = -(-least // min(images.shape[1:3]))
    return images if factor == 1 else jnp.repeat(jnp.repeat(images, factor, axis=1), factor, axis=2)


def average(x: Array) -> Array:
    """[B, H, W, C] floating to [B, C] float32: the mean over each map."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
