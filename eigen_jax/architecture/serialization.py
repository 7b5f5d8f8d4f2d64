"""Architectures as JSON, and the fingerprint that names them in records and caches."""

import json
import reprlib
from typing import Any

from eigen_jax.architecture.graph import CONV_FIELDS, Architecture, ArchitectureError, Layer
from eigen_jax.store.files import sha256
from eigen_jax.store.records import JSONError, parse_json

MAX_LAYERS = 16_384  # what a genome can hold at most
SCHEMA_VERSION = 1


def fingerprint(architecture: Architecture) -> str:
    """SHA-256, in hexadecimal, of the canonical content: equal exactly for equal architectures.

    The same on every machine and in every process, unlike `hash`.
    """
    layers = [[layer.op, layer.inputs, layer.channels, layer.kernel, layer.stride] for layer in architecture.layers]
    content = json.dumps([architecture.input_shape, layers], separators=(",", ":"))
    return sha256([content])


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The architecture as a JSON object, for a record that holds it among other things."""
    layers = []
    for layer in architecture.layers:
        fields = CONV_FIELDS if layer.op == "conv" else ()
        values = {name: getattr(layer, name) for name in fields}
        layers.append({"op": layer.op, "inputs": list(layer.inputs), **values})
    return {"schema_version": SCHEMA_VERSION, "input_shape": list(architecture.input_shape), "layers": layers}


def from_dict(content: Any) -> Architecture:
    """The architecture that a parsed JSON object describes, as `to_dict` writes it, layers in any topological order.

    Raises:
        ArchitectureError: the content is no architecture, has an unknown schema version, or too many layers.
    """
    _check_keys("an architecture", content, ("schema_version", "input_shape", "layers"))
    version, shape, entries = content["schema_version"], content["input_shape"], content["layers"]
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ArchitectureError(
            f"schema_version is {reprlib.repr(version)}; this version of eigen_jax reads {SCHEMA_VERSION}"
        )
    if not isinstance(entries, list):
        raise ArchitectureError(f"layers is {reprlib.repr(entries)}; it must be a list of layers")
    if len(entries) > MAX_LAYERS:
        raise ArchitectureError(f"the architecture has {len(entries)} layers; at most {MAX_LAYERS} are accepted")
    layers = tuple(_read_layer(position, entry) for position, entry in enumerate(entries))
    return Architecture(input_shape=tuple(shape) if isinstance(shape, list) else shape, layers=layers)


def to_json(architecture: Architecture) -> str:
    """The architecture as one line of JSON, with a schema version."""
    return json.dumps(to_dict(architecture))


def from_json(text: str | bytes) -> Architecture:
    """The architecture that JSON text, in UTF-8 if bytes, describes; as `from_dict`, which see.

    Raises:
        ArchitectureError: as `from_dict`, or the text is not JSON.
    """
    try:
        content = parse_json(text)
    except JSONError as error:
        raise ArchitectureError(f"the architecture is not valid JSON: {error}") from None
    return from_dict(content)


def _read_layer(position: int, entry: Any) -> Layer:
    convolution = isinstance(entry, dict) and entry.get("op") == "conv"
    _check_keys(f"layer {position}", entry, ("op", "inputs", *(CONV_FIELDS if convolution else ())))
    if not isinstance(entry["inputs"], list):
        raise ArchitectureError(
            f"layer {position} has inputs {reprlib.repr(entry['inputs'])}; they must be a list of positions"
        )
    return Layer(**{**entry, "inputs": tuple(entry["inputs"])})


def _check_keys(what: str, content: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise ArchitectureError(f"{what} is {reprlib.repr(content)}; it must be a JSON object with {', '.join(keys)}")
    if missing := [key for key in keys if key not in content]:
        raise ArchitectureError(f"{what} lacks {', '.join(missing)}; it must have {', '.join(keys)}")
    if unknown := sorted(content.keys() - set(keys)):
        raise ArchitectureError(f"{what} has unknown fields {reprlib.repr(unknown)}; it must have {', '.join(keys)}")
