"""Dense layers, dropout, plain convolutions and max pooling of several sizes, against NumPy and by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_layers
from layer_data import conv, network
from mutation_checks import jit
from one_layer import OneLayer, assert_close, draw, with_gradients

from eigen_jax.architecture import (
    IMAGE,
    ArchitectureError,
    Layer,
    count_flops,
    count_parameters,
    from_json,
    layer_shapes,
    to_json,
)
from eigen_jax.builder import build_network
from eigen_jax.training import Batch, TrainConfig, init_state, train_step

ACTIVATIONS = ("relu", "tanh", "sigmoid", "linear")


def dense(source: int = IMAGE, units: int = 5, activation: str = "relu") -> Layer:
    return Layer(op="dense", inputs=(source,), units=units, activation=activation)


def dropout(source: int = IMAGE, rate: float = 0.5) -> Layer:
    return Layer(op="dropout", inputs=(source,), rate=rate)


def plain(source: int = IMAGE, channels: int = 4, kernel: int = 3, activation: str = "relu") -> Layer:
    return Layer(op="plain_conv", inputs=(source,), channels=channels, kernel=kernel, activation=activation)


def pool3(source: int = IMAGE) -> Layer:
    return Layer(op="pool3", inputs=(source,))


def pool_any(source: int = IMAGE, side: int = 2) -> Layer:
    return Layer(op="pool_any", inputs=(source,), side=side)


def activated(z: np.ndarray, activation: str) -> tuple[np.ndarray, np.ndarray]:
    """The activation of float64 values, and its slope."""
    if activation == "relu":
        return np.maximum(z, 0), (z > 0).astype(float)
    if activation == "tanh":
        return np.tanh(z), 1 - np.tanh(z) ** 2
    if activation == "sigmoid":
        y = 1 / (1 + np.exp(-z))
        return y, y * (1 - y)
    return z, np.ones_like(z)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_dense_layer_and_its_gradients_are_those_of_the_definition(activation):
    x = draw(3, 4, 3, 2)
    variables, output, of_params, (of_x,), cotangent = with_gradients(dense(units=5, activation=activation), x)
    kernel, bias = (variables["params"][name].astype(float) for name in ("kernel", "bias"))
    assert kernel.shape == (4 * 3 * 2, 5)
    flat = x.reshape(3, 24).astype(float)
    y, slope = activated(flat @ kernel + bias, activation)
    of_z = cotangent.reshape(3, 5) * slope
    assert_close(output, y.reshape(3, 1, 1, 5))
    assert_close(of_params["kernel"], flat.T @ of_z)
    assert_close(of_params["bias"], of_z.sum(0))
    assert_close(of_x, (of_z @ kernel.T).reshape(x.shape))


@pytest.mark.parametrize(("kernel", "activation"), [(1, "linear"), (2, "tanh"), (3, "relu"), (6, "sigmoid")])
def test_a_plain_convolution_and_its_gradients_are_those_of_the_definition(kernel, activation):
    x = draw(2, 5, 4, 3)
    variables, output, of_params, (of_x,), cotangent = with_gradients(plain(-1, 4, kernel, activation), x)
    weights, bias = variables["params"]["kernel"], variables["params"]["bias"]
    assert weights.shape == (kernel, kernel, 3, 4)
    y, slope = activated(reference_layers.convolution(x, weights)[0] + bias, activation)
    _, expected_of_x, of_weights = reference_layers.convolution(x, weights, cotangent=cotangent * slope)
    assert_close(output, y)
    assert_close(of_params["kernel"], of_weights)
    assert_close(of_params["bias"], (cotangent * slope).sum((0, 1, 2)))
    assert_close(of_x, expected_of_x)


def short(layer: Layer) -> str:
    return f"{layer.op} {layer.side or ''}"


def max_pooled(x: np.ndarray, side: int, stride: int, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SAME max pooling, window by window, and its gradient, which goes to the first maximum of each."""
    size = x.shape[1:3]
    counts = [-(-pixels // stride) for pixels in size]
    lows = [max((n - 1) * stride + side - pixels, 0) // 2 for n, pixels in zip(counts, size, strict=True)]
    y, of_x = np.zeros((len(x), *counts, x.shape[3])), np.zeros(x.shape)
    for image, row, column, channel in np.ndindex(*y.shape):
        top, left = row * stride - lows[0], column * stride - lows[1]
        places = [
            (place, other)
            for place in range(max(top, 0), min(top + side, size[0]))
            for other in range(max(left, 0), min(left + side, size[1]))
        ]
        best = max(places, key=lambda place: x[image, *place, channel])
        y[image, row, column, channel] = x[image, *best, channel]
        of_x[image, *best, channel] += cotangent[image, row, column, channel]
    return y, of_x


@pytest.mark.parametrize("size", [(8, 8), (7, 4), (2, 1)])
@pytest.mark.parametrize("layer", [pool3(), *(pool_any(side=side) for side in (1, 2, 3, 5, 6))], ids=short)
def test_max_pooling_and_its_gradient_are_those_of_each_window(layer, size):
    # Of few values below zero, which no edge may add, so that most windows have several maxima.
    x = np.random.default_rng(0).integers(-9, 0, (2, *size, 3)).astype(np.float32)
    _, output, _, (of_x,), cotangent = with_gradients(layer, x)
    side, stride = (3, 2) if layer.op == "pool3" else (layer.side, layer.side)
    y, expected = max_pooled(x, side, stride, cotangent)
    np.testing.assert_array_equal(output, y)
    assert_close(of_x, expected)


def test_dropout_drops_a_share_of_all_values_in_training_alone():
    x = np.ones((8, 16, 16, 8), np.float32)
    module = OneLayer(dropout(rate=0.25), train=True)
    apply = jit(lambda key: module.apply({}, x, rngs={"dropout": key}))
    dropped, again, other = (np.asarray(apply(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(dropped, again)
    assert np.mean(dropped != other) > 0.3  # 2 x 0.25 x 0.75 of all
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    # Of 16,384 values; the deviation of their mean is 0.0045.
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(module.apply({}, x), x)


def test_a_network_with_dropout_is_another_in_every_step_and_one_in_evaluation():
    architecture = network(plain(), dropout(0), dense(1), dropout(2), input_shape=(4, 4, 3))
    module, config = build_network(architecture, num_classes=3), TrainConfig(batch_size=8, flip=False, pad=0)
    state = init_state(jax.random.key(0), network=module, config=config, input_shape=(4, 4, 3))
    batch = Batch(images=jnp.asarray(draw(8, 4, 4, 3)), labels=jnp.arange(8, dtype=jnp.int32) % 3)
    step = jit(partial(train_step, network=module, config=config))
    losses = [float(step(replace(state, step=jnp.asarray(each, jnp.int32)), batch)[1].loss) for each in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    evaluate = jit(partial(module.apply, train=False))
    logits = evaluate(state.variables, batch.images)
    np.testing.assert_array_equal(logits, evaluate(state.variables, batch.images))
    without = network(plain(), dense(0), input_shape=(4, 4, 3))
    params = {**state.params, "layer_1": state.params["layer_2"]}
    plain_module = build_network(without, num_classes=3)
    np.testing.assert_array_equal(logits, plain_module.apply({"params": params}, batch.images, train=False))


@pytest.mark.parametrize(("activation", "variance"), [("relu", 2), ("tanh", 1)])
def test_kernels_start_as_the_activation_asks_and_biases_at_zero(activation, variance):
    for layer, fan_in in ((dense(units=300, activation=activation), 48), (plain(-1, 300, 4, activation), 48)):
        params = OneLayer(layer).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]["layer_0"]
        assert params["kernel"].size == 14_400
        # The sample's deviation is within 3 % of it.
        np.testing.assert_allclose(np.std(params["kernel"]), (variance / fan_in) ** 0.5, rtol=0.03)
        np.testing.assert_array_equal(params["bias"], np.zeros(300))


def test_a_chain_has_the_shapes_and_costs_counted_by_hand():
    architecture = network(
        *(plain(-1, 10, 4), pool_any(0, 3), plain(1, 11, 1, "tanh"), pool3(2), dropout(3, 0.37), dense(4, 7)),
        *(dense(5, 9, "linear"), pool_any(6, 1)),
        input_shape=(8, 7, 3),
    )
    assert layer_shapes(architecture) == (
        *((8, 7, 10), (3, 3, 10), (3, 3, 11), (2, 2, 11), (2, 2, 11), (1, 1, 7), (1, 1, 9), (1, 1, 9)),
    )
    parameters = (4 * 4 * 3 * 10 + 10) + (10 * 11 + 11) + (2 * 2 * 11 * 7 + 7) + (7 * 9 + 9)
    assert count_parameters(architecture, num_classes=6) == parameters + 9 * 6 + 6
    # A 4-tap window with one pixel before and two after: along 8 rows it meets 3 + 5 x 4 + 3 + 2, along 7 columns 24.
    assert count_flops(architecture, num_classes=6) == 2 * (28 * 24 * 30 + 9 * 110 + 44 * 7 + 7 * 9 + 9 * 6)
    assert from_json(to_json(architecture)) == architecture


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((dense(units=0),), "layer 0 (dense) has units 0; it must be an integer from 1 to 4096"),
        ((dense(activation="elu"),), "layer 0 (dense) has activation 'elu'; it must be one of 'relu', 'tanh', 'sigmoi"),
        ((dropout(rate=0.125),), "layer 0 (dropout) has rate 0.125; it must be a multiple of 0.01 from 0.01 to 0.99"),
        ((dropout(rate=0),), "layer 0 (dropout) has rate 0; it must be a multiple of 0.01"),
        ((plain(kernel=32),), "layer 0 (plain_conv) has kernel 32; it must be an integer from 1 to 31"),
        ((pool_any(side=7),), "layer 0 (pool_any) has side 7; it must be an integer from 1 to 6"),
        ((dense(), pool3(0)), "layer 1 (pool3) divides a 1 x 1 map by 2; a map of one pixel cannot be divided"),
        ((dense(), pool_any(0, 5)), "layer 1 (pool_any) divides a 1 x 1 map by 5; a map of one pixel cannot be"),
        ((conv(), dense(), Layer(op="add", inputs=(0, 1))), "layer 2 (add) joins layer 0 of 32 x 32 x 48 with layer 1"),
    ],
)
def test_a_layer_that_cannot_be_gets_one_line(layers, message):
    with pytest.raises(ArchitectureError) as caught:
        network(*layers)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
