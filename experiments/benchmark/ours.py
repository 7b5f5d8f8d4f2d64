"""What is measured of eigen_jax: networks, training steps and parts of these, by the names that are in `pytorch`."""

import dataclasses
import functools
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from eigen_jax import training
from eigen_jax.architecture import IMAGE, Architecture, Layer, count_flops, from_json
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.layers import BatchNormRelu, Conv, max_pool
from eigen_jax.training import Batch, ComputeDtype, TrainConfig, TrainState
from eigen_jax.training.programs import Programs, compiled
from experiments.benchmark.measuring import Work

NUM_CLASSES = 10
CONFIG = TrainConfig(decay_steps=())  # the paper's (Section 4.1), at a constant rate


def benchmark_architectures() -> dict[str, Architecture]:
    """By name: eight layers, a typical evolved network of 30, a large one of 101."""
    # The last two were bred once with `mutate`, from global pooling in generations of 256 children of 8 steps. Parent
    # became the child nearest to the layers asked for, 62 % of them convolutions.
    folder = resources.files("experiments.benchmark") / "genomes"
    evolved = {name: from_json((folder / f"{name}.json").read_text()) for name in ("typical", "large")}
    return {"small": eight_layers(), **evolved}


def eight_layers() -> Architecture:
    shapes = [(32, 1), (32, 1), (48, 2), (48, 1), (64, 2), (64, 1), (96, 2), (96, 1)]
    layers = tuple(
        Layer(op="conv", inputs=(position - 1 if position else IMAGE,), channels=channels, kernel=3, stride=stride)
        for position, (channels, stride) in enumerate(shapes)
    )
    return Architecture(input_shape=(32, 32, 3), layers=layers)


def describe(name: str, architecture: Architecture) -> str:
    return f"{name}, {len(architecture.layers)} layers"


def training_flops(architecture: Architecture) -> int:
    """Of one image in a training step: convolutions and classifier."""
    # Three times the pass forward, since each gradient costs as much; the image needs none.
    reading = (layer for layer in architecture.layers if layer.op == "conv" and layer.inputs == (IMAGE,))
    alone = (dataclasses.replace(architecture, layers=(layer,)) for layer in reading)
    once = sum(count_flops(each, num_classes=0) for each in alone)
    return 3 * count_flops(architecture, num_classes=NUM_CLASSES) - once


def one_convolution(size: int, read: int, channels: int, *, kernel: int = 3, stride: int = 1) -> Architecture:
    """A network of one convolution, from `read` to so many channels, on maps of `size` x `size`."""
    layer = Layer(op="conv", inputs=(IMAGE,), channels=channels, kernel=kernel, stride=stride)
    return Architecture(input_shape=(size, size, read), layers=(layer,))


def noise_images(seed: int, images: int, input_shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Images of noise, [N, H, W, C] float32, and labels of all classes in turn, [N] int32."""
    drawn = jax.random.normal(jax.random.key(seed), (images, *input_shape))
    return drawn, jnp.arange(images, dtype=jnp.int32) % NUM_CLASSES


def noise_dataset(images: int, input_shape: tuple[int, int, int]) -> Dataset:
    """Images of noise to train on, the first eight of them to validate and to test."""
    drawn, labels = noise_images(0, images, input_shape)
    parts = (drawn, labels, drawn[:8], labels[:8], drawn[:8], labels[:8])
    return Dataset(*parts, num_classes=NUM_CLASSES, name="", fingerprint="")


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


def compile_steps(architecture: Architecture, dtype: ComputeDtype, steps: int | None) -> CompiledSteps:
    """Compiles, anew at each call, so many steps in one program by `train_steps`; for None, one by `train_step`."""
    network = build_network(architecture, num_classes=NUM_CLASSES, dtype=dtype)
    state, batch = untrained(architecture)
    function: Callable[..., Any] = training.train_step
    if steps is not None:
        function = training.step.train_steps
        batch = jax.block_until_ready(jax.tree.map(lambda leaf: jnp.stack([leaf] * steps), batch))
    config = dataclasses.replace(CONFIG, dtype=dtype)
    run = compiled(function, (state, batch), programs=Programs(), donate=(0,), network=network, config=config)
    return CompiledSteps(run, batch)


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

    def one_gradient(params, x, gradient):
        of_kernel, of_input = jax.vjp(module.apply, params, x)[1](gradient)
        return of_input if part == "input gradient" else of_kernel  # XLA leaves the other one out

    return _ready(one_gradient, params, x, jax.tree.map(jnp.ones_like, module.apply(params, x)))


def norm(shape: tuple[int, ...], dtype: ComputeDtype) -> Work:
    """Batch normalisation and ReLU."""
    module = BatchNormRelu(use_running_average=False)
    x = _noise(0, shape, dtype)
    variables = module.init(jax.random.key(2), x)

    def forward(params, x):
        return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

    return _forward_and_backward(forward, variables["params"], x)


def pool(shape: tuple[int, ...], dtype: ComputeDtype) -> Work:
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
