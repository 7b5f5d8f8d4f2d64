"""What is exported: a trained network with all that it needs to take pictures."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from eigen_jax.architecture import Architecture, times
from eigen_jax.builder import Network, build_network
from eigen_jax.errors import EigenError
from eigen_jax.layer_kinds import KINDS, LayerKind
from eigen_jax.processor import ImageProcessor
from eigen_jax.training import predict

PyTree = Any


class ExportError(EigenError):
    """A network that cannot be exported as asked, or a folder that cannot be written."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A network, its Flax variables, and how it takes pictures."""

    architecture: Architecture
    variables: PyTree  # "params" and "batch_stats"
    processor: ImageProcessor
    dtype: str  # that maps are computed in
    batch_size: int  # in which the run evaluated: another one rounds otherwise

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.processor.class_names)

    @property
    def shape(self) -> str:
        """H x W x C, for people."""
        return times(self.architecture.input_shape)

    def build(self, dtype: str | None = None) -> Network:
        """The Flax module, by default in the run's dtype."""
        return build_network(self.architecture, num_classes=self.num_classes, dtype=dtype or self.dtype)

    def apply(self, images: Array, *, dtype: str | None = None) -> Array:
        """The logits [B, K] of preprocessed images [B, H, W, C], as array code."""
        logits: Any = self.build(dtype).apply(self.variables, images, train=False)
        return logits

    def logits(self, pixels: np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
        """[N, H, W, C] uint8 to [N, K] float32, by default with the bits of the run."""
        images = jax.numpy.asarray(self.processor(pixels))
        return predict(self.variables, images, network=self.build(), batch_size=batch_size or self.batch_size)

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """All variables by their paths, as "params/layer_0/conv/kernel"."""
        leaves = jax.tree_util.tree_flatten_with_path(self.variables)[0]
        return {"/".join(str(key.key) for key in path): np.ascontiguousarray(leaf) for path, leaf in leaves}

    def by_kind(self, what: str, formats: str) -> list[Callable]:
        """The function `what` of the kind of each layer; raises an ExportError where a kind has none."""
        kinds: list[LayerKind] = [KINDS.find(layer.op) for layer in self.architecture.layers]
        for kind in kinds:
            if getattr(kind, what) is None:
                raise ExportError(
                    f"the layer kind {kind.name!r} does not say how it is exported as {formats}; give its record"
                    f" `{what}`, or use --format stablehlo"
                )
        return [getattr(kind, what) for kind in kinds]
