"""Flax modules of architectures.

Parameters and batch statistics are float32. Maps are computed in the module's dtype; batch normalisation, global
pooling and the classifier in float32. Submodules are named after canonical positions, `layer_0`, `layer_1`, ..., so
that saved variables fit every build of an equal architecture.
"""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.architecture import IMAGE, Architecture, ArchitectureError
from eigen_jax.layer_kinds import KINDS
from eigen_jax.layers import BatchNormRelu


class Network(nn.Module):
    """A network of a search space (Section 3.1): layers, global average pooling, linear classifier.

    Equal architectures make equal modules, for which a function is traced once. Use `build_network`.
    """

    architecture: Architecture
    num_classes: int  # K
    dtype: jnp.dtype  # of the maps
    axis_name: str | None = None  # mapped axis that batch statistics are averaged over, under `shard_map` or `pmap`

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, H, W, C] images, of any real dtype, to [B, K] float32 logits; B images, K classes.

        In training, batches are normalised with their own statistics and the running ones are updated, which needs
        `mutable=["batch_stats"]`. Raises an ArchitectureError where the images do not have the input shape.
        """
        if images.shape[1:] != self.architecture.input_shape:
            takes = ", ".join(map(str, self.architecture.input_shape))
            raise ArchitectureError(f"images have shape {images.shape}; this network takes [B, {takes}]")
        norm = functools.partial(BatchNormRelu, use_running_average=not train, axis_name=self.axis_name)
        maps = {IMAGE: images.astype(self.dtype)}
        for position, layer in enumerate(self.architecture.layers):
            inputs = [maps[source] for source in layer.inputs]
            maps[position] = KINDS.find(layer.op).layer(inputs, layer, norm=norm, name=f"layer_{position}")
        features = jnp.mean(maps[len(self.architecture.layers) - 1].astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="classifier")(features)


def build_network(
    architecture: Architecture, *, num_classes: int, dtype: DTypeLike = jnp.float32, axis_name: str | None = None
) -> Network:
    """The Flax module of an architecture; its fields are told at `Network`."""
    return Network(architecture=architecture, num_classes=num_classes, dtype=jnp.dtype(dtype), axis_name=axis_name)
