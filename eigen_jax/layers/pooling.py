"""Max pooling, with elementwise gradients."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

Padding = tuple[tuple[int, int], tuple[int, int]]  # pixels above and below, left and right


def max_pool(x: Array) -> Array:
    """2 x 2 max pooling with stride 2 and SAME padding: [B, H, W, C] to [B, ceil(H / 2), ceil(W / 2), C].

    Values and gradient are those of `nn.max_pool`: the gradient goes to the first of equal maxima, row by row. It is
    computed element by element, faster on a CPU than the scatter that XLA derives, and deterministic on a GPU.
    """
    return max_pool_of(x, 2, 2, same_padding(x, 2, 2))


def same_padding(x: Array, side: int, stride: int) -> Padding:
    """That with which a map, [B, H, W, C], has ceil(H / stride) x ceil(W / stride) windows, as in TensorFlow."""
    rows, columns = lax.padtype_to_pads(x.shape[1:3], (side, side), (stride, stride), "SAME")
    return rows, columns


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool_of(x: Array, side: int, stride: int, padding: Padding) -> Array:
    """side x side max pooling of a map with pixels of -inf around it: [B, H, W, C] to [B, I, J, C].

    I = floor((H + padding - side) / stride) + 1. The gradient goes where that of `max_pool` does. A NaN stays one.
    """
    return _largest_of_windows(x, side, stride, padding)[0]


def _forward_of(x: Array, side: int, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    y, tap = _largest_of_windows(x, side, stride, padding)
    return y, (tap, x[:0])


def _backward_of(
    side: int, stride: int, padding: Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
    tap, like = residuals
    sizes, spans = like.shape[1:3], [(count - 1) * stride + 1 for count in gradient.shape[1:3]]
    parts = []
    for number, place in enumerate(_taps(side)):
        # Pixels of the map before and after those that this tap reads: less than none where it reads the padding.
        lows = [first - before for first, (before, _) in zip(place, padding, strict=True)]
        around = [(low, size - low - span, stride - 1) for low, size, span in zip(lows, sizes, spans, strict=True)]
        chosen = jnp.where(tap == number, gradient, 0)
        parts.append(lax.pad(chosen, jnp.zeros((), gradient.dtype), ((0, 0, 0), *around, (0, 0, 0))))
    return (functools.reduce(jnp.add, parts),)


max_pool_of.defvjp(_forward_of, _backward_of)


def _largest_of_windows(x: Array, side: int, stride: int, padding: Padding) -> tuple[Array, Array]:
    """The maxima, and which tap of its window each is, from 0, row by row, [B, I, J, C] int8."""
    # The tap is kept, since a map that XLA computes anew for the gradient may be rounded to other values, no maxima.
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    rows, columns = ((pixels - side) // stride * stride + 1 for pixels in padded.shape[1:3])
    best, tap = padded[:, :rows:stride, :columns:stride], jnp.zeros((), jnp.int8)
    for number, (row, column) in enumerate(_taps(side)[1:], start=1):
        values = padded[:, row : row + rows : stride, column : column + columns : stride]
        is_larger = (values > best) | jnp.isnan(values)  # which stays, so that it is seen
        best, tap = jnp.where(is_larger, values, best), jnp.where(is_larger, number, tap)
    return best, tap


def _taps(side: int) -> list[tuple[int, int]]:
    return [divmod(number, side) for number in range(side * side)]
