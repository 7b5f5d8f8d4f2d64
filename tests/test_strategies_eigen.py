"""Extinction against Equations 1 and 2 and Algorithm 1 in NumPy; selection, succession, one trace."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_mutation as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import as_genome, assert_equal, jit, pick, stack
from scipy import stats

from eigen_jax.duplication import find_blocks, repeat_blocks
from eigen_jax.errors import ConfigError
from eigen_jax.genome import Genome, GenomeSpec
from eigen_jax.strategies import Eigen, eigen
from eigen_jax.strategies.eigen import (
    BudgetedState,
    EvolutionConfig,
    EvolutionState,
    Phase,
    evolution_step,
    initial_state,
)

NAN, NONE = math.nan, -math.inf

# Few levels, so that ties are frequent; every value is a float32.
FITNESS = st.one_of(
    st.sampled_from([NAN, NONE, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0]), st.floats(0, 1, width=32, allow_subnormal=False)
)


def fitness_of(population: int) -> st.SearchStrategy[np.ndarray]:
    row = st.tuples(FITNESS, FITNESS, FITNESS)
    return st.lists(row, min_size=population, max_size=population).map(lambda rows: np.array(rows, np.float32))


# Equations 1 and 2 and Algorithm 1, transcribed.


def reference_threshold(level: np.float32, values: list[np.float32], rank: int) -> np.float32:
    counted = sorted((value for value in values if math.isfinite(value)), reverse=True)
    return max(level, counted[rank - 1]) if len(counted) >= rank else level


def reference_verdict(levels, fitness: np.ndarray, config: EvolutionConfig):
    """The thresholds; who survives T1, T1 + T2, and has a fitness at the end; and the fittest, or None."""
    living = list(range(len(fitness)))
    first = reference_threshold(levels[0], [fitness[i, 0] for i in living], config.first_rank)
    after_first = [i for i in living if math.isfinite(fitness[i, 0]) and not fitness[i, 0] < first]
    second = reference_threshold(levels[1], [fitness[i, 1] for i in after_first], config.second_rank)
    after_second = [i for i in after_first if math.isfinite(fitness[i, 1]) and not fitness[i, 1] < second]
    finished = [i for i in after_second if math.isfinite(fitness[i, 2])]
    fittest = max(finished, key=lambda i: (fitness[i, 2], -i)) if finished else None
    return (first, second), (after_first, after_second, finished), fittest


def spared_verdict(levels, fitness: np.ndarray):
    """As `reference_verdict`, where thresholds neither apply nor rise."""
    measured = np.isfinite(fitness).cumprod(axis=1).astype(bool)
    survivors = tuple(np.flatnonzero(measured[:, landmark]).tolist() for landmark in range(3))
    fittest = max(survivors[-1], key=lambda i: (fitness[i, 2], -i)) if survivors[-1] else None
    return levels, survivors, fittest


@given(fitness=fitness_of(6), alive=st.lists(st.booleans(), min_size=6, max_size=6), data=st.data())
def test_thresholds_and_extinction_agree_with_numpy(fitness, alive, data):
    rank, level = data.draw(st.integers(1, 7)), np.float32(data.draw(st.floats(0, 1, width=32, allow_subnormal=False)))
    values, living = fitness[:, 0], np.array(alive)
    new = eigen.update_threshold(jnp.asarray(level), jnp.asarray(values), jnp.asarray(alive), rank=rank)
    assert (new.dtype, new.shape) == (np.float32, ())
    assert new == reference_threshold(level, list(values[living]), rank)
    survivors = eigen.extinguish(new, jnp.asarray(values), jnp.asarray(alive))
    expected = [a and not math.isnan(f) and not f < new for a, f in zip(alive, values, strict=True)]
    np.testing.assert_array_equal(survivors, expected)


def test_ties_with_a_threshold_survive():
    values = jnp.asarray([0.5, 0.5, 0.25, 0.5, NAN, NONE], jnp.float32)
    level = eigen.update_threshold(jnp.float32(0), values, jnp.ones(6, bool), rank=2)
    assert level == 0.5
    np.testing.assert_array_equal(eigen.extinguish(level, values, jnp.ones(6, bool)), [1, 1, 0, 1, 0, 0])


@pytest.mark.parametrize("sizes", [(6, 3, 2), (1, 1, 1), (5, 5, 5)], ids=str)
@given(data=st.data())
def test_judgements_of_generations_agree_with_algorithm_1(sizes, data):
    config = EvolutionConfig(**dict(zip(("population_size", "first_rank", "second_rank"), sizes, strict=True)))
    state, levels = eigen.genesis(spec=SPEC, config=config), (np.float32(-np.inf), np.float32(-np.inf))
    for _ in range(3):
        fitness = data.draw(fitness_of(config.population_size))
        survival = eigen.survivors(state, jnp.asarray(fitness), config=config)
        levels, survivors, fittest = reference_verdict(levels, fitness, config)
        state = dataclasses.replace(state, thresholds=survival.thresholds)
        assert (state.thresholds.first, state.thresholds.second) == levels
        flags = survival.survives_first, survival.survives_second, survival.survives
        assert tuple(np.flatnonzero(survives).tolist() for survives in flags) == survivors
        if fittest is not None:
            assert survival.fittest == fittest


# The whole step.

SPEC = GenomeSpec(capacity=5, input_shape=(4, 4, 1))
CONFIG = EvolutionConfig(
    population_size=4,
    primary_steps=6,
    secondary_steps=1,
    first_rank=2,
    second_rank=1,
    saturation_gain=0.25,
    saturation_window=2,
    max_secondary_generations=2,
    max_duplication_generations=9,
)
LIMITED = dataclasses.replace(
    CONFIG,
    population_size=3,
    elitism=True,
    saturation_window=9,
    max_primary_generations=3,
    max_secondary_generations=0,
    max_duplication_generations=3,
    max_repeats=2,
    extinguish_duplicates=True,
)
SUCCESSION_ALONE = dataclasses.replace(CONFIG, max_primary_generations=1, max_duplication_generations=0)
TRACES: Counter[EvolutionConfig] = Counter()


@pytest.fixture(autouse=True, scope="module")
def counted_traces() -> Iterator[None]:
    """Counts how often a step is traced, and has it compiled in little time rather than for speed."""
    breed = eigen.breed

    def counted(*arguments, config, **settings):
        TRACES[config] += 1
        return breed(*arguments, config=config, **settings)

    with pytest.MonkeyPatch.context() as patch:
        # Python runs it when the step is traced, and at no other time.
        patch.setattr(eigen, "breed", counted)
        before = jax.config.read("jax_disable_most_optimizations")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", before)


class Reference:
    """A search's state but for genomes, as plain Python."""

    def __init__(self, config: EvolutionConfig):
        self.config = config
        self.generation, self.phase, self.lasted = 0, Phase.PRIMARY, 0
        self.levels = np.float32(NONE), np.float32(NONE)
        self.parent, self.parent_fitness = (-1, -1), np.float32(NONE)
        self.best, self.best_fitness = (-1, -1), np.float32(NONE)
        self.bests: list[np.float32] = []  # after each of the phase's generations

    def advance(self, fitness: np.ndarray, fits: Callable[[tuple[int, int]], bool]) -> None:
        """One generation; `fits` tells whether an individual has a combination of repeats that fits."""
        config = self.config
        spared = self.phase == Phase.DUPLICATION and not config.extinguish_duplicates
        verdict = spared_verdict if spared else partial(reference_verdict, config=config)
        self.levels, _, fittest = verdict(self.levels, fitness)
        if fittest is not None:
            winner, reached = (self.generation, fittest), fitness[fittest, 2]
            if not config.elitism or reached > self.parent_fitness:
                self.parent, self.parent_fitness = winner, reached
            if reached > self.best_fitness:
                self.best, self.best_fitness = winner, reached
        self.generation += 1
        self.lasted += 1
        window = config.saturation_window
        before = self.bests[-window] if len(self.bests) >= window else NONE
        saturated = math.isfinite(before) and self.best_fitness - before < np.float32(config.saturation_gain)
        limits = [
            config.max_primary_generations,
            config.max_secondary_generations,
            config.max_duplication_generations,
            0,
        ]
        self.bests.append(self.best_fitness)
        if saturated or self.lasted >= limits[self.phase]:
            self.phase = Phase(min(self.phase + 1, Phase.CONVERGED))
            if self.phase == Phase.SECONDARY and limits[Phase.SECONDARY] == 0:
                self.phase = Phase.DUPLICATION
            if self.phase == Phase.DUPLICATION and limits[Phase.DUPLICATION] == 0:
                self.phase = Phase.CONVERGED
            self.lasted, self.bests = 0, []
        if self.phase == Phase.DUPLICATION:
            if self.best != (-1, -1):
                self.parent, self.parent_fitness = self.best, self.best_fitness
            if self.best == (-1, -1) or not fits(self.best):
                self.phase, self.lasted, self.bests = Phase.CONVERGED, 0, []

    def check(self, state: EvolutionState) -> None:
        assert (state.generation, state.phase, state.phase_generation) == (self.generation, self.phase, self.lasted)
        assert (state.thresholds.first, state.thresholds.second) == self.levels
        assert (tuple(state.parent_id.tolist()), state.parent_fitness) == (self.parent, self.parent_fitness)
        assert (tuple(state.best_id.tolist()), state.best_fitness) == (self.best, self.best_fitness)
        window = self.config.saturation_window
        history = ([NONE] * window + self.bests)[-window:]
        np.testing.assert_array_equal(state.history, np.array(history, np.float32))


@jit
def repeat_all(genome: Genome, combinations: jax.Array) -> tuple[Genome, jax.Array]:
    return jax.vmap(partial(repeat_blocks, genome, find_blocks(genome, spec=SPEC), spec=SPEC))(combinations)


def fitting(genome: Genome, config: EvolutionConfig) -> dict[tuple[int, ...], Genome]:
    """The duplicates of a genome by their repeats."""
    combinations = list(itertools.product(range(1, config.max_repeats + 1), repeat=SPEC.max_level + 1))[1:]
    genomes, valid = jax.device_get(repeat_all(genome, np.array(combinations, np.int32)))
    return {combinations[index]: pick(genomes, index) for index in np.flatnonzero(valid).tolist()}


def check_children(state: EvolutionState, phase: Phase, config: EvolutionConfig) -> None:
    """That the population was made as the phase makes it."""
    population = state.population
    repeats = list(map(tuple, population.repeats.tolist()))
    if phase == Phase.DUPLICATION:
        assert not population.steps.any()
        assert not population.operators.any()
        expected = fitting(state.parent, config)
        made = [combination for combination in repeats if max(combination) > 1]
        assert len(made) == len(set(made)) == min(len(expected), config.population_size)
        for index, combination in enumerate(repeats):
            assert_equal(pick(population.genomes, index), expected.get(combination, state.parent))
    elif phase != Phase.CONVERGED:
        most = config.primary_steps if phase == Phase.PRIMARY else config.secondary_steps
        assert np.all((population.steps >= 1) & (population.steps <= most))
        np.testing.assert_array_equal(population.operators.sum(axis=1), population.steps)
        assert np.all(population.repeats == 1)


@pytest.mark.parametrize(
    "config",
    [CONFIG, LIMITED, pytest.param(SUCCESSION_ALONE, marks=pytest.mark.slow)],
    ids=["plain", "limited", "succession alone"],
)
# Without shrinking, which goes on for minutes where every example is a search.
@settings(max_examples=settings().max_examples // 2, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 100), fitness=st.lists(fitness_of(4), min_size=8, max_size=8))
def test_a_search_agrees_with_its_plain_python_transcription_and_is_traced_once(config, seed, fitness):
    root, expected = jax.random.key(seed), Reference(config)
    state = jax.device_get(initial_state(jax.random.fold_in(root, 0), spec=SPEC, config=config))
    expected.check(state)
    individuals = {(-1, -1): state.parent}
    for values in fitness:
        for index in range(config.population_size):
            individuals[expected.generation, index] = pick(state.population.genomes, index)
        values = values[: config.population_size]
        counted = values.copy()
        if expected.phase == Phase.DUPLICATION:
            # A slot that holds the parent is no child, whatever fitness is given for it.
            counted[(state.population.repeats == 1).all(axis=1)] = NAN
        expected.advance(counted, lambda individual: bool(fitting(individuals[individual], config)))
        key = jax.random.fold_in(root, expected.generation)
        state = jax.device_get(evolution_step(key, state, values, spec=SPEC, config=config))
        expected.check(state)
        assert_equal(state.parent, individuals[expected.parent])
        assert_equal(state.best, individuals[expected.best])
        check_children(state, expected.phase, config)
    assert TRACES[config] == 1


EVEN, NOBODY = [(0.5, 0.5, 0.5)] * 4, [(NAN, NAN, NAN)] * 4


def start() -> EvolutionState:
    return jax.device_get(initial_state(jax.random.key(0), spec=SPEC, config=CONFIG))


def step(state: EvolutionState, *rows: tuple[float, float, float], seed: int = 1) -> EvolutionState:
    fitness = np.array(rows, np.float32)
    return jax.device_get(evolution_step(jax.random.key(seed), state, fitness, spec=SPEC, config=CONFIG))


def test_a_search_starts_from_the_children_of_global_pooling():
    state = start()
    assert (int(state.generation), int(state.phase), int(state.phase_generation)) == (0, Phase.PRIMARY, 0)
    assert (float(state.thresholds.first), float(state.thresholds.second)) == (NONE, NONE)
    assert int(state.parent.length) == int(state.best.length) == 0
    assert state.parent_id.tolist() == state.best_id.tolist() == [-1] * 2
    assert len({steps.tobytes() for steps in np.asarray(state.population.operators)}) > 1


def test_a_generation_by_hand():
    state = start()
    # v1 is the second best of the first column, 0.5; among its survivors v2 is the best of the second, 0.75.
    following = step(state, (0.5, 0.5, 0.9), (0.25, 0.9, 0.95), (0.75, 0.75, 0.5), (0.5, 0.75, 0.625))
    assert (float(following.thresholds.first), float(following.thresholds.second)) == (0.5, 0.75)
    assert following.parent_id.tolist() == following.best_id.tolist() == [0, 3]
    assert float(following.parent_fitness) == 0.625
    assert_equal(following.parent, pick(state.population.genomes, 3))
    # Comma selection: a worse survivor is the next parent, and the best so far is kept.
    worse = step(following, *[(0.5, 0.75, 0.375)] * 4)
    assert (worse.parent_id.tolist(), worse.best_id.tolist()) == ([1, 0], [0, 3])


def test_with_elitism_a_parent_does_not_give_way_to_a_child_as_fit():
    state, even = initial_state(jax.random.key(0), spec=SPEC, config=LIMITED), np.array(EVEN[:3], np.float32)
    for seed in range(2):
        state = evolution_step(jax.random.key(seed), state, even, spec=SPEC, config=LIMITED)
    assert state.parent_id.tolist() == [0, 0]


def test_the_parent_stays_and_has_new_children_where_nobody_survives():
    state = step(start(), *EVEN)
    after = step(state, *[(0.25, 1, 1), (NAN, 1, 1), (NONE, NONE, NONE), (1, NAN, 1)], seed=2)
    assert_equal((after.parent, after.parent_id, after.parent_fitness), (state.parent, state.parent_id, 0.5))
    assert after.generation == state.generation + 1
    assert not np.array_equal(after.population.operators, state.population.operators)


def test_a_search_where_everything_fails_goes_on_from_global_pooling():
    state = start()
    for seed in range(4):
        state = step(state, *NOBODY, seed=seed)
    assert (int(state.parent.length), state.parent_id.tolist()) == (0, [-1, -1])
    assert (int(state.phase), int(state.phase_generation)) == (Phase.PRIMARY, 4)
    assert (float(state.thresholds.first), float(state.best_fitness)) == (NONE, NONE)


def test_children_are_made_of_the_parent_by_steps_of_the_phase():
    state = start()
    for seed in range(4):  # saturates
        state = step(state, *EVEN, seed=seed)
    assert int(state.phase) == Phase.SECONDARY
    parent = reference.to_network(state.parent)
    for index in range(4):
        operator = reference.OPERATORS[int(state.population.operators[index].argmax())]
        child = reference.to_network(pick(state.population.genomes, index))
        assert child in reference.outcomes(parent, operator, spec=SPEC)


def test_steps_are_uniform_from_one_to_the_most():
    drawn = [initial_state(jax.random.key(seed), spec=SPEC, config=CONFIG).population.steps for seed in range(150)]
    counts = np.bincount(np.concatenate(drawn), minlength=7)
    assert (counts[0], len(counts)) == (0, 7)
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


def test_a_step_is_a_function_of_its_arguments_and_every_child_of_its_index():
    state = start()
    first, again, other = step(state, *EVEN), step(state, *EVEN), step(state, *EVEN, seed=2)
    assert_equal(first, again)
    assert not np.array_equal(first.population.operators, other.population.operators)
    smaller = initial_state(jax.random.key(0), spec=SPEC, config=LIMITED)
    assert_equal(smaller.population, pick(state.population, slice(3)))


@pytest.mark.parametrize(
    ("history", "now", "saturated"),
    [
        ([NONE, 0.5, 0.5], 0.5, False),  # the window is not full
        ([0.5, 0.5, 0.5], 0.5, True),
        ([0.5, 0.625, 0.625], 0.75, False),  # a gain of 0.25 is not less than 0.25
        ([0.5, 0.625, 0.625], 0.74, True),
        ([0.5, 0.5, 0.5], 1.0, False),
        ([NONE, NONE, NONE], NONE, False),  # nothing has survived yet
    ],
)
def test_saturation_by_hand(history, now, saturated):
    assert eigen.is_saturated(jnp.asarray(history, jnp.float32), jnp.float32(now), gain=0.25) == saturated


def test_a_phase_ends_after_a_full_window_without_gain_or_at_its_limit_and_the_next_one_starts_afresh():
    state, phases = start(), []
    for best in (0.1, 0.3, 0.5, *[0.7] * 8):
        state = step(state, *[(0.5, 0.5, best)] * 4)
        phases.append((int(state.phase), int(state.phase_generation)))
    # Gains over two generations: 0.4, 0.4, 0.2 at the fifth, which ends the primary succession. The
    # secondary one ends after two, and duplication has a full window at its third.
    primary = [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert phases == [*primary, (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 0)]


# Duplication by hand, of chains of convolutions: one block, and five fill the genome.


def chain_of(length: int) -> Genome:
    return as_genome(tuple(reference.conv(position - 1) for position in range(length)), spec=SPEC)


def follow(lengths: tuple[int, ...], *generations) -> list[EvolutionState]:
    """The states after generations with these fitnesses, the two of secondary succession first, of chains so long."""
    state = start()
    population = dataclasses.replace(state.population, genomes=stack(list(map(chain_of, lengths))))
    state = dataclasses.replace(state, phase=jnp.int32(Phase.SECONDARY), population=population)
    return list(itertools.accumulate(generations, lambda before, rows: step(before, *rows), initial=state))[1:]


def test_the_fittest_so_far_is_duplicated():
    # Comma selection: the worse survivor of the second generation is no parent where duplication begins.
    first, second = follow((1, 2, 3, 0), [(0.5, 0.5, 0.75), *NOBODY[1:]], [*NOBODY[1:], (0.5, 0.5, 0.625)])
    assert (int(first.phase), first.parent_id.tolist()) == (Phase.SECONDARY, [0, 0])
    assert (int(second.phase), int(second.phase_generation)) == (Phase.DUPLICATION, 0)
    assert (second.parent_id.tolist(), float(second.parent_fitness)) == ([0, 0], 0.75)
    assert_equal(second.parent, chain_of(1))
    # Two combinations fit, and the rest of the four children are as their parent.
    assert sorted(second.population.repeats[:2].tolist()) == [[2, 1, 1], [3, 1, 1]]
    assert second.population.repeats[2:].tolist() == [[1, 1, 1]] * 2
    for index, (times, *_) in enumerate(second.population.repeats.tolist()):
        assert_equal(pick(second.population.genomes, index), chain_of(times))


def test_another_generation_of_duplication_starts_from_the_best_of_all():
    _, first = follow((1, 1, 1, 1), EVEN, NOBODY)
    twice = first.population.repeats[:, 0].tolist().index(2)
    found = [(0.75, 0.75, 0.75) if index == twice else (0.5, 0.5, 0.5) for index in range(4)]
    _, _, second, third = follow((1, 1, 1, 1), EVEN, NOBODY, found, [NOBODY[0], *[(1, 1, 1)] * 3])
    assert (int(second.phase), int(second.phase_generation)) == (Phase.DUPLICATION, 1)
    assert second.best_id.tolist() == second.parent_id.tolist() == [2, twice]
    assert_equal(second.parent, chain_of(2))
    # Twice two are four; three times two are more than the genome holds.
    assert second.population.repeats.tolist() == [[2, 1, 1], *[[1, 1, 1]] * 3]
    assert_equal(pick(second.population.genomes, 0), chain_of(4))
    # The other slots hold the parent, which is no child of its own: nobody survived.
    assert third.parent_id.tolist() == [2, twice]
    assert float(third.best_fitness) == 0.75
    assert (int(third.phase), int(third.phase_generation)) == (Phase.DUPLICATION, 2)


def test_slots_that_hold_the_parent_raise_no_threshold():
    generations = [EVEN, NOBODY]
    *_, before = follow((1, 0, 0, 0), *generations)
    assert eigen.is_child(before).tolist() == [True, True, False, False]
    assert eigen.is_child(dataclasses.replace(before, phase=jnp.int32(Phase.SECONDARY))).all()
    bred = [(0.75, 0.75, 0.75), (0.625, 0.625, 0.625)]
    *_, alone = follow((1, 0, 0, 0), *generations, [*bred, *NOBODY[:2]])
    *_, beside = follow((1, 0, 0, 0), *generations, [*bred, *[(0.875, 0.875, 0.875)] * 2])
    assert_equal(beside.thresholds, alone.thresholds)
    assert beside.best_id.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("lengths", "fitness"),
    [((3, 0, 0, 0), 0.5), ((0, 0, 0, 0), 0.5), ((1, 1, 1, 1), NAN)],
    ids=["nothing fits", "no block", "nothing survived"],
)
def test_duplication_is_passed_over_where_there_is_nothing_to_do(lengths, fitness):
    _, state = follow(lengths, [(fitness, fitness, fitness), *NOBODY[1:]], NOBODY)
    assert (int(state.phase), int(state.phase_generation)) == (Phase.CONVERGED, 0)
    assert np.all(state.population.repeats == 1)
    assert np.all(state.history == NONE)


def test_duplicates_below_the_thresholds_survive_and_raise_none():
    rows = np.array([(0.25, 0.125, 0.75), (0.75, 0.625, 0.5), (1, 1, 1), NOBODY[0]], np.float32)
    *states, last = follow((1, 0, 0, 0), EVEN, NOBODY, rows)
    assert [int(state.phase) for state in states] == [Phase.SECONDARY, Phase.DUPLICATION]
    assert [(float(each.thresholds.first), float(each.thresholds.second)) for each in (*states, last)] == [
        (0.5, 0.5)
    ] * 3
    assert (last.best_id.tolist(), float(last.best_fitness)) == ([2, 0], 0.75)
    spared = eigen.survivors(states[1], rows, config=CONFIG)
    assert spared.survives_first.tolist() == spared.survives.tolist() == [True, True, False, False]
    assert (spared.thresholds.first, spared.thresholds.second) == (NONE, NONE)
    judged = eigen.survivors(states[1], rows, config=dataclasses.replace(CONFIG, extinguish_duplicates=True))
    assert judged.survives.tolist() == [False, True, False, False]
    # Who failed is no survivor of any landmark.
    failed = eigen.survivors(states[1], np.where(rows == 0.625, NAN, rows), config=CONFIG)
    assert (failed.survives_first.tolist()[1], failed.survives_second.tolist()[1]) == (True, False)


@pytest.mark.parametrize("phase", [Phase.PRIMARY, Phase.SECONDARY])
def test_without_extinction_all_who_are_measured_go_on_and_thresholds_do_not_rise(phase):
    config = dataclasses.replace(CONFIG, extinction=False)
    state = dataclasses.replace(eigen.genesis(spec=SPEC, config=CONFIG), phase=jnp.int32(phase))
    fitness = np.array([(0.5, 0.5, 0.75), (0.25, 0.125, 1), (0.75, NAN, NAN), (0.5, 0.25, NAN)], np.float32)
    spared, judged = (eigen.survivors(state, fitness, config=each) for each in (config, CONFIG))
    assert judged.survives_first.tolist() == [True, False, True, True]
    assert spared.survives_first.tolist() == [True] * 4
    assert spared.survives_second.tolist() == [True, True, False, True]
    assert (spared.survives.tolist(), int(spared.fittest)) == ([True, True, False, False], 1)
    assert (spared.thresholds.first, spared.thresholds.second) == (NONE, NONE)
    strategy = Eigen(spec=SPEC, config=config)
    assert (strategy.spares(state), strategy.quota(state)) == (True, (4, 4))


LEAST: dict = {field.name: 1 for field in dataclasses.fields(EvolutionConfig) if field.type is not bool} | {
    "saturation_gain": 0,
    "max_secondary_generations": 0,
    "max_duplication_generations": 0,
    "max_repeats": 2,
    "secondary_from": 0,
    "duplication_from": 0,
    "redraws": 0,
    "min_flops_share": 0,
}
MOST = {"population_size": 10_000, "saturation_window": 10_000, "max_repeats": 16, "ahead": 10_000}
MOST |= {"redraws": 64, "min_flops_share": 1, "candidates": 64}


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *((name, least - 1, f"at least {least}") for name, least in LEAST.items() if name not in MOST),
        *((name, LEAST[name] - 1, f"from {LEAST[name]} to {most:,}") for name, most in MOST.items()),
        *((name, most + 1, f"from {LEAST[name]} to {most:,}") for name, most in MOST.items()),
        ("saturation_gain", -0.1, "at least 0"),
        ("saturation_gain", NAN, "a finite number"),
        ("first_rank", 11, "at most population_size, which is 10"),
        ("second_rank", 11, "at most population_size, which is 10"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(name, value, rule):
    with pytest.raises(ConfigError) as raised:
        Eigen(spec=SPEC, config=EvolutionConfig(**{name: value}))
    assert str(raised.value) == f"{name} is {value}; it must be {rule}"


def test_the_least_and_the_most_settings_are_accepted():
    assert EvolutionConfig(**LEAST)
    assert EvolutionConfig(**LEAST | MOST)


PRIMARY, SECONDARY, DUPLICATION, CONVERGED = Phase


@pytest.mark.parametrize(
    ("limits", "phase", "spent", "following"),
    [
        ({}, PRIMARY, 0.59, PRIMARY),
        ({}, PRIMARY, 0.6, SECONDARY),
        ({}, PRIMARY, 1.0, SECONDARY),
        ({}, SECONDARY, 0.89, SECONDARY),
        ({}, SECONDARY, 0.9, DUPLICATION),
        ({}, DUPLICATION, 1.0, DUPLICATION),
        ({"secondary_from": 0.2, "duplication_from": 0.3}, PRIMARY, 0.25, SECONDARY),
        ({"secondary_from": 0.2, "duplication_from": 0.3}, SECONDARY, 0.25, SECONDARY),
        ({"secondary_from": 0.2, "duplication_from": 0.3}, SECONDARY, 0.3, DUPLICATION),
        # To where the phase begins that does follow; to the end where none does.
        ({"max_secondary_generations": 0}, PRIMARY, 0.89, PRIMARY),
        ({"max_secondary_generations": 0}, PRIMARY, 0.9, DUPLICATION),
        ({"max_duplication_generations": 0}, PRIMARY, 0.6, SECONDARY),
        ({"max_duplication_generations": 0}, SECONDARY, 1.0, SECONDARY),
        ({"max_duplication_generations": 0, "max_secondary_generations": 0}, PRIMARY, 1.0, PRIMARY),
    ],
)
def test_a_phase_is_over_when_that_share_of_a_budget_is_spent_at_which_the_next_one_begins(
    limits, phase, spent, following
):
    config = EvolutionConfig(**{"max_duplication_generations": 2} | limits)
    strategy, none = Eigen(spec=SPEC, config=config), jnp.float32(NONE)
    state = dataclasses.replace(strategy.genesis(), phase=jnp.int32(phase), phase_generation=jnp.int32(0))
    told = strategy.spend(strategy.spend(state, jnp.float32(0)), jnp.float32(spent))
    assert float(told.spent) == np.float32(spent)
    stage = eigen._next_stage(told, none, config)
    assert int(stage["phase"]) == following
    assert int(stage["phase_generation"]) == int(phase == following)
    # Without a budget no phase ends by its share.
    assert int(eigen._next_stage(state, none, config)["phase"]) == phase


def test_a_step_keeps_what_is_spent_and_is_otherwise_the_same():
    config = dataclasses.replace(CONFIG, sample_size=CONFIG.sample_size + 1)  # whose traces nobody else counts
    state, key, fitness = start(), jax.random.key(1), np.array(EVEN, np.float32)
    told = Eigen(spec=SPEC, config=config).spend(state, jnp.float32(0.25))
    after, plain = (evolution_step(key, each, fitness, spec=SPEC, config=config) for each in (told, state))
    assert isinstance(after, BudgetedState)
    assert float(after.spent) == 0.25
    for field in dataclasses.fields(EvolutionState):
        assert_equal(getattr(after, field.name), getattr(plain, field.name))


def test_of_several_objectives_the_first_counts(monkeypatch):
    state = start()
    for name in ("breed", "breed_duplicates"):  # which cost the most to compile, and see no fitness
        monkeypatch.setattr(eigen, name, lambda *_, **__: state.population)
    config = dataclasses.replace(CONFIG, saturation_window=len(state.history), primary_steps=77)  # no other test's
    one = np.random.default_rng(0).random((CONFIG.population_size, 3, 1), np.float32)
    several = np.concatenate([one, one[::-1], -one], axis=2)
    args = jax.random.key(1), state
    following = [evolution_step(*args, jnp.asarray(each), spec=SPEC, config=config) for each in (one, several)]
    assert_equal(*following)
    assert following[0].best_fitness == one[following[0].best_id[1], 2, 0] > 0
