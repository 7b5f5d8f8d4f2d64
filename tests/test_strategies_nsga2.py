"""NSGA-II against its definitions in plain Python."""

import math

import hypothesis
import jax
import numpy as np
import pytest
from host_loop import CONFIG, NOBODY, SPEC, Place, key_of, landscape, search
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array
from mutation_checks import jit

from eigen_jax.strategies import Nsga2
from eigen_jax.strategies.nsga2 import crowding_distance, front_ranks

# Few levels, so that ties are frequent; no subnormal numbers, which XLA takes for zero.
OBJECTIVE = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 0.5, 1.0, -1.0]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32).map(
        lambda value: value if abs(value) > 1e-30 else 0.0
    ),
)


@st.composite
def fitnesses(draw: st.DrawFn, *, number: int = 7) -> np.ndarray:
    """[N, M], with equal rows."""
    row = st.tuples(*[OBJECTIVE] * draw(st.integers(1, 3)))
    rows = draw(st.lists(row, min_size=1, max_size=number))
    return np.array([rows[draw(st.integers(0, len(rows) - 1))] for _ in range(number)], np.float32)


def reference_ranks(fitness: np.ndarray) -> list[int]:
    """Each front is those whom none of the others left dominates; failures come last."""
    points = {i: row.tolist() for i, row in enumerate(fitness) if np.isfinite(row).all()}
    ranks, front = [-1] * len(fitness), 0

    def dominates(one: list[float], other: list[float]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    while points:
        best = [i for i, point in points.items() if not any(dominates(other, point) for other in points.values())]
        for i in best:
            ranks[i] = front
            del points[i]
        front += 1
    return [front if rank < 0 else rank for rank in ranks]


def reference_distances(fitness: np.ndarray, ranks: list[int]) -> list[float]:
    """Between the next lower and the next higher in the front; of equals, the first is next to both."""
    points = [row.tolist() if np.isfinite(row).all() else [0.0] * len(row) for row in fitness]
    distances = []
    for i, point in enumerate(points):
        front = [j for j in range(len(points)) if ranks[j] == ranks[i]]
        distance = 0.0
        for m, value in enumerate(point):
            span = max(points[j][m] for j in front) - min(points[j][m] for j in front)
            equal_before = any(points[j][m] == value and j < i for j in front)
            lower = [points[j][m] for j in front if points[j][m] < value]
            higher = [points[j][m] for j in front if points[j][m] > value]
            if not equal_before:
                distance += (min(higher) - max(lower)) / span if lower and higher else math.inf
        distances.append(distance)
    return distances


@jit
def judge(fitness: Array) -> tuple[Array, Array]:
    ranks = front_ranks(fitness)
    return ranks, crowding_distance(fitness, ranks)


@given(fitness=fitnesses())
def test_fronts_and_distances_agree_with_their_definitions(fitness):
    ranks, distances = judge(fitness)
    assert (ranks.dtype, distances.dtype) == (np.int32, np.float32)
    assert ranks.tolist() == reference_ranks(fitness)
    np.testing.assert_allclose(distances, reference_distances(fitness, ranks.tolist()), rtol=1e-5, atol=1e-6)


INF = math.inf


@pytest.mark.parametrize(
    ("rows", "ranks", "distances"),
    [
        # The third stands in the middle of its front; the next is dominated, equal to the first, and a failure.
        ([(0, 8), (8, 0), (2, 4), (1, 3), (0, 8), (-INF, 9)], [0, 0, 0, 1, 0, 2], [INF, INF, 2, INF, 0, INF]),
        ([(0, 8, 1), (8, 0, 1), (2, 4, 1), (4, 2, 1)], [0] * 4, [INF, INF, 0.5 + 0.75, 0.75 + 0.5]),
        ([(3,)], [0], [INF]),
        ([(1, 1)] * 3, [0, 0, 0], [INF, 0, 0]),
        ([(2,), (3,), (2,), (3,)], [1, 0, 1, 0], [INF, INF, 0, 0]),
        ([(-INF,), (math.nan,), (INF,)], [0, 0, 0], [INF, 0, 0]),
        ([(-3e38, 3e38), (3e38, -3e38), (0, 0)], [0, 0, 0], [INF, INF, 2]),
    ],
    ids=["all", "one objective the same", "one", "equals", "one objective", "failures alone", "the most that there is"],
)
def test_fronts_and_distances_by_hand(rows, ranks, distances):
    given_ranks, given_distances = judge(np.array(rows, np.float32))
    assert (given_ranks.tolist(), given_distances.tolist()) == (ranks, distances)


def nsga2(objectives: int) -> Nsga2:
    return Nsga2(spec=SPEC, config=CONFIG, objectives=objectives)


@pytest.mark.parametrize(
    "objectives", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 3))], ids=str
)
@settings(max_examples=settings().max_examples // 4, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 100))
def test_a_search_agrees_with_its_plain_python_transcription(objectives, seed):
    strategy, size = nsga2(objectives), CONFIG.population_size
    done = search(strategy, landscape(seed, objectives), seed=seed)
    elite: list[Place] = [NOBODY] * size
    children: list[Place] = [NOBODY] * size
    for generation, state in enumerate(done.states):
        rivals = elite + children
        failure = np.full((1, objectives), -np.inf, np.float32)
        # Of so few levels, every sum and quotient is exact.
        fitness = np.concatenate([done.fitness.get(place, failure) for place in rivals])
        ranks = reference_ranks(fitness)
        distances = reference_distances(fitness, ranks)
        best = sorted(range(2 * size), key=lambda i: (ranks[i], -distances[i], i))[:size]
        key_tournament, key_breed = jax.random.split(key_of(seed, generation))
        drawn = jax.random.randint(key_tournament, (size, 2), 0, size).tolist()
        children = [place for place in done.fitness if place[0] == generation]
        for place, contenders in zip(children, drawn, strict=False):
            key = jax.random.fold_in(key_breed, place[1])
            done.check_child(place, rivals[best[min(contenders)]], key)
        elite = [rivals[i] for i in sorted(best)]
        assert list(map(tuple, state.elite.places.tolist())) == elite
        children += [NOBODY] * (size - len(children))


def test_where_all_fail_children_go_on_to_descend_from_global_pooling():
    done = search(nsga2(2), lambda architecture: np.full(2, -np.inf, np.float32))
    assert len(done.individuals) == CONFIG.max_children
    assert {done.parent(place) for place in done.individuals} == {NOBODY}


def test_names():
    strategy = nsga2(2)
    state = strategy.genesis()
    assert strategy.phase(state) == "nsga2"
    assert strategy.title(state) == "NSGA-II: the better of two of the best 5, up to 2 mutation steps a child"
