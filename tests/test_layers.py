"""The layers with gradients of their own, against the plain ones, over the shapes of the search space."""

import dataclasses
import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_layers
from flax import linen as nn
from jax import lax
from layer_data import concat, conv, network, pool

from eigen_jax import platforms
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, load_dataset
from eigen_jax.layers import BatchNormRelu, Conv, count_flops, max_pool
from eigen_jax.layers.convolution import derived_convolution, stated_convolution
from eigen_jax.training import TrainConfig, init_state, train_to

# Rounding: float32 has 6e-8, and a gradient here is a sum of up to 10,000 products. Differences are
# measured against the largest value of an array, since its smallest are differences of large ones.
TOLERANCE = 1e-5

# One pixel, odd and even sides, and both in one map.
SIZES = [(1, 1), (2, 2), (3, 3), (2, 1), (4, 7), (8, 8), (5, 6)]
SMALL = [(3, *size, *channels) for size in SIZES for channels in [(1, 4), (16, 5)]]
# Widths that come out of convolutions and of concatenations, and the image's.
WIDE = [(4, 16, 16, *each) for each in [(16, 96), (32, 64), (48, 48), (64, 32), (96, 16), (3, 96), (160, 16)]]

program = partial(jax.jit, compiler_options=dict(platforms.current().compiler_options))


def draw(seed: int, *shape: int) -> jax.Array:
    # Drawn by NumPy, which compiles nothing.
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def use_platform(monkeypatch, **changes) -> None:
    platform = dataclasses.replace(platforms.CPU, **changes)
    monkeypatch.setattr(platforms, "current", lambda: platform)


def with_gradients(function, *arguments):
    """What a function gives, and its gradients of all arguments for a random cotangent."""
    result, pull = jax.vjp(function, *arguments)
    return result, *pull(draw(9, *result.shape).astype(result.dtype))


def slow_unless(quick: bool, *values):
    return pytest.param(*values, marks=() if quick else pytest.mark.slow)


QUICK = {(1, 2), (2, 3), (3, 1), (3, 2), (5, 2)}
SIDES_AND_STRIDES = list(itertools.product((1, 2, 3, 5, 7), (1, 2, 3)))


@pytest.mark.parametrize(
    ("convolve", "shapes", "side", "stride"),
    [
        *(slow_unless(each in QUICK, stated_convolution, SMALL, *each) for each in SIDES_AND_STRIDES),
        *(slow_unless(False, stated_convolution, WIDE, *each) for each in itertools.product((1, 3), (1, 2))),
        *((derived_convolution, SMALL[::3], *each) for each in [(3, 1), (3, 2), (1, 2), (5, 3)]),
    ],
)
def test_convolutions_and_their_gradients_are_those_of_the_definition(convolve, shapes, side, stride):
    """On maps [B, H, W, C] and D output channels, each (B, H, W, C, D)."""
    cases = [(draw(0, *shape[:4]), draw(1, side, side, *shape[3:])) for shape in shapes]
    compute = program(lambda cases: [with_gradients(partial(convolve, stride=stride), *case) for case in cases])
    for shape, case, actual in zip(shapes, cases, compute(cases), strict=True):
        defined = reference_layers.convolution(*case, stride, cotangent=draw(9, *actual[0].shape))
        for ours, expected in zip(actual, defined, strict=True):
            assert (ours.shape, ours.dtype) == (expected.shape, jnp.float32)
            atol = TOLERANCE * np.abs(expected).max()
            np.testing.assert_allclose(ours, expected, rtol=0, atol=atol, err_msg=str(shape))


@pytest.mark.parametrize("states_gradients", [True, False])
def test_a_convolution_takes_the_way_of_its_platform(monkeypatch, states_gradients):
    """Stated, all have plain maps, kernels and inputs: what XLA needs to know its fast kernels, in a loop too."""
    use_platform(monkeypatch, states_gradients=states_gradients)
    module = Conv(4, 3, 2, kernel_init=nn.initializers.he_normal())

    def loss(kernel, x):
        return jnp.square(jnp.asarray(module.apply({"params": {"kernel": kernel}}, x))).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(draw(1, 3, 3, 3, 4), draw(0, 2, 8, 8, 3))
    convolutions = [eqn.params for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]
    plain = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    # The forward one, and those of the kernel's gradient and of the four phases of the input's.
    assert len(convolutions) == (6 if states_gradients else 3)
    assert ({each["dimension_numbers"] for each in convolutions} == {plain}) == states_gradients
    assert [each["lhs_dilation"] for each in convolutions].count((2, 2)) == (0 if states_gradients else 1)


def normalised(module, x, scale, bias, mean, var):
    """What a module, and ReLU, make of maps, and its running statistics after it."""
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}
    y, updated = module.apply(variables, x, mutable=["batch_stats"])
    return (nn.relu(y) if isinstance(module, nn.BatchNorm) else y), updated["batch_stats"]


def normalised_with_gradients(module, cotangent, *arguments):
    y, pull, updated = jax.vjp(partial(normalised, module), *arguments, has_aux=True)
    return y, pull(cotangent), updated


@pytest.mark.parametrize("average", [False, True])
def test_batch_normalisation_and_relu_are_the_plain_ones(average):
    cases = []
    for shape in [(3, 1, 1, 4), (2, 5, 3, 1), (4, 8, 8, 16), (2, 3, 4, 160)]:
        x = 3 * draw(0, *shape) + draw(1, shape[-1])[None, None, None]
        scale, bias, mean, log_var = (draw(seed, shape[-1]) for seed in (2, 3, 4, 5))
        cases.append((draw(9, *shape), x, scale + 2, bias, mean, jnp.exp(log_var)))
    modules = BatchNormRelu(average), nn.BatchNorm(average, momentum=0.9, epsilon=1e-5)

    @program
    def run(cases):
        return [[normalised_with_gradients(module, *case) for module in modules] for case in cases]

    for actual, expected in run(cases):
        # Where a value is within rounding of zero, the two may cut differently.
        assert float(jnp.abs(jnp.where(expected[0] > 0, expected[0], 1)).min()) > 1e-5
        for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


def test_batch_normalisation_computes_half_precision_maps_in_float32_and_hides_nothing_that_is_not_a_number():
    half = (100 + draw(0, 4, 8, 8, 3)).astype(jnp.bfloat16)
    module = BatchNormRelu(use_running_average=False)
    y, updated = program(partial(normalised, module))(half, jnp.ones(3), *jnp.zeros((3, 3)))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in updated.values()} == {jnp.dtype("float32")}
    values = np.asarray(half.astype(jnp.float32), np.float64)
    expected = np.maximum((values - values.mean((0, 1, 2))) / np.sqrt(values.var((0, 1, 2)) + 1e-5), 0)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.02, atol=0.02)
    x = draw(0, 2, 3, 3, 2).at[0, 1, 1, 0].set(jnp.nan)
    y, _ = program(partial(normalised, BatchNormRelu(use_running_average=True)))(x, *jnp.ones((4, 2)))
    np.testing.assert_array_equal(jnp.isnan(y), jnp.isnan(x))


def test_batch_statistics_and_their_gradient_are_those_of_the_whole_batch_over_a_mapped_axis():
    cotangent, x, scale, bias = draw(3, 6, 3, 4, 5), draw(0, 6, 3, 4, 5), draw(1, 5), draw(2, 5)

    def compute(cotangent, x, axis_name=None):
        module = BatchNormRelu(use_running_average=False, axis_name=axis_name)
        return normalised_with_gradients(module, cotangent, x, scale, bias, bias, scale)[:2]

    whole, expected = program(compute)(cotangent, x)
    shards = cotangent.reshape(2, 3, 3, 4, 5), x.reshape(2, 3, 3, 4, 5)
    on_devices = jax.vmap(partial(compute, axis_name="devices"), axis_name="devices")
    ys, (xs, scales, biases, *_) = program(on_devices)(*shards)
    np.testing.assert_allclose(ys.reshape(x.shape), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(xs.reshape(x.shape), expected[0], rtol=1e-3, atol=1e-4)
    for parts, sums in ((scales, expected[1]), (biases, expected[2])):
        np.testing.assert_allclose(parts.sum(0), sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("values", "dtype"), [(2, jnp.float32), (1_000, jnp.float32), (250, jnp.bfloat16)])
def test_pool_and_its_gradient_are_the_plain_ones(values, dtype):
    # Below zero, which no edge may add. Of two values only, most windows have several maxima.
    rng, sizes = np.random.default_rng(7), [(1, 1), (2, 2), (7, 5), (1, 4), (8, 3), (16, 16)]
    maps = [jnp.asarray(rng.integers(-values, 0, (3, *size, 4)), dtype) for size in sizes]
    plain = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2), padding="SAME")
    ours, expected = (
        jax.jit(lambda maps, pool=pool: [with_gradients(pool, each) for each in maps])(maps)
        for pool in (max_pool, plain)
    )
    chex.assert_trees_all_equal(ours, expected, strict=True)


def test_gradients_through_pooled_layers_are_the_plain_ones_as_training_compiles_them():
    """XLA may compute a map once more in the pass backward, merged and so rounded otherwise."""
    architecture = network(conv(-1, 16), pool(0), conv(1, 16), pool(2), pool(3), input_shape=(9, 9, 3))
    module, images = build_network(architecture, num_classes=10), draw(0, 32, 9, 9, 3)
    variables = program(partial(module.init, train=False))(jax.random.key(1), images)

    def loss(params, apply):
        logits, _ = apply({"params": params, "batch_stats": variables["batch_stats"]}, images)
        return jnp.square(logits - 1).mean()

    def plain(variables, x):
        for layer in ("layer_0", "layer_2"):
            params = variables["params"][layer]
            x = derived_convolution(x, params["conv"]["kernel"], 1)
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            x = (x - mean[None, None, None]) * (params["norm"]["scale"] / jnp.sqrt(var + 1e-5))[None, None, None]
            x = nn.max_pool(nn.relu(x + params["norm"]["bias"][None, None, None]), (2, 2), (2, 2), "SAME")
        x, classifier = nn.max_pool(x, (2, 2), (2, 2), "SAME").mean((1, 2)), variables["params"]["classifier"]
        return x @ classifier["kernel"] + classifier["bias"][None], {}

    ours = partial(module.apply, train=True, mutable=["batch_stats"])
    actual = program(jax.grad(partial(loss, apply=ours)))(variables["params"])
    expected = program(jax.grad(partial(loss, apply=plain)))(variables["params"])
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert float(jnp.linalg.norm(one - other)) <= 1e-3 * float(jnp.linalg.norm(other)) + 1e-6


@pytest.mark.parametrize(("steps", "tolerance"), [(3, 1e-4), slow_unless(False, 200, 0.01)])
def test_training_ends_in_the_same_loss_with_the_plain_gradients(monkeypatch, tmp_path, steps, tolerance):
    data = DataConfig(name="digits", preprocessing="standardize", validation_size=237, cache_dir=tmp_path)
    layers = conv(-1, 16), conv(0, 16, stride=2), pool(0), concat(1, 2), conv(3, 16, kernel=1)
    dataset, module = load_dataset(data), build_network(network(*layers, input_shape=(8, 8, 1)), num_classes=10)
    config = TrainConfig(batch_size=32, learning_rate=0.02, decay_steps=(150,), pad=1, flip=False)
    losses, norms = [], []
    for plain in (False, True):
        if plain:
            use_platform(monkeypatch, states_gradients=False, compiler_options={})
        start = init_state(jax.random.key(1), network=module, config=config, input_shape=(8, 8, 1))
        state, report = train_to(jax.random.key(2), start, dataset, steps, network=module, config=config)
        losses.append(report.loss)
        norms.append([float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(state.params)])
    assert norms[0] != norms[1], "both ways were the same"
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)


class Grouped(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(8, (3, 5), (2, 1), "VALID", feature_group_count=2)(images)
        x = nn.relu(jax.checkpoint(lambda x: x)(x))
        return jnp.einsum("bhwc,bhwd->bcd", x, x[..., :3])


def test_flops_of_groups_uneven_kernels_and_batched_products():
    convolved = 2 * (5 * 9) * (3 * 5) * (4 // 2) * 8
    assert count_flops(Grouped(), (11, 13, 4)) == convolved + 2 * 5 * 9 * 8 * 3
