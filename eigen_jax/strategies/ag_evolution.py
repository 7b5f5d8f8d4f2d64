"""AG-Evolution: the weaker half is killed early, the best one breeds."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec
from eigen_jax.mutation import mutate
from eigen_jax.strategies.breeding import Parents, global_pooling, join, nobody, pick, places_of
from eigen_jax.strategies.strategy import NONE, Population, Strategy

ADDED_KINDS = ("dense", "dropout", "add")  # to those of the settings, which by default are the other three of the paper


@struct.dataclass
class AgState:
    generation: Array  # [] int32, of the population
    population: Population  # [P]
    parent: Parents  # [1], of the population


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgEvolution(Strategy):
    """AG-Evolution, EIGEN's predecessor (Li et al., arXiv 1806.00851, 2018): aggressive selection.

    Its paper is "An Aggressive Genetic Programming Approach for Searching Neural Network Structure Under Computational
    Constraints". All children of a generation descend from the fittest of the one before, which does not compete with
    them; where nobody is left, from the parent of those. Children are trained to the first landmark; the fittest half
    of those bred, rounded up, and whoever equals the last of these, train on to the end.

    Exact: as the abstract and EIGEN's paper say, the best individual of a generation alone breeds, and the weaker are
    killed at a very early age; networks are acyclic graphs of layers under few constraints, and descend from a poor
    one; operators add dense layers and pools.

    Decided: since the paper's text was not at hand, all else. `ADDED_KINDS` join the layers, "add" as a skip; all can
    be inserted, removed and altered as in `eigen_jax.mutation`. Half of the children are killed, at the first of three
    landmarks. A child is one mutation away from its parent: the abstract speaks of increased mutation frequency,
    which more `mutations` are. All are trained from scratch. A population of 10 is EIGEN's, which names this paper for
    details. What is EIGEN's alone has no part: numbers of steps that are drawn, redraws, candidates, duplication; a
    run without a teacher leaves mimicry out as well.
    """

    num_landmarks: ClassVar[int] = 2

    mutations: int = 1  # operators a child

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mutations < 1:
            raise ConfigError(None, "mutations is {}; it must be at least 1", self.mutations)

    @classmethod
    def space(cls, spec: GenomeSpec) -> GenomeSpec:
        return dataclasses.replace(spec, kinds=tuple(dict.fromkeys((*spec.kinds, *ADDED_KINDS))))

    def landmarks(self, steps: Sequence[int]) -> tuple[int, ...]:
        return steps[0], steps[-1]

    def genesis(self) -> AgState:
        return AgState(
            generation=jnp.asarray(NONE, jnp.int32),
            population=nobody(self.config.population_size, spec=self.spec),
            parent=global_pooling(1, spec=self.spec),
        )

    def step(self, key: Array, state: AgState, fitness: Array) -> AgState:
        generation, size = state.generation + 1, self.config.population_size
        rivals = join(state.parent, state.population, fitness[:, -1])
        children = rivals.fitness[1:, 0]
        # The first of the fittest; where nobody is left, the parent has other children.
        parent = pick(rivals, jnp.where(jnp.isfinite(children).any(), 1 + children.argmax(), 0)[None])
        places = places_of(generation, config=self.config)
        is_empty = places[:, 0] == NONE
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(size, dtype=jnp.int32))
        genome = jax.tree.map(lambda leaf: leaf[0], parent.genomes)
        born = jax.vmap(functools.partial(mutate, spec=self.spec), (0, None, 0))
        genomes, trace = born(keys, genome, jnp.where(is_empty, 0, self.mutations))
        population = dataclasses.replace(
            state.population,
            genomes=genomes,
            places=places,
            parents=jnp.where(is_empty[:, None, None], NONE, parent.places[None]),
            operators=trace.counts,
        )
        return AgState(generation=generation, population=population, parent=parent)

    def survives(self, state: AgState, fitness: Array, landmark: int) -> Array:
        return super().survives(state, fitness, landmark) & (
            fitness[:, landmark, 0] >= self.threshold(state, fitness, landmark)
        )

    def threshold(self, state: AgState, fitness: Array, landmark: int) -> Array:
        values = jnp.where(jnp.isfinite(fitness[:, landmark, 0]), fitness[:, landmark, 0], -jnp.inf)
        return jnp.sort(values, descending=True)[self._half(state) - 1]

    def spares(self, state: AgState) -> bool:
        return False

    def quota(self, state: AgState) -> tuple[int, ...]:
        return (int(self._half(state)),)

    def _half(self, state: AgState) -> Array:
        """How many of a generation the best half of it are; [] int32."""
        return ((state.population.places[:, 0] != NONE).sum(dtype=jnp.int32) + 1) // 2

    def phase(self, state: AgState) -> str:
        return "aggressive"

    def title(self, state: AgState) -> str:
        what = "a mutation" if self.mutations == 1 else f"{self.mutations} mutations"
        return f"AG-Evolution: the best half of the children goes on, {what} a child"
