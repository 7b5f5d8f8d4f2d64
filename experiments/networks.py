"""What a network is for: how many classes, and which images."""

import contextlib
import sys
from pathlib import Path

from eigen_jax.architecture import Architecture, ArchitectureError, count_parameters, fingerprint
from eigen_jax.data import Dataset
from eigen_jax.store.run_files import RunFolderError, read_result

_ASSUMED = 10  # classes, of a network that nothing is known of


def choose_classes(genome: Path, architecture: Architecture, asked: int | None) -> int:
    """What the classifier of a network is to tell apart; says on stderr where that is assumed.

    Args:
        genome: its genome.json, absolute. In a run folder, or in `network` of one, result.json tells of its classes.
        architecture: the network.
        asked: the classes that the user asks for; None where that is left open.
    """
    known = asked or _recorded_classes(genome, architecture)
    if known is None:
        print(
            f"nothing says how many classes the network of {genome} tells apart: {_ASSUMED} are assumed; --num-classes"
            " says another number",
            file=sys.stderr,
        )
    return known or _ASSUMED


def _recorded_classes(genome: Path, architecture: Architecture) -> int | None:
    """What result.json of the run that a genome.json lies in says of its classes."""
    for folder in (genome.parent, genome.parent.parent):
        with contextlib.suppress(RunFolderError):  # there is none, or one of anything else
            network = read_result(folder).network
            if network is not None and network.fingerprint == fingerprint(architecture):
                return _classes_of(architecture, network.parameters)
    return None


def _classes_of(architecture: Architecture, parameters: int) -> int | None:
    """The classes that a network of so many parameters tells apart; None where it cannot have as many."""
    without, one = (count_parameters(architecture, num_classes=classes) for classes in (0, 1))
    classes, rest = divmod(parameters - without, one - without)  # each class has as many as the first
    return None if rest or classes < 1 else classes


def check_takes(architecture: Architecture, dataset: Dataset) -> None:
    """Checks that a network takes the images of a data set.

    Raises:
        ArchitectureError: it takes others.
    """
    if architecture.input_shape != dataset.train_images.shape[1:]:
        takes, has = (
            " x ".join(map(str, shape)) for shape in (architecture.input_shape, dataset.train_images.shape[1:])
        )
        raise ArchitectureError(
            f"the network takes images of {takes}, and those of {dataset.name} are {has}; choose the data set it is for"
        )
