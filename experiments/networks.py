"""A network for people: its layers, and what it is for: how many classes, and which images."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TypeVar

from eigen_jax.architecture import (
    IMAGE,
    Architecture,
    ArchitectureError,
    count_classes,
    fingerprint,
    layer_shapes,
    times,
)
from eigen_jax.baselines import BASELINES
from eigen_jax.data import Dataset
from eigen_jax.layer_kinds import KINDS
from eigen_jax.networks import AnyNetwork, NamedNetwork
from eigen_jax.store.run_files import RunFolderError, read_result

N = TypeVar("N", bound=AnyNetwork)

_ASSUMED = 10  # classes, of a network that nothing is known of


def describe(network: AnyNetwork, *, num_classes: int) -> list[str]:
    """A network for people, a line a layer: its number, what it is, what it reads, what it puts out.

    Of a hand-designed one, a line says which it is.
    """
    if isinstance(network, NamedNetwork):
        known = BASELINES.find(network.name)
        return [f"{known.title}, for {times(network.input_shape)} and {num_classes} classes", known.source]

    def line(number: object, name: str, reads: str, output: str) -> str:
        return f"{number:>3}  {name:<34}  {reads:<12}  {output}"

    lines = [line("", "image", "", times(network.input_shape))]
    for number, (layer, shape) in enumerate(zip(network.layers, layer_shapes(network), strict=True)):
        sources = ", ".join("image" if source == IMAGE else str(source) for source in layer.inputs)
        name = KINDS.find(layer.op).look(layer, shape[2]).text
        lines.append(line(number, name, f"of {sources}", times(shape)))
    return [*lines, line("", "global average pooling, classifier", "", f"{num_classes} classes")]


def choose_classes(genome: Path, architecture: Architecture, asked: int | None) -> int:
    """What the classifier of a network is to tell apart: `asked`, or what is known; says on stderr if it is assumed.

    Its `genome` is absolute; in a run folder, or in `network` of one, result.json tells of its classes.
    """
    known = asked or _recorded_classes(genome, architecture)
    if known is None:
        told = f"nothing says how many classes the network of {genome} tells apart"
        print(f"{told}: {_ASSUMED} are assumed; --num-classes says another number", file=sys.stderr)
    return known or _ASSUMED


def _recorded_classes(genome: Path, architecture: Architecture) -> int | None:
    for folder in (genome.parent, genome.parent.parent):
        with contextlib.suppress(RunFolderError):  # there is none, or one of anything else
            network = read_result(folder).network
            if network is not None and network.fingerprint == fingerprint(architecture):
                return count_classes(architecture, network.parameters)
    return None


def check_takes(network: AnyNetwork, dataset: Dataset) -> None:
    """Raises ArchitectureError where a network does not take the images of a data set."""
    takes, has = network.input_shape, dataset.train_images.shape[1:]
    if takes != has:
        told = f"the network takes images of {times(takes)}, and those of {dataset.name} are {times(has)}"
        raise ArchitectureError(f"{told}; choose the data set it is for")


def of_images(network: N, dataset: Dataset) -> N:
    """The network for the images of a data set, of another height and width than it was for if its layers take that.

    Raises ArchitectureError where they do not, or the images have other channels.
    """
    _, height, width, channels = dataset.train_images.shape
    with contextlib.suppress(ArchitectureError):
        if channels == network.input_shape[2]:
            return dataclasses.replace(network, input_shape=(height, width, channels))
    takes, has = times(network.input_shape), times((height, width, channels))
    told = f"the network was trained on images of {takes}, and its layers do not take those of {dataset.name}, {has}"
    raise ArchitectureError(f"{told}; choose images of that size and those channels")
