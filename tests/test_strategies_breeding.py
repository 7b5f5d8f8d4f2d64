"""Walks of mutation steps, and those who are bred by them."""

import dataclasses
import itertools
import math
from functools import partial

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_loop import CONFIG, SPEC
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import assert_same_arrays, jit
from scipy import stats

from eigen_jax.architecture import Architecture, count_flops, decode
from eigen_jax.genome import Genome, GenomeSpec
from eigen_jax.mutation import mutate
from eigen_jax.strategies import (
    AgingEvolution,
    Eigen,
    EvolutionConfig,
    Nsga2,
    Parents,
    RandomSearch,
    global_pooling,
    join,
    nobody,
    offspring,
    pick,
    places_of,
    walk,
)
from eigen_jax.strategies.breeding import bear
from eigen_jax.strategies.eigen import breed

STARTS = global_pooling(600, spec=SPEC).genomes


def test_a_walk_takes_a_number_of_steps_that_is_drawn_uniformly():
    keys, most_steps = jax.random.split(jax.random.key(0), 600), np.repeat(np.array([0, 1, 4], np.int32), 200)
    genomes, steps, trace = jax.device_get(jit(jax.vmap(partial(walk, spec=SPEC)))(keys, STARTS, most_steps))
    assert not steps[:200].any()
    assert (steps[200:400] == 1).all()
    assert stats.chisquare(np.bincount(steps[400:])[1:], [50] * 4).pvalue > 0.01
    # As EIGEN draws them, whose runs must stay what they were.
    key_steps, key_mutation = jax.vmap(jax.random.split, out_axes=1)(keys)
    drawn = jax.vmap(lambda key: jax.random.randint(key, (), 1, 5, jnp.int32))(key_steps[400:])
    np.testing.assert_array_equal(steps[400:], drawn)
    mutated = jit(jax.vmap(partial(mutate, spec=SPEC)))(key_mutation, STARTS, steps)
    assert_same_arrays((genomes, trace), mutated)


def test_a_generation_has_places_until_all_children_are_bred():
    config = dataclasses.replace(CONFIG, population_size=4, max_children=10)
    places = [places_of(jnp.int32(generation), config=config).tolist() for generation in range(4)]
    assert places[1] == [[1, 0], [1, 1], [1, 2], [1, 3]]
    assert places[2] == [[2, 0], [2, 1], [-1, -1], [-1, -1]]
    assert places[3] == [[-1, -1]] * 4


def test_who_is_measured_comes_behind_those_who_may_breed_and_failures_are_worst():
    parents = global_pooling(2, spec=SPEC, objectives=2)
    population = dataclasses.replace(nobody(4, spec=SPEC), places=jnp.int32([[3, 0], [3, 1], [3, 2], [3, 3]]))
    fitness = jnp.float32([[1, 2], [math.nan, 1], [3, math.inf], [-5, 0]])
    joined = join(parents, population, fitness)
    worst = [-math.inf] * 2
    assert joined.fitness.tolist() == [worst, worst, [1, 2], worst, worst, [-5, 0]]
    assert joined.places.tolist() == [[-1, -1]] * 2 + [[3, 0], [3, 1], [3, 2], [3, 3]]
    chosen: Parents = pick(joined, jnp.int32([5, 2, 2]))
    assert chosen.fitness.tolist() == [[-5, 0], [1, 2], [1, 2]]
    assert chosen.places.tolist() == [[3, 3], [3, 0], [3, 0]]
    assert chosen.genomes.length.tolist() == [0, 0, 0]


# Children that are bred again.

SLOTS = 6
ALONE = GenomeSpec(kinds=("pool",), capacity=1, input_shape=(4, 4, 1))  # two networks: with a pool, and without
BOUNDED = dataclasses.replace(SPEC, max_flops=300_000)
AGAIN: dict[str, tuple[GenomeSpec, EvolutionConfig]] = {
    "equal ones": (SPEC, dataclasses.replace(CONFIG, redraws=3)),
    "hopeless ones": (BOUNDED, dataclasses.replace(CONFIG, redraws=3, min_flops_share=0.01)),
    "two networks": (ALONE, dataclasses.replace(CONFIG, redraws=4)),
}
_walk = partial(jit, static_argnames="spec")(walk)


@partial(jit, static_argnames=("spec", "config"))
def bear_all(key, parents, most_steps, *, spec, config):
    return bear(key, parents, most_steps, slots=SLOTS, spec=spec, config=config)


def stacked(genomes: list[Genome]) -> Genome:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *map(jax.device_get, genomes))


def member(genomes: Genome, index: int) -> Genome:
    return jax.device_get(jax.tree.map(lambda leaf: leaf[index], genomes))


def networks_of(genomes: Genome, spec: GenomeSpec) -> list[Architecture]:
    return [decode(member(genomes, index), spec=spec) for index in range(len(genomes.length))]


def taken(key, parents: Genome, most_steps: list[int], spec: GenomeSpec, config: EvolutionConfig) -> list:
    """The draw that each slot takes, in plain Python, and its number."""
    chosen: dict[int, tuple] = {}
    least = config.min_flops_share * spec.max_flops
    for number, index in itertools.product(range(config.redraws + 1), range(SLOTS)):
        if index in chosen:
            continue
        parent = member(parents, index)
        steps = np.int32(most_steps[index])
        drawn = jax.device_get(_walk(jax.random.fold_in(key, number * SLOTS + index), parent, steps, spec=spec))
        network = decode(drawn[0], spec=spec)
        others = [decode(genome, spec=spec) for i, ((genome, *_), _) in chosen.items() if most_steps[i]]
        is_poor = count_flops(network, num_classes=spec.num_classes) < least
        is_new = network not in (*others, decode(parent, spec=spec))
        if number == config.redraws or not steps or (is_new and not is_poor):
            chosen[index] = drawn, number
    return [chosen[index] for index in range(SLOTS)]


@pytest.mark.parametrize("case", AGAIN)
# Without shrinking, which takes minutes.
@settings(max_examples=10, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 10_000), most_steps=st.lists(st.integers(0, 3), min_size=SLOTS, max_size=SLOTS))
def test_children_are_bred_again_as_in_plain_python(case, seed, most_steps):
    (spec, config), key = AGAIN[case], jax.random.key(seed)
    root = member(nobody(1, spec=spec).genomes, 0)
    other = jax.device_get(_walk(jax.random.fold_in(key, 99), root, np.int32(3), spec=spec))[0]
    parents = stacked([root, other, root, other, other, root])
    expected = [drawn for drawn, _ in taken(key, parents, most_steps, spec, config)]
    got = jax.device_get(bear_all(key, parents, np.array(most_steps, np.int32), spec=spec, config=config))
    for index, (genome, steps, trace) in enumerate(expected):
        child = jax.tree.map(lambda leaf, index=index: leaf[index], got)
        assert_same_arrays(child, (genome, steps, trace))


def test_the_cases_in_plain_python_have_children_of_every_draw():
    numbers = set()
    for (case, (spec, config)), seed in itertools.product(AGAIN.items(), range(3)):
        root = nobody(SLOTS, spec=spec).genomes
        numbers |= {(case, number) for _, number in taken(jax.random.key(seed), root, [1, 3] * 3, spec, config)}
    assert {("equal ones", 0), ("equal ones", 1), ("hopeless ones", 2), ("two networks", 4)} <= numbers


def test_with_no_redraws_children_are_the_walks_that_they_were_hopeless_or_not():
    config = dataclasses.replace(CONFIG, min_flops_share=1.0)
    key, most_steps = jax.random.key(4), jnp.int32(config.secondary_steps)
    size = config.population_size
    keys = [jax.random.fold_in(key, index) for index in range(size)]
    root = member(STARTS, 0)
    walks = [jax.device_get(_walk(each, root, most_steps, spec=SPEC)) for each in keys]
    children = jit(lambda key: breed(key, root, most_steps, spec=SPEC, config=config))(key)
    assert_same_arrays(jax.device_get(children.genomes), stacked([genome for genome, *_ in walks]))
    parents = dataclasses.replace(global_pooling(size, spec=SPEC), places=jnp.zeros((size, 2), jnp.int32))
    places = places_of(jnp.int32(1), config=config)
    born = jit(lambda key: offspring(key, parents, places, spec=SPEC, config=config))(key)
    assert_same_arrays(jax.device_get(born.genomes), jax.device_get(children.genomes))


@pytest.mark.parametrize("kind", [Eigen, RandomSearch, AgingEvolution, Nsga2], ids=lambda kind: kind.__name__)
def test_every_strategy_breeds_different_children_where_it_may(kind):
    config = dataclasses.replace(CONFIG, redraws=64, min_flops_share=0.01, primary_steps=2)
    strategy = kind(spec=BOUNDED, config=config)
    population = strategy.population(jit(strategy.init)(jax.random.key(0)))
    children = networks_of(population.genomes, BOUNDED)
    assert len(children) == len(set(children)) == (3 if kind is AgingEvolution else 5)
    assert min(count_flops(child, num_classes=10) for child in children) >= 3_000


def depth_of(network: Architecture) -> int:
    """Convolutions with a kernel of more than a pixel, depthwise ones included."""
    return sum(layer.op in ("conv", "depthwise") and layer.kernel > 1 for layer in network.layers)


@pytest.mark.parametrize("redraws", [0, 3])
@pytest.mark.parametrize("spec", [SPEC, dataclasses.replace(SPEC, kinds=("depthwise", "pool", "conv"))])
def test_of_the_candidates_for_a_place_the_deepest_is_taken(spec, redraws):
    config = dataclasses.replace(CONFIG, candidates=3, redraws=redraws)
    key, most_steps = jax.random.key(5), np.array([8, 8, 0, 3, 8, 5], np.int32)
    root = nobody(SLOTS, spec=spec).genomes
    parents, steps = (
        jax.tree.map(lambda leaf: np.tile(leaf, (3, *[1] * (leaf.ndim - 1))), each) for each in (root, most_steps)
    )
    alone = dataclasses.replace(config, candidates=1)
    draw = jit(lambda key: bear(key, parents, steps, slots=3 * SLOTS, spec=spec, config=alone))
    candidates = jax.device_get(draw(key))
    networks = networks_of(candidates[0], spec)
    got = jax.device_get(bear_all(key, root, most_steps, spec=spec, config=config))
    winners = set()
    for slot in range(SLOTS):
        places = range(slot, 3 * SLOTS, SLOTS)
        best = max(places, key=lambda place: depth_of(networks[place]))  # the first of equals
        winners.add(best // SLOTS)
        child, expected = (
            jax.tree.map(lambda leaf, at=at: leaf[at], each) for each, at in ((got, slot), (candidates, best))
        )
        assert_same_arrays(child, expected)
    assert len(winners) > 1


def test_a_hopeless_candidate_is_taken_only_where_all_of_its_place_are():
    config = dataclasses.replace(CONFIG, candidates=4, redraws=1, min_flops_share=0.3)
    key, most_steps = jax.random.key(3), jnp.int32(16)
    root, alone = member(STARTS, 0), dataclasses.replace(config, candidates=1)
    draw = jit(lambda key: bear(key, root, most_steps, slots=4 * SLOTS, spec=BOUNDED, config=alone))
    networks = networks_of(draw(key)[0], BOUNDED)
    children = networks_of(bear_all(key, root, most_steps, spec=BOUNDED, config=config)[0], BOUNDED)
    deeper = 0
    for slot, network in enumerate(children):
        flops = {each: count_flops(each, num_classes=10) for each in networks[slot::SLOTS]}
        hopeful = [each for each in flops if flops[each] >= 0.3 * BOUNDED.max_flops]
        assert network == max(hopeful or flops, key=depth_of)
        deeper += bool(hopeful) and max(map(depth_of, flops)) > depth_of(network)
    assert deeper
