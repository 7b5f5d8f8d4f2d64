"""Shape inference on genomes, as array code.

A layer's map size is fully told by its *level*, the number of times that the image was halved on the way to it:
every layer that halves a map halves it to ceil(size / 2), and one that flattens it goes to the last level, 1 x 1.
"""

import functools
import itertools
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from eigen_jax.genome.genome import Genome
from eigen_jax.genome.spec import GenomeSpec
from eigen_jax.layer_kinds import LayerKind, first_width, is_numeric


@struct.dataclass
class Shapes:
    """What every layer of a genome puts out, and what the network costs."""

    level: Array  # [G] int8, halvings of the image; 0 for dead genes
    width: Array  # [G] int32, channels; 0 for dead genes
    parameters: Array  # [] float32, classifier included
    flops: Array  # [] float32, of one image's forward pass, 2 a multiply-add of what `count_flops` counts
    consistent: Array  # [] bool: no 1 x 1 map is halved, no map is over 2 ** 20 wide, layers join maps that agree


_WIDEST = 1 << 20  # past this widths saturate, where costs would no longer be told exactly
_LEVEL_BITS = 5  # sizes up to 2 ** 31 halve to 1 in as many steps
_LEVEL_MASK = (1 << _LEVEL_BITS) - 1


def infer_shapes(genome: Genome, *, spec: GenomeSpec, bound: Array | None = None) -> Shapes:
    """Infers map sizes, widths and costs in one pass along the genes; jit- and vmap-able.

    `bound`, [] int32, tells how many genes to visit, at least the genome's length; by default, all. One for a whole
    vmapped batch makes the pass cost what the longest genome needs.
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
            of_kind, is_kind, reads = _Gene(kind, genome, gene, spec), op == code, slice(kind.inputs)
            read_widths, read_fans = widths[reads], fans[reads]
            if kind.flattens:
                level = jnp.where(is_kind, spec.max_level, level)
                read_widths, read_fans = _flattened(fans[0], jnp.minimum(level_in, spec.max_level), spec)
            if kind.halves is not False:
                level += jnp.where(is_kind, of_kind.halvings(), 0)
            if kind.width is not first_width or kind.flattens:
                width = jnp.where(is_kind, of_kind.told(kind.width, read_widths, dtype=jnp.int32), width)
            if kind.parameters is not None:
                parameters += jnp.where(is_kind, of_kind.told(kind.parameters, read_fans), 0)
            if kind.flops is not None:
                taps = of_kind.taps(jnp.minimum(level_in, spec.max_level))
                flops += jnp.where(is_kind, of_kind.told(kind.flops, taps, read_fans), 0)
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


def _flattened(fan: Array, level: Array, spec: GenomeSpec) -> tuple[tuple[Array], tuple[Array]]:
    """The H x W x C of a map of C channels at a level, as a width, [] int32, and as a float32 for costs."""
    pixels = jnp.asarray([height * width for height, width in spec.sizes], jnp.float32)
    flat = fan * pixels[level]
    return (jnp.minimum(flat, 2 * _WIDEST).astype(jnp.int32),), (flat,)


class _Gene:
    """A gene, as one of a kind, whose functions it is put to."""

    def __init__(self, kind: LayerKind, genome: Genome, gene: Array, spec: GenomeSpec) -> None:
        self.kind, self.options, self.sizes = kind, spec.options[kind.name], spec.sizes
        self.indices = {name: genome.choices[name][gene] for name in self.options}
        self._number = functools.cache(self._look_up)

    def told(self, function: Any, *arguments: Any, dtype: Any = jnp.float32) -> Array:
        """What a function of the kind gives for the gene; it is asked for each of the values that are no numbers."""
        words = [name for name, values in self.options.items() if not all(map(is_numeric, values))]
        known = {name: self._number(name) for name in self.options if name not in words}
        numbers = {name: n if n.dtype == jnp.float32 else n.astype(dtype) for name, n in known.items()}
        told: Any = None
        for places in itertools.product(*(range(len(self.options[name])) for name in words)):
            chosen = dict(zip(words, places, strict=True))
            fixed = {name: self.options[name][place] for name, place in chosen.items()}
            new = jnp.asarray(function(*arguments, SimpleNamespace(**numbers, **fixed)), dtype)
            flags = (self.indices[name] == place for name, place in chosen.items())
            told = new if told is None else jnp.where(functools.reduce(jnp.logical_and, flags), new, told)
        return told

    def _look_up(self, name: str) -> Array:
        is_float = any(isinstance(value, float) for value in self.options[name])
        return jnp.asarray(self.options[name], jnp.float32 if is_float else jnp.int32)[self.indices[name]]

    def halvings(self) -> Array | int:
        # A table of its own: to compare the looked-up value costs a large batch 8 % of its time.
        if not isinstance(self.kind.halves, str):
            return int(self.kind.halves)
        halvings = [int(value == 2) for value in self.options[self.kind.halves]]
        return jnp.asarray(halvings, jnp.int32)[self.indices[self.kind.halves]]

    def taps(self, level: Array) -> Array:
        """Its taps on inputs of a level; [] float32."""
        table, names = _tabulated_taps(self.kind, self.sizes, tuple(self.options.items()))
        return jnp.asarray(table)[(level, *(self.indices[name] for name in names))]


@functools.lru_cache(maxsize=256)
def _tabulated_taps(
    kind: LayerKind, sizes: tuple[tuple[int, int], ...], options: tuple[tuple[str, tuple[Any, ...]], ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Taps, float32, by the level of the input and by the choices that they depend on, and the names of those."""
    names, lists = [*dict(options)], [values for _, values in options]
    combinations = itertools.product(sizes, *lists)
    taps = [kind.count_taps(size, SimpleNamespace(**dict(zip(names, own, strict=True)))) for size, *own in combinations]
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
