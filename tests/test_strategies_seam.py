"""What the host loop relies upon, of every strategy; and a strategy from a file of one's own."""

import dataclasses
import importlib.util
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from host_loop import CONFIG, NOBODY, SPEC, TRACES, key_of, landscape, search
from mutation_checks import assert_same_arrays
from refusals import refuses

from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec
from eigen_jax.strategies import STRATEGIES, Eigen, Strategy

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "tournament_selection.diff"
OBJECTIVES = {"nsga2": 2}
BUILT_IN = {
    name: kind(spec=kind.space(SPEC), config=CONFIG, objectives=OBJECTIVES.get(name, 1))
    for name, kind in ((name, STRATEGIES.find(name)) for name in STRATEGIES)
}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> type[Strategy]:
    """The class in the file that the example's diff makes."""
    folder = tmp_path_factory.mktemp("clone")
    subprocess.run(["git", "apply", str(EXAMPLE)], cwd=folder, check=True)
    spec = importlib.util.spec_from_file_location("tournament_selection", folder / "tournament_selection.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tournament


@pytest.fixture(params=[*BUILT_IN, "example"])
def strategy(request: pytest.FixtureRequest) -> Strategy:
    if request.param == "example":
        return request.getfixturevalue("example")(spec=SPEC, config=CONFIG)
    return BUILT_IN[request.param]


def test_a_search_runs_to_its_end_and_is_resumed_anywhere(strategy):
    measure = landscape(1, strategy.objectives)
    whole = search(strategy, measure, seed=3)
    assert whole.individuals.keys() == whole.fitness.keys()  # nobody is left in training
    if not isinstance(strategy, Eigen):
        assert len(whole.fitness) == CONFIG.max_children
    for place, individual in whole.individuals.items():
        assert {tuple(parent) for parent in individual.parents.tolist()} <= {NOBODY} | {
            known for known in whole.fitness if known < (place[0], 0)
        }
    for state in whole.states:
        assert strategy.phase(state).isidentifier()
        assert strategy.title(state)
    for state in whole.states:
        leaves, structure = jax.tree.flatten(state)
        rest = search(strategy, measure, seed=3, state=jax.tree.unflatten(structure, [leaf.copy() for leaf in leaves]))
        assert_same_arrays(rest.states, whole.states[-len(rest.states) :])
    assert TRACES[strategy] == 1


def test_a_state_is_arrays_without_keys(strategy):
    for leaf in jax.tree.leaves(strategy.genesis()):
        assert isinstance(leaf, jax.Array)
        assert not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def test_a_strategy_is_static(strategy):
    """Another object of the same settings finds the compiled step, one of other settings does not."""
    same, other = dataclasses.replace(strategy), dataclasses.replace(strategy, spec=GenomeSpec(capacity=9))
    assert (hash(same), same) == (hash(strategy), strategy)
    assert other != strategy


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in OBJECTIVES])
def test_several_objectives_are_refused_where_one_is_compared(name):
    kind = type(BUILT_IN[name])
    line = f"fitness gives 2 numbers, and {kind.__name__} compares 1; choose strategy nsga2, or another fitness"
    with refuses(ConfigError, line):
        kind(spec=SPEC, objectives=2)


def test_the_example_breeds_from_the_fittest_of_each_sample(example):
    config = dataclasses.replace(CONFIG, max_children=20)
    done = search(example(spec=SPEC, config=config), landscape(7, 1), seed=2)
    for generation in range(4):
        key_sample, key_breed = jax.random.split(key_of(2, generation))
        samples = jax.random.randint(key_sample, (5, 2), 0, 5).tolist()
        for index, sample in enumerate(samples):
            rivals = [(generation - 1, rival) for rival in sample]
            fittest = max(rivals, key=lambda place: done.fitness[place].item()) if generation else NOBODY
            done.check_child((generation, index), fittest, jax.random.fold_in(key_breed, index))
