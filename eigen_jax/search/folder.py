"""The run folder: everything that a search leaves behind, and what it needs to go on.

settings.json     the resolved settings, the data set, the seed, the versions
lineage.jsonl     the record of every individual
checkpoints/      the state of the search after its last generations
network/          the network found: genome.json, and its weights
result.json       how the search ended; written last
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from eigen_jax import __version__, checkpoint
from eigen_jax.architecture import Architecture, from_json, to_json

PyTree = Any

SCHEMA_VERSION = 1

_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolderError(ValueError):
    """A folder that cannot hold the run, or that holds another one."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The places in a run folder. Made by `open`."""

    path: Path

    @property
    def lineage(self) -> Path:
        """The record, see `eigen_jax.lineage`."""
        return self.path / "lineage.jsonl"

    @property
    def checkpoints(self) -> Path:
        """See `eigen_jax.checkpoint`; step n is the state after n generations."""
        return self.path / "checkpoints"

    @classmethod
    def open(cls, path: str | Path, settings: Mapping[str, Any]) -> "RunFolder":
        """Makes the folder of a new run, or finds the one to go on with.

        Args:
            path: the folder.
            settings: whatever the run's outcome depends on, as JSON can hold it.

        Raises:
            RunFolderError: the folder cannot be written, is no run folder, or belongs to a run
                with other settings; nothing in it has changed.
        """
        path = Path(path)
        settings_path = path / "settings.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if settings_path.exists():
                _check_same_settings(path, _read_settings(settings_path), _as_json(settings))
            elif any(path.iterdir()):
                raise RunFolderError(f"{path} holds files but no settings.json, so it is no run folder; choose another")
            else:
                write_json(
                    settings_path,
                    {"schema_version": SCHEMA_VERSION, "settings": _as_json(settings), "versions": _versions()},
                )
        except OSError as error:
            raise RunFolderError(
                f"cannot write the run folder {path}: {error.strerror}; choose one that can be written"
            ) from None
        return cls(path)

    def save_network(self, architecture: Architecture, variables: PyTree) -> None:
        """Saves the network found, where it is not saved yet.

        Args:
            architecture: the network.
            variables: its Flax variables, "params" and "batch_stats".
        """
        network = self.path / "network"
        if checkpoint.latest_step(network) is None:
            checkpoint.save(network, 0, {"variables": variables})
        write_text(network / "genome.json", to_json(architecture))

    def save_result(self, content: Mapping[str, Any]) -> None:
        """Writes result.json."""
        write_json(self.path / "result.json", {"schema_version": SCHEMA_VERSION, **content})


def load_network(path: str | Path) -> tuple[Architecture, PyTree]:
    """The network that a finished run found.

    Returns:
        The architecture, and the Flax variables ("params" and "batch_stats") of its network.

    Raises:
        RunFolderError: the run has not finished, or the folder is none.
        ArchitectureError: genome.json is damaged.
        CheckpointError: the weights are damaged.
    """
    network = Path(path) / "network"
    try:
        architecture = from_json((network / "genome.json").read_text())
    except OSError as error:
        raise RunFolderError(
            f"cannot read {network / 'genome.json'}: {error.strerror}; name the folder of a run that has finished"
        ) from None
    variables = checkpoint.restore(network, "variables")
    return architecture, {"batch_stats": {}, **variables}


def write_text(path: Path, text: str) -> None:
    """Writes a file as a whole: what is killed here leaves the old one or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file as a whole."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they come back from a file: tuples become lists, paths text."""
    return json.loads(json.dumps(settings, default=str))


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        version, settings = content["schema_version"], content["settings"]
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"{path} is damaged; put the run's own file back, or choose another folder") from None
    if version != SCHEMA_VERSION or not isinstance(settings, dict):
        raise RunFolderError(f"{path} has schema version {version!r}; this version of eigen_jax reads {SCHEMA_VERSION}")
    return settings


def _check_same_settings(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if differing:
        shown = ", ".join(f"{name} was {then.get(name)!r} and is now {now.get(name)!r}" for name in differing)
        raise RunFolderError(f"{path} belongs to a run with other settings: {shown}; choose another folder")


def _versions() -> dict[str, str]:
    versions = {"eigen_jax": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONED:
        versions[name] = importlib.metadata.version(name)
    versions["device"] = jax.devices()[0].device_kind
    return versions
