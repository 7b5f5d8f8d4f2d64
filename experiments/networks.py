"""Networks in files: reading them, and telling what is wrong with them."""

from pathlib import Path

from eigen_jax.architecture import Architecture, ArchitectureError, from_json
from eigen_jax.data import Dataset
from experiments.settings import SettingsError


def read_architecture(path: Path) -> Architecture:
    """Reads the genome.json of a network.

    Raises:
        SettingsError: the file cannot be read.
        ArchitectureError: it describes no network; the message names the file.
    """
    try:
        return from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"cannot read {path}: {reason}; name the genome.json of a network") from None
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from None


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
