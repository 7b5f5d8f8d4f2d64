"""Architectures: networks as static, hashable values, and what can be told of them without building.

The one-way door between the two arms of the package: `decode` turns a genome, which is arrays, into an `Architecture`.
"""

import dataclasses
import graphlib
import json
from collections.abc import Callable, Mapping, Sequence
from reprlib import repr as shown
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.errors import EigenError
from eigen_jax.genome import Genome, GenomeSpec
from eigen_jax.layer_kinds import BUILT_IN, KINDS, LayerKind, register
from eigen_jax.store.files import sha256
from eigen_jax.store.records import JSONError, parse_json

SCHEMA_VERSION = 1
MAX_LAYERS = 16_384  # what a genome can hold at most
IMAGE = Genome.IMAGE  # as an input: the network's input image

Shape = tuple[int, int, int]  # H, W, C of one map


class ArchitectureError(EigenError):
    """A description that is no network, or a network that the search space does not hold."""


@dataclasses.dataclass(frozen=True, kw_only=True, init=False)
class Layer:
    """One layer, with real values where a genome has indices: `Layer(op="pool", inputs=(0,))`.

    The values of its choices are attributes, such as `layer.kernel`; 0 for a choice that only other kinds have.
    """

    op: str  # the name of its kind
    inputs: tuple[int, ...]  # positions of earlier layers, or IMAGE; of two, the primary one first
    values: tuple[tuple[str, Any], ...]  # of its choices, by name

    def __init__(self, *, op: str, inputs: tuple[int, ...], values: Any = (), **choices: Any) -> None:
        """Takes the values of its choices by name; what is wrong with them, `Architecture` tells."""
        kind = _kind_of(op)
        own = kind.choice_names if kind else ()
        # A choice that the kind does not have may be given as what it is told to be.
        given = {**dict(values), **choices}.items()
        told = sorted((name, value) for name, value in given if name in own or type(value) is not int or value)
        self.__dict__.update(op=op, inputs=inputs, values=tuple(told))

    def __getattr__(self, name: str) -> Any:
        values = dict(self.__dict__.get("values", ()))
        if name in values or any(name in KINDS.find(kind).choice_names for kind in KINDS):
            return values.get(name, 0)
        raise AttributeError(f"no kind of layer has a choice {name!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network: layers, then global average pooling and a classifier on the last one, the sink.

    What a layer of each kind is, its record in `eigen_jax.layer_kinds` tells; one of two inputs may read one layer
    twice. A layer that divides a map, which is larger than 1 x 1, divides it to ceil(size / divisor). Without layers,
    it is global pooling of the image.

    Layers may be given in any topological order; they are stored in depth-first post-order from the sink, inputs in
    order, so that graphs that differ only in the numbering of their layers are equal values, of one hash and one
    `fingerprint`. One layer that two others share and two equal layers in parallel stay different networks.

    Raises ArchitectureError for what is no such network, with positions as the caller gave them.
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
        _infer_maps(self)
        object.__setattr__(self, "layers", _canonical(self.layers))

    def __reduce__(self) -> tuple[Callable[..., "Architecture"], tuple[Any, ...]]:
        # With the records of the kinds that a worker process may not know: they import the file that registers them.
        kinds = tuple(KINDS.find(name) for name in sorted({layer.op for layer in self.layers} - BUILT_IN))
        return _restored, (self.input_shape, self.layers, *kinds)


def _restored(input_shape: Shape, layers: tuple[Layer, ...], *kinds: LayerKind) -> Architecture:
    """The architecture of a pickle."""
    for kind in kinds:
        if kind.name not in KINDS:  # which has an equal one, or a copy of it that was pickled by value
            register(kind)
    return Architecture(input_shape=input_shape, layers=layers)


def layer_shapes(architecture: Architecture) -> tuple[Shape, ...]:
    """(H, W, C) of each layer's output, in canonical order."""
    return tuple(_infer_maps(architecture).values())[1:]


def count_parameters(architecture: Architecture, *, num_classes: int) -> int:
    """Trainable numbers: kernels, biases, scales and offsets of batch normalisation, and the classifier."""
    maps, layers = _infer_maps(architecture), ((KINDS.find(layer.op), layer) for layer in architecture.layers)
    total = sum(kind.parameters(_widths(kind, layer, maps), layer) for kind, layer in layers if kind.parameters)
    return total + (maps[len(architecture.layers) - 1][2] + 1) * num_classes


def count_classes(architecture: Architecture, parameters: int) -> int | None:
    """How many classes a network with so many parameters tells apart; None where it cannot have so many."""
    without, one = (count_parameters(architecture, num_classes=classes) for classes in (0, 1))
    # Each class has as many as the first; no network has others, and none has no class.
    classes, rest = divmod(parameters - without, one - without)
    return None if rest or classes < 1 else classes


def count_flops(architecture: Architecture, *, num_classes: int) -> int:
    """Floating-point operations of one image's forward pass: two for each multiply-add.

    Convolutions on real pixels and the products of dense layers and of the classifier are counted, as XLA's cost
    analysis does; nothing else is.
    """
    maps = _infer_maps(architecture)
    total = 2 * maps[len(architecture.layers) - 1][2] * num_classes
    for layer in architecture.layers:
        if (kind := KINDS.find(layer.op)).flops:
            height, width, _ = maps[layer.inputs[0]]
            total += kind.flops(kind.count_taps((height, width), layer), _widths(kind, layer, maps), layer)
    return total


def _widths(kind: LayerKind, layer: Layer, maps: Mapping[int, Shape]) -> tuple[int, ...]:
    return kind.widths_of([maps[read] for read in layer.inputs])


def _infer_maps(architecture: Architecture) -> dict[int, Shape]:
    """(H, W, C) of the image and of each layer's output, by position."""
    maps = {IMAGE: architecture.input_shape}
    for position, layer in enumerate(architecture.layers):
        kind, (height, width, _) = KINDS.find(layer.op), maps[layer.inputs[0]]
        if kind.agree in ("size", "shape"):
            sizes = [maps[read] if kind.agree == "shape" else maps[read][:2] for read in layer.inputs]
            if sizes[0] != sizes[1]:
                joined = (f"layer {read} of {times(size)}" for read, size in zip(layer.inputs, sizes, strict=True))
                joins = f"layer {position} ({layer.op}) joins {' with '.join(joined)}"
                raise ArchitectureError(f"{joins}; {kind.agree}s must be equal")
        if height == width == 1 and (divisor := kind.divisor(layer)) > 1:
            told = f"layer {position} ({layer.op}) divides a 1 x 1 map by {divisor}"
            raise ArchitectureError(f"{told}; a map of one pixel cannot be divided")
        maps[position] = *kind.output_size((height, width), layer), kind.width(_widths(kind, layer, maps), layer)
    return maps


def times(sizes: Sequence[int]) -> str:
    """Sizes for people: 32 x 32 x 3."""
    return " x ".join(map(str, sizes))


def _kind_of(op: Any) -> LayerKind | None:
    """The kind of a name, or None where there is none, or what should be a name is none."""
    return KINDS.find(op) if isinstance(op, str) and op in KINDS else None


def _unknown_kind(position: int, op: Any) -> ArchitectureError:
    known = f"{', '.join(KINDS)}, or of a file to import first, which registers it"
    return ArchitectureError(f"layer {position} has op {shown(op)}; it must be one of {known}")


def _check_layer(position: int, layer: Layer, num_layers: int) -> None:
    kind = _kind_of(layer.op)
    if kind is None:
        raise _unknown_kind(position, layer.op)
    where = f"layer {position} ({layer.op})"
    first = IMAGE if kind.inputs == 1 else 0
    if not isinstance(layer.inputs, tuple) or len(layer.inputs) != kind.inputs:
        raise ArchitectureError(f"{where} has inputs {shown(layer.inputs)}; it takes {kind.inputs}")
    for read in layer.inputs:
        if type(read) is not int or not first <= read < num_layers:
            fits = f"an integer from {first} to {num_layers - 1}"
            raise ArchitectureError(f"{where} has input {shown(read)}; it must be {fits}")
    refusals = {choice.name: choice.refusal(getattr(layer, choice.name)) for choice in kind.choices}
    refusals |= dict.fromkeys(dict(layer.values).keys() - refusals.keys(), "0")
    for name, rule in sorted(refusals.items()):
        if rule is not None:
            raise ArchitectureError(f"{where} has {name} {shown(getattr(layer, name))}; it must be {rule}")


def _check_topological(layers: tuple[Layer, ...]) -> None:
    """Checks that layers read earlier layers only, and that each reaches the last one."""
    for position, layer in enumerate(layers):
        if max(layer.inputs) >= position:
            try:
                graphlib.TopologicalSorter({i: layer.inputs for i, layer in enumerate(layers)}).prepare()
            except graphlib.CycleError as error:
                told = f"the architecture is cyclic: layers {shown(error.args[1])} read each other; remove an edge"
                raise ArchitectureError(told) from None
            told = f"layer {position} ({layer.op}) has input {max(layer.inputs)}, a later layer"
            raise ArchitectureError(f"{told}; every layer must come after its inputs")
    read = {source for layer in layers for source in layer.inputs}
    for position, layer in enumerate(layers[:-1]):
        if position not in read:
            dead = f"layer {position} ({layer.op}) is dead: no layer reads it and it is not the last; remove it"
            raise ArchitectureError(dead)


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

    Raises ArchitectureError where the genome breaks an invariant of `Genome`.
    """
    genes: Genome = jax.device_get(genome)
    if np.ndim(genes.op) != 1 or not 0 <= int(genes.length) <= len(genes.op):
        told = f"a genome of shape {np.shape(genes.op)} and length {genes.length} cannot be decoded"
        raise ArchitectureError(f"{told}; give one genome, no longer than its capacity")
    ops, inputs = (field[: int(genes.length)].tolist() for field in (genes.op, genes.inputs))
    kinds, layers = spec.ops, []
    for position, op in enumerate(ops):
        if not 0 < op <= len(kinds):
            raise ArchitectureError(f"gene {position} has op {op}; a live gene has one from 1 to {len(kinds)}")
        kind, values = kinds[op - 1].name, {}
        for name, options in spec.options[kind].items():
            index = int(genes.choices[name][position])
            if not 0 <= index < len(options):
                rule = f"GenomeSpec has {len(options)} choices, numbered from 0"
                raise ArchitectureError(f"gene {position} has {name} index {index}; {rule}")
            values[name] = options[index]
        read = tuple(source for source in inputs[position] if source != Genome.UNUSED)
        layers.append(Layer(op=kind, inputs=read, **values))
    return Architecture(input_shape=spec.input_shape, layers=tuple(layers))


def encode(architecture: Architecture, *, spec: GenomeSpec) -> Genome:
    """The genome of an architecture, genes in canonical order: `decode` inverts it.

    Raises ArchitectureError where the search space does not hold the architecture, bounds apart.
    """
    layers = architecture.layers
    if len(layers) > spec.capacity:
        told = f"the architecture has {len(layers)} layers and a genome holds {spec.capacity}"
        raise ArchitectureError(f"{told}; raise GenomeSpec.capacity")
    if architecture.input_shape != spec.input_shape:
        told = f"{architecture.input_shape}, and GenomeSpec.input_shape is {spec.input_shape}; they must be equal"
        raise ArchitectureError(f"the architecture takes images of shape {told}")
    arrays: dict[str, Any] = {name: np.zeros(spec.capacity, np.int8) for name in ("op", *spec.choice_names)}
    arrays |= {"inputs": np.zeros((spec.capacity, 2), np.int16), "length": np.int32(len(layers))}
    for position, layer in enumerate(layers):
        if layer.op not in spec.kinds:
            raise ArchitectureError(f"layer {position} has op {layer.op!r}; GenomeSpec has the kinds {spec.kinds}")
        arrays["op"][position] = spec.code(layer.op)
        arrays["inputs"][position] = layer.inputs if len(layer.inputs) == 2 else (*layer.inputs, Genome.UNUSED)
        for name, options in spec.options[layer.op].items():
            value = getattr(layer, name)
            if value not in options:
                raise ArchitectureError(f"layer {position} has {name} {value}; GenomeSpec has the choices {options}")
            arrays[name][position] = options.index(value)
    return Genome(**{name: jnp.asarray(array) for name, array in arrays.items()})


def fingerprint(architecture: Architecture) -> str:
    """SHA-256, in hexadecimal, of the canonical content: equal exactly for equal architectures, on every machine."""
    # Padded to a convolution's three values, which were all that there was.
    layers = [
        [layer.op, layer.inputs, *(value for _, value in layer.values), *[0] * (3 - len(layer.values))]
        for layer in architecture.layers
    ]
    return sha256([json.dumps([architecture.input_shape, layers], separators=(",", ":"))])


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The architecture as a JSON object, for a record that holds it among other things."""
    layers = [{"op": layer.op, "inputs": list(layer.inputs), **dict(layer.values)} for layer in architecture.layers]
    return {"schema_version": SCHEMA_VERSION, "input_shape": list(architecture.input_shape), "layers": layers}


def from_dict(content: Any) -> Architecture:
    """The architecture that a parsed JSON object describes, as `to_dict` writes it, layers in any topological order.

    Raises ArchitectureError where it is none, has an unknown schema version, or too many layers.
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
        kind = _kind_of(entry.get("op")) if isinstance(entry, dict) else None
        if kind is None and isinstance(entry, dict) and "op" in entry:
            raise _unknown_kind(position, entry["op"])
        _check_keys(f"layer {position}", entry, ("op", "inputs", *(kind.choice_names if kind else ())))
        if not isinstance(entry["inputs"], list):
            told = f"layer {position} has inputs {shown(entry['inputs'])}; they must be a list of positions"
            raise ArchitectureError(told)
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


def _check_keys(what: str, content: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise ArchitectureError(f"{what} is {shown(content)}; it must be a JSON object with {', '.join(keys)}")
    if missing := [key for key in keys if key not in content]:
        raise ArchitectureError(f"{what} lacks {', '.join(missing)}; it must have {', '.join(keys)}")
    if unknown := sorted(content.keys() - set(keys)):
        raise ArchitectureError(f"{what} has unknown fields {shown(unknown)}; it must have {', '.join(keys)}")
