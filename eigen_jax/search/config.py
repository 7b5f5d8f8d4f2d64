"""The settings of a search."""

import dataclasses

from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.training import TrainConfig


class SearchConfigError(ValueError):
    """A setting of the search that cannot be, by itself or for the data at hand."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search, up to its data; the defaults are those of Section 4.1.

    T1, T2 and T3 are increments: an individual is measured after T1, T1 + T2 and T1 + T2 + T3
    steps.

    Raises:
        SearchConfigError: a value that cannot be.
    """

    seed: int = 0
    t1: int = 5_000  # training steps to the first landmark
    t2: int = 15_000  # further steps to the second
    t3: int = 5_000  # further steps to the last
    reevaluate: bool = False  # whether an architecture that the run has evaluated before is trained again
    genome: GenomeSpec = dataclasses.field(default_factory=GenomeSpec)
    evolution: EvolutionConfig = dataclasses.field(default_factory=EvolutionConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise SearchConfigError(f"seed is {self.seed}; it must be from 0 to {(1 << 32) - 1}")
        for name in ("t1", "t2", "t3"):
            if getattr(self, name) < 1:
                raise SearchConfigError(f"{name} is {getattr(self, name)}; it must be at least 1 step")

    @property
    def landmarks(self) -> tuple[int, int, int]:
        """The steps, since the start of training, after which an individual is measured."""
        return self.t1, self.t1 + self.t2, self.t1 + self.t2 + self.t3
