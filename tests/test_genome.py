"""Genomes: the spec, shape inference against plain Python, and a validity check that can fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_mutation as reference
from hypothesis import example, given
from hypothesis import strategies as st
from mutation_checks import assert_equal, assert_same_arrays, is_valid, jit, reaches_sink, stack
from mutation_checks import check as check_all
from reference_mutation import CONV, NONE, POOL, concat, conv, networks, pool

from eigen_jax.architecture import decode, encode
from eigen_jax.genome import Genome, GenomeSpec, Shapes, acceptable, canonical, infer_shapes, minimal_genome
from eigen_jax.layer_kinds.kind import valid_taps

# A capacity that is no multiple of a 32-bit word's genes, and images that are not square.
SPEC = GenomeSpec(capacity=37, channels=(16, 32, 48), kernels=(1, 3, 5), input_shape=(7, 4, 2), num_classes=3)
SPEC = dataclasses.replace(SPEC, max_parameters=400_000, max_flops=3_000_000)
SPECS = (SPEC, dataclasses.replace(SPEC, input_shape=(1, 6, 3)), dataclasses.replace(SPEC, input_shape=(1, 1, 1)))

infer = jit(infer_shapes, static_argnames="spec")
check = jit(is_valid, static_argnames="spec")


def as_genome(*genes: reference.Gene) -> Genome:
    return reference.to_genome(genes, capacity=SPEC.capacity)


def test_sizes_halve_from_the_image_down_to_one_by_one():
    assert SPEC.sizes == ((7, 4), (4, 2), (2, 1), (1, 1))
    assert (SPEC.max_level, GenomeSpec().max_level, SPECS[2].max_level) == (3, 5, 0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"capacity": 0}, "capacity is 0; it must be from 1 to 16,384"),
        ({"capacity": 16_385}, "capacity is 16385; it must be from 1 to 16,384"),
        ({"channels": ()}, r"channels is \(\); it must be 1 to 127 different values"),
        ({"channels": (16, 16)}, r"channels is \(16, 16\); it must be"),
        ({"channels": (0,)}, r"channels is \(0,\); it must be"),
        ({"kernels": (2,)}, r"kernels is \(2,\); it must be"),
        ({"kernels": (33,)}, r"kernels is \(33,\); it must be"),
        ({"strides": (1, 3)}, r"strides is \(1, 3\); it must be"),
        ({"input_shape": (32, 32)}, r"input_shape is \(32, 32\); it must be three sizes \(H, W, C\)"),
        ({"input_shape": (32, 0, 3)}, r"input_shape is \(32, 0, 3\); it must be at least 1, each"),
        ({"num_classes": 0}, "num_classes is 0; it must be at least 1"),
        ({"max_parameters": 0}, "max_parameters is 0; it must be at least 40"),
        ({"max_flops": -5}, "max_flops is -5; it must be at least 60"),
    ],
)
def test_a_search_space_that_cannot_be_is_refused(setting, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        GenomeSpec(**setting)


def test_the_minimal_genome_has_no_layers():
    assert_same_arrays(minimal_genome(SPEC), as_genome())
    shapes = infer(minimal_genome(SPEC), spec=SPEC)
    # The classifier reads the image's 2 channels: 2 x 3 weights and 3 biases; 2 x 3 multiply-adds.
    assert (float(shapes.parameters), float(shapes.flops), bool(shapes.consistent)) == (9, 12, True)


@given(size=st.integers(1, 40), kernel=st.integers(0, 15), stride=st.sampled_from([1, 2]))
def test_taps_on_the_map_are_those_that_a_loop_counts(size, kernel, stride):
    expected = reference.taps_on_map(size, 2 * kernel + 1, stride)
    assert valid_taps((size, 1), 2 * kernel + 1, stride) == expected
    assert valid_taps((size, size), 2 * kernel + 1, stride) == expected**2


def test_shapes_of_a_network_drawn_by_hand():
    # 7 x 4 x 2 to 4 x 2 of 32 and of 2 channels, joined to 34, and on to 16.
    genes = conv(channels=1, kernel=1, stride=1), pool(), concat(0, 1), conv(2)
    shapes = infer(as_genome(*genes), spec=SPEC)
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
    genome, measures = as_genome(*network), reference.measure(network, spec=spec)
    assert measures is not None
    shapes = jax.device_get(infer(genome, spec=spec))
    dead = (0,) * (spec.capacity - len(network))
    assert tuple(shapes.width.tolist()) == measures.widths + dead
    assert tuple(spec.sizes[level] for level in shapes.level.tolist()[: len(network)]) == measures.sizes
    assert tuple(shapes.level.tolist()[len(network) :]) == dead
    assert (float(shapes.parameters), float(shapes.flops)) == (measures.parameters, measures.flops)
    assert bool(shapes.consistent)
    assert bool(check(genome, spec=spec)) == reference.obeys(network, spec=spec)


@jit
def canonical_batch(batch: Genome) -> Genome:
    return jax.vmap(canonical)(batch)


@given(drawn=st.lists(networks(spec=SPEC, max_layers=20), min_size=4, max_size=4))
@example(drawn=[(), (pool(), pool(0), concat(1, 1)), (conv(), conv(), concat(1, 0)), (conv(), conv(), concat(0, 1))])
def test_the_canonical_form_is_that_of_the_architecture(drawn):
    genomes = [as_genome(*network) for network in drawn]
    expected = [encode(decode(genome, spec=SPEC), spec=SPEC) for genome in genomes]
    assert_same_arrays(jax.device_get(canonical_batch(stack(genomes))), stack(expected))


@jit
def infer_batch(batch: Genome, bound: jax.Array) -> Shapes:
    return jax.vmap(lambda genome: infer_shapes(genome, spec=SPEC, bound=bound))(batch)


@given(drawn=st.lists(networks(spec=SPEC, max_layers=20), min_size=4, max_size=4))
def test_a_batch_is_inferred_up_to_its_longest_as_its_members_alone(drawn):
    members = [as_genome(*network) for network in drawn]
    batch = infer_batch(stack(members), np.int32(max(map(len, drawn))))
    assert_equal(batch, stack([infer(genome, spec=SPEC) for genome in members]))
    # Only the genes below the bound are visited.
    shapes = infer_batch(stack([as_genome(conv(), conv(0))] * 4), np.int32(1))
    np.testing.assert_array_equal(shapes.width[:, :2], [[16, 0]] * 4)


# Costs are past what float32 counts exactly.
COSTLY = GenomeSpec(capacity=37, channels=(4095, 4093, 33), kernels=(31, 29, 1), input_shape=(63, 95, 3))


# Without a convolution, a network costs what the starting network does, and no spec has a lower bound.
@given(network=networks(spec=COSTLY, max_layers=12).filter(lambda network: any(g.op == CONV for g in network)))
@example(network=(conv(channels=2, kernel=2), pool(0)))  # whose costs float32 counts exactly
def test_no_cost_over_a_bound_passes_and_none_far_below_is_refused(network):
    measures = reference.measure(network, spec=COSTLY)
    assert measures is not None
    shapes = infer(as_genome(*network), spec=COSTLY)
    unbounded = dataclasses.replace(COSTLY, max_parameters=1 << 60, max_flops=1 << 60)
    for name, exact in (("max_parameters", measures.parameters), ("max_flops", measures.flops)):
        held = {exact - 1: False, exact + exact // 100_000: True}
        if exact < 1 << 24:
            held[exact] = True
        for bound, holds in held.items():
            spec = dataclasses.replace(unbounded, **{name: bound})  # type: ignore[arg-type]
            assert acceptable(shapes, spec=spec) == holds


def test_a_bound_of_two_to_the_24_is_not_passed_by_what_rounds_to_it():
    spec = dataclasses.replace(SPEC, max_parameters=1 << 24)
    shapes = infer(minimal_genome(SPEC), spec=SPEC)
    one_over = dataclasses.replace(shapes, parameters=jnp.asarray((1 << 24) + 1, jnp.float32))
    assert acceptable(shapes, spec=spec)
    assert not acceptable(one_over, spec=spec)


def test_a_map_wider_than_costs_are_told_for_is_invalid():
    spec = dataclasses.replace(SPEC, channels=(4096,), kernels=(1,), max_parameters=10**15, max_flops=10**15)
    doublings = [concat(layer, layer) for layer in range(9)]
    # 2 ** 20 channels, then 2 ** 21; one more layer makes the sink narrow again, and the map between is too wide still.
    for genes, valid in ((doublings[:8], True), (doublings, False), ([*doublings, conv(9)], False)):
        assert bool(check(as_genome(conv(), *genes), spec=spec)) is valid


# Genes 0 to 4: 7 x 4, 4 x 2, 4 x 2, 4 x 2, 2 x 1.
VALID = (conv(channels=2), conv(0, channels=1, kernel=1, stride=1), pool(0), concat(1, 2), pool(3))


def broken(field: str, position, value) -> Genome:
    genome = as_genome(*VALID)
    getattr(genome, field)[position] = value
    return genome


# What breaks a rule, in place of a value of `VALID`: (gene, value); and whole genomes.
CHANGES: dict[str, list[tuple]] = {
    "op": [(20, POOL), (4, NONE), (4, 4), (4, -1)],  # of a dead gene, and none that a live one can have
    "channels": [(5, 1), (0, 3), (0, -1), (2, 1)],  # of a dead gene, past the choices, negative, and of another op
    "kernel": [(5, 1), (1, 3), (1, -1), (3, 1)],
    "stride": [(5, 1), (1, 2), (1, -1), (4, 1), (1, 0)],  # and a concatenation that joins different sizes
    "inputs": [
        *(((20, 0), 1), ((36, 1), Genome.UNUSED)),  # of dead genes
        *(((2, 0), 2), ((0, 0), 1), ((3, 1), 3)),  # the layer itself, or a later one
        *(((0, 0), Genome.UNUSED), ((3, 1), Genome.UNUSED), ((1, 1), 0), ((2, 1), Genome.IMAGE)),  # too few, too many
    ],
    "length": [(..., length) for length in (4, 6, -1, 38)],
}
BROKEN = {f"{field} {gene} {value}": broken(field, gene, value) for field in CHANGES for gene, value in CHANGES[field]}
BROKEN |= {
    "a pool halves a 1 x 1 map": as_genome(*VALID, pool(4), pool(5)),
    "a convolution halves a 1 x 1 map": as_genome(*VALID, pool(4), conv(5, stride=1)),
    "a concatenation reads the image first": as_genome(conv(), concat(-1, 0)),
    "a concatenation reads the image second": as_genome(conv(), concat(0, -1)),
    "a layer that nothing reads": as_genome(*VALID[:3], pool(2)),
    "a branch that does not reach the sink": as_genome(*VALID[:2], conv(0), pool(2), pool(1)),
}
KEPT = {"long": as_genome(*VALID), "join": as_genome(conv(), conv(0), concat(1, 0)), "none": minimal_genome(SPEC)}


def test_each_broken_rule_makes_a_genome_invalid_alone_and_beside_some_that_keep_them():
    expected = dict.fromkeys(BROKEN, False) | dict.fromkeys(KEPT, True)
    tried = BROKEN | KEPT
    assert {name: bool(check(genome, spec=SPEC)) for name, genome in tried.items()} == expected
    valid, _ = check_all(stack([*tried.values()]), spec=SPEC)
    np.testing.assert_array_equal(valid, [*expected.values()])


def test_what_reaches_the_sink_is_found_through_every_input():
    genome = as_genome(conv(), conv(), pool(1), conv(0), concat(3, 0), conv(4))
    reached = jit(reaches_sink)
    np.testing.assert_array_equal(reached(genome), [True, False, False, True, True, True] + [False] * 31)
    assert not np.any(reached(minimal_genome(SPEC)))
