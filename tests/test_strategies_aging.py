"""Aging evolution against Algorithm 1 of Real et al. in plain Python."""

import dataclasses
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from host_loop import CONFIG, NOBODY, SPEC, Place, Search, key_of, landscape, search
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import assert_same_arrays
from refusals import refuses

from eigen_jax.errors import ConfigError
from eigen_jax.strategies import AgingEvolution


def aging(**settings: Any) -> AgingEvolution:
    return AgingEvolution(spec=SPEC, config=dataclasses.replace(CONFIG, **settings))


STRATEGY = aging()


def check(done: Search, seed: int) -> None:
    """That each child has the parent that Algorithm 1 selects, with the same draws."""
    config = done.strategy.config
    for child in range(config.max_children):
        # Children are bred one after another, when all but the last of those in training are measured.
        measured = max(0, child - config.ahead + 1)
        key_sample, key_breed = jax.random.split(key_of(seed, measured))
        queue: list[Place] = [(number, 0) for number in range(measured)][-config.population_size :]
        parent = NOBODY
        if len(queue) == config.population_size:
            drawn = jax.random.randint(key_sample, (config.sample_size,), 0, len(queue))
            sample = [queue[index] for index in drawn.tolist()]
            parent = max(sample, key=lambda place: (done.fitness[place].item(), -place[0]))
        slot = child if child < config.ahead else config.ahead - 1
        done.check_child((child, 0), parent, jax.random.fold_in(key_breed, slot))
    assert sorted(done.fitness) == [(child, 0) for child in range(config.max_children)]


@pytest.mark.parametrize(
    "strategy",
    [
        STRATEGY,
        aging(ahead=1),
        pytest.param(aging(ahead=8, sample_size=5), marks=pytest.mark.slow),
        pytest.param(aging(population_size=2, max_children=4, ahead=9), marks=pytest.mark.slow),
    ],
    ids=["three in training", "as in the paper", "more in training than live", "more in training than are bred"],
)
@settings(max_examples=settings().max_examples // 4, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 100))
def test_a_search_agrees_with_its_plain_python_transcription(strategy, seed):
    check(search(strategy, landscape(seed, 1), seed=seed), seed)


def test_the_outcome_does_not_depend_on_who_of_those_in_training_is_done_first():
    measure = landscape(2, 1)
    in_order = search(STRATEGY, measure)
    for seed in range(3):
        early = search(STRATEGY, measure, told_early=np.random.default_rng(seed))
        assert_same_arrays(early.states, in_order.states)


def test_as_many_are_in_training_as_may_be_until_all_are_bred():
    states = search(STRATEGY, landscape(2, 1)).states
    in_training = [int((state.population.places[:, 0] >= 0).sum()) for state in states]
    assert in_training == [3] * 21 + [2, 1, 0]


def test_where_all_fail_the_oldest_of_a_sample_breeds():
    done = search(STRATEGY, lambda architecture: np.full(1, -np.inf, np.float32))
    check(done, 0)
    assert all(done.parent((child, 0)) != NOBODY for child in range(7, 23))


def test_a_stage_has_the_name_of_how_the_child_that_is_due_was_bred():
    done = search(STRATEGY, landscape(2, 1))
    phases = [STRATEGY.phase(state) for state in done.states[:-1]]
    assert phases == ["initial" if done.parent((child, 0)) == NOBODY else "aging" for child in range(23)]
    assert phases.index("aging") == 7
    assert STRATEGY.title(done.states[0]) == "Aging evolution: global pooling, up to 6 mutation steps a child"
    assert (
        STRATEGY.title(done.states[7])
        == "Aging evolution: the fittest of 2 of the last 5, up to 2 mutation steps a child"
    )


def test_a_sample_larger_than_the_population_is_refused():
    aging(sample_size=5)
    with refuses(ConfigError, "sample_size is 6; it must be at most population_size, which is 5"):
        aging(sample_size=6)
