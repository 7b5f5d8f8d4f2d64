"""Genetic CNN against its plain Python transcription."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_loop import CONFIG, NOBODY, SPEC, Place, Search, key_of, search, step
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import assert_same_arrays, jit, p_value
from refusals import refuses

from eigen_jax.architecture import Architecture, count_flops, count_parameters, layer_shapes
from eigen_jax.builder import build_network
from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec
from eigen_jax.strategies import GeneticCnn
from eigen_jax.strategies.genetic_cnn import GeneticState, count_convolutions, roulette

STAGES = ((3, 8), (4, 16), (5, 32))  # nodes, channels
STAGE_OF_BIT = [0] * 3 + [1] * 6 + [2] * 10
ODD = GeneticCnn(spec=SPEC, config=CONFIG)  # five, of whom the last has no neighbour
# Both bounds bind; the smallest network has 19,008 FLOPs and 21,826 parameters.
TIGHT = GeneticCnn(
    spec=dataclasses.replace(SPEC, max_flops=60_000, max_parameters=120_000),
    config=dataclasses.replace(CONFIG, population_size=6, max_children=60),
)
PAPER = GeneticCnn(spec=GenomeSpec())
MODULUS = 2**61 - 1

String = tuple[bool, ...]
strings = st.lists(st.booleans(), min_size=19, max_size=19)
few = partial(settings, max_examples=settings().max_examples // 4)


def string_of(genome: Any) -> String:
    return tuple(np.asarray(genome).tolist())


@functools.cache
def measures(strategy: GeneticCnn, string: String) -> tuple[int, int]:
    """Parameters and FLOPs."""
    architecture, classes = strategy.decode(np.array(string)), strategy.spec.num_classes
    return count_parameters(architecture, num_classes=classes), count_flops(architecture, num_classes=classes)


def fits(strategy: GeneticCnn, *given: String) -> bool:
    spec, told = strategy.spec, [measures(strategy, each) for each in given]
    return all(parameters <= spec.max_parameters and flops <= spec.max_flops for parameters, flops in told)


# Decoding.


@pytest.mark.parametrize(("classes", "zeros", "ones"), [(10, 83_666, 276_274), (100, 95_276, 287_884)])
def test_networks_have_the_published_parameters(classes, zeros, ones):
    """3 and 18 convolutions without biases, with a scale and an offset each; two dense layers."""
    strategy = GeneticCnn(spec=GenomeSpec(num_classes=classes))
    for bit, parameters in ((False, zeros), (True, ones)):
        architecture = strategy.decode(np.full(19, bit))
        assert count_parameters(architecture, num_classes=classes) == parameters
        module = build_network(architecture, num_classes=classes)
        image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        made = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), image)["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(made)) == parameters


def conv(value: int, channels: int) -> int:
    """Stands for a convolution: no sum of its outputs is its output of a sum."""
    return (value * value + channels) % MODULUS


def described(string: Iterable[bool]) -> tuple[int, Counter]:
    """What the network of a string gives, with numbers for maps, and its convolutions by channels; by definition."""
    bits, value, convolutions = list(string), 12_345, Counter[int]()
    for nodes, channels in STAGES:
        joined = {(i, j): bits.pop(0) for j in range(1, nodes + 1) for i in range(1, j)}
        first = conv(value, channels)
        convolutions[channels] += 1
        outputs: dict[int, int] = {}
        behind = {i: any(joined[i, j] for j in range(i + 1, nodes + 1)) for i in range(1, nodes + 1)}
        for node in range(1, nodes + 1):
            before = [outputs[i] for i in range(1, node) if joined[i, node]]
            if before or behind[node]:
                outputs[node] = conv(sum(before) if before else first, channels)
        value = first
        if outputs:
            value = conv(sum(output for node, output in outputs.items() if not behind[node]), channels)
            convolutions[channels] += len(outputs) + 1
        value = (3 * value + 1) % MODULUS  # pooling
    return value, convolutions


def evaluated(architecture: Architecture) -> tuple[int, Counter]:
    """The same of an architecture, whose last two layers are for the classifier."""
    outputs = {-1: 12_345}
    for position, layer in enumerate(architecture.layers[:-2]):
        first, *second = (outputs[read] for read in layer.inputs)
        if layer.op == "conv":
            assert (layer.kernel, layer.stride) == (5, 1)
            outputs[position] = conv(first, layer.channels)
        else:
            outputs[position] = {"add": first + sum(second), "pool3": 3 * first + 1}[layer.op] % MODULUS
    channels = Counter(layer.channels for layer in architecture.layers if layer.op == "conv")
    return outputs[len(architecture.layers) - 3], channels


@given(string=strings)
def test_a_string_is_decoded_as_it_is_defined(string):
    architecture = PAPER.decode(np.array(string))
    assert evaluated(architecture) == described(string)
    *_, dense, dropout = architecture.layers
    assert (dense.op, dense.units, dense.activation, dropout.op, dropout.rate) == ("dense", 128, "relu", "dropout", 0.5)
    assert layer_shapes(architecture)[-3:] == ((4, 4, 32), (1, 1, 128), (1, 1, 128))
    sums = [layer for layer in architecture.layers if layer.op == "add"]
    assert len(set(sums)) == len(sums), "no sum is made twice"


def test_stages_of_all_their_strings_are_decoded_as_they_are_defined():
    for number in range(2**9):
        string = [bool(number >> bit & 1) for bit in range(9)] + [False] * 10
        assert evaluated(PAPER.decode(np.array(string))) == described(string)


def test_known_strings_are_the_networks_that_they_are_drawn_as():
    """The bits of a stage are (1, 2), (1, 3), (2, 3), (1, 4), ...; here of the first."""

    def first_stage(bits: str) -> list[tuple[str, tuple[int, ...]]]:
        string = [bit == "1" for bit in bits] + [False] * 16
        layers = [(layer.op, layer.inputs) for layer in PAPER.decode(np.array(string)).layers]
        return list(itertools.takewhile(lambda layer: layer[0] != "pool3", layers))

    assert first_stage("000") == [("conv", (-1,))]
    chain = [("conv", (-1,)), ("conv", (0,)), ("conv", (1,)), ("conv", (2,))]
    assert first_stage("100") == first_stage("010") == first_stage("001") == chain
    assert first_stage("101") == [*chain, ("conv", (3,))]
    # 3 reads 1 and 2; and 2 and 3 read 1.
    assert first_stage("011") == [*chain[:2], ("conv", (0,)), ("add", (1, 2)), ("conv", (3,)), ("conv", (4,))]
    assert first_stage("110") == [*chain[:3], ("conv", (1,)), ("add", (2, 3)), ("conv", (4,))]


@pytest.mark.parametrize(("shape", "pools", "last"), [((8, 8, 1), 3, 1), ((5, 1, 2), 3, 1), ((2, 3, 1), 2, 1)])
def test_a_map_of_one_pixel_is_not_pooled(shape, pools, last):
    spec = GenomeSpec(input_shape=shape)
    for bit in (False, True):
        architecture = GeneticCnn(spec=spec).decode(np.full(19, bit))
        assert sum(layer.op == "pool3" for layer in architecture.layers) == pools
        assert layer_shapes(architecture)[-3] == (last, last, 32)
    one_pixel = GeneticCnn(spec=GenomeSpec(input_shape=(1, 1, 1))).decode(np.zeros(19, bool))
    assert [layer.op for layer in one_pixel.layers] == ["conv"] * 3 + ["dense", "dropout"]


# Selection.


@pytest.mark.parametrize(
    ("fitness", "shares"),
    [
        ([1, 3, 2, -np.inf], [0, 2 / 3, 1 / 3, 0]),
        ([-7, -7.5, -7.5, -5.5], [1 / 5, 0, 0, 4 / 5]),
        ([-3e38, 3e38, 0, np.nan], [0, 2 / 3, 1 / 3, 0]),
        ([0.25, -np.inf, 0.25, 0.25], [1 / 3, 0, 1 / 3, 1 / 3]),
        ([-np.inf, -np.inf, -2, -np.inf], [0, 0, 1, 0]),
        ([-np.inf, np.nan, np.inf, -np.inf], [1 / 4] * 4),
    ],
)
def test_shares_of_the_roulette_are_what_is_above_the_worst(fitness, shares):
    keys = jax.random.split(jax.random.key(0), 2_000)
    draws = jax.vmap(roulette, (0, None))(keys, jnp.asarray(fitness, jnp.float32))
    assert draws.dtype == jnp.int32
    for place in range(4):  # independent draws
        assert p_value(Counter(draws[:, place].tolist()), {i: share for i, share in enumerate(shares) if share}) > 1e-3
    pairs = Counter(zip(draws[:, 0].tolist(), draws[:, 1].tolist(), strict=True))
    joint = {(i, j): one * other for i, one in enumerate(shares) for j, other in enumerate(shares) if one * other}
    assert p_value(pairs, joint) > 1e-3


# Crossover and mutation.


def change(strategy: GeneticCnn, group: list[String], changes: Iterable[Callable[[list[String]], list[String]]]) -> Any:
    """Those of some strings that change together, each change left out which makes one too large."""
    for each in changes:
        changed = each(group)
        group = changed if fits(strategy, *changed) else group
    return group


def exchange(stage: int, group: list[String]) -> list[String]:
    one, other = group
    both = list(zip(one, other, STAGE_OF_BIT, strict=True))
    return [tuple((b if s == stage else a) for a, b, s in both), tuple((a if s == stage else b) for a, b, s in both)]


def flip(bit: int, group: list[String]) -> list[String]:
    return [tuple(value ^ (place == bit) for place, value in enumerate(group[0]))]


def crossed_over(strategy: GeneticCnn, key: Any, given: list[String]) -> tuple[list[String], list[bool]]:
    """Pairs exchange stages, from the first on."""
    key_who, key_stages = jax.random.split(key)
    pairs = len(given) // 2
    crosses = jax.random.bernoulli(key_who, 0.2, (pairs,)).tolist()
    stages = jax.random.bernoulli(key_stages, 0.2, (3, pairs)).tolist()
    after, who = list(given), [False] * len(given)
    for pair in range(pairs):
        if crosses[pair]:
            two = slice(2 * pair, 2 * pair + 2)
            exchanges = [partial(exchange, stage) for stage in range(3) if stages[stage][pair]]
            after[two], who[two] = change(strategy, given[two], exchanges), [True, True]
    return after, who


def mutated(strategy: GeneticCnn, key: Any, given: list[String], who: list[bool], rate: float) -> list[String]:
    """Each flips its bits in an order of its own."""
    key_flips, key_order = jax.random.split(key)
    flips = jax.random.bernoulli(key_flips, rate, (len(given), 19)).tolist()
    order = jax.random.uniform(key_order, (len(given), 19)).tolist()
    after = list(given)
    for index in np.flatnonzero(who).tolist():
        in_order = sorted((bit for bit in range(19) if flips[index][bit]), key=order[index].__getitem__)
        (after[index],) = change(strategy, [given[index]], (partial(flip, bit) for bit in in_order))
    return after


def add(seen: dict[String, list[float]], done: Search, population: list[tuple[String, Place]]) -> list[bool]:
    """Adds what a population measured; gives who failed."""
    values = [done.fitness.get(place, np.array(-np.inf)).item() for _, place in population]
    for (string, _), value in zip(population, values, strict=True):
        if np.isfinite(value):
            seen.setdefault(string, []).append(value)
    return [not np.isfinite(value) for value in values]


def check(done: Search, seed: int, happened: Counter[str]) -> None:
    """That a search is that of the algorithm, with the same draws; tells what happened in it."""
    strategy: Any = done.strategy
    size, most = strategy.config.population_size, strategy.config.max_children
    seen: dict[String, list[float]] = {}
    old: list[tuple[String, Place]] = [((False,) * 19, NOBODY)] * size
    for generation in range(-(-most // size)):
        key_select, key_cross, key_who, key_mutate = jax.random.split(key_of(seed, generation), 4)
        has_failed = add(seen, done, old)
        means = [-np.inf if failed else np.mean(seen[each[0]]) for each, failed in zip(old, has_failed, strict=True)]
        chosen = roulette(key_select, jnp.asarray(means, jnp.float32)).tolist()
        happened["mean of several"] += any(len({*values}) > 1 for values in seen.values())
        happened["known, but failed"] += any(each[0] in seen for each in itertools.compress(old, has_failed))

        selected, parents = [old[index][0] for index in chosen], [old[index][1] for index in chosen]
        if generation:
            crossed, crosses = crossed_over(strategy, key_cross, selected)
            mutates = jax.random.bernoulli(key_who, 0.8, (size,)).tolist()
            mutates = [not cross and mutate for cross, mutate in zip(crosses, mutates, strict=True)]
            children = mutated(strategy, key_mutate, crossed, mutates, 0.05)
        else:
            crossed, crosses = selected, [False] * size
            children = mutated(strategy, key_mutate, selected, [True] * size, 0.5)
        old = []
        for index in range(size):
            place = generation, index
            old.append((children[index], place))
            if generation * size + index >= most:
                assert place not in done.individuals
                continue
            individual = done.individuals[place]
            assert string_of(individual.genome) == children[index]
            stages = {s for s, a, b in zip(STAGE_OF_BIT, selected[index], crossed[index], strict=True) if a != b}
            flips = sum(a != b for a, b in zip(crossed[index], children[index], strict=True)) if generation else 0
            assert individual.operators.tolist() == [len(stages), flips]
            expected = [parents[index], NOBODY]
            if crosses[index] and parents[index ^ 1] != parents[index]:
                expected[1] = parents[index ^ 1]
            assert list(map(tuple, individual.parents.tolist())) == expected
            assert fits(strategy, children[index])
            happened["exchange"] += bool(stages)
            happened["flip"] += bool(flips)
            happened["neither"] += not stages and not flips and generation > 0
            happened["two parents"] += expected[1] != NOBODY
            happened["crossed with itself"] += crosses[index] and expected[1] == NOBODY
    add(seen, done, old)
    check_last(done.states[-1], seen, most)


def check_last(state: GeneticState, seen: dict[String, list[float]], most: int) -> None:
    """That a state of nobody left to be bred knows all strings, in the order in which they came."""
    memory, parents = state.memory, np.asarray(state.population.parents)
    assert (parents == -1).all(), "nobody is a parent of those who are not bred"
    kept = [sum(bit << place for place, bit in enumerate(string)) for string in seen]
    rows = [*kept, *[-1] * (most - len(kept))]
    counts, totals = zip(*((len(values), sum(values)) for values in seen.values()), strict=True)
    assert memory.strings.tolist() == rows
    assert memory.counts.tolist() == [*counts, *[0] * (most - len(kept))]
    assert memory.totals.tolist() == [*totals, *[0] * (most - len(kept))]


def noisy(seed: int) -> Callable[[Architecture], np.ndarray]:
    """A fitness that is another each time, of few levels, and of which every fifth fails."""
    rng = np.random.default_rng(seed)

    def measure(architecture: Architecture) -> np.ndarray:
        return np.array([rng.integers(0, 5) if rng.random() < 0.8 else -np.inf], np.float32)

    return measure


@pytest.mark.parametrize("strategy", [ODD, TIGHT], ids=["an odd number", "within bounds"])
@few(phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 100))
def test_a_search_agrees_with_its_plain_python_transcription(strategy, seed):
    check(search(strategy, noisy(seed), seed=seed), seed, Counter())


def test_all_happens_in_the_searches_that_are_compared():
    happened = Counter[str]()
    for strategy, seed in itertools.product((ODD, TIGHT), range(4)):
        check(search(strategy, noisy(seed), seed=seed), seed, happened)
    told = "mean of several", "known, but failed", "exchange", "flip", "neither", "two parents"
    assert {name for name in (*told, "crossed with itself") if not happened[name]} == set()


def test_where_all_fail_the_parents_are_any():
    done = search(ODD, lambda architecture: np.full(1, -np.inf, np.float32))
    parents = {done.individuals[1, index].parents[0, 1].item() for index in range(5)}
    assert len(parents) > 1
    assert (done.states[-1].memory.strings == -1).all()


def test_events_are_as_frequent_as_published():
    """In one generation of many, all of them unlike."""
    size = 1_000
    config = dataclasses.replace(CONFIG, population_size=size, max_children=2 * size)
    strategy = GeneticCnn(spec=SPEC, config=config)
    genesis = strategy.genesis()
    initial = step(strategy, key_of(0, 0), genesis, strategy.unmeasured(genesis))
    population = jax.device_get(initial.population)
    assert is_share(population.genomes.sum(), size * 19, 0.5)
    assert all(is_share(ones, size, 0.5) for ones in population.genomes.sum(axis=0))
    assert not population.operators.any()
    assert (population.parents == -1).all()

    following = step(strategy, key_of(0, 1), initial, jnp.zeros((size, 1, 1), jnp.float32))
    children = jax.device_get(following.population)
    crossed = children.parents[:, 1, 1] >= 0
    assert is_share(crossed.sum() / 2, size / 2, 0.2)  # hardly a pair is of one parent twice
    assert (crossed[::2] == crossed[1::2]).all()
    assert not children.operators[crossed, 1].any()
    assert not children.operators[~crossed, 0].any()
    before = population.genomes[children.parents[:, 0, 1]]
    for stage in range(3):
        part = np.array(STAGE_OF_BIT) == stage
        unlike = (before[::2, part] != before[1::2, part]).any(axis=1) & crossed[::2]
        exchanged = (children.genomes[::2, part] == before[1::2, part]).all(axis=1) & unlike
        assert is_share(exchanged.sum(), unlike.sum(), 0.2)
    flips = children.operators[~crossed, 1]
    assert (flips == (children.genomes != before)[~crossed].sum(axis=1)).all()
    binomial = {number: 0.8 * chance for number, chance in enumerate(binomials(19, 0.05))}
    binomial[0] += 0.2
    assert p_value(Counter(flips.tolist()), binomial) > 1e-3


def is_share(count: float, of: float, share: float) -> bool:
    """Whether a number of independent events is what is expected, within four standard deviations."""
    return abs(count - of * share) <= 4 * np.sqrt(of * share * (1 - share))


def binomials(number: int, rate: float) -> list[float]:
    chances = [1.0]
    for _ in range(number):
        chances = [a * (1 - rate) + b * rate for a, b in zip([*chances, 0], [0, *chances], strict=True)]
    return chances


# Bounds.


def test_many_changes_within_the_bounds_agree_with_their_plain_python_transcription():
    cross, mutate = jit(TIGHT.cross), jit(TIGHT.mutate)
    genomes, everybody = jnp.zeros((15, 19), bool), jnp.ones(15, bool)
    met: set[String] = set()
    for generation in range(30):
        key_cross, key_mutate = jax.random.split(jax.random.key(generation))
        population = list(map(string_of, genomes))
        genomes, crosses = cross(key_cross, genomes)
        assert (list(map(string_of, genomes)), crosses.tolist()) == crossed_over(TIGHT, key_cross, population)
        population = mutated(TIGHT, key_mutate, list(map(string_of, genomes)), [True] * 15, 0.3)
        genomes = mutate(key_mutate, genomes, everybody, jnp.float32(0.3))
        assert list(map(string_of, genomes)) == population
        met |= set(population)
    assert len(met) > 100
    told = np.array([measures(TIGHT, string) for string in met])
    bounds = np.array([TIGHT.spec.max_parameters, TIGHT.spec.max_flops])
    assert (told <= bounds).all()
    # Both bind: to the largest networks no convolution of the last stage, or of the second, can be added.
    assert (told.max(axis=0) > bounds - [25_664, 8_192]).all()


@given(string=strings)
def test_convolutions_are_counted_as_they_are_decoded(string):
    counted = [int(each) for each in count_convolutions(jnp.asarray(string))]
    _, convolutions = described(string)
    assert counted == [convolutions[channels] - 1 for _, channels in STAGES]


def test_bounds_that_the_smallest_network_does_not_keep_are_refused():
    for name, needed in (("max_parameters", 21_826), ("max_flops", 19_008)):
        enough: dict[str, Any] = {name: needed}
        GeneticCnn(spec=GenomeSpec(input_shape=(4, 4, 1), **enough))
        line = f"{name} is {needed - 1}; it must be at least {needed}, for the smallest network of Genetic CNN"
        with refuses(ConfigError, line):
            GeneticCnn(spec=GenomeSpec(input_shape=(4, 4, 1), **{**enough, name: needed - 1}))


# The seam.


def test_stages_have_names():
    done = search(ODD, noisy(0))
    assert [ODD.phase(state) for state in done.states] == ["initial", *["genetic"] * 5]
    assert ODD.title(done.states[0]) == "Genetic CNN: random strings of 19 bits"
    assert ODD.title(done.states[1]) == "Genetic CNN: roulette among 5, crossover and mutation"
    assert ODD.operator_names() == ("exchange_stage", "flip_bit")
    assert ODD.reevaluates


def test_as_many_strings_are_remembered_as_can_be_met():
    rows = [
        len(dataclasses.replace(ODD, config=dataclasses.replace(CONFIG, max_children=most)).genesis().memory.counts)
        for most in (7, 2**31 - 1)
    ]
    assert rows == [7, 2**19]
    assert_same_arrays(ODD.genesis().memory.totals, np.zeros(23, np.float32))
