"""Random search against its definition."""

import jax
import numpy as np
from host_loop import CONFIG, NOBODY, SPEC, key_of, landscape, search, step

from eigen_jax.strategies import RandomSearch

STRATEGY = RandomSearch(spec=SPEC, config=CONFIG)


def test_each_child_is_a_walk_of_its_own_from_global_pooling():
    done = search(STRATEGY, landscape(0, 1), seed=5)
    sizes = [sum(born == generation for born, _ in done.fitness) for generation in range(5)]
    assert sizes == [5, 5, 5, 5, 3]
    for generation, index in done.fitness:
        done.check_child((generation, index), NOBODY, jax.random.fold_in(key_of(5, generation), index))
    assert len({tuple(child.operators) for child in done.individuals.values()}) > len(done.fitness) / 2
    assert {STRATEGY.phase(state) for state in done.states} == {"random"}
    assert STRATEGY.title(done.states[0]) == "Random search: up to 6 mutation steps a child"


def test_nobody_is_bred_for_empty_slots():
    *_, last, over = search(STRATEGY, landscape(0, 1)).states
    for state, children in ((last, 3), (over, 0)):
        assert state.population.operators.any(axis=1).tolist() == [True] * children + [False] * (5 - children)
        assert not state.population.genomes.length[children:].any()


def test_fitness_changes_nothing():
    state = search(STRATEGY, landscape(0, 1)).states[1]
    fitness = np.arange(5, dtype=np.float32).reshape(5, 1, 1)
    first, second = (step(STRATEGY, key_of(0, 2), state, values) for values in (fitness, -fitness))
    assert jax.tree.all(jax.tree.map(lambda one, other: (one == other).all(), first, second))
