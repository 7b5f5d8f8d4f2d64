"""How those strategies breed whose children have one parent each: by walks of mutation steps."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from eigen_jax.genome import Genome, GenomeSpec, minimal_genome
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


def offspring(key: Array, parents: Parents, places: Array, *, spec: GenomeSpec, config: EvolutionConfig) -> Population:
    """One child of each of P parents, for the places, [P, 2] int32, of which NONE are left empty.

    A child is a `walk` of up to `primary_steps` from the global-pooling network, and of up to `secondary_steps` from
    any other parent. Child i draws from `fold_in(key, i)`.
    """
    most_steps = jnp.where(parents.places[:, 0] == NONE, config.primary_steps, config.secondary_steps)
    most_steps = jnp.where(places[:, 0] == NONE, 0, most_steps)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(places), dtype=jnp.int32))
    genomes, _, trace = jax.vmap(functools.partial(walk, spec=spec))(keys, parents.genomes, most_steps)
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
