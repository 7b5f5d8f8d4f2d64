"""The settings of a search."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from eigen_jax.config import SEED_MAX, Config, part, setting
from eigen_jax.genome import GenomeSpec
from eigen_jax.strategies import EvolutionConfig
from eigen_jax.training import TrainConfig, stretch

FinalOn = Literal["train", "train+validation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(Config):
    """A search, up to its data; the defaults are those of Section 4.1, as far as it states them."""

    seed: int = setting(0, "seed of the whole search, from 0 to 2**32 - 1", at_least=0, at_most=SEED_MAX)
    t1: int = setting(5_000, "T1: training steps to the first landmark", paper="5,000", at_least=1)
    t2: int = setting(15_000, "T2: further steps to the second landmark", paper="15,000", at_least=1)
    t3: int = setting(5_000, "T3: further steps to the end", paper="5,000", at_least=1)
    reevaluate: bool = setting(False, "train again architectures that the run has evaluated before")
    final_steps: int | None = setting(  # None: as many as in the search
        None,
        "training steps of the network found, from scratch, with the learning rate's schedule stretched to them;"
        " 0: the weights of the search are tested; none: as many as in the search, or as a budget pays for",
        at_least=0,
    )
    budget: float | None = setting(  # None: as much as it takes
        None,
        "training FLOPs of all that is trained, the teacher and its logits included (a file of logits takes nothing):"
        " three times those of a forward pass, for each image of each training step; the search ends when no further"
        " generation is paid for, or by its other limits, and the final training has what is left",
        paper="none",
        above=0,
    )
    final_share: float = setting(
        0.5,
        "share of a budget that is kept for the final training; of final steps that are given, their own is",
        paper="no budget",
        at_least=0,
        below=1,
    )
    final_on: FinalOn = setting("train", "the images that the network found is trained on")
    genome: GenomeSpec = part(GenomeSpec, "The search space.")
    evolution: EvolutionConfig = part(EvolutionConfig, "How the population evolves.")
    train: TrainConfig = part(TrainConfig, "How networks are trained.")

    @property
    def final_until(self) -> int:
        """The steps of the final training that are asked for, of which a budget may pay for others."""
        return self.landmarks[-1] if self.final_steps is None else self.final_steps

    def with_training(self, changes: Mapping[str, Any]) -> "SearchConfig":
        """That of an individual whose own genome has other settings of training, by the names of their fields."""
        return dataclasses.replace(self, train=dataclasses.replace(self.train, **changes))

    def final_train(self, until: int) -> TrainConfig:
        """How the network found is trained for `until` steps: with the search's schedule, stretched."""
        return stretch(self.train, until / self.landmarks[-1])

    @property
    def landmarks(self) -> tuple[int, int, int]:
        """The steps, since the start of training, after which an individual is measured."""
        return self.t1, self.t1 + self.t2, self.t1 + self.t2 + self.t3
