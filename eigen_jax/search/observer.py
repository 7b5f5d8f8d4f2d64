"""What a search tells while it runs, for whoever shows it."""

from collections.abc import Sequence

from eigen_jax.architecture import Architecture
from eigen_jax.lineage import Individual, Reference
from eigen_jax.search.results import SearchResult
from eigen_jax.strategies.eigen import Phase


class SearchObserver:
    """Told of everything that happens, in order. This one ignores it all: override what matters.

    Landmarks are numbered 0, 1, 2 for T1, T1 + T2, T1 + T2 + T3; individuals by their index in
    the generation. Fitness is validation accuracy as a fraction.
    """

    def search_started(self, *, generation: int) -> None:
        """The search starts, or goes on from this generation."""

    def generation_started(self, *, generation: int, phase: Phase, architectures: Sequence[Architecture]) -> None:
        """A generation's children were bred."""

    def training_progress(
        self, *, index: int, landmark: int, step: int, until: int, loss: float, steps_per_second: float
    ) -> None:
        """An individual is on its way to a landmark, which lies at step `until`."""

    def individual_measured(
        self, *, index: int, landmark: int, fitness: float | None, cause: str | None, same_as: Reference | None
    ) -> None:
        """An individual has a fitness at a landmark, or failed on the way and has a cause."""

    def individuals_extinct(self, *, landmark: int, indices: Sequence[int], threshold: float | None) -> None:
        """The individuals below the threshold of a landmark (0 or 1) are extinct; there may be none of either."""

    def generation_ended(
        self, *, individuals: Sequence[Individual], best_fitness: float, parent: Reference | None
    ) -> None:
        """A generation is over and recorded.

        `best_fitness` is the run's so far, -inf if there is none; `parent` that of the next generation,
        None for the global-pooling network.
        """

    def final_training_started(self, *, best: Individual, until: int) -> None:
        """The network found is trained from scratch, for `until` steps."""

    def final_training_progress(self, *, step: int, loss: float, steps_per_second: float) -> None:
        """The final training is on its way."""

    def search_ended(self, *, result: SearchResult) -> None:
        """The search is over, and its network is tested and saved."""
