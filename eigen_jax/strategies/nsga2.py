"""NSGA-II: several objectives at once, by Pareto fronts and crowding."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from eigen_jax.strategies.breeding import Parents, global_pooling, join, nobody, offspring, pick, places_of
from eigen_jax.strategies.strategy import NONE, Population, Strategy


def front_ranks(fitness: Array) -> Array:
    """The Pareto front of each of N individuals, [N] int32, 0 for those whom nobody dominates (non-dominated sorting).

    `fitness` is [N, M] float32, more is better. Failures, where an objective is not finite, are the last front.
    """
    values = jnp.where(_is_measured(fitness), fitness, -jnp.inf)
    first, second = values[:, None], values[None]
    dominates = (first >= second).all(axis=-1) & (first > second).any(axis=-1)

    def peel(carry):
        ranks, left, rank = carry
        front = left & ~(left[:, None] & dominates).any(axis=0)
        return jnp.where(front, rank, ranks), left & ~front, rank + 1

    start = jnp.zeros(len(values), jnp.int32), jnp.ones(len(values), bool), jnp.int32(0)
    return lax.while_loop(lambda carry: carry[1].any(), peel, start)[0]


def crowding_distance(fitness: Array, ranks: Array) -> Array:
    """How far the neighbours of each individual in its front lie apart, [N] float32; infinite at the front's ends.

    It is the sum over the objectives of the difference between the next higher and the next lower fitness of the
    front, over the front's range. Of equals the first has the neighbours that it would have alone, and the others are
    at no distance from it. Failures are equals. `fitness` is [N, M] float32, `ranks` its `front_ranks`.
    """
    # Halved, no two values differ by more than a float32 holds.
    values = jnp.where(_is_measured(fitness), fitness, 0) / 2
    return jax.vmap(_gaps, (1, None))(jnp.concatenate([values, -values], axis=1), ranks).sum(axis=0)


def _gaps(values: Array, ranks: Array) -> Array:
    """From the next lower value of the front up to each, [N], over the front's range; infinite for the lowest."""
    number = len(values)
    highest, lowest = (reduce(values, ranks, number) for reduce in (jax.ops.segment_max, jax.ops.segment_min))
    order = jnp.lexsort((values, ranks))  # stable: of equals the first is the nearest to the lower ones
    ordered, fronts = values[order], ranks[order]
    span = (highest - lowest)[fronts]
    gaps = (ordered - jnp.roll(ordered, 1)) / jnp.where(span > 0, span, 1)
    begins = jnp.append(True, fronts[1:] != fronts[:-1])
    return jnp.zeros_like(values).at[order].set(jnp.where(begins, jnp.inf, gaps))


def _is_measured(fitness: Array) -> Array:
    """[N, 1] bool."""
    return jnp.isfinite(fitness).all(axis=1, keepdims=True)


@struct.dataclass
class Nsga2State:
    generation: Array  # [] int32, of the population
    population: Population  # [P], lambda children
    elite: Parents  # [P], mu: the best of all who were measured; until there are P, with the global-pooling network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nsga2(Strategy):
    """NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation, 2002), mu = lambda = `population_size`.

    The best of the elite and its children are the next elite: by `front_ranks`, then by `crowding_distance`, then the
    older. Each child's parent is the better of two of the elite, drawn with replacement. Children are made by mutation
    alone, since the crossover of two graphs has no meaning that the paper or the field agrees upon: by walks of 1 to
    `secondary_steps` steps; the first ones, and those of the global-pooling network, by walks of 1 to `primary_steps`.
    """

    max_objectives: ClassVar[int | None] = None

    def genesis(self) -> Nsga2State:
        size = self.config.population_size
        return Nsga2State(
            generation=jnp.asarray(NONE, jnp.int32),
            population=nobody(size, spec=self.spec),
            elite=global_pooling(size, spec=self.spec, objectives=self.objectives),
        )

    def step(self, key: Array, state: Nsga2State, fitness: Array) -> Nsga2State:
        key_tournament, key_breed = jax.random.split(key)
        size, generation = self.config.population_size, state.generation + 1
        rivals = join(state.elite, state.population, fitness[:, 0])
        ranks = front_ranks(rivals.fitness)
        best = jnp.lexsort((-crowding_distance(rivals.fitness, ranks), ranks))[:size]
        # The best come first, so the lower of two positions wins.
        winners = jax.random.randint(key_tournament, (size, 2), 0, size, jnp.int32).min(axis=1)
        places = places_of(generation, config=self.config)
        children = offspring(key_breed, pick(rivals, best[winners]), places, spec=self.spec, config=self.config)
        return Nsga2State(generation=generation, population=children, elite=pick(rivals, best.sort()))

    def title(self, state: Nsga2State) -> str:
        size, most_steps = self.config.population_size, self.config.secondary_steps
        return f"NSGA-II: the better of two of the best {size}, up to {most_steps} mutation steps a child"
