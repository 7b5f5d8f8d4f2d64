"""Architectures: canonical form, the way from genomes and back, counts, and JSON in and out."""

import hashlib
import itertools
import json
from functools import partial
from typing import Any

import layer_data
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_data import concat, network, pool
from mutation_checks import assert_same_arrays
from reference_mutation import of_layers, to_genome
from refusals import refuses
from strategies import architectures, renumbered, topological_orders

from eigen_jax.architecture import (
    MAX_LAYERS,
    Architecture,
    ArchitectureError,
    Layer,
    count_flops,
    count_parameters,
    decode,
    encode,
    fingerprint,
    from_dict,
    from_json,
    layer_shapes,
    to_dict,
    to_json,
)
from eigen_jax.genome import Genome, GenomeSpec, minimal_genome

SPEC = GenomeSpec(capacity=16, channels=(2, 3, 5), kernels=(1, 3, 5), input_shape=(7, 5, 3))

conv = partial(layer_data.conv, channels=16)


def genome_of(layers: tuple[Layer, ...], *, spec: GenomeSpec) -> Genome:
    return to_genome(of_layers(layers, spec=spec), capacity=spec.capacity)


def test_layers_are_numbered_in_post_order_primary_input_first():
    given_order = network(pool(), conv(), pool(1), concat(2, 0), concat(3, 0))
    numbered = (conv(), pool(0), pool(), concat(1, 2), concat(3, 2))
    assert given_order.layers == numbered


def test_input_shape_order_of_a_concatenation_and_sharing_are_part_of_the_network():
    kernels = conv(kernel=1), conv(kernel=3)
    different = [
        network(input_shape=(8, 8, 1)),
        network(input_shape=(8, 8, 3)),
        network(*kernels, concat(0, 1)),
        network(*kernels, concat(1, 0)),
        # A branch that is shared is not two equal ones.
        network(conv(), concat(0, 0)),
        network(conv(), conv(), concat(0, 1)),
        network(conv(), pool(0), pool(0), concat(1, 2)),
        network(conv(), conv(), pool(0), pool(1), concat(2, 3)),
    ]
    assert len({*different}) == len({fingerprint(each) for each in different}) == len(different)


@given(data=st.data(), architecture=architectures(spec=SPEC))
def test_the_order_given_does_not_matter(data, architecture):
    order = data.draw(topological_orders(architecture.layers))
    layers = renumbered(architecture.layers, order)
    assert Architecture(input_shape=(7, 5, 3), layers=layers) == architecture
    assert decode(genome_of(layers, spec=SPEC), spec=SPEC) == architecture
    assert hash(decode(genome_of(layers, spec=SPEC), spec=SPEC)) == hash(architecture)
    content = to_dict(architecture)
    content["layers"] = [
        {**content["layers"][old], "inputs": list(layer.inputs)} for old, layer in zip(order, layers, strict=True)
    ]
    assert from_dict(content) == architecture


@given(one=architectures(spec=SPEC, max_layers=4), other=architectures(spec=SPEC, max_layers=4))
def test_fingerprints_are_equal_exactly_when_architectures_are(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


def test_a_chain_as_long_as_a_genome_can_be():
    spec = GenomeSpec(capacity=MAX_LAYERS)
    chain = network(*(conv(position - 1) for position in range(MAX_LAYERS)))
    assert decode(encode(chain, spec=spec), spec=spec) == chain
    assert from_json(to_json(chain)) == chain
    assert layer_shapes(chain)[-1] == (32, 32, 16)
    with pytest.raises(ArchitectureError, match="cyclic"):
        network(conv(MAX_LAYERS - 1), *chain.layers[1:])


@given(architecture=architectures(spec=SPEC))
def test_what_was_encoded_or_written_as_json_is_read_again(architecture):
    genome = encode(architecture, spec=SPEC)
    assert decode(genome, spec=SPEC) == architecture
    assert_same_arrays(genome, genome_of(architecture.layers, spec=SPEC))
    text = to_json(architecture)
    assert "\n" not in text
    assert from_json(text) == architecture
    assert from_dict(json.loads(text)) == architecture


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            network(conv(), conv(0), conv(1)),
            "the architecture has 3 layers and a genome holds 2; raise GenomeSpec.capacity",
        ),
        (
            network(input_shape=(8, 8, 1)),
            "the architecture takes images of shape (8, 8, 1), "
            "and GenomeSpec.input_shape is (32, 32, 3); they must be equal",
        ),
        (network(conv(channels=17)), "layer 0 has channels 17; GenomeSpec has the choices (16, 32)"),
        (network(pool(), conv(0, kernel=5)), "layer 1 has kernel 5; GenomeSpec has the choices (1, 3)"),
        (network(conv(stride=2)), "layer 0 has stride 2; GenomeSpec has the choices (1,)"),
    ],
)
def test_encode_refuses_what_the_space_does_not_hold(architecture, message):
    spec = GenomeSpec(capacity=2, channels=(16, 32), kernels=(1, 3), strides=(1,))
    with refuses(ArchitectureError, message):
        encode(architecture, spec=spec)


UNDECODABLE = " cannot be decoded; give one genome, no longer than its capacity"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": [4, 0]}, "gene 0 has op 4; a live gene has one from 1 to 3"),
        ({"op": [0, 0]}, "gene 0 has op 0; a live gene has one from 1 to 3"),
        ({"channels": [5, 0]}, "gene 0 has channels index 5; GenomeSpec has 5 choices, numbered from 0"),
        ({"kernel": [-1, 0]}, "gene 0 has kernel index -1; GenomeSpec has 2 choices, numbered from 0"),
        ({"inputs": [[-1, -1], [0, 0]]}, "layer 0 (conv) has inputs (-1, -1); it takes 1"),
        ({"length": 3}, "a genome of shape (2,) and length 3" + UNDECODABLE),
        ({"op": [[1, 0]]}, "a genome of shape (1, 2) and length 1" + UNDECODABLE),
    ],
)
def test_decode_refuses_what_is_no_genome(changes, message):
    spec = GenomeSpec(capacity=2)
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in changes.items()}
    genome = encode(network(conv()), spec=spec).replace(**arrays)
    with refuses(ArchitectureError, message):
        decode(genome, spec=spec)


def test_shapes_by_hand():
    # Sizes halve to the ceiling, and channels add.
    architecture = network(conv(stride=2), pool(0), concat(1, 1), pool(2), input_shape=(7, 5, 3))
    assert layer_shapes(architecture) == ((4, 3, 16), (2, 2, 16), (2, 2, 32), (1, 1, 32))
    # A line can be halved, and only a pixel cannot.
    assert layer_shapes(network(pool(), pool(0), input_shape=(1, 3, 2))) == ((1, 2, 2), (1, 1, 2))


def test_counts_by_hand():
    architecture = network(conv(), pool(0), conv(1, channels=32, kernel=1), concat(2, 1))
    # 3 x 3 x 3 x 16 and 16 x 32 numbers in kernels, two for each normalised channel, 48 x 10 + 10 in the classifier.
    assert count_parameters(architecture, num_classes=10) == 432 + 2 * 16 + 512 + 2 * 32 + 490
    # Along a side of 32, a kernel of 3 has 3 x 32 positions, of which one at each end is padding.
    assert count_flops(architecture, num_classes=10) == 2 * (94 * 94 * 3 * 16 + 16 * 16 * 16 * 32 + 48 * 10)
    # The minimal genome is the network without layers, a classifier alone.
    assert decode(minimal_genome(SPEC), spec=SPEC) == network(input_shape=(7, 5, 3))
    assert count_parameters(network(), num_classes=100) == 3 * 100 + 100
    assert count_flops(network(), num_classes=100) == 2 * 3 * 100
    # Nor do counts overflow.
    wide = network(conv(channels=4096), conv(0, channels=4096, kernel=31), input_shape=(1000, 1000, 1))
    taps = 31 * 1000 - 2 * sum(range(1, 16))
    assert count_flops(wide, num_classes=1) == 2 * (2998**2 * 4096 + taps**2 * 4096**2 + 4096)


CONV = {"op": "conv", "inputs": [-1], "channels": 16, "kernel": 3, "stride": 1}
POOL = {"op": "pool", "inputs": [-1]}
JOIN = {"op": "concat", "inputs": [0, 1]}


def document(*layers, **changes) -> str:
    return json.dumps({"schema_version": 1, "input_shape": [32, 32, 3], "layers": list(layers)} | changes)


def test_json_and_the_digest_that_is_a_fingerprint_are_of_the_documented_content():
    architecture = network(conv(stride=2), pool(0), concat(1, 1), input_shape=(8, 6, 1))
    layers = [CONV | {"stride": 2}, {"op": "pool", "inputs": [0]}, {"op": "concat", "inputs": [1, 1]}]
    assert json.loads(to_json(architecture)) == {"schema_version": 1, "input_shape": [8, 6, 1], "layers": layers}
    text = '[[8,6,1],[["conv",[-1],16,3,2],["pool",[0],0,0,0],["concat",[1,1],0,0,0]]]'
    assert fingerprint(architecture) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the architecture is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[" * 100_000, "the architecture is not valid JSON: "),
        (document(CONV).replace("16", "1" * 5000), "the architecture is not valid JSON: "),
        (document(*[POOL] * (MAX_LAYERS + 1)), "the architecture has 16385 layers; at most 16384 are accepted"),
        ("[1]", "an architecture is [1]; it must be a JSON object with schema_version, input_shape, layers"),
        ("{}", "an architecture lacks schema_version, input_shape, layers; it must have schema_version, "),
        (document(name="x"), "an architecture has unknown fields ['name']; it must have schema_version, "),
        (document(schema_version=2), "schema_version is 2; this version of eigen_jax reads 1"),
        (document(schema_version=True), "schema_version is True; this version of eigen_jax reads 1"),
        (document(schema_version="1"), "schema_version is '1'; this version of eigen_jax reads 1"),
        (document(input_shape=[32, 32]), "input_shape is (32, 32); it must be three integers H, W, C, each at least 1"),
        (document(input_shape=[32, 32, 0]), "input_shape is (32, 32, 0); it must be three integers"),
        (document(input_shape=[32, True, 3]), "input_shape is (32, True, 3); it must be three integers"),
        (document(input_shape=32), "input_shape is 32; it must be three integers"),
        (document(layers={"0": CONV}), "layers is {'0': {'channels': 16, 'inputs': [-1], 'kernel': 3, 'op': 'conv', "),
        (document(7), "layer 0 is 7; it must be a JSON object with op, inputs"),
        (document({"op": "conv", "inputs": [-1]}), "layer 0 lacks channels, kernel, stride; it must have op, inputs, "),
        (document(POOL | {"stride": 2}), "layer 0 has unknown fields ['stride']; it must have op, inputs"),
        (document(POOL | {"op": "a\nb"}), "layer 0 has op 'a\\nb'; it must be one of conv, pool, concat"),
        (document({"op": ["conv"], "inputs": []}), "layer 0 has op ['conv']; it must be one of conv, pool, concat"),
        (document(POOL | {"inputs": -1}), "layer 0 has inputs -1; they must be a list of positions"),
        (document(POOL | {"inputs": []}), "layer 0 (pool) has inputs (); it takes 1"),
        (document(CONV | {"inputs": [-1, -1]}), "layer 0 (conv) has inputs (-1, -1); it takes 1"),
        (document(POOL | {"inputs": [-2]}), "layer 0 (pool) has input -2; it must be an integer from -1 to 0"),
        (document(POOL | {"inputs": [1]}), "layer 0 (pool) has input 1; it must be an integer from -1 to 0"),
        (document(POOL | {"inputs": [False]}), "layer 0 (pool) has input False; it must be an integer from -1 to 0"),
        (document(POOL | {"inputs": [[0]]}), "layer 0 (pool) has input [0]; it must be an integer from -1 to 0"),
        (
            document(POOL, JOIN | {"inputs": [0, -1]}),
            "layer 1 (concat) has input -1; it must be an integer from 0 to 1",
        ),
        (document(CONV | {"channels": True}), "layer 0 (conv) has channels True; it must be an integer from 1 to 4096"),
        (document(CONV | {"channels": 16.0}), "layer 0 (conv) has channels 16.0; it must be an integer from 1 to 4096"),
        (document(CONV | {"channels": 0}), "layer 0 (conv) has channels 0; it must be an integer from 1 to 4096"),
        (document(CONV | {"kernel": 2}), "layer 0 (conv) has kernel 2; it must be an odd integer from 1 to 31"),
        (document(CONV | {"stride": "1"}), "layer 0 (conv) has stride '1'; it must be 1 or 2"),
        (document(CONV | {"stride": None}), "layer 0 (conv) has stride None; it must be 1 or 2"),
        (document(POOL | {"inputs": [0]}), "the architecture is cyclic: layers [0, 0] read each other"),
        (
            document(POOL, POOL | {"inputs": [2]}, POOL | {"inputs": [1]}),
            "the architecture is cyclic: layers [1, 2, 1] read each other; remove an edge",
        ),
        (
            document(POOL, POOL | {"inputs": [2]}, POOL),
            "layer 1 (pool) has input 2, a later layer; every layer must come after its inputs",
        ),
        (document(POOL, POOL), "layer 0 (pool) is dead: no layer reads it and it is not the last; remove it"),
        (
            document(CONV, POOL, JOIN),
            "layer 2 (concat) joins layer 0 of 32 x 32 with layer 1 of 16 x 16; sizes must be equal",
        ),
        (document(POOL, input_shape=[1, 1, 3]), "layer 0 (pool) divides a 1 x 1 map by 2; a map of one pixel"),
        (
            document(CONV | {"stride": 2}, input_shape=[1, 1, 3]),
            "layer 0 (conv) divides a 1 x 1 map by 2; a map of one",
        ),
    ],
    ids=itertools.count(),
)
def test_json_that_is_no_architecture_gets_one_line(text, message):
    with pytest.raises(ArchitectureError) as caught:
        from_json(text)
    line = str(caught.value)
    assert line.startswith(message)
    assert "\n" not in line
    assert len(line) < 250
