"""Extinction against Equations 1 and 2 and Algorithm 1 in NumPy; selection, succession, one trace."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_mutation as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eigen_jax import evolution
from eigen_jax.duplication import repeat_blocks
from eigen_jax.evolution import (
    EvolutionConfig,
    EvolutionConfigError,
    EvolutionState,
    Phase,
    Thresholds,
    breed,
    children,
    evolution_step,
    extinguish,
    initial_state,
    is_saturated,
    survival_selection,
    update_threshold,
)
from eigen_jax.genome import Genome, GenomeSpec, is_valid
from eigen_jax.mutation import Operator

NAN, NONE = math.nan, -math.inf

# Few levels, so that ties are frequent; every value is a float32.
FITNESS = st.one_of(
    st.sampled_from([NAN, NONE, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0]), st.floats(0, 1, width=32, allow_subnormal=False)
)
LEVEL = st.floats(0, 1, width=32, allow_subnormal=False)


def fitness_of(population: int) -> st.SearchStrategy[np.ndarray]:
    row = st.tuples(FITNESS, FITNESS, FITNESS)
    return st.lists(row, min_size=population, max_size=population).map(lambda rows: np.array(rows, np.float32))


# Equations 1 and 2 and Algorithm 1, transcribed.


def reference_threshold(level: np.float32, values: list[np.float32], rank: int) -> np.float32:
    counted = sorted((value for value in values if math.isfinite(value)), reverse=True)
    return max(level, counted[rank - 1]) if len(counted) >= rank else level


@dataclasses.dataclass
class ReferenceVerdict:
    levels: tuple[np.float32, np.float32]
    survivors: tuple[list[int], list[int], list[int]]  # after T1, after T1 + T2, with a fitness at the end
    fittest: int | None


def reference_verdict(levels, fitness: np.ndarray, config: EvolutionConfig) -> ReferenceVerdict:
    living = list(range(len(fitness)))
    first = reference_threshold(levels[0], [fitness[i, 0] for i in living], config.first_rank)
    after_first = [i for i in living if not math.isnan(fitness[i, 0]) and not fitness[i, 0] < first]
    second = reference_threshold(levels[1], [fitness[i, 1] for i in after_first], config.second_rank)
    after_second = [i for i in after_first if not math.isnan(fitness[i, 1]) and not fitness[i, 1] < second]
    finished = [i for i in after_second if math.isfinite(fitness[i, 2])]
    fittest = max(finished, key=lambda i: (fitness[i, 2], -i)) if finished else None
    return ReferenceVerdict((first, second), (after_first, after_second, finished), fittest)


@given(level=LEVEL, fitness=fitness_of(6), alive=st.lists(st.booleans(), min_size=6, max_size=6), data=st.data())
def test_thresholds_and_extinction_agree_with_numpy(level, fitness, alive, data):
    rank = data.draw(st.integers(1, 6))
    values, level, living = fitness[:, 0], np.float32(level), np.array(alive)
    new = update_threshold(jnp.asarray(level), jnp.asarray(values), jnp.asarray(alive), rank=rank)
    assert (new.dtype, new.shape) == (np.float32, ())
    assert new == reference_threshold(level, list(values[living]), rank)
    assert new >= level
    survivors = extinguish(new, jnp.asarray(values), jnp.asarray(alive))
    expected = [a and not math.isnan(f) and not f < new for a, f in zip(alive, values, strict=True)]
    np.testing.assert_array_equal(survivors, expected)


def test_a_rank_past_the_population_leaves_the_threshold():
    values = jnp.asarray([0.5, 0.75], jnp.float32)
    assert update_threshold(jnp.float32(0.25), values, jnp.ones(2, bool), rank=3) == 0.25


def test_ties_with_a_threshold_survive():
    values = jnp.asarray([0.5, 0.5, 0.25, 0.5, NAN, NONE], jnp.float32)
    level = update_threshold(jnp.float32(0), values, jnp.ones(6, bool), rank=2)
    assert level == 0.5
    np.testing.assert_array_equal(extinguish(level, values, jnp.ones(6, bool)), [1, 1, 0, 1, 0, 0])


VERDICTS = [
    EvolutionConfig(population_size=6, first_rank=3, second_rank=2),
    EvolutionConfig(population_size=1, first_rank=1, second_rank=1),
    EvolutionConfig(population_size=5, first_rank=5, second_rank=5),
]


@pytest.mark.parametrize("config", VERDICTS, ids=lambda config: str(config.population_size))
@given(data=st.data())
def test_judgements_of_generations_agree_with_algorithm_1(config, data):
    thresholds, levels = Thresholds(jnp.float32(0), jnp.float32(0)), (np.float32(0), np.float32(0))
    for _ in range(3):
        fitness = data.draw(fitness_of(config.population_size))
        survival = survival_selection(thresholds, jnp.asarray(fitness), config=config)
        expected = reference_verdict(levels, fitness, config)
        new_levels = survival.thresholds.first, survival.thresholds.second
        assert new_levels == expected.levels
        assert new_levels[0] >= levels[0]
        assert new_levels[1] >= levels[1]
        for flags, survivors in zip(
            (survival.survives_first, survival.survives_second, survival.survives), expected.survivors, strict=True
        ):
            assert np.flatnonzero(flags).tolist() == survivors
        if expected.fittest is not None:
            assert survival.fittest == expected.fittest
        thresholds, levels = survival.thresholds, expected.levels


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
)
LIMITED = dataclasses.replace(
    CONFIG,
    elitism=True,
    saturation_window=9,
    max_primary_generations=3,
    max_secondary_generations=2,
    max_duplication_generations=3,
    max_repeats=2,
)
SUCCESSION_ALONE = dataclasses.replace(
    CONFIG, population_size=3, max_primary_generations=1, max_duplication_generations=0
)


class Reference:
    """A search's state but for genomes, as plain Python."""

    def __init__(self, config: EvolutionConfig):
        self.config = config
        self.generation, self.phase, self.lasted = 0, Phase.PRIMARY, 0
        self.levels = np.float32(0), np.float32(0)
        self.parent, self.parent_fitness = (-1, -1), np.float32(NONE)
        self.best, self.best_fitness = (-1, -1), np.float32(NONE)
        self.bests: list[np.float32] = []  # after each of the phase's generations

    def advance(self, fitness: np.ndarray, fits: Callable[[tuple[int, int]], bool]) -> None:
        """One generation; `fits` tells whether an individual has a combination of repeats that fits."""
        survival = reference_verdict(self.levels, fitness, self.config)
        self.levels = survival.levels
        if survival.fittest is not None:
            winner, reached = (self.generation, survival.fittest), fitness[survival.fittest, 2]
            if not self.config.elitism or reached > self.parent_fitness:
                self.parent, self.parent_fitness = winner, reached
            if reached > self.best_fitness:
                self.best, self.best_fitness = winner, reached
        self.generation += 1
        self.lasted += 1
        window = self.config.saturation_window
        before = self.bests[-window] if len(self.bests) >= window else NONE
        saturated = math.isfinite(before) and self.best_fitness - before < np.float32(self.config.saturation_gain)
        limits = {
            Phase.PRIMARY: self.config.max_primary_generations,
            Phase.SECONDARY: self.config.max_secondary_generations,
            Phase.DUPLICATION: self.config.max_duplication_generations,
            Phase.CONVERGED: 0,
        }
        self.bests.append(self.best_fitness)
        if saturated or self.lasted >= limits[self.phase]:
            self.phase = Phase(min(self.phase + 1, Phase.CONVERGED))
            if self.phase == Phase.SECONDARY and limits[Phase.SECONDARY] == 0:
                self.phase = Phase.DUPLICATION
            if self.phase == Phase.DUPLICATION and limits[Phase.DUPLICATION] == 0:
                self.phase = Phase.CONVERGED
            self.lasted, self.bests = 0, []
        if self.phase == Phase.DUPLICATION:
            if self.best == (-1, -1):
                self.phase, self.lasted, self.bests = Phase.CONVERGED, 0, []
            else:
                self.parent, self.parent_fitness = self.best, self.best_fitness
                if not fits(self.best):
                    self.phase, self.lasted, self.bests = Phase.CONVERGED, 0, []

    def check(self, state: EvolutionState) -> None:
        assert (state.generation, state.phase, state.phase_generation) == (self.generation, self.phase, self.lasted)
        assert (state.thresholds.first, state.thresholds.second) == self.levels
        assert (tuple(state.parent_id.tolist()), state.parent_fitness) == (self.parent, self.parent_fitness)
        assert (tuple(state.best_id.tolist()), state.best_fitness) == (self.best, self.best_fitness)
        window = self.config.saturation_window
        history = ([NONE] * window + self.bests)[-window:]
        np.testing.assert_array_equal(state.history, np.array(history, np.float32))


def pick(genomes: Genome, index: int) -> Genome:
    return jax.tree.map(lambda leaf: leaf[index], genomes)


def assert_equal(first, second) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def all_repeats(spec: GenomeSpec, most: int) -> list[tuple[int, ...]]:
    """Every combination but the one of ones."""
    return list(itertools.product(range(1, most + 1), repeat=spec.max_level + 1))[1:]


@functools.partial(jax.jit, static_argnames="spec")
def repeat_all(genome: Genome, repeats, *, spec: GenomeSpec = SPEC) -> tuple[Genome, jax.Array]:
    return jax.vmap(lambda combination: repeat_blocks(genome, combination, spec=spec))(repeats)


def fitting(genome: Genome, config: EvolutionConfig) -> dict[tuple[int, ...], Genome]:
    """The duplicates of a genome by their repeats."""
    combinations = all_repeats(SPEC, config.max_repeats)
    genomes, valid = repeat_all(genome, jnp.asarray(combinations, jnp.int32))
    genomes = jax.device_get(genomes)
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
        genomes = jax.device_get(population.genomes)
        for index, combination in enumerate(repeats):
            assert_equal(pick(genomes, index), expected.get(combination, state.parent))
    elif phase != Phase.CONVERGED:
        most = config.primary_steps if phase == Phase.PRIMARY else config.secondary_steps
        assert np.all((population.steps >= 1) & (population.steps <= most))
        np.testing.assert_array_equal(population.operators.sum(axis=1), population.steps)
        assert np.all(population.repeats == 1)


@pytest.mark.parametrize(
    "config",
    [CONFIG, LIMITED, SUCCESSION_ALONE],
    ids=["plain", "limited", "succession alone"],
)
@settings(max_examples=30)
@given(seed=st.integers(0, 100), fitness=st.lists(fitness_of(4), min_size=8, max_size=8))
def test_a_search_agrees_with_its_plain_python_transcription(config, seed, fitness):
    root = jax.random.key(seed)
    state, expected = initial_state(jax.random.fold_in(root, 0), spec=SPEC, config=config), Reference(config)
    expected.check(state)
    individuals = {(-1, -1): state.parent}
    for values in fitness:
        for index in range(config.population_size):
            individuals[expected.generation, index] = pick(state.population.genomes, index)
        values = np.asarray(values[: config.population_size], np.float32)
        counted = values.copy()
        if expected.phase == Phase.DUPLICATION:
            # A slot that holds the parent is no child, whatever fitness is given for it.
            counted[[max(times) == 1 for times in state.population.repeats.tolist()]] = NAN
        expected.advance(counted, lambda individual: bool(fitting(individuals[individual], config)))
        key = jax.random.fold_in(root, expected.generation)
        state = evolution_step(key, state, jnp.asarray(values), spec=SPEC, config=config)
        expected.check(state)
        assert_equal(state.parent, individuals[expected.parent])
        assert_equal(state.best, individuals[expected.best])
        check_children(state, expected.phase, config)


def test_a_search_is_traced_once(monkeypatch):
    traces = []

    def counted(*arguments, **settings):
        traces.append(arguments)
        return breed(*arguments, **settings)

    # Python runs it when the step is traced, and at no other time.
    monkeypatch.setattr(evolution, "breed", counted)
    spec = dataclasses.replace(SPEC, capacity=60)  # so that there is something to duplicate
    config = dataclasses.replace(
        SUCCESSION_ALONE,
        saturation_gain=0,
        max_primary_generations=4,
        max_secondary_generations=3,
        max_duplication_generations=2,
    )
    state = initial_state(jax.random.key(0), spec=spec, config=config)
    phases = []
    for generation in range(10):
        values = np.full((3, 3), 0.1 * generation, np.float32)
        state = evolution_step(jax.random.key(generation), state, jnp.asarray(values), spec=spec, config=config)
        phases.append(int(state.phase))
    assert phases == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert len(traces) == 1


def start() -> EvolutionState:
    return initial_state(jax.random.key(0), spec=SPEC, config=CONFIG)


def step(state: EvolutionState, *rows: tuple[float, float, float], seed: int = 1) -> EvolutionState:
    fitness = jnp.asarray(rows, jnp.float32)
    return evolution_step(jax.random.key(seed), state, fitness, spec=SPEC, config=CONFIG)


def test_a_search_starts_from_the_children_of_global_pooling():
    state = start()
    assert (int(state.generation), int(state.phase), int(state.phase_generation)) == (0, Phase.PRIMARY, 0)
    assert (float(state.thresholds.first), float(state.thresholds.second)) == (0, 0)
    assert int(state.parent.length) == int(state.best.length) == 0
    assert state.parent_id.tolist() == state.best_id.tolist() == [EvolutionState.NONE] * 2
    assert np.all(jax.vmap(lambda genome: is_valid(genome, spec=SPEC))(state.population.genomes))
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


def test_the_parent_stays_and_has_new_children_where_nobody_survives():
    state = step(start(), *[(0.5, 0.5, 0.5)] * 4)
    after = step(state, *[(0.25, 1, 1), (NAN, 1, 1), (NONE, NONE, NONE), (1, NAN, 1)], seed=2)
    assert_equal((after.parent, after.parent_id, after.parent_fitness), (state.parent, state.parent_id, 0.5))
    assert after.generation == state.generation + 1
    assert not np.array_equal(after.population.operators, state.population.operators)


def test_a_search_where_everything_fails_goes_on_from_global_pooling():
    state = start()
    for seed in range(4):
        state = step(state, *[(NAN, NAN, NAN)] * 4, seed=seed)
    assert int(state.parent.length) == 0
    assert state.parent_id.tolist() == [-1, -1]
    assert (int(state.phase), int(state.phase_generation)) == (Phase.PRIMARY, 4)
    assert (float(state.thresholds.first), float(state.best_fitness)) == (0, NONE)


def test_children_are_made_of_the_parent_by_steps_of_the_phase():
    state = start()
    for seed in range(4):  # saturates
        state = step(state, *[(0.5, 0.5, 0.5)] * 4, seed=seed)
    assert int(state.phase) == Phase.SECONDARY
    parent = reference.to_network(state.parent)
    for index in range(4):
        operator = Operator(int(state.population.operators[index].argmax()))
        child = reference.to_network(pick(state.population.genomes, index))
        assert child in reference.outcomes(parent, operator, spec=SPEC)


def test_steps_are_uniform_from_one_to_the_most():
    drawn = [initial_state(jax.random.key(seed), spec=SPEC, config=CONFIG).population.steps for seed in range(150)]
    counts = np.bincount(np.concatenate(drawn), minlength=7)
    assert (counts[0], len(counts)) == (0, 7)
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


def test_a_step_is_a_function_of_its_arguments_and_every_child_of_its_index():
    state, rows = start(), [(0.5, 0.5, 0.5)] * 4
    first, second = step(state, *rows), step(state, *rows)
    assert_equal(first, second)
    assert not np.array_equal(first.population.operators, step(state, *rows, seed=2).population.operators)
    smaller = initial_state(jax.random.key(0), spec=SPEC, config=SUCCESSION_ALONE)
    assert_equal(smaller.population, jax.tree.map(lambda leaf: leaf[:3], state.population))


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
    assert is_saturated(jnp.asarray(history, jnp.float32), jnp.float32(now), gain=0.25) == saturated


def test_a_phase_ends_after_a_full_window_without_gain_and_the_next_one_starts_afresh():
    state, phases = start(), []
    for best in (0.1, 0.3, 0.5, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7):
        state = step(state, *[(0.5, 0.5, best)] * 4)
        phases.append((int(state.phase), int(state.phase_generation)))
    # Gains over two generations: 0.4, 0.4, 0.2 at the fifth, which ends the primary succession. The
    # secondary one has a full window at its third.
    primary = [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert phases == [*primary, (1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (3, 0)]


# Duplication by hand: of chains of convolutions at 1 x 1, the one block that there is, and four fill the genome.

CHAIN = GenomeSpec(capacity=4, channels=(16,), kernels=(1,), strides=(1,), input_shape=(1, 1, 1))
QUICK = dataclasses.replace(
    CONFIG, max_primary_generations=2, max_secondary_generations=0, max_duplication_generations=3
)
NOBODY = [(NAN, NAN, NAN)] * 4


def chain_of(length: int) -> Genome:
    network = tuple(reference.conv(position - 1) for position in range(length))
    return jax.tree.map(jnp.asarray, reference.to_genome(network, capacity=CHAIN.capacity))


def follow(lengths: tuple[int, ...], *generations) -> list[EvolutionState]:
    """The states after generations with these fitnesses, of which the first is of chains so long."""
    state = initial_state(jax.random.key(0), spec=CHAIN, config=QUICK)
    genomes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(chain_of, lengths))
    state = dataclasses.replace(state, population=dataclasses.replace(state.population, genomes=genomes))
    states = []
    for seed, rows in enumerate(generations):
        state = evolution_step(jax.random.key(seed), state, jnp.asarray(rows, jnp.float32), spec=CHAIN, config=QUICK)
        states.append(state)
    return states


def test_the_fittest_so_far_is_duplicated():
    # Comma selection: the worse survivor of the second generation is no parent where duplication begins.
    first, second = follow((1, 2, 3, 0), [(0.5, 0.5, 0.75), *NOBODY[1:]], [*NOBODY[1:], (0.5, 0.5, 0.625)])
    assert (int(first.phase), first.parent_id.tolist()) == (Phase.PRIMARY, [0, 0])
    assert (int(second.phase), int(second.phase_generation)) == (Phase.DUPLICATION, 0)
    assert (second.parent_id.tolist(), float(second.parent_fitness)) == ([0, 0], 0.75)
    assert_equal(second.parent, chain_of(1))
    # Two combinations fit, and the rest of the four children are as their parent.
    assert sorted(second.population.repeats[:2].tolist()) == [[2], [3]]
    assert second.population.repeats[2:].tolist() == [[1], [1]]
    for index, (times,) in enumerate(second.population.repeats.tolist()):
        assert_equal(pick(second.population.genomes, index), chain_of(times))
    assert not second.population.steps.any()
    assert not second.population.operators.any()


def test_another_generation_of_duplication_starts_from_the_best_of_all():
    _, first = follow((1, 1, 1, 1), [(0.5, 0.5, 0.5)] * 4, NOBODY)
    twice = first.population.repeats[:, 0].tolist().index(2)
    found = [(0.75, 0.75, 0.75) if index == twice else (0.5, 0.5, 0.5) for index in range(4)]
    _, _, second, third = follow((1, 1, 1, 1), [(0.5, 0.5, 0.5)] * 4, NOBODY, found, [NOBODY[0], *[(1, 1, 1)] * 3])
    assert (int(second.phase), int(second.phase_generation)) == (Phase.DUPLICATION, 1)
    assert second.best_id.tolist() == second.parent_id.tolist() == [2, twice]
    assert_equal(second.parent, chain_of(2))
    # Twice two are four; three times two are more than the genome holds.
    assert second.population.repeats.tolist() == [[2], [1], [1], [1]]
    assert_equal(pick(second.population.genomes, 0), chain_of(4))
    # The other slots hold the parent, which is no child of its own: nobody survived.
    assert third.parent_id.tolist() == [2, twice]
    assert float(third.best_fitness) == 0.75
    assert (int(third.phase), int(third.phase_generation)) == (Phase.DUPLICATION, 2)


def test_slots_that_hold_the_parent_raise_no_threshold():
    generations = [[(0.5, 0.5, 0.5)] * 4, NOBODY]
    *_, before = follow((1, 0, 0, 0), *generations)
    assert children(before).tolist() == [True, True, False, False]
    assert children(dataclasses.replace(before, phase=jnp.asarray(Phase.SECONDARY, jnp.int32))).all()
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


def test_thresholds_rise_and_extinguish_in_duplication_too():
    states = follow(
        (1, 0, 0, 0),
        [(0.5, 0.5, 0.5)] * 4,
        NOBODY,
        [(0.625, 0.5, 0.5), (0.75, 0.625, 0.75), (0.5, 1, 1), NOBODY[0]],
    )
    assert [float(state.thresholds.first) for state in states] == [0.5, 0.5, 0.625]
    assert [float(state.thresholds.second) for state in states] == [0.5, 0.5, 0.625]
    assert [int(state.phase) for state in states[:2]] == [Phase.PRIMARY, Phase.DUPLICATION]
    assert (states[2].best_id.tolist(), float(states[2].best_fitness)) == ([2, 1], 0.75)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"population_size": 0}, "population_size is 0; it must be at least 1"),
        ({"primary_steps": 0}, "primary_steps is 0; it must be at least 1"),
        ({"secondary_steps": -1}, "secondary_steps is -1; it must be at least 1"),
        ({"first_rank": 0}, "first_rank is 0; it must be at least 1"),
        ({"second_rank": 0}, "second_rank is 0; it must be at least 1"),
        ({"saturation_gain": -0.1}, "saturation_gain is -0.1; it must be at least 0"),
        ({"saturation_gain": NAN}, "saturation_gain is nan; it must be at least 0"),
        ({"saturation_window": 0}, "saturation_window is 0; it must be at least 1"),
        ({"max_primary_generations": 0}, "max_primary_generations is 0; it must be at least 1"),
        ({"max_secondary_generations": -1}, "max_secondary_generations is -1; it must be at least 0"),
        ({"max_duplication_generations": -1}, "max_duplication_generations is -1; it must be at least 0"),
        ({"max_repeats": 1}, "max_repeats is 1; it must be at least 2"),
        ({"max_repeats": 17}, "max_repeats is 17; it must be at most 16"),
        ({"population_size": 10_001}, "population_size is 10001; it must be at most 10000"),
        ({"first_rank": 11}, "first_rank (p) is 11; it must be at most population_size, which is 10"),
        ({"second_rank": 11}, "second_rank (q) is 11; it must be at most population_size, which is 10"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(setting, line):
    with pytest.raises(EvolutionConfigError) as raised:
        EvolutionConfig(**setting)
    assert str(raised.value) == line


def test_the_least_settings_are_accepted():
    least = EvolutionConfig(population_size=1, first_rank=1, second_rank=1, saturation_gain=0)
    assert dataclasses.replace(
        least,
        max_secondary_generations=0,
        max_duplication_generations=0,
        max_repeats=2,
        elitism=False,
        saturation_window=1,
    )
