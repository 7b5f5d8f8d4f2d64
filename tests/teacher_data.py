"""Small teachers and data sets for the tests of teachers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eigen_jax.data import Dataset
from eigen_jax.teacher import Ensemble, TeacherConfig, make_ensemble

SHAPE = (8, 8, 2)
CLASSES = 3

TINY = TeacherConfig(
    members=2, depth=10, growth=4, epochs=3, batch_size=8, pad=1, eval_batch_size=10, learning_rate=0.05
)


class Pixels(nn.Module):
    """A linear map of all pixels, so that every crop and flip gives other logits."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(self.num_classes)(images.reshape(images.shape[0], -1))


def make_dataset(
    num_train=24,
    num_validation=15,
    *,
    seed=0,
    num_classes: int = CLASSES,
    name: str = "synthetic",
    fingerprint: str | None = None,
) -> Dataset:
    """Noise around one colour a class."""
    rng = np.random.default_rng(seed)
    colours = rng.normal(size=(CLASSES, 1, 1, SHAPE[2])) * 2.0

    def part(size):
        labels = rng.integers(0, CLASSES, size)
        images = colours[labels] + rng.normal(size=(size, *SHAPE))
        return jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)

    (train, train_labels), (validation, validation_labels), (test, test_labels) = map(
        part, (num_train, num_validation, num_validation)
    )
    return Dataset(
        train_images=train,
        train_labels=train_labels,
        validation_images=validation,
        validation_labels=validation_labels,
        test_images=test,
        test_labels=test_labels,
        num_classes=num_classes,
        name=name,
        fingerprint=fingerprint or f"seed {seed}",
    )


def make_teacher(*, members=2, scale=1.0, num_classes=CLASSES) -> Ensemble:
    """Untrained linear members; `scale` stretches their logits."""
    network = Pixels(num_classes)
    keys = jax.random.split(jax.random.key(11), members)
    variables = [network.init(key, jnp.zeros((1, *SHAPE)), train=False) for key in keys]
    return make_ensemble([network] * members, [jax.tree.map(lambda leaf: leaf * scale, each) for each in variables])
