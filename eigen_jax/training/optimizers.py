"""Optimizers and learning rates, by name or of the user's own: a function of the config that makes an Optax one."""

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from eigen_jax.config import name_of
from eigen_jax.errors import ConfigError, first_line
from eigen_jax.registry import Registry

if TYPE_CHECKING:
    from eigen_jax.training.config import TrainConfig

# Called once for every program that is traced. Hashable and equal to its copies, as functions and frozen dataclasses
# are; workers find it by the name of its module.
OptimizerFactory = Callable[["TrainConfig"], optax.GradientTransformation]

OPTIMIZERS: Registry[OptimizerFactory] = Registry("optimizer")


def make_optimizer(config: "TrainConfig") -> optax.GradientTransformation:
    """The optimizer that a config asks for.

    Raises ConfigError where there is none of this name, or where the user's own cannot be compared, fails, or gives
    something else.
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


def make_schedule(config: "TrainConfig") -> optax.Schedule:
    """The learning rate at each step, [] float32 of [] int32, as the schedule and the decay of a config say."""
    rates = config.decay_rates or itertools.repeat(config.decay_rate)
    return SCHEDULES[config.schedule](config.learning_rate, dict(zip(config.decay_steps, rates, strict=False)))


def _constant(learning_rate: float, factors: Mapping[int, float]) -> optax.Schedule:
    """Constant between steps, at each of which the rate is multiplied by a factor (Section 4.1)."""
    piecewise = optax.piecewise_constant_schedule(learning_rate, dict(factors))
    # Optax mixes the count with floats, which strict promotion refuses; float32 is exact to 2**24 steps.
    return lambda count: piecewise(jnp.asarray(count, jnp.float32))


def _linear(learning_rate: float, factors: Mapping[int, float]) -> optax.Schedule:
    """In straight lines from step to step, at each of which the rate has been multiplied by a factor."""
    piecewise = optax.piecewise_interpolate_schedule("linear", learning_rate, dict(factors))

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes the count with floats
            return piecewise(count)

    return rate


SCHEDULES = {"constant": _constant, "linear": _linear}


def sgd(config: "TrainConfig") -> optax.GradientTransformation:
    """SGD with plain momentum; weight decay joins the gradient before the momentum does (Section 4.1)."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(make_schedule(config), momentum=config.momentum, nesterov=config.nesterov),
    )


OPTIMIZERS.add("sgd", sgd)
