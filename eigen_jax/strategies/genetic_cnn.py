"""Genetic CNN: networks as strings of bits, bred by roulette, crossover of whole stages and mutation.

Dimension letters are as in `strategy`, and B = 19 bits of a string, S = 3 stages, H strings that are remembered.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from eigen_jax.architecture import IMAGE, Architecture, Layer, count_flops, count_parameters
from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec
from eigen_jax.strategies.breeding import nobody, places_of
from eigen_jax.strategies.strategy import NONE, Population, Strategy

NODES, CHANNELS = (3, 4, 5), (8, 16, 32)  # of each stage
# The nodes that each bit of a stage joins, from and to, in the order of the bits.
LINKS = tuple(tuple((i, j) for j in range(nodes) for i in range(j)) for nodes in NODES)
BITS = sum(map(len, LINKS))

CROSSOVER, EXCHANGE = 0.2, 0.2  # p_C: two neighbours cross over; q_C: these exchange a stage
MUTATION, FLIP = 0.8, 0.05  # p_M: one who did not cross over mutates; q_M: it flips a bit

_STARTS = np.cumsum([0, *map(len, LINKS)])[:-1]  # [S], of the stages' bits
_OF_STAGE = np.repeat(np.eye(len(LINKS), dtype=np.int32), list(map(len, LINKS)), axis=0)  # [B, S], whether a bit is


@struct.dataclass
class Memory:
    """What each string measured so far; the rows of no string come last."""

    strings: Array  # [H] int32, the bits as binary digits, the first the lowest; NONE: no string
    counts: Array  # [H] int32, measurements
    totals: Array  # [H] float32, the sum of their fitness


@struct.dataclass
class GeneticState:
    generation: Array  # [] int32, of the population
    population: Population  # [P], whose genomes are strings, [P, B] bool
    memory: Memory  # of the generations before


def remember(memory: Memory, strings: Array, fitness: Array) -> tuple[Memory, Array]:
    """Adds what strings, [P, B] bool, measured, and gives the mean of all measurements of each, [P] float32.

    `fitness` is [P] float32. One that is not finite is no measurement, and has -inf in place of a mean.
    """
    measured = jnp.isfinite(fitness)
    numbers = strings.astype(jnp.int32) @ (1 << np.arange(BITS, dtype=np.int32))

    def add(memory: Memory, each: tuple[Array, Array, Array]) -> tuple[Memory, Array]:
        number, value, is_measured = each
        row = ((memory.strings == number) | (memory.strings == NONE)).argmax()
        row = jnp.where(is_measured, row, len(memory.strings))  # past the end, where `drop` loses it
        strings = memory.strings.at[row].set(number, mode="drop")
        counts, totals = memory.counts.at[row].add(1, mode="drop"), memory.totals.at[row].add(value, mode="drop")
        return Memory(strings, counts, totals), row

    memory, rows = lax.scan(add, memory, (numbers, fitness, measured))
    means = memory.totals[rows] / jnp.maximum(memory.counts[rows], 1).astype(jnp.float32)
    return memory, jnp.where(measured, means, -jnp.inf)


def roulette(key: Array, fitness: Array) -> Array:
    """Draws N of N with replacement, [N] int32, each with the share by which its fitness is above the worst one's.

    `fitness` is [N] float32; who has none that is finite is never drawn, nor is the worst. Where all that have one are
    equal, they have equal shares; where nobody has one, all.
    """
    measured = jnp.isfinite(fitness)
    # Halved, no two values differ by more than a float32 holds.
    lowest = jnp.min(fitness, where=measured, initial=jnp.finfo(jnp.float32).max)
    above = jnp.where(measured, fitness / 2 - lowest / 2, 0)
    equal = (measured | ~measured.any()).astype(jnp.float32)
    shares = jnp.where(above.any(), above, equal)
    # Not by their cumulated sums, which rounding can raise where a share is 0.
    return jax.random.categorical(key, jnp.log(shares), shape=fitness.shape).astype(jnp.int32)


def count_convolutions(strings: Array) -> tuple[Array, ...]:
    """How many convolutions each of the S stages has besides its first, for strings [..., B] bool; [...] int32."""
    counts = []
    for nodes, links, bits in zip(NODES, LINKS, jnp.split(strings, _STARTS[1:], axis=-1), strict=True):
        ends = np.array([[node in link for node in range(nodes)] for link in links], np.int32)
        joined = (bits.astype(jnp.int32) @ ends > 0).sum(axis=-1, dtype=jnp.int32)
        counts.append(jnp.where(joined > 0, joined + 1, 0))
    return tuple(counts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneticCnn(Strategy):
    """Genetic CNN (Xie & Yuille, ICCV 2017): a genetic algorithm on strings of 19 bits.

    The first N = `population_size` strings are random. Of each generation, `roulette` selects N for the next, of whom
    each two neighbours cross over with p_C: they exchange each stage, whole, with q_C. Who did not cross over mutates
    with p_M: it flips each bit with q_M. All are trained from scratch, also those whose string was measured before, and
    selected by the mean of all measurements of their string. The paper's 50 generations after the first are
    `max_children` = 1,020. Of the search space it takes the images, the classes and the bounds.

    The record has what each child measured itself, and the fittest by that is the network found; the means are in the
    state alone. A failure counts in no mean, and has no descendants, whatever its string measured otherwise, unless all
    of its generation fail. Operators are counted in the stages and bits that they changed. Who crossed over has two
    parents, first the one whose place it takes; one parent, if they are the same.

    Exact: S = 3 stages of 3, 4 and 5 nodes, bits in the order (1, 2), (1, 3), (2, 3), (1, 4), ...; a node is a 5 x 5
    convolution, batch normalisation and ReLU of the sum of the earlier nodes joined to it; a first convolution feeds
    the nodes that are joined to later ones alone, a last one reads the sum of those joined to earlier ones alone; nodes
    joined to none are left out, and a stage of zeros is one convolution; random bits are 1 with 0.5; N = 20, 50
    generations, p_C = 0.2 and p_M = 0.8, as for MNIST.

    Decided, as the paper is remembered but could not be verified: these four for CIFAR-10 too; q_C = 0.2, q_M = 0.05;
    shares above the worst; no mutation after crossover; means of repeats; 8, 16 and 32 channels; max pooling 3 x 3,
    stride 2, after each stage; dense 128 with ReLU, dropout 0.5. Decided, where nothing is known: no bias in
    convolutions; neighbours are first and second, third and fourth, ..., and an odd last one has none; equal shares
    where all are equal; no pooling of a single pixel; a flip (in random order) or an exchange (first stages first) that
    takes a network over the bounds is left out; all training as the settings have it, at the same widths.
    """

    reevaluates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest, counts = self.decode(np.zeros(BITS, bool)), {"num_classes": self.spec.num_classes}
        for name, count in (("max_parameters", count_parameters), ("max_flops", count_flops)):
            if (bound := getattr(self.spec, name)) < (least := count(smallest, **counts)):
                rule = f"{{{name}}} is {{}}; it must be at least {{}}, for the smallest network of Genetic CNN"
                raise ConfigError(GenomeSpec, rule, bound, least)

    def genesis(self) -> GeneticState:
        size, rows = self.config.population_size, min(self.config.max_children, 2**BITS)
        population = dataclasses.replace(
            nobody(size, spec=self.spec),
            genomes=jnp.zeros((size, BITS), bool),
            parents=jnp.full((size, 2, 2), NONE, jnp.int32),
            operators=jnp.zeros((size, len(self.operator_names())), jnp.int32),
        )
        memory = Memory(jnp.full(rows, NONE, jnp.int32), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.float32))
        return GeneticState(generation=jnp.asarray(NONE, jnp.int32), population=population, memory=memory)

    def step(self, key: Array, state: GeneticState, fitness: Array) -> GeneticState:
        key_select, key_cross, key_who, key_mutate = jax.random.split(key, 4)
        generation, is_first, old = state.generation + 1, state.generation == NONE, state.population
        memory, means = remember(state.memory, old.genomes, fitness[:, 0, 0])
        chosen = roulette(key_select, means)
        selected, parents = old.genomes[chosen], old.places[chosen]
        # Before the first generation all are zeros, of which it is the mutants.
        crossed, crosses = self.cross(key_cross, selected)
        crosses &= ~is_first
        mutates = ~crosses & (is_first | jax.random.bernoulli(key_who, MUTATION, crosses.shape))
        strings = self.mutate(key_mutate, crossed, mutates, jnp.where(is_first, 0.5, FLIP))
        exchanged = ((crossed ^ selected).astype(jnp.int32) @ _OF_STAGE > 0).sum(axis=-1, dtype=jnp.int32)
        flipped = jnp.where(is_first, 0, (strings ^ crossed).sum(axis=-1, dtype=jnp.int32))
        partners = parents[np.minimum(np.arange(len(parents)) ^ 1, len(parents) - 1)]
        has_two = crosses & (partners != parents).any(axis=-1)
        parents = jnp.stack([parents, jnp.where(has_two[:, None], partners, NONE)], axis=1)
        places = places_of(generation, config=self.config)
        population = dataclasses.replace(
            old,
            genomes=strings,
            places=places,
            parents=jnp.where(places[:, None] == NONE, NONE, parents),
            operators=jnp.stack([exchanged, flipped], axis=1),
        )
        return GeneticState(generation=generation, population=population, memory=memory)

    def cross(self, key: Array, strings: Array) -> tuple[Array, Array]:
        """Crosses neighbours of strings, [P, B] bool, over; gives the strings, and who crossed over, [P] bool."""
        key_who, key_stages = jax.random.split(key)
        pairs, alone = strings[: len(strings) // 2 * 2].reshape(-1, 2, BITS), strings[len(strings) // 2 * 2 :]
        crosses = jax.random.bernoulli(key_who, CROSSOVER, pairs.shape[:1])
        stages = jax.random.bernoulli(key_stages, EXCHANGE, (len(NODES), len(pairs))) & crosses[None]
        # An exchange flips, in both, the bits in which they differ.
        masks = _OF_STAGE.T.astype(bool)[:, None, None]
        changes = stages[:, :, None, None] & masks & (pairs ^ pairs[:, ::-1])[None]
        strings = jnp.concatenate([self._change(pairs, changes).reshape(-1, BITS), alone])
        return strings, jnp.append(jnp.repeat(crosses, 2), jnp.zeros(len(alone), bool))

    def mutate(self, key: Array, strings: Array, mutates: Array, rate: Array) -> Array:
        """Flips each bit with a probability, [] float32, in those of strings, [P, B] bool, who mutate, [P] bool."""
        key_flips, key_order = jax.random.split(key)
        flips = jax.random.bernoulli(key_flips, rate, strings.shape) & mutates[:, None]
        order = jax.random.uniform(key_order, strings.shape).argsort(axis=-1)
        changes = jax.nn.one_hot(order.T, BITS, dtype=bool) & flips[None]
        return self._change(strings[:, None], changes[:, :, None])[:, 0]

    def _change(self, strings: Array, changes: Array) -> Array:
        """Flips the bits of C changes, [C, N, K, B] bool, one change after the other, in strings, [N, K, B] bool.

        A change that takes the network of one of K strings over the bounds is left out, for all K.
        """
        affordable = jnp.asarray(self._affordable)

        def change(strings: Array, flips: Array) -> tuple[Array, None]:
            changed = strings ^ flips
            fits = affordable[count_convolutions(changed)].all(axis=-1)
            return jnp.where(fits[:, None, None], changed, strings), None

        return lax.scan(change, strings, changes)[0]

    @functools.cached_property
    def _affordable(self) -> np.ndarray:
        """Whether networks are within the bounds, [5, 6, 7] bool, by their `count_convolutions`."""
        sizes, spec = tuple(nodes + 2 for nodes in NODES), self.spec
        networks = [self.decode(np.isin(np.arange(BITS), bits)) for bits in ([], *_STARTS)]
        fits = np.ones(sizes, bool)
        for count, bound in ((count_parameters, spec.max_parameters), (count_flops, spec.max_flops)):
            least, *others = (count(network, num_classes=spec.num_classes) for network in networks)
            # One bit of a stage is three convolutions more, which cost the same.
            more = [(other - least) // 3 for other in others]
            fits &= least + np.tensordot(more, np.indices(sizes), axes=1) <= bound
        return fits

    def phase(self, state: GeneticState) -> str:
        return "initial" if state.generation == 0 else "genetic"

    def title(self, state: GeneticState) -> str:
        if state.generation == 0:
            return f"Genetic CNN: random strings of {BITS} bits"
        return f"Genetic CNN: roulette among {self.config.population_size}, crossover and mutation"

    def operator_names(self) -> tuple[str, ...]:
        return "exchange_stage", "flip_bit"

    def decode(self, genome: Any) -> Architecture:
        """The network of one string, [B] bool."""
        layers: list[Layer] = []
        source, size = IMAGE, max(self.spec.input_shape[:2])
        for channels, links, bits in zip(CHANNELS, LINKS, np.split(genome, _STARTS[1:]), strict=True):
            joined = [link for link, bit in zip(links, bits, strict=True) if bit]
            source = _put_stage(layers, source, channels, joined)
            if size > 1:
                source, size = _put(layers, "pool3", source), -(-size // 2)
        _put(layers, "dropout", _put(layers, "dense", source, units=128, activation="relu"), rate=0.5)
        return Architecture(input_shape=self.spec.input_shape, layers=tuple(layers))


def _put_stage(layers: list[Layer], source: int, channels: int, links: Sequence[tuple[int, int]]) -> int:
    """Appends the layers of a stage that reads layer `source`; gives the position of the last."""

    def put(*sources: int) -> int:
        added = functools.reduce(functools.partial(_put, layers, "add"), sources)
        return _put(layers, "conv", added, channels=channels, kernel=5, stride=1)

    first, outputs = put(source), dict[int, int]()
    for node in sorted({node for link in links for node in link}):
        outputs[node] = put(*[outputs[i] for i, j in links if j == node] or [first])
    begins = {i for i, _ in links}
    return put(*[output for node, output in outputs.items() if node not in begins]) if links else first


def _put(layers: list[Layer], op: str, *inputs: int, **values: Any) -> int:
    """Appends a layer, or finds the one that adds the same; gives its position."""
    layer = Layer(op=op, inputs=inputs, **values)
    if op == "add" and layer in layers:
        return layers.index(layer)
    layers.append(layer)
    return len(layers) - 1
