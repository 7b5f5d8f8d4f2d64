"""A layer alone, as its kind makes it, with its gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from mutation_checks import jit

from eigen_jax.architecture import Layer
from eigen_jax.layer_kinds import KINDS
from eigen_jax.layers import BatchNormRelu


class OneLayer(nn.Module):
    """A network that is one layer, whose variables are those of `layer_0`."""

    layer: Layer
    train: bool = False

    @nn.compact
    def __call__(self, *maps: jax.Array) -> jax.Array:
        norm = partial(BatchNormRelu, use_running_average=not self.train)
        return KINDS.find(self.layer.op).layer(list(maps), self.layer, norm=norm, name="layer_0")


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def with_gradients(layer: Layer, *maps: np.ndarray) -> tuple[Any, Any, Any, tuple[Any, ...], np.ndarray]:
    """Random variables, the output, the gradients of "params" and of the maps for a random cotangent, and that."""
    module = OneLayer(layer)
    shapes = jax.eval_shape(partial(module.init), jax.random.key(0), *maps)
    rng = np.random.default_rng(5)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32), shapes)
    others = {name: values for name, values in variables.items() if name != "params"}
    params = variables.get("params", {})
    cotangent = draw(*jax.eval_shape(module.apply, variables, *maps).shape, seed=9)

    @jit
    def compute(params, maps, cotangent):
        output, pull = jax.vjp(lambda params, maps: module.apply({"params": params, **others}, *maps), params, maps)
        return output, *pull(cotangent)

    output, of_params, of_maps = compute(params, tuple(map(jnp.asarray, maps)), cotangent)
    own = {name: values.get("layer_0", {}) for name, values in variables.items()}
    return own, output, of_params.get("layer_0", {}), of_maps, cotangent


def assert_close(actual: Any, expected: Any) -> None:
    """Equal but for the rounding of float32, in the largest value."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
