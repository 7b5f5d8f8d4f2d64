"""The run folder: everything that a search leaves behind, and what it needs to go on.

settings.json     the resolved settings, the data set, the seed, the folders, the versions, JAX's switches
lineage.jsonl     the record of every individual
generation.jsonl  what the generation under way has measured; gone when it is recorded
individuals/      the states of its individuals in training; gone with it
checkpoints/      the state of the search after its last generations
final/            the state of the final training
network/          the network found: genome.json, and its weights
result.json       how the search ended; written last
"""

import contextlib
import dataclasses
import json
import reprlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np

from eigen_jax import checkpoint, surroundings
from eigen_jax.architecture import Architecture, ArchitectureError, from_json, to_json
from eigen_jax.checkpoint import CheckpointError
from eigen_jax.errors import ConfigError, EigenError, was_and_is
from eigen_jax.files import JSONError, explain, read_json, write_json, write_text

PyTree = Any

SCHEMA_VERSION = 2

# Settings that older runs do not name, because they came later, and what they were in those runs.
FORMER_SETTINGS: Mapping[str, Any] = {"dtype": "float32", "teacher_dtype": "float32", "extinguish_duplicates": True}

_LOCK = ".lock"
_SHOWN = 24  # characters of a text in a message
_LONGEST = 200  # and of anything else
_SURROUNDINGS = ("versions", "switches")  # what older runs may not say


class RunFolderError(EigenError):
    """A folder that cannot hold the run, or that holds another one."""


class OtherRunError(RunFolderError, ConfigError):
    """A folder of a run with other settings."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The places in a run folder. Made by `open`."""

    path: Path

    @property
    def lineage(self) -> Path:
        """The record, see `eigen_jax.lineage`."""
        return self.path / "lineage.jsonl"

    @property
    def journal(self) -> Path:
        """What the generation under way has measured, see `eigen_jax.search.journal`."""
        return self.path / "generation.jsonl"

    @property
    def individuals(self) -> Path:
        """The states of the generation's individuals in training, a folder each; see `eigen_jax.resumable`."""
        return self.path / "individuals"

    @property
    def checkpoints(self) -> Path:
        """See `eigen_jax.checkpoint`; step n is the state after n generations."""
        return self.path / "checkpoints"

    @property
    def final_checkpoints(self) -> Path:
        """See `eigen_jax.checkpoint`; step n is the state after n steps of the final training."""
        return self.path / "final"

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str | Path, settings: Mapping[str, Any], notes: Mapping[str, Any]) -> Iterator["RunFolder"]:
        """Makes the folder of a new run, or finds the one to go on with, and keeps others out of it.

        Args:
            path: the folder.
            settings: what the run's outcome depends on, as JSON can hold it. Those that an older run
                does not name are compared with `FORMER_SETTINGS`.
            notes: what else settings.json says of the run; not compared.

        Raises:
            RunFolderError: the folder cannot be written, is no run folder, is in use, or belongs to
                a run with other settings; nothing in it has changed.
        """
        path = Path(path)
        lock = filelock.FileLock(path / _LOCK, blocking=False)
        with told_as_folder_error(path):
            path.mkdir(parents=True, exist_ok=True)
            _check_is_no_other_folder(path)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise RunFolderError(f"{path} is in use by another process; wait for it, or choose another") from None
        try:
            with told_as_folder_error(path):
                _claim(path, _as_json(settings), _as_json(notes))
            yield cls(path)
        finally:
            lock.release()

    def save_network(self, architecture: Architecture, variables: PyTree) -> None:
        """Saves the network found, in place of one that was saved before; the very same one stays.

        The folder gets its name when it is whole, so genome.json and weights belong together.

        Args:
            architecture: the network.
            variables: its Flax variables, "params" and "batch_stats".

        Raises:
            RunFolderError, CheckpointError: it cannot be written.
        """
        if _holds_network(self.path, architecture, variables):
            return
        network, partial = self.path / "network", self.path / "network.partial"
        with told_as_folder_error(self.path):
            if partial.exists():
                shutil.rmtree(partial)
            try:
                checkpoint.save(partial, 0, {"variables": variables})
                write_text(partial / "genome.json", to_json(architecture))
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            if network.exists():
                shutil.rmtree(network)
            partial.rename(network)

    def save_result(self, content: Mapping[str, Any]) -> None:
        """Writes result.json.

        Raises:
            RunFolderError: it cannot be written.
        """
        with told_as_folder_error(self.path):
            write_json(self.path / "result.json", {"schema_version": SCHEMA_VERSION, **content})


def check_run_folder(path: str | Path, settings: Mapping[str, Any]) -> None:
    """Checks that a run could go into a folder, before what it needs is made; changes nothing.

    Args:
        path: the folder; it may be absent.
        settings: some of those that `RunFolder.open` will be given.

    Raises:
        RunFolderError: the folder is no run folder, or belongs to a run with other settings.
    """
    path = Path(path)
    with told_as_folder_error(path):
        if not path.exists():
            return
        _check_is_no_other_folder(path)
        if (path / "settings.json").exists():
            now = _as_json(settings)
            then = with_former_settings(_read_settings(path / "settings.json")["settings"], now)
            _check_same_settings(path, {name: then.get(name) for name in now}, now)


def read_notes(path: str | Path) -> dict[str, Any]:
    """What settings.json says of a run besides its settings; empty where there is no run, or a damaged one."""
    try:
        return _read_settings(Path(path) / "settings.json")
    except (OSError, RunFolderError):
        return {}


@contextlib.contextmanager
def told_as_folder_error(path: Path) -> Iterator[None]:
    """Raises errors of files as a RunFolderError that names the run folder."""
    try:
        yield
    except OSError as error:
        reason = explain(error, "choose one that can be written")
        raise RunFolderError(f"cannot write the run folder {path}: {reason}") from None


def _check_is_no_other_folder(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()}
    # A process killed before the settings were whole has left these two at most.
    if "settings.json" not in names and names - {_LOCK, "settings.json.partial"}:
        raise RunFolderError(f"{path} holds files but no settings.json, so it is no run folder; choose another")


def _claim(path: Path, settings: dict[str, Any], notes: dict[str, Any]) -> None:
    """Writes the settings of a new run, or compares those of the one that is there."""
    settings_path = path / "settings.json"
    if settings_path.exists():
        content = _read_settings(settings_path)
        _check_same_settings(path, with_former_settings(content["settings"], settings), settings)
        surroundings.warn_of_others({part: content.get(part, {}) for part in _SURROUNDINGS}, what="run")
        return
    content = {"schema_version": SCHEMA_VERSION, "settings": settings, **notes, **surroundings.describe()}
    write_json(settings_path, content)


def load_network(path: str | Path) -> tuple[Architecture, PyTree]:
    """The network that a finished run found.

    Returns:
        The architecture, and the Flax variables ("params" and "batch_stats") of its network, which
        are float32. The run's result.json says which `dtype` its maps were computed in; without
        one they were float32.

    Raises:
        RunFolderError: the run has not finished, or the folder is none.
        ArchitectureError: genome.json is damaged.
        CheckpointError: the weights are damaged.
    """
    network = Path(path) / "network"
    genome = network / "genome.json"
    try:
        architecture = from_json(genome.read_bytes())
    except OSError as error:
        raise RunFolderError(
            f"cannot read {genome}: {error.strerror}; name the folder of a run that has finished"
        ) from None
    except ArchitectureError as error:
        raise ArchitectureError(f"{genome}: {error}") from None
    variables = checkpoint.restore(network, "variables")
    if not isinstance(variables, dict) or "params" not in variables:
        raise CheckpointError(f"{network} holds no weights of a network; put the run's own files back")
    return architecture, {"batch_stats": {}, **variables}


def _holds_network(path: Path, architecture: Architecture, variables: PyTree) -> bool:
    """Whether a run folder has this network, with these weights to the last bit."""
    try:
        saved, weights = load_network(path)
        equal = jax.tree.map(np.array_equal, weights, variables)
    except ValueError:  # of any kind: missing, damaged, or of another structure
        return False
    return saved == architecture and all(jax.tree.leaves(equal))


def with_former_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, and those of `now`, at any depth, that it does not name but `FORMER_SETTINGS` does."""
    came_later = {name: value for name, value in FORMER_SETTINGS.items() if name in now}
    nested = {
        name: with_former_settings(value, now[name])
        for name, value in then.items()
        if isinstance(value, dict) and isinstance(now.get(name), dict)
    }
    return {**came_later, **then, **nested}


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they come back from a file: tuples become lists, paths text."""
    return json.loads(json.dumps(settings, default=str))


def _read_settings(path: Path) -> dict[str, Any]:
    """The content of a settings.json, with every part of it of the type that `_claim` writes."""
    try:
        content = read_json(path)
        version = content["schema_version"]
        sound = isinstance(content["settings"], dict)
        sound = sound and all(_are_texts(content.get(part, {})) for part in _SURROUNDINGS)
        sound = sound and _are_texts(content.get("folders", {}), or_none=True)
    except (JSONError, KeyError, TypeError):
        sound = False
    if sound and (type(version) is not int or version != SCHEMA_VERSION):
        raise RunFolderError(
            f"{path} has schema version {reprlib.repr(version)}; this version of eigen_jax reads {SCHEMA_VERSION}"
        )
    if not sound:
        raise RunFolderError(f"{path} is damaged; put the run's own file back, or choose another folder")
    return content


def _are_texts(value: Any, *, or_none: bool = False) -> bool:
    """Whether a value is an object of texts, without characters that no path or version can have."""
    return isinstance(value, dict) and all(
        (isinstance(each, str) and "\0" not in each) or (or_none and each is None) for each in value.values()
    )


def _check_same_settings(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if differing:
        changes, values = was_and_is(
            {
                name if name.isidentifier() else _shown(name): (_shown(then.get(name)), _shown(now.get(name)))
                for name in differing
            }
        )
        told = f"{{}} belongs to a run with other settings: {changes}; choose another folder"
        raise OtherRunError(None, told, path, *values)


def _shown(value: Any) -> str:
    shown = repr(f"{value[:_SHOWN]}..." if isinstance(value, str) and len(value) > _SHOWN else value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
