"""The networks and convolutions that are measured, how much work they are, and the noise that they are given."""

import dataclasses
from importlib import resources

import jax
import jax.numpy as jnp
from jax import Array

from eigen_jax.architecture import IMAGE, Architecture, Layer, count_flops, from_json
from eigen_jax.data import Dataset

NUM_CLASSES = 10


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
    """Of one image in a training step: convolutions and classifier.

    Three times `count_flops`, since each gradient costs as much as the pass forward; twice for the convolutions
    that read the image, whose input needs no gradient.
    """
    reading = (layer for layer in architecture.layers if layer.op == "conv" and layer.inputs == (IMAGE,))
    alone = (dataclasses.replace(architecture, layers=(layer,)) for layer in reading)
    once = sum(count_flops(each, num_classes=0) for each in alone)
    return 3 * count_flops(architecture, num_classes=NUM_CLASSES) - once


def convolution(size: int, read: int, channels: int, *, kernel: int = 3, stride: int = 1) -> Architecture:
    """A network of one convolution, from `read` to so many channels, on maps of `size` x `size`."""
    layer = Layer(op="conv", inputs=(IMAGE,), channels=channels, kernel=kernel, stride=stride)
    return Architecture(input_shape=(size, size, read), layers=(layer,))


def describe_convolution(alone: Architecture) -> str:
    (size, _, read), (layer,) = alone.input_shape, alone.layers
    halving = ", stride 2" if layer.stride == 2 else ""
    return f"conv {layer.kernel} x {layer.kernel}{halving}, {read} to {layer.channels}, on {size} x {size}"


def noise_images(seed: int, images: int, input_shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Images of noise, [N, H, W, C] float32, and labels of all classes in turn, [N] int32."""
    drawn = jax.random.normal(jax.random.key(seed), (images, *input_shape))
    return drawn, jnp.arange(images, dtype=jnp.int32) % NUM_CLASSES


def noise_dataset(images: int, input_shape: tuple[int, int, int]) -> Dataset:
    """Images of noise to train on, the first eight of them to validate and to test."""
    drawn, labels = noise_images(0, images, input_shape)
    parts = (drawn, labels, drawn[:8], labels[:8], drawn[:8], labels[:8])
    return Dataset(*parts, num_classes=NUM_CLASSES, name="", fingerprint="")
