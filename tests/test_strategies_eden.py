"""EDEN against a plain-Python transcription."""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from executor_data import CONFIG as TRAIN
from executor_data import make_dataset
from host_loop import CONFIG, NOBODY, SPEC, Individual, Search, key_of, landscape, search
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import jit
from refusals import refuses
from search_data import Pretence

from eigen_jax import lineage
from eigen_jax.architecture import count_flops, count_parameters, layer_shapes
from eigen_jax.errors import ConfigError
from eigen_jax.executor import Job
from eigen_jax.genome import GenomeSpec
from eigen_jax.search import SearchConfig, run_search
from eigen_jax.strategies import Eden
from eigen_jax.strategies.eden import MAX_DRAWS, Chain, bear

ACTIVATIONS = ["relu", "tanh", "sigmoid", "linear"]
TENTHS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
KINDS: dict[str, dict[str, list[Any]]] = {
    "plain_conv": {"channels": list(range(10, 101)), "kernel": [1, 2, 3, 4, 5, 6], "activation": ACTIVATIONS},
    "pool_any": {"side": [1, 2, 3, 4, 5, 6]},
    "dense": {"units": list(range(10, 101)), "activation": ACTIVATIONS},
    "dropout": {"rate": TENTHS},
}
RATES = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01]
OPERATORS = ["add_layer", "remove_layer", "replace_layer", "change_gene", "change_learning_rate"]

STRATEGY = Eden(spec=SPEC, config=CONFIG)
# Bounds that bind, and are exact in float32.
SMALL = GenomeSpec(capacity=7, input_shape=(8, 8, 1), max_parameters=30_000, max_flops=1_500_000)
LARGE = GenomeSpec(capacity=12, input_shape=(32, 20, 3), num_classes=100, max_parameters=500_000, max_flops=16_000_000)

ReferenceLayer = tuple[str, dict[str, Any]]


class Reference(NamedTuple):
    """A genome as values."""

    layers: list[ReferenceLayer]
    rate: float


def pick(values: list[Any], word: int) -> Any:
    """One of the values: which, is the word as a fraction of 2 ** 32."""
    return values[word * len(values) >> 32]


def another(values: list[Any], value: Any, word: int) -> Any:
    """One of the other values, counted from the next on, past the last from the first."""
    at = values.index(value)
    return pick(values[at + 1 :] + values[:at], word)


def reference_layer(words: list[int]) -> ReferenceLayer:
    kind = pick(list(KINDS), words[0])
    return kind, {
        name: pick(values, word) for (name, values), word in zip(KINDS[kind].items(), words[1:], strict=False)
    }


def reference_mutant(words: list[int], parent: Reference, operator: str, capacity: int) -> Reference | None:
    """The mutant, or None where the operator has nothing to be applied to."""
    layers, rate = list(parent.layers), parent.rate
    if operator == "change_learning_rate":
        return Reference(layers, another(RATES, rate, words[6]))
    if operator == "add_layer":
        if len(layers) == capacity:
            return None
        layers.insert(pick(list(range(len(layers) + 1)), words[0]), reference_layer(words[1:5]))
        return Reference(layers, rate)
    if not layers:
        return None
    site = pick(list(range(len(layers))), words[0])
    if operator == "remove_layer":
        del layers[site]
    elif operator == "replace_layer":
        layers[site] = reference_layer(words[1:5])
    else:
        kind, values = layers[site]
        gene = pick(list(KINDS[kind]), words[5])
        layers[site] = kind, {**values, gene: another(KINDS[kind][gene], values[gene], words[6])}
    return Reference(layers, rate)


def is_sensible(layers: list[ReferenceLayer], spec: GenomeSpec) -> bool:
    """Whether nothing but dense layers and dropout reads a 1 x 1 map, and the bounds hold, edges counted in full."""
    height, width, channels = spec.input_shape
    parameters = flops = 0
    for kind, values in layers:
        if kind in ("plain_conv", "pool_any") and height == width == 1:
            return False
        if kind == "pool_any":
            height, width = math.ceil(height / values["side"]), math.ceil(width / values["side"])
        if kind == "plain_conv":
            weights = values["kernel"] ** 2 * channels * values["channels"]
            parameters, flops = parameters + weights + values["channels"], flops + 2 * height * width * weights
            channels = values["channels"]
        if kind == "dense":
            weights = height * width * channels * values["units"]
            parameters, flops = parameters + weights + values["units"], flops + 2 * weights
            height, width, channels = 1, 1, values["units"]
    parameters += (channels + 1) * spec.num_classes
    return parameters <= spec.max_parameters and flops + 2 * channels * spec.num_classes <= spec.max_flops


def reference_child(words: np.ndarray, parent: Reference | None, spec: GenomeSpec) -> tuple[Reference, dict[str, int]]:
    """A child, and how often each operator made it; of nobody, a random chain."""
    first, *draws = words.tolist()
    child, steps = parent, 1
    if child is None:
        child, steps = Reference([], pick(RATES, first[1])), 1 + pick(list(range(6)), first[0])
    counts = dict.fromkeys(OPERATORS, 0)
    for own in draws:
        if sum(counts.values()) == steps:
            break
        operator = "add_layer" if parent is None else pick(OPERATORS, own[0])
        mutant = reference_mutant(own[1:], child, operator, spec.capacity)
        if mutant is not None and is_sensible(mutant.layers, spec):
            child, counts[operator] = mutant, counts[operator] + 1
    return child, counts


def make_chains(layers: Any, rates: Any) -> Chain:
    return Chain(jnp.asarray(layers, jnp.int32), jnp.asarray(rates, jnp.int32))


def told(strategy: Eden, genome: Any) -> Reference:
    """A genome as the strategy tells it, whose layers follow on one another."""
    architecture, training = strategy.decode(genome), dict(strategy.training(genome))
    assert [layer.inputs for layer in architecture.layers] == [
        (place - 1,) for place in range(len(architecture.layers))
    ]
    assert architecture.input_shape == strategy.spec.input_shape
    rate = training.pop("learning_rate")
    assert training == {"optimizer": "adam"}
    return Reference([(layer.op, dict(layer.values)) for layer in architecture.layers], rate)


@partial(jit, static_argnames="spec")
def bear_all(words, parents, is_new, *, spec):
    return jax.vmap(partial(bear, spec=spec))(words, parents, is_new)


@pytest.mark.parametrize("spec", [SMALL, LARGE], ids=["small", "large"])
def test_chains_are_born_and_mutated_as_their_plain_python_transcriptions(spec):
    """All operators, again and again, on random chains; what comes out is a network within the bounds."""
    number, strategy, rng = 24, Eden(spec=spec), np.random.default_rng(0)
    chains = make_chains(np.zeros((number, spec.capacity, 4)), np.zeros(number))
    references: list[Reference | None] = [None] * number
    applied, lengths, rejected = dict.fromkeys(OPERATORS, 0), set(), 0
    for turn in range(40):
        words = rng.integers(0, 2**32, (number, 1 + MAX_DRAWS, 8), np.uint32)
        chains, counts = jax.device_get(bear_all(words, chains, np.full(number, turn == 0), spec=spec))
        for slot in range(number):
            child, by_operator = reference_child(words[slot], references[slot], spec)
            genome = jax.tree.map(lambda leaf, slot=slot: leaf[slot], chains)
            assert told(strategy, genome) == child
            assert dict(zip(OPERATORS, counts[slot].tolist(), strict=True)) == by_operator
            live = len(child.layers)
            assert (genome.layers[live:] == 0).all()
            lengths.add(live)
            applied = {name: times + by_operator[name] for name, times in applied.items()}
            first = pick(OPERATORS, int(words[slot, 1, 0]))
            rejected += turn > 0 and by_operator[first] == 0
            references[slot] = child
            architecture = strategy.decode(genome)
            assert count_parameters(architecture, num_classes=spec.num_classes) <= spec.max_parameters
            assert count_flops(architecture, num_classes=spec.num_classes) <= spec.max_flops
    assert strategy.operator_names() == tuple(OPERATORS)
    assert min(applied.values()) > 50
    assert {0, 1, 2, 3, 4, 5} <= lengths
    assert rejected > 50


def test_bounds_that_no_weights_keep_leave_pools_and_dropout():
    spec = GenomeSpec(capacity=3, input_shape=(4, 4, 1), max_parameters=20, max_flops=20)  # the classifier's own
    words = np.random.default_rng(1).integers(0, 2**32, (8, 1 + MAX_DRAWS, 8), np.uint32)
    nothing = make_chains(np.zeros((8, 3, 4)), np.zeros(8))
    chains, counts = bear_all(words, nothing, np.arange(8) < 4, spec=spec)
    assert set(np.unique(chains.layers[:4, :, 0]).tolist()) == {0, 2, 4}
    lengths = (chains.layers[:4, :, 0] > 0).sum(axis=1)
    assert counts[:4].tolist() == [[length, 0, 0, 0, 0] for length in lengths.tolist()]
    assert lengths.max() == 3  # the capacity, however many were to come
    assert (counts[4:].sum(axis=1) == 1).all()


def parents_by_hand(done: Search, seed: int, generation: int) -> list[tuple[int, int]]:
    """The fittest of each sample of three; nobody where all of them failed, or have not been yet."""
    if generation == 0:
        return [NOBODY] * 5
    key, _ = jax.random.split(key_of(seed, generation))
    samples = jax.random.randint(key, (5, CONFIG.sample_size), 0, 5).tolist()
    chosen = []
    for sample in samples:
        best = NOBODY
        for rival in [(generation - 1, index) for index in sample]:
            value = done.fitness[rival].item()
            if math.isfinite(value) and (best == NOBODY or value > done.fitness[best].item()):
                best = rival
        chosen.append(best)
    return chosen


def check(done: Search, seed: int) -> None:
    assert len(done.fitness) == CONFIG.max_children
    for generation in range(5):
        _, key = jax.random.split(key_of(seed, generation))
        words = np.asarray(jax.random.bits(key, (5, 1 + MAX_DRAWS, 8), np.uint32))
        parents = parents_by_hand(done, seed, generation)
        for index in range(min(5, CONFIG.max_children - 5 * generation)):
            own: Individual = done.individuals[generation, index]
            assert done.parent((generation, index)) == parents[index]
            parent = None if parents[index] == NOBODY else told(STRATEGY, done.individuals[parents[index]].genome)
            child, counts = reference_child(words[index], parent, SPEC)
            assert told(STRATEGY, own.genome) == child
            assert own.operators.tolist() == list(counts.values())
            assert (own.repeats == 1).all()


@settings(max_examples=settings().max_examples // 4, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 100))
def test_a_search_agrees_with_its_plain_python_transcription(seed):
    check(search(STRATEGY, landscape(seed, 1), seed=seed), seed)


def test_where_a_whole_sample_failed_the_child_is_a_random_chain():
    done = search(STRATEGY, lambda architecture: np.full(1, -np.inf, np.float32))
    check(done, 0)
    assert {done.parent(place) for place in done.individuals} == {NOBODY}
    assert {operators for each in done.individuals.values() for operators in np.flatnonzero(each.operators)} == {0}


def test_nobody_has_parents_in_a_slot_that_is_left_empty():
    last = search(STRATEGY, landscape(3, 1)).states[4].population
    assert last.places[:, 0].tolist() == [4, 4, 4, -1, -1]
    assert (last.parents[3:] == -1).all()


def test_a_stage_has_the_name_of_how_its_children_are_bred():
    states = search(STRATEGY, landscape(3, 1)).states
    assert [STRATEGY.phase(state) for state in states[:-1]] == ["initial", *["tournament"] * 4]
    assert STRATEGY.title(states[0]) == "EDEN: random chains of up to 6 layers"
    assert STRATEGY.title(states[1]) == "EDEN: a mutation of the fittest of 2 of the generation before"


def test_a_sample_larger_than_the_population_is_refused():
    with refuses(ConfigError, "sample_size is 6; it must be at most population_size, which is 5"):
        Eden(spec=SPEC, config=dataclasses.replace(CONFIG, sample_size=6))


def test_each_is_trained_at_the_rate_of_its_genome_and_recorded_with_it(tmp_path, monkeypatch):
    jobs: dict[str, Job] = {}
    pretended = Pretence(monkeypatch)
    pretended.afterwards = lambda job: jobs.update({job.name: job})
    spec = GenomeSpec(capacity=6, input_shape=(4, 4, 1), num_classes=2)
    evolution = dataclasses.replace(CONFIG, max_children=8)
    config = SearchConfig(t1=1, t2=1, t3=1, final_steps=0, genome=spec, evolution=evolution, train=TRAIN)
    run_search(config, make_dataset(), tmp_path / "run", strategy=Eden(spec=spec, config=evolution))
    rates = set()
    for each in lineage.read(tmp_path / "run" / "lineage.jsonl"):
        assert each.training["optimizer"] == "adam"
        assert each.training["learning_rate"] in RATES
        rates.add(each.training["learning_rate"])
        if each.same_as is None:
            own = jobs[str(each.reference)].config
            assert {"optimizer": own.optimizer, "learning_rate": own.learning_rate} == each.training
            assert dataclasses.replace(own, optimizer="sgd", learning_rate=TRAIN.learning_rate) == TRAIN
    assert len(rates) > 2


def test_maps_shrink_as_pools_and_dense_layers_say():
    layers = [[1, 0, 5, 0], [2, 2, 0, 0], [4, 4, 0, 0], [3, 90, 3, 0], [0, 0, 0, 0]]
    genome = jax.device_get(make_chains(layers, 3))
    architecture = Eden(spec=GenomeSpec(capacity=5, input_shape=(8, 7, 1))).decode(genome)
    assert layer_shapes(architecture) == ((8, 7, 10), (3, 3, 10), (3, 3, 10), (1, 1, 100))
    assert [layer.op for layer in architecture.layers] == ["plain_conv", "pool_any", "dropout", "dense"]
    assert (architecture.layers[0].kernel, architecture.layers[2].rate) == (6, 0.5)
