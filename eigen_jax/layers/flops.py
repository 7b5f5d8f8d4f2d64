"""Floating-point operations of any network, counted on the program that it is traced to."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core


def count_flops(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Those of one image's forward pass, (H, W, C), by all that the network has variables for; computes nothing.

    Counted as `eigen_jax.architecture.count_flops` does: two for each multiply-add of convolutions on real pixels and
    of matrix products, and nothing else. Raises whatever the network does for such an image.
    """
    one = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    initialize = functools.partial(network.init_with_output, train=False)
    return _count(jax.make_jaxpr(initialize)(jax.random.key(0), one).jaxpr)


def _count(program: core.Jaxpr) -> int:
    total = 0
    for equation in program.eqns:
        if count := _COUNTS.get(equation.primitive.name):
            abstract: Any = [each.aval for each in equation.invars]
            total += count(*(each.shape for each in abstract), equation.params)
        else:
            total += sum(map(_count, core.jaxprs_in_params(equation.params)))
    return total


def _of_convolution(maps: tuple[int, ...], kernel: tuple[int, ...], params: dict[str, Any]) -> int:
    """Of maps and a kernel of these shapes, whose dimensions the parameters name."""
    images, kernels = params["dimension_numbers"].lhs_spec, params["dimension_numbers"].rhs_spec
    sizes = zip(images[2:], kernels[2:], params["window_strides"], params["padding"], strict=True)
    taps = [_count_taps(maps[side], kernel[tap], stride, padding) for side, tap, stride, padding in sizes]
    return 2 * maps[images[0]] * math.prod(taps) * kernel[kernels[0]] * kernel[kernels[1]]


def _count_taps(side: int, kernel: int, stride: int, padding: tuple[int, int]) -> int:
    """Kernel taps that fall on a line of pixels, not on the padding, over the outputs of a convolution."""
    before, after = padding
    starts = range(-before, side + after - kernel + 1, stride)
    return sum(max(0, min(start + kernel, side) - max(start, 0)) for start in starts)


def _of_product(one: tuple[int, ...], other: tuple[int, ...], params: dict[str, Any]) -> int:
    """Of two arrays of these shapes, over the dimensions that the parameters name."""
    (_, contracted), (_, batch) = params["dimension_numbers"]
    return 2 * math.prod(one) * math.prod(other) // math.prod(other[axis] for axis in (*contracted, *batch))


_COUNTS: dict[str, Callable[..., int]] = {"conv_general_dilated": _of_convolution, "dot_general": _of_product}
