"""Small networks and data sets for the tests of training."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eigen_jax.data import Dataset
from eigen_jax.training import TrainConfig, TrainState, init_state

SHAPE = (6, 6, 2)
SMALL = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(40, 60), pad=1, eval_batch_size=10)
KEY = jax.random.key(7)


class Linear(nn.Module):
    """Flattened pixels to logits: a gradient that a person can write down."""

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


def make_dataset(num_train=36, num_validation=23, *, separable=True, seed=0) -> Dataset:
    """Noise around one pattern a class; without `separable`, noise alone."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(3, 1, 1, SHAPE[2])) * 3.0 * separable

    def part(size):
        labels = rng.integers(0, 3, size)
        images = patterns[labels] + rng.normal(size=(size, *SHAPE))
        return jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)

    parts = [part(size) for size in (num_train, num_validation, num_validation)]
    (train, train_labels), (validation, validation_labels), (test, test_labels) = parts
    return Dataset(
        train_images=train,
        train_labels=train_labels,
        validation_images=validation,
        validation_labels=validation_labels,
        test_images=test,
        test_labels=test_labels,
        num_classes=3,
        name="synthetic",
        fingerprint="none",
    )


def new_state(network: nn.Module | None = None, config: TrainConfig = SMALL) -> TrainState:
    network = network or Convolutional()
    return init_state(jax.random.key(3), network=network, config=config, input_shape=SHAPE)
