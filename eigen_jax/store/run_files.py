"""What settings.json and result.json say of a run, each with its only reader."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET, UnsetType

from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.store.records import Count, RecordFile, Text, changes

# Settings that older runs do not name, because they came later, and what they were in those runs, as JSON has it.
FORMER_SETTINGS: Mapping[str, Any] = {
    "dtype": "float32",
    "teacher_dtype": "float32",
    "extinguish_duplicates": True,
    "strategy": "eigen",
    "fitness": "accuracy",
    "optimizer": "sgd",
    "loss": "cross-entropy",
    "decay_rates": [],
    "schedule": "constant",
    "max_children": 500,
    "sample_size": 3,
    "ahead": 4,
    "kinds": ["conv", "concat", "pool"],
    "operators": [],
    "nesterov": False,
    "averaging": 0.0,
    "budget": None,
    "final_share": 0.5,
    "secondary_from": 0.6,
    "duplication_from": 0.9,
    "extinction": True,
    "redraws": 0,
    "min_flops_share": 0.0,
    "candidates": 1,
    "source": "auto",
    "image_size": None,
    "test_size": None,
}


class RunFolderError(EigenError):
    """A folder that cannot hold the run, that holds another one, or of which a file is damaged."""


class OtherRunError(RunFolderError, ConfigError):
    """A folder of a run with other settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is read again of settings.json, which may hold more notes."""

    settings: dict[str, Any]  # what the outcome depends on
    folders: dict[str, Text | None] = dataclasses.field(default_factory=dict)  # where things lie
    machine: Any = None  # how it was used
    # Where the run was started, see `eigen_jax.surroundings`; empty in older runs.
    versions: dict[str, Text] = dataclasses.field(default_factory=dict)
    switches: dict[str, Text] = dataclasses.field(default_factory=dict)

    def check_same(
        self, now: Mapping[str, Any], *, path: Path, partly: bool = False, advice: str = "choose another folder"
    ) -> None:
        """Raises an OtherRunError that names what differs, unless these, or where `partly` some of them, are equal."""
        then = with_former_settings(self.settings, now)
        text, values = changes(then, now, sorted(now if partly else then.keys() | now.keys()))
        if values:
            raise OtherRunError(None, f"{{}} belongs to a run with other settings: {text}; {advice}", path, *values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """An individual of the same run, by its place."""

    generation: Count  # from 0, counted through the whole run
    index: Count  # from 0, within the generation

    def __str__(self) -> str:
        return f"{self.generation}.{self.index}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSummary:
    """The network that a run found or was given."""

    individual: Reference | UnsetType = UNSET  # of the search; unset where the network was given
    name: str | UnsetType = UNSET  # of a hand-designed one
    fingerprint: str
    layers: Count
    parameters: Count
    flops: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSeconds:
    """What a run took, compiling and training."""

    search: float | UnsetType = UNSET  # all individuals, one after another; unset where there was no search
    final: float | None  # the training from scratch to the end; None: there was none


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlops:
    """The training FLOPs of a run, see `eigen_jax.search.budget`."""

    teacher: Count  # training and logits, also where they were at hand already
    search: Count | UnsetType = UNSET  # all individuals; unset where there was no search
    final: Count  # all steps of the final training; 0: there was none
    total: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mimicry:
    """Whom networks mimicked, and how."""

    teacher: str  # its fingerprint
    weight: float
    temperature: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """The content of result.json. What is unset is not told of the training of one given network."""

    validation_accuracy: float | UnsetType | None = UNSET  # a fraction; what selection saw
    search_test_accuracy: float | UnsetType | None = UNSET  # a fraction; of the same weights
    final_validation_accuracy: float | None = None  # a fraction; None where the validation images were trained on
    test_accuracy: float | None  # a fraction, of the weights that are saved; None where there are none
    mirrored_test_accuracy: float | None = None  # a fraction; see `Evaluation`
    test_logits: str | None = None  # digest of theirs
    # [K, K], of the test images: how many of each class, the row, were put into each; None in older runs.
    confusion: tuple[tuple[Count, ...], ...] | None = None
    final_cause: str | None = None  # why the training to the end diverged; None where it did not
    generations: Count | UnsetType = UNSET
    trained: Count | UnsetType = UNSET  # individuals that were trained, not taken over from an equal one
    network: NetworkSummary | None  # None where nothing survived
    dtype: str = "float32"  # that maps were computed in
    seconds: RunSeconds
    training_flops: RunFlops | None = None  # None where older lines of the record do not tell them
    mimicry: Mimicry | None  # None where it was off

    def __post_init__(self) -> None:
        if self.confusion is not None and any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("confusion is no square")

    @property
    def is_of_search(self) -> bool:
        """Whether all is told that is told of a search."""
        of_search = self.validation_accuracy, self.search_test_accuracy, self.generations, self.trained
        return UNSET not in (*of_search, self.seconds.search, self.network and self.network.individual)

    @property
    def found(self) -> Reference | None:
        """The individual whose network a search found; None where nothing survived, or nothing was searched."""
        individual = self.network.individual if self.network else UNSET
        return None if individual is UNSET else individual


_ADVICE = "put the run's own file back, or choose another folder"
_OF_RUN: Any = {"place": "run folder", "schema_version": 2, "error": RunFolderError, "advice": _ADVICE}
SETTINGS = RecordFile(name="settings.json", kind=RunSettings, **_OF_RUN)
RESULT = RecordFile(name="result.json", kind=RunResult, **_OF_RUN)

# Each takes the run folder first, and raises RunFolderError.
read_settings, write_settings = SETTINGS.read, SETTINGS.write
read_result, write_result = RESULT.read, RESULT.write


def with_former_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, and those of `now`, at any depth, that it does not name but `FORMER_SETTINGS` does."""
    came_later = {name: value for name, value in FORMER_SETTINGS.items() if name in now}
    nested = {
        name: with_former_settings(value, now[name])
        for name, value in then.items()
        if isinstance(value, dict) and isinstance(now.get(name), dict)
    }
    return {**came_later, **then, **nested}
