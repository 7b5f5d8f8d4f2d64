"""Gene duplication: networks drawn by hand, and random ones against plain Python."""

import dataclasses
import itertools
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_duplication as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import SPEC, as_genome, assert_equal, assert_same_arrays, jit, p_value, pick, stack
from reference_mutation import Network, concat, conv, networks, obeys, pool, to_network

from eigen_jax.architecture import count_flops, count_parameters, decode
from eigen_jax.builder import build_network
from eigen_jax.duplication import MAX_CANDIDATES, block_levels, duplicate, duplicates, repeat_blocks
from eigen_jax.genome import Genome, GenomeSpec, is_valid
from eigen_jax.mutation import mutate

# Blocks at 8 x 8, 4 x 4, 2 x 2 and 1 x 1.
HAND = GenomeSpec(capacity=40, input_shape=(8, 8, 3))
strided = partial(conv, stride=1)  # the index of stride 2
wide = partial(conv, channels=1)  # another convolution than `conv`'s

repeat = jit(repeat_blocks, static_argnames="spec")
draw = jit(duplicates, static_argnames=("count", "spec", "max_repeats"))
levels = jit(block_levels, static_argnames="spec")
valid = jit(is_valid, static_argnames="spec")
valid_all = jit(lambda genomes, *, spec: jax.vmap(partial(is_valid, spec=spec))(genomes), static_argnames="spec")


def repeated(network: Network, repeats: tuple[int, ...], *, spec: GenomeSpec = HAND) -> tuple[Genome, bool]:
    genome, fits = repeat(as_genome(network, spec=spec), jnp.asarray(repeats, jnp.int32), spec=spec)
    assert (fits.dtype, fits.shape) == (bool, ())
    return genome, bool(fits)


# (the network, how often each block stands, what comes out); positions are numbered from 0.
BY_HAND: dict[str, tuple[Network, tuple[int, ...], Network]] = {
    "one block": (
        (conv(), wide(0)),
        (2, 1, 1, 1),
        (conv(), wide(0), conv(1), wide(2)),
    ),
    "one block with a skip, three times": (
        (conv(), wide(0), concat(1, 0)),
        (3, 1, 1, 1),
        (conv(), wide(0), concat(1, 0), conv(2), wide(3), concat(4, 3), conv(5), wide(6), concat(7, 6)),
    ),
    "two layers read the image": (
        (conv(), wide(), concat(0, 1)),
        (2, 1, 1, 1),
        (conv(), wide(), concat(0, 1), conv(2), wide(2), concat(3, 4)),
    ),
    "the second of two blocks, opened by a pool": (
        (conv(), pool(0), wide(1)),
        (1, 2, 1, 1),
        (conv(), pool(0), wide(1), wide(2)),
    ),
    "both of two blocks": (
        (conv(), pool(0), wide(1)),
        (2, 2, 1, 1),
        (conv(), conv(0), pool(1), wide(2), wide(3)),
    ),
    "a strided convolution opens the second block": (
        (conv(), strided(0), wide(1)),
        (1, 3, 1, 1),
        (conv(), strided(0), wide(1), conv(2), wide(3), conv(4), wide(5)),
    ),
    "a skip from the pool that opens the block": (
        (conv(), pool(0), wide(1), concat(2, 1)),
        (1, 3, 1, 1),
        # In the copies, what the pool stands for is the concatenation of the copy before.
        (conv(), pool(0), wide(1), concat(2, 1), wide(3), concat(4, 3), wide(5), concat(6, 5)),
    ),
    "a pool and a strided convolution side by side": (
        (conv(), pool(0), strided(0), concat(1, 2)),
        (1, 2, 1, 1),
        (conv(), pool(0), strided(0), concat(1, 2), conv(3), concat(3, 4)),
    ),
    "two pools are joined": (
        (conv(), wide(0), pool(0), pool(1), concat(2, 3)),
        (1, 2, 1, 1),
        (conv(), wide(0), pool(0), pool(1), concat(2, 3), concat(4, 4)),
    ),
    "two layers of the block are read from outside": (
        (conv(), wide(0), pool(0), pool(1), concat(2, 3)),
        (2, 1, 1, 1),
        (conv(), wide(0), conv(1), wide(2), pool(2), pool(3), concat(4, 5)),
    ),
    "a layer that the last one does not read is pruned": (
        (conv(), wide(), pool(0), pool(1), concat(2, 3)),
        (2, 1, 1, 1),
        # The first `conv` was read by a pool only, which now reads its copy.
        (wide(), conv(0), wide(0), pool(1), pool(2), concat(3, 4)),
    ),
    "a pool is read from outside": (
        (pool(), conv(0), strided(1), pool(0), concat(2, 3)),
        (1, 2, 1, 1),
        (pool(), conv(0), conv(1), strided(2), pool(1), concat(3, 4)),
    ),
    "a pool is the last layer of its block": (
        (strided(), pool(), strided(0), pool(1), concat(2, 3)),
        (1, 3, 1, 1),
        (pool(), conv(0), conv(1), strided(2), pool(1), concat(3, 4)),
    ),
    "what is pruned of one block is not read of the block before": (
        (strided(), pool(), strided(0), pool(1), strided(2), pool(3), concat(4, 5)),
        (1, 1, 2, 1),
        (pool(), pool(0), conv(1), strided(2), pool(1), concat(3, 4)),
    ),
    "blocks whose genes take turns": (
        (pool(), conv(), conv(0), pool(1), concat(2, 3)),
        (2, 2, 1, 1),
        # At 8 x 8 conv, conv; at 4 x 4 a pool of the image and the convolution on it, joined with a pool.
        (conv(), conv(0), pool(), conv(2), pool(1), concat(3, 4), conv(5), concat(6, 5)),
    ),
    "three blocks": (
        (conv(), pool(0), wide(1), strided(2), concat(3, 3)),
        (2, 1, 2, 1),
        (conv(), conv(0), pool(1), wide(2), strided(3), concat(4, 4), conv(5), concat(6, 6)),
    ),
    "four blocks, all twice": (
        (conv(), strided(0), wide(1), pool(2), conv(3), wide(4), concat(5, 4), strided(6)),
        (2, 2, 2, 2),
        (
            *(conv(), conv(0)),
            *(strided(1), wide(2), conv(3), wide(4)),
            *(pool(5), conv(6), wide(7), concat(8, 7), conv(9), wide(10), concat(11, 10)),
            *(strided(12), conv(13)),
        ),
    ),
    "the third of four blocks, where the second has pools alone": (
        (conv(), pool(0), pool(1), wide(2), concat(3, 2), pool(4)),
        (1, 1, 2, 1),
        (conv(), pool(0), pool(1), wide(2), concat(3, 2), wide(4), concat(5, 4), pool(6)),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_blocks_are_repeated_as_drawn_by_hand(name):
    network, repeats, expected = BY_HAND[name]
    genome, fits = repeated(network, repeats)
    assert fits
    assert valid(genome, spec=HAND)
    assert decode(genome, spec=HAND) == decode(as_genome(expected, spec=HAND), spec=HAND)
    # The transcription that random networks are held against is held against the drawings, too.
    again = as_genome(reference.repeat(network, repeats, spec=HAND), spec=HAND)
    assert decode(again, spec=HAND) == decode(as_genome(expected, spec=HAND), spec=HAND)


@pytest.mark.parametrize("name", BY_HAND)
def test_every_block_once_is_the_same_network(name):
    network, _, _ = BY_HAND[name]
    genome, fits = repeated(network, (1, 1, 1, 1))
    assert fits
    assert_same_arrays(genome, as_genome(network, spec=HAND))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ((), [False, False, False, False]),
        ((conv(),), [True, False, False, False]),
        ((conv(), pool(0), pool(1), conv(2)), [True, False, True, False]),
        ((pool(), strided(0), pool(1)), [False, False, True, False]),
        ((conv(), pool(0), concat(1, 1)), [True, True, False, False]),
        ((conv(), wide(0), pool(0), pool(1), strided(2), pool(3), concat(4, 5)), [True, False, True, False]),
    ],
)
def test_the_blocks_that_can_be_repeated_by_hand(network, expected):
    assert levels(as_genome(network, spec=HAND), spec=HAND).tolist() == expected


def test_what_cannot_be_repeated_leaves_the_genome():
    network = (conv(), pool(0))
    for repeats in ((1, 2, 1, 1), (1, 1, 2, 1), (0, 1, 1, 1), (-3, 1, 1, 1), (40, 1, 1, 1), (2**31 - 1, 1, 1, 1)):
        genome, fits = repeated(network, repeats)
        assert not fits
        assert_same_arrays(genome, as_genome(network, spec=HAND))
    assert int(repeated(network, (39, 1, 1, 1))[0].length) == 40
    assert repeated((), (1, 1, 1, 1))[1]
    assert not repeated((), (2, 1, 1, 1))[1]


def test_a_strided_convolution_is_not_copied_where_the_search_space_has_no_stride_of_one():
    spec = GenomeSpec(capacity=9, strides=(2,), input_shape=(4, 4, 3))
    network = (conv(), concat(0, 0), conv(1), pool(1), concat(2, 3))
    assert levels(as_genome(network, spec=spec), spec=spec).tolist() == [False, False, False]
    assert not repeated(network, (1, 2, 1), spec=spec)[1]
    pools = (conv(), pool(0), concat(1, 1))
    genome, fits = repeated(pools, (1, 1, 2), spec=spec)
    assert fits
    assert to_network(genome) == (conv(), pool(0), concat(1, 1), concat(2, 2))


def test_strides_are_told_by_their_value_and_not_by_their_place_in_the_search_space():
    spec = GenomeSpec(capacity=9, strides=(2, 1), input_shape=(2, 2, 3))
    halving, plain = conv, partial(conv, stride=1)
    genome, fits = repeated((plain(), halving(0), concat(1, 1)), (1, 2), spec=spec)
    assert fits
    assert to_network(genome) == (plain(), halving(0), concat(1, 1), plain(2), concat(3, 3))
    assert valid(genome, spec=spec)


def test_the_bounds_on_parameters_and_flops_hold_to_the_last_unit():
    network: Network = (conv(kernel=0), pool(0), conv(1, kernel=0))
    parameters = (3 * 16 + 32) + 2 * (16 * 16 + 32) + 17 * 10
    flops = 2 * (64 * 3 * 16 + 16 * 16 * 16 * 2 + 16 * 10)
    exact = GenomeSpec(capacity=8, input_shape=(8, 8, 3), max_parameters=parameters, max_flops=flops)
    assert repeated(network, (1, 2, 1, 1), spec=exact)[1]
    fewer_parameters = dataclasses.replace(exact, max_parameters=parameters - 1)
    fewer_flops = dataclasses.replace(exact, max_flops=flops - 1)
    for spec in (fewer_parameters, fewer_flops):
        assert not repeated(network, (1, 2, 1, 1), spec=spec)[1]


@settings(max_examples=100)
@given(network=networks(spec=SPEC).filter(partial(obeys, spec=SPEC)), data=st.data())
def test_random_networks_are_repeated_as_by_their_plain_python_transcription(network, data):
    blocks = reference.blocks_of(network, spec=SPEC)
    possible = [reference.can_repeat(network, block, spec=SPEC) for block in blocks]
    assert levels(as_genome(network), spec=SPEC).tolist() == possible
    times = st.tuples(*(st.integers(1, 4) if repeatable else st.just(1) for repeatable in possible))
    repeats = data.draw(times)
    expected = reference.repeat(network, repeats, spec=SPEC)
    ought_to_fit = len(expected) <= SPEC.capacity and obeys(expected, spec=SPEC)
    genome, fits = repeated(network, repeats, spec=SPEC)
    assert fits == ought_to_fit
    assert valid(genome, spec=SPEC)
    child = as_genome(expected if fits else network)
    assert decode(genome, spec=SPEC) == decode(child, spec=SPEC)


def all_that_fit(network: Network, most: int, *, spec: GenomeSpec) -> set[tuple[int, ...]]:
    """Combinations of repeats, but for the one of ones, by the transcription."""
    blocks = reference.blocks_of(network, spec=spec)
    choices = [range(1, most + 1) if reference.can_repeat(network, block, spec=spec) else (1,) for block in blocks]
    found = set()
    for repeats in list(itertools.product(*choices))[1:]:
        child = reference.repeat(network, repeats, spec=spec)
        if len(child) <= spec.capacity and obeys(child, spec=spec):
            found.add(repeats)
    return found


@settings(max_examples=60)
@given(network=networks(spec=SPEC).filter(partial(obeys, spec=SPEC)), seed=st.integers(0, 1_000))
def test_drawn_combinations_differ_and_none_that_fits_is_missed(network, seed):
    expected = all_that_fit(network, 3, spec=SPEC)
    genome = as_genome(network)
    for count in (5, 81):
        children, repeats = draw(jax.random.key(seed), genome, count=count, spec=SPEC)
        assert (repeats.shape, repeats.dtype) == ((count, 4), np.int32)
        assert [leaf.shape for leaf in jax.tree.leaves(children)] == [
            (count, *leaf.shape) for leaf in jax.tree.leaves(genome)
        ]
        made = min(count, len(expected))
        drawn = list(map(tuple, repeats.tolist()))
        assert len(set(drawn[:made])) == made
        assert set(drawn[:made]) <= expected
        assert set(drawn[made:]) <= {(1, 1, 1, 1)}
        children = jax.device_get(children)
        for index in {0, made - 1, min(made, count - 1)}:
            child = as_genome(reference.repeat(network, drawn[index], spec=SPEC))
            assert decode(pick(children, index), spec=SPEC) == decode(child, spec=SPEC)
        for index in range(made, count):
            assert_same_arrays(pick(children, index), jax.device_get(genome))


FOUR_BLOCKS, FOUR_REPEATS, _ = BY_HAND["four blocks, all twice"]


def test_combinations_are_drawn_uniformly_among_those_that_fit():
    # The capacity is six layers more than the network has: some combinations are too long.
    spec = GenomeSpec(capacity=14, input_shape=(8, 8, 3))
    expected = all_that_fit(FOUR_BLOCKS, 3, spec=spec)
    assert 5 < len(expected) < 60
    keys = jax.random.split(jax.random.key(0), 2_000)
    genome = as_genome(FOUR_BLOCKS, spec=spec)
    _, repeats = jit(jax.vmap(partial(duplicates, genome=genome, count=2, spec=spec)))(keys)
    for slot in range(2):
        drawn = Counter(map(tuple, repeats[:, slot].tolist()))
        assert p_value(drawn, dict.fromkeys(expected, 1 / len(expected))) > 1e-3
    assert np.all((repeats[:, 0] != repeats[:, 1]).any(axis=1))


def test_one_duplicate_is_the_first_of_many_and_the_genome_itself_where_nothing_fits():
    one = jit(duplicate, static_argnames=("spec", "max_repeats"))
    genome = as_genome(FOUR_BLOCKS, spec=HAND)
    drawn = set()
    for seed in range(5):
        child = one(jax.random.key(seed), genome, spec=HAND, max_repeats=2)
        first, repeats = draw(jax.random.key(seed), genome, count=1, spec=HAND, max_repeats=2)
        assert_same_arrays(child, pick(first, 0))
        assert_same_arrays(child, repeat(genome, repeats[0], spec=HAND)[0])
        assert repeats.max() == 2
        drawn.add(tuple(repeats[0].tolist()))
    assert len(drawn) > 1
    full = GenomeSpec(capacity=8, input_shape=(8, 8, 3))
    genome = as_genome(FOUR_BLOCKS, spec=full)
    assert_same_arrays(one(jax.random.key(0), genome, spec=full, max_repeats=2), genome)


def test_more_combinations_than_are_tried_are_drawn_and_differ():
    spec = GenomeSpec(capacity=256, input_shape=(8, 8, 3))
    assert MAX_CANDIDATES < 16**4
    genome = as_genome(FOUR_BLOCKS, spec=spec)
    children, repeats = draw(jax.random.key(0), genome, count=1_000, spec=spec, max_repeats=16)
    assert len(set(map(tuple, repeats.tolist()))) == 1_000
    assert np.all(valid_all(children, spec=spec))
    for block in range(4):
        assert set(repeats[:, block].tolist()) == set(range(1, 17))
    # Of one block there are 15, all of which are found in the same search space.
    single = as_genome((conv(), pool(0)), spec=spec)
    _, repeats = draw(jax.random.key(0), single, count=1_000, spec=spec, max_repeats=16)
    assert sorted(repeats[:15].tolist()) == [[times, 1, 1, 1] for times in range(2, 17)]
    assert np.all(repeats[15:] == 1)


# Bounds that bind; genomes of up to a hundred layers.
RANDOM = GenomeSpec(capacity=160, max_parameters=1_000_000, max_flops=100_000_000)
PARENTS = 70


@partial(jit, static_argnames="count")
def random_duplicates(keys: jax.Array, steps: jax.Array, *, count: int):
    """Networks of so many mutation steps, and duplicates of each."""

    def family(key, steps):
        key_mutation, key_duplication = jax.random.split(key)
        parent, _ = mutate(key_mutation, as_genome((), spec=RANDOM), steps, spec=RANDOM)
        children, repeats = duplicates(key_duplication, parent, count=count, spec=RANDOM)
        return parent, children, repeats

    return jax.vmap(family)(keys, steps)


def families(seed: int, *, count: int):
    key_steps, key_children = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(key_children, PARENTS)
    steps = jax.random.randint(key_steps, (PARENTS,), 1, 101, jnp.int32)
    return jax.device_get(random_duplicates(keys, steps, count=count))


@jit
def check_families(children: Genome) -> jax.Array:
    return jax.vmap(jax.vmap(partial(is_valid, spec=RANDOM)))(children)


def test_duplicates_of_random_genomes_stay_valid_over_as_many_as_asked(pytestconfig):
    """`pytest --chains 20000` checks so many, and builds some of them."""
    checked = 0
    for seed in itertools.count():
        parents, children, repeats = families(seed, count=10)
        assert np.all(check_families(children))
        duplicated = int((repeats > 1).any(axis=-1).sum())
        assert duplicated > PARENTS
        for family in range(PARENTS):
            made = [tuple(row) for row in repeats[family].tolist() if max(row) > 1]
            assert len(made) == len(set(made))
        for family in np.random.default_rng(seed).choice(PARENTS, 4, replace=False).tolist():
            child = pick(pick(children, family), 0)
            parent = to_network(pick(parents, family))
            expected = reference.repeat(parent, tuple(repeats[family, 0].tolist()), spec=RANDOM)
            assert_built_within_bounds(child, expected)
        checked += duplicated
        if checked >= pytestconfig.getoption("chains"):
            break


def assert_built_within_bounds(genome: Genome, expected: Network) -> None:
    architecture = decode(genome, spec=RANDOM)
    assert architecture == decode(as_genome(expected, spec=RANDOM), spec=RANDOM)
    module = build_network(architecture, num_classes=RANDOM.num_classes)
    images = jax.ShapeDtypeStruct((1, *RANDOM.input_shape), jnp.float32)
    logits, variables = jax.eval_shape(partial(module.init_with_output, train=False), jax.random.key(0), images)
    assert logits.shape == (1, RANDOM.num_classes)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == count_parameters(architecture, num_classes=RANDOM.num_classes) <= RANDOM.max_parameters
    assert count_flops(architecture, num_classes=RANDOM.num_classes) <= RANDOM.max_flops


def test_an_individual_gives_the_same_duplicates_alone_as_in_a_batch():
    genomes = stack([as_genome(network, spec=HAND) for network, _, _ in BY_HAND.values()])
    keys = jax.random.split(jax.random.key(3), len(BY_HAND))
    batch = jit(jax.vmap(partial(duplicates, count=7, spec=HAND)))(keys, genomes)
    for index in range(len(BY_HAND)):
        alone = draw(keys[index], pick(genomes, index), count=7, spec=HAND)
        assert_equal(alone, pick(batch, index))
