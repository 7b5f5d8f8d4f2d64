"""Max pooling, with elementwise gradients."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_vjp
def max_pool(x: Array) -> Array:
    """2 x 2 max pooling with stride 2 and SAME padding: [B, H, W, C] to [B, ceil(H / 2), ceil(W / 2), C].

    Values and gradient are those of `nn.max_pool`: the gradient goes to the first of equal maxima, row by row. It is
    computed element by element, faster on a CPU than the scatter that XLA derives, and deterministic on a GPU.
    """
    return _corners(x).max(axis=(2, 4))


def _forward(x: Array) -> tuple[Array, Array]:
    return max_pool(x), x


def _backward(x: Array, gradient: Array) -> tuple[Array]:
    batch, height, width, channels = x.shape
    corners = _corners(x)
    best = corners.max(axis=(2, 4), keepdims=True)
    taken = jnp.zeros_like(best, bool)
    parts = []
    for row in (0, 1):
        for column in (0, 1):
            chosen = (corners[:, :, row : row + 1, :, column : column + 1] == best) & ~taken
            parts.append(jnp.where(chosen, gradient[:, :, None, :, None], 0))
            taken |= chosen
    upper, lower = jnp.concatenate(parts[:2], axis=4), jnp.concatenate(parts[2:], axis=4)
    whole = jnp.concatenate([upper, lower], axis=2)
    return (whole.reshape(batch, height + height % 2, width + width % 2, channels)[:, :height, :width],)


max_pool.defvjp(_forward, _backward)


def _corners(x: Array) -> Array:
    """[B, ceil(H / 2), 2, ceil(W / 2), 2, C]: the windows, with -inf past the edge."""
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=-jnp.inf)
    return padded.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool_of(x: Array, side: int, stride: int) -> Array:
    """side x side max pooling with a stride of at most the side, SAME padding: [B, H, W, C] to [B, I, J, C].

    I = ceil(H / stride) and J = ceil(W / stride). Its gradient goes where that of `max_pool` does.
    """
    return functools.reduce(jnp.maximum, _windows(x, side, stride))


def _forward_of(x: Array, side: int, stride: int) -> tuple[Array, tuple[Array, Array]]:
    y = max_pool_of(x, side, stride)
    return y, (x, y)


def _backward_of(side: int, stride: int, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, best = residuals
    windows = _windows(x, side, stride)
    first = jnp.full(best.shape, len(windows), jnp.int32)
    for tap in reversed(range(len(windows))):
        first = jnp.where(windows[tap] == best, tap, first)
    parts = []
    for tap, (row, column) in enumerate(_taps(side)):
        spread = [(0, 0, 0), *((place, side - 1 - place, stride - 1) for place in (row, column)), (0, 0, 0)]
        parts.append(lax.pad(jnp.where(first == tap, gradient, 0), jnp.zeros((), x.dtype), spread))
    (top, _), (left, _) = _padding(x, side, stride)
    return (functools.reduce(jnp.add, parts)[:, top : top + x.shape[1], left : left + x.shape[2]],)


max_pool_of.defvjp(_forward_of, _backward_of)


def _windows(x: Array, side: int, stride: int) -> list[Array]:
    """What each tap of all windows reads, row by row; [B, I, J, C] each, with -inf past the edge."""
    padded = jnp.pad(x, ((0, 0), *_padding(x, side, stride), (0, 0)), constant_values=-jnp.inf)
    rows, columns = (-(-pixels // stride) * stride for pixels in x.shape[1:3])
    return [padded[:, row : row + rows : stride, column : column + columns : stride] for row, column in _taps(side)]


def _padding(x: Array, side: int, stride: int) -> list[tuple[int, int]]:
    return lax.padtype_to_pads(x.shape[1:3], (side, side), (stride, stride), "SAME")


def _taps(side: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(side) for column in range(side)]
