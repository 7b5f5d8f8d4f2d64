"""The run folder: everything that a search leaves behind, and what it needs to go on.

settings.json     the resolved settings, the data set, the seed, the folders, the versions, JAX's switches
lineage.jsonl     the record of every individual
generation.jsonl  what the generation under way has measured; gone when it is recorded
individuals/      the states of its individuals in training; gone with it, but for weights that children may inherit
checkpoints/      the state of the search after its last generations
final/            the state of the final training
logs/             what `eigen_jax.search.logs` was asked for
network/          the network found: genome.json, its weights, and how it takes pictures (`eigen_jax.processor`);
                  of a hand-designed one, network.json in place of genome.json
result.json       how the search ended; written last
"""

import contextlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eigen_jax import surroundings
from eigen_jax.architecture import Architecture, ArchitectureError, from_json, to_json
from eigen_jax.networks import NAMED, AnyNetwork, NamedNetwork
from eigen_jax.processor import ImageProcessor, has_processor, save_processor
from eigen_jax.store import checkpoint, files
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.files import told_as
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import SETTINGS, Reference, RunFolderError, read_settings, write_settings

PyTree = Any


class RunFolder:
    """The places in a run folder. Made by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lineage = path / "lineage.jsonl"  # see `eigen_jax.lineage`
        self.journal = path / "generation.jsonl"  # see `eigen_jax.search.journal`
        self.individuals = path / "individuals"  # a folder each, see `eigen_jax.resumable`
        self.checkpoints = path / "checkpoints"  # step n is the state after n generations
        self.final_checkpoints = path / "final"  # step n is the state after n steps of the final training

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str | Path, settings: Mapping[str, Any], notes: Mapping[str, Any]) -> Iterator["RunFolder"]:
        """Makes the folder of a new run, or finds the one to go on with, and keeps others out of it.

        The `settings` are what the outcome depends on, and must be the run's, see `RunSettings.check_same`; the `notes`
        are what else settings.json says of it. Raises a RunFolderError where the folder cannot be written, is no run
        folder, is in use, or belongs to a run with other settings; nothing in it has changed.
        """
        path = Path(path)
        with SETTINGS.opened(path, patience=0):
            if SETTINGS.is_in(path):
                then = read_settings(path)
                then.check_same(as_json(settings), path=path)
                surroundings.warn_of_others({"versions": then.versions, "switches": then.switches}, what="run")
            else:
                write_settings(path, {"settings": as_json(settings), **as_json(notes), **surroundings.describe()})
            yield cls(path)

    def individual(self, place: Reference) -> Path:
        """Where an individual is trained, absolute."""
        return self.individuals.absolute() / f"{place.generation}-{place.index}"

    def clear_individuals(self, *, before: int, kept: Collection[Reference] = ()) -> None:
        """Removes the training of individuals of generations `before` one but the `kept`; raises a RunFolderError."""
        names = {self.individual(place).name for place in kept}
        with told_as(RunFolderError, self.path):
            for folder in self.individuals.glob("*"):
                if int(folder.name.partition("-")[0]) < before and folder.name not in names:
                    shutil.rmtree(folder)
            if self.individuals.exists() and not any(self.individuals.iterdir()):
                self.individuals.rmdir()

    def save_network(self, description: AnyNetwork, variables: PyTree, processor: ImageProcessor | None = None) -> None:
        """Saves the network found, "params", "batch_stats" and what takes pictures for it; the very same one stays.

        The folder gets its name when it is whole, so its files belong together. Raises a RunFolderError,
        CheckpointError or ProcessorError where it cannot be written.
        """
        with contextlib.suppress(ValueError):  # of any kind: missing, damaged, or of another structure
            saved, weights = load_network(self.path)
            if saved == description and jax.tree.all(jax.tree.map(np.array_equal, weights, variables)):
                if processor and not has_processor(self.path / "network"):
                    save_processor(self.path / "network", processor)
                return
        network, partial = self.path / "network", self.path / "network.partial"
        with told_as(RunFolderError, self.path):
            shutil.rmtree(partial, ignore_errors=True)
            try:
                checkpoint.save(partial, 0, {"variables": variables})
                if isinstance(description, NamedNetwork):
                    NAMED.write(partial, description)
                else:
                    files.write(partial / "genome.json", to_json(description))
                if processor:
                    save_processor(partial, processor)
                shutil.rmtree(network, ignore_errors=True)
                partial.rename(network)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def check_run_folder(path: str | Path, settings: Mapping[str, Any]) -> None:
    """Checks that a run could go into a folder, absent or not, before what it needs is made; changes nothing.

    Raises a RunFolderError where it is no run folder, or belongs to a run of which these settings are not some.
    """
    path = Path(path)
    with told_as(RunFolderError, path):
        if path.exists():
            SETTINGS.check_place(path)
    if SETTINGS.is_in(path):
        read_settings(path).check_same(as_json(settings), path=path, partly=True)


def read_genome(path: Path, advice: str = "name the genome.json of a network") -> Architecture:
    """The network that a genome.json describes; raises a RunFolderError, with the advice, or an ArchitectureError."""
    try:
        return from_json(path.read_bytes())
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}; {advice}") from None
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from None


def load_network(path: str | Path) -> tuple[AnyNetwork, PyTree]:
    """The network of a finished run, and its Flax variables ("params" and "batch_stats"), which are float32.

    The run's result.json says which `dtype` its maps were computed in. Raises a RunFolderError where the run has not
    finished, or the folder is none, and an ArchitectureError or CheckpointError where a file is damaged.
    """
    network = Path(path) / "network"
    description: AnyNetwork
    if NAMED.is_in(network):
        description = NAMED.read(network)
    else:
        description = read_genome(network / "genome.json", "name the folder of a run that has finished")
    variables = checkpoint.restore(network, "variables")
    if not isinstance(variables, dict) or "params" not in variables:
        raise CheckpointError(f"{network} holds no weights of a network; put the run's own files back")
    return description, {"batch_stats": {}, **variables}
