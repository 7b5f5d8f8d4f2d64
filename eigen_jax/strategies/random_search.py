"""Random search: what every strategy must beat."""

import dataclasses

import jax.numpy as jnp
from flax import struct
from jax import Array

from eigen_jax.strategies.breeding import global_pooling, nobody, offspring, places_of
from eigen_jax.strategies.strategy import NONE, Population, Strategy


@struct.dataclass
class RandomSearchState:
    generation: Array  # [] int32, of the population
    population: Population  # [P]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomSearch(Strategy):
    """Each child by itself: a walk of 1 to `primary_steps` mutation steps from the global-pooling network."""

    def genesis(self) -> RandomSearchState:
        population = nobody(self.config.population_size, spec=self.spec)
        return RandomSearchState(generation=jnp.asarray(NONE, jnp.int32), population=population)

    def step(self, key: Array, state: RandomSearchState, fitness: Array) -> RandomSearchState:
        generation, config = state.generation + 1, self.config
        starts = global_pooling(config.population_size, spec=self.spec)
        children = offspring(key, starts, places_of(generation, config=config), spec=self.spec, config=config)
        return RandomSearchState(generation=generation, population=children)

    def phase(self, state: RandomSearchState) -> str:
        return "random"

    def title(self, state: RandomSearchState) -> str:
        return f"Random search: up to {self.config.primary_steps} mutation steps a child"
