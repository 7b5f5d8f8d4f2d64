"""The layers with gradients of their own, against the plain ones, over the shapes of the search space."""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from eigen_jax import platforms
from eigen_jax.architecture import IMAGE, Architecture, Layer
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, load_dataset
from eigen_jax.layers import BatchNormRelu, Conv, max_pool
from eigen_jax.layers.convolution import derived_convolution, stated_convolution
from eigen_jax.layers.normalization import batch_statistics, channel_sums
from eigen_jax.training import TrainConfig, init_state, train_to

# Rounding: float32 has 6e-8, and a gradient here is a sum of up to 10,000 products. Differences are
# measured against the largest value of an array, since its smallest are differences of large ones.
TOLERANCE = 1e-5

# One pixel, odd and even sides, and both in one map.
SIZES = [(1, 1), (2, 2), (3, 3), (2, 1), (4, 7), (8, 8), (5, 6)]

program = partial(jax.jit, compiler_options=dict(platforms.current().compiler_options))


def draw(seed: int, *shape: int) -> jax.Array:
    # Drawn by NumPy, which compiles nothing.
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def assert_close(actual, expected) -> None:
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        chex.assert_equal_shape([one, other])
        assert one.dtype == other.dtype
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE * scale)


def with_gradients(function, *arguments):
    """What a function gives, and its gradients of all arguments for a random cotangent."""
    result, pull = jax.vjp(function, *arguments)
    return result, pull(draw(9, *result.shape).astype(result.dtype))


def assert_equal_gradients(shapes: Sequence[tuple[int, ...]], *, side: int, stride: int) -> None:
    """Both convolutions agree on maps [B, H, W, C] and D output channels, each (B, H, W, C, D)."""
    cases = [(draw(0, *shape[:4]), draw(1, side, side, *shape[3:])) for shape in shapes]

    def run(convolve):
        return program(lambda cases: [with_gradients(partial(convolve, stride=stride), *case) for case in cases])

    assert_close(run(stated_convolution)(cases), run(derived_convolution)(cases))


@pytest.mark.parametrize(("side", "stride"), list(itertools.product((1, 2, 3, 5, 7), (1, 2, 3))))
def test_stated_convolutions_have_the_derived_gradients(side, stride):
    shapes = [(3, *size, *channels) for size in SIZES for channels in [(1, 4), (16, 5)]]
    assert_equal_gradients(shapes, side=side, stride=stride)


@pytest.mark.parametrize(("side", "stride"), list(itertools.product((1, 3), (1, 2))))
def test_stated_convolutions_have_the_derived_gradients_at_the_widths_of_the_search_space(side, stride):
    widths = (16, 32, 48, 64, 96)
    # Widths that come out of convolutions and of concatenations, and the image's.
    channels = [*zip(widths, reversed(widths), strict=True), (3, 96), (160, 16)]
    assert_equal_gradients([(4, 16, 16, *each) for each in channels], side=side, stride=stride)


@pytest.mark.parametrize(("side", "stride", "size"), [(3, 1, (5, 4)), (3, 2, (5, 4)), (1, 2, (5, 4)), (5, 3, (7, 2))])
@pytest.mark.parametrize("convolve", [stated_convolution, derived_convolution])
def test_gradients_of_a_convolution_are_those_of_its_definition(convolve, side, stride, size):
    x, kernel = draw(0, 2, *size, 3), draw(1, side, side, 3, 4)
    y, gradients = with_gradients(partial(convolve, stride=stride), x, kernel)
    pixels, taps = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    cotangent = np.asarray(draw(9, *y.shape), np.float64)
    befores = [max((-(-n // stride) - 1) * stride + side - n, 0) // 2 for n in size]
    values, input_gradient, kernel_gradient = np.zeros(y.shape), np.zeros(x.shape), np.zeros(kernel.shape)
    for i, j, k, m in np.ndindex(*y.shape[1:3], side, side):
        h, w = i * stride + k - befores[0], j * stride + m - befores[1]
        if 0 <= h < size[0] and 0 <= w < size[1]:
            values[:, i, j] += pixels[:, h, w] @ taps[k, m]
            input_gradient[:, h, w] += cotangent[:, i, j] @ taps[k, m].T
            kernel_gradient[k, m] += pixels[:, h, w].T @ cotangent[:, i, j]
    for actual, expected in zip((y, *gradients), (values, input_gradient, kernel_gradient), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_takes_the_way_of_its_platform(monkeypatch):
    x = draw(0, 2, 6, 6, 3)
    module = Conv(4, 3, 2, kernel_init=nn.initializers.he_normal())
    variables = module.init(jax.random.key(1), x)

    def dilated_inputs() -> int:
        gradient = jax.make_jaxpr(jax.grad(lambda x: jnp.asarray(module.apply(variables, x)).sum()))(x)
        return str(gradient).count("lhs_dilation=(2, 2)")

    for states_gradients in (True, False):
        platform = dataclasses.replace(platforms.CPU, states_gradients=states_gradients)
        monkeypatch.setattr(platforms, "current", lambda platform=platform: platform)
        assert dilated_inputs() == (0 if states_gradients else 1)


@pytest.mark.parametrize("as_products", [True, False])
@pytest.mark.parametrize("shape", [(3, 1, 1, 4), (2, 5, 3, 1), (4, 8, 8, 16), (2, 3, 4, 160)])
def test_batch_normalisation_and_relu_are_the_plain_ones(monkeypatch, shape, as_products):
    platform = dataclasses.replace(platforms.CPU, sums_as_products=as_products)
    monkeypatch.setattr(platforms, "current", lambda: platform)
    x = 3 * draw(0, *shape) + draw(1, shape[-1])[None, None, None]
    names = {"scale": draw(2, shape[-1]) + 2, "bias": draw(3, shape[-1])}
    stats = {"mean": draw(4, shape[-1]), "var": jnp.exp(draw(5, shape[-1]))}

    def run(module, finish, x, params):
        variables = {"params": params, "batch_stats": stats}
        y, updated = module.apply(variables, x, mutable=["batch_stats"])
        return finish(y), updated["batch_stats"]

    for average in (False, True):
        ours = partial(run, BatchNormRelu(use_running_average=average), lambda y: y)
        flax = nn.BatchNorm(use_running_average=average, momentum=0.9, epsilon=1e-5)
        results = []
        for function in (ours, partial(run, flax, nn.relu)):
            y, pull, updated = jax.vjp(function, x, names, has_aux=True)
            results.append((y, pull(draw(9, *y.shape)), updated))
        # Where a value is within rounding of zero, the two may cut differently.
        assert float(jnp.abs(jnp.where(results[1][0] > 0, results[1][0], 1)).min()) > 1e-5
        for one, other in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


def test_batch_normalisation_starts_as_the_plain_one():
    x = draw(0, 2, 3, 3, 5)
    ours = BatchNormRelu(use_running_average=False).init(jax.random.key(0), x)
    chex.assert_trees_all_equal(ours, nn.BatchNorm(use_running_average=False).init(jax.random.key(0), x))


def test_what_is_not_a_number_is_not_hidden():
    x = draw(0, 2, 3, 3, 2).at[0, 1, 1, 0].set(jnp.nan)
    module = BatchNormRelu(use_running_average=True)
    y = jnp.asarray(module.apply(module.init(jax.random.key(0), x), x))
    np.testing.assert_array_equal(jnp.isnan(y), jnp.isnan(x))


def test_batch_normalisation_computes_half_precision_maps_in_float32():
    x = 100 + draw(0, 4, 8, 8, 3)
    module = BatchNormRelu(use_running_average=False)
    variables = module.init(jax.random.key(0), x)
    half = x.astype(jnp.bfloat16)
    y, updated = module.apply(variables, half, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    chex.assert_trees_all_equal_dtypes(updated["batch_stats"], variables["batch_stats"])
    values = np.asarray(half.astype(jnp.float32), np.float64)
    expected = np.maximum((values - values.mean((0, 1, 2))) / np.sqrt(values.var((0, 1, 2)) + 1e-5), 0)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.02, atol=0.02)


def test_batch_statistics_and_their_gradient_are_those_of_the_whole_batch_over_a_mapped_axis():
    x, scale, bias = draw(0, 6, 3, 4, 5), draw(1, 5), draw(2, 5)
    cotangent = draw(3, *x.shape)

    def normalised(module, x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": bias, "var": scale}}
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    whole, pull = jax.vjp(partial(normalised, BatchNormRelu(use_running_average=False)), x, scale, bias)
    on_device = partial(normalised, BatchNormRelu(use_running_average=False, axis_name="devices"))

    def shard(x, cotangent):
        y, pull = jax.vjp(on_device, x, scale, bias)
        return y, pull(cotangent)

    def split(maps):
        return maps.reshape(2, 3, *maps.shape[1:])

    ys, (xs, scales, biases) = jax.vmap(shard, axis_name="devices")(split(x), split(cotangent))
    expected = pull(cotangent)
    np.testing.assert_allclose(ys.reshape(x.shape), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(xs.reshape(x.shape), expected[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scales.sum(0), expected[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(biases.sum(0), expected[2], rtol=1e-4, atol=1e-4)


def test_sums_are_exact_where_float32_is():
    x = jnp.arange(2 * 3 * 4 * 5, dtype=jnp.float32).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(channel_sums(x), np.arange(120).reshape(24, 5).sum(0))
    mean, var = batch_statistics(x)
    np.testing.assert_allclose(mean, np.arange(120).reshape(24, 5).mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, np.arange(120).reshape(24, 5).var(0), rtol=1e-5)


def pool_reference(x: np.ndarray) -> np.ndarray:
    """2 x 2 maxima, windows cut off at the edge."""
    rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
    maxima = [[x[:, i : i + 2, j : j + 2].max((1, 2)) for j in columns] for i in rows]
    return np.moveaxis(np.array(maxima), 2, 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (1, 4), (8, 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pool_takes_the_maximum(size, dtype):
    x = -jax.random.uniform(jax.random.key(6), (2, *size, 3)).astype(dtype)
    y = max_pool(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(jnp.float32), pool_reference(np.asarray(x.astype(jnp.float32))))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (1, 4), (8, 3), (16, 16)])
@pytest.mark.parametrize("values", [2, 1_000])
def test_pool_has_the_gradient_of_the_plain_one(size, values):
    # Of two values only, most windows have several maxima.
    x = jax.random.randint(jax.random.key(7), (3, *size, 4), 0, values).astype(jnp.float32)
    plain = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2), padding="SAME")
    chex.assert_trees_all_equal(with_gradients(max_pool, x), with_gradients(plain, x))


def test_pool_gradient_goes_to_the_first_maximum_and_stays_on_the_map():
    x = jnp.asarray([[3.0, 3.0, 5.0], [1.0, 3.0, 5.0], [0.0, 0.0, 2.0]]).reshape(1, 3, 3, 1)
    gradient = jax.grad(lambda x: max_pool(x).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0, 1], [0, 0, 0], [1, 0, 1]])


def test_a_stated_convolution_is_as_canonical_in_a_loop_as_outside():
    """Every convolution has plain maps, kernels and inputs: what XLA needs to know its fast kernels."""
    x, kernel = draw(0, 2, 8, 8, 3), draw(1, 3, 3, 3, 4)

    def loss(x, kernel):
        return jnp.square(stated_convolution(x, kernel, 2)).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, kernel)
    convolutions = [eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]
    assert convolutions
    for equation in convolutions:
        numbers = equation.params["dimension_numbers"]
        assert numbers == lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
        assert equation.params["lhs_dilation"] == (1, 1)


def test_training_ends_in_the_same_loss_with_the_plain_gradients(monkeypatch, tmp_path):
    dataset = load_dataset(
        DataConfig(name="digits", preprocessing="standardize", validation_size=237, cache_dir=tmp_path)
    )
    conv, pool, concat = (partial(Layer, op=op) for op in ("conv", "pool", "concat"))
    layers = (
        conv(inputs=(IMAGE,), channels=16, kernel=3, stride=1),
        conv(inputs=(0,), channels=16, kernel=3, stride=2),
        pool(inputs=(0,)),
        concat(inputs=(1, 2)),
        conv(inputs=(3,), channels=32, kernel=1, stride=1),
        conv(inputs=(4,), channels=32, kernel=3, stride=1),
    )
    network = build_network(Architecture(input_shape=(8, 8, 1), layers=layers), num_classes=10)
    config = TrainConfig(batch_size=32, learning_rate=0.02, decay_steps=(150,), pad=1, flip=False)
    plain = platforms.Platform(states_gradients=False, sums_as_products=False, steps_per_call=1)
    losses = []
    for platform in (platforms.CPU, plain):
        monkeypatch.setattr(platforms, "current", lambda platform=platform: platform)
        start = init_state(jax.random.key(1), network=network, config=config, input_shape=(8, 8, 1))
        _, report = train_to(jax.random.key(2), start, dataset, 200, network=network, config=config)
        losses.append(report.loss)
    assert losses[0] != losses[1], "both ways were the same"
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
