"""What is measured of eigen_jax: training steps and their parts, by the names that they have in `pytorch`."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from eigen_jax import training
from eigen_jax.architecture import Architecture
from eigen_jax.builder import build_network
from eigen_jax.layers import BatchNormRelu, Conv, max_pool
from eigen_jax.training import Batch, ComputeDtype, TrainConfig, TrainState
from eigen_jax.training.programs import Programs, compiled
from experiments.benchmark.measuring import Work
from experiments.benchmark.networks import NUM_CLASSES, noise_images

# The paper's (Section 4.1), at a constant rate.
CONFIG = TrainConfig(decay_steps=())


@functools.cache
def untrained(architecture: Architecture) -> tuple[TrainState, Batch]:
    """A network before training, and images of noise with labels of all classes; the same for all that are timed."""
    network, shape = build_network(architecture, num_classes=NUM_CLASSES), architecture.input_shape
    state = training.init_state(jax.random.key(0), network=network, config=CONFIG, input_shape=shape)
    images, labels = noise_images(1, CONFIG.batch_size, shape)
    return jax.block_until_ready((state, Batch(images=images, labels=labels)))


class CompiledSteps(NamedTuple):
    run: Callable[..., Any]  # of a state, which it donates, and a batch, or a stack of them
    batch: Batch
    seconds: float  # of tracing and compiling


@functools.cache
def compile_steps(architecture: Architecture, dtype: ComputeDtype, steps: int | None) -> CompiledSteps:
    """Compiles, once a process, so many steps in one program by `train_steps`; for None, one by `train_step`."""
    network = build_network(architecture, num_classes=NUM_CLASSES, dtype=dtype)
    state, batch = untrained(architecture)
    function: Callable[..., Any] = training.train_step
    if steps is not None:
        function = training.train_steps
        batch = jax.block_until_ready(jax.tree.map(lambda leaf: jnp.stack([leaf] * steps), batch))
    began = time.perf_counter()
    config = dataclasses.replace(CONFIG, dtype=dtype)
    run = compiled(function, (state, batch), programs=Programs(), donate=(0,), network=network, config=config)
    return CompiledSteps(run, batch, time.perf_counter() - began)


def training_steps(architecture: Architecture, dtype: ComputeDtype, calls: int, steps: int | None = None) -> Work:
    """Training from the untrained network on, in so many calls of the program of `compile_steps` at a time."""
    program = compile_steps(architecture, dtype, steps)
    state = jax.tree.map(jnp.copy, untrained(architecture)[0])

    def work() -> float:
        nonlocal state
        for _ in range(calls):
            state, metrics = program.run(state, program.batch)
        return float(metrics.loss.ravel()[-1])

    return work


def product(size: int, dtype: ComputeDtype) -> Work:
    factor = _noise(0, (size, size), dtype)
    return _ready(jnp.matmul, factor, factor)


def convolution(alone: Architecture, part: str, batch: int, dtype: ComputeDtype) -> Work:
    """One of `steps.PASSES`, of a network of one convolution."""
    (layer,) = alone.layers
    module = Conv(layer.channels, layer.kernel, layer.stride, kernel_init=nn.initializers.he_normal())
    x = _noise(0, (batch, *alone.input_shape), dtype)
    params = module.init(jax.random.key(1), x)
    if part == "forward":
        return _ready(module.apply, params, x)

    def input_gradient(params, x, gradient):
        return jax.vjp(lambda x: module.apply(params, x), x)[1](gradient)

    def kernel_gradient(params, x, gradient):
        return jax.vjp(lambda params: module.apply(params, x), params)[1](gradient)

    gradient = jax.tree.map(jnp.ones_like, module.apply(params, x))
    return _ready(input_gradient if part == "input gradient" else kernel_gradient, params, x, gradient)


def norm(shape: tuple[int, ...], dtype: ComputeDtype) -> Work:
    """Batch normalisation and ReLU, forward and backward."""
    module = BatchNormRelu(use_running_average=False)
    x = _noise(0, shape, dtype)
    variables = module.init(jax.random.key(2), x)

    def forward(params, x):
        return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

    return _forward_and_backward(forward, variables["params"], x)


def pool(shape: tuple[int, ...], dtype: ComputeDtype) -> Work:
    """Max pooling, forward and backward."""
    return _forward_and_backward(lambda x: (max_pool(x), None), _noise(0, shape, dtype))


def _forward_and_backward(forward: Callable[..., tuple[Array, Any]], *inputs: Any) -> Work:
    """Maps, their gradient by every input, and what else the function gives."""

    def step(gradient, *inputs):
        y, backward, rest = jax.vjp(forward, *inputs, has_aux=True)
        return y, backward(gradient), rest

    maps, _ = jax.eval_shape(forward, *inputs)
    return _ready(step, _noise(1, maps.shape, maps.dtype), *inputs)


def _noise(seed: int, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def _ready(function: Callable[..., Any], *arguments: Any) -> Work:
    """Calls of the compiled function, each waited for."""
    program = compiled(function, arguments, programs=Programs())
    return lambda: jax.block_until_ready(program(*arguments))
