"""The settings of a search."""

import dataclasses
from typing import Literal

from eigen_jax.config import SEED_MAX, Config, part, setting
from eigen_jax.genome import GenomeSpec
from eigen_jax.strategies import EvolutionConfig
from eigen_jax.training import TrainConfig

FinalOn = Literal["train", "train+validation"]
FinalSchedule = Literal["same", "one-cycle"]


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
        " 0: the weights of the search are tested",
        at_least=0,
    )
    final_schedule: FinalSchedule = setting(
        "same", "the schedule then; same: that of the search; one-cycle: one cycle to the end, whatever the search's is"
    )
    final_on: FinalOn = setting("train", "the images that the network found is trained on")
    genome: GenomeSpec = part(GenomeSpec, "The search space.")
    evolution: EvolutionConfig = part(EvolutionConfig, "How the population evolves.")
    train: TrainConfig = part(TrainConfig, "How networks are trained.")

    @property
    def final_until(self) -> int:
        return self.landmarks[-1] if self.final_steps is None else self.final_steps

    @property
    def final_train(self) -> TrainConfig:
        """How the network found is trained at the end: with the search's schedule, stretched, or one of its own."""
        stretch, train = self.final_until / self.landmarks[-1], self.train
        if self.final_schedule == "one-cycle":
            end = max(1, self.final_until)
            return dataclasses.replace(train, schedule="one-cycle", decay_steps=(end,), decay_rates=())
        steps = [max(1, round(step * stretch)) for step in train.decay_steps]
        if not train.decay_rates:
            return dataclasses.replace(train, decay_steps=tuple(sorted(set(steps))))
        rates = dict.fromkeys(steps, 1.0)
        for step, rate in zip(steps, train.decay_rates, strict=True):
            rates[step] *= rate
        return dataclasses.replace(train, decay_steps=tuple(rates), decay_rates=tuple(rates.values()))

    @property
    def landmarks(self) -> tuple[int, int, int]:
        """The steps, since the start of training, after which an individual is measured."""
        return self.t1, self.t1 + self.t2, self.t1 + self.t2 + self.t3
