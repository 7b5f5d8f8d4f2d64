"""What is exported: a trained network with all that it needs to take pictures."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from eigen_jax.architecture import Architecture, times
from eigen_jax.errors import EigenError
from eigen_jax.layer_kinds import KINDS, LayerKind
from eigen_jax.networks import AnyNetwork, build_network
from eigen_jax.processor import ImageProcessor
from eigen_jax.store import files
from eigen_jax.training import predict

PyTree = Any

_PROBES = 8  # random images that what is written is checked with
_ROUNDING = {"float32": 1e-4, "bfloat16": 0.05}  # of logits, where the same is computed in another order


class ExportError(EigenError):
    """A network that cannot be exported as asked, or a folder that cannot be written."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A network, its Flax variables, and how it takes pictures."""

    network: AnyNetwork
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
        return times(self.network.input_shape)

    @property
    def architecture(self) -> Architecture:
        """The network; raises an ExportError for a hand-designed one, which is none."""
        if isinstance(self.network, Architecture):
            return self.network
        told = f"{self.network.name} is hand-designed, and layer kinds alone say how they are exported in this format"
        raise ExportError(f"{told}; use --format stablehlo")

    def build(self, dtype: str | None = None) -> nn.Module:
        """The Flax module, by default in the run's dtype."""
        return build_network(self.network, num_classes=self.num_classes, dtype=dtype or self.dtype)

    def logits(self, pixels: np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
        """[N, H, W, C] uint8 to [N, K] float32, by default with the bits of the run."""
        images = jax.numpy.asarray(self.processor(pixels))
        return predict(self.variables, images, network=self.build(), batch_size=batch_size or self.batch_size)

    def check(self, ask: Callable[[np.ndarray], np.ndarray], *, dtype: str | None = None) -> None:
        """Asks what was written: [N, H, W, C] uint8, or float32 where no preprocessing is known, to [N, K] float32.

        Raises an ExportError where its logits are not those of the network that computes in `dtype`, up to rounding.
        """
        fitted, shape = self.processor.preprocessor, (_PROBES, *self.network.input_shape)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        given = pixels if fitted else pixels.astype(np.float32)
        images = jax.numpy.asarray(fitted(pixels) if fitted else given)
        expected = predict(self.variables, images, network=self.build(dtype), batch_size=_PROBES)
        worst = float(np.abs(ask(given) - expected).max() / max(1.0, np.abs(expected).max()))
        if not worst <= _ROUNDING[dtype or self.dtype]:
            told = f"what was written gives logits that differ by {worst:.1e}, as a share of the largest"
            raise ExportError(f"{told}; use another --format, and report it")

    def write_classes(self, folder: Path) -> None:
        """Writes classes.json, the names of the classes in the order of the logits, into a folder; raises OSError."""
        names = json.dumps(self.processor.class_names, ensure_ascii=False, indent=2)
        files.write(folder / "classes.json", names + "\n")

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
