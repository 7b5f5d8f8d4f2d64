"""Training steps of eigen_jax, compiled and ready to be timed."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from eigen_jax.architecture import Architecture
from eigen_jax.builder import build_network
from eigen_jax.training import Batch, ComputeDtype, TrainConfig, TrainState, init_state, train_step, train_steps
from eigen_jax.training.programs import Programs, compiled
from experiments.benchmarks.architectures import NUM_CLASSES
from experiments.benchmarks.measuring import Work

# The paper's (Section 4.1), at a constant rate.
CONFIG = TrainConfig(decay_steps=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledSteps:
    """A program of one or more training steps."""

    run: Callable[..., Any]  # of a state, which it donates, and a batch, or a stack of them
    batch: Batch
    seconds: float  # of tracing and compiling


@functools.cache
def initial_state(architecture: Architecture) -> TrainState:
    """An untrained network; the same for all that are timed."""
    network = build_network(architecture, num_classes=NUM_CLASSES)
    return init_state(jax.random.key(0), network=network, config=CONFIG, input_shape=architecture.input_shape)


@functools.cache
def noise_batch(input_shape: tuple[int, int, int]) -> Batch:
    """Images of noise with labels of all classes."""
    images = jax.random.normal(jax.random.key(1), (CONFIG.batch_size, *input_shape))
    return Batch(images=images, labels=jnp.arange(CONFIG.batch_size, dtype=jnp.int32) % NUM_CLASSES)


@functools.cache
def compile_steps(architecture: Architecture, dtype: ComputeDtype, steps: int | None) -> CompiledSteps:
    """Compiles a training step, once a process.

    Args:
        architecture: the network.
        dtype: of the maps.
        steps: in one program, by `train_steps`; None: one call of `train_step` a step.
    """
    network = build_network(architecture, num_classes=NUM_CLASSES, dtype=dtype)
    config = dataclasses.replace(CONFIG, dtype=dtype)
    state, batch = initial_state(architecture), noise_batch(architecture.input_shape)
    function: Callable[..., Any] = train_step
    if steps is not None:
        function = train_steps
        batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * steps), batch)
    jax.block_until_ready((state, batch))
    began = time.perf_counter()
    run = compiled(function, (state, batch), programs=Programs(), donate=(0,), network=network, config=config)
    return CompiledSteps(run=run, batch=batch, seconds=time.perf_counter() - began)


def make_step(architecture: Architecture, *, dtype: ComputeDtype, calls: int, steps: int | None = None) -> Work:
    """Training steps from the untrained network on, always with the same batch.

    Args:
        architecture: the network.
        dtype: of the maps.
        calls: of the program in one call of what is returned; the last loss is then fetched.
        steps: see `compile_steps`.
    """
    program = compile_steps(architecture, dtype, steps)
    state = jax.tree.map(jnp.copy, initial_state(architecture))

    def work() -> float:
        nonlocal state
        for _ in range(calls):
            state, metrics = program.run(state, program.batch)
        return float(metrics.loss.ravel()[-1])

    return work
