"""The built networks against NumPy, XLA's own counts and the shapes told without building."""

from collections.abc import Iterator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from strategies import architectures

from eigen_jax.architecture import (
    Architecture,
    ArchitectureError,
    Layer,
    count_flops,
    count_parameters,
    layer_shapes,
)
from eigen_jax.builder import build_network
from eigen_jax.genome import GenomeSpec

SPEC = GenomeSpec(channels=(2, 3, 5), kernels=(1, 3, 5), input_shape=(7, 5, 3))

conv = partial(Layer, op="conv", inputs=(-1,), channels=4, kernel=3, stride=1)
pool = partial(Layer, op="pool", inputs=(-1,))
concat = partial(Layer, op="concat")


def network(*layers: Layer, input_shape=(7, 5, 3)) -> Architecture:
    return Architecture(input_shape=input_shape, layers=layers)


# Every kind of layer and of edge: shared and doubled inputs, a pool and a convolution on the image.
MIXED = network(
    conv(channels=2, kernel=5, stride=2),
    pool(),
    concat(inputs=(0, 1)),
    conv(inputs=(2,), channels=3, kernel=1),
    concat(inputs=(3, 3)),
    concat(inputs=(4, 2)),
    pool(inputs=(5,)),
    conv(inputs=(6,), channels=4, stride=2),
)


def conv_reference(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """SAME convolution (cross-correlation) in float64: [B, H, W, C] with [k, k, C, D]."""
    side = kernel.shape[0]
    outputs = [-(-size // stride) for size in x.shape[1:3]]
    totals = [max((out - 1) * stride + side - size, 0) for out, size in zip(outputs, x.shape[1:3], strict=True)]
    x = np.pad(x, [(0, 0), *[(total // 2, total - total // 2) for total in totals], (0, 0)])
    y = np.zeros((len(x), *outputs, kernel.shape[-1]))
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            patch = x[:, i * stride : i * stride + side, j * stride : j * stride + side]
            y[:, i, j] = np.einsum("bhwc,hwcd->bd", patch, kernel)
    return y


def pool_reference(x: np.ndarray) -> np.ndarray:
    """2 x 2 maxima, windows cut off at the edge."""
    rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
    maxima = [[x[:, i : i + 2, j : j + 2].max((1, 2)) for j in columns] for i in rows]
    return np.moveaxis(np.array(maxima), 2, 0)


def network_reference(architecture: Architecture, variables, images: np.ndarray, *, train: bool) -> np.ndarray:
    """Logits in float64, from the definitions of the layers."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    params, stats = variables["params"], variables["batch_stats"]
    maps = {-1: images.astype(np.float64)}
    for position, layer in enumerate(architecture.layers):
        inputs = [maps[source] for source in layer.inputs]
        if layer.op == "conv":
            own, running = params[f"layer_{position}"], stats[f"layer_{position}"]["norm"]
            y = conv_reference(inputs[0], own["conv"]["kernel"], layer.stride)
            mean = y.mean((0, 1, 2)) if train else running["mean"]
            var = y.var((0, 1, 2)) if train else running["var"]
            y = (y - mean) / np.sqrt(var + 1e-5) * own["norm"]["scale"] + own["norm"]["bias"]
            maps[position] = np.maximum(y, 0)
        elif layer.op == "pool":
            maps[position] = pool_reference(inputs[0])
        else:
            maps[position] = np.concatenate(inputs, -1)
    features = maps[len(architecture.layers) - 1].mean((1, 2))
    return features @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def random_variables(module: nn.Module, images: jax.Array):
    """Variables whose every leaf is random, so that none hides behind a zero or a one."""
    shapes = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1.0, leaf.shape), leaf.dtype), shapes)


def equations(jaxpr) -> Iterator:
    """Every equation of a jaxpr, those of nested jaxprs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def xla_flops(module: nn.Module, images: jax.Array) -> int:
    """XLA's operation count of the module's convolutions and matrix products, each compiled alone."""
    variables = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(partial(module.apply, train=False))(variables, images)
    total = 0.0
    for equation in equations(jaxpr.jaxpr):
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            operands = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in equation.invars]
            alone = jax.jit(partial(equation.primitive.bind, **equation.params)).lower(*operands)
            total += (alone.cost_analysis() or {})["flops"]
    return int(total)


@pytest.mark.parametrize("train", [False, True])
def test_logits_equal_the_numpy_network(train):
    module = build_network(MIXED, num_classes=6)
    images = jax.random.normal(jax.random.key(1), (3, 7, 5, 3))
    variables = random_variables(module, images)
    logits, updated = module.apply(variables, images, train=train, mutable=["batch_stats"])
    expected = network_reference(MIXED, variables, np.asarray(images), train=train)
    assert logits.shape == (3, 6)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)
    chex.assert_trees_all_equal_shapes_and_dtypes(updated["batch_stats"], variables["batch_stats"])


def test_running_statistics_move_a_tenth_of_the_way():
    architecture = network(conv(stride=2))
    module = build_network(architecture, num_classes=2)
    images = jax.random.normal(jax.random.key(2), (4, 7, 5, 3))
    variables = random_variables(module, images)
    _, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
    kernel = np.asarray(variables["params"]["layer_0"]["conv"]["kernel"], np.float64)
    y = conv_reference(np.asarray(images, np.float64), kernel, 2)
    old, new = variables["batch_stats"]["layer_0"]["norm"], updated["batch_stats"]["layer_0"]["norm"]
    np.testing.assert_allclose(new["mean"], 0.9 * np.asarray(old["mean"]) + 0.1 * y.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(new["var"], 0.9 * np.asarray(old["var"]) + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    "layers",
    [(), (pool(),), (pool(), pool(inputs=(0,)), pool(inputs=(1,)))],
    ids=["image", "pool", "pools to 1 x 1"],
)
def test_networks_without_convolutions_classify_the_pooled_image(layers):
    architecture = network(*layers)
    module = build_network(architecture, num_classes=4)
    images = jax.random.normal(jax.random.key(3), (2, 7, 5, 3))
    variables = random_variables(module, images)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == {"classifier"}
    expected = network_reference(architecture, {**variables, "batch_stats": {}}, np.asarray(images), train=False)
    logits = jnp.asarray(module.apply(variables, images, train=True))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@given(architecture=architectures(spec=SPEC))
@settings(max_examples=40)
def test_shapes_and_parameters_are_those_of_the_module(architecture):
    module = build_network(architecture, num_classes=6)
    outputs: dict[str, tuple[int, ...]] = {}

    def record(method, args, kwargs, context):
        result = method(*args, **kwargs)
        if type(context.module).__name__ == "ConvLayer":
            outputs[context.module.name] = result.shape[1:]
        return result

    with nn.intercept_methods(record):
        logits, variables = jax.eval_shape(
            partial(module.init_with_output, train=False), jax.random.key(0), jnp.zeros((2, 7, 5, 3))
        )
    assert logits.shape == (2, 6)
    shapes = layer_shapes(architecture)
    expected = {
        f"layer_{position}": shapes[position]
        for position, layer in enumerate(architecture.layers)
        if layer.op == "conv"
    }
    assert outputs == expected
    features = variables["params"]["classifier"]["kernel"].shape[0]
    assert features == (shapes[-1][-1] if shapes else 3)
    leaves = jax.tree.leaves(variables["params"])
    assert sum(leaf.size for leaf in leaves) == count_parameters(architecture, num_classes=6)


@given(architecture=architectures(spec=SPEC, max_layers=5))
@settings(max_examples=15)
def test_flops_are_those_of_xla(architecture):
    module = build_network(architecture, num_classes=6)
    assert xla_flops(module, jnp.zeros((1, 7, 5, 3))) == count_flops(architecture, num_classes=6)


def test_equal_architectures_share_one_trace():
    @partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def logits(module, variables, images):
        return module.apply(variables, images, train=False)

    images = jnp.ones((1, 7, 5, 3))
    one = network(conv(), conv(kernel=1), concat(inputs=(0, 1)))
    other = network(conv(kernel=1), conv(), concat(inputs=(1, 0)))
    modules = [build_network(one, num_classes=2), build_network(other, num_classes=2, dtype="float32")]
    variables = random_variables(modules[0], images)
    outputs = [logits(module, variables, images) for module in modules]
    assert modules[0] == modules[1]
    assert hash(modules[0]) == hash(modules[1])
    np.testing.assert_array_equal(*outputs)
    assert modules[0] != build_network(one, num_classes=3)
    assert modules[0] != build_network(one, num_classes=2, dtype=jnp.bfloat16)


def test_half_precision_keeps_variables_and_logits_in_float32():
    module = build_network(MIXED, num_classes=6, dtype=jnp.bfloat16)
    images = jax.random.normal(jax.random.key(4), (3, 7, 5, 3))
    variables = random_variables(module, images)
    chex.assert_trees_all_equal_dtypes(variables, jax.tree.map(jnp.float32, variables))
    logits, _ = module.apply(variables, images, train=True, mutable=["batch_stats"])
    full = build_network(MIXED, num_classes=6).apply(variables, images, train=True, mutable=["batch_stats"])[0]
    assert logits.dtype == jnp.float32
    assert not np.array_equal(logits, full)
    np.testing.assert_allclose(logits, full, rtol=0.1, atol=0.2)
    jaxpr = jax.make_jaxpr(partial(module.apply, train=False))(variables, images)
    products = [eqn for eqn in equations(jaxpr.jaxpr) if eqn.primitive.name in ("conv_general_dilated", "dot_general")]
    # Three convolutions, of which the 1 x 1 one is a matrix product on a CPU, and the classifier.
    *convolutions, classifier = ({var.aval.dtype for var in eqn.invars} for eqn in products)
    assert convolutions == [{jnp.dtype(jnp.bfloat16)}] * 3
    assert classifier == {jnp.dtype(jnp.float32)}


def test_batch_statistics_are_averaged_over_a_mapped_axis():
    plain = build_network(network(conv()), num_classes=2)
    images = jax.random.normal(jax.random.key(5), (6, 7, 5, 3))
    variables = random_variables(plain, images)
    whole, updated = plain.apply(variables, images, train=True, mutable=["batch_stats"])
    mapped = jax.vmap(
        partial(plain.clone(axis_name="devices").apply, variables, train=True, mutable=["batch_stats"]),
        axis_name="devices",
    )
    shards, shard_updates = mapped(images.reshape(2, 3, 7, 5, 3))
    np.testing.assert_allclose(shards.reshape(6, 2), whole, rtol=1e-4, atol=1e-5)
    each = jax.tree.map(lambda leaf: leaf[1], shard_updates)
    chex.assert_trees_all_close(each, updated, rtol=1e-4)


def test_convolutions_start_as_he_says():
    module = build_network(network(conv(channels=256, kernel=3)), num_classes=2)
    params = jax.jit(partial(module.init, train=False))(jax.random.key(0), jnp.zeros((1, 7, 5, 3)))["params"]
    kernel = np.asarray(params["layer_0"]["conv"]["kernel"])
    assert kernel.shape == (3, 3, 3, 256)
    # 6,912 numbers of variance 2 / (3 * 3 * 3): the sample's deviation is within 4 % of it.
    np.testing.assert_allclose(kernel.std(), (2 / 27) ** 0.5, rtol=0.04)
    assert set(params["layer_0"]["conv"]) == {"kernel"}
    np.testing.assert_array_equal(params["layer_0"]["norm"]["scale"], np.ones(256))
    np.testing.assert_array_equal(params["layer_0"]["norm"]["bias"], np.zeros(256))


def test_images_of_another_shape_are_refused():
    module = build_network(network(pool()), num_classes=2)
    with pytest.raises(ArchitectureError) as caught:
        module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    assert str(caught.value) == "images have shape (1, 8, 8, 3); this network takes [B, 7, 5, 3]"
