"""Shape inference on genomes, as array code.

A layer's map size is fully told by its *level*, the number of times that the image was halved on the way to it:
every layer that halves a map uses SAME padding, so each halves to ceil(size / 2).

Dimension letters: G genes, L halvings of the image, from 0 (full size) to 1 x 1.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from eigen_jax.genome.genome import Genome
from eigen_jax.genome.spec import GenomeSpec
from eigen_jax.layer_kinds import LayerKind, as_values, first_width, is_numeric


@struct.dataclass
class Shapes:
    """What every layer of a genome puts out, and what the network costs."""

    level: Array  # [G] int8, halvings of the image; 0 for dead genes
    width: Array  # [G] int32, channels; 0 for dead genes
    parameters: Array  # [] float32, classifier included
    flops: Array  # [] float32, of one image's forward pass: convolutions and classifier, 2 a multiply-add
    consistent: Array  # [] bool: no 1 x 1 map is halved, no map is over 2 ** 20 wide, layers join maps that agree


# Widths saturate past this, where costs would no longer be told exactly: such a map is inconsistent.
_WIDEST = 1 << 20

_LEVEL_BITS = 5  # sizes up to 2 ** 31 halve to 1 in as many steps
_LEVEL_MASK = (1 << _LEVEL_BITS) - 1


def infer_shapes(genome: Genome, *, spec: GenomeSpec, bound: Array | None = None) -> Shapes:
    """Infers map sizes, widths and costs in one pass along the genes; jit- and vmap-able.

    `bound`, [] int32, tells how many genes to visit, at least the genome's length; by default, all. One
    for a whole vmapped batch makes the pass cost what the longest genome needs.
    """

    # Level and width share a word, the image's in row 0, so that both inputs cost a single lookup.
    def visit(gene, carry):
        words, parameters, flops, consistent = carry
        sources = jnp.maximum(genome.inputs[gene].astype(jnp.int32) + 1, 0)
        first, second = words[sources]
        level_in, widths = first & _LEVEL_MASK, (first >> _LEVEL_BITS, second >> _LEVEL_BITS)
        fans = tuple(width.astype(jnp.float32) for width in widths)
        op, live = genome.op[gene], gene < genome.length
        level, width, joinable = level_in, widths[0], jnp.ones((), bool)
        for code, kind in enumerate(spec.ops, start=1):
            told = functools.partial(_told, kind, genome, gene, spec)
            is_kind, reads = op == code, slice(kind.inputs)
            if kind.halves is not False:
                level += jnp.where(is_kind, _halvings(kind, genome, gene, spec), 0)
            if kind.width is not first_width:
                width = jnp.where(is_kind, told(kind.width, widths[reads], dtype=jnp.int32), width)
            if kind.parameters is not None:
                parameters += jnp.where(is_kind, told(kind.parameters, fans[reads]), 0)
            if kind.flops is not None:
                taps = _taps(kind, genome, gene, jnp.minimum(level_in, spec.max_level), spec)
                flops += jnp.where(is_kind, told(kind.flops, taps, fans[reads]), 0)
            if kind.agree is not None:
                agree = first == second if kind.agree == "shape" else level_in == second & _LEVEL_MASK
                joinable &= ~is_kind | agree
        consistent &= ~live | (level <= spec.max_level) & (width <= _WIDEST) & joinable
        word = (jnp.minimum(width, _WIDEST) << _LEVEL_BITS) | jnp.minimum(level, _LEVEL_MASK)
        return words.at[gene + 1].set(jnp.where(live, word, 0)), parameters, flops, consistent

    image = spec.input_shape[2] << _LEVEL_BITS
    words = jnp.zeros(genome.capacity + 1, jnp.int32).at[0].set(image)
    start = words, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), jnp.ones((), bool)
    stop = genome.capacity if bound is None else bound
    words, parameters, flops, consistent = lax.fori_loop(0, stop, visit, start)
    features = (words[genome.length] >> _LEVEL_BITS).astype(jnp.float32)
    return Shapes(
        level=(words[1:] & _LEVEL_MASK).astype(jnp.int8),
        width=words[1:] >> _LEVEL_BITS,
        parameters=parameters + (features + 1) * spec.num_classes,
        flops=flops + 2 * features * spec.num_classes,
        consistent=consistent,
    )


class _Values:
    """The values of a gene's choices, each looked up where a function of its kind asks for it."""

    def __init__(self, genome: Genome, gene: Array, options: Mapping[str, tuple[Any, ...]], dtype: Any) -> None:
        self._of = genome, gene, options, dtype

    def __getattr__(self, name: str) -> Any:
        genome, gene, options, dtype = self._of
        if name not in options:
            raise AttributeError(name)
        if not is_numeric(options[name][0]):
            (value,) = options[name]
            return value
        is_float = any(isinstance(value, float) for value in options[name])
        values = jnp.asarray(options[name], jnp.float32 if is_float else jnp.int32)[genome.choices[name][gene]]
        return values if is_float else values.astype(dtype)


def _told(
    kind: LayerKind,
    genome: Genome,
    gene: Array,
    spec: GenomeSpec,
    function: Any,
    *arguments: Any,
    dtype: Any = jnp.float32,
) -> Array:
    """What a function of a kind gives for a gene; of values that are no numbers, it is asked for each."""
    options = spec.options[kind.name]
    words = [name for name, values in options.items() if not all(map(is_numeric, values))]
    told = None
    for places in itertools.product(*(range(len(options[name])) for name in words)):
        fixed = {name: (options[name][place],) for name, place in zip(words, places, strict=True)}
        new = jnp.asarray(function(*arguments, _Values(genome, gene, {**options, **fixed}, dtype)), dtype)
        is_this = jnp.ones((), bool)
        for name, place in zip(words, places, strict=True):
            is_this &= genome.choices[name][gene] == place
        told = new if told is None else jnp.where(is_this, new, told)
    assert told is not None  # a choice has a value at least
    return told


def _halvings(kind: LayerKind, genome: Genome, gene: Array, spec: GenomeSpec) -> Array | int:
    """By how many levels a gene of a kind is past its input; 0 or 1."""
    if not isinstance(kind.halves, str):
        return int(kind.halves)
    halvings = [int(value == 2) for value in spec.options[kind.name][kind.halves]]
    return jnp.asarray(halvings, jnp.int32)[genome.choices[kind.halves][gene]]


def _taps(kind: LayerKind, genome: Genome, gene: Array, level: Array, spec: GenomeSpec) -> Array:
    """The taps of a gene of a kind on inputs of a level; [] float32."""
    table, names = _tabulated_taps(kind, spec.sizes, tuple(spec.options[kind.name].items()))
    return jnp.asarray(table)[(level, *(genome.choices[name][gene] for name in names))]


@functools.lru_cache(maxsize=256)
def _tabulated_taps(
    kind: LayerKind, sizes: tuple[tuple[int, int], ...], options: tuple[tuple[str, tuple[Any, ...]], ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Taps, float32, by the level of the input and by the choices that they depend on, and the names of those."""
    names = [name for name, _ in options]
    lists = [values for _, values in options]
    taps = [
        kind.count_taps(size, as_values(dict(zip(names, values, strict=True))))
        for size, *values in itertools.product(sizes, *lists)
    ]
    table: Any = np.array(taps, np.float32).reshape(len(sizes), *map(len, lists))
    for axis in reversed(range(1, table.ndim)):
        if (table == table.take([0], axis)).all():
            table = table.take(0, axis)
            del names[axis - 1]
    return table, tuple(names)


def acceptable(shapes: Shapes, *, spec: GenomeSpec) -> Array:
    """Whether a network is consistent and within the bounds, [] bool; none whose exact cost is over one passes."""
    few = shapes.parameters <= _rounded_down(spec.max_parameters, spec)
    return shapes.consistent & few & (shapes.flops <= _rounded_down(spec.max_flops, spec))


def _rounded_down(bound: int, spec: GenomeSpec) -> float:
    # Integers below 2 ** 24 are exact in float32, and 2 ** 24 itself is what 2 ** 24 + 1 rounds to;
    # from there on each of a gene's two roundings can lose 2 ** -24 of the sum.
    return float(bound) if bound < 1 << 24 else bound * (1 - 2 * (spec.capacity + 2) * 2.0**-24)
