"""Convolution with SAME padding, and its gradients stated in the form that a CPU computes fastest.

Dimension letters: B images, H x W x C maps that come in, I x J x D maps that go out, K x L the sides of a kernel, S the
stride; I = ceil(H / S), J = ceil(W / S).

The gradients that JAX derives are convolutions with dilated inputs and permuted dimensions. On a CPU, XLA spends time
on the zeros of a dilated input, and finds its fast kernels for permuted dimensions only in the outermost computation of
a program, not in a loop. Here, each convolution reads [B, H, W, C] maps and [K, L, C, D] kernels from the start.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from eigen_jax import platforms

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """Convolution, SAME padding. In "params", "kernel" is [K, L, C, D] and "bias", if there is one, [D], float32."""

    channels: int  # D
    kernel: int | tuple[int, int]  # K and L, pixels; one number: both
    stride: int  # S, pixels
    kernel_init: nn.initializers.Initializer
    use_bias: bool = False  # whether a bias, initially 0, is added

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] floating to [B, I, J, D] of the same dtype, in which it is computed."""
        sides = (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel
        kernel = self.param("kernel", self.kernel_init, (*sides, x.shape[-1], self.channels), jnp.float32)
        # Stated, the gradient of the input is a convolution for each of S x S phases.
        is_stated = platforms.current().states_gradients and self.stride <= 2
        convolve = stated_convolution if is_stated else derived_convolution
        y = convolve(x, kernel.astype(x.dtype), self.stride)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
        return y + bias.astype(x.dtype)[None, None, None]


class ConvLayer(nn.Module):
    """Convolution without bias, batch normalisation, ReLU.

    Kernels are initialised as by He et al. (2015): normal, truncated at two standard deviations, variance 2 / fan-in.
    """

    channels: int  # D
    kernel: int  # K, pixels a side
    stride: int  # S, pixels
    norm: Callable[..., nn.Module]  # (name=) -> module: normalisation and ReLU

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] floating to [B, I, J, D] of the same dtype."""
        y = Conv(self.channels, self.kernel, self.stride, kernel_init=nn.initializers.he_normal(), name="conv")(x)
        return self.norm(name="norm")(y)


def derived_convolution(x: Array, kernel: Array, stride: int) -> Array:
    """[B, H, W, C] maps and a [K, L, C, D] kernel to [B, I, J, D], of one floating dtype; JAX derives the gradients."""
    return _correlate(x, kernel, _padding(x.shape[1:3], kernel.shape[:2], stride), stride=stride)


def stated_convolution(x: Array, kernel: Array, stride: int) -> Array:
    """The same convolution as `derived_convolution`, with gradients stated."""
    if kernel.shape[:2] == (1, 1):
        return _pointwise(x[:, ::stride, ::stride], kernel[0, 0])
    return _stated(x, kernel, stride)


def convolve(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """As `lax.conv_general_dilated`, with large kernels as two of half the rows, whose results are added.

    On a CPU, XLA computes the input gradient of 8 x 8 kernels up to twenty times faster so.
    """
    side = kernel.shape[0]
    if side < 8 or not platforms.current().states_gradients:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    (above, below), columns = padding
    upper, rest = side // 2, side - side // 2
    # Of the rows around the map, each half has those that it reads: fewer than none are left out of the map.
    parts = (
        (x[:, : x.shape[1] - max(0, rest - below)], kernel[:upper], (above, max(0, below - rest))),
        (x[:, max(0, upper - above) :], kernel[upper:], (max(0, above - upper), below)),
    )
    one, other = (lax.conv_general_dilated(x, half, strides, (rows, columns), **options) for x, half, rows in parts)
    return one + other


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return derived_convolution(x, kernel, stride), (x, kernel)


def _backward(stride: int, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    of_input = _input_gradient(gradient, kernel, stride, x.shape[1:3])
    return of_input, _kernel_gradient(x, gradient, stride, kernel.shape[:2])


_stated = jax.custom_vjp(derived_convolution, nondiff_argnums=(2,))
_stated.defvjp(_forward, _backward)


@jax.custom_vjp
def _pointwise(x: Array, kernel: Array) -> Array:
    """Maps of C channels times a [C, D] matrix, which is what a 1 x 1 convolution is."""
    return x @ kernel


def _pointwise_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # Derived, the product would have the gradient transposed, which takes longer than the product.
    flat, outputs = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return gradient @ kernel.T, flat.T @ outputs


_pointwise.defvjp(lambda x, kernel: (_pointwise(x, kernel), (x, kernel)), _pointwise_backward)


def _input_gradient(gradient: Array, kernel: Array, stride: int, size: Sequence[int]) -> Array:
    """[B, H, W, C], from [B, I, J, D]."""
    # Output i reads input h with tap k where h + low = S i + k, `low` being the padding before the first pixel. So the
    # inputs h = S m + r of one phase r meet every S-th tap only, and their gradient is a convolution of its own, of
    # those taps and without zeros between the outputs. The S x S phases are interleaved at the end.
    batch, sides, channels = gradient.shape[0], kernel.shape[:2], kernel.shape[2]
    counts = [-(-pixels // stride) for pixels in size]  # of inputs in a phase; the last may lie past the edge
    lows = [low for low, _ in _padding(size, sides, stride)]
    swapped = jnp.swapaxes(kernel, 2, 3)
    phases = []
    for r, s in itertools.product(range(stride), repeat=2):
        rows, above = _phase(r + lows[0], sides[0], stride)
        columns, left = _phase(s + lows[1], sides[1], stride)
        taps = lax.rev(swapped[rows, columns], (0, 1))
        if 0 in taps.shape:
            phases.append(jnp.zeros((batch, *counts, channels), gradient.dtype))
            continue
        below = counts[0] - gradient.shape[1] - above + taps.shape[0] - 1
        right = counts[1] - gradient.shape[2] - left + taps.shape[1] - 1
        phases.append(_correlate(gradient, taps, ((above, below), (left, right))))
    grid = jnp.stack(phases, axis=3).reshape(batch, *counts, stride, stride, channels)
    whole = grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, counts[0] * stride, counts[1] * stride, channels)
    return whole[:, : size[0], : size[1]]


def _phase(offset: int, side: int, stride: int) -> tuple[slice, int]:
    """The taps k that meet the inputs h = S m + r, where `offset` is r + low, and the padding before output 0."""
    taps = slice(offset % stride, side, stride)
    return taps, len(range(side)[taps]) - 1 - offset // stride


def _kernel_gradient(x: Array, gradient: Array, stride: int, sides: Sequence[int]) -> Array:
    """[K, L, C, D]: the maps convolved with the gradient [B, I, J, D] as a kernel, images as channels."""
    size, outputs = x.shape[1:3], gradient.shape[1:3]
    padding = [
        (low, (count - 1) * stride + side - pixels - low)
        for (low, _), count, pixels, side in zip(_padding(size, sides, stride), outputs, size, sides, strict=True)
    ]
    taps = _correlate(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), padding, kernel_dilation=stride)
    return taps.transpose(1, 2, 0, 3)


def _correlate(
    x: Array, kernel: Array, padding: Sequence[tuple[int, int]], *, stride: int = 1, kernel_dilation: int = 1
) -> Array:
    strides, dilation = (stride, stride), (kernel_dilation, kernel_dilation)
    return lax.conv_general_dilated(x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_LAYOUT)


def _padding(size: Sequence[int], sides: Sequence[int], stride: int) -> list[tuple[int, int]]:
    """SAME padding of rows and of columns: (before, after), the odd pixel after."""
    return lax.padtype_to_pads(size, sides, (stride, stride), "SAME")
