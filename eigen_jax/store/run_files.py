"""What settings.json and result.json say of a run, each with its only reader."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from eigen_jax.errors import EigenError
from eigen_jax.store.records import Count, RecordFile, Text

# Settings that older runs do not name, because they came later, and what they were in those runs.
FORMER_SETTINGS: Mapping[str, Any] = {"dtype": "float32", "teacher_dtype": "float32", "extinguish_duplicates": True}

_SHOWN = 24  # characters of a text in a message
_LONGEST = 200  # and of anything else


class RunFolderError(EigenError):
    """A folder that cannot hold the run, that holds another one, or of which a file is damaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is read again of settings.json, which may hold more notes."""

    settings: dict[str, Any]  # what the outcome depends on
    folders: dict[str, Text | None] = dataclasses.field(default_factory=dict)  # where things lie
    machine: Any = None  # how it was used
    # Where the run was started, see `eigen_jax.surroundings`; empty in older runs.
    versions: dict[str, Text] = dataclasses.field(default_factory=dict)
    switches: dict[str, Text] = dataclasses.field(default_factory=dict)

    def differences(self, now: Mapping[str, Any], *, partly: bool = False) -> list[str]:
        """What is not as in other settings, by name: "seed was 0 and is now 1".

        Args:
            now: the other settings, as they come back from a file. Those that an older run does not name are
                compared with `FORMER_SETTINGS`.
            partly: `now` holds but some of the settings; the others are not compared.
        """
        then = with_former_settings(self.settings, now)
        return [
            f"{name if name.isidentifier() else _shown(name)} was {_shown(then.get(name))} and is now"
            f" {_shown(now.get(name))}"
            for name in sorted(now if partly else then.keys() | now.keys())
            if then.get(name) != now.get(name)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """An individual of the same run, by its place."""

    generation: Count  # from 0, counted through the whole run
    index: Count  # from 0, within the generation


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSummary:
    """The network that a run trained."""

    fingerprint: str  # of its architecture
    layers: Count
    parameters: Count
    flops: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundNetwork(NetworkSummary):
    """The network that a search found."""

    individual: Reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSeconds:
    """What a run took, compiling and training."""

    final: float | None  # the training from scratch to the end; None: there was none


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSeconds(RunSeconds):
    """What a search took."""

    search: float  # of all individuals, one after another


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mimicry:
    """Whom networks mimicked, and how."""

    teacher: str  # its fingerprint
    weight: float
    temperature: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """What result.json says of any run, be it a search or the training of one given network."""

    final_validation_accuracy: float | None = None  # a fraction; None where the validation images were trained on
    test_accuracy: float | None  # a fraction, of the weights that are saved; None where there are none
    test_logits: str | None = None  # digest of theirs
    final_cause: str | None = None  # why the training to the end diverged; None where it did not
    network: NetworkSummary | None  # None where nothing survived
    dtype: str = "float32"  # that maps were computed in
    seconds: RunSeconds
    mimicry: Mimicry | None  # None where it was off


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRunResult(RunResult):
    """What result.json says of a search."""

    validation_accuracy: float | None  # a fraction; what selection saw
    search_test_accuracy: float | None  # a fraction; of the same weights
    generations: Count
    trained: Count  # individuals that were trained, not taken over from an equal one
    network: FoundNetwork | None
    seconds: SearchSeconds


AnyResult = TypeVar("AnyResult", bound=RunResult)

_SETTINGS = RecordFile(
    kind=RunSettings,
    schema_version=2,
    error=RunFolderError,
    advice="put the run's own file back, or choose another folder",
)

# The fields of result.json and of the objects in it, in the order that all of them have.
_ORDER = (
    *("validation_accuracy", "search_test_accuracy", "final_validation_accuracy", "test_accuracy", "test_logits"),
    *("final_cause", "generations", "trained", "network", "individual", "fingerprint", "layers", "parameters", "flops"),
    *("dtype", "seconds", "search", "final", "mimicry"),
)


def read_settings(folder: Path) -> RunSettings:
    """The content of a run's settings.json.

    Raises:
        RunFolderError: it is missing, damaged or of another schema version.
    """
    return _SETTINGS.read(folder / "settings.json")


def write_settings(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes settings.json: the fields of `RunSettings`, and more notes if there are any.

    Raises:
        RunFolderError: it cannot be written.
    """
    _SETTINGS.write(folder / "settings.json", content)


def read_result(folder: Path, kind: type[AnyResult]) -> AnyResult:
    """How a finished run ended.

    Args:
        folder: of the run.
        kind: `SearchRunResult`, or `RunResult` for what every run says.

    Raises:
        RunFolderError: result.json is missing, damaged, of another kind of run or of another schema version.
    """
    return _result_file(kind).read(folder / "result.json")


def write_result(folder: Path, result: RunResult) -> None:
    """Writes result.json.

    Raises:
        RunFolderError: it cannot be written.
    """
    content = dataclasses.asdict(result, dict_factory=lambda items: dict(sorted(items, key=_place)))
    _result_file(type(result)).write(folder / "result.json", content)


def with_former_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, and those of `now`, at any depth, that it does not name but `FORMER_SETTINGS` does."""
    came_later = {name: value for name, value in FORMER_SETTINGS.items() if name in now}
    nested = {
        name: with_former_settings(value, now[name])
        for name, value in then.items()
        if isinstance(value, dict) and isinstance(now.get(name), dict)
    }
    return {**came_later, **then, **nested}


def _result_file(kind: type[AnyResult]) -> RecordFile[AnyResult]:
    advice = "put back the run's own file, or finish the run with the command that it began with"
    return RecordFile(kind=kind, schema_version=2, error=RunFolderError, advice=advice)


def _place(item: tuple[str, Any]) -> int:
    return _ORDER.index(item[0]) if item[0] in _ORDER else len(_ORDER)


def _shown(value: Any) -> str:
    shown = repr(f"{value[:_SHOWN]}..." if isinstance(value, str) and len(value) > _SHOWN else value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
