"""How a teacher is made, and the error that this package raises."""

import dataclasses
import math
from typing import get_args

from eigen_jax.errors import EigenError
from eigen_jax.training import ComputeDtype, TrainConfig


class TeacherError(EigenError):
    """A teacher that cannot be made, read or used as asked: one line for the user."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """An ensemble of Wide-DenseNet-BC and its training; static and hashable.

    The defaults are the paper's four members (Section 4.1), each of 4.3 million parameters in the BC
    form, trained as in Huang et al., "Densely Connected Convolutional Networks" (2017), Section 4.2, for
    CIFAR; of their training the paper says nothing.

    Raises:
        TeacherError: a value that no teacher can be made with.
    """

    members: int = 4  # networks whose logits are averaged
    depth: int = 40  # L, layers with weights: 6 n + 4
    growth: int = 60  # k, maps that each bottleneck adds
    compression: float = 0.5  # share of the maps that a transition keeps
    stem_stride: int = 1  # pixels; 2 halves all maps, at a quarter of the cost
    epochs: int = 300  # of whole batches
    batch_size: int = 64  # images a step
    learning_rate: float = 0.1  # a tenth from half of the steps on, a hundredth from three quarters on
    momentum: float = 0.9  # Nesterov's
    weight_decay: float = 1e-4  # of all parameters, added to the gradient
    pad: int = 4  # pixels of zeros around an image before it is cropped; 0 for no cropping
    flip: bool = True  # mirror half of the images
    eval_batch_size: int = 1_000  # images at a time in evaluation; no weight depends on it
    dtype: ComputeDtype = "float32"  # of the maps; variables, normalisation and logits are float32 in any case
    seed: int = 0  # from 0 to 2**32 - 1

    def __post_init__(self) -> None:
        for name in ("members", "growth", "epochs", "batch_size", "eval_batch_size"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _require("depth", self.depth, self.depth >= 10 and self.depth % 6 == 4, "6 n + 4 for an n of at least 1")
        _require("stem_stride", self.stem_stride, self.stem_stride in (1, 2), "1 or 2")
        _require("compression", self.compression, 0 < self.compression <= 1, "more than 0, and at most 1")
        rate, decay = self.learning_rate, self.weight_decay
        _require("learning_rate", rate, math.isfinite(rate) and rate > 0, "finite and more than 0")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to less than 1")
        _require("weight_decay", decay, math.isfinite(decay) and decay >= 0, "finite and at least 0")
        _require("pad", self.pad, 0 <= self.pad <= 256, "from 0 to 256")
        _require(
            "dtype", self.dtype, self.dtype in get_args(ComputeDtype), f"one of {', '.join(get_args(ComputeDtype))}"
        )
        _require("seed", self.seed, 0 <= self.seed < 2**32, f"from 0 to {2**32 - 1}")

    def steps_per_epoch(self, num_examples: int) -> int:
        """Whole batches of a training set.

        Raises:
            TeacherError: there is none.
        """
        if self.batch_size > num_examples:
            raise TeacherError(f"batch_size is {self.batch_size}; the training set has only {num_examples} images")
        return num_examples // self.batch_size

    def train_config(self, num_examples: int) -> TrainConfig:
        """How each member is trained on `num_examples` images, for `epochs * steps_per_epoch` steps.

        Raises:
            TeacherError: a batch is larger than the training set.
        """
        steps = self.epochs * self.steps_per_epoch(num_examples)
        return TrainConfig(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            decay_steps=tuple(sorted({steps // 2, steps * 3 // 4} - {0})),
            decay_rate=0.1,
            momentum=self.momentum,
            nesterov=True,
            weight_decay=self.weight_decay,
            pad=self.pad,
            flip=self.flip,
            eval_batch_size=self.eval_batch_size,
            dtype=self.dtype,
        )


def _require(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise TeacherError(f"{name} is {value}; it must be {what}")
