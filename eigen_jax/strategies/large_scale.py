"""Large-Scale Evolution: of two the worse dies, and the better has a child that inherits its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from eigen_jax.architecture import IMAGE, Architecture, Layer
from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec, Shapes, acceptable
from eigen_jax.strategies.config import EvolutionConfig
from eigen_jax.strategies.strategy import NONE, Population, Strategy

# Of an edge: channels, 0 for an identity; the logarithm of its stride to base 2; h of a kernel 2 h + 1 high, and wide;
# whether the vertex that it leads to is batch normalisation and ReLU, else linear; the number of both.
CHANNELS, STRIDE, HEIGHT, WIDTH, ACTIVATES, NUMBER = range(6)
LIMITS = ((1, 4_096), (0, 10), (0, 15), (0, 15))  # the least and the most that a layer can have of the first four
LEARNING_RATE = 0.1  # of the first population


@struct.dataclass
class Dna:
    """A backbone, whose edge i leads from vertex i, of which 0 is the image, to i + 1. G is `GenomeSpec.capacity`."""

    edges: Array  # [G, 6] int32, by the columns above; 0 past the last
    length: Array  # [] int32, edges of the backbone
    skips: Array  # [G, 2] int32, identity edges besides: from a vertex, to a later one; NONE: no edge
    inserted: Array  # [] int32, edges inserted into it and those whom it descends from; the number of the newest
    base: Array  # [] int32, what identities of weights count from: past those before the last reset
    learning_rate: Array  # [] float32


def _alter_learning_rate(key: Array, dna: Dna, widths: Array) -> tuple[Dna, bool]:
    factor = 2 ** jax.random.uniform(key, (), jnp.float32, -1, 1)
    return replace(dna, learning_rate=dna.learning_rate * factor), True


def _insert(key: Array, dna: Dna, widths: Array, *, convolves: bool) -> tuple[Dna, Array]:
    """An edge from a vertex to a new one, which takes its place on the backbone: skips stay with the old one."""
    keys, number = jax.random.split(key, 3), dna.inserted + 1
    site = jax.random.randint(keys[0], (), 0, dna.length + 1, jnp.int32)
    stride, activates = jax.random.bernoulli(keys[1]), jax.random.bernoulli(keys[2])
    values = (widths[site], stride, 1, 1) if convolves else (0, 0, 0, 0)
    edge = jnp.stack([jnp.asarray(value, jnp.int32) for value in (*values, activates, number)])
    edges = jnp.insert(dna.edges, site, edge, axis=0)[:-1]
    skips = jnp.where(dna.skips > site, dna.skips + 1, dna.skips)
    return replace(dna, edges=edges, length=dna.length + 1, skips=skips, inserted=number), dna.length < len(edges)


def _remove_convolution(key: Array, dna: Dna, widths: Array) -> tuple[Dna, Array]:
    """Its vertex goes with it: the skips that met there meet at the vertex before."""
    convolves = dna.edges[:, CHANNELS] > 0
    site = jax.random.categorical(key, jnp.log(convolves))
    rest = jnp.delete(dna.edges, site[None], axis=0, assume_unique_indices=True)
    edges, skips = jnp.pad(rest, ((0, 1), (0, 0))), jnp.where(dna.skips > site, dna.skips - 1, dna.skips)
    skips = jnp.where(skips[:, :1] == skips[:, 1:], NONE, skips)
    return replace(dna, edges=edges, length=dna.length - 1, skips=skips), convolves.any()


def _alter(
    key: Array, dna: Dna, widths: Array, *, columns: tuple[int, ...], around: Callable[[Array], tuple[Array, Array]]
) -> tuple[Dna, Array]:
    """A convolution with another value in one of the columns; `around` gives the least and the most, of the old one."""
    keys, convolves = jax.random.split(key, 3), dna.edges[:, CHANNELS] > 0
    site = jax.random.categorical(keys[0], jnp.log(convolves))
    column = jax.random.choice(keys[1], jnp.asarray(columns, jnp.int32))
    old, limits = dna.edges[site, column], jnp.asarray(LIMITS, jnp.int32)[column]
    new = _another(keys[2], old, *(jnp.clip(bound, *limits) for bound in around(old)))
    return replace(dna, edges=dna.edges.at[site, column].set(new)), convolves.any()


def _add_skip(key: Array, dna: Dna, widths: Array) -> tuple[Dna, Array]:
    key_one, key_other = jax.random.split(key)
    one, is_free = jax.random.randint(key_one, (), 0, dna.length + 1, jnp.int32), dna.skips[:, 0] == NONE
    skip = jnp.sort(jnp.stack([one, _another(key_other, one, 0, dna.length)]))
    return replace(dna, skips=dna.skips.at[is_free.argmax()].set(skip)), (dna.length > 0) & is_free.any()


def _remove_skip(key: Array, dna: Dna, widths: Array) -> tuple[Dna, Array]:
    is_there = dna.skips[:, 0] != NONE
    site = jax.random.categorical(key, jnp.log(is_there))
    return replace(dna, skips=dna.skips.at[site].set(NONE)), is_there.any()


def _another(key: Array, old: Array, least: Array | int, most: Array) -> Array:
    """An integer of these bounds but the old one, uniformly; [] int32, meaningless where there is none."""
    drawn = jax.random.randint(key, (), least, most, jnp.int32)
    return jnp.where(drawn >= old, drawn + 1, drawn)


# Each takes a key, a DNA and the channels of its vertices, [G + 1], and gives a child and whether it applies.
OPERATORS: Mapping[str, Callable[[Array, Dna, Array], tuple[Dna, Array | bool]]] = {
    "alter_learning_rate": _alter_learning_rate,
    "identity": lambda key, dna, widths: (dna, True),
    "reset_weights": lambda key, dna, widths: (replace(dna, base=dna.base + dna.inserted + 1), True),
    "insert_convolution": partial(_insert, convolves=True),
    "remove_convolution": _remove_convolution,
    "alter_stride": partial(_alter, columns=(STRIDE,), around=lambda log: (log - 1, log + 1)),
    "alter_number_of_channels": partial(_alter, columns=(CHANNELS,), around=lambda old: ((old + 1) // 2, 2 * old)),
    "filter_size": partial(_alter, columns=(HEIGHT, WIDTH), around=lambda half: ((half - 1) // 2, 2 * half + 1)),
    "insert_one_to_one": partial(_insert, convolves=False),
    "add_skip": _add_skip,
    "remove_skip": _remove_skip,
}


def mutate(key: Array, dna: Dna, *, spec: GenomeSpec) -> tuple[Dna, Array]:
    """A child, and the operator that made it, [] int32: the first of those drawn that applies and gives what fits."""

    def draw(carry: Any) -> Any:
        key_operator, key_child = jax.random.split(jax.random.fold_in(key, carry[0]))
        operator = jax.random.randint(key_operator, (), 0, len(OPERATORS), jnp.int32)
        child, applies = lax.switch(operator, list(OPERATORS.values()), key_child, dna, _widths(dna, spec))
        return carry[0] + 1, child, operator, applies & _fits(child, spec)

    start = jnp.int32(0), dna, jnp.int32(0), jnp.bool_(False)
    return lax.while_loop(lambda carry: ~carry[-1], draw, start)[1:3]  # which ends: some leave the network as it is


def _widths(dna: Dna, spec: GenomeSpec) -> Array:
    """The channels of each vertex, [G + 1] int32: those of the last convolution before it, or of the image."""
    channels = jnp.concatenate([jnp.full(1, spec.input_shape[2], jnp.int32), dna.edges[:, CHANNELS]])
    return channels[lax.cummax(jnp.where(channels > 0, jnp.arange(len(channels), dtype=jnp.int32), 0))]


def _fits(dna: Dna, spec: GenomeSpec) -> Array:
    """Whether no 1 x 1 map is divided, and the bounds of the search space hold, with FLOPs on padding; [] bool."""
    convolves, strides, is_skip = dna.edges[:, CHANNELS] > 0, dna.edges[:, STRIDE], dna.skips[:, 0] != NONE
    layers = jnp.concatenate([convolves, dna.edges[:, ACTIVATES] > 0, is_skip, is_skip.any()[None]])
    levels, maps = jnp.cumsum(strides), _widths(dna, spec)
    is_sound = ((strides == 0) | (levels - strides < spec.max_level)).all() & (layers.sum() <= spec.capacity)
    heights, widths, activates = dna.edges[:, (HEIGHT, WIDTH, ACTIVATES)].T.astype(jnp.float32)
    wide, pixels = maps.astype(jnp.float32), jnp.asarray([h * w for h, w in spec.sizes], jnp.float32)
    kernels = jnp.where(convolves, wide[:-1] * wide[1:] * (2 * heights + 1) * (2 * widths + 1), 0)
    features = wide[dna.length] * spec.num_classes
    parameters = kernels.sum() + 2 * (activates * wide[1:]).sum() + features + spec.num_classes
    flops = 2 * ((kernels * pixels[jnp.minimum(levels, spec.max_level)]).sum() + features)
    return acceptable(Shapes(levels, maps[1:], parameters, flops, is_sound), spec=spec)


@struct.dataclass
class LargeScaleState:
    """A search between two children. A is `EvolutionConfig.ahead`, N `EvolutionConfig.population_size`."""

    generation: Array  # [] int32, children measured so far
    individuals: Population  # [N], of `Dna`: empty places, then the living, the oldest first, then A in training
    fitness: Array  # [N] float32, -inf for failures


@dataclass(frozen=True, kw_only=True)
class LargeScaleEvolution(Strategy):
    """Large-Scale Evolution (Real et al., ICML 2017), with `ahead` children in training at a time.

    Exact: the first `population_size` are single layers without convolution. Then two of the living are drawn: the
    worse is killed at once, the better stays, and its copy has one of eleven mutations and is trained. Edges are
    convolutions or identities, vertices batch normalisation and ReLU, or linear; where edges meet, one that is no skip
    is primary, and the others are resized to it by zeroth-order interpolation and added. A new convolution is 3 x 3, as
    wide as its input, of stride 1 or 2; filter sizes are odd, strides powers of two. Layers keep their weights where
    all shapes match, so an individual's own weights are the result: it takes no final training (--final-steps 0).

    Decided: child n is bred when those up to n - `ahead` are measured. Operators are drawn uniformly, and again where
    one does not apply or breaks a bound of the search space. Of equals, failures too, the first drawn breeds; children
    of failures start from scratch. The first rate is 0.1; a DNA's is constant in training, whose momentum starts anew
    and whose other settings are the run's. Rates become half to twice what they were, on a log scale; channels and
    filter sizes too, the latter rounded outwards; the log of a stride one more or less; none as it was. Edges are
    inserted behind any vertex of the backbone, skips between any two, also again. A convolution goes with the vertex
    that it leads to, whose skips are then those of the vertex before. RESET-WEIGHTS includes the classifier.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config.ahead >= self.config.population_size:
            rule = "{ahead} is {}; it must be less than {population_size}, which is {}, so that two live to compete"
            raise ConfigError(EvolutionConfig, rule, self.config.ahead, self.config.population_size)

    def genesis(self) -> LargeScaleState:
        size, edges, zero = self.config.population_size, jnp.zeros((self.spec.capacity, 6), jnp.int32), jnp.int32(0)
        scalars = {**dict.fromkeys(("length", "inserted", "base"), zero), "learning_rate": jnp.float32(LEARNING_RATE)}
        first = Dna(edges=edges, skips=jnp.full_like(edges[:, :2], NONE), **scalars)
        # A step moves all up by one place, and fills the last.
        number = jnp.arange(size, dtype=jnp.int32)[:, None] - (size - self.config.ahead + 1)
        is_bred = (number >= 0) & (number < self.config.max_children)
        individuals = Population(
            genomes=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), first),
            places=jnp.where(is_bred, jnp.pad(number, ((0, 0), (0, 1))), NONE),
            parents=jnp.full((size, 1, 2), NONE, jnp.int32),
            operators=jnp.zeros((size, len(OPERATORS)), jnp.int32),
            repeats=jnp.ones((size, self.spec.max_level + 1), jnp.int32),
        )
        return LargeScaleState(jnp.int32(NONE), individuals, jnp.full(size, -jnp.inf, jnp.float32))

    def population(self, state: LargeScaleState) -> Population:
        return jax.tree.map(lambda leaf: leaf[-self.config.ahead :], state.individuals)

    def step(self, key: Array, state: LargeScaleState, fitness: Array) -> LargeScaleState:
        config, everybody, keys = self.config, state.individuals, jax.random.split(key, 3)
        due, number = config.population_size - config.ahead, state.generation + config.ahead
        is_bred, competes = number < config.max_children, number >= config.population_size
        known = state.fitness.at[due].set(fitness[0, 0, 0])
        alive = (everybody.places[: due + 1, 0] != NONE).sum(dtype=jnp.int32)
        one = jax.random.randint(keys[0], (), 0, jnp.maximum(alive, 1), jnp.int32)
        pair = due + 1 - alive + jnp.stack([one, _another(keys[1], one, 0, alive - 1)])
        pair = jnp.where(known[pair[0]] < known[pair[1]], pair[::-1], pair)
        # While the first population is bred, the first place is empty: it has the first DNA, and gives way.
        better, worse = jnp.where(competes, pair, 0)
        parent = jax.tree.map(lambda leaf: leaf[better], everybody)
        dna, operator = mutate(keys[2], parent.genomes, spec=self.spec)
        child = Population(
            genomes=jax.tree.map(partial(jnp.where, competes), dna, parent.genomes),
            places=jnp.where(is_bred, jnp.stack([number, jnp.int32(0)]), NONE),
            parents=jnp.where(is_bred, parent.places, NONE)[None],
            operators=(competes & (jnp.arange(len(OPERATORS)) == operator)).astype(jnp.int32),
            repeats=parent.repeats,
        )
        rest = jnp.delete(jnp.arange(config.population_size, dtype=jnp.int32), worse[None], assume_unique_indices=True)
        old, new = (everybody, known), (child, jnp.float32(-jnp.inf))
        everybody, known = jax.tree.map(lambda old, new: jnp.concatenate([old[rest], new[None]]), old, new)
        return LargeScaleState(state.generation + 1, everybody, known)

    def operator_names(self) -> tuple[str, ...]:
        return tuple(OPERATORS)

    def decode(self, genome: Dna) -> Architecture:
        return Architecture(input_shape=self.spec.input_shape, layers=tuple(layer for layer, _ in _layers(genome)))

    def identities(self, genome: Dna) -> tuple[int, ...]:
        return *(identity for _, identity in _layers(genome)), 2 * int(genome.base)

    def training(self, genome: Dna) -> Mapping[str, Any]:
        # The shortest number that is the same in float32.
        return {"learning_rate": float(str(genome.learning_rate)), "schedule": "constant", "decay_rate": 1.0}

    def ancestors(self, state: LargeScaleState) -> Array:
        is_over = state.generation + self.config.ahead >= self.config.max_children
        return jnp.where(is_over, NONE, state.individuals.places[: -self.config.ahead])

    def phase(self, state: LargeScaleState) -> str:
        return "initial" if state.generation < self.config.population_size else "pairs"

    def title(self, state: LargeScaleState) -> str:
        return f"Large-scale evolution: {self.phase(state)}"


def _layers(dna: Dna) -> list[tuple[Layer, int]]:
    """The layers of a network, in the order of its `Architecture`, and the identities of their weights."""
    layers: list[tuple[Layer, int]] = []

    def put(identity: int, op: str, *inputs: int, **choices: Any) -> int:
        layers.append((Layer(op=op, inputs=inputs, **choices), identity))
        return len(layers) - 1

    base, skips = int(dna.base), sorted(skip for skip in dna.skips.tolist() if skip[0] != NONE)
    maps = [put(NONE, "vertex", IMAGE, activation="linear") if skips else IMAGE]  # as sums cannot read the image
    for channels, stride, height, width, activates, number in dna.edges[: int(dna.length)].tolist():
        read, vertex = maps[-1], len(maps)
        if channels:
            sides = {"kernel_height": 2 * height + 1, "kernel_width": 2 * width + 1}
            read = put(2 * (base + number), "linear_conv", read, channels=channels, stride=1 << stride, **sides)
        for source in (source for source, target in skips if target == vertex):
            read = put(NONE, "add_resized", read, maps[source])
        maps.append(put(2 * (base + number) + 1, "vertex", read, activation="norm_relu") if activates else read)
    return layers
