"""Whole searches by every strategy, with pretended training: killed, and with executors that end jobs in any order."""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import chex
import fork_kinds  # noqa: F401  # which has the kind "activation" and the operator "swap"
import jax.numpy as jnp
import numpy as np
import pytest
from executor_data import CONFIG as TRAIN
from executor_data import make_dataset
from jax import Array
from refusals import refuses
from search_data import Pretence

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, fingerprint
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.executor import InlineExecutor, Job, Outcome
from eigen_jax.fitness import FitnessError, Limited, Measurement, Objectives, Penalised
from eigen_jax.genome import OPERATORS, GenomeSpec
from eigen_jax.lineage import Fate, Individual, without_times
from eigen_jax.search import BarrenSearchError, SearchConfig, load_network, run_search
from eigen_jax.strategies import NONE, STRATEGIES, EvolutionConfig, RandomSearch, Strategy

SPEC = GenomeSpec(capacity=6, input_shape=(4, 4, 1), num_classes=2, channels=(4, 8), max_flops=50_000)
COURSE: dict[str, Any] = {"max_primary_generations": 2, "max_secondary_generations": 1}
EVOLUTION = EvolutionConfig(
    population_size=4, first_rank=3, second_rank=2, primary_steps=6, max_children=13, sample_size=2, ahead=3, **COURSE
)
CONFIG = SearchConfig(seed=1, t1=2, t2=2, t3=2, final_steps=0, genome=SPEC, evolution=EVOLUTION, train=TRAIN)
FITNESS = {"nsga2": Objectives(("accuracy", "flops"))}


def make(name: str, spec: GenomeSpec | None = None) -> dict[str, Any]:
    """A strategy, by default in its own search space, and what it asks of networks."""
    fitness = FITNESS.get(name, Penalised("parameters", 0.3))
    objectives = 2 if name in FITNESS else 1
    kind = STRATEGIES.find(name)
    strategy = kind(spec=spec or kind.space(SPEC), config=EVOLUTION, objectives=objectives)
    return {"strategy": strategy, "fitness": fitness}


def config_of(name: str) -> SearchConfig:
    return dataclasses.replace(CONFIG, genome=STRATEGIES.find(name).space(SPEC))


class AnyOrder(InlineExecutor):
    """Has up to three jobs at a time, and ends any of them next; takes on what is appended, as workers do."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        super().__init__(dataset)
        self.generator = np.random.default_rng(seed)

    def run(self, jobs: Sequence[Job], *, on_progress: Any = None) -> Iterator[tuple[int, Outcome]]:
        running: list[int] = []
        coming = itertools.count()
        following = next(coming)
        while running or following < len(jobs):
            while following < len(jobs) and len(running) < 3:
                running.append(following)
                following = next(coming)
            position = running.pop(int(self.generator.integers(len(running))))
            yield position, self.session.run(jobs[position], should_stop=self.should_stop)


class AtOnce(InlineExecutor):
    """Runs what there is when it is asked, and nothing that comes later."""

    def run(self, jobs: Sequence[Job], *, on_progress: Any = None) -> Iterator[tuple[int, Outcome]]:
        return super().run(list(jobs), on_progress=on_progress)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretence:
    return Pretence(monkeypatch)


@pytest.fixture(scope="module", params=list(STRATEGIES))
def whole(request, dataset, tmp_path_factory) -> tuple[str, Path]:
    """The name of a strategy, and the folder of a search that nobody disturbs."""
    folder = tmp_path_factory.mktemp("search") / "run"
    with pytest.MonkeyPatch.context() as patch:
        Pretence(patch).fails = is_faulty
        run_search(config_of(request.param), dataset, folder, **make(request.param))
    return request.param, folder


def is_faulty(job: Job) -> bool:
    return breaks(job.architecture)


def breaks(architecture: Architecture) -> bool:
    """Whether networks of it fail, as two of seven do; a few of those that each strategy breeds here are among them."""
    return int(fingerprint(architecture), 16) % 7 in (3, 5)


def record(folder: Path) -> list[Individual]:
    return [without_times(each) for each in lineage.read(folder / "lineage.jsonl")]


class _Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_a_search_records_each_individual_once_in_order_and_its_network_is_the_fittest(whole):
    name, folder = whole
    individuals = record(folder)
    places = [(each.generation, each.index) for each in individuals]
    assert places == sorted(set(places))
    if name != "eigen":
        assert len(individuals) == EVOLUTION.max_children
        landmarks = make(name)["strategy"].landmarks(CONFIG.landmarks)
        reached = {tuple(mark.step for mark in each.landmarks) for each in individuals}
        assert reached == {landmarks[: number + 1] for number in range(len(landmarks))}
    known = {each.reference: each for each in individuals}
    assert all(parent in known for each in individuals for parent in each.parents)
    failed = [each for each in individuals if each.fate is Fate.FAILED]
    assert failed
    if name not in ("aging", "large-scale"):  # whose sample can hold nobody else
        assert not {each.reference for each in failed} & {parent for each in individuals for parent in each.parents}
    assert all(breaks(each.architecture) for each in failed)
    fitness, told = make(name)["fitness"], {}
    for each in individuals:
        if each.end is not None and each.measurement is not None:
            told[each.reference] = np.ravel(each.end.fitness or ())
            np.testing.assert_allclose(told[each.reference], np.ravel(fitness(each.measurement)), rtol=1e-6)
    best = max(told, key=lambda place: told[place][0])
    assert load_network(folder)[0] == known[best].architecture
    if make(name)["strategy"].reevaluates:
        trained = [each.architecture for each in individuals if each.same_as is None]
        assert len(set(trained)) < len(trained)
    if name not in ("eigen", "random"):
        assert {Fate.PARENT, Fate.SURVIVED} <= {each.fate for each in individuals}


def test_nobody_is_trained_ahead_who_equals_one_that_is_due(dataset, tmp_path, pretended):
    evolution = dataclasses.replace(EVOLUTION, secondary_steps=3, ahead=4, max_children=8)
    config = dataclasses.replace(CONFIG, seed=0, evolution=evolution)
    run_search(config, dataset, tmp_path / "run", strategy=STRATEGIES.find("aging")(spec=SPEC, config=evolution))
    individuals = record(tmp_path / "run")
    networks = {each.architecture for each in individuals}
    assert len(networks) < len(individuals)
    # Who goes on after a kill would have taken the outcomes over.
    assert sum(each.same_as is None for each in individuals) == len(networks)


def test_the_record_does_not_depend_on_the_order_in_which_jobs_end(whole, dataset, tmp_path, pretended):
    name, folder = whole
    pretended.fails = is_faulty
    executor = AtOnce(dataset) if name == "nsga2" else AnyOrder(dataset, seed=2)
    run_search(config_of(name), dataset, tmp_path / "run", executor=executor, **make(name))
    assert record(tmp_path / "run") == record(folder)
    chex.assert_trees_all_equal(load_network(tmp_path / "run"), load_network(folder))


def test_a_search_that_is_killed_again_and_again_measures_nothing_twice(whole, dataset, tmp_path, pretended):
    name, folder = whole
    lost = []

    def die_at_times(job: Job) -> None:
        if len(pretended.trained) % 2 == 0:
            lost.append(pretended.trained[-1])
            raise _Killed

    pretended.fails, pretended.afterwards = is_faulty, die_at_times
    for _ in range(60):
        try:
            run_search(config_of(name), dataset, tmp_path / "run", executor=AnyOrder(dataset, seed=3), **make(name))
            break
        except _Killed:
            continue
    assert len(lost) >= 2
    if make(name)["strategy"].num_landmarks == 1:
        assert len(pretended.trained) - len(lost) == sum(each.same_as is None for each in record(folder))
    assert record(tmp_path / "run") == record(folder)
    assert not {"individuals", "generation.jsonl"} & {path.name for path in (tmp_path / "run").iterdir()}


def test_what_does_not_go_together_is_refused_before_anything_is_written(dataset, tmp_path):
    strategy: Strategy = make("random")["strategy"]

    def search(**changed: Any) -> Callable[[], Any]:
        return lambda: run_search(CONFIG, dataset, tmp_path / "run", **changed)

    line = "the fitness accuracy, flops gives 2 objectives, and the strategy compares 1; choose others that go together"
    with refuses(ConfigError, line):
        search(strategy=strategy, fitness=Objectives(("accuracy", "flops")))()
    other = dataclasses.replace(strategy, spec=dataclasses.replace(SPEC, capacity=5))
    with refuses(
        ConfigError, "the strategy breeds in another search space than that of the config; give it config.genome"
    ):
        search(strategy=other)()
    with pytest.raises(FitnessError, match="fails on"):
        search(fitness=lambda measurement: measurement.beauty)()
    with pytest.raises(ConfigError, match="gives 2 numbers"):
        STRATEGIES.find("aging")(spec=SPEC, config=EVOLUTION, objectives=2)
    assert not (tmp_path / "run").exists()


def test_another_strategy_or_fitness_is_another_run(whole, dataset):
    name, folder = whole
    config, line = config_of(name), f"{folder} belongs to a run with other settings: fitness was"
    with pytest.raises(ConfigError) as raised:
        run_search(config, dataset, folder, strategy=make(name)["strategy"], fitness=a_user_s_own)
    assert str(raised.value).startswith(line) or name == "nsga2"
    if name != "nsga2":
        assert "'test_search_strategies:a" in str(raised.value)
        other = "aging" if name == "random" else "random"
        told = f"{folder} belongs to a run with other settings: strategy was '{name}' and is now '{other}'"
        strategy = make(other, config.genome)["strategy"]
        with pytest.raises(ConfigError, match=re.escape(told)):
            run_search(config, dataset, folder, strategy=strategy, fitness=make(name)["fitness"])


def a_user_s_own(measurement: Measurement) -> float:
    return -measurement.parameters


def test_who_misses_a_hard_limit_is_extinct_and_bred_from_by_nobody(dataset, tmp_path, pretended):
    pretended.fails = lambda job: False
    strategy = make("aging")["strategy"]
    limited = Limited(a_user_s_own, (("flops", 0),))
    line = (
        "nothing survived in 9 generations: of 9 individuals none has a finite fitness; mend it, or loosen its limits,"
        " and start in a new run folder"
    )
    with refuses(BarrenSearchError, line):
        run_search(CONFIG, dataset, tmp_path / "run", strategy=strategy, fitness=limited)
    individuals = lineage.read(tmp_path / "run" / "lineage.jsonl")
    assert {(each.fate, each.cause, each.landmarks[0].fitness) for each in individuals} == {(Fate.EXTINCT, None, None)}
    assert {each.landmarks[0].measurement is None for each in individuals} == {False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(RandomSearch):
    """A user's, with a setting of its own, and mistakes."""

    pressure: float = 1.0
    mistake: str = ""

    def step(self, key: Array, state: Any, fitness: Array) -> Any:
        following = super().step(key, state, fitness)
        if self.mistake == "dtype":
            return dataclasses.replace(following, generation=following.generation.astype(jnp.float32))
        if self.mistake == "late":
            places = following.population.places
            late = jnp.where(places == NONE, NONE, places + jnp.asarray([[1, 0]], jnp.int32))
            return dataclasses.replace(following, population=dataclasses.replace(following.population, places=late))
        return following

    def landmarks(self, steps: Sequence[int]) -> tuple[int, ...]:
        return (3, 6) if self.mistake == "landmarks" else super().landmarks(steps)


def test_settings_of_a_strategy_are_part_of_the_run(dataset, tmp_path, pretended):
    own = Own(spec=SPEC, config=EVOLUTION)
    run_search(CONFIG, dataset, tmp_path / "run", strategy=own)
    content = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert content["strategy"].startswith("test_search_strategies:Own ")
    assert (content["strategy_pressure"], content["strategy_mistake"]) == (1.0, "")
    with refuses(
        ConfigError,
        f"{tmp_path / 'run'} belongs to a run with other settings: strategy_pressure was 1.0 and is"
        " now 5.0; choose another folder",
    ):
        run_search(CONFIG, dataset, tmp_path / "run", strategy=dataclasses.replace(own, pressure=5.0))
    other = dataclasses.replace(own, config=dataclasses.replace(EVOLUTION, primary_steps=2))
    with pytest.raises(ConfigError, match="strategy_config was None and is now"):
        run_search(CONFIG, dataset, tmp_path / "run", strategy=other)


@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        ("dtype", "gives a state of other structure, shapes or dtypes than it takes"),
        ("late", "each must be given once, in ascending order, from it on"),
        ("landmarks", "the strategy measures after (3, 6) steps; it must be 1 numbers in ascending order"),
    ],
)
def test_a_mistaken_strategy_is_told_in_one_line(dataset, tmp_path, pretended, mistake, line):
    with pytest.raises(ConfigError) as raised:
        run_search(CONFIG, dataset, tmp_path / "run", strategy=Own(spec=SPEC, config=EVOLUTION, mistake=mistake))
    assert line in str(raised.value)
    assert pretended.trained == []


def test_what_is_no_strategy_is_refused(dataset, tmp_path):
    for wrong in ("nsga2", RandomSearch):
        with pytest.raises(ConfigError, match=r"it must be an eigen_jax\.Strategy"):
            run_search(CONFIG, dataset, tmp_path / "run", strategy=wrong)  # type: ignore[arg-type]


def test_a_strategy_can_begin_by_itself(dataset, tmp_path, pretended):
    begun = []

    class Begun(RandomSearch):
        def init(self, key: Array) -> Any:
            begun.append(key)
            return super().init(key)

    run_search(CONFIG, dataset, tmp_path / "run", strategy=Begun(spec=SPEC, config=EVOLUTION))
    run_search(CONFIG, dataset, tmp_path / "plain", strategy=RandomSearch(spec=SPEC, config=EVOLUTION))
    assert len(begun) == 1
    assert [each.architecture for each in record(tmp_path / "run")] == [
        each.architecture for each in record(tmp_path / "plain")
    ]


def test_records_of_kinds_and_operators_of_the_users_own_are_part_of_the_run(dataset, tmp_path, pretended, monkeypatch):
    space = dataclasses.replace(SPEC, kinds=("conv", "pool", "activation"), operators=("swap",))
    config = dataclasses.replace(CONFIG, genome=space)
    strategy = RandomSearch(spec=space, config=EVOLUTION)
    run_search(config, dataset, tmp_path / "run", strategy=strategy)
    content = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    own = {name: text.partition(" ")[0] for name, text in content.items() if name.startswith(("kind_", "operator_"))}
    assert own == {"kind_activation": "fork_kinds:_layer", "operator_swap": "fork_kinds:_swap"}
    swap = dataclasses.replace(OPERATORS.find("swap"), apply=another_swap)
    monkeypatch.setitem(OPERATORS, "swap", swap)
    with pytest.raises(ConfigError, match="other settings: operator_swap was 'fork_kinds"):
        run_search(config, dataset, tmp_path / "run", strategy=strategy)


def another_swap(proposal, genome, *, spec):
    return genome
