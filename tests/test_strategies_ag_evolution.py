"""AG-Evolution against a plain-Python transcription."""

import dataclasses
import math
from functools import partial
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_loop import CONFIG, NOBODY, SPEC, Place, Search, key_of, landscape, search, step
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import assert_same_arrays, jit
from refusals import refuses

from eigen_jax.architecture import count_flops, count_parameters
from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec, minimal_genome
from eigen_jax.mutation import mutate
from eigen_jax.strategies import AgEvolution, Parents

SPACE = AgEvolution.space(SPEC)
_mutate = partial(jit, static_argnames="spec")(mutate)


def ag_evolution(**changed: Any) -> AgEvolution:
    return AgEvolution(spec=SPACE, config=CONFIG, **changed)


STRATEGY = ag_evolution()


def test_the_space_has_three_kinds_more_than_the_settings_name():
    assert SPACE.kinds == ("conv", "concat", "pool", "dense", "dropout", "add")
    assert dataclasses.replace(SPACE, kinds=SPEC.kinds) == SPEC
    assert AgEvolution.space(SPACE) == SPACE
    assert AgEvolution.space(GenomeSpec(kinds=("add", "conv"))).kinds == ("add", "conv", "dense", "dropout")


def the_better_half(values: list[float]) -> set[int]:
    """Of those bred, half of them, rounded up, and whoever ties; of failures none."""
    ranked = sorted((value for value in values if math.isfinite(value)), reverse=True)
    half = math.ceil(len(values) / 2)
    least = ranked[half - 1] if len(ranked) >= half else -math.inf
    return {place for place, value in enumerate(values) if math.isfinite(value) and value >= least}


VALUES = st.sampled_from([0.25, 0.5, 0.5, 0.75, 1.0, -math.inf, math.nan])


@given(values=st.lists(VALUES, min_size=1, max_size=5))
def test_the_better_half_of_those_bred_trains_on(values):
    population = STRATEGY.genesis().population
    places = [[0, index] if index < len(values) else NOBODY for index in range(5)]
    state = dataclasses.replace(
        STRATEGY.genesis(), population=dataclasses.replace(population, places=jnp.array(places, jnp.int32))
    )
    fitness = np.full((5, 2, 1), -np.inf, np.float32)
    fitness[: len(values), 0, 0] = values
    survives = np.flatnonzero(STRATEGY.survives(state, jnp.asarray(fitness), 0))
    assert set(survives.tolist()) == the_better_half(values)
    assert STRATEGY.quota(state) == (math.ceil(len(values) / 2),)
    threshold = float(STRATEGY.threshold(state, jnp.asarray(fitness), 0))
    # The least of the survivors is at it, unless there are too few to have one.
    assert threshold == min((values[place] for place in survives), default=-math.inf) or threshold == -math.inf


def check(strategy: AgEvolution, done: Search, seed: int) -> None:
    """That the fittest of each generation has all children of the next, with the same draws."""
    config, parent, mutations = done.strategy.config, NOBODY, strategy.mutations
    for generation in range(5):
        size = min(5, config.max_children - 5 * generation)
        for index in range(size):
            place: Place = (generation, index)
            genome = minimal_genome(SPACE) if parent == NOBODY else done.individuals[parent].genome
            key = jax.random.fold_in(key_of(seed, generation), index)
            child, trace = _mutate(key, genome, np.int32(mutations), spec=SPACE)
            own = done.individuals[place]
            assert done.parent(place) == parent
            assert_same_arrays((own.genome, own.operators), jax.device_get((child, trace.counts)))
            assert own.operators.sum() == mutations
        early, end = ([done.fitness[generation, index][mark].item() for index in range(size)] for mark in (0, 1))
        alive = the_better_half(early)
        assert all(math.isfinite(value) == (index in alive) for index, value in enumerate(end))
        parent = max(((generation, index) for index in alive), key=lambda place: end[place[1]], default=parent)


@pytest.mark.parametrize("strategy", [STRATEGY, pytest.param(ag_evolution(mutations=3), marks=pytest.mark.slow)])
@settings(max_examples=settings().max_examples // 4, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 100))
def test_a_search_agrees_with_its_plain_python_transcription(strategy, seed):
    check(strategy, search(strategy, landscape(seed, 1), seed=seed), seed)


def test_the_fittest_at_the_end_breeds_whatever_it_was_at_first():
    genesis = STRATEGY.genesis()
    state = step(STRATEGY, key_of(0, 0), genesis, STRATEGY.unmeasured(genesis))
    early, end = [0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.3, 0.3, -np.inf, -np.inf]
    fitness = jnp.asarray(np.stack([early, end], axis=1)[..., None], jnp.float32)
    following = step(STRATEGY, key_of(0, 1), state, fitness)
    assert following.population.parents.tolist() == [[[0, 1]]] * 5
    assert following.parent.fitness.item() == pytest.approx(0.3)
    nobody = step(STRATEGY, key_of(0, 2), following, jnp.full((5, 2, 1), -jnp.inf, jnp.float32))
    assert nobody.population.places.tolist() == [[2, index] for index in range(5)]
    assert nobody.population.parents.tolist() == [[[0, 1]]] * 5


def test_the_last_generation_descends_only_where_somebody_is_bred():
    done = search(STRATEGY, landscape(3, 1))
    assert isinstance(done.states[4].parent, Parents)
    assert (done.states[4].population.parents[3:] == -1).all()
    assert sorted(done.individuals)[-1] == (4, 2)


def test_networks_many_mutations_from_the_start_are_within_the_bounds():
    bounds: dict[str, Any] = {"capacity": 24, "max_parameters": 20_000, "max_flops": 200_000}
    spec = AgEvolution.space(GenomeSpec(input_shape=(8, 8, 1), channels=(4, 8), **bounds))
    strategy = AgEvolution(
        spec=spec, config=dataclasses.replace(CONFIG, population_size=40, max_children=40), mutations=40
    )
    genomes = jax.device_get(jit(strategy.init)(key_of(1, 0))).population.genomes
    ops = set()
    for slot in range(40):
        architecture = strategy.decode(jax.tree.map(lambda leaf, slot=slot: leaf[slot], genomes))
        assert count_parameters(architecture, num_classes=10) <= 20_000
        assert count_flops(architecture, num_classes=10) <= 200_000
        ops |= {layer.op for layer in architecture.layers}
    assert ops == set(spec.kinds)


def test_measured_are_the_first_and_the_last_landmark():
    assert STRATEGY.landmarks((5, 20, 25)) == (5, 25)
    assert not STRATEGY.spares(STRATEGY.genesis())


def test_what_is_told_of_it():
    state = STRATEGY.genesis()
    assert STRATEGY.title(state) == "AG-Evolution: the best half of the children goes on, a mutation a child"
    assert ag_evolution(mutations=2).title(state).endswith("2 mutations a child")
    with refuses(ConfigError, "mutations is 0; it must be at least 1"):
        ag_evolution(mutations=0)
