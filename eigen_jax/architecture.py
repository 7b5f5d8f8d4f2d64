"""Architectures: networks as static, hashable values, and what can be told of them without building.

The one-way door between the two arms of the package: `decode` turns a genome, which is arrays,
into an `Architecture`, which the training arm builds, compiles, caches and records.
"""

import dataclasses
import graphlib
import json
from reprlib import repr as shown
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.errors import EigenError
from eigen_jax.genome import Genome, GenomeSpec, Op, choices, valid_taps
from eigen_jax.store.files import sha256
from eigen_jax.store.records import JSONError, parse_json

SCHEMA_VERSION = 1
MAX_LAYERS = 16_384  # what a genome can hold at most
IMAGE = Genome.IMAGE  # as an input: the network's input image

Shape = tuple[int, int, int]  # H, W, C of one map

_OPS: dict[Any, Op] = {"conv": Op.CONV, "pool": Op.POOL, "concat": Op.CONCAT}
_CONV_VALUES = {  # what other layers have not
    "channels": (range(1, 4097), "an integer from 1 to 4096"),
    "kernel": (range(1, 32, 2), "an odd integer from 1 to 31"),
    "stride": (range(1, 3), "1 or 2"),
}


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
        shape, rule = self.input_shape, "three integers H, W, C, each at least 1"
        if not (isinstance(shape, tuple) and len(shape) == 3 and all(type(n) is int and n >= 1 for n in shape)):
            raise ArchitectureError(f"input_shape is {shown(shape)}; it must be {rule}")
        for position, layer in enumerate(self.layers):
            _check_layer(position, layer, len(self.layers))
        _check_topological(self.layers)
        _infer_maps(shape, self.layers)
        object.__setattr__(self, "layers", _canonical(self.layers))


def layer_shapes(architecture: Architecture) -> tuple[Shape, ...]:
    """(H, W, C) of each layer's output, in canonical order."""
    _, *shapes = _infer_maps(architecture.input_shape, architecture.layers).values()
    return tuple(shapes)


def count_parameters(architecture: Architecture, *, num_classes: int) -> int:
    """Trainable numbers: kernels, scales and offsets of batch normalisation, and the classifier."""
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
    return convolutions, maps[len(architecture.layers) - 1][2]


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
        maps[position] = height, width, layer.channels or channels
    return maps


def _check_layer(position: int, layer: Layer, num_layers: int) -> None:
    """Checks the values of one layer, and that its inputs exist."""
    if not isinstance(layer.op, str) or layer.op not in _OPS:
        raise ArchitectureError(f"layer {position} has op {shown(layer.op)}; it must be one of {', '.join(_OPS)}")
    where = f"layer {position} ({layer.op})"
    count, first = (2, 0) if layer.op == "concat" else (1, IMAGE)
    if not isinstance(layer.inputs, tuple) or len(layer.inputs) != count:
        raise ArchitectureError(f"{where} has inputs {shown(layer.inputs)}; it takes {count}")
    for read in layer.inputs:
        if type(read) is not int or not first <= read < num_layers:
            raise ArchitectureError(
                f"{where} has input {shown(read)}; it must be an integer from {first} to {num_layers - 1}"
            )
    for name, (accepted, words) in _CONV_VALUES.items():
        value = getattr(layer, name)
        if layer.op != "conv":
            accepted, words = range(1), "0"
        if type(value) is not int or value not in accepted:
            raise ArchitectureError(f"{where} has {name} {shown(value)}; it must be {words}")


def _check_topological(layers: tuple[Layer, ...]) -> None:
    """Checks that layers read earlier layers only, and that each reaches the last one."""
    for position, layer in enumerate(layers):
        if max(layer.inputs) >= position:
            try:
                graphlib.TopologicalSorter({i: layer.inputs for i, layer in enumerate(layers)}).prepare()
            except graphlib.CycleError as error:
                cycle = shown(error.args[1])
                raise ArchitectureError(
                    f"the architecture is cyclic: layers {cycle} read each other; remove an edge"
                ) from None
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


def decode(genome: Genome, *, spec: GenomeSpec) -> Architecture:
    """The architecture that one genome, without batch dimensions, stands for; runs on the host.

    Raises:
        ArchitectureError: the genome breaks an invariant of `Genome`.
    """
    genes: Genome = jax.device_get(genome)
    if np.ndim(genes.op) != 1 or not 0 <= int(genes.length) <= len(genes.op):
        raise ArchitectureError(
            f"a genome of shape {np.shape(genes.op)} and length {genes.length} cannot be decoded; "
            "give one genome, no longer than its capacity"
        )
    ops, inputs = (field[: int(genes.length)].tolist() for field in (genes.op, genes.inputs))
    kinds = {op: kind for kind, op in _OPS.items()}
    layers = []
    for position, op in enumerate(ops):
        if op not in kinds:
            raise ArchitectureError(f"gene {position} has op {op}; a live gene has op 1, 2 or 3")
        values = {}
        for name, options in choices(spec).items() if op == Op.CONV else ():
            index = int(getattr(genes, name)[position])
            if not 0 <= index < len(options):
                raise ArchitectureError(
                    f"gene {position} has {name} index {index}; GenomeSpec has {len(options)} choices, numbered from 0"
                )
            values[name] = options[index]
        read = tuple(source for source in inputs[position] if source != Genome.UNUSED)
        layers.append(Layer(op=kinds[op], inputs=read, **values))
    return Architecture(input_shape=spec.input_shape, layers=tuple(layers))


def encode(architecture: Architecture, *, spec: GenomeSpec) -> Genome:
    """The genome of an architecture, genes in canonical order: `decode` inverts it.

    Raises:
        ArchitectureError: the search space does not hold the architecture, because of its number of
            layers, its input shape, or a value that is not among the choices.
    """
    layers = architecture.layers
    if len(layers) > spec.capacity:
        raise ArchitectureError(
            f"the architecture has {len(layers)} layers and a genome holds {spec.capacity}; raise GenomeSpec.capacity"
        )
    if architecture.input_shape != spec.input_shape:
        raise ArchitectureError(
            f"the architecture takes images of shape {architecture.input_shape}, "
            f"and GenomeSpec.input_shape is {spec.input_shape}; they must be equal"
        )
    arrays: dict[str, Any] = {name: np.zeros(spec.capacity, np.int8) for name in ("op", *choices(spec))}
    arrays |= {"inputs": np.zeros((spec.capacity, 2), np.int16), "length": np.int32(len(layers))}
    for position, layer in enumerate(layers):
        arrays["op"][position] = _OPS[layer.op]
        arrays["inputs"][position] = layer.inputs if len(layer.inputs) == 2 else (*layer.inputs, Genome.UNUSED)
        for name, options in choices(spec).items() if layer.op == "conv" else ():
            value = getattr(layer, name)
            if value not in options:
                raise ArchitectureError(f"layer {position} has {name} {value}; GenomeSpec has the choices {options}")
            arrays[name][position] = options.index(value)
    return Genome(**{name: jnp.asarray(array) for name, array in arrays.items()})


def fingerprint(architecture: Architecture) -> str:
    """SHA-256, in hexadecimal, of the canonical content: equal exactly for equal architectures, on every machine."""
    layers = [[layer.op, layer.inputs, layer.channels, layer.kernel, layer.stride] for layer in architecture.layers]
    return sha256([json.dumps([architecture.input_shape, layers], separators=(",", ":"))])


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The architecture as a JSON object, for a record that holds it among other things."""
    layers = [
        {name: getattr(layer, name) for name in _fields(layer.op)} | {"inputs": list(layer.inputs)}
        for layer in architecture.layers
    ]
    return {"schema_version": SCHEMA_VERSION, "input_shape": list(architecture.input_shape), "layers": layers}


def from_dict(content: Any) -> Architecture:
    """The architecture that a parsed JSON object describes, as `to_dict` writes it, layers in any topological order.

    Raises:
        ArchitectureError: the content is no architecture, has an unknown schema version, or too many layers.
    """
    _check_keys("an architecture", content, ("schema_version", "input_shape", "layers"))
    version, shape, entries = content["schema_version"], content["input_shape"], content["layers"]
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ArchitectureError(f"schema_version is {shown(version)}; this version of eigen_jax reads {SCHEMA_VERSION}")
    if not isinstance(entries, list):
        raise ArchitectureError(f"layers is {shown(entries)}; it must be a list of layers")
    if len(entries) > MAX_LAYERS:
        raise ArchitectureError(f"the architecture has {len(entries)} layers; at most {MAX_LAYERS} are accepted")
    layers = []
    for position, entry in enumerate(entries):
        _check_keys(f"layer {position}", entry, _fields(entry.get("op") if isinstance(entry, dict) else None))
        if not isinstance(entry["inputs"], list):
            raise ArchitectureError(
                f"layer {position} has inputs {shown(entry['inputs'])}; they must be a list of positions"
            )
        layers.append(Layer(**{**entry, "inputs": tuple(entry["inputs"])}))
    return Architecture(input_shape=tuple(shape) if isinstance(shape, list) else shape, layers=tuple(layers))


def to_json(architecture: Architecture) -> str:
    """The architecture as one line of JSON, with a schema version."""
    return json.dumps(to_dict(architecture))


def from_json(text: str | bytes) -> Architecture:
    """As `from_dict`, of JSON text, in UTF-8 if bytes; raises an ArchitectureError as well where it is no JSON."""
    try:
        content = parse_json(text)
    except JSONError as error:
        raise ArchitectureError(f"the architecture is not valid JSON: {error}") from None
    return from_dict(content)


def _fields(op: Any) -> tuple[str, ...]:
    """What JSON says of a layer of a kind, in this order."""
    return ("op", "inputs", *(_CONV_VALUES if op == "conv" else ()))


def _check_keys(what: str, content: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise ArchitectureError(f"{what} is {shown(content)}; it must be a JSON object with {', '.join(keys)}")
    if missing := [key for key in keys if key not in content]:
        raise ArchitectureError(f"{what} lacks {', '.join(missing)}; it must have {', '.join(keys)}")
    if unknown := sorted(content.keys() - set(keys)):
        raise ArchitectureError(f"{what} has unknown fields {shown(unknown)}; it must have {', '.join(keys)}")
