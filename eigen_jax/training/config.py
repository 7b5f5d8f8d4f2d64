"""How networks are trained, and what can go wrong."""

import dataclasses
import math
from typing import Literal, get_args

from eigen_jax.errors import ConfigError, EigenError

ComputeDtype = Literal["float32", "bfloat16"]


class DivergedError(EigenError):
    """The loss, a parameter or a batch statistic is no longer finite.

    Attributes:
        step: the step at which that was seen, at most `CHECK_EVERY` after it happened.
        loss: the mean loss of the steps since the look before.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(step, loss)
        self.step = step
        self.loss = loss

    def __str__(self) -> str:
        return f"training diverged by step {self.step}: the mean loss is {self.loss:g}; lower the learning rate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How networks are trained; static and hashable. The defaults are those of Section 4.1, as far as it states them.

    Raises:
        ConfigError: a value that training cannot work with.
    """

    batch_size: int = 128  # images a step
    learning_rate: float = 0.1  # until the first of decay_steps
    decay_steps: tuple[int, ...] = (15_000, 20_000)  # steps from which the rate is lower, ascending
    decay_rate: float = 0.1  # what the rate is multiplied by at each
    momentum: float = 0.9
    nesterov: bool = False  # look ahead along the momentum
    weight_decay: float = 5e-4  # of all parameters, added to the gradient
    mimicry_weight: float = 0.9  # alpha of Eq. 3, the share of the teacher in the loss, where there is a teacher
    temperature: float = 5.0  # T of Eq. 3, which softens the predictions of both
    pad: int = 4  # pixels of zeros around an image before it is cropped; 0 for no cropping
    flip: bool = True  # mirror half of the images
    eval_batch_size: int = 1_000  # images at a time in evaluation
    dtype: ComputeDtype = "float32"  # of the maps; parameters, statistics and the loss are float32 in any case
    devices: int = 1  # local devices that share each batch; changes rounding alone

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_batch_size", "devices"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        shared = self.batch_size % self.devices == 0
        _require("batch_size", self.batch_size, shared, f"a multiple of devices, which is {self.devices}")
        for name in ("learning_rate", "decay_rate", "temperature"):
            value = getattr(self, name)
            _require(name, value, math.isfinite(value) and value > 0, "finite and more than 0")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to less than 1")
        _require("mimicry_weight", self.mimicry_weight, 0 <= self.mimicry_weight <= 1, "from 0 to 1")
        finite = math.isfinite(self.weight_decay)
        _require("weight_decay", self.weight_decay, finite and self.weight_decay >= 0, "finite and at least 0")
        _require("pad", self.pad, 0 <= self.pad <= 256, "from 0 to 256")
        _require(
            "dtype", self.dtype, self.dtype in get_args(ComputeDtype), f"one of {', '.join(get_args(ComputeDtype))}"
        )
        ascending = all(a < b for a, b in zip((0, *self.decay_steps), self.decay_steps, strict=False))
        _require("decay_steps", self.decay_steps, ascending, "steps in ascending order, each at least 1")


def _require(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; it must be {what}")
