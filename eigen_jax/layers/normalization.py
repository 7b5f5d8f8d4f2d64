"""Batch normalisation (Ioffe & Szegedy, 2015) followed by ReLU, with a short gradient."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from eigen_jax import platforms

_MOMENTUM = 0.9
_EPSILON = 1e-5


class BatchNormRelu(nn.Module):
    """Normalisation of each channel by its mean and variance, scale and bias, then ReLU; in float32.

    Variables are those of `nn.BatchNorm`: "scale" and "bias" in "params", "mean" and "var" in "batch_stats".
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
        return scale_relu(x, mean, lax.rsqrt(var + _EPSILON) * scale, bias)


def batch_statistics(x: Array, *, axis_name: str | None = None) -> tuple[Array, Array]:
    """The mean and the variance of each channel of [B, H, W, C] maps, both [C] float32, over a mapped axis if any."""
    x = x.astype(jnp.float32)
    count = x.size // x.shape[-1]
    mean, square = channel_sums(x) / count, channel_sums(jnp.square(x)) / count
    if axis_name is not None:
        mean, square = lax.pmean((mean, square), axis_name)
    return mean, jnp.maximum(square - jnp.square(mean), 0)


@jax.custom_vjp
def scale_relu(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    """max(0, (x - mean) factor + bias), computed in float32; x and the result [B, H, W, C], the others [C] float32.

    Its gradient keeps `x` alone of the maps, and passes over it twice: for the sums, and for the gradient of `x`.
    """
    scaled = _scale(x, mean, factor, bias)
    # Not jnp.maximum, which XLA would compute anew in every layer that reads it, on a CPU with transpositions that are
    # then several times slower. What is not a number stays, so that divergence is seen.
    return jnp.where(scaled <= 0, 0, scaled).astype(x.dtype)


def _forward(x: Array, mean: Array, factor: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    return scale_relu(x, mean, factor, bias), (x, mean, factor, bias)


def _backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    x, mean, factor, bias = residuals
    passed = jnp.where(_scale(x, mean, factor, bias) <= 0, 0, gradient.astype(jnp.float32))
    bias_gradient = channel_sums(passed)
    factor_gradient = channel_sums(passed * _centred(x, mean))
    return (passed * factor[None, None, None]).astype(x.dtype), -factor * bias_gradient, factor_gradient, bias_gradient


scale_relu.defvjp(_forward, _backward)


def channel_sums(x: Array) -> Array:
    """The sum over all but the last axis: [..., C] float32 to [C]."""
    if not platforms.current().sums_as_products:
        return x.sum(axis=tuple(range(x.ndim - 1)))
    flat = x.reshape(-1, x.shape[-1])
    return jnp.ones((len(flat),), x.dtype) @ flat


def _scale(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    return _centred(x, mean) * factor[None, None, None] + bias[None, None, None]


def _centred(x: Array, mean: Array) -> Array:
    return x.astype(jnp.float32) - mean[None, None, None]
