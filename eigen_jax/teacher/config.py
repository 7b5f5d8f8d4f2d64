"""How a teacher is made, and the error that this package raises."""

import dataclasses
from typing import Any

from eigen_jax.config import SEED_MAX, Config, setting
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.training import ComputeDtype, TrainConfig


class TeacherError(EigenError):
    """A teacher that cannot be made, read or used as asked: one line for the user."""


class OtherTeacherError(TeacherError, ConfigError):
    """A teacher that was trained otherwise than asked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(Config):
    """An ensemble of Wide-DenseNet-BC and its training.

    The defaults are the paper's four members (Section 4.1), trained, as the paper does not say how, as in Huang et al.,
    "Densely Connected Convolutional Networks" (2017), Section 4.2, for CIFAR.
    """

    members: int = setting(4, "networks whose logits are averaged", paper="4", at_least=1)
    depth: int = setting(40, "L: layers of each Wide-DenseNet-BC, 6 n + 4", paper="40", at_least=10)
    growth: int = setting(60, "k: channels that each of its bottlenecks adds", paper="60", at_least=1)
    compression: float = setting(0.5, "share of the maps that a transition keeps", above=0, at_most=1, flag=False)
    stem_stride: int = setting(
        1,
        "stride of its first convolution, 1 or 2; 2 takes a quarter of the time",
        paper="not stated; DenseNet's: 1",
        at_least=1,
        at_most=2,
    )
    epochs: int = setting(
        300, "passes over the training images, in whole batches", paper="not stated; DenseNet's: 300", at_least=1
    )
    batch_size: int = setting(64, "images a training step", paper="not stated; DenseNet's: 64", at_least=1)
    # A tenth from half of the steps on, a hundredth from three quarters on.
    learning_rate: float = setting(0.1, "learning rate at the start", paper="not stated; DenseNet's: 0.1", above=0)
    momentum: float = setting(0.9, "Nesterov's momentum", at_least=0, below=1, flag=False)
    weight_decay: float = setting(1e-4, "weight decay of all parameters", at_least=0, flag=False)
    pad: int = setting(4, "as of the students", at_least=0, at_most=256, flag=False)
    flip: bool = setting(True, "as of the students", flag=False)
    eval_batch_size: int = setting(
        1_000, "images at a time in evaluation; no weight depends on it", at_least=1, flag=False
    )
    dtype: ComputeDtype = setting(
        "float32",
        "what convolutions compute and maps are kept in, in training and wherever the teacher is asked",
        paper="not stated, presumably float32",
    )
    seed: int = setting(0, "seed of all members, from 0 to 2**32 - 1", at_least=0, at_most=SEED_MAX)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth % 6 != 4:
            raise ConfigError(TeacherConfig, "{depth} is {}; it must be 6 n + 4 for an n of at least 1", self.depth)

    def steps(self, num_examples: int) -> int:
        """How long each member is trained on so many images; raises ConfigError where a batch is larger than those."""
        if self.batch_size > num_examples:
            rule = "{batch_size} is {}; the training set has only {} images"
            raise ConfigError(TeacherConfig, rule, self.batch_size, num_examples)
        return self.epochs * (num_examples // self.batch_size)

    def train_config(self, num_examples: int) -> TrainConfig:
        """How each member is trained, with the settings that both have; raises as `steps`."""
        steps = self.steps(num_examples)
        decay_steps = tuple(sorted({steps // 2, steps * 3 // 4} - {0}))
        shared = {field.name for field in dataclasses.fields(TrainConfig)} & vars(self).keys()
        settings: dict[str, Any] = {name: getattr(self, name) for name in shared}
        return TrainConfig(**settings, decay_steps=decay_steps, decay_rate=0.1, nesterov=True)
