"""The settings of a search."""

import dataclasses
from typing import Literal, get_args

from eigen_jax.errors import ConfigError
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.training import TrainConfig

FinalOn = Literal["train", "train+validation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search, up to its data; the defaults are those of Section 4.1, as far as it states them.

    T1, T2 and T3 are increments: an individual is measured after T1, T1 + T2 and T1 + T2 + T3
    steps.

    Raises:
        ConfigError: a value that cannot be.
    """

    seed: int = 0
    t1: int = 5_000  # training steps to the first landmark
    t2: int = 15_000  # further steps to the second
    t3: int = 5_000  # further steps to the last
    reevaluate: bool = False  # whether an architecture that the run has evaluated before is trained again
    final_steps: int | None = None  # of training the network found, from scratch; 0: none; None: as in the search
    final_on: FinalOn = "train"  # the images of the final training
    genome: GenomeSpec = dataclasses.field(default_factory=GenomeSpec)
    evolution: EvolutionConfig = dataclasses.field(default_factory=EvolutionConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise ConfigError(f"seed is {self.seed}; it must be from 0 to {(1 << 32) - 1}")
        if self.final_steps is not None and self.final_steps < 0:
            raise ConfigError(f"final_steps is {self.final_steps}; it must be at least 0")
        if self.final_on not in get_args(FinalOn):
            raise ConfigError(f"final_on is {self.final_on!r}; it must be one of {', '.join(get_args(FinalOn))}")
        for name in ("t1", "t2", "t3"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1 step")

    @property
    def final_until(self) -> int:
        """The steps of the final training."""
        return self.landmarks[-1] if self.final_steps is None else self.final_steps

    @property
    def final_train(self) -> TrainConfig:
        """How the network found is trained at the end: the schedule of the search, stretched to `final_until`."""
        stretch = self.final_until / self.landmarks[-1]
        steps = (max(1, round(step * stretch)) for step in self.train.decay_steps)
        return dataclasses.replace(self.train, decay_steps=tuple(sorted(set(steps))))

    @property
    def landmarks(self) -> tuple[int, int, int]:
        """The steps, since the start of training, after which an individual is measured."""
        return self.t1, self.t1 + self.t2, self.t1 + self.t2 + self.t3
