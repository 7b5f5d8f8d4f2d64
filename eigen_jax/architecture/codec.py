"""Genomes to architectures and back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.architecture.graph import Architecture, ArchitectureError, Layer
from eigen_jax.genome import Genome, GenomeSpec, Op, choices

_KINDS: dict[int, Any] = {Op.CONV: "conv", Op.POOL: "pool", Op.CONCAT: "concat"}
_OPS = {kind: op for op, kind in _KINDS.items()}


def decode(genome: Genome, *, spec: GenomeSpec) -> Architecture:
    """The architecture that one genome, without batch dimensions, stands for; runs on the host.

    Raises:
        ArchitectureError: the genome breaks an invariant of `Genome`.
    """
    genes: Genome = jax.device_get(genome)
    if np.ndim(genes.op) != 1 or not 0 <= int(genes.length) <= len(genes.op):
        raise ArchitectureError(
            f"a genome of shape {np.shape(genes.op)} and length {genes.length} cannot be decoded; "
            "give one genome, no longer than its capacity"
        )
    ops, inputs = (field[: int(genes.length)].tolist() for field in (genes.op, genes.inputs))
    layers = []
    for position, op in enumerate(ops):
        if op not in _KINDS:
            raise ArchitectureError(f"gene {position} has op {op}; a live gene has op 1, 2 or 3")
        values = {}
        for name, options in choices(spec).items() if op == Op.CONV else ():
            index = int(getattr(genes, name)[position])
            if not 0 <= index < len(options):
                raise ArchitectureError(
                    f"gene {position} has {name} index {index}; GenomeSpec has {len(options)} choices, numbered from 0"
                )
            values[name] = options[index]
        read = tuple(source for source in inputs[position] if source != Genome.UNUSED)
        layers.append(Layer(op=_KINDS[op], inputs=read, **values))
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
    arrays: dict[str, Any] = {name: np.zeros(spec.capacity, np.int8) for name in ("op", *choices(spec))}
    arrays |= {"inputs": np.zeros((spec.capacity, 2), np.int16), "length": np.int32(len(layers))}
    for position, layer in enumerate(layers):
        arrays["op"][position] = _OPS[layer.op]
        arrays["inputs"][position] = layer.inputs if len(layer.inputs) == 2 else (*layer.inputs, Genome.UNUSED)
        for name, options in choices(spec).items() if layer.op == "conv" else ():
            value = getattr(layer, name)
            if value not in options:
                raise ArchitectureError(f"layer {position} has {name} {value}; GenomeSpec has the choices {options}")
            arrays[name][position] = options.index(value)
    return Genome(**{name: jnp.asarray(array) for name, array in arrays.items()})
