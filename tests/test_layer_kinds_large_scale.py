"""Linear convolutions, vertices and sums of any two maps, against NumPy and by hand."""

import numpy as np
import pytest
import reference_layers
from layer_data import conv, network, pool
from one_layer import assert_close, draw, with_gradients

from eigen_jax.architecture import (
    IMAGE,
    ArchitectureError,
    Layer,
    count_flops,
    count_parameters,
    fingerprint,
    from_json,
    layer_shapes,
    to_json,
)


def linear(source: int = IMAGE, channels: int = 4, sides: tuple[int, int] = (3, 3), stride: int = 1) -> Layer:
    kernel = {"kernel_height": sides[0], "kernel_width": sides[1]}
    return Layer(op="linear_conv", inputs=(source,), channels=channels, stride=stride, **kernel)


def vertex(source: int = IMAGE, activation: str = "norm_relu") -> Layer:
    return Layer(op="vertex", inputs=(source,), activation=activation)


def add_resized(first: int, second: int) -> Layer:
    return Layer(op="add_resized", inputs=(first, second))


@pytest.mark.parametrize(
    ("sides", "stride"), [((1, 1), 1), ((1, 3), 1), ((5, 1), 2), ((3, 7), 2), ((3, 3), 4), ((1, 1), 4), ((3, 1), 1024)]
)
def test_a_linear_convolution_and_its_gradients_are_those_of_the_definition(sides, stride):
    x = draw(2, 9, 6, 3)
    variables, output, of_params, (of_x,), cotangent = with_gradients(linear(-1, 4, sides, stride), x)
    assert [*variables["params"]] == ["kernel"]
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (*sides, 3, 4)
    y, expected_of_x, of_kernel = reference_layers.convolution(x, kernel, stride, cotangent=cotangent)
    assert_close(output, y)
    assert_close(of_params["kernel"], of_kernel)
    assert_close(of_x, expected_of_x)


def test_a_vertex_normalises_and_rectifies_or_is_the_identity():
    x = draw(3, 4, 3, 5)
    variables, output, of_params, (of_x,), cotangent = with_gradients(vertex(), x)
    own, running = variables["params"], variables["batch_stats"]
    y = reference_layers.norm_relu(x, own, running)
    passed = cotangent * (y > 0)
    assert_close(output, y)
    assert_close(of_params["bias"], passed.sum((0, 1, 2)))
    assert_close(of_params["scale"], (passed * (x - running["mean"]) / np.sqrt(running["var"] + 1e-5)).sum((0, 1, 2)))
    assert_close(of_x, passed * own["scale"] / np.sqrt(running["var"] + 1e-5))
    variables, output, _, (of_x,), cotangent = with_gradients(vertex(activation="linear"), x)
    assert not any(variables.values())
    np.testing.assert_array_equal(output, x)
    np.testing.assert_array_equal(of_x, cotangent)


def summed(first: np.ndarray, second: np.ndarray, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of a map and of what each of its values reads of another one, and the gradient of that."""
    y, of_second = first.astype(float), np.zeros(second.shape)
    height, width = first.shape[1:3]
    for image, row, column, channel in np.ndindex(*first.shape):
        read = image, row * second.shape[1] // height, column * second.shape[2] // width, channel
        if channel < second.shape[3]:
            y[image, row, column, channel] += second[read]
            of_second[read] += cotangent[image, row, column, channel]
    return y, of_second


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((4, 4, 3), (4, 4, 3)),
        ((2, 4, 5), (8, 4, 3)),  # cut down by a whole factor, and padded
        ((8, 6, 2), (4, 1, 5)),  # enlarged, and cut off
        ((4, 7, 3), (7, 4, 3)),  # by no whole factor, each way
        ((1, 1, 2), (5, 6, 2)),
    ],
)
def test_the_second_map_is_resized_to_the_first_and_added(first, second):
    maps = draw(2, *first), draw(2, *second, seed=1)
    _, output, _, (of_first, of_second), cotangent = with_gradients(add_resized(0, 1), *maps)
    y, expected = summed(*maps, cotangent)
    assert_close(output, y)
    np.testing.assert_array_equal(of_first, cotangent)
    assert_close(of_second, expected)


def test_a_graph_has_the_shapes_and_costs_counted_by_hand():
    # A skip to a smaller map and one back to a larger, from the image as well.
    layers = (
        *(vertex(-1, "linear"), linear(0, 7, (3, 1), 4), vertex(1), add_resized(2, 0), linear(0, 5, (1, 5))),
        *(vertex(4), add_resized(5, 3)),
    )
    architecture = network(*layers, input_shape=(8, 6, 3))
    shapes = dict(zip(architecture.layers, layer_shapes(architecture), strict=True))
    assert sorted(shapes.values()) == [*[(2, 2, 7)] * 3, (8, 6, 3), *[(8, 6, 5)] * 3]
    assert layer_shapes(architecture)[-1] == (8, 6, 5)
    parameters = (3 * 3 * 7) + 2 * 7 + (5 * 3 * 5) + 2 * 5
    assert count_parameters(architecture, num_classes=2) == parameters + 5 * 2 + 2
    # 3 taps of 4 rows each, without padding: 2 x 3; a 5-tap window meets 3 + 4 + 5 + 5 + 4 + 3 of 6 columns.
    assert count_flops(architecture, num_classes=2) == 2 * (2 * 3 * 2 * 21 + 8 * 24 * 15 + 5 * 2)
    assert from_json(to_json(architecture)) == architecture
    # Which of the two is the primary one makes two networks of it.
    other = network(*layers[:-1], add_resized(3, 5), input_shape=(8, 6, 3))
    assert layer_shapes(other)[-1] == (2, 2, 7)
    assert fingerprint(architecture) != fingerprint(other)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((linear(stride=3),), "layer 0 (linear_conv) has stride 3; it must be a power of two from 1 to 1024"),
        ((linear(sides=(2, 3)),), "layer 0 (linear_conv) has kernel_height 2; it must be an odd integer from 1 to 31"),
        ((vertex(activation="relu"),), "layer 0 (vertex) has activation 'relu'; it must be one of 'norm_relu', 'linea"),
        ((conv(), add_resized(0, -1)), "layer 1 (add_resized) has input -1; it must be an integer from 0 to 1"),
        ((linear(stride=64), linear(0, stride=4)), "layer 1 (linear_conv) divides a 1 x 1 map by 4; a map of one"),
        ((conv(), pool(0), Layer(op="add", inputs=(0, 1))), "layer 2 (add) joins layer 0 of 32 x 32 x 48 with layer 1"),
    ],
)
def test_a_layer_that_cannot_be_gets_one_line(layers, message):
    with pytest.raises(ArchitectureError) as caught:
        network(*layers)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
