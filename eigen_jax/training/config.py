"""How networks are trained, and what can go wrong; optimizers and learning rates, by name or of the user's own."""

import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Literal

import jax
import optax

from eigen_jax.config import Config, name_of, setting
from eigen_jax.errors import ConfigError, EigenError, first_line
from eigen_jax.losses import LOSSES
from eigen_jax.registry import Registry

ComputeDtype = Literal["float32", "bfloat16"]
Schedule = Literal["constant", "linear", "one-cycle"]

# A function of the config that makes an Optax optimizer, called once for every program that is traced. Hashable and
# equal to its copies, as functions and frozen dataclasses are; workers find it by the name of its module.
OptimizerFactory = Callable[["TrainConfig"], optax.GradientTransformation]

OPTIMIZERS: Registry[OptimizerFactory] = Registry("optimizer")


class DivergedError(EigenError):
    """The loss, a parameter or a batch statistic is no longer finite."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(step, loss)
        self.step = step  # at which that was seen, at most `CHECK_EVERY` after it happened
        self.loss = loss  # mean of the steps since the look before

    def __str__(self) -> str:
        return f"training diverged by step {self.step}: the mean loss is {self.loss:g}; lower the learning rate"


class TooLargeError(EigenError):
    """Training takes more memory than the machine has for it; found before it begins."""

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(needed, available)  # bytes

    def __str__(self) -> str:
        needed, available = (f"{size / 1e9:.3g} GB" for size in self.args)
        return f"training takes {needed} of memory, too much for the machine's {available}; make batches smaller"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """How networks are trained. The defaults are those of Section 4.1, as far as it states them."""

    batch_size: int = setting(128, "images a training step", paper="128", at_least=1)
    optimizer: str | OptimizerFactory = setting(
        "sgd",
        "what makes the optimizer: sgd, adam, or NAME of a FILE.py of your own, a function of the TrainConfig that"
        " gives an optax.GradientTransformation",
        paper="sgd",
    )
    learning_rate: float = setting(0.1, "learning rate at the start", paper="0.1", above=0)
    decay_steps: tuple[int, ...] = setting(
        (15_000, 20_000),
        "training steps, counted from the start, from which the rate is another, in ascending order",
        paper="15,000 and 20,000",
        at_least=1,
    )
    decay_rate: float = setting(0.1, "what the rate is multiplied by at each of them", paper="0.1", above=0)
    decay_rates: tuple[float, ...] = setting(
        (), "what it is multiplied by at each in turn, in place of one rate for all; 10 0: up and down", at_least=0
    )
    schedule: Schedule = setting(
        "constant",
        "the rate between those steps; constant: as it became at the last; linear: on a straight line to the next;"
        " one-cycle: from a tenth of the learning rate on straight lines, to all of it after a fifth of the way to the"
        " one step named, and to 0 there",
        paper="constant",
    )
    momentum: float = setting(0.9, "momentum of SGD", paper="0.9", at_least=0, below=1)
    nesterov: bool = setting(False, "look ahead along the momentum", paper="not stated, presumably not")
    weight_decay: float = setting(5e-4, "weight decay, added to the gradient", paper="0.0005", at_least=0)
    averaging: float = setting(
        0.0,
        "networks are evaluated and saved with their weights and batch statistics averaged over the steps; a step keeps"
        " this share of the average, or (1 + n) / (10 + n) after n steps where that is less; 0: with the last ones",
        paper="not stated, presumably 0",
        at_least=0,
        below=1,
    )
    loss: str = setting(
        "cross-entropy",
        "loss of the true class: cross-entropy, or squared-hinge, of each class against all others",
        paper="cross-entropy",
    )
    companion_steps: int | None = setting(  # None: all
        None, "training steps in which a network's companion heads, if it has any, are trained", at_least=1, flag=False
    )
    mimicry_weight: float = setting(
        0.9, "alpha of Eq. 3: the teacher's share of the loss, from 0 to 1", paper="0.9", at_least=0, at_most=1
    )
    temperature: float = setting(5.0, "T of Eq. 3, which softens both predictions", paper="5", above=0)
    pad: int = setting(4, "pixels of padding before a random crop; 0: no crop", at_least=0, at_most=256)
    flip: bool = setting(True, "mirror half of the training images")
    eval_batch_size: int = setting(1_000, "images at a time in evaluation; more take more memory", at_least=1)
    dtype: ComputeDtype = setting(
        "float32",
        "what convolutions compute and maps are kept in; weights, normalization, logits and loss are float32 in any"
        " case; bfloat16 is for GPUs, and slower on CPUs",
        paper="not stated, presumably float32",
    )
    # Changes the rounding alone.
    devices: int = setting(1, "local devices that share each batch", at_least=1, flag=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.devices:
            rule = "{batch_size} is {}; it must be a multiple of {devices}, which is {}"
            raise ConfigError(TrainConfig, rule, self.batch_size, self.devices)
        if any(later <= step for step, later in itertools.pairwise(self.decay_steps)):
            raise ConfigError(TrainConfig, "{decay_steps} is {}; it must be in ascending order", self.decay_steps)
        LOSSES.find(self.loss)
        if self.decay_rates and len(self.decay_rates) != len(self.decay_steps):
            rule = "{decay_rates} is {}; it must have a rate for each of {decay_steps}, which is {}"
            raise ConfigError(TrainConfig, rule, self.decay_rates, self.decay_steps)
        if self.schedule == "one-cycle" and len(self.decay_steps) != 1:
            rule = "{schedule} is 'one-cycle', and {decay_steps} is {}; name one step, at which the rate is to be 0"
            raise ConfigError(TrainConfig, rule, self.decay_steps)
        if self.schedule == "one-cycle" and self.decay_rates:
            rule = "{schedule} is 'one-cycle', and {decay_rates} is {}; leave the rates out"
            raise ConfigError(TrainConfig, rule, self.decay_rates)
        make_optimizer(self)  # so that whatever is wrong with it is told here, not by a worker


def stretch(config: TrainConfig, factor: float) -> TrainConfig:
    """The config of a training that is `factor` times as long, with the same course; each step is at least 1."""

    def stretched(step: int) -> int:
        return max(1, round(step * factor))

    steps = [stretched(step) for step in config.decay_steps]
    companions = None if config.companion_steps is None else stretched(config.companion_steps)
    config = dataclasses.replace(config, companion_steps=companions)
    if not config.decay_rates:
        return dataclasses.replace(config, decay_steps=tuple(sorted(set(steps))))
    rates = dict.fromkeys(steps, 1.0)
    for step, rate in zip(steps, config.decay_rates, strict=True):
        rates[step] *= rate
    return dataclasses.replace(config, decay_steps=tuple(rates), decay_rates=tuple(rates.values()))


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The optimizer that a config asks for.

    Raises ConfigError where there is none of this name, or the user's own cannot be compared, fails, or gives another.
    """
    named, factory = name_of(config.optimizer), config.optimizer
    if isinstance(factory, str):
        factory = OPTIMIZERS.find(factory)
    elif not _is_equal_to_its_copy(factory):
        rule = "{optimizer} is {}, which is not equal to its own copy; make it a function or a frozen dataclass"
        raise ConfigError(type(config), rule, named)
    try:
        optimizer = factory(config)
    except Exception as error:
        rule = "{optimizer} is {}, which fails with {}: {}; mend it"
        raise ConfigError(type(config), rule, named, type(error).__name__, first_line(error)) from error
    if not isinstance(optimizer, optax.GradientTransformation):
        rule = "{optimizer} is {}, which gives {}; it must give an optax.GradientTransformation"
        raise ConfigError(type(config), rule, named, type(optimizer).__name__)
    return optimizer


def _is_equal_to_its_copy(factory: OptimizerFactory) -> bool:
    """Whether it can be a static argument; what is equal to itself alone would be compiled for again and again."""
    try:
        return hash(same := copy.copy(factory)) == hash(factory) and same == factory
    except TypeError:
        return False


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """The learning rate at each step, [] float32 of [] int32, as the schedule and the decay of a config say."""
    rates = config.decay_rates or itertools.repeat(config.decay_rate)
    at_steps = config.learning_rate, dict(zip(config.decay_steps, rates, strict=False))
    if config.schedule == "one-cycle":
        (end,) = config.decay_steps
        # In a cycle of one step both are the same, and the fall alone is left.
        at_steps = config.learning_rate / 10, {max(1, round(end / 5)): 10.0, end: 0.0}
    if config.schedule != "constant":
        piecewise = optax.piecewise_interpolate_schedule("linear", *at_steps)
    else:
        piecewise = optax.piecewise_constant_schedule(*at_steps)  # Section 4.1

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes the count with floats
            return piecewise(count)

    return rate


def sgd(config: TrainConfig) -> optax.GradientTransformation:
    """SGD with plain momentum; weight decay joins the gradient before the momentum does (Section 4.1)."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(make_schedule(config), momentum=config.momentum, nesterov=config.nesterov),
    )


def adam(config: TrainConfig) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015), with the config's rates and decay, which joins the gradient; momentum has no part."""
    return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.adam(make_schedule(config)))


OPTIMIZERS.add("sgd", sgd)
OPTIMIZERS.add("adam", adam)
