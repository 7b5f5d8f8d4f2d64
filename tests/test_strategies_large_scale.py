"""Large-Scale Evolution against a transcription in plain Python."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache, partial
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_loop import CONFIG, NOBODY, SPEC, Place, Search, landscape, search
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array
from mutation_checks import assert_same_arrays, jit, p_value, pick
from reference_large_scale import TIGHT, Conv, Edge, Net, draw_net, fits, layers_of, outcomes, read, write
from refusals import refuses

from eigen_jax.architecture import Architecture, count_flops, count_parameters
from eigen_jax.errors import ConfigError
from eigen_jax.strategies import NONE, EvolutionConfig, LargeScaleEvolution
from eigen_jax.strategies.large_scale import OPERATORS, Dna, mutate

STRATEGY = LargeScaleEvolution(spec=TIGHT, config=CONFIG)
mutate_jit = jit(jax.vmap(partial(mutate, spec=TIGHT)))


def tally(children: Dna, labels: np.ndarray) -> Counter[tuple[int, Net]]:
    """How often each label and network is in a batch."""
    leaves = [np.asarray(leaf) for leaf in (labels, children.edges, children.skips, children.length)]
    rows = np.concatenate([leaf.reshape(len(labels), -1) for leaf in leaves], axis=1)
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    tallied: Counter[tuple[int, Net]] = Counter()
    for place, count in zip(first, counts, strict=True):
        tallied[int(labels[place]), read(pick(children, place))] += int(count)
    return tallied


@cache
def _applied(operator: str) -> Any:
    return jit(jax.vmap(OPERATORS[operator], (0, None, None)))


NETS = [Net((), ()), *(draw_net(seed, edges=edges) for seed, edges in enumerate((1, 2, 4, 7)))]


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_makes_what_its_transcription_does_as_often(operator):
    widths = [[net.width(vertex) for vertex in range(TIGHT.capacity + 1)] for net in NETS]
    applied = 0
    for net, width in zip(NETS, widths, strict=True):
        expected, keys = outcomes(net, operator), jax.random.split(jax.random.key(0), 3_000)
        children, applies = jax.device_get(_applied(operator)(keys, write(net), jnp.asarray(width, jnp.int32)))
        assert np.all(applies == bool(expected))
        if expected:
            drawn = tally(children, np.zeros(len(keys), np.int32))
            assert p_value(drawn, {(0, child): share for child, share in expected.items()}) > 1e-3
            applied += 1
    assert applied >= 3


def test_the_learning_rate_is_halved_or_doubled_at_most_on_a_log_scale():
    keys = jax.random.split(jax.random.key(1), 4_000)
    children, _ = jax.device_get(_applied("alter_learning_rate")(keys, write(NETS[2]), jnp.ones(8, jnp.int32)))
    logs = np.log2(children.learning_rate / 0.25)
    assert np.all((logs >= -1) & (logs <= 1))
    counts, _ = np.histogram(logs, bins=10, range=(-1, 1))
    assert p_value(Counter(dict(enumerate(counts.tolist()))), dict.fromkeys(range(10), Fraction(1, 10))) > 1e-3


BOUND = {
    "nothing to alter": Net((Edge(None, True, 9),), ()),
    "FLOPs": Net((Edge(Conv(5, 1, 3, 3), True, 1), Edge(None, False, 2)), ((0, 1), (0, 1))),
    "maps of one pixel": Net((Edge(Conv(3, 4, 3, 1), False, 1), Edge(Conv(2, 2, 1, 1), True, 2)), ((1, 2),)),
    "layers": Net((Edge(Conv(2, 2, 1, 3), True, 1), *(Edge(None, True, number) for number in (2, 3, 4))), ((0, 4),)),
}


@pytest.mark.parametrize("net", BOUND.values(), ids=BOUND)
def test_a_mutation_is_drawn_again_where_it_does_not_apply_or_its_child_does_not_fit(net):
    assert fits(net)
    expected: dict[Any, Fraction] = {}
    shares = dict.fromkeys(OPERATORS, Fraction(0))
    for place, name in enumerate(OPERATORS):
        for child, share in outcomes(net, name).items():
            if fits(child):
                expected[place, child] = share
                shares[name] += share
    assert all(shares[name] == 1 for name in ("alter_learning_rate", "identity", "reset_weights"))
    assert any(share < 1 for share in shares.values())
    total = sum(expected.values())
    batch = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (6_000, *leaf.shape)), write(net))
    children, operators = jax.device_get(mutate_jit(jax.random.split(jax.random.key(2), 6_000), batch))
    assert p_value(tally(children, operators), {which: share / total for which, share in expected.items()}) > 1e-3


def chains(individuals: int, steps: int) -> Iterator[tuple[Dna, Dna, np.ndarray]]:
    """Parents, children and operators of chains of mutations, side by side."""
    first = write(Net((), ()))
    parents = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (individuals, *leaf.shape)), first)
    for step in range(steps):
        keys = jax.random.split(jax.random.key(step), individuals)
        children, operators = jax.device_get(mutate_jit(keys, parents))
        yield parents, children, operators
        parents = children


def test_children_of_long_chains_are_networks_of_the_search_space_that_keep_the_identities_of_their_weights():
    seen: Counter[str] = Counter()
    for parents, children, operators in chains(individuals=16, steps=70):
        for place, operator in enumerate(operators.tolist()):
            parent, child, name = pick(parents, place), pick(children, place), list(OPERATORS)[operator]
            check_network(child)
            check_identities(parent, child, name)
            seen[name] += 1
            assert (child.learning_rate != parent.learning_rate) == (name == "alter_learning_rate")
    assert min(seen[name] for name in OPERATORS) >= 10


def check_network(dna: Dna) -> None:
    net, architecture = read(dna), STRATEGY.decode(dna)
    assert fits(net)
    assert architecture == Architecture(input_shape=TIGHT.input_shape, layers=layers_of(net))
    assert count_parameters(architecture, num_classes=3) <= TIGHT.max_parameters
    assert count_flops(architecture, num_classes=3) <= TIGHT.max_flops
    *identities, classifier = STRATEGY.identities(dna)
    assert classifier == 2 * dna.base
    edges = {edge.number: edge for edge in net.edges}
    with_weights = []
    for layer, identity in zip(architecture.layers, identities, strict=True):
        if layer.op == "linear_conv":
            edge = edges[identity // 2 - int(dna.base)]
            assert edge.conv == (layer.channels, layer.stride, layer.kernel_height, layer.kernel_width)
            with_weights.append(identity)
        elif layer.op == "vertex" and layer.activation == "norm_relu":
            assert edges[identity // 2 - int(dna.base)].activates
            with_weights.append(identity)
        else:
            assert identity == -1
    assert len({*with_weights, classifier}) == len(with_weights) + 1
    assert len(with_weights) == sum(bool(edge.conv) + edge.activates for edge in net.edges)


def check_identities(parent: Dna, child: Dna, operator: str) -> None:
    """New ones are new, and the others, with the classifier's, are the same in the same order."""
    before, after = ([n for n in STRATEGY.identities(dna) if n != -1] for dna in (parent, child))
    kept = [identity for identity in after if identity in before]
    if operator == "reset_weights":
        assert (kept, len(after)) == ([], len(before))
    elif operator.startswith("insert"):
        assert kept == before
        assert len(after) - len(before) <= (2 if operator == "insert_convolution" else 1)
    elif operator == "remove_convolution":
        assert kept == after == [identity for identity in before if identity in after]
        assert 1 <= len(before) - len(after) <= 2
    else:
        assert after == before


def large_scale(**changes: Any) -> LargeScaleEvolution:
    return LargeScaleEvolution(spec=SPEC, config=dataclasses.replace(CONFIG, **changes))


_mutate = partial(jit, static_argnames="spec")(mutate)


class Birth(NamedTuple):
    """How a child comes about."""

    parent: Place
    key: Array  # of its mutation
    living: list[Place]  # once it is bred, the oldest first


def births(config: EvolutionConfig, breeding_key: Array, fitness: Mapping[Place, float]) -> Iterator[Birth]:
    """Those of all children, by tournaments of the paper with the same draws."""
    living: list[Place] = []
    for child in range(config.max_children):
        # Child n is bred when those up to n - `ahead` are measured.
        measured = max(0, child - config.ahead + 1)
        if measured:
            living.append((measured - 1, 0))
        keys, parent = jax.random.split(jax.random.fold_in(breeding_key, measured), 3), NOBODY
        if child >= config.population_size:
            first = int(jax.random.randint(keys[0], (), 0, len(living)))
            second = int(jax.random.randint(keys[1], (), 0, len(living) - 1))
            pair = living[first], [*living[:first], *living[first + 1 :]][second]
            parent = max(pair, key=fitness.__getitem__)  # of equals the first drawn
            (worse,) = set(pair) - {parent}
            living.remove(worse)
        yield Birth(parent, keys[2], list(living))


def check_pairs(done: Search, seed: int) -> None:
    config, fitness = done.strategy.config, {place: values.item() for place, values in done.fitness.items()}
    for child, birth in enumerate(births(config, jax.random.key(seed), fitness)):
        individual = done.individuals[child, 0]
        assert done.parent((child, 0)) == birth.parent
        if birth.parent == NOBODY:
            assert child < config.population_size
            assert_same_arrays(individual.genome, done.individuals[0, 0].genome)
            assert not individual.operators.any()
        else:
            dna, operator = jax.device_get(_mutate(birth.key, done.individuals[birth.parent].genome, spec=SPEC))
            assert_same_arrays(individual.genome, dna)
            assert individual.operators.tolist() == [place == operator for place in range(len(OPERATORS))]
            assert len(birth.living) + config.ahead == config.population_size
        ancestors = done.strategy.ancestors(done.states[max(0, child - config.ahead + 1)]).tolist()
        living = birth.living if child + 1 < config.max_children else []  # who may be a parent
        assert [tuple(place) for place in ancestors if place != [NONE, NONE]] == living


@pytest.mark.parametrize(
    "strategy",
    [
        large_scale(),
        large_scale(ahead=1),
        pytest.param(large_scale(population_size=9, ahead=5, max_children=40), marks=pytest.mark.slow),
    ],
    ids=["three in training", "one after another", "more live"],
)
@settings(max_examples=settings().max_examples // 10, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
@given(seed=st.integers(0, 100))
def test_a_search_agrees_with_its_plain_python_transcription(strategy, seed):
    check_pairs(search(strategy, landscape(seed, 1), seed=seed), seed)


def test_the_outcome_does_not_depend_on_who_of_those_in_training_is_done_first():
    in_order = search(large_scale(), landscape(2, 1))
    early = search(large_scale(), landscape(2, 1), told_early=np.random.default_rng(1))
    assert_same_arrays(early.states, in_order.states)


def test_where_all_fail_the_first_drawn_breeds():
    check_pairs(search(large_scale(), lambda architecture: np.full(1, -np.inf, np.float32), seed=4), 4)


def test_fewer_children_than_are_in_training_at_a_time_end_a_search():
    done = search(large_scale(max_children=2), landscape(0, 1))
    assert sorted(done.fitness) == [(0, 0), (1, 0)]


def test_the_first_population_is_single_layers_that_learn_at_a_tenth():
    strategy = large_scale()
    state = strategy.genesis()
    first = jax.device_get(pick(state.individuals.genomes, 0))
    assert strategy.decode(first) == Architecture(input_shape=SPEC.input_shape, layers=())
    assert strategy.training(first) == {"learning_rate": 0.1, "schedule": "constant", "decay_rate": 1.0}
    assert strategy.identities(first) == (0,)
    third = dataclasses.replace(first, learning_rate=np.float32(1 / 3))
    assert np.float32(strategy.training(third)["learning_rate"]) == np.float32(1 / 3)
    phases = [strategy.phase(dataclasses.replace(state, generation=jnp.int32(n))) for n in (0, 4, 5, 22)]
    assert phases == ["initial", "initial", "pairs", "pairs"]


def test_as_many_as_live_cannot_be_in_training():
    with refuses(
        ConfigError, "ahead is 5; it must be less than population_size, which is 5, so that two live to compete"
    ):
        large_scale(ahead=5)
    large_scale(ahead=4)
