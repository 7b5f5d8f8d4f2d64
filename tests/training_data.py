"""Small networks and data sets for the tests of training and of teachers."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eigen_jax.data import Dataset
from eigen_jax.teacher import CachedLogits
from eigen_jax.training import Programs, TrainConfig, TrainState, init_state

SHAPE = (6, 6, 2)
SMALL = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(40, 60), pad=1, eval_batch_size=10)
KEY = jax.random.key(7)


class Linear(nn.Module):
    """Flattened pixels to logits: a gradient that a person can write down, and other logits for every view."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(self.num_classes)(images.reshape(images.shape[0], -1))


class Convolutional(nn.Module):
    """One convolution with batch normalisation; counts its traces, by `train`."""

    width: int = 4
    num_classes: int = 3

    @nn.compact
    def __call__(self, images, *, train):
        TRACES.append((self.width, train, images.shape[0]))
        x = nn.Conv(self.width, (3, 3), use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


TRACES: list[tuple[int, bool, int]] = []


class LiveTeacher:
    """Gives the means of thirds of the pixels that it sees as logits, and keeps what it was asked."""

    fingerprint = "live"

    def __init__(self) -> None:
        self.asked: list[tuple[jax.Array, jax.Array, jax.Array]] = []

    def __call__(self, examples, views, images):
        self.asked.append((examples, views, images))
        return images.reshape(images.shape[0], 3, -1).mean(axis=-1).astype(jnp.float16)


def cached_teacher(count=36) -> CachedLogits:
    """Random logits of so many images, each seen in 3 x 3 crops, flipped or not."""
    logits = np.random.default_rng(4).normal(size=(count, 18, 3)).astype(np.float16)
    return CachedLogits(logits=jnp.asarray(logits), slots=jnp.arange(18, dtype=jnp.int32), fingerprint="random")


def wait_for_background(programs: Programs) -> None:
    """Until what was given to the background before is done."""
    done = threading.Event()
    programs.in_background(done.set)
    assert done.wait(60)


def make_dataset(num_train=36, num_validation=23, *, separable=True, seed=0, shape=SHAPE, **fields: Any) -> Dataset:
    """Noise around one colour a class; without `separable`, noise alone."""
    rng = np.random.default_rng(seed)
    colours = rng.normal(size=(3, 1, 1, shape[2])) * 3.0 * separable
    arrays: dict[str, Any] = {}
    for part, size in (("train", num_train), ("validation", num_validation), ("test", num_validation)):
        labels = rng.integers(0, 3, size)
        arrays[f"{part}_labels"] = jnp.asarray(labels, jnp.int32)
        arrays[f"{part}_images"] = jnp.asarray(colours[labels] + rng.normal(size=(size, *shape)), jnp.float32)
    arrays |= {"num_classes": 3, "name": "synthetic", "fingerprint": "none"}
    return Dataset(**arrays | fields)


def new_state(
    network: nn.Module | None = None, config: TrainConfig = SMALL, programs: Programs | None = None
) -> TrainState:
    network, key = network or Convolutional(), jax.random.key(3)
    return init_state(key, network=network, config=config, input_shape=SHAPE, programs=programs)
