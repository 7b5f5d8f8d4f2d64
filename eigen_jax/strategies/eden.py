"""EDEN: chains of layers, each with a learning rate of its own, by tournaments and mutation alone.

Dimension letters are as in `strategy`, and G is `GenomeSpec.capacity`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from eigen_jax.architecture import Architecture, Layer
from eigen_jax.genome import GenomeSpec, Shapes, acceptable
from eigen_jax.mutation.selection import uniform_index
from eigen_jax.strategies.breeding import nobody, places_of
from eigen_jax.strategies.strategy import NONE, Population, Strategy

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "linear")
# The genes of a layer of each kind, the choices of that kind, and their values.
GENES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "plain_conv": {"channels": range(10, 101), "kernel": range(1, 7), "activation": _ACTIVATIONS},
    "pool_any": {"side": range(1, 7)},
    "dense": {"units": range(10, 101), "activation": _ACTIVATIONS},
    "dropout": {"rate": tuple(tenths / 10 for tenths in range(1, 10))},
}
KIND_NAMES = tuple(GENES)  # of the codes from 1
CONV, POOL, DENSE = (1 + KIND_NAMES.index(name) for name in ("plain_conv", "pool_any", "dense"))
LEARNING_RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
OPERATOR_NAMES = ("add_layer", "remove_layer", "replace_layer", "change_gene", "change_learning_rate")
ADD, CHANGE_RATE = OPERATOR_NAMES.index("add_layer"), OPERATOR_NAMES.index("change_learning_rate")
MOST_FIRST_LAYERS = 6  # of an individual that has no parent
MAX_DRAWS = 100  # of mutations for one child; only bounds that leave hardly any network come near it


def _table(of_gene: Callable[[Sequence[Any]], int], missing: int) -> np.ndarray:
    """[5, 3] int32, of each code and gene; code 0 is no layer."""
    rows = ((), *(tuple(map(of_gene, genes.values())) for genes in GENES.values()))
    return np.array([[*row, *[missing] * (3 - len(row))] for row in rows], np.int32)


_COUNTS = _table(len, missing=1)  # of values
_FIRST = _table(lambda values: getattr(values, "start", 0), missing=0)  # the number that index 0 stands for
_NUMBER = np.array([0, *map(len, GENES.values())], np.int32)  # of genes, [5]


@struct.dataclass
class Chain:
    """A genome: layers, each of which reads the one before it, and the learning rate that they are trained with."""

    layers: Array  # [G, 4] int32, code of a kind and indices of the values of its genes; 0 past the end, and for none
    rate: Array  # [] int32, index of a learning rate


@struct.dataclass
class EdenState:
    generation: Array  # [] int32, of the population
    population: Population  # [P], of Chains


def draw_layer(words: Array) -> Array:
    """A layer of a uniformly drawn kind, with uniformly drawn genes; [4] int32 of [4] uint32, random."""
    kind = 1 + uniform_index(words[0], jnp.int32(len(GENES)))
    return jnp.append(kind, uniform_index(words[1:], jnp.asarray(_COUNTS)[kind]))


def mutate(words: Array, chain: Chain, operator: Array) -> tuple[Chain, Array]:
    """The mutant by an operator, [] int32, and whether there is something to apply it to, [] bool.

    Where is drawn uniformly, and what as well: a layer by `draw_layer`, or another value than it was. `words`,
    [7] uint32, are random.
    """
    layers, length = chain.layers, (chain.layers[:, 0] > 0).sum(dtype=jnp.int32)
    site = uniform_index(words[0], jnp.where(operator == ADD, length + 1, length))
    new, here, nothing = draw_layer(words[1:5]), layers[site], jnp.zeros((1, 4), jnp.int32)
    gene = uniform_index(words[5], jnp.asarray(_NUMBER)[here[0]])
    value = _another(words[6], here[1 + gene], jnp.asarray(_COUNTS)[here[0], gene])
    place = jnp.arange(len(layers), dtype=jnp.int32)[:, None]
    later, earlier = jnp.concatenate([nothing, layers[:-1]]), jnp.concatenate([layers[1:], nothing])
    mutants = jnp.stack(
        [
            jnp.where(place > site, later, layers).at[site].set(new),
            jnp.where(place < site, layers, earlier),
            layers.at[site].set(new),
            layers.at[site, 1 + gene].set(value),
            layers,
        ]
    )
    rate = jnp.where(
        operator == CHANGE_RATE, _another(words[6], chain.rate, jnp.int32(len(LEARNING_RATES))), chain.rate
    )
    has_site = jnp.where(operator == ADD, length < len(layers), (length > 0) | (operator == CHANGE_RATE))
    return Chain(mutants[operator], rate), has_site


def _another(word: Array, index: Array, count: Array) -> Array:
    """An index below `count`, at least 2, other than this one, drawn uniformly; [] int32."""
    return (index + 1 + uniform_index(word, count - 1)) % count


def is_network(layers: Array, *, spec: GenomeSpec) -> Array:
    """Whether the layers of a chain, [G, 4] int32, make sense and keep the bounds of the search space; [] bool.

    Convolutions and pools make no sense of a 1 x 1 map, which a dense layer gives. In FLOPs, a convolution has all its
    taps at every pixel, so that no network exceeds the bound.
    """

    def visit(carry, layer):
        size, channels, parameters, flops, makes_sense = carry
        kind, numbers = layer[0], layer[1:] + jnp.asarray(_FIRST)[layer[0]]
        is_conv, is_pool, is_dense = kind == CONV, kind == POOL, kind == DENSE
        makes_sense &= ~(is_conv | is_pool) | (size > 1).any()
        pixels, (width, kernel) = size.prod().astype(jnp.float32), numbers[:2].astype(jnp.float32)
        weights = jnp.where(is_dense, pixels, kernel * kernel) * channels  # of each of its output channels
        has_weights = is_conv | is_dense
        parameters += jnp.where(has_weights, (weights + 1) * width, 0)
        flops += jnp.where(has_weights, 2 * weights * width * jnp.where(is_dense, 1, pixels), 0)
        divided = -(-size // jnp.where(is_pool, numbers[0], 1))
        size = jnp.where(is_dense, 1, divided)
        return (size, jnp.where(has_weights, width, channels), parameters, flops, makes_sense), None

    height, width, channels = spec.input_shape
    zero = jnp.zeros((), jnp.float32)
    start = jnp.array([height, width], jnp.int32), jnp.float32(channels), zero, zero, jnp.ones((), bool)
    (_, features, parameters, flops, makes_sense), _ = lax.scan(visit, start, layers)
    shapes = Shapes(
        level=None,  # type: ignore[arg-type]  # which are not looked at
        width=None,  # type: ignore[arg-type]
        parameters=parameters + (features + 1) * spec.num_classes,
        flops=flops + 2 * features * spec.num_classes,
        consistent=makes_sense,
    )
    return acceptable(shapes, spec=spec)


def bear(words: Array, parent: Chain, is_new: Array, *, spec: GenomeSpec) -> tuple[Chain, Array]:
    """A child of a parent by one mutation or, with `is_new`, [] bool, a random chain; and its operators, [O] int32.

    A random chain is global pooling with a uniformly drawn learning rate and 1 to `MOST_FIRST_LAYERS` layers added. The
    operator of a mutation is drawn uniformly; one that has no site, or gives no network, is drawn again and does not
    count. `words`, [1 + `MAX_DRAWS`, 8] uint32, are random: for the beginning, and for each draw.
    """
    steps = jnp.where(is_new, 1 + uniform_index(words[0, 0], jnp.int32(MOST_FIRST_LAYERS)), 1)
    pooling = Chain(jnp.zeros_like(parent.layers), uniform_index(words[0, 1], jnp.int32(len(LEARNING_RATES))))
    start = jax.tree.map(functools.partial(jnp.where, is_new), pooling, parent)

    def attempt(carry):
        chain, counts, draw = carry
        own = words[1 + draw]
        operator = jnp.where(is_new, ADD, uniform_index(own[0], jnp.int32(len(OPERATOR_NAMES))))
        mutant, has_site = mutate(own[1:], chain, operator)
        accepted = has_site & is_network(mutant.layers, spec=spec)
        chain = jax.tree.map(functools.partial(jnp.where, accepted), mutant, chain)
        return chain, counts.at[operator].add(accepted.astype(jnp.int32)), draw + 1

    def goes_on(carry):
        return (carry[1].sum() < steps) & (carry[2] < MAX_DRAWS)

    nothing = jnp.zeros(len(OPERATOR_NAMES), jnp.int32)
    return lax.while_loop(goes_on, attempt, (start, nothing, jnp.int32(0)))[:2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eden(Strategy):
    """EDEN (Dufourq & Bassett, "EDEN: Evolutionary Deep Networks for Efficient Machine Learning", 2017).

    A generation of `population_size` children replaces the one before. The parent of each is the fittest of
    `sample_size` individuals of that, drawn with replacement, of equals the one drawn first; where all of them failed,
    the child is a random chain, as in the first generation. See `bear` for both. Of the search space, images, classes,
    capacity and bounds count, and not the kinds.

    Exact: as the abstract says, architectures evolve together with hyper-parameters of their training, here the
    learning rate; layers are convolutions, max pools and dense layers (of its layers, those for text are left out).

    Decided: since the paper's text was not at hand, all else. A genome is a chain, of all of `GENES`, dropout among
    them, without batch normalisation; one of `LEARNING_RATES` is Adam's, under the schedule and weight decay of the
    run; first come random chains; each of five operators is as likely, one a child; tournaments are of 3, and there is
    no elitism. The paper's scale is taken to be `population_size` 100, `max_children` 1,000 and three epochs to the
    last landmark. A mutation that breaks a bound, or lets a convolution or a pool read a 1 x 1 map, such as a dense
    layer's, is drawn again.
    """

    within_population = ("sample_size",)

    def genesis(self) -> EdenState:
        size = self.config.population_size
        chains = Chain(jnp.zeros((size, self.spec.capacity, 4), jnp.int32), jnp.zeros(size, jnp.int32))
        population = dataclasses.replace(
            nobody(size, spec=self.spec),
            genomes=chains,
            operators=jnp.zeros((size, len(OPERATOR_NAMES)), jnp.int32),
        )
        return EdenState(jnp.asarray(NONE, jnp.int32), population)

    def step(self, key: Array, state: EdenState, fitness: Array) -> EdenState:
        key_tournament, key_breed = jax.random.split(key)
        size, generation = self.config.population_size, state.generation + 1
        values = jnp.where(jnp.isfinite(fitness[:, 0, 0]), fitness[:, 0, 0], -jnp.inf)
        rivals = jax.random.randint(key_tournament, (size, self.config.sample_size), 0, size, jnp.int32)
        winners = jnp.take_along_axis(rivals, values[rivals].argmax(axis=1)[:, None], axis=1)[:, 0]
        is_new, places = jnp.isneginf(values[winners]), places_of(generation, config=self.config)
        words = jax.random.bits(key_breed, (size, 1 + MAX_DRAWS, 8), jnp.uint32)
        parents = jax.tree.map(lambda leaf: leaf[winners], state.population.genomes)
        chains, counts = jax.vmap(functools.partial(bear, spec=self.spec))(words, parents, is_new)
        of_nobody = is_new | (places[:, 0] == NONE)
        population = dataclasses.replace(
            state.population,
            genomes=chains,
            places=places,
            parents=jnp.where(of_nobody[:, None], NONE, state.population.places[winners])[:, None],
            operators=counts,
        )
        return EdenState(generation, population)

    def phase(self, state: EdenState) -> str:
        return "tournament" if state.generation > 0 else "initial"

    def title(self, state: EdenState) -> str:
        if state.generation == 0:
            return f"EDEN: random chains of up to {MOST_FIRST_LAYERS} layers"
        return f"EDEN: a mutation of the fittest of {self.config.sample_size} of the generation before"

    def operator_names(self) -> tuple[str, ...]:
        return OPERATOR_NAMES

    def decode(self, genome: Chain) -> Architecture:
        layers = []
        for position, (code, *indices) in enumerate(genome.layers[genome.layers[:, 0] > 0].tolist()):
            genes = GENES[KIND_NAMES[code - 1]].items()
            values = {name: options[index] for (name, options), index in zip(genes, indices, strict=False)}
            layers.append(Layer(op=KIND_NAMES[code - 1], inputs=(position - 1,), **values))
        return Architecture(input_shape=self.spec.input_shape, layers=tuple(layers))

    def training(self, genome: Chain) -> Mapping[str, Any]:
        return {"learning_rate": LEARNING_RATES[int(genome.rate)], "optimizer": "adam"}
