"""Budgets: sums by hand, whole searches with pretended training that never spend more, phases that take turns."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from executor_data import CONFIG as TRAIN
from executor_data import make_dataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from refusals import refuses
from search_data import Pretence
from test_search_strategies import AnyOrder

from eigen_jax import lineage, search
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.executor import Job, session
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Fate, without_times
from eigen_jax.search import Budget, SearchConfig, SearchObserver, SearchResult, TeacherFlops, price, run_search
from eigen_jax.search.budget import expected_flops
from eigen_jax.store.records import read_json
from eigen_jax.strategies import STRATEGIES, EvolutionConfig

SPEC = GenomeSpec(capacity=6, input_shape=(4, 4, 1), num_classes=2, channels=(4, 8), max_flops=50_000)
MANY: dict[str, Any] = {"max_primary_generations": 100, "max_secondary_generations": 100, "saturation_gain": 0.0}
EVOLUTION = EvolutionConfig(
    population_size=4, first_rank=3, second_rank=2, primary_steps=6, secondary_steps=3, max_children=20, **MANY
)
CONFIG = SearchConfig(seed=1, t1=2, t2=2, t3=2, genome=SPEC, evolution=EVOLUTION, train=TRAIN)  # batches of 8
TEACHER = TeacherFlops(once=500_000, per_image=100)
FEWER: dict[str, dict[str, Any]] = {"large-scale": {"ahead": 3}}  # in training than live
MILLION = 1_000_000  # the first generation of EIGEN takes about 1.4 of them, most later ones less than 0.3


class Told(SearchObserver):
    """What is told of a budget."""

    def __init__(self) -> None:
        self.spent: list[int] = []
        self.until: int | None = None

    def budget_spent(self, *, budget, spent):
        self.spent.append(spent)

    def final_training_started(self, *, best, until):
        self.until = until


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="module")
def patched():
    """Pretended training, of the final network as well, which is told to no one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.loop, "train_network", lambda *_, **__: search.TrainedNetwork(seconds=1.0, cause="no"))
        yield Pretence(patch)


@pytest.fixture
def pretended(patched) -> Pretence:
    patched.fails, patched.afterwards = lambda job: False, lambda job: None
    return patched


def run(folder: Path, dataset: Dataset, budget: float | None, name: str = "eigen", **changed: Any):
    how: dict[str, Any] = {"executor": changed.pop("executor", None), "observer": changed.pop("observer", None)}
    evolution = dataclasses.replace(EVOLUTION, **FEWER.get(name, {}), **changed.pop("evolution", {}))
    kind = STRATEGIES.find(name)
    config = dataclasses.replace(CONFIG, genome=kind.space(SPEC), budget=budget, evolution=evolution, **changed)
    strategy = kind(spec=config.genome, config=evolution)
    return run_search(config, dataset, folder, strategy=strategy, teacher_flops=TEACHER, **how)


def by_hand(each: lineage.Individual) -> int:
    """An image is worth three forward passes and one of the teacher's, a step has 8 images."""
    if each.same_as is not None:
        return 0
    return (3 * each.flops + 100) * 8 * max(mark.step or 0 for mark in each.landmarks)


def total(folder: Path) -> int:
    return read_json(folder / "result.json")["training_flops"]["total"]


@pytest.fixture(scope="module")
def first(dataset, patched, tmp_path_factory) -> list[int]:
    """The prices of EIGEN's first generation."""
    one = {"max_primary_generations": 1, "max_secondary_generations": 0, "max_duplication_generations": 0}
    folder = tmp_path_factory.mktemp("first") / "run"
    run(folder, dataset, None, evolution=one, final_steps=0)
    return [(3 * each.flops + 100) * 8 for each in lineage.read(folder / "lineage.jsonl")]


def test_the_price_of_a_step_is_that_of_its_images_forward_and_backward():
    conv = Architecture(input_shape=(4, 4, 1), layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=1, stride=1),))
    # 16 pixels by 1 x 4 weights, and 4 x 2 of the classifier, a multiplication and an addition each.
    forward = 2 * (16 * 4 + 4 * 2)
    assert price(conv, config=CONFIG, teacher=TeacherFlops()) == 3 * forward * 8
    assert price(conv, config=CONFIG, teacher=TEACHER) == (3 * forward + 100) * 8
    assert search.training_flops(forward, 8) == 3 * forward * 8


def test_a_generation_is_expected_to_take_its_dearest_on():
    # All three for 10 steps, the two dearest for 20 more, the dearest for 5 more.
    assert expected_flops([1, 100, 10], [10, 30, 35], (2, 1)) == 111 * 10 + 110 * 20 + 100 * 5
    assert expected_flops([1, 100, 10], [10, 30, 35], (9, 9)) == 111 * 35
    assert expected_flops([1, 100, 10], [10, 30, 35], (1, 3)) == 111 * 10 + 100 * 25
    assert expected_flops([7, 8], [5], ()) == 75
    assert expected_flops([], [10, 30, 35], (2, 1)) == 0


def test_teacher_search_and_final_training_share_a_budget():
    budget = Budget(total=1_000, teacher=100, final_share=0.5, final_steps=None)
    assert budget.kept(7) == 500
    assert [budget.share(spent, 7) for spent in (0, 100, 400, 900)] == [0, 0.25, 1, 1]
    assert budget.final_until(395, 10) == 50
    assert budget.begins(300, 10, [2, 1], expected=100, most=590)
    assert not budget.begins(301, 10, [2, 1], expected=100, most=100)  # the final training's share
    assert not budget.begins(300, 10, [2, 1], expected=100, most=591)  # a step of the best
    assert not budget.begins(300, 0, [20, 1], expected=100, most=581)  # a step of the dearest, who may be the best
    given = dataclasses.replace(budget, final_steps=6)
    assert (given.kept(0), given.kept(10), given.share(210, 10), given.final_until(0, 10)) == (0, 60, 0.25, 6)
    assert given.final_until(870, 10) == 3
    assert dataclasses.replace(budget, final_steps=0).begins(0, 10, [90], expected=900, most=900)
    assert dataclasses.replace(budget, total=10**15).final_until(0, 1) == 2**31 - 1
    assert Budget.of(CONFIG, TEACHER) is None


def test_who_is_trained_ahead_is_sure_to_be_paid_for():
    budget = Budget(total=1_000, teacher=0, final_share=0.5, final_steps=None)
    # 2 steps each: 100 are spent on the one who is due, and then 100, 200 and 98.
    assert budget.number_ahead(100, 1, [50], [50, 100, 49, 1], 2) == 2
    assert budget.number_ahead(102, 1, [50], [50, 100, 49, 1], 2) == 1
    # The second of them may be the best, and 4 steps of its final training are kept.
    given = dataclasses.replace(budget, final_steps=4)
    assert given.number_ahead(100, 1, [50], [50, 100, 49, 1], 2) == 4
    assert given.number_ahead(101, 1, [50], [50, 100, 49, 1], 2) == 3
    assert given.number_ahead(201, 1, [50], [50, 100, 49, 1], 2) == 1


@pytest.mark.parametrize(("name", "budget"), [("eigen", 5 * MILLION), ("aging", 2 * MILLION)])
def test_what_is_recorded_is_the_sum_by_hand_and_the_final_training_has_the_rest(
    name, budget, dataset, tmp_path, pretended
):
    pretended.fails = lambda job: len(job.architecture.layers) % 3 == 2
    told, folder = Told(), tmp_path / "run"
    result = run(folder, dataset, budget, name, observer=told)
    individuals = lineage.read(folder / "lineage.jsonl")
    assert [each.training_flops for each in individuals] == list(map(by_hand, individuals))
    assert any(each.same_as for each in individuals)
    assert any(each.training_flops for each in individuals if each.fate is Fate.FAILED)
    searched = sum(map(by_hand, individuals))
    assert result.best is not None
    assert told.until is not None
    step = (3 * result.best.flops + 100) * 8
    assert told.until == (budget - TEACHER.once - searched) // step
    final = told.until * step
    assert final >= budget / 2 - step
    assert read_json(folder / "result.json")["training_flops"] == {
        "teacher": 500_000, "search": searched, "final": final, "total": 500_000 + searched + final,
    }  # fmt: skip
    assert budget - step < total(folder) <= budget
    generations = range(max(each.generation for each in individuals) + 2)
    so_far = [sum(by_hand(each) for each in individuals if each.generation < n) for n in generations]
    assert told.spent == so_far


def phases(folder: Path) -> list[str]:
    individuals = lineage.read(folder / "lineage.jsonl")
    return [each.phase for each in individuals if each.index == 0]


def test_the_phases_take_turns_within_a_budget(dataset, tmp_path, pretended):
    shares, part = {"secondary_from": 0.09, "duplication_from": 0.1}, 19.5 * MILLION
    run(tmp_path / "run", dataset, 2 * (part + TEACHER.once), evolution=shares)
    individuals = lineage.read(tmp_path / "run" / "lineage.jsonl")
    spent = {
        each.generation: sum(by_hand(other) for other in individuals if other.generation < each.generation)
        for each in individuals
    }
    assert list(dict.fromkeys(phases(tmp_path / "run"))) == ["primary", "secondary", "duplication"]
    # A phase goes on until its share is spent, and no generation longer.
    for generation, phase in enumerate(phases(tmp_path / "run")):
        share = {"primary": (0, 0.09), "secondary": (0.09, 0.1), "duplication": (0.1, 1)}[phase]
        assert share[0] <= spent[generation] / part < share[1]


def test_without_a_budget_none_is_told(dataset, tmp_path, pretended):
    told, few = Told(), {"max_primary_generations": 1, "max_secondary_generations": 0}
    run(tmp_path / "run", dataset, None, observer=told, evolution=few, final_steps=5)
    assert (told.spent, told.until) == ([], 5)
    assert phases(tmp_path / "run") == ["primary", "duplication"]


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@example(times=0.4, name="aging", final_steps=40, share=0.0)
@example(times=1.6, name="eigen", final_steps=3, share=0.5)
@example(times=2.0, name="eigen", final_steps=None, share=0.0)
@given(
    times=st.floats(0.01, 4),
    name=st.sampled_from(list(STRATEGIES)),
    final_steps=st.none() | st.integers(0, 60),
    share=st.floats(0, 0.9),
)
def test_the_total_is_never_above_the_budget(dataset, patched, tmp_path_factory, times, name, final_steps, share):
    patched.fails, patched.afterwards = lambda job: False, lambda job: None
    folder, told = tmp_path_factory.mktemp("budget") / "run", Told()
    budget = TEACHER.once + times * MILLION
    is_refused = False
    try:
        run(folder, dataset, budget, name, final_steps=final_steps, final_share=share, observer=told)
    except ConfigError as error:
        is_refused = str(error).startswith("budget is ")
    if is_refused:
        assert not folder.exists()
        return
    assert 0 < total(folder) <= budget
    if final_steps != 0:
        assert 1 <= (told.until or 0) <= (final_steps or 10**9)


def test_a_generation_that_costs_more_than_expected_takes_it_from_the_final_training(
    dataset, tmp_path, first, pretended
):
    train, folder = session.run_job, tmp_path / "run"

    def all_alike(*arguments: Any, **options: Any) -> Any:
        """All tie with the thresholds, and survive."""
        outcome = train(*arguments, **options)
        assert outcome.measurement is not None
        return dataclasses.replace(outcome, measurement=dataclasses.replace(outcome.measurement, accuracy=0.5))

    expected, most = expected_flops(first, (2, 4, 6), (3, 2)), 6 * sum(first)
    assert expected < most
    budget = 2 * (expected + TEACHER.once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "run_job", all_alike)
        run(folder, dataset, budget)
    flops = read_json(folder / "result.json")["training_flops"]
    assert flops["search"] == most
    assert flops["final"] < budget / 2 - (most - expected) + 1
    assert flops["total"] <= budget


@pytest.mark.parametrize(
    ("name", "budget"), [("eigen", 5 * MILLION), ("aging", 2 * MILLION), ("large-scale", 1.1 * MILLION)]
)
def test_a_budget_is_spent_alike_whatever_is_killed_and_whoever_ends_first(name, budget, dataset, tmp_path, pretended):
    class Killed(BaseException):
        pass

    whole: SearchResult = run(tmp_path / "whole", dataset, budget, name)
    pretended.trained.clear()

    def die_at_times(job: Job) -> None:
        if len(pretended.trained) % 4 == 0:
            raise Killed

    pretended.afterwards = die_at_times
    again: SearchResult | None = None
    while again is None:
        try:
            again = run(tmp_path / "killed", dataset, budget, name, executor=AnyOrder(dataset, seed=3))
        except Killed:
            continue
    ours, theirs = (lineage.read(tmp_path / each / "lineage.jsonl") for each in ("killed", "whole"))
    assert list(map(without_times, ours)) == list(map(without_times, theirs))
    assert again.training_flops == whole.training_flops
    if name == "aging":  # nobody was trained ahead who is not recorded
        assert len(set(pretended.trained)) == sum(each.same_as is None for each in ours)


def test_a_budget_for_no_generation_is_refused_before_anything_is_written(dataset, tmp_path):
    with refuses(
        ConfigError,
        "budget is 5e+05; the teacher alone takes 5e+05 training FLOPs: raise it, or choose a smaller teacher",
    ):
        run(tmp_path / "run", dataset, 500_000.0)
    with pytest.raises(ConfigError) as raised:
        run(tmp_path / "run", dataset, 600_000.0, final_share=0.125)
    line = "budget is 6e+05, of which the search has 2.5e+04; its first generation takes about"
    assert str(raised.value).startswith(line)
    assert not (tmp_path / "run").exists()
    with refuses(ConfigError, "budget is 0; it must be more than 0"):
        dataclasses.replace(CONFIG, budget=0)


def test_the_first_generation_is_paid_for_to_the_flop(dataset, tmp_path, first, pretended):
    enough = TEACHER.once + 6 * sum(first) + max(first)
    with pytest.raises(ConfigError, match="its first generation takes about"):
        run(tmp_path / "less", dataset, enough - 1, final_share=0.0)
    run(tmp_path / "just", dataset, enough, final_share=0.0)
    assert phases(tmp_path / "just")[0] == "primary"
    assert total(tmp_path / "just") <= enough
