"""Genomes to architectures and back."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.architecture.graph import CONV_FIELDS, Architecture, ArchitectureError, Layer
from eigen_jax.genome import Genome, GenomeSpec, Op

_OPS = {"conv": Op.CONV, "pool": Op.POOL, "concat": Op.CONCAT}


def decode(genome: Genome, *, spec: GenomeSpec) -> Architecture:
    """The architecture that one genome stands for; runs on the host.

    Args:
        genome: one genome, without batch dimensions; fields as in `Genome`.
        spec: the search space whose values the genome indexes.

    Raises:
        ArchitectureError: the genome breaks an invariant of `Genome`.
    """
    genes: Genome = jax.device_get(genome)
    if np.ndim(genes.op) != 1 or not 0 <= int(genes.length) <= len(genes.op):
        raise ArchitectureError(
            f"a genome of shape {np.shape(genes.op)} and length {genes.length} cannot be decoded; "
            "give one genome, no longer than its capacity"
        )
    live = slice(int(genes.length))
    rows = zip(
        *(field[live].tolist() for field in (genes.op, genes.inputs, genes.channels, genes.kernel, genes.stride)),
        strict=True,
    )
    layers = []
    for position, (op, inputs, *indices) in enumerate(rows):
        if op == Op.CONV:
            choices = zip(CONV_FIELDS, (spec.channels, spec.kernels, spec.strides), indices, strict=True)
            values = {name: _choice(position, name, options, index) for name, options, index in choices}
            layers.append(Layer(op="conv", inputs=_read_inputs(inputs), **values))
        elif op == Op.POOL:
            layers.append(Layer(op="pool", inputs=_read_inputs(inputs)))
        elif op == Op.CONCAT:
            layers.append(Layer(op="concat", inputs=_read_inputs(inputs)))
        else:
            raise ArchitectureError(f"gene {position} has op {op}; a live gene has op 1, 2 or 3")
    return Architecture(input_shape=spec.input_shape, layers=tuple(layers))


def encode(architecture: Architecture, *, spec: GenomeSpec) -> Genome:
    """The genome of an architecture, genes in canonical order: `decode` inverts it.

    Raises:
        ArchitectureError: the search space does not hold the architecture, because of its number of
            layers, its input shape, or a value that is not among the choices.
    """
    layers = architecture.layers
    if len(layers) > spec.capacity:
        raise ArchitectureError(
            f"the architecture has {len(layers)} layers and a genome holds {spec.capacity}; raise GenomeSpec.capacity"
        )
    if architecture.input_shape != spec.input_shape:
        raise ArchitectureError(
            f"the architecture takes images of shape {architecture.input_shape}, "
            f"and GenomeSpec.input_shape is {spec.input_shape}; they must be equal"
        )
    op, channels, kernel, stride = np.zeros((4, spec.capacity), np.int8)
    inputs = np.zeros((spec.capacity, 2), np.int16)
    for position, layer in enumerate(layers):
        op[position] = _OPS[layer.op]
        inputs[position] = layer.inputs if len(layer.inputs) == 2 else (*layer.inputs, Genome.UNUSED)
        if layer.op == "conv":
            channels[position] = _index(position, "channels", spec.channels, layer.channels)
            kernel[position] = _index(position, "kernel", spec.kernels, layer.kernel)
            stride[position] = _index(position, "stride", spec.strides, layer.stride)
    return Genome(
        op=jnp.asarray(op),
        inputs=jnp.asarray(inputs),
        channels=jnp.asarray(channels),
        kernel=jnp.asarray(kernel),
        stride=jnp.asarray(stride),
        length=jnp.asarray(len(layers), jnp.int32),
    )


def _read_inputs(inputs: Sequence[int]) -> tuple[int, ...]:
    return tuple(inputs[:1]) if inputs[1] == Genome.UNUSED else tuple(inputs)


def _choice(position: int, name: str, options: tuple[int, ...], index: int) -> int:
    if not 0 <= index < len(options):
        raise ArchitectureError(
            f"gene {position} has {name} index {index}; GenomeSpec has {len(options)} choices, numbered from 0"
        )
    return options[index]


def _index(position: int, name: str, options: tuple[int, ...], value: int) -> int:
    if value not in options:
        raise ArchitectureError(f"layer {position} has {name} {value}; GenomeSpec has the choices {options}")
    return options.index(value)
