"""Gene duplication: networks drawn by hand, and random ones against plain Python."""

import dataclasses
import itertools
from collections import Counter
from functools import partial

import jax
import mutation_checks as checks
import numpy as np
import pytest
import reference_duplication as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import CHAINS, SPEC, as_genome, assert_same_arrays, check, jit, p_value, pick, stack
from reference_mutation import Network, conv, networks, obeys, read, to_network

from eigen_jax.architecture import Architecture, Layer, count_parameters, decode, encode
from eigen_jax.duplication import MAX_CANDIDATES, duplicate, duplicates, find_blocks, repeat_blocks
from eigen_jax.genome import Genome, GenomeSpec, infer_shapes
from eigen_jax.mutation import mutate

# Blocks at 8 x 8, 4 x 4, 2 x 2 and 1 x 1.
HAND = GenomeSpec(capacity=40, input_shape=(8, 8, 3))

draw = jit(duplicates, static_argnames=("count", "spec", "max_repeats"))
find = jit(find_blocks, static_argnames="spec")
valid = jit(checks.is_valid, static_argnames="spec")


@partial(jit, static_argnames="spec")
def repeat(genome: Genome, repeats: jax.Array, *, spec: GenomeSpec) -> tuple[Genome, jax.Array]:
    return repeat_blocks(genome, find_blocks(genome, spec=spec), repeats, spec=spec)


def repeated(network: Network, repeats: tuple[int, ...], *, spec: GenomeSpec = HAND) -> tuple[Genome, bool]:
    genome, fits = jax.device_get(repeat(as_genome(network, spec=spec), np.array(repeats, np.int32), spec=spec))
    assert (fits.dtype, fits.shape) == (bool, ())
    return genome, bool(fits)


FOUR_BLOCKS = "conv, strided, wide, pool, conv, wide, concat 5 4, strided"

# (the network, how often each of its first blocks stands, what comes out)
BY_HAND: list[tuple[str, str, str]] = [
    # One block, alone, with a skip, and with two layers that read the image.
    ("conv, wide", "2", "conv, wide, conv, wide"),
    ("conv, wide, concat 1 0", "3", "conv, wide, concat 1 0, conv, wide, concat 4 3, conv, wide, concat 7 6"),
    ("conv, wide -1, concat 0 1", "2", "conv, wide -1, concat 0 1, conv, wide 2, concat 3 4"),
    # The second of two blocks, and both.
    ("conv, pool, wide", "12", "conv, pool, wide, wide"),
    ("conv, pool, wide", "22", "conv, conv, pool, wide, wide"),
    # A strided convolution opens the second block.
    ("conv, strided, wide", "13", "conv, strided, wide, conv, wide, conv, wide"),
    # A skip from the pool that opens the block; in the copies, the concatenation of the copy before stands for it.
    ("conv, pool, wide, concat 2 1", "13", "conv, pool, wide, concat 2 1, wide, concat 4 3, wide, concat 6 5"),
    # A pool and a strided convolution side by side.
    ("conv, pool, strided 0, concat 1 2", "12", "conv, pool, strided 0, concat 1 2, conv, concat 3 4"),
    # Two pools are joined; two layers of the first block are read from outside.
    ("conv, wide, pool 0, pool 1, concat 2 3", "12", "conv, wide, pool 0, pool 1, concat 2 3, concat 4 4"),
    ("conv, wide, pool 0, pool 1, concat 2 3", "2", "conv, wide, conv, wide, pool 2, pool 3, concat 4 5"),
    # The first `conv` was read by a pool only, which now reads its copy: it is pruned.
    ("conv, wide -1, pool 0, pool 1, concat 2 3", "2", "wide, conv, wide 0, pool 1, pool 2, concat 3 4"),
    # A pool is read from outside, and is the last layer of its block.
    ("pool, conv, strided, pool 0, concat 2 3", "12", "pool, conv, conv, strided, pool 1, concat 3 4"),
    ("strided, pool -1, strided 0, pool 1, concat 2 3", "13", "pool, conv, conv, strided, pool 1, concat 3 4"),
    # What is pruned of one block is not read of the block before.
    (
        "strided, pool -1, strided 0, pool 1, strided 2, pool 3, concat 4 5",
        "112",
        "pool, pool, conv, strided, pool 1, concat 3 4",
    ),
    # Genes take turns: at 8 x 8 conv, conv; at 4 x 4 a pool of the image and what is on it, joined with a pool.
    (
        "pool, conv -1, conv 0, pool 1, concat 2 3",
        "22",
        "conv, conv, pool -1, conv, pool 1, concat 3 4, conv, concat 6 5",
    ),
    # Three blocks; four; and the third of four, where the second has pools alone.
    ("conv, pool, wide, strided, concat 3 3", "212", "conv, conv, pool, wide, strided, concat 4 4, conv, concat 6 6"),
    (
        FOUR_BLOCKS,
        "2222",
        "conv, conv, strided, wide, conv, wide, pool, conv, wide, concat 8 7, conv, wide, concat 11 10, strided, conv",
    ),
    ("conv, pool, pool, wide, concat 3 2, pool", "112", "conv, pool, pool, wide, concat 3 2, wide, concat 5 4, pool"),
]


@pytest.mark.parametrize(("text", "often", "drawn"), BY_HAND)
def test_blocks_are_repeated_as_drawn_by_hand(text, often, drawn):
    network, repeats, expected = read(text), tuple(map(int, often.ljust(4, "1"))), as_genome(read(drawn), spec=HAND)
    genome, fits = repeated(network, repeats)
    assert fits
    assert valid(genome, spec=HAND)
    # The transcription that random networks are held against is held against the drawings, too.
    for each in (genome, as_genome(reference.repeat(network, repeats, spec=HAND), spec=HAND)):
        checks.assert_same_network(each, expected, spec=HAND)
    # Every block once is the network itself, gene for gene.
    assert_same_arrays(repeated(network, (1, 1, 1, 1)), (as_genome(network, spec=HAND), True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [False, False, False, False]),
        ("conv", [True, False, False, False]),
        ("conv, pool, pool, conv", [True, False, True, False]),
        ("pool, strided, pool", [False, False, True, False]),
        ("conv, pool, concat 1 1", [True, True, False, False]),
        ("conv, wide, pool 0, pool 1, strided 2, pool 3, concat 4 5", [True, False, True, False]),
    ],
)
def test_the_blocks_that_can_be_repeated_by_hand(text, expected):
    assert find(as_genome(read(text), spec=HAND), spec=HAND).repeatable.tolist() == expected


def test_what_cannot_be_repeated_leaves_the_genome():
    network = read("conv, pool")
    for repeats in ((1, 2, 1, 1), (1, 1, 2, 1), (0, 1, 1, 1), (-3, 1, 1, 1), (40, 1, 1, 1), (2**31 - 1, 1, 1, 1)):
        assert_same_arrays(repeated(network, repeats), (as_genome(network, spec=HAND), False))
    assert int(repeated(network, (39, 1, 1, 1))[0].length) == 40
    assert repeated((), (1, 1, 1, 1))[1]
    assert not repeated((), (2, 1, 1, 1))[1]


def test_a_strided_convolution_is_copied_only_where_and_as_the_search_space_has_a_stride_of_one():
    spec = GenomeSpec(capacity=9, strides=(2,), input_shape=(4, 4, 3))
    network = read("conv, concat 0 0, conv, pool 1, concat 2 3")
    assert find(as_genome(network, spec=spec), spec=spec).repeatable.tolist() == [False, False, False]
    assert not repeated(network, (1, 2, 1), spec=spec)[1]
    genome, fits = repeated(read("conv, pool, concat 1 1"), (1, 1, 2), spec=spec)
    assert (fits, to_network(genome)) == (True, read("conv, pool, concat 1 1, concat 2 2"))
    # Strides are told by their value and not by their place: `strided` is of the second one, which does not halve here.
    spec = GenomeSpec(capacity=9, strides=(2, 1), input_shape=(2, 2, 3))
    genome, fits = repeated(read("strided, conv, concat 1 1"), (1, 2), spec=spec)
    assert (fits, to_network(genome)) == (True, read("strided, conv, concat 1 1, strided, concat 3 3"))
    assert valid(genome, spec=spec)


def test_in_copies_of_a_block_no_kind_halves():
    spec = GenomeSpec(
        kinds=("conv", "add", "depthwise", "average_pool"),
        capacity=12,
        channels=(4,),
        kernels=(1,),
        input_shape=(8, 8, 4),
    )
    average, depthwise = Layer(op="average_pool", inputs=(-1,)), Layer(op="depthwise", inputs=(0,), kernel=5)
    strided, plain = (Layer(op="conv", inputs=(-1,), channels=4, kernel=1, stride=stride) for stride in (2, 1))
    summed = Layer(op="add", inputs=(1, 2))
    before = Architecture(input_shape=(8, 8, 4), layers=(average, depthwise, strided, summed))
    genome, fits = jax.device_get(repeat(encode(before, spec=spec), np.array([1, 2, 1, 1], np.int32), spec=spec))
    copied = [(depthwise, (3,)), (plain, (3,)), (summed, (4, 5))]
    copies = (dataclasses.replace(layer, inputs=inputs) for layer, inputs in copied)
    assert fits
    assert decode(genome, spec=spec) == Architecture(input_shape=(8, 8, 4), layers=(*before.layers, *copies))
    spec = dataclasses.replace(spec, strides=(2,))
    assert find(encode(before, spec=spec), spec=spec).repeatable.tolist() == [False, False, False, False]


def test_a_block_of_one_pixel_that_a_dense_layer_opens_is_repeated_with_it():
    spec = GenomeSpec(kinds=("conv", "dense", "dropout"), capacity=9, channels=(4,), input_shape=(4, 4, 3))

    def dense(source: int, units: int) -> Layer:
        return Layer(op="dense", inputs=(source,), units=units, activation="relu")

    def dropout(source: int) -> Layer:
        return Layer(op="dropout", inputs=(source,), rate=0.5)

    conv = Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=1)
    layers = conv, dense(0, 32), dropout(1), dense(2, 16)
    before = encode(Architecture(input_shape=(4, 4, 3), layers=layers), spec=spec)
    assert find(before, spec=spec).repeatable.tolist() == [True, False, True]
    genome, fits = jax.device_get(repeat(before, np.array([1, 1, 2], np.int32), spec=spec))
    expected = Architecture(input_shape=(4, 4, 3), layers=(*layers, dense(3, 32), dropout(4), dense(5, 16)))
    assert fits
    assert decode(genome, spec=spec) == expected
    # The original reads 4 x 4 x 4 values, its copy the 16 of the original's last layer.
    parameters = 27 * 4 + 8 + 65 * 32 + 33 * 16 + 17 * 32 + 33 * 16 + 17 * 10
    assert count_parameters(expected, num_classes=10) == parameters
    assert jit(partial(infer_shapes, spec=spec))(genome).parameters == parameters


@given(network=networks(spec=SPEC).filter(partial(obeys, spec=SPEC)), data=st.data())
def test_random_networks_are_repeated_as_by_their_plain_python_transcription(network, data):
    blocks = reference.blocks_of(network, spec=SPEC)
    possible = [reference.can_repeat(network, block, spec=SPEC) for block in blocks]
    assert find(as_genome(network), spec=SPEC).repeatable.tolist() == possible
    repeats = data.draw(st.tuples(*(st.integers(1, 4) if repeatable else st.just(1) for repeatable in possible)))
    expected = reference.repeat(network, repeats, spec=SPEC)
    ought_to_fit = len(expected) <= SPEC.capacity and obeys(expected, spec=SPEC)
    genome, fits = repeated(network, repeats, spec=SPEC)
    assert fits == ought_to_fit
    assert valid(genome, spec=SPEC)
    checks.assert_same_network(genome, as_genome(expected if fits else network), spec=SPEC)


def all_that_fit(network: Network, most: int, *, spec: GenomeSpec) -> set[tuple[int, ...]]:
    """Combinations of repeats, but for the one of ones, by the transcription."""
    blocks = reference.blocks_of(network, spec=spec)
    choices = [range(1, most + 1) if reference.can_repeat(network, block, spec=spec) else (1,) for block in blocks]
    children = {each: reference.repeat(network, each, spec=spec) for each in [*itertools.product(*choices)][1:]}
    return {each for each, child in children.items() if len(child) <= spec.capacity and obeys(child, spec=spec)}


@settings(max_examples=settings().max_examples * 3 // 5)
@given(network=networks(spec=SPEC).filter(partial(obeys, spec=SPEC)), seed=st.integers(0, 1_000))
def test_drawn_combinations_differ_and_none_that_fits_is_missed(network, seed):
    expected, genome = all_that_fit(network, 3, spec=SPEC), as_genome(network)
    children, repeats = jax.device_get(draw(jax.random.key(seed), genome, count=81, spec=SPEC))
    assert (repeats.shape, repeats.dtype) == ((81, 4), np.int32)
    drawn, made = list(map(tuple, repeats.tolist())), len(expected)
    assert len(set(drawn[:made])) == made
    assert set(drawn[:made]) == expected
    assert set(drawn[made:]) == {(1, 1, 1, 1)}
    for index in {0, made - 1, made}:
        child = as_genome(reference.repeat(network, drawn[index], spec=SPEC))
        checks.assert_same_network(pick(children, index), child, spec=SPEC)
    assert_same_arrays(pick(children, slice(made, None)), stack([genome] * (81 - made)))


# Two duplicates each of a batch: of the networks drawn by hand, and then of one with four blocks.
ROOM = GenomeSpec(capacity=14, input_shape=(8, 8, 3))  # six layers more than that: some combinations are too long
IN_BATCH = [read(text) for text, _, _ in BY_HAND] + [read(FOUR_BLOCKS)] * 2_000


@pytest.fixture(scope="module")
def batch():
    """Keys, genomes, and children with their repeats."""
    keys = jax.random.split(jax.random.key(0), len(IN_BATCH))
    genomes = stack([as_genome(network, spec=ROOM) for network in IN_BATCH])
    drawn = jit(jax.vmap(partial(duplicates, count=2, spec=ROOM, max_repeats=2)))(keys, genomes)
    return keys, genomes, *jax.device_get(drawn)


def test_combinations_are_drawn_uniformly_among_those_that_fit(batch):
    expected = all_that_fit(read(FOUR_BLOCKS), 2, spec=ROOM)
    assert 5 < len(expected) < 15
    _, _, _, repeats = pick(batch, slice(-2_000, None))
    for slot in range(2):
        drawn = Counter(map(tuple, repeats[:, slot].tolist()))
        assert p_value(drawn, dict.fromkeys(expected, 1 / len(expected))) > 1e-3
    assert np.all((repeats[:, 0] != repeats[:, 1]).any(axis=1))


def test_one_duplicate_alone_is_the_first_of_two_in_a_batch_and_the_genome_itself_where_nothing_fits(batch):
    one = jit(partial(duplicate, spec=ROOM, max_repeats=2))
    for index in range(len(BY_HAND) + 5):
        key, genome, children, repeats = pick(batch, index)
        child = one(key, genome)
        assert_same_arrays(child, pick(children, 0))
        expected = reference.repeat(IN_BATCH[index], tuple(repeats[0].tolist()), spec=ROOM)
        checks.assert_same_network(child, as_genome(expected, spec=ROOM), spec=ROOM)
    full = as_genome(tuple(conv(layer - 1) for layer in range(8)), spec=ROOM)
    assert_same_arrays(one(jax.random.key(0), full), full)


def test_more_combinations_than_are_tried_are_drawn_and_differ():
    spec = GenomeSpec(capacity=64, input_shape=(8, 8, 3))
    assert MAX_CANDIDATES < 16**4
    four = as_genome(read("conv, strided, strided, strided"), spec=spec)
    children, repeats = draw(jax.random.key(0), four, count=1_000, spec=spec, max_repeats=16)
    assert len(set(map(tuple, repeats.tolist()))) == 1_000
    assert np.all(check(children, spec=spec)[0])
    for block in range(4):
        assert set(repeats[:, block].tolist()) == set(range(1, 17))
    # Of one block there are 15, all of which are found in the same search space.
    single = as_genome(read("conv, pool"), spec=spec)
    _, repeats = draw(jax.random.key(0), single, count=1_000, spec=spec, max_repeats=16)
    assert sorted(repeats[:15].tolist()) == [[times, 1, 1, 1] for times in range(2, 17)]
    assert np.all(repeats[15:] == 1)


# Genomes of up to a hundred layers, and bounds that bind; in a batch too small for windows, which take long to compile.
PARENTS = 48


@jit
def random_families(keys: jax.Array, steps: jax.Array):
    """Networks of so many mutation steps, and ten duplicates of each."""

    def family(key, steps):
        key_mutation, key_duplication = jax.random.split(key)
        parent, _ = mutate(key_mutation, as_genome((), spec=CHAINS), steps, spec=CHAINS)
        return parent, *duplicates(key_duplication, parent, count=10, spec=CHAINS)

    return jax.vmap(family)(keys, steps)


@pytest.mark.slow
def test_duplicates_of_random_genomes_stay_valid_over_as_many_as_asked(pytestconfig):
    """`pytest --chains 20000` checks so many, and builds some of them."""
    checked, seed = 0, 0
    while checked < pytestconfig.getoption("chains"):
        rng = np.random.default_rng(seed)
        keys = jax.random.split(jax.random.key(seed), PARENTS)
        parents, children, repeats = jax.device_get(random_families(keys, rng.integers(1, 101, PARENTS, np.int32)))
        flat = jax.tree.map(lambda leaf: leaf.reshape(PARENTS * 10, *leaf.shape[2:]), children)
        told_valid, shapes = jax.device_get(check(flat, spec=CHAINS))
        assert np.all(told_valid)
        made = [[tuple(row) for row in rows if max(row) > 1] for rows in repeats.tolist()]
        assert all(len(rows) == len(set(rows)) for rows in made)
        duplicated = sum(map(len, made))
        assert duplicated > PARENTS
        for family in rng.choice(PARENTS, 4, replace=False).tolist():
            parent, times = to_network(pick(parents, family)), tuple(repeats[family, 0].tolist())
            expected = as_genome(reference.repeat(parent, times, spec=CHAINS), spec=CHAINS)
            checks.assert_same_network(pick(flat, family * 10), expected, spec=CHAINS)
            checks.assert_built_as_told(pick(flat, family * 10), pick(shapes, family * 10), CHAINS)
        checked, seed = checked + duplicated, seed + 1
