"""A network as StableHLO, serialised by `jax.export`: pixels in, logits out, for batches of any size, CPU and CUDA."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export, lax

from eigen_jax import platforms
from eigen_jax.data.preprocessing import ChannelTable, ContrastWhitening
from eigen_jax.export.network import TrainedModel
from eigen_jax.processor import Preprocessor
from eigen_jax.store import files

PLATFORMS = ("cpu", "cuda")

_CALL = '''"""Pixels [N, {sizes}] {dtype} to logits [N, {classes}] float32, of any N; needs jax and flatbuffers."""

import jax
from jax import export

with open("network.stablehlo", "rb") as file:
    network = export.deserialize(bytearray(file.read()))
logits = network.call(pixels)
# On a CPU, compiled as the search does, for {batch_size} images at a time, to the same logits or nearly so:
logits = jax.jit(network.call, compiler_options={options})(pixels)
'''


def preprocess(images: Array, fitted: Preprocessor) -> Array:
    """What `ImageProcessor` does, [N, H, W, C] uint8 to float32, as array code; without one, images as they are.

    A whitening needs 64 bits, with `jax.enable_x64`, as it does on the host.
    """
    if isinstance(fitted, ChannelTable):
        return jnp.asarray(fitted.table)[images.astype(jnp.int32), jnp.arange(images.shape[-1], dtype=jnp.int32)]
    if not isinstance(fitted, ContrastWhitening):
        return images.astype(jnp.float32)
    rows = images.reshape(images.shape[0], -1).astype(jnp.float64)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
    scaled = rows * jnp.where(norms < 1e-8, 0.0, fitted.scale / jnp.maximum(norms, 1e-8))
    centred, matrix = scaled - fitted.whitening.mean[None], fitted.whitening.matrix
    return (centred if matrix is None else centred @ matrix).reshape(images.shape).astype(jnp.float32)


def export_network(model: TrainedModel) -> export.Exported:
    """The program of pixels [N, H, W, C] to logits [N, K], N symbolic."""
    fitted = model.processor.preprocessor
    dtype = jnp.float32 if fitted is None else jnp.uint8

    def logits_of(images: Array) -> Array:
        # Barriers, because a compiler that merges more than it can in the search would round otherwise.
        variables, prepared = lax.optimization_barrier((model.variables, preprocess(images, fitted)))
        with jax.enable_x64(False):
            logits: Any = model.build().apply(variables, prepared, train=False)
        return logits

    with jax.enable_x64(isinstance(fitted, ContrastWhitening)):
        (count,) = export.symbolic_shape("n")
        shape = jax.ShapeDtypeStruct((count, *model.network.input_shape), dtype)
        return export.export(jax.jit(logits_of), platforms=PLATFORMS)(shape)


def write_stablehlo(folder: Path, model: TrainedModel) -> None:
    """Writes network.stablehlo, classes.json and an example of a call into a folder.

    Raises OSError,
    and ExportError as `TrainedModel.check`.
    """
    exported = export_network(model)
    # Not called as it is, which would compile each of its operations alone.
    model.check(lambda pixels: np.asarray(jax.jit(exported.call)(pixels)))
    files.write(folder / "network.stablehlo", bytes(exported.serialize()))
    model.write_classes(folder)
    sizes = ", ".join(map(str, model.network.input_shape))
    dtype = "float32" if model.processor.preprocessor is None else "uint8"
    told = {"sizes": sizes, "dtype": dtype, "classes": model.num_classes, "batch_size": model.batch_size}
    files.write(folder / "call.py", _CALL.format(**told, options=dict(platforms.CPU.compiler_options)))
