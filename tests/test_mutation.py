"""The nine operators against networks drawn by hand, and against their plain Python transcription."""

from collections import Counter
from fractions import Fraction
from functools import cache, partial

import jax
import pytest
import reference_mutation as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import SPEC, as_genome, assert_equal, jit, p_value, tally
from reference_mutation import Network, concat, conv, networks, pool

from eigen_jax import mutation
from eigen_jax.genome import GenomeSpec, minimal_genome
from eigen_jax.mutation import Operator

INSERTIONS = (Operator.INSERT_CONV, Operator.INSERT_CONCAT, Operator.INSERT_POOL)


DRAWS = 512


@cache
def _compiled(operator: Operator):
    function = getattr(mutation, operator.name.lower())
    return jit(jax.vmap(partial(function, spec=SPEC), (0, None)))


def draw(operator: Operator, network: Network, *, seed: int = 0) -> Counter[Network | None]:
    """How often each network came of `DRAWS` applications; None for a refusal."""
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    genomes, accepted = jax.device_get(_compiled(operator)(keys, as_genome(network)))
    drawn: Counter[Network | None] = Counter()
    for (was_accepted, child), count in tally(genomes, accepted).items():
        assert was_accepted or child == network
        drawn[child if was_accepted else None] += count
    return drawn


NEW_CONV = partial(conv, channels=1, kernel=1, stride=0)  # 32 channels, 3 x 3, stride 1

# image -> 0 -> (1, 2) -> 3, both branches of full size.
DIAMOND = (conv(), conv(0), conv(0, channels=2), concat(1, 2))
# Two branches of 3 x 2, one by a pool and one by a stride.
HALVED = (conv(), pool(0), conv(0, stride=1), concat(1, 2))
# 1 x 1 maps.
SMALLEST = (pool(), pool(0), pool(1), conv(2))

GOLDEN: dict[str, tuple[Operator, Network, set[Network | None]]] = {
    "insert_conv before global pooling alone": (Operator.INSERT_CONV, (), {(NEW_CONV(-1),)}),
    "insert_conv on each edge of a diamond": (
        Operator.INSERT_CONV,
        DIAMOND,
        {
            (NEW_CONV(-1), conv(0), conv(1), conv(1, channels=2), concat(2, 3)),
            (conv(), NEW_CONV(0), conv(1), conv(0, channels=2), concat(2, 3)),
            (conv(), conv(0), NEW_CONV(0), conv(2, channels=2), concat(1, 3)),
            (conv(), conv(0), conv(0, channels=2), NEW_CONV(1), concat(3, 2)),
            (conv(), conv(0), conv(0, channels=2), NEW_CONV(2), concat(1, 3)),
            (conv(), conv(0), conv(0, channels=2), concat(1, 2), NEW_CONV(3)),
        },
    ),
    "insert_pool where no concatenation breaks": (
        Operator.INSERT_POOL,
        DIAMOND,
        {
            (pool(), conv(0), conv(1), conv(1, channels=2), concat(2, 3)),
            (conv(), conv(0), conv(0, channels=2), concat(1, 2), pool(3)),
            None,
        },
    ),
    "insert_pool where a 1 x 1 map is all there is below": (Operator.INSERT_POOL, SMALLEST, {None}),
    "insert_concat finds no partner in one layer": (Operator.INSERT_CONCAT, (conv(),), {None}),
    "insert_concat joins neither the image nor a later layer": (
        Operator.INSERT_CONCAT,
        (conv(), conv(0, channels=1)),
        {(conv(), conv(0, channels=1), concat(1, 0)), None},
    ),
    "insert_concat joins layers of one size": (
        Operator.INSERT_CONCAT,
        (conv(), conv(0, stride=1), pool(0), concat(2, 1)),
        {
            (conv(), conv(0, stride=1), pool(0), concat(2, 1), concat(3, 1)),
            (conv(), conv(0, stride=1), pool(0), concat(2, 1), concat(3, 2)),
            (conv(), conv(0, stride=1), pool(0), concat(1, 2), concat(2, 3)),
            None,
        },
    ),
    "insert_concat on each edge of a diamond": (
        Operator.INSERT_CONCAT,
        DIAMOND,
        {
            (conv(), conv(0), concat(0, 1), conv(2, channels=2), concat(1, 3)),
            (*DIAMOND[:3], concat(1, 0), concat(3, 2)),
            (*DIAMOND[:3], concat(1, 2), concat(3, 2)),
            (*DIAMOND[:3], concat(2, 0), concat(1, 3)),
            (*DIAMOND[:3], concat(2, 1), concat(1, 3)),
            (*DIAMOND, concat(3, 0)),
            (*DIAMOND, concat(3, 1)),
            (*DIAMOND, concat(3, 2)),
            None,
        },
    ),
    "remove_conv of all there is": (Operator.REMOVE_CONV, (conv(),), {()}),
    "remove_conv that reads the image": (Operator.REMOVE_CONV, (conv(), pool(0)), {(pool(),)}),
    "remove_conv that is the sink": (Operator.REMOVE_CONV, (pool(), conv(0)), {(pool(),)}),
    "remove_conv of each branch of a diamond": (
        Operator.REMOVE_CONV,
        DIAMOND,
        {
            (conv(), conv(channels=2), concat(0, 1)),
            (conv(), conv(0, channels=2), concat(0, 1)),
            (conv(), conv(0), concat(1, 0)),
        },
    ),
    "remove_conv where a concatenation would join sizes": (
        Operator.REMOVE_CONV,
        HALVED,
        {(pool(), conv(stride=1), concat(0, 1)), None},
    ),
    "remove_conv where a concatenation would read the image": (
        Operator.REMOVE_CONV,
        (conv(), conv(channels=1), concat(0, 1)),
        {None},
    ),
    "remove_conv where a concatenation would read one layer twice": (
        Operator.REMOVE_CONV,
        (pool(), conv(0), concat(1, 0)),
        {None},
    ),
    "remove_conv without any": (Operator.REMOVE_CONV, (pool(),), {None}),
    "remove_concat prunes a branch of two layers": (
        Operator.REMOVE_CONCAT,
        (conv(), conv(0), conv(0, channels=1), pool(2), pool(1), concat(4, 3), conv(5, channels=2)),
        {(conv(), conv(0), pool(1), conv(2, channels=2))},
    ),
    "remove_concat that is the sink, its primary not just before it": (
        Operator.REMOVE_CONCAT,
        (conv(), conv(0), conv(1), concat(0, 2)),
        {(conv(),)},
    ),
    "remove_concat that is the sink, its other branch before its primary": (
        Operator.REMOVE_CONCAT,
        (conv(channels=2), conv(0, channels=2), conv(), conv(2), concat(3, 1)),
        {(conv(), conv(0))},
    ),
    "remove_concat where another would read one layer twice": (
        Operator.REMOVE_CONCAT,
        (conv(), conv(0), concat(1, 0), concat(2, 1)),
        {(conv(), conv(0), concat(1, 0)), None},
    ),
    "remove_concat keeps a branch that is read elsewhere": (
        Operator.REMOVE_CONCAT,
        (conv(), conv(0), concat(0, 1), conv(2), concat(3, 1)),
        {(conv(), conv(0), conv(0), concat(2, 1)), (conv(), conv(0), concat(0, 1), conv(2))},
    ),
    "remove_pool that reads the image": (Operator.REMOVE_POOL, (pool(), conv(0)), {(conv(),)}),
    "remove_pool that is the sink": (Operator.REMOVE_POOL, (conv(), pool(0)), {(conv(),)}),
    "remove_pool where a concatenation would join sizes": (Operator.REMOVE_POOL, HALVED, {None}),
    "remove_pool above everything": (
        Operator.REMOVE_POOL,
        (pool(), conv(0), conv(1), concat(2, 1)),
        {(conv(), conv(0), concat(1, 0))},
    ),
    "alter_channels to each other value": (
        Operator.ALTER_CHANNELS,
        (conv(channels=1), pool(0), conv(1, channels=2)),
        {
            (conv(channels=0), pool(0), conv(1, channels=2)),
            (conv(channels=2), pool(0), conv(1, channels=2)),
            (conv(channels=1), pool(0), conv(1, channels=0)),
            (conv(channels=1), pool(0), conv(1, channels=1)),
        },
    ),
    "alter_stride where no concatenation breaks": (
        Operator.ALTER_STRIDE,
        DIAMOND,
        {(conv(stride=1), *DIAMOND[1:]), None},
    ),
    "alter_stride of a 1 x 1 map": (Operator.ALTER_STRIDE, SMALLEST, {None}),
    "alter_kernel": (
        Operator.ALTER_KERNEL,
        (conv(kernel=1), conv(0)),
        {(conv(kernel=0), conv(0)), (conv(kernel=1), conv(0, kernel=1))},
    ),
    "alter_kernel without a convolution": (Operator.ALTER_KERNEL, (pool(),), {None}),
}


@pytest.mark.parametrize(("operator", "network", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_an_operator_makes_exactly_what_is_drawn_by_hand(operator, network, expected):
    assert draw(operator, network).keys() == expected


def test_nothing_is_inserted_into_a_full_genome():
    full = tuple(pool(i - 1) if i < 3 else conv(i - 1) for i in range(SPEC.capacity))
    for operator in INSERTIONS:
        assert draw(operator, full).keys() == {None}
    assert None not in draw(Operator.REMOVE_CONV, full)


def test_sites_are_drawn_uniformly():
    drawn: Counter[Network | None] = Counter()
    for seed in range(8):
        drawn += draw(Operator.INSERT_CONV, DIAMOND, seed=seed)
    *_, six_edges = GOLDEN["insert_conv on each edge of a diamond"]
    assert drawn.total() == 4_096
    assert p_value(drawn, dict.fromkeys(six_edges, Fraction(1, 6))) > 1e-3


@pytest.mark.parametrize("operator", Operator)
@settings(max_examples=40)
@given(data=st.data())
def test_an_operator_draws_as_its_plain_python_transcription(operator, data):
    network = data.draw(networks(spec=SPEC).filter(partial(reference.obeys, spec=SPEC)))
    drawn = draw(operator, network, seed=data.draw(st.integers(0, 1_000)))
    assert p_value(drawn, reference.outcomes(network, operator, spec=SPEC)) > 1e-9


@pytest.mark.parametrize("operator", Operator)
@pytest.mark.parametrize("length", [33, 39])
def test_an_operator_works_past_the_first_word_of_genes(operator, length):
    # Pools to 1 x 1, then convolutions with a concatenation after every second one.
    genes = [pool(), pool(0), pool(1), conv(2)]
    while len(genes) < length:
        genes.append(concat(len(genes) - 1, len(genes) - 2) if len(genes) % 3 == 0 else conv(len(genes) - 1))
    drawn = draw(operator, tuple(genes))
    assert p_value(drawn, reference.outcomes(tuple(genes), operator, spec=SPEC)) > 1e-6


def test_without_the_papers_default_an_inserted_convolution_takes_the_first_choices():
    spec = GenomeSpec(capacity=2, channels=(8, 16), kernels=(5, 7), strides=(2,), input_shape=(4, 4, 1))
    insert_conv, alter_stride = (
        jit(operator, static_argnames="spec") for operator in (mutation.insert_conv, mutation.alter_stride)
    )
    child, accepted = insert_conv(jax.random.key(0), minimal_genome(spec), spec=spec)
    assert accepted
    assert reference.to_network(child) == (conv(),)
    altered, accepted = alter_stride(jax.random.key(0), child, spec=spec)
    assert not accepted  # a single choice leaves no other
    assert_equal(altered, child)
