"""Whole searches whose children begin with their parents' weights, with pretended training and with real one."""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from executor_data import CONFIG as TRAIN
from executor_data import make_dataset
from host_loop import NOBODY
from search_data import Pretence
from test_strategies_large_scale import births

from eigen_jax import lineage, resumable
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.executor import Inheritance, Job, session
from eigen_jax.fitness import Measurement
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Individual
from eigen_jax.search import SearchConfig, SearchObserver, SearchResult, load_network, run_search
from eigen_jax.search.budget import search_keys
from eigen_jax.store import checkpoint
from eigen_jax.strategies import EvolutionConfig, LargeScaleEvolution
from eigen_jax.training import TrainState, init_state

SPEC = GenomeSpec(capacity=6, input_shape=(4, 4, 1), num_classes=2, max_flops=50_000)
EVOLUTION = EvolutionConfig(population_size=5, ahead=2, max_children=18)
CONFIG = SearchConfig(seed=1, t1=1, t2=1, t3=1, final_steps=0, genome=SPEC, evolution=EVOLUTION, train=TRAIN)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretence:
    return Pretence(monkeypatch)


def run(config: SearchConfig, dataset: Dataset, folder: Path, **rest: Any) -> SearchResult:
    strategy = LargeScaleEvolution(spec=config.genome, config=config.evolution)
    return run_search(config, dataset, folder, strategy=strategy, **rest)


def size(measurement: Measurement) -> float:
    """A fitness that makes networks grow, whatever their training comes to."""
    return measurement.parameters


def by_name(folder: Path) -> dict[str, Individual]:
    return {str(each.reference): each for each in lineage.read(folder / "lineage.jsonl")}


class Folders(SearchObserver):
    """Looks at what is left of earlier generations where one starts."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.found: list[set[str]] = []

    def generation_started(self, *, generation, **_):
        names = {path.name for path in (self.run / "individuals").glob("*")}
        self.found.append({name for name in names if int(name.partition("-")[0]) < generation})


@pytest.mark.parametrize("failures", [0, 3], ids=["none fails", "three of four fail"])
def test_the_weights_of_the_living_and_of_parents_stay_until_nobody_inherits_them(
    failures, dataset, tmp_path, pretended
):
    inherited: dict[str, Inheritance | None] = {}

    def begin(job: Job) -> bool:
        inherited[job.name] = job.inheritance
        if job.inheritance is not None:
            assert checkpoint.latest_step(job.inheritance.folder) == 3
        return int(job.name.partition(".")[0]) % 4 < failures

    pretended.fails, folders = begin, Folders(tmp_path / "run")
    run(CONFIG, dataset, tmp_path / "run", observer=folders)
    individuals = by_name(tmp_path / "run")
    failed = {name for name, each in individuals.items() if each.cause}
    children = {name: f"{each.parents[0]}" for name, each in individuals.items() if each.parents}
    assert bool(failed & set(children.values())) == bool(failures), "else this test says less"
    for name in individuals:
        parent, inheritance = children.get(name), inherited[name]
        if parent is None or parent in failed:
            assert inheritance is None
            continue
        assert inheritance is not None
        assert inheritance.folder == (tmp_path / "run" / "individuals" / parent.replace(".", "-")).absolute()
        before, after = (individuals[each].identities or () for each in (parent, name))
        assert len(after) == len(individuals[name].architecture.layers) + 1
        for source, identity in zip((*inheritance.layers, -1 if inheritance.classifier else None), after, strict=True):
            assert identity == -1 or (source is not None) == (identity in before)
            assert identity == -1 or source is None or before[source] == identity
    # The folders, as a search went through plain tournaments.
    fitness = {
        (each.generation, 0): each.end.fitness[0] if each.end and each.end.fitness else -math.inf
        for each in individuals.values()
    }
    born = list(births(EVOLUTION, search_keys(CONFIG)[0], fitness))
    assert [f"{birth.parent[0]}.0" for birth in born if birth.parent != NOBODY] == list(children.values())
    for generation, names in enumerate(folders.found):
        bred = born[: generation + EVOLUTION.ahead]
        living = bred[-1].living if len(bred) < len(born) else []
        places = {*living, *(birth.parent for birth in bred[generation:])} - {NOBODY}
        assert names == {f"{place[0]}-0" for place in places if f"{place[0]}.0" not in failed}
    assert max(map(len, folders.found)) >= 2
    assert not (tmp_path / "run" / "individuals").exists()


def test_a_search_that_its_budget_ends_leaves_no_weights_but_its_networks(dataset, tmp_path, pretended):
    folders, config = Folders(tmp_path / "run"), dataclasses.replace(CONFIG, budget=30_000.0)
    run(config, dataset, tmp_path / "run", observer=folders)
    assert EVOLUTION.population_size < len(folders.found) < EVOLUTION.max_children
    assert folders.found[-1]
    assert not (tmp_path / "run" / "individuals").exists()
    load_network(tmp_path / "run")


class Watch:
    """Looks at the states that individuals begin with and end with."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.jobs: dict[str, Job] = {}
        self.begun: dict[str, TrainState] = {}
        self.ended: dict[str, TrainState] = {}
        run_job, train_to = session.run_job, resumable.train_to

        def watched_job(job: Job, *arguments: Any, **options: Any) -> Any:
            self.jobs[job.name] = job
            return run_job(job, *arguments, **options)

        def watched_training(key: Any, state: TrainState, *arguments: Any, **options: Any) -> Any:
            name = list(self.jobs)[-1]
            assert name not in self.begun
            self.begun[name] = jax.device_get(state)
            state, report = train_to(key, state, *arguments, **options)
            self.ended[name] = jax.device_get(state)
            return state, report

        patch.setattr(session, "run_job", watched_job)
        patch.setattr(resumable, "train_to", watched_training)


def same_bits(one: Any, other: Any) -> bool:
    return jax.tree.all(jax.tree.map(checkpoint.is_same, one, other))


def test_on_the_digits_children_begin_with_the_bits_of_their_parents(tmp_path, monkeypatch):
    """Those by an identity mutation are their parents, to the last bit of every logit."""
    digits = load_dataset(
        DataConfig(name="digits", preprocessing="standardize", validation_size=200, cache_dir=tmp_path)
    )
    config = dataclasses.replace(
        CONFIG,
        seed=31,
        genome=GenomeSpec(capacity=6, input_shape=(8, 8, 1), num_classes=10, max_flops=50_000),
        evolution=EvolutionConfig(population_size=3, ahead=1, max_children=14),
        train=dataclasses.replace(TRAIN, batch_size=32, eval_batch_size=500),
    )
    watch = Watch(monkeypatch)
    run(config, digits, tmp_path / "run", fitness=size)
    individuals, seen = by_name(tmp_path / "run"), Counter[str]()
    for name, child in individuals.items():
        if not child.parents:
            continue
        parent = individuals[f"{child.parents[0]}"]
        begun, left, job = watch.begun[name], watch.ended[f"{parent.reference}"], watch.jobs[name]
        network = build_network(child.architecture, num_classes=10)
        drawn = init_state(job.key, network=network, config=job.config, input_shape=(8, 8, 1))
        ours, theirs = (weights(each, state) for each, state in ((child, begun), (parent, left)))
        untrained = weights(child, drawn)
        for identity, own in ours.items():
            forms = [jax.tree.map(np.shape, tree) for tree in (own, theirs.get(identity))]
            assert same_bits(own, theirs[identity] if forms[0] == forms[1] else untrained[identity])
            seen["kept" if forms[0] == forms[1] else "drawn"] += 1
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(begun.opt_state))
        (operator,) = (operator for operator, count in (child.operators or {}).items() if count)
        if operator in ("identity", "alter_learning_rate"):
            images = jnp.asarray(digits.validation_images[:])
            logits = (network.apply(state.variables, images, train=False) for state in (begun, left))
            assert same_bits(*logits)
            seen["of layers"] += len(ours) > 1
        seen[operator] += 1
        assert (child.training == parent.training) == (operator != "alter_learning_rate")
        assert job.config.learning_rate == child.training["learning_rate"]
    assert all(
        seen[name] for name in ("kept", "drawn", "identity", "alter_learning_rate", "reset_weights", "of layers")
    )


def weights(individual: Individual, state: TrainState) -> dict[int, Any]:
    """The variables of each layer that has any, and of the classifier, by their identities."""
    named = {f"layer_{place}": identity for place, identity in enumerate(individual.identities or ())}
    *_, classifier = individual.identities or ()
    named["classifier"] = classifier
    found: dict[int, Any] = {}
    for part, modules in state.trained.items():
        for name, variables in modules.items():
            found.setdefault(named[name], {})[part] = variables
    return found
