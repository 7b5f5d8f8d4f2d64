"""What `ours` is measured against beside PyTorch: the same networks and training, written as a Flax user would."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax import Array

from eigen_jax.architecture import IMAGE, Architecture
from eigen_jax.training import Batch, ComputeDtype
from experiments.benchmark import ours
from experiments.benchmark.measuring import Work


class PlainNetwork(nn.Module):
    """The network of `eigen_jax.builder`, of Flax's own layers."""

    architecture: Architecture
    dtype: ComputeDtype

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """[B, H, W, C] images to [B, K] logits, in training."""
        maps = {IMAGE: images}
        for position, layer in enumerate(self.architecture.layers):
            inputs = [maps[source] for source in layer.inputs]
            if layer.op == "conv":
                side, stride = (layer.kernel, layer.kernel), (layer.stride, layer.stride)
                y = nn.Conv(layer.channels, side, stride, use_bias=False, dtype=self.dtype)(inputs[0])
                y = nn.BatchNorm(use_running_average=False, momentum=0.9, dtype=self.dtype)(y)
                maps[position] = nn.relu(y)
            elif layer.op == "pool":
                maps[position] = nn.max_pool(inputs[0], (2, 2), (2, 2), "SAME")
            else:
                maps[position] = jnp.concatenate(inputs, axis=-1)
        return nn.Dense(ours.NUM_CLASSES)(maps[len(self.architecture.layers) - 1].mean(axis=(1, 2)))


class State(TrainState):
    batch_stats: Any


def _step(state: State, batch: Batch) -> tuple[State, Array]:
    def loss_of(params: Any) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = state.apply_fn(variables, batch.images, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return losses.mean(), updated

    (loss, updated), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=updated["batch_stats"]), loss


@functools.cache
def untrained(architecture: Architecture, dtype: ComputeDtype) -> State:
    network, config = PlainNetwork(architecture, dtype), ours.CONFIG
    _, batch = ours.untrained(architecture)
    variables = jax.jit(network.init)(jax.random.key(0), batch.images[:1])
    decay = optax.add_decayed_weights(config.weight_decay)
    optimizer = optax.chain(decay, optax.sgd(config.learning_rate, config.momentum))
    collections = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    return State.create(apply_fn=network.apply, tx=optimizer, **collections)


def compile_steps(architecture: Architecture, dtype: ComputeDtype) -> Callable[[State, Batch], tuple[State, Array]]:
    """Compiles a training step, anew at each call; it overwrites the state."""
    step = jax.jit(functools.partial(_step), donate_argnums=0)  # what jit remembers is the function's that it is given
    return step.lower(untrained(architecture, dtype), ours.untrained(architecture)[1]).compile()


def training_steps(architecture: Architecture, dtype: ComputeDtype, calls: int) -> Work:
    """Training from the untrained network on, in so many calls at a time."""
    program, batch = compile_steps(architecture, dtype), ours.untrained(architecture)[1]
    state = jax.tree.map(jnp.copy, untrained(architecture, dtype))

    def work() -> float:
        nonlocal state
        for _ in range(calls):
            state, loss = program(state, batch)
        return float(loss)

    return work
