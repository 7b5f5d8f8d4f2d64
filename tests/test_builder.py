"""The built networks against NumPy, XLA's own counts and the shapes told without building."""

from collections.abc import Iterator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import layer_data
import numpy as np
import pytest
import reference_layers
from flax import linen as nn
from hypothesis import given, settings
from layer_data import concat, pool
from strategies import architectures

from eigen_jax.architecture import Architecture, ArchitectureError, Layer, count_flops, count_parameters, layer_shapes
from eigen_jax.builder import build_network
from eigen_jax.genome import GenomeSpec

SPEC = GenomeSpec(channels=(2, 3, 5), kernels=(1, 3, 5), input_shape=(7, 5, 3))

conv, network = partial(layer_data.conv, channels=4), partial(layer_data.network, input_shape=(7, 5, 3))

# Every kind of layer and of edge: shared and doubled inputs, a pool and a convolution on the image.
MIXED = network(
    *(conv(channels=2, kernel=5, stride=2), pool(), concat(0, 1), conv(2, channels=3, kernel=1), concat(3, 3)),
    *(concat(4, 2), pool(5), conv(6, stride=2)),
)


def pool_reference(x: np.ndarray) -> np.ndarray:
    """2 x 2 maxima, windows cut off at the edge."""
    rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
    maxima = [[x[:, i : i + 2, j : j + 2].max((1, 2)) for j in columns] for i in rows]
    return np.moveaxis(np.array(maxima), 2, 0)


def network_reference(architecture: Architecture, variables, images: np.ndarray, *, train: bool):
    """Logits, and batch statistics after them, in float64, from the definitions of the layers."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    params, stats = variables["params"], dict(variables.get("batch_stats", {}))
    maps = {-1: images.astype(np.float64)}
    for position, layer in enumerate(architecture.layers):
        inputs, name = [maps[source] for source in layer.inputs], f"layer_{position}"
        if layer.op == "conv":
            own, running = params[name], stats[name]["norm"]
            y, *_ = reference_layers.convolution(inputs[0], own["conv"]["kernel"], layer.stride)
            used = {"mean": y.mean((0, 1, 2)), "var": y.var((0, 1, 2))} if train else running
            # Running statistics move a tenth of the way.
            stats[name] = {"norm": {each: 0.9 * running[each] + 0.1 * used[each] for each in running}}
            maps[position] = reference_layers.norm_relu(y, own["norm"], used)
        elif layer.op == "pool":
            maps[position] = pool_reference(inputs[0])
        else:
            maps[position] = np.concatenate(inputs, -1)
    features = maps[len(architecture.layers) - 1].mean((1, 2))
    return features @ params["classifier"]["kernel"] + params["classifier"]["bias"], stats


def random_case(architecture: Architecture, *, count: int, **options):
    """A network, images, and variables whose every leaf is random, so that none hides behind a zero or a one."""
    module = build_network(architecture, **options)
    images = jnp.asarray(np.random.default_rng(count).normal(size=(count, 7, 5, 3)), jnp.float32)
    shapes = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return module, images, jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1.0, leaf.shape), leaf.dtype), shapes)


def apply(module: nn.Module, variables, images: jax.Array, *, train: bool):
    """Logits, and batch statistics after them."""
    logits, updated = jax.jit(partial(module.apply, train=train, mutable=["batch_stats"]))(variables, images)
    return logits, updated.get("batch_stats", {})


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
def test_logits_and_running_statistics_are_those_of_the_numpy_network(train):
    module, images, variables = random_case(MIXED, count=3, num_classes=6)
    logits, stats = apply(module, variables, images, train=train)
    expected, expected_stats = network_reference(MIXED, variables, np.asarray(images), train=train)
    assert logits.shape == (3, 6)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)
    chex.assert_trees_all_close(stats, expected_stats, rtol=1e-4)
    chex.assert_trees_all_equal_shapes_and_dtypes(stats, variables["batch_stats"])


@pytest.mark.parametrize("pools", [0, 1, 3])  # three, to one pixel
def test_networks_without_convolutions_classify_the_pooled_image(pools):
    architecture = network(*(pool(position - 1) for position in range(pools)))
    module, images, variables = random_case(architecture, count=2, num_classes=4)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == {"classifier"}
    expected, _ = network_reference(architecture, variables, np.asarray(images), train=False)
    np.testing.assert_allclose(apply(module, variables, images, train=True)[0], expected, rtol=1e-5, atol=1e-6)


@given(architecture=architectures(spec=SPEC))
@settings(max_examples=2 * settings().max_examples // 5)
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
    layers = zip(architecture.layers, shapes, strict=True)
    assert outputs == {f"layer_{i}": shape for i, (layer, shape) in enumerate(layers) if layer.op == "conv"}
    assert variables["params"]["classifier"]["kernel"].shape[0] == (shapes[-1][-1] if shapes else 3)
    sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
    assert sum(sizes) == count_parameters(architecture, num_classes=6)


@given(architecture=architectures(spec=SPEC, max_layers=5))
@settings(max_examples=settings().max_examples // 5)
def test_flops_are_those_of_xla(architecture):
    module = build_network(architecture, num_classes=6)
    assert xla_flops(module, jnp.zeros((1, 7, 5, 3))) == count_flops(architecture, num_classes=6)


OTHERS: dict[str, dict] = {
    "depthwise 3": {"op": "depthwise", "kernel": 3},
    "depthwise 5": {"op": "depthwise", "kernel": 5},
    "plain": {"op": "plain_conv", "channels": 5, "kernel": 4, "activation": "tanh"},
    "linear 1": {"op": "linear_conv", "channels": 5, "kernel_height": 3, "kernel_width": 1, "stride": 1},
    "linear 4": {"op": "linear_conv", "channels": 5, "kernel_height": 1, "kernel_width": 5, "stride": 4},
}


@pytest.mark.parametrize("layer", OTHERS)
def test_flops_of_what_the_paper_lacks_are_those_of_xla_too(layer):
    halved, summed = Layer(op="average_pool", inputs=(0,)), Layer(op="add", inputs=(1, 1))
    dense = Layer(op="dense", inputs=(2,), units=7, activation="relu")
    architecture = network(Layer(inputs=(-1,), **OTHERS[layer]), halved, summed, dense)
    module = build_network(architecture, num_classes=6)
    assert xla_flops(module, jnp.zeros((1, 7, 5, 3))) == count_flops(architecture, num_classes=6)


def test_equal_architectures_share_one_trace():
    @partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def logits(module, variables, images):
        return module.apply(variables, images, train=False)

    one = network(conv(), conv(kernel=1), concat(0, 1))
    other = network(conv(kernel=1), conv(), concat(1, 0))
    module, images, variables = random_case(one, count=1, num_classes=2)
    equal = build_network(other, num_classes=2, dtype="float32")
    assert (module, hash(module)) == (equal, hash(equal))
    np.testing.assert_array_equal(*(logits(each, variables, images) for each in (module, equal)))
    assert module != build_network(one, num_classes=3)
    assert module != build_network(one, num_classes=2, dtype=jnp.bfloat16)


def test_half_precision_keeps_variables_and_logits_in_float32():
    module, images, variables = random_case(MIXED, count=3, num_classes=6, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    logits, _ = apply(module, variables, images, train=True)
    full, _ = network_reference(MIXED, variables, np.asarray(images), train=True)
    assert logits.dtype == jnp.float32
    assert not np.allclose(logits, full, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(logits, full, rtol=0.1, atol=0.2)
    jaxpr = jax.make_jaxpr(partial(module.apply, train=False))(variables, images)
    products = [eqn for eqn in equations(jaxpr.jaxpr) if eqn.primitive.name in ("conv_general_dilated", "dot_general")]
    # Three convolutions, of which the 1 x 1 one is a matrix product on a CPU, and the classifier.
    *convolutions, classifier = ({var.aval.dtype for var in eqn.invars} for eqn in products)
    assert convolutions == [{jnp.dtype(jnp.bfloat16)}] * 3
    assert classifier == {jnp.dtype(jnp.float32)}


def test_convolutions_start_as_he_says():
    module = build_network(network(conv(channels=256, kernel=3)), num_classes=2)
    params = jax.jit(partial(module.init, train=False))(jax.random.key(0), jnp.zeros((1, 7, 5, 3)))["params"]
    kernel = np.asarray(params["layer_0"]["conv"]["kernel"])
    assert kernel.shape == (3, 3, 3, 256)
    # 6,912 numbers of variance 2 / (3 * 3 * 3): the sample's deviation is within 4 % of it.
    np.testing.assert_allclose(kernel.std(), (2 / 27) ** 0.5, rtol=0.04)
    assert set(params["layer_0"]["conv"]) == {"kernel"}
    chex.assert_trees_all_equal(params["layer_0"]["norm"], {"scale": np.ones(256), "bias": np.zeros(256)})


def test_images_of_another_shape_are_refused():
    module = build_network(network(pool()), num_classes=2)
    with pytest.raises(ArchitectureError) as caught:
        module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    assert str(caught.value) == "images have shape (1, 8, 8, 3); this network takes [B, 7, 5, 3]"
