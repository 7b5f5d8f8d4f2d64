"""A host loop that trains nobody: what a network measures is a function of its architecture."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from mutation_checks import assert_same_arrays, jit, pick

from eigen_jax.architecture import Architecture, count_parameters
from eigen_jax.genome import Genome, GenomeSpec, minimal_genome
from eigen_jax.strategies import EvolutionConfig, Strategy, walk

Place = tuple[int, int]
NOBODY: Place = (-1, -1)
SPEC = GenomeSpec(capacity=8, input_shape=(4, 4, 1))
CONFIG = EvolutionConfig(
    population_size=5,
    primary_steps=6,
    secondary_steps=2,
    first_rank=2,
    second_rank=1,
    max_primary_generations=2,
    max_secondary_generations=1,
    max_repeats=2,
    max_children=23,
    sample_size=2,
    ahead=3,
)
TRACES: Counter[Strategy] = Counter()


class Individual(NamedTuple):
    """One of a search."""

    genome: Any
    parents: np.ndarray
    operators: np.ndarray
    repeats: np.ndarray


@dataclasses.dataclass
class Search:
    """What a search did."""

    strategy: Strategy
    states: list[Any] = dataclasses.field(default_factory=list)  # by generation
    individuals: dict[Place, Individual] = dataclasses.field(default_factory=dict)
    fitness: dict[Place, np.ndarray] = dataclasses.field(default_factory=dict)  # [L, M], -inf for failures

    def parent(self, place: Place) -> Place:
        """The one parent of a child."""
        ((generation, index),) = self.individuals[place].parents.tolist()
        return generation, index

    def genome(self, place: Place) -> Genome:
        """That of an individual, or of the global-pooling network."""
        return minimal_genome(SPEC) if place == NOBODY else self.individuals[place].genome

    def check_child(self, place: Place, parent: Place, key: Array) -> None:
        """That a child descends from this parent, by the walk of this key."""
        assert self.parent(place) == parent
        config = self.strategy.config
        most_steps = np.int32(config.primary_steps if parent == NOBODY else config.secondary_steps)
        genome, steps, trace = jax.device_get(_walk(key, self.genome(parent), most_steps, spec=SPEC))
        child = self.individuals[place]
        assert_same_arrays((child.genome, child.operators), (genome, trace.counts))
        assert 1 <= steps == child.operators.sum() <= most_steps
        assert (child.repeats == 1).all()


@partial(jit, static_argnums=0)
def step(strategy: Strategy, key: Array, state: Any, fitness: Array) -> Any:
    TRACES[strategy] += 1
    return strategy.step(key, state, fitness)


_walk = partial(jit, static_argnames="spec")(walk)


def key_of(seed: int, generation: int) -> Array:
    return jax.random.fold_in(jax.random.key(seed), generation)


def landscape(seed: int, objectives: int) -> Callable[[Architecture], np.ndarray]:
    """A fitness of few levels, so that ties are frequent, and of which every fifth fails."""

    def measure(architecture: Architecture) -> np.ndarray:
        rng = np.random.default_rng([seed, count_parameters(architecture, num_classes=10)])
        values = rng.integers(0, 3, objectives).astype(np.float32)
        return values if rng.random() < 0.8 else np.full(objectives, -np.inf, np.float32)

    return measure


def search(
    strategy: Strategy,
    measure: Callable[[Architecture], np.ndarray],
    *,
    seed: int = 0,
    state: Any = None,
    told_early: np.random.Generator | None = None,
) -> Search:
    """Runs a search from a state, or from the start, and checks what the host loop relies upon.

    With `told_early`, those who are trained ahead count as measured at random, at some fitness.
    """
    done, first = Search(strategy), 0 if state is None else int(state.generation)
    if state is None:
        state = strategy.genesis()
        state = step(strategy, key_of(seed, 0), state, strategy.unmeasured(state))
    for generation in range(first, 100):
        done.states.append(jax.device_get(state))
        if strategy.is_done(state):
            return done
        places = admit(done, generation)
        fitness = np.array(strategy.unmeasured(state))
        if told_early is not None:
            fitness = np.where(told_early.random(fitness.shape) < 0.5, told_early.normal(size=fitness.shape), fitness)
        due = {slot: place for slot, place in enumerate(places) if place[0] == generation}
        fitness[list(due)] = -np.inf
        train(done, state, fitness, due, measure)
        state = step(strategy, key_of(seed, generation + 1), state, fitness.astype(np.float32))
    raise AssertionError("it does not end")


def admit(done: Search, generation: int) -> list[Place]:
    """The places of those who are measured now or trained ahead, of whom those that are known are as they were."""
    spec = done.strategy.spec
    population = jax.device_get(done.strategy.population(done.states[-1]))
    places = [(int(born), int(index)) for born, index in population.places]
    taken = [place for place in places if place != NOBODY]
    assert places == taken + [NOBODY] * (len(places) - len(taken))
    assert taken == sorted(set(taken))
    assert min(born for born, _ in taken) == generation
    assert population.places.dtype == population.parents.dtype == population.operators.dtype == np.int32
    assert population.operators.shape == (len(places), len(done.strategy.operator_names()))
    assert population.repeats.shape == (len(places), spec.max_level + 1)
    for slot, place in enumerate(taken):
        individual = Individual(population.genomes, population.parents, population.operators, population.repeats)
        assert_same_arrays(done.individuals.setdefault(place, pick(individual, slot)), pick(individual, slot))
    return taken


def train(done: Search, state: Any, fitness: np.ndarray, due: dict[int, Place], measure: Callable) -> None:
    """Measures those who are due at the landmarks that they reach."""
    alive = np.isin(np.arange(len(fitness)), list(due))
    for landmark in range(done.strategy.num_landmarks):
        for slot in np.flatnonzero(alive).tolist():
            architecture = done.strategy.decode(done.individuals[due[slot]].genome)
            fitness[slot, landmark] = measure(architecture)
        if landmark < done.strategy.num_landmarks - 1:
            alive &= np.asarray(done.strategy.survives(state, jnp.asarray(fitness, jnp.float32), landmark))
    done.fitness |= {place: fitness[slot] for slot, place in due.items()}
