"""Batch normalisation (Ioffe & Szegedy, 2015) of [B, H, W, C] maps, followed by ReLU, with a short gradient."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

_MOMENTUM = 0.9
_EPSILON = 1e-5


class BatchNormRelu(nn.Module):
    """Normalisation of each channel by its mean and variance, scale and bias, then ReLU; in float32.

    Variables are those of `nn.BatchNorm`, all [C] float32. Running statistics move a tenth of the way to the batch's.
    """

    use_running_average: bool
    axis_name: str | None = None  # mapped axis that batch statistics are averaged over

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] floating to the same shape and dtype."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var = batch_statistics(x, axis_name=self.axis_name)
            if not self.is_initializing():
                running_mean.value = _MOMENTUM * running_mean.value + (1 - _MOMENTUM) * mean
                running_var.value = _MOMENTUM * running_var.value + (1 - _MOMENTUM) * var
        return normalized_relu(x, mean, var, scale, bias)


def batch_statistics(x: Array, *, axis_name: str | None = None) -> tuple[Array, Array]:
    """The mean and variance of each channel, both [C] float32, over all devices of a mapped axis if there is one."""
    # Without a division, here and below, which XLA would compute in a kernel of its own, to be compiled for each C.
    x, share = x.astype(jnp.float32), x.shape[-1] / x.size
    mean, square = _channel_sums(x) * share, _channel_sums(jnp.square(x)) * share
    if axis_name is not None:
        mean, square = lax.pmean((mean, square), axis_name)
    variance = square - jnp.square(mean)
    return mean, jnp.where(variance < 0, 0, variance)


@jax.custom_vjp
def normalized_relu(x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> Array:
    """max(0, (x - mean) scale / sqrt(var + epsilon) + bias), computed in float32.

    x and the result are [B, H, W, C], the others [C] float32. Its gradient keeps `x` alone of the maps, and passes over
    it twice: once for the sums, once for the gradient of `x`, which XLA merges with what comes in through the batch's
    statistics.
    """
    scaled = _scale(x, mean, _inverse_deviation(var) * scale, bias)
    # Not jnp.maximum: XLA would compute that anew in every layer that reads it, merged with what that does to it, on a
    # CPU with transpositions that are then several times slower; not a selection. NaN stays, so that it is seen.
    return jnp.where(scaled <= 0, 0, scaled).astype(x.dtype)


def _forward(x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    return normalized_relu(x, mean, var, scale, bias), (x, mean, var, scale, bias)


def _backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    x, mean, var, scale, bias = residuals
    inverse = _inverse_deviation(var)
    factor = inverse * scale
    passed = jnp.where(_scale(x, mean, factor, bias) <= 0, 0, gradient.astype(jnp.float32))
    of_bias = _channel_sums(passed)
    # Not the sums of `passed` times the centred map, which XLA would keep whole from the pass forward on.
    of_scale = (_channel_sums(passed * x.astype(jnp.float32)) - mean * of_bias) * inverse
    of_var = -0.5 * factor * inverse * of_scale
    return (passed * _per_channel(factor)).astype(x.dtype), -factor * of_bias, of_var, of_scale, of_bias


normalized_relu.defvjp(_forward, _backward)


def _channel_sums(x: Array) -> Array:
    """The sum over all but the last axis: [..., C] float32 to [C]."""
    return x.sum(axis=tuple(range(x.ndim - 1)))


def _inverse_deviation(var: Array) -> Array:
    return lax.rsqrt(var + _EPSILON)


def _scale(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    return (x.astype(jnp.float32) - _per_channel(mean)) * _per_channel(factor) + _per_channel(bias)


def _per_channel(values: Array) -> Array:
    return values[None, None, None]
