"""Genomes: the spec, shape inference against plain Python, and a validity check that can fail."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_mutation as reference
from hypothesis import given
from hypothesis import strategies as st
from reference_mutation import concat, conv, networks, pool

from eigen_jax.architecture import Architecture, Layer, count_flops, count_parameters, encode, layer_shapes
from eigen_jax.genome import (
    Genome,
    GenomeSpec,
    Op,
    Shapes,
    infer_shapes,
    is_valid,
    minimal_genome,
    reaches_sink,
    valid_taps,
    within_bounds,
)

# A capacity that is no multiple of a 32-bit word's genes, and images that are not square.
SPEC = GenomeSpec(
    capacity=37,
    channels=(16, 32, 48),
    kernels=(1, 3, 5),
    input_shape=(7, 4, 2),
    num_classes=3,
    max_parameters=400_000,
    max_flops=3_000_000,
)
SPECS = (SPEC, dataclasses.replace(SPEC, input_shape=(1, 6, 3)), dataclasses.replace(SPEC, input_shape=(1, 1, 1)))

infer = jax.jit(infer_shapes, static_argnames="spec")
check = jax.jit(is_valid, static_argnames="spec")


def as_genome(*genes: reference.Gene, spec: GenomeSpec = SPEC) -> Genome:
    return jax.tree.map(jnp.asarray, reference.to_genome(genes, capacity=spec.capacity))


def stack(genomes: list[Genome]) -> Genome:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *genomes)


# The spec.


def test_sizes_halve_from_the_image_down_to_one_by_one():
    assert SPEC.sizes == ((7, 4), (4, 2), (2, 1), (1, 1))
    assert (SPEC.max_level, GenomeSpec().max_level, SPECS[2].max_level) == (3, 5, 0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"capacity": 0}, "capacity is 0; it must be from 1 to 16,384 genes"),
        ({"capacity": 16_385}, "capacity is 16385; it must be from 1 to 16,384 genes"),
        ({"channels": ()}, r"channels is \(\); it must be 1 to 127 different values that a convolution can have"),
        ({"channels": (16, 16)}, r"channels is \(16, 16\); it must be"),
        ({"channels": (0,)}, r"channels is \(0,\); it must be"),
        ({"kernels": (2,)}, r"kernels is \(2,\); it must be"),
        ({"kernels": (33,)}, r"kernels is \(33,\); it must be"),
        ({"strides": (1, 3)}, r"strides is \(1, 3\); it must be"),
        ({"input_shape": (32, 32)}, r"input_shape is \(32, 32\); it must be three sizes \(H, W, C\), each at least 1"),
        ({"input_shape": (32, 0, 3)}, r"input_shape is \(32, 0, 3\); it must be three sizes"),
        ({"num_classes": 0}, "num_classes is 0; it must be at least 1"),
        ({"max_parameters": 0}, "max_parameters is 0; it must be at least 40"),
        ({"max_flops": -5}, "max_flops is -5; it must be at least 60"),
    ],
)
def test_a_search_space_that_cannot_be_is_refused(setting, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        GenomeSpec(**setting)


def test_the_minimal_genome_has_no_layers():
    genome = minimal_genome(SPEC)
    assert genome.capacity == 37
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(genome))
    dtypes = {field.name: getattr(genome, field.name).dtype for field in dataclasses.fields(genome)}
    assert dtypes == {
        "op": np.int8,
        "inputs": np.int16,
        "channels": np.int8,
        "kernel": np.int8,
        "stride": np.int8,
        "length": np.int32,
    }
    shapes = infer(genome, spec=SPEC)
    # The classifier reads the image's 2 channels: 2 x 3 weights and 3 biases; 2 x 3 multiply-adds.
    assert (float(shapes.parameters), float(shapes.flops), bool(shapes.consistent)) == (9, 12, True)


# Shape inference.


@given(size=st.integers(1, 40), kernel=st.integers(0, 15), stride=st.sampled_from([1, 2]))
def test_taps_on_the_map_are_those_that_a_loop_counts(size, kernel, stride):
    assert valid_taps(size, 2 * kernel + 1, stride) == reference.taps_on_map(size, 2 * kernel + 1, stride)


def test_shapes_of_a_network_drawn_by_hand():
    genome = as_genome(
        conv(-1, channels=1, kernel=1, stride=1),  # 7 x 4 x 2 to 4 x 2 x 32
        pool(-1),  # to 4 x 2 x 2
        concat(0, 1),  # 4 x 2 x 34
        conv(2, channels=0, kernel=0, stride=0),  # 4 x 2 x 16
    )
    shapes = infer(genome, spec=SPEC)
    np.testing.assert_array_equal(shapes.level[:5], [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(shapes.width[:5], [32, 2, 34, 16, 0])
    assert float(shapes.parameters) == (9 * 2 * 32 + 64) + (34 * 16 + 32) + (16 + 1) * 3
    # Along 7 rows at stride 2 the 3-tap windows start at -1, 1, 3, 5 and meet 2 + 3 + 3 + 2 rows; along
    # 4 columns they start at 0 and 2 and meet 3 + 2.
    assert float(shapes.flops) == 2 * ((10 * 5) * 2 * 32 + 8 * 34 * 16 + 16 * 3)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.input_shape))
@given(data=st.data())
def test_shape_inference_agrees_with_plain_python(spec, data):
    network = data.draw(networks(spec=spec, max_layers=20))
    genome = as_genome(*network, spec=spec)
    measures = reference.measure(network, spec=spec)
    assert measures is not None
    shapes = infer(genome, spec=spec, bound=jnp.asarray(len(network), jnp.int32))
    everything = infer(genome, spec=spec)
    jax.tree.map(np.testing.assert_array_equal, shapes, everything)
    dead = (0,) * (spec.capacity - len(network))
    assert tuple(shapes.width.tolist()) == measures.widths + dead
    assert tuple(spec.sizes[level] for level in shapes.level.tolist()[: len(network)]) == measures.sizes
    assert tuple(shapes.level.tolist()[len(network) :]) == dead
    assert (float(shapes.parameters), float(shapes.flops)) == (measures.parameters, measures.flops)
    assert bool(shapes.consistent)
    assert bool(check(genome, spec=spec)) == reference.obeys(network, spec=spec)


@given(drawn=st.lists(networks(spec=SPEC, max_layers=20), min_size=4, max_size=4))
def test_a_batch_is_inferred_as_its_members_alone(drawn):
    genomes = [as_genome(*network) for network in drawn]
    longest = jnp.asarray(max(map(len, drawn)), jnp.int32)
    batch = _infer_batch(stack(genomes), longest)
    alone = [infer(genome, spec=SPEC) for genome in genomes]
    jax.tree.map(np.testing.assert_array_equal, batch, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


@jax.jit
def _infer_batch(genomes: Genome, bound: jax.Array) -> Shapes:
    return jax.vmap(lambda genome: infer_shapes(genome, spec=SPEC, bound=bound))(genomes)


def test_only_the_genes_below_the_bound_are_visited():
    shapes = infer(as_genome(conv(), conv(0)), spec=SPEC, bound=jnp.asarray(1, jnp.int32))
    np.testing.assert_array_equal(shapes.width[:2], [16, 0])


def test_both_arms_agree_on_shapes_and_costs():
    wide = GenomeSpec(channels=(4096, 32), kernels=(31, 3), input_shape=(33, 17, 3))
    image, first = (-1,), (0,)
    architecture = Architecture(
        input_shape=(33, 17, 3),
        layers=(
            Layer(op="conv", inputs=image, channels=32, kernel=31, stride=2),
            Layer(op="pool", inputs=first),
            Layer(op="conv", inputs=(1,), channels=32, kernel=3, stride=1),
        ),
    )
    shapes = infer(encode(architecture, spec=wide), spec=wide)
    assert tuple(wide.sizes[level] for level in shapes.level.tolist()[:3]) == tuple(
        (height, width) for height, width, _ in layer_shapes(architecture)
    )
    assert float(shapes.parameters) == count_parameters(architecture, num_classes=10)
    assert float(shapes.flops) == count_flops(architecture, num_classes=10)


# Bounds, where costs are past what float32 counts exactly.

COSTLY = GenomeSpec(capacity=37, channels=(4095, 4093, 33), kernels=(31, 29, 1), input_shape=(63, 95, 3))


# Without a convolution, a network costs what the starting network does, and no spec has a lower bound.
@given(network=networks(spec=COSTLY, max_layers=12).filter(lambda network: any(g.op == Op.CONV for g in network)))
def test_no_cost_over_a_bound_passes_and_none_far_below_is_refused(network):
    measures = reference.measure(network, spec=COSTLY)
    assert measures is not None
    shapes = infer(as_genome(*network, spec=COSTLY), spec=COSTLY)
    unbounded = {"max_parameters": 1 << 60, "max_flops": 1 << 60}
    for name, exact in (("max_parameters", measures.parameters), ("max_flops", measures.flops)):

        def holds(bound, name=name):
            return bool(within_bounds(shapes, spec=dataclasses.replace(COSTLY, **{**unbounded, name: bound})))

        assert not holds(exact - 1)
        assert holds(exact + exact // 100_000)
        if exact < 1 << 24:
            assert holds(exact)


def test_a_bound_of_two_to_the_24_is_not_passed_by_what_rounds_to_it():
    spec = dataclasses.replace(SPEC, max_parameters=1 << 24)
    one_over = np.float32((1 << 24) + 1)
    zero = jnp.zeros(37, jnp.int32)
    shapes = Shapes(
        level=zero.astype(jnp.int8),
        width=zero,
        parameters=jnp.asarray(one_over),
        flops=jnp.zeros((), jnp.float32),
        consistent=jnp.ones((), bool),
    )
    assert not bool(within_bounds(shapes, spec=spec))


def test_a_map_wider_than_costs_are_told_for_is_invalid():
    spec = dataclasses.replace(SPEC, channels=(4096,), kernels=(1,), max_parameters=10**15, max_flops=10**15)
    doublings = [concat(layer, layer) for layer in range(9)]
    for count, valid in ((8, True), (9, False)):  # 2 ** 20 channels, then 2 ** 21
        genome = as_genome(conv(), *doublings[:count], spec=spec)
        assert bool(check(genome, spec=spec)) is valid
    # One more layer makes the sink narrow again, and the map between too wide all the same.
    assert not bool(check(as_genome(conv(), *doublings, conv(9), spec=spec), spec=spec))


# Validity.

# Genes 0 to 4: 7 x 4, 4 x 2, 4 x 2, 4 x 2, 2 x 1.
VALID = (conv(channels=2), conv(0, channels=1, kernel=1, stride=1), pool(0), concat(1, 2), pool(3))


def broken(field: str, position, value) -> Genome:
    genome = as_genome(*VALID)
    return dataclasses.replace(genome, **{field: getattr(genome, field).at[position].set(value)})


def test_a_network_that_keeps_the_rules_is_valid():
    assert bool(check(as_genome(*VALID), spec=SPEC))
    assert bool(check(minimal_genome(SPEC), spec=SPEC))


@pytest.mark.parametrize(
    "genome",
    [
        pytest.param(broken("op", 20, Op.POOL), id="a dead gene has an op"),
        pytest.param(broken("inputs", (20, 0), 1), id="a dead gene has a first input"),
        pytest.param(broken("inputs", (36, 1), Genome.UNUSED), id="a dead gene has a second input"),
        pytest.param(broken("channels", 5, 1), id="a dead gene has channels"),
        pytest.param(broken("kernel", 5, 1), id="a dead gene has a kernel"),
        pytest.param(broken("stride", 5, 1), id="a dead gene has a stride"),
        pytest.param(broken("op", 4, Op.NONE), id="a live gene is none"),
        pytest.param(broken("op", 4, 4), id="an op that does not exist"),
        pytest.param(broken("op", 4, -1), id="a negative op"),
        pytest.param(broken("inputs", (2, 0), 2), id="a layer reads itself"),
        pytest.param(broken("inputs", (0, 0), 1), id="a layer reads a later one"),
        pytest.param(broken("inputs", (3, 1), 3), id="a concatenation reads itself"),
        pytest.param(broken("inputs", (0, 0), Genome.UNUSED), id="a layer reads nothing"),
        pytest.param(broken("inputs", (1, 1), 0), id="a convolution has two inputs"),
        pytest.param(broken("inputs", (2, 1), Genome.IMAGE), id="a pool has two inputs"),
        pytest.param(broken("inputs", (3, 1), Genome.UNUSED), id="a concatenation has one input"),
        pytest.param(broken("channels", 0, 3), id="channels past the choices"),
        pytest.param(broken("channels", 0, -1), id="negative channels"),
        pytest.param(broken("kernel", 1, 3), id="a kernel past the choices"),
        pytest.param(broken("kernel", 1, -1), id="a negative kernel"),
        pytest.param(broken("stride", 1, 2), id="a stride past the choices"),
        pytest.param(broken("stride", 1, -1), id="a negative stride"),
        pytest.param(broken("channels", 2, 1), id="a pool has channels"),
        pytest.param(broken("kernel", 3, 1), id="a concatenation has a kernel"),
        pytest.param(broken("stride", 4, 1), id="a pool has a stride"),
        pytest.param(broken("stride", 1, 0), id="a concatenation joins different sizes"),
        pytest.param(as_genome(*VALID, pool(4), pool(5)), id="a pool halves a 1 x 1 map"),
        pytest.param(as_genome(*VALID, pool(4), conv(5, stride=1)), id="a convolution halves a 1 x 1 map"),
        pytest.param(as_genome(*VALID[:3], pool(2)), id="a layer that nothing reads"),
        pytest.param(as_genome(*VALID[:2], conv(0), pool(2), pool(1)), id="a branch that does not reach the sink"),
        pytest.param(broken("length", ..., 4), id="a live gene past the length"),
        pytest.param(broken("length", ..., 6), id="a length past the live genes"),
        pytest.param(broken("length", ..., -1), id="a negative length"),
        pytest.param(broken("length", ..., 38), id="a length past the capacity"),
    ],
)
def test_each_broken_rule_makes_a_genome_invalid(genome):
    assert not bool(check(genome, spec=SPEC))


def test_a_concatenation_does_not_read_the_image():
    # Of full size, as the convolution's map is.
    assert bool(check(as_genome(conv(), conv(0), concat(1, 0)), spec=SPEC))
    assert not bool(check(as_genome(conv(), concat(0, -1)), spec=SPEC))
    assert not bool(check(as_genome(conv(), concat(-1, 0)), spec=SPEC))


def test_bounds_hold_to_the_last_unit():
    measures = reference.measure(VALID, spec=SPEC)
    assert measures is not None
    parameters, flops = measures.parameters, measures.flops
    for spec, valid in (
        (dataclasses.replace(SPEC, max_parameters=parameters, max_flops=flops), True),
        (dataclasses.replace(SPEC, max_parameters=parameters - 1), False),
        (dataclasses.replace(SPEC, max_flops=flops - 1), False),
    ):
        assert bool(check(as_genome(*VALID), spec=spec)) is valid


def test_validity_is_vmapped():
    genomes = stack([as_genome(*VALID), broken("op", 20, Op.POOL), minimal_genome(SPEC)])
    np.testing.assert_array_equal(jax.vmap(partial(is_valid, spec=SPEC))(genomes), [True, False, True])


def test_what_reaches_the_sink_is_found_through_every_input():
    genome = as_genome(conv(), conv(), pool(1), conv(0), concat(3, 0), conv(4))
    expected = [True, False, False, True, True, True] + [False] * 31
    np.testing.assert_array_equal(reaches_sink(genome), expected)
    assert not np.any(reaches_sink(minimal_genome(SPEC)))
