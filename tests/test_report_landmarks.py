"""How landmarks rank: correlations against SciPy's, replays against Algorithm 1 in plain Python, tables by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_data import individual, reached
from scipy import stats

from eigen_jax.architecture import Architecture, Layer
from eigen_jax.lineage import Fate, Individual, Landmark, Reference
from eigen_jax.report import Measured, ReportError, Table, to_markdown
from eigen_jax.report.landmarks import is_full, kendall, replay, spearman, study_landmarks

LEVELS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # few, so that ties are frequent


@given(pairs=st.lists(st.tuples(LEVELS, LEVELS), min_size=3, max_size=20))
def test_rank_correlations_are_scipys(pairs):
    first, second = np.array(pairs).T
    if min(len(set(first)), len(set(second))) == 1:
        assert spearman(first, second) is kendall(first, second) is None
        return
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)


def network(number: int) -> Architecture:
    """The n-th: so many pools of a large image."""
    pools = tuple(Layer(op="pool", inputs=(position - 1,)) for position in range(number))
    return Architecture(input_shape=(1 << 10, 1 << 10, 1), layers=pools)


def full(generation: int, index: int, *fitness: float, size: int = 1, **fields: Any) -> Individual:
    """One that was trained to the end, all with networks of their own."""
    fields = {"architecture": network(size), "landmarks": reached(*fitness), "parameters": size, "flops": size} | fields
    return individual(generation, index, "primary", 0.0, **fields)


# Fitness after 100, 200 and 300 steps, and FLOPs. By p = 2 and q = 1 the first generation has thresholds of 0.4 and 0.5
# and keeps 0.1 alone; the second raises them to 0.45 and 0.7, and keeps 1.0.
RECORD = (
    full(0, 0, 0.3, 0.6, 0.9, size=4),  # extinct early, and the best in the end
    full(0, 1, 0.4, 0.5, 0.6, size=2),
    full(0, 2, 0.5, 0.4, 0.3, size=1),
    full(1, 0, 0.45, 0.7, 0.8, size=3),
    full(1, 1, 0.6, 0.6, 0.7, size=5),
    full(1, 2, 0.1, 0.1, 0.1, size=6),
)


def numbers(table: Table, row: int) -> list[Any]:
    """Of one run's table, what a row says behind its name."""
    return [cell.mean if isinstance(cell, Measured) else cell for cell in table.rows[row][1:]]


def test_a_replay_by_hand():
    assert replay(RECORD, (2, 1)).tolist() == [0, 2, 1, 2, 1, 0]


@given(
    rows=st.lists(st.tuples(LEVELS, LEVELS, LEVELS), min_size=1, max_size=12),
    failed=st.sets(st.integers(0, 11)),
    ranks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_replays_agree_with_algorithm_1(rows, failed, ranks):
    """Generations of four, some of whom failed at the second landmark."""
    record = [
        full(number // 4, number % 4, *row)
        if number not in failed
        else full(
            number // 4,
            number % 4,
            landmarks=(*reached(row[0]), Landmark(step=200)),
            fate=Fate.FAILED,
            cause="it diverged",
        )
        for number, row in enumerate(rows)
    ]
    levels, ended = [-1.0, -1.0], [0] * len(rows)
    for start in range(0, len(rows), 4):
        living = list(range(start, min(start + 4, len(rows))))
        for landmark, rank in enumerate(ranks):
            if landmark:
                living = [i for i in living if i not in failed]
            values = sorted((rows[i][landmark] for i in living), reverse=True)
            if len(values) >= rank:
                levels[landmark] = max(levels[landmark], values[rank - 1])
            living = [i for i in living if rows[i][landmark] >= levels[landmark]]
            for i in living:
                ended[i] = landmark + 1
    assert replay(record, ranks).tolist() == ended


def test_the_tables_of_a_full_record_by_hand():
    tables = study_landmarks({"run": RECORD}, ranks=(1, 2, 9))
    assert list(tables) == ["agreement", "replay", "extinct"]
    agreement = tables["agreement"]
    ends = [each.landmarks[2].fitness[0] for each in RECORD]  # type: ignore[index]
    for place in range(2):
        own = [each.landmarks[place].fitness[0] for each in RECORD]  # type: ignore[index]
        *counts, rho, tau = numbers(agreement, place)
        assert counts == [6, 6, 0, 6]
        assert rho == pytest.approx(stats.spearmanr(own, ends).statistic)
        assert tau == pytest.approx(stats.kendalltau(own, ends).statistic)
    assert numbers(agreement, 2) == [6, 6, 0, "", "", ""]
    for row in (3, 4, 5):  # FLOPs, parameters and layers are one number here
        assert numbers(agreement, row)[4] == pytest.approx(stats.spearmanr([4, 2, 1, 3, 5, 6], ends).statistic)
    # A rank past the population is left out, and one q past its p.
    assert [row[:2] for row in tables["replay"].rows] == [("1", "1"), ("2", "1"), ("2", "2")]
    # By p = 2 and q = 1: 100 steps of 4 + 6, 200 of 1 + 5, 300 of 2 + 3, of 300 steps of 21.
    saved, *rest = numbers(tables["replay"], 1)[1:]
    assert saved == pytest.approx(1 - (100 * 10 + 200 * 6 + 300 * 5) / (300 * 21))
    # The best survivor has 0.8, and 0.9 is better.
    assert rest == [2, pytest.approx(0.1), 2]
    # With the paper's p and q, as far as there are so many: 3 and 2.
    assert tables["extinct"].caption.startswith("Who would have gone extinct with p = 3 and q = 2")
    expected = [(1.5, 2, 0.6), (3.5, 2, 0.9), (5.5, 2, 0.7)]
    for row, (flops, count, best) in enumerate(expected):
        cells = numbers(tables["extinct"], row)
        assert (cells[0], cells[1]) == (flops, count)
        assert sum(cells[2:6]) == count
        assert cells[6] == pytest.approx(best)


def test_equal_networks_are_one_pair_and_train_nothing_in_a_replay():
    twin = full(1, 3, 0.4, 0.5, 0.6, size=2, same_as=Reference(generation=0, index=1))
    agreement = study_landmarks({"run": (*RECORD, twin)})["agreement"]
    assert numbers(agreement, 0)[:4] == [7, 6, 0, 6]
    saved = [
        numbers(study_landmarks({"run": record}, ranks=(1,))["replay"], 0)[1] for record in (RECORD, (*RECORD, twin))
    ]
    assert saved[0] == saved[1]


def test_a_record_of_extinction_is_told_of_and_not_replayed():
    extinct = full(2, 0, size=7, landmarks=reached(0.1, thresholds=(0.5,)), fate=Fate.EXTINCT)
    later = full(2, 1, size=8, landmarks=reached(0.5, 0.1, thresholds=(0.5, 0.6)), fate=Fate.EXTINCT)
    failed = full(2, 2, size=9, landmarks=(*reached(0.5), Landmark(step=200)), fate=Fate.FAILED, cause="it diverged")
    record = (*RECORD, extinct, later, failed)
    assert (is_full(RECORD), is_full((*RECORD, failed)), is_full(record)) == (True, True, False)
    tables = study_landmarks({"run": record})
    assert list(tables) == ["agreement", "extinct"]
    assert [numbers(tables["agreement"], row)[:4] for row in range(2)] == [[9, 9, 0, 6], [8, 8, 1, 6]]
    largest = numbers(tables["extinct"], 2)
    assert largest[:6] == [8, 3, 1, 1, 0, 1]
    assert "the rest agree less" in to_markdown(tables["agreement"])


def test_duplicates_are_neither_replayed_nor_counted_by_size():
    double = full(2, 0, 0.0, 0.0, 1.0, size=7, repeats=(2,))
    plain, beside = (study_landmarks({"run": record}) for record in (RECORD, (*RECORD, double)))
    assert (plain["replay"], plain["extinct"]) == (beside["replay"], beside["extinct"])
    assert numbers(beside["agreement"], 0)[3] == 7


def test_of_several_runs_there_are_means():
    other = tuple(full(each.generation, each.index, 0.5, 0.5, each.index / 4, size=1 + each.index) for each in RECORD)
    both = study_landmarks({"one": RECORD, "other": other})["agreement"]
    cells = both.rows[3][5]
    assert isinstance(cells, Measured)
    assert cells.values[1] == pytest.approx(1)
    assert list(cells.values) == [0, 1]
    # All equal at the early landmarks of the second run: no ranks there.
    assert list(both.rows[0][5].values) == [0]  # type: ignore[union-attr]


def test_a_run_of_one_landmark_tells_how_costs_rank():
    record = [full(0, index, value, size=1 + index) for index, value in enumerate((0.25, 0.5, 0.75))]
    tables = study_landmarks({"run": record})
    assert list(tables) == ["agreement"]
    assert numbers(tables["agreement"], 1) == ["", "", "", 3, 1, 1]


def failing(generation: int, index: int) -> Individual:
    landmarks = (Landmark(step=100),)
    return full(generation, index, landmarks=landmarks, fate=Fate.FAILED, cause="it diverged")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"a": RECORD, "b": [full(0, 0, 0.5)]}, "a measured after 100, 200, 300 steps, b after 100; name runs of the"),
        ({"a": [failing(0, 0)]}, "a has 0 different networks that survived to the end; ranks need 3"),
        ({"a": RECORD[:2]}, "a has 2 different networks that survived to the end; ranks need 3: run it longer"),
        ({"a": (*RECORD[:2], *RECORD[:2])}, "a has 2 different networks"),
    ],
    ids=["landmarks", "nobody", "few", "equal"],
)
def test_what_cannot_be_ranked_gets_one_line(runs, message):
    with pytest.raises(ReportError) as caught:
        study_landmarks(runs)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
