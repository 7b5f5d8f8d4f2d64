"""Networks that are trained, tested and kept: those of a search space, and hand-designed ones, which have a name.

What is told of a network is told here of both. `num_classes` is K, dtypes are those of the maps.
"""

import dataclasses
import functools
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from eigen_jax import architecture as architectures
from eigen_jax import builder
from eigen_jax.architecture import Architecture, ArchitectureError, Shape
from eigen_jax.baselines import BASELINES
from eigen_jax.layers import count_flops as count_module_flops
from eigen_jax.store.files import sha256
from eigen_jax.store.records import Positive, RecordFile

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedNetwork:
    """A network of `eigen_jax.baselines`, by its name; raises ConfigError where there is none of it."""

    name: str
    input_shape: tuple[Positive, Positive, Positive]  # H, W, C of one image

    def __post_init__(self) -> None:
        BASELINES.find(self.name)


AnyNetwork = Architecture | NamedNetwork

# How a `NamedNetwork` is kept, where an `Architecture` has its genome.json.
NAMED = RecordFile(
    name="network.json",
    place="network folder",
    kind=NamedNetwork,
    schema_version=1,
    error=ArchitectureError,
    advice="put the run's own file back",
)


def build_network(
    network: AnyNetwork,
    *,
    num_classes: int,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
    in_training: bool = False,
) -> nn.Module:
    """The Flax module of a network, as it is trained with what is dropped at test, if it has any such part.

    `axis_name` is a mapped axis that batch statistics are averaged over.
    """
    if isinstance(network, Architecture):
        return builder.build_network(network, num_classes=num_classes, dtype=dtype, axis_name=axis_name)
    baseline = BASELINES.find(network.name)
    make = baseline.in_training if in_training and baseline.in_training else baseline.module
    module = make(num_classes=num_classes, dtype=jnp.dtype(dtype))
    return module.clone(axis_name=axis_name) if axis_name is not None and hasattr(module, "axis_name") else module


def abstract_variables(module: nn.Module, input_shape: Shape) -> PyTree:
    """The shapes and dtypes of a module's variables for images (H, W, C); computes nothing."""
    one = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    variables = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), one)
    return {"params": variables.get("params", {}), "batch_stats": variables.get("batch_stats", {})}


def count_parameters(network: AnyNetwork, *, num_classes: int, in_training: bool = False) -> int:
    """Trainable numbers."""
    if isinstance(network, Architecture):
        return architectures.count_parameters(network, num_classes=num_classes)
    module = build_network(network, num_classes=num_classes, in_training=in_training)
    params = abstract_variables(module, network.input_shape)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def count_flops(network: AnyNetwork, *, num_classes: int, in_training: bool = False) -> int:
    """Floating-point operations of one image's forward pass, see `eigen_jax.architecture.count_flops`."""
    if isinstance(network, Architecture):
        return architectures.count_flops(network, num_classes=num_classes)
    module = build_network(network, num_classes=num_classes, in_training=in_training)
    return count_module_flops(module, network.input_shape)


def count_layers(network: AnyNetwork) -> int:
    """Those before the classifier; of a named network all that have weights, as its authors count them."""
    return len(network.layers) if isinstance(network, Architecture) else BASELINES.find(network.name).layers


def fingerprint(network: AnyNetwork) -> str:
    """SHA-256, in hexadecimal, equal exactly for equal networks."""
    if isinstance(network, Architecture):
        return architectures.fingerprint(network)
    return sha256([json.dumps([network.name, network.input_shape], separators=(",", ":"))])
