"""The nine operators against networks drawn by hand, and against their plain Python transcription."""

from collections import Counter
from fractions import Fraction
from functools import cache, partial

import jax
import pytest
import reference_mutation as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import SPEC, as_genome, assert_same_arrays, jit, mutate_once, p_value, tally
from reference_mutation import Network, concat, conv, networks, pool, read

from eigen_jax.genome import GenomeSpec, minimal_genome

DRAWS = 512


@cache
def compiled(operator: str):
    return jit(jax.vmap(partial(mutate_once, operator=operator, spec=SPEC), (0, None)))


def draw(operator: str, network: Network, *, seed: int = 0) -> Counter[Network | None]:
    """How often each network came of `DRAWS` applications; None for a refusal."""
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    genomes, accepted = jax.device_get(compiled(operator)(keys, as_genome(network)))
    drawn: Counter[Network | None] = Counter()
    for (was_accepted, child), count in tally(genomes, accepted).items():
        assert was_accepted or child == network
        drawn[child if was_accepted else None] += count
    return drawn


# image -> 0 -> (1, 2) -> 3, both branches of full size; two branches of 3 x 2, by a pool and a stride; 1 x 1 maps.
DIAMOND = "conv, conv, wider 0, concat 1 2"
HALVED = "conv, pool, strided 0, concat 1 2"
SMALLEST = "pool, pool, pool, conv"

# What an operator, the first word, can make of a network; None stands for a refusal.
GOLDEN: dict[str, tuple[str, set]] = {
    "insert_conv before global pooling alone": ("", {"new"}),
    "insert_conv on each edge of a diamond": (
        DIAMOND,
        {
            "conv, conv, new 0, wider, concat 1 3",
            "conv, conv, wider 0, concat 1 2, new",
            "conv, conv, wider 0, new 1, concat 3 2",
            "conv, conv, wider 0, new, concat 1 3",
            "conv, new, conv, wider 0, concat 2 3",
            "new, conv, conv, wider 1, concat 2 3",
        },
    ),
    "insert_pool in a diamond": (DIAMOND, {f"{DIAMOND}, pool", "pool, conv, conv, wider 1, concat 2 3", None}),
    "insert_pool where a 1 x 1 map is all there is below": (SMALLEST, {None}),
    "insert_concat finds no partner in one layer": ("conv", {None}),
    "insert_concat joins neither the image nor a later layer": ("conv, wide", {"conv, wide, concat 1 0", None}),
    "insert_concat joins layers of one size": (
        "conv, strided, pool 0, concat 2 1",
        {
            "conv, strided, pool 0, concat 1 2, concat 2 3",
            "conv, strided, pool 0, concat 2 1, concat 3 1",
            "conv, strided, pool 0, concat 2 1, concat 3 2",
            None,
        },
    ),
    "insert_concat on each edge of a diamond": (
        DIAMOND,
        {
            "conv, conv, concat 0 1, wider, concat 1 3",
            "conv, conv, wider 0, concat 1 0, concat 3 2",
            "conv, conv, wider 0, concat 1 2, concat 3 0",
            "conv, conv, wider 0, concat 1 2, concat 3 1",
            "conv, conv, wider 0, concat 1 2, concat 3 2",
            "conv, conv, wider 0, concat 2 0, concat 1 3",
            "conv, conv, wider 0, concat 2 1, concat 1 3",
            None,
        },
    ),
    "remove_conv of all there is": ("conv", {""}),
    "remove_conv that reads the image": ("conv, pool", {"pool"}),
    "remove_conv that is the sink": ("pool, conv", {"pool"}),
    "remove_conv of a diamond": (
        DIAMOND,
        {"conv, conv, concat 1 0", "conv, wider -1, concat 0 1", "conv, wider, concat 0 1"},
    ),
    "remove_conv where a concatenation would join sizes": (HALVED, {"pool, strided -1, concat 0 1", None}),
    "remove_conv before a concatenation with the image": ("conv, wide -1, concat 0 1", {None}),
    "remove_conv where a concatenation would read one layer twice": ("pool, conv, concat 1 0", {None}),
    "remove_conv without any": ("pool", {None}),
    "remove_concat and a branch": ("conv, conv, wide 0, pool, pool 1, concat 4 3, wider", {"conv, conv, pool, wider"}),
    "remove_concat that is the sink, its primary not just before it": ("conv, conv, conv, concat 0 2", {"conv"}),
    "remove_concat that is the sink, its primary last": ("wider, wider, conv -1, conv, concat 3 1", {"conv, conv"}),
    "remove_concat before another": ("conv, conv, concat 1 0, concat 2 1", {"conv, conv, concat 1 0", None}),
    "remove_concat keeps what is read elsewhere": (
        "conv, conv, concat 0 1, conv, concat 3 1",
        {"conv, conv, concat 0 1, conv", "conv, conv, conv 0, concat 2 1"},
    ),
    "remove_pool that reads the image": ("pool, conv", {"conv"}),
    "remove_pool that is the sink": ("conv, pool", {"conv"}),
    "remove_pool where a concatenation would join sizes": (HALVED, {None}),
    "remove_pool above everything": ("pool, conv, conv, concat 2 1", {"conv, conv, concat 1 0"}),
    "alter_channels to any other": (
        "wide, pool, wider",
        {"conv, pool, wider", "wide, pool, conv", "wide, pool, wide", "wider, pool, wider"},
    ),
    "alter_stride where no concatenation breaks": (DIAMOND, {"strided, conv, wider 0, concat 1 2", None}),
    "alter_stride of a 1 x 1 map": (SMALLEST, {None}),
    "alter_kernel": ("conv3, conv", {"conv, conv", "conv3, conv3"}),
    "alter_kernel without a convolution": ("pool", {None}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_an_operator_makes_exactly_what_is_drawn_by_hand(name):
    network, drawings = GOLDEN[name]
    expected = {None if drawing is None else read(drawing) for drawing in drawings}
    assert draw(name.split()[0], read(network)).keys() == expected


def test_nothing_is_inserted_into_a_full_genome():
    full = tuple(pool(i - 1) if i < 3 else conv(i - 1) for i in range(SPEC.capacity))
    for operator in reference.INSERTS:
        assert draw(operator, full).keys() == {None}
    assert None not in draw("remove_conv", full)


def test_sites_are_drawn_uniformly():
    drawn = sum((draw("insert_conv", read(DIAMOND), seed=seed) for seed in range(8)), Counter())
    _, six_edges = GOLDEN["insert_conv on each edge of a diamond"]
    assert drawn.total() == 4_096
    assert p_value(drawn, dict.fromkeys(map(read, six_edges), Fraction(1, 6))) > 1e-3


@pytest.mark.parametrize("operator", reference.OPERATORS)
@settings(max_examples=settings().max_examples * 2 // 5)
@given(data=st.data())
def test_an_operator_draws_as_its_plain_python_transcription(operator, data):
    network = data.draw(networks(spec=SPEC).filter(partial(reference.obeys, spec=SPEC)))
    drawn = draw(operator, network, seed=data.draw(st.integers(0, 1_000)))
    assert p_value(drawn, reference.outcomes(network, operator, spec=SPEC)) > 1e-9


@pytest.mark.parametrize("operator", reference.OPERATORS)
@pytest.mark.parametrize("length", [39, pytest.param(33, marks=pytest.mark.slow)])
def test_an_operator_works_past_the_first_word_of_genes(operator, length):
    # Pools to 1 x 1, then convolutions with a concatenation after every second one.
    genes = [pool(), pool(0), pool(1), conv(2)]
    while len(genes) < length:
        genes.append(concat(len(genes) - 1, len(genes) - 2) if len(genes) % 3 == 0 else conv(len(genes) - 1))
    drawn = draw(operator, tuple(genes))
    assert p_value(drawn, reference.outcomes(tuple(genes), operator, spec=SPEC)) > 1e-6


def test_without_the_papers_default_an_inserted_convolution_takes_the_first_choices():
    spec = GenomeSpec(capacity=2, channels=(8, 16), kernels=(5, 7), strides=(2,), input_shape=(4, 4, 1))
    insert, alter = (
        jit(partial(mutate_once, operator=operator, spec=spec)) for operator in ("insert_conv", "alter_stride")
    )
    child, accepted = insert(jax.random.key(0), minimal_genome(spec))
    assert (accepted, reference.to_network(child)) == (True, (conv(),))
    altered, accepted = alter(jax.random.key(0), child)
    assert not accepted  # a single choice leaves no other
    assert_same_arrays(altered, child)
