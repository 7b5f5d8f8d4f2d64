"""Walks of mutation steps, and those who are bred by them."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from host_loop import CONFIG, SPEC
from mutation_checks import assert_same_arrays, jit
from scipy import stats

from eigen_jax.mutation import mutate
from eigen_jax.strategies import Parents, global_pooling, join, nobody, pick, places_of, walk

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
