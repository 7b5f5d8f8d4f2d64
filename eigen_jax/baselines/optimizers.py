"""SGD whose rate, decay and norms differ between groups of parameters, as the authors' frameworks have it.

Groups are told by the paths of parameters, such as "conv_1/kernel". One parameter may be in several groups, whose
factors then multiply.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from eigen_jax.training import TrainConfig, make_schedule

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters whose whole path, its parts joined by "/", a regular expression matches."""

    path: str
    _: dataclasses.KW_ONLY
    rate: float = 1.0  # what the learning rate is multiplied by
    decay: float = 1.0  # what the weight decay is multiplied by
    max_norm: float | None = None  # of the weights of each unit, those of one index of the last axis
    fade: Callable[[TrainConfig], optax.Schedule] | None = None  # makes a further factor of the rate, of the step

    def has(self, path: Any) -> bool:
        """Whether a parameter at a path of JAX's is in the group."""
        return re.fullmatch(self.path, "/".join(str(key.key) for key in path)) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupedSGD:
    """Makes SGD with momentum, of the settings of a `TrainConfig`; to be added to `OPTIMIZERS`.

    As for plain SGD, weight decay joins the gradient before the momentum does, and the rate multiplies the momentum:
    where it changes, Caffe, cuda-convnet and pylearn2 go on with the velocity of the old rate for some steps.
    """

    groups: tuple[Group, ...]
    # Of the momentum, on a straight line from the config's, at half of the way to the last of `decay_steps`; None: it
    # stays as it is.
    final_momentum: float | None = None

    def __call__(self, config: TrainConfig) -> optax.GradientTransformation:
        """The optimizer: decay, momentum, rate, and then the projection onto the norms."""
        return optax.chain(
            _stateless(functools.partial(self._decay, config.weight_decay)),
            self._momentum(config),
            optax.scale_by_learning_rate(make_schedule(config)),
            self._scale(config),
            _stateless(self._project),
        )

    def _momentum(self, config: TrainConfig) -> optax.GradientTransformation:
        if self.final_momentum is None or not config.decay_steps:
            return optax.trace(config.momentum, nesterov=config.nesterov)
        ramp = optax.linear_schedule(config.momentum, self.final_momentum, max(1, config.decay_steps[-1] // 2))
        return _scheduled_trace(ramp)

    def _scale(self, config: TrainConfig) -> optax.GradientTransformation:
        fades = {group: group.fade(config) for group in self.groups if group.fade}

        def update(updates: PyTree, step: Array, params: PyTree = None) -> tuple[PyTree, Array]:
            def scaled(path: Any, update: Array) -> Array:
                groups = [group for group in self.groups if group.has(path)]
                factor = math.prod(group.rate for group in groups)
                return math.prod((fades[group](step) for group in groups if group in fades), start=factor) * update

            return jax.tree_util.tree_map_with_path(scaled, updates), step + 1

        return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

    def _decay(self, decay: float, gradients: PyTree, params: PyTree) -> PyTree:
        def decayed(path: Any, gradient: Array, weights: Array) -> Array:
            factor = math.prod(group.decay for group in self.groups if group.has(path))
            return gradient + decay * factor * weights

        return jax.tree_util.tree_map_with_path(decayed, gradients, params)

    def _project(self, updates: PyTree, params: PyTree) -> PyTree:
        def projected(path: Any, update: Array, weights: Array) -> Array:
            norms = [group.max_norm for group in self.groups if group.max_norm is not None and group.has(path)]
            if not norms:
                return update
            return clip_norms(weights + update, min(norms)) - weights

        return jax.tree_util.tree_map_with_path(projected, updates, params)


def clip_norms(weights: Array, most: float) -> Array:
    """Shortens the weights of each unit, [..., D], to an L2 norm over all axes but the last of at most `most`."""
    norms = jnp.sqrt(jnp.square(weights).sum(axis=tuple(range(weights.ndim - 1)), keepdims=True))
    return weights * jnp.minimum(1, most / jnp.maximum(norms, jnp.finfo(weights.dtype).tiny))


def _stateless(change: Callable[[PyTree, PyTree], PyTree]) -> optax.GradientTransformation:
    """Of a function of updates and parameters."""
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda updates, state, params=None: (change(updates, params), state)
    )


def _scheduled_trace(momentum: optax.Schedule) -> optax.GradientTransformation:
    """`optax.trace` with a momentum of the step."""

    def init(params: PyTree) -> tuple[Array, PyTree]:
        return jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params)

    def update(gradients: PyTree, state: tuple[Array, PyTree], params: PyTree = None) -> tuple[PyTree, Any]:
        step, trace = state
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes the step with floats
            share = momentum(step)
        trace = jax.tree.map(lambda velocity, gradient: share * velocity + gradient, trace, gradients)
        return trace, (step + 1, trace)

    return optax.GradientTransformation(init, update)
