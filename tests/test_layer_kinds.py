"""The table of layer kinds: what its records say against NumPy, Flax and one another, and which are refused."""

import dataclasses
import json
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import fork_kinds
import jax
import jax.numpy as jnp
import mutation_checks as checks
import numpy as np
import pytest
import reference_layers
from hypothesis import given, settings
from layer_data import concat, conv, network, pool
from mutation_checks import jit, pick, stack
from reference_mutation import taps_on_map
from refusals import refuses
from strategies import architectures

from eigen_jax.architecture import (
    Architecture,
    ArchitectureError,
    Layer,
    count_flops,
    count_parameters,
    decode,
    encode,
    fingerprint,
    from_json,
    layer_shapes,
    to_dict,
    to_json,
)
from eigen_jax.builder import build_network
from eigen_jax.errors import ConfigError
from eigen_jax.genome import OPERATORS, Genome, GenomeSpec, Operator, infer_shapes, minimal_genome
from eigen_jax.layer_kinds import BUILT_IN, KINDS, register
from eigen_jax.mutation import mutate, operator_names

KINDS_OF_GENOMES = tuple(name for name in KINDS if name in BUILT_IN and name != "add_resized")
SPEC = GenomeSpec(
    kinds=KINDS_OF_GENOMES,
    capacity=24,
    channels=(4, 6),
    kernels=(1, 3, 7),
    input_shape=(7, 5, 4),
    num_classes=3,
    max_parameters=9_000,
    max_flops=200_000,
)


def garble(proposal, genome, *, spec):
    """What is no genome: every layer reads one further on than before, the last one itself."""
    del spec
    return genome.replace(inputs=genome.inputs + proposal["first"].astype(genome.inputs.dtype) + 1)


OPERATORS.add("garble", dataclasses.replace(OPERATORS.find("swap"), name="garble", apply=garble))
FORKED = dataclasses.replace(SPEC, kinds=(*KINDS_OF_GENOMES, "activation"), operators=("swap", "garble"))


def add(first: int, second: int) -> Layer:
    return Layer(op="add", inputs=(first, second))


def depthwise(source: int, kernel: int = 3) -> Layer:
    return Layer(op="depthwise", inputs=(source,), kernel=kernel)


def average(source: int) -> Layer:
    return Layer(op="average_pool", inputs=(source,))


def activation(source: int, activation: str = "tanh", slope: float = 1.0) -> Layer:
    return Layer(op="activation", inputs=(source,), activation=activation, slope=slope)


# --- What the three kinds beside the paper's compute and cost -------------------------------


def output_of(*layers: Layer, images: np.ndarray) -> tuple[np.ndarray, dict]:
    """The map that a network pools, seen through a classifier that copies what it reads; and its variables."""
    architecture = network(*layers, input_shape=images.shape[1:])
    width = layer_shapes(architecture)[-1][-1]
    module = build_network(architecture, num_classes=width)
    variables = module.init(jax.random.key(0), images, train=False)
    params = {**variables["params"], "classifier": {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}}
    rng = np.random.default_rng(1)
    others = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape), jnp.float32),
        {name: value for name, value in params.items() if name != "classifier"},
    )
    variables = {**variables, "params": {**params, **others}}
    return np.asarray(module.apply(variables, images, train=False)), variables


def test_outputs_are_those_that_numpy_computes() -> None:
    images = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    windows = [images[:, row : row + 2, column : column + 2].mean((1, 2)) for row in (0, 2, 4) for column in (0, 2)]
    np.testing.assert_allclose(output_of(average(-1), images=images)[0], np.mean(windows, 0), rtol=1e-5, atol=1e-6)
    halves = [images[:, row : row + 2, column : column + 2] for row in (0, 2, 4) for column in (0, 2)]
    both = np.mean([window.mean((1, 2)) + window.max((1, 2)) for window in halves], 0)
    pooled = output_of(average(-1), pool(), add(0, 1), images=images)[0]
    np.testing.assert_allclose(pooled, both, rtol=1e-5, atol=1e-6)
    for side in (3, 5):
        shown, variables = output_of(depthwise(-1, side), images=images)
        kernel, norm = variables["params"]["layer_0_conv"]["kernel"], variables["params"]["layer_0_norm"]
        assert kernel.shape == (side, side, 1, 3)
        maps = [
            reference_layers.convolution(images[..., [channel]].astype(float), np.asarray(kernel)[..., [channel]], 1)[0]
            for channel in range(3)
        ]
        running = {name: np.asarray(value) for name, value in variables["batch_stats"]["layer_0_norm"].items()}
        expected = reference_layers.norm_relu(np.concatenate(maps, -1), norm, running)
        np.testing.assert_allclose(shown, expected.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_maps_in_half_precision_stay_so() -> None:
    layers = conv(channels=4), depthwise(0), add(0, 1), average(2), pool(2), concat(3, 4)
    module = build_network(network(*layers, input_shape=(4, 4, 3)), num_classes=2, dtype=jnp.bfloat16)
    images = jnp.zeros((1, 4, 4, 3))
    apply = partial(module.init_with_output, train=False, capture_intermediates=True, mutable=True)
    _, variables = jax.eval_shape(apply, jax.random.key(0), images)
    captured = {
        name: outputs["__call__"][0].dtype
        for name, outputs in variables["intermediates"].items()
        if name.startswith("layer")
    }
    assert captured == dict.fromkeys(("layer_0", "layer_1_conv", "layer_1_norm"), jnp.bfloat16)


def cost_reference(architecture: Architecture, *, num_classes: int) -> tuple[int, int]:
    """Parameters and FLOPs, layer for layer, from the definitions."""
    shapes = {-1: architecture.input_shape, **dict(enumerate(layer_shapes(architecture)))}
    features = shapes[len(architecture.layers) - 1][2]
    parameters, flops = (features + 1) * num_classes, 2 * features * num_classes
    for layer in architecture.layers:
        height, width, read = shapes[layer.inputs[0]]
        products, sides, stride = read * layer.channels, (layer.kernel, layer.kernel), layer.stride or 1
        if layer.op == "conv":
            parameters += layer.kernel**2 * products + 2 * layer.channels
        elif layer.op == "plain_conv":
            parameters += layer.kernel**2 * products + layer.channels
        elif layer.op == "linear_conv":
            sides = layer.kernel_height, layer.kernel_width
            parameters += sides[0] * sides[1] * products
        elif layer.op == "depthwise":
            products = read
            parameters += (layer.kernel**2 + 2) * read
        else:
            if layer.op == "dense":
                parameters += height * width * read * layer.units + layer.units
                flops += 2 * height * width * read * layer.units
            elif layer.activation in ("scaled", "norm_relu"):
                parameters += read if layer.activation == "scaled" else 2 * read
            continue
        flops += 2 * products * taps_on_map(height, sides[0], stride) * taps_on_map(width, sides[1], stride)
    return parameters, flops


infer, valid = jit(infer_shapes, static_argnames="spec"), jit(checks.is_valid, static_argnames="spec")


@settings(max_examples=settings().max_examples * 4 // 5)
@given(architecture=architectures(spec=FORKED, max_layers=12))
def test_networks_of_all_kinds_are_read_again_and_cost_what_each_layer_does(architecture: Architecture) -> None:
    genome = encode(architecture, spec=FORKED)
    assert valid(genome, spec=dataclasses.replace(FORKED, max_parameters=10**9, max_flops=10**9))
    assert decode(genome, spec=FORKED) == from_json(to_json(architecture)) == architecture
    assert pickle.loads(pickle.dumps(architecture)) == architecture
    shapes = jax.device_get(infer(genome, spec=FORKED))
    told = [
        (*FORKED.sizes[level], width) for level, width in zip(shapes.level.tolist(), shapes.width.tolist(), strict=True)
    ]
    assert tuple(told[: len(architecture.layers)]) == layer_shapes(architecture)
    costs = count_parameters(architecture, num_classes=3), count_flops(architecture, num_classes=3)
    assert costs == (int(shapes.parameters), int(shapes.flops)) == cost_reference(architecture, num_classes=3)


def test_json_and_fingerprints_have_the_values_of_a_kind_by_name() -> None:
    architecture = network(activation(-1, "scaled", 0.5), depthwise(0, 5), input_shape=(8, 8, 1))
    first, second = to_dict(architecture)["layers"]
    assert list(first.items()) == [("op", "activation"), ("inputs", [-1]), ("activation", "scaled"), ("slope", 0.5)]
    assert list(second.items()) == [("op", "depthwise"), ("inputs", [0]), ("kernel", 5)]
    assert fingerprint(architecture) != fingerprint(dataclasses.replace(architecture, layers=architecture.layers[:1]))
    assert architecture.layers[0].kernel == 0
    with pytest.raises(AttributeError, match="no kind of layer has a choice 'padding'"):
        _ = architecture.layers[0].padding
    assert dataclasses.replace(first_layer := architecture.layers[0], inputs=(3,)) == activation(3, "scaled", 0.5)
    assert hash(first_layer) == hash(activation(-1, "scaled", 0.5))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            (Layer(op="gate", inputs=(-1,)),),
            "layer 0 has op 'gate'; it must be one of conv, pool, concat, add, depthw",
        ),
        ((depthwise(-1, 4),), "layer 0 (depthwise) has kernel 4; it must be one of 3, 5"),
        ((activation(-1, "relu"),), "layer 0 (activation) has activation 'relu'; it must be one of 'tanh', 'scaled'"),
        ((activation(-1, slope=1),), "layer 0 (activation) has slope 1; it must be one of 0.5, 1.0, 2.0"),
        ((Layer(op="pool", inputs=(-1,), slope=2.0),), "layer 0 (pool) has slope 2.0; it must be 0"),
        ((conv(), add(0, -1)), "layer 1 (add) has input -1; it must be an integer from 0 to 1"),
        (
            (conv(), conv(0, channels=7), add(0, 1)),
            "layer 2 (add) joins layer 0 of 32 x 32 x 48 with layer 1 of 32 x 32 x 7; shapes must be equal",
        ),
    ],
)
def test_a_layer_that_its_kind_does_not_allow_gets_one_line(layers: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        network(*layers)
    assert str(caught.value).startswith(message)


def test_a_network_of_kinds_that_the_space_lacks_is_not_encoded() -> None:
    with refuses(
        ArchitectureError, "layer 0 has op 'average_pool'; GenomeSpec has the kinds ('conv', 'concat', 'pool')"
    ):
        encode(network(average(-1)), spec=GenomeSpec())


# --- Genomes ---------------------------------------------------------------------------------


def test_a_genome_has_the_choices_of_its_space_and_cannot_be_changed() -> None:
    genome = minimal_genome(FORKED)
    names = (
        "activation",
        "channels",
        "kernel",
        "kernel_height",
        "kernel_width",
        "rate",
        "side",
        "slope",
        "stride",
        "units",
    )
    assert tuple(genome.choices) == names
    few = dataclasses.replace(SPEC, kinds=("conv", "concat", "pool", "add"))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(minimal_genome(few))]
    assert paths == [".op", ".inputs", ".channels", ".kernel", ".stride", ".length"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        genome.op = genome.op
    with pytest.raises(TypeError, match="has no padding"):
        genome.replace(padding=genome.op)
    with pytest.raises(AttributeError, match="has no padding"):
        _ = genome.padding
    assert [FORKED.code(name) for name in FORKED.kinds] == [1, 2, 13, 14, *range(3, 13)]
    assert pickle.loads(pickle.dumps(minimal_genome(SPEC))).capacity == 24


def test_the_operators_follow_from_the_kinds() -> None:
    assert operator_names(GenomeSpec()) == (
        *("insert_conv", "insert_concat", "insert_pool", "remove_conv", "remove_concat", "remove_pool"),
        *("alter_channels", "alter_stride", "alter_kernel"),
    )
    few = GenomeSpec(kinds=("average_pool", "depthwise"), operators=("swap",))
    names = "insert_average_pool", "insert_depthwise", "remove_average_pool", "remove_depthwise", "alter_kernel", "swap"
    assert operator_names(few) == names


@partial(jit, static_argnames="spec")
def bred(keys: jax.Array, genomes: Genome, *, spec: GenomeSpec):
    return jax.vmap(partial(mutate, steps=60, spec=spec))(keys, genomes)


def check_children(genomes: Genome, seed: int, spec: GenomeSpec) -> tuple[Genome, np.ndarray]:
    """Children, each of which is valid, and as many operators of each kind as were applied."""
    keys = jax.random.split(jax.random.key(seed), len(genomes.length))
    children, trace = jax.device_get(bred(keys, genomes, spec=spec))
    valid, shapes = jax.device_get(checks.check(children, spec=spec))
    assert np.all(valid)
    np.testing.assert_array_equal(trace.counts.sum(axis=1), 60)
    for index in np.random.default_rng(seed).choice(len(keys), 8, replace=False).tolist():
        child = pick(children, index)
        checks.assert_built_as_told(child, pick(shapes, index), spec)
        architecture = decode(child, spec=spec)
        assert decode(encode(architecture, spec=spec), spec=spec) == architecture
        costs = cost_reference(architecture, num_classes=spec.num_classes)
        assert costs == (shapes.parameters[index], shapes.flops[index])
    return children, trace.counts.sum(axis=0)


def test_children_of_all_kinds_and_of_a_forks_operator_are_valid_and_built_as_told() -> None:
    children, counts = check_children(stack([jax.device_get(minimal_genome(FORKED))] * 48), 0, FORKED)
    # What an operator makes that is no genome is drawn again.
    np.testing.assert_array_equal(counts > 0, [*[True] * (len(counts) - 1), False])
    assert {layer.op for index in range(48) for layer in decode(pick(children, index), spec=FORKED).layers} == {
        *FORKED.kinds
    }


@pytest.mark.slow
def test_children_of_all_kinds_stay_valid_over_as_many_chains_as_asked(pytestconfig: pytest.Config) -> None:
    """`pytest --chains 20000` checks so many, in turn from global pooling and from genomes evolved so far."""
    spec = dataclasses.replace(
        SPEC, capacity=160, max_parameters=150_000, max_flops=20_000_000, input_shape=(32, 32, 3)
    )
    ancestors = evolved = stack([jax.device_get(minimal_genome(spec))] * 200)
    for seed in range(max(2, -(-pytestconfig.getoption("chains") // 200))):
        children, counts = check_children(evolved if seed % 2 else ancestors, seed, spec)
        assert np.all(counts > 0)
        evolved = children if seed % 2 or not seed else evolved


def test_a_sum_is_inserted_where_widths_agree_too() -> None:
    # Of one size are all; as wide as layer 2 is layer 0 alone.
    spec = GenomeSpec(kinds=("conv", "add"), capacity=5, channels=(8, 16), input_shape=(4, 4, 3))
    layers = conv(channels=8), conv(0, channels=16), conv(1, channels=8)
    genome = encode(network(*layers, input_shape=(4, 4, 3)), spec=spec)
    step = jit(jax.vmap(partial(checks.mutate_once, operator="insert_add", spec=spec), (0, None)))
    children, accepted = jax.device_get(step(jax.random.split(jax.random.key(0), 256), genome))
    made = {decode(pick(children, index), spec=spec) for index in np.flatnonzero(accepted)}
    assert made == {network(*layers, add(2, 0), input_shape=(4, 4, 3))}
    # Nor is a layer altered on which a sum depends.
    joined = encode(network(conv(channels=8), conv(channels=8, kernel=1), add(0, 1), input_shape=(4, 4, 3)), spec=spec)
    step = jit(jax.vmap(partial(checks.mutate_once, operator="alter_channels", spec=spec), (0, None)))
    assert not np.any(step(jax.random.split(jax.random.key(1), 64), joined)[1])


# --- Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kinds": ("conv", "pol")}, "there is no layer kind 'pol'; did you mean pool? choose from conv, pool, concat"),
        ({"kinds": ()}, "kinds is (); it must be 1 to 127 different values"),
        ({"kinds": ("conv", "conv")}, "kinds is ('conv', 'conv'); it must be 1 to 127 different values"),
        ({"kinds": ("conv", 3)}, "kinds is ('conv', 3); it must be text, each"),
        ({"kinds": ("concat", "add")}, "kinds is ('concat', 'add'); one kind at least must read the image"),
        (
            {"kinds": ("conv", "add_resized")},
            "kinds is ('conv', 'add_resized'); 'add_resized' joins maps of any two sizes, which no genome does; leave",
        ),
        ({"operators": ("shuffle",)}, "there is no mutation operator 'shuffle'; choose from swap"),
        ({"operators": ("swap", "swap")}, "operators is ('swap', 'swap'); there are two operators 'swap'"),
        ({"operators": ("insert_conv",)}, "operators is ('insert_conv',); there are two operators 'insert_conv'"),
        ({"operators": ("half",)}, "the mutation operator 'half' lacks propose and apply; mend its record"),
    ],
)
def test_a_search_space_of_what_there_is_not_is_refused(
    setting: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(OPERATORS) - {"swap"}:
        monkeypatch.delitem(OPERATORS, name)
    if "swap" not in message:
        monkeypatch.setitem(OPERATORS, "insert_conv", OPERATORS.find("swap"))
        monkeypatch.setitem(OPERATORS, "half", Operator(name="half", applicable=fork_kinds._can_swap))
    with pytest.raises(ConfigError) as caught:
        GenomeSpec(**setting)
    assert str(caught.value).startswith(message)


def test_a_name_is_given_once() -> None:
    assert register(KINDS.find("pool")) is KINDS.find("pool")
    with refuses(ConfigError, "there is another layer kind 'pool'; choose another name"):
        register(dataclasses.replace(KINDS.find("pool"), halves=False))


WORKER = """
import pickle, sys
from eigen_jax.architecture import count_parameters
from eigen_jax.layer_kinds import KINDS
assert "activation" not in KINDS
print(count_parameters(pickle.load(sys.stdin.buffer), num_classes=2))
"""


def test_a_worker_that_never_imported_a_forks_file_reads_its_networks() -> None:
    architecture = network(activation(-1, "scaled"), conv(0, 4, 1), input_shape=(4, 4, 3))
    folders = {"PYTHONPATH": ":".join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))}
    worker = subprocess.run(
        [sys.executable, "-c", WORKER], input=pickle.dumps(architecture), env=folders, capture_output=True
    )
    # 3 scales, a kernel of 3 x 4 and twice 4 of its normalisation, a classifier of 4 x 2 + 2.
    assert (worker.stderr, worker.stdout) == (b"", b"33\n")
    assert len(pickle.dumps(network(conv(), pool(0), concat(1, 1)))) < 250
    assert json.loads(to_json(architecture))["layers"][0]["activation"] == "scaled"
