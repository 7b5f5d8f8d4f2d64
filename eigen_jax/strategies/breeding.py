"""How those strategies breed whose children have one parent each: by walks of mutation steps."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from eigen_jax.genome import Genome, GenomeSpec, canonical, infer_shapes, minimal_genome
from eigen_jax.mutation import MutationTrace, mutate, operator_names
from eigen_jax.strategies.config import EvolutionConfig
from eigen_jax.strategies.strategy import NONE, Population


@struct.dataclass
class Parents:
    """The N who may breed, the oldest first. Before anybody is measured, they are the global-pooling network."""

    genomes: Genome  # [N, ...]
    places: Array  # [N, 2] int32, generation and index; NONE: the global-pooling network
    fitness: Array  # [N, M] float32, -inf in all objectives for failures and for the global-pooling network


def walk(key: Array, genome: Genome, most_steps: Array, *, spec: GenomeSpec) -> tuple[Genome, Array, MutationTrace]:
    """A child of a genome, [G] genes, by mutation steps drawn uniformly from {1, ..., m = `most_steps`, [] int32}.

    Gives the child, the steps drawn, [] int32, and what they did. With m = 0 there are none.
    """
    key_steps, key_mutation = jax.random.split(key)
    steps = jax.random.randint(key_steps, (), jnp.minimum(1, most_steps), most_steps + 1, jnp.int32)
    child, trace = mutate(key_mutation, genome, steps, spec=spec)
    return child, steps, trace


def bear(
    key: Array, parents: Genome, most_steps: Array, *, slots: int, spec: GenomeSpec, config: EvolutionConfig
) -> tuple[Genome, Array, MutationTrace]:
    """P = `slots` children as `walk` gives them, [P] each; of no steps, the parent itself, for a slot left empty.

    `parents` are [P, ...] and `most_steps` [P] int32, or one of both for all. Of C `candidates` for each place, i,
    P + i, ... of P * C, the deepest by `count_spatial` is taken, the first of equals. Candidate j draws from
    `fold_in(key, j)`, and again, for the n-th time, from `fold_in(key, n * P * C + j)`. Each takes its first draw that
    has the FLOPs of `min_flops_share` and is another network than its parent and than all who were taken before it: in
    earlier rounds of draws, or in its own at a lower index. After `redraws` it takes the last one, and stands behind
    all candidates that found better.
    """
    if config.candidates == 1:
        return _acceptable(key, parents, most_steps, slots, spec, config)[0]
    if most_steps.ndim:
        parents, most_steps = jax.tree.map(
            lambda leaf: jnp.tile(leaf, (config.candidates, *[1] * (leaf.ndim - 1))), (parents, most_steps)
        )
    born, good = _acceptable(key, parents, most_steps, slots * config.candidates, spec, config)
    depth = jax.vmap(functools.partial(count_spatial, spec=spec))(born[0])
    rank = jnp.where(good, depth, depth - spec.capacity - 1)
    taken = rank.reshape(config.candidates, slots).argmax(axis=0) * slots + jnp.arange(slots)
    return jax.tree.map(lambda leaf: leaf[taken], born)


def count_spatial(genome: Genome, *, spec: GenomeSpec) -> Array:
    """Layers with weights whose kernel has more than one pixel, [] int32: how deep a network is, at no cost.

    Of random networks, it ranks those that train well about as well as a short training does; as number of parameters
    and FLOPs, it is one of the proxies that cost nothing (White et al., "A Deeper Look at Zero-Cost Proxies for
    Lightweight NAS", 2022).
    """
    live, total = jnp.arange(genome.capacity) < genome.length, jnp.int32(0)
    for code, kind in enumerate(spec.ops, start=1):
        if kind.parameters is not None and "kernel" in spec.options[kind.name]:
            sides = jnp.asarray(spec.options[kind.name]["kernel"], jnp.int32)[genome.choices["kernel"]]
            total += (live & (genome.op == code) & (sides > 1)).sum(dtype=jnp.int32)
    return total


def _acceptable(
    key: Array, parents: Genome, most_steps: Array, slots: int, spec: GenomeSpec, config: EvolutionConfig
) -> tuple[tuple[Genome, Array, MutationTrace], Array]:
    """P candidates, and whether each is one to be taken, [P] bool; see `bear`."""
    index = jnp.arange(slots, dtype=jnp.int32)
    if config.redraws == 0:
        return _draw(key, index, parents, most_steps, spec), jnp.ones(slots, bool)
    if most_steps.ndim == 0:
        parents, most_steps = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (slots, *leaf.shape)), (parents, most_steps)
        )
    own, is_empty = jax.vmap(canonical)(parents), most_steps == 0

    def redraw(carry):
        children, taken, number = carry
        drawn = _draw(key, index + number * slots, parents, jnp.where(taken, 0, most_steps), spec)
        children = jax.tree.map(functools.partial(jax.vmap(jnp.where), taken), children, drawn)
        forms = jax.vmap(canonical)(children[0])
        same = jax.vmap(jax.vmap(_are_equal, (None, 0)), (0, None))(forms, forms)
        good = ~taken & ~_are_hopeless(children[0], spec, config) & ~jax.vmap(_are_equal)(forms, own)
        good &= ~(same & (taken & ~is_empty)[None]).any(axis=1)
        # Of those of a round that are equal, the first one is taken.
        good &= ~(same & good[None] & (index[None] < index[:, None])).any(axis=1)
        return children, taken | good, number + 1

    def goes_on(carry):
        return (carry[2] <= config.redraws) & ~carry[1].all()

    # The first draw is a round like the others, so that the chain of mutations is compiled once.
    nothing = MutationTrace(jnp.zeros((slots, len(operator_names(spec))), jnp.int32))
    start = (parents, jnp.zeros_like(most_steps), nothing), is_empty, jnp.int32(0)
    return lax.while_loop(goes_on, redraw, start)[:2]


def _draw(
    key: Array, numbers: Array, parents: Genome, most_steps: Array, spec: GenomeSpec
) -> tuple[Genome, Array, MutationTrace]:
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    each = 0 if most_steps.ndim else None
    return jax.vmap(functools.partial(walk, spec=spec), (0, each, each))(keys, parents, most_steps)


def _are_hopeless(genomes: Genome, spec: GenomeSpec, config: EvolutionConfig) -> Array:
    """[P] bool."""
    infer = functools.partial(infer_shapes, spec=spec, bound=genomes.length.max())
    return jax.vmap(infer)(genomes).flops < config.min_flops_share * spec.max_flops


def _are_equal(one: Genome, other: Genome) -> Array:
    """Whether all arrays are equal; [] bool."""
    equal = jax.tree.map(lambda *leaves: (leaves[0] == leaves[1]).all(), one, other)
    return jnp.stack(jax.tree.leaves(equal)).all()


def offspring(key: Array, parents: Parents, places: Array, *, spec: GenomeSpec, config: EvolutionConfig) -> Population:
    """One child of each of P parents, for the places, [P, 2] int32, of which NONE are left empty.

    A child is a `walk` of up to `primary_steps` from the global-pooling network, and of up to `secondary_steps` from
    any other parent, drawn as `bear` tells.
    """
    most_steps = jnp.where(parents.places[:, 0] == NONE, config.primary_steps, config.secondary_steps)
    most_steps = jnp.where(places[:, 0] == NONE, 0, most_steps)
    genomes, _, trace = bear(key, parents.genomes, most_steps, slots=len(places), spec=spec, config=config)
    repeats = jnp.ones((len(places), spec.max_level + 1), jnp.int32)
    return Population(genomes, places, parents.places[:, None], trace.counts, repeats)


def places_of(generation: Array, *, config: EvolutionConfig) -> Array:
    """The places of a generation's children, [P, 2] int32; NONE for those past the last of `max_children`."""
    index = jnp.arange(config.population_size, dtype=jnp.int32)
    places = jnp.stack(jnp.broadcast_arrays(generation, index), axis=1)
    is_bred = generation * config.population_size + index < config.max_children
    return jnp.where(is_bred[:, None], places, NONE)


def join(parents: Parents, population: Population, fitness: Array) -> Parents:
    """The parents, and behind them a population whose fitness, [P, M], is known now; [N + P]."""
    measured = jnp.isfinite(fitness).all(axis=1, keepdims=True)
    newer = Parents(population.genomes, population.places, jnp.where(measured, fitness, -jnp.inf))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), parents, newer)


def pick(parents: Parents, indices: Array) -> Parents:
    """Those at the indices, [N] int32, any of them as often as it is there."""
    return jax.tree.map(lambda leaf: leaf[indices], parents)


def nobody(slots: int, *, spec: GenomeSpec) -> Population:
    """A population of empty slots, [P]."""
    return Population(
        genomes=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (slots, *leaf.shape)), minimal_genome(spec)),
        places=jnp.full((slots, 2), NONE, jnp.int32),
        parents=jnp.full((slots, 1, 2), NONE, jnp.int32),
        operators=jnp.zeros((slots, len(operator_names(spec))), jnp.int32),
        repeats=jnp.ones((slots, spec.max_level + 1), jnp.int32),
    )


def global_pooling(number: int, *, spec: GenomeSpec, objectives: int = 1) -> Parents:
    """The network that a search starts from, [N] times."""
    empty = nobody(number, spec=spec)
    return Parents(empty.genomes, empty.places, jnp.full((number, objectives), -jnp.inf, jnp.float32))
