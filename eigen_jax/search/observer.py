"""What a search tells while it runs, for whoever shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from eigen_jax.architecture import Architecture
from eigen_jax.fitness import Measurement
from eigen_jax.lineage import Individual, Reference
from eigen_jax.search.budget import Budget
from eigen_jax.search.results import SearchResult


class SearchObserver:
    """Told of everything that happens, in order. This one ignores it all: override what matters.

    Landmarks are numbered from 0. An individual is named by its place in the record. Some are trained ahead: they are
    of a later generation than the one that is under way.
    """

    def search_started(self, *, generation: int, landmarks: Sequence[int]) -> None:
        """The search starts, or goes on from this generation; landmarks are training steps since the start."""

    def budget_spent(self, *, budget: Budget, spent: int) -> None:
        """The search of a budget starts, or a generation is over; individuals spent so many training FLOPs so far."""

    def generation_started(
        self,
        *,
        generation: int,
        phase: str,
        title: str,
        architectures: Mapping[Reference, Architecture],
        quota: Sequence[int],
    ) -> None:
        """A generation's children were bred, maybe some of later ones; see `Strategy` for phase, title and quota."""

    def training_progress(
        self, *, individual: Reference, landmark: int, step: int, until: int, loss: float, steps_per_second: float
    ) -> None:
        """An individual is on its way to a landmark, which lies at step `until`."""

    def individual_measured(
        self,
        *,
        individual: Reference,
        landmark: int,
        measurement: Measurement | None,
        fitness: tuple[float, ...] | None,
        cause: str | None,
        same_as: Reference | None,
    ) -> None:
        """An individual is measured, or failed and has a cause; fitness is M objectives, None unless all are finite."""

    def individuals_extinct(self, *, landmark: int, individuals: Sequence[Reference], threshold: float | None) -> None:
        """Who does not go on from a landmark, and what was asked of the first objective; neither need be."""

    def generation_ended(
        self, *, individuals: Sequence[Individual], best_fitness: float, parent: Reference | None
    ) -> None:
        """A generation is over and recorded.

        `best_fitness` is the best first objective of the run so far, or -inf; `parent` is the first of those of the
        next generation, None for the global-pooling network.
        """

    def final_training_started(self, *, best: Individual, until: int) -> None:
        """The network found is trained from scratch, for `until` steps."""

    def final_training_progress(self, *, step: int, loss: float, steps_per_second: float) -> None:
        """The final training is on its way."""

    def search_ended(self, *, result: SearchResult) -> None:
        """The search is over, and its network is tested and saved."""


class Observers(SearchObserver):
    """Tells several observers of everything, one after another."""

    def __init__(self, *observers: SearchObserver) -> None:
        self.observers = observers


def _telling(name: str) -> Any:
    def tell(self: Observers, **told: Any) -> None:
        for observer in self.observers:
            getattr(observer, name)(**told)

    return tell


for _name in [name for name in vars(SearchObserver) if not name.startswith("_")]:
    setattr(Observers, _name, _telling(_name))
