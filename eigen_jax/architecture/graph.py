"""The value type: layers as a canonical graph, its rules, the shapes of its maps, and what it costs."""

import dataclasses
import graphlib
import reprlib
from typing import Any, Literal

from eigen_jax.errors import EigenError
from eigen_jax.genome import Genome, valid_taps

IMAGE = Genome.IMAGE  # as an input: the network's input image

Shape = tuple[int, int, int]  # H, W, C of one map

_INPUTS = {"conv": 1, "pool": 1, "concat": 2}  # inputs that each kind of layer takes
_CONV_VALUES = {
    "channels": (range(1, 4097), "an integer from 1 to 4096"),
    "kernel": (range(1, 32, 2), "an odd integer from 1 to 31"),
    "stride": (range(1, 3), "1 or 2"),
}
CONV_FIELDS = tuple(_CONV_VALUES)  # what other layers have not


class ArchitectureError(EigenError):
    """A description that is no network, or a network that the search space does not hold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer, with real values where a genome has indices."""

    op: Literal["conv", "pool", "concat"]
    inputs: tuple[int, ...]  # positions of earlier layers, or IMAGE; a concat's primary input first
    channels: int = 0  # of the output; 0 unless a convolution
    kernel: int = 0  # pixels a side, odd; 0 unless a convolution
    stride: int = 0  # pixels, 1 or 2; 0 unless a convolution


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network: layers, then global average pooling and a classifier on the last one, the sink.

    A `conv` stands for convolution, batch normalisation and ReLU; a `pool` for 2 x 2 max pooling
    with stride 2; a `concat` joins the channels of two layers of one height and width, which may be
    the same layer twice. SAME padding is used throughout, so a pool and a convolution of stride 2
    halve a map to ceil(size / 2). Without layers, the network is global pooling of the image alone.

    Layers may be given in any topological order; they are stored in depth-first post-order from the
    sink, inputs in order, so that graphs that differ only in the numbering of their layers are equal
    values, of one hash and one `fingerprint`. One layer that two others share and two equal layers in
    parallel stay different networks.

    Raises:
        ArchitectureError: a value is out of range, a layer reads itself, a later layer or none at
            all, a layer does not reach the sink, a concatenation joins different sizes, or a 1 x 1
            map is halved. Positions in the message are those that the caller gave.
    """

    input_shape: Shape  # H, W, C of one image
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        _check_input_shape(self.input_shape)
        for position, layer in enumerate(self.layers):
            _check_layer(position, layer, len(self.layers))
        _check_topological(self.layers)
        _infer_maps(self.input_shape, self.layers)
        object.__setattr__(self, "layers", _canonical(self.layers))


def layer_shapes(architecture: Architecture) -> tuple[Shape, ...]:
    """(H, W, C) of each layer's output, in canonical order."""
    _, *shapes = _infer_maps(architecture.input_shape, architecture.layers).values()
    return tuple(shapes)


def count_parameters(architecture: Architecture, *, num_classes: int) -> int:
    """Trainable numbers: kernels, scales and offsets of batch normalisation, and the classifier.

    As many as there are in the "params" collection of the built network.
    """
    convolutions, features = _convolutions(architecture)
    total = (features + 1) * num_classes
    return total + sum((layer.kernel**2 * read + 2) * layer.channels for layer, (_, _, read) in convolutions)


def count_flops(architecture: Architecture, *, num_classes: int) -> int:
    """Floating-point operations of one image's forward pass: two for each multiply-add.

    Convolutions and the classifier are counted; normalisation, ReLU, pooling and the classifier's
    bias are left out, as is usual. Kernel positions that fall on the padding are not counted: the
    number is the one that XLA's cost analysis gives for the same convolutions and matrix product.
    """
    convolutions, features = _convolutions(architecture)
    total = features * num_classes
    for layer, (*size, read) in convolutions:
        total += valid_taps(size, layer.kernel, layer.stride) * read * layer.channels
    return 2 * total


def _convolutions(architecture: Architecture) -> tuple[list[tuple[Layer, Shape]], int]:
    """Every convolution with the map that it reads, and how many features the classifier reads."""
    maps = _infer_maps(architecture.input_shape, architecture.layers)
    convolutions = [(layer, maps[layer.inputs[0]]) for layer in architecture.layers if layer.op == "conv"]
    *_, features = maps[len(architecture.layers) - 1]
    return convolutions, features


def _infer_maps(input_shape: Shape, layers: tuple[Layer, ...]) -> dict[int, Shape]:
    """(H, W, C) of the image and of each layer's output, by position."""
    maps = {IMAGE: input_shape}
    for position, layer in enumerate(layers):
        height, width, channels = maps[layer.inputs[0]]
        if layer.op == "concat":
            other_height, other_width, other_channels = maps[layer.inputs[1]]
            if (height, width) != (other_height, other_width):
                raise ArchitectureError(
                    f"layer {position} (concat) joins layer {layer.inputs[0]} of {height} x {width} with "
                    f"layer {layer.inputs[1]} of {other_height} x {other_width}; sizes must be equal"
                )
            channels += other_channels
        elif layer.op == "pool" or layer.stride == 2:
            if height == width == 1:
                raise ArchitectureError(f"layer {position} ({layer.op}) halves a 1 x 1 map; it cannot be halved")
            height, width = -(-height // 2), -(-width // 2)
        if layer.op == "conv":
            channels = layer.channels
        maps[position] = height, width, channels
    return maps


def _check_input_shape(shape: Any) -> None:
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(type(side) is int and side >= 1 for side in shape)):
        raise ArchitectureError(
            f"input_shape is {reprlib.repr(shape)}; it must be three integers H, W, C, each at least 1"
        )


def _check_layer(position: int, layer: Layer, num_layers: int) -> None:
    """Checks the values of one layer, and that its inputs exist."""
    if not isinstance(layer.op, str) or layer.op not in _INPUTS:
        raise ArchitectureError(
            f"layer {position} has op {reprlib.repr(layer.op)}; it must be one of {', '.join(_INPUTS)}"
        )
    where = f"layer {position} ({layer.op})"
    count = _INPUTS[layer.op]
    if not isinstance(layer.inputs, tuple) or len(layer.inputs) != count:
        raise ArchitectureError(f"{where} has inputs {reprlib.repr(layer.inputs)}; it takes {count}")
    first = 0 if layer.op == "concat" else IMAGE
    for read in layer.inputs:
        if type(read) is not int or not first <= read < num_layers:
            raise ArchitectureError(
                f"{where} has input {reprlib.repr(read)}; it must be an integer from {first} to {num_layers - 1}"
            )
    for name, (choices, words) in _CONV_VALUES.items():
        value = getattr(layer, name)
        if layer.op != "conv":
            choices, words = range(1), "0"
        if type(value) is not int or value not in choices:
            raise ArchitectureError(f"{where} has {name} {reprlib.repr(value)}; it must be {words}")


def _check_topological(layers: tuple[Layer, ...]) -> None:
    """Checks that layers read earlier layers only, and that each reaches the last one."""
    for position, layer in enumerate(layers):
        if max(layer.inputs) >= position:
            _check_acyclic(layers)
            raise ArchitectureError(
                f"layer {position} ({layer.op}) has input {max(layer.inputs)}, a later layer; "
                "every layer must come after its inputs"
            )
    read = {source for layer in layers for source in layer.inputs}
    for position, layer in enumerate(layers[:-1]):
        if position not in read:
            raise ArchitectureError(
                f"layer {position} ({layer.op}) is dead: no layer reads it and it is not the last; remove it"
            )


def _check_acyclic(layers: tuple[Layer, ...]) -> None:
    graph = {position: layer.inputs for position, layer in enumerate(layers)}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle = reprlib.repr(error.args[1])
        raise ArchitectureError(f"the architecture is cyclic: layers {cycle} read each other; remove an edge") from None


def _canonical(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Renumbers layers in depth-first post-order; a loop, since a network can be 16,384 layers deep."""
    renumbered = {IMAGE: IMAGE}
    order: list[Layer] = []
    path = [len(layers) - 1] if layers else []
    while path:
        layer = layers[path[-1]]
        pending = next((read for read in layer.inputs if read not in renumbered), None)
        if pending is not None:
            path.append(pending)
            continue
        renumbered[path.pop()] = len(order)
        order.append(dataclasses.replace(layer, inputs=tuple(renumbered[read] for read in layer.inputs)))
    return tuple(order)
