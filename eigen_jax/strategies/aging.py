"""Aging evolution: the fittest of a sample breeds, the oldest dies."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from eigen_jax.strategies.breeding import Parents, global_pooling, join, nobody, offspring, pick
from eigen_jax.strategies.strategy import NONE, Population, Strategy


@struct.dataclass
class AgingState:
    """A search between two children. A is `EvolutionConfig.ahead`, N `EvolutionConfig.population_size`."""

    generation: Array  # [] int32, children measured so far
    population: Population  # [A], the child to be measured next, and those in training ahead of it
    living: Parents  # [N], the queue: the children measured last


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgingEvolution(Strategy):
    """Aging, or regularized, evolution (Real et al., AAAI 2019, Algorithm 1): one child a generation.

    The living are a queue of the `population_size` children measured last, failures too, as the worst. While it fills,
    children descend from the global-pooling network; then from the fittest of `sample_size` of the living, drawn with
    replacement, and for each child the oldest dies. A child is as of `offspring`; the paper's mutates once.

    Child n is bred when those up to n - `ahead` are measured, whichever later ones may be done: so `ahead` workers have
    work, the first `population_size` + `ahead` - 1 children descend from global pooling, and the outcome depends on the
    configuration alone. With `ahead` 1 this is the paper's algorithm.
    """

    within_population = ("sample_size",)

    def genesis(self) -> AgingState:
        return AgingState(
            generation=jnp.asarray(NONE, jnp.int32),
            population=nobody(self.config.ahead, spec=self.spec),
            living=global_pooling(self.config.population_size, spec=self.spec),
        )

    def step(self, key: Array, state: AgingState, fitness: Array) -> AgingState:
        key_sample, key_breed = jax.random.split(key)
        queue = join(state.living, state.population, fitness[:, 0])
        living = pick(queue, 1 + jnp.arange(self.config.population_size, dtype=jnp.int32))
        sample = jax.random.randint(key_sample, (self.config.sample_size,), 0, len(living.places), jnp.int32).sort()
        fittest = sample[living.fitness[sample, 0].argmax()]  # of equals the oldest
        # Until the queue is full, its first place is the global-pooling network's.
        parent = jnp.where(living.places[0, 0] == NONE, 0, fittest)
        generation, parents = state.generation + 1, pick(living, jnp.full(self.config.ahead, parent))
        population = self._refill(key_breed, generation, state.population, parents)
        return AgingState(generation=generation, population=population, living=living)

    def _refill(self, key: Array, generation: Array, population: Population, parents: Parents) -> Population:
        """Moves all up by one slot, and breeds for the slots that are empty: the last, or in the first step all."""
        moved = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new]), population, nobody(1, spec=self.spec))
        is_empty = moved.places[:, 0] == NONE
        number = generation + jnp.arange(len(is_empty), dtype=jnp.int32)
        is_bred = is_empty & (number < self.config.max_children)
        places = jnp.where(is_bred[:, None], jnp.stack([number, jnp.zeros_like(number)], axis=1), NONE)
        children = offspring(key, parents, places, spec=self.spec, config=self.config)
        return jax.tree.map(lambda old, new: jax.vmap(jnp.where)(is_empty, new, old), moved, children)

    def phase(self, state: AgingState) -> str:
        # Of the child that is due, which was bred when the `ahead` - 1 before it were not measured.
        return "initial" if state.generation < self.config.population_size + self.config.ahead - 1 else "aging"

    def title(self, state: AgingState) -> str:
        config, initial = self.config, self.phase(state) == "initial"
        fittest = f"the fittest of {config.sample_size} of the last {config.population_size}"
        most_steps = config.primary_steps if initial else config.secondary_steps
        parent = "global pooling" if initial else fittest
        return f"Aging evolution: {parent}, up to {most_steps} mutation steps a child"
