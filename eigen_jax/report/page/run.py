"""What a page is told of a run, and what follows from it."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from eigen_jax.architecture import Architecture, count_classes
from eigen_jax.fitness import OBJECTIVES
from eigen_jax.lineage import Individual, fittest
from eigen_jax.report.page.mistakes import Mistake
from eigen_jax.store.run_files import FORMER_SETTINGS, RunResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not: a search, or the training of one given network."""

    name: str
    settings: Mapping[str, Any]  # what its outcome depends on
    folders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    individuals: Sequence[Individual] = ()  # of a search, its record; none where no generation is recorded
    result: RunResult | None = None  # None: it has not finished
    network: Architecture | None = None  # that is saved
    class_names: Sequence[str] = ()  # K; none where they are not known
    confusion: Sequence[Sequence[int]] | None = None  # [K][K], test images, rows true classes
    mistakes: Sequence[Mistake] | None = None  # those that the network is surest of; None: not looked for
    notes: Sequence[str] = ()  # what is left out, and why; a sentence each
    command: str | None = None  # makes the run again

    @property
    def is_search(self) -> bool:
        return "retrained" not in self.settings

    @cached_property
    def best(self) -> Individual | None:
        """The individual that a search found, or the fittest so far."""
        found = self.result.found if self.result else None
        if found is None:
            return fittest(self.individuals)
        return next((each for each in self.individuals if each.reference == found), None)

    @property
    def shown(self) -> Architecture | None:
        """The network that is saved, or the fittest so far."""
        return self.network or (self.best.architecture if self.best else None)

    @property
    def num_classes(self) -> int | None:
        """K; None where nothing tells it."""
        if self.confusion or self.class_names:
            return len(self.confusion or self.class_names)
        known = [(each.architecture, each.parameters) for each in self.individuals[:1]]
        if self.result and self.result.network and self.network:
            known.append((self.network, self.result.network.parameters))
        return next((count_classes(*each) for each in known), None)

    @property
    def steps(self) -> tuple[int | None, ...]:
        """Of the landmarks of a search: of those who came furthest."""
        furthest = max(self.individuals, key=lambda each: len(each.landmarks))
        return tuple(each.step for each in furthest.landmarks)

    @property
    def is_of_accuracy(self) -> bool:
        """Whether the first objective is validation accuracy."""
        return self._objective == "accuracy"

    @property
    def fitness(self) -> str:
        """What the first objective is called."""
        if self.is_of_accuracy:
            return "validation accuracy"
        return f"minus {self._objective}" if self._objective in OBJECTIVES else f"fitness: {self._objective}"

    @property
    def _objective(self) -> str:
        told = str(self.settings.get("fitness", FORMER_SETTINGS["fitness"]))
        return told.partition(" where ")[0].partition(", ")[0]

    def class_name(self, label: int) -> str:
        return str(self.class_names[label]) if label < len(self.class_names) else str(label)
