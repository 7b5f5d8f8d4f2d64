"""Small teachers and data sets for the tests of teachers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import training_data
from training_data import Linear

from eigen_jax.data import Dataset
from eigen_jax.teacher import Ensemble, TeacherConfig, TeacherError, make_ensemble

SHAPE = (8, 8, 2)
CLASSES = 3

TINY = TeacherConfig(
    members=2, depth=10, growth=4, epochs=2, batch_size=8, pad=1, eval_batch_size=10, learning_rate=0.05
)


def make_dataset(num_train=16, *, seed=0, **fields: Any) -> Dataset:
    fields = {"fingerprint": f"seed {seed}"} | fields
    return training_data.make_dataset(num_train, 15, seed=seed, shape=SHAPE, **fields)


def make_teacher(*, members=2, scale=1.0, num_classes=CLASSES) -> Ensemble:
    """Untrained linear members; `scale` stretches their logits."""
    network = Linear(num_classes)
    initialize = jax.jit(lambda key: network.init(key, jnp.zeros((1, *SHAPE)), train=False))
    variables = [initialize(key) for key in jax.random.split(jax.random.key(11), members)]
    return make_ensemble([network] * members, [jax.tree.map(lambda leaf: leaf * scale, each) for each in variables])


def assert_refused(message: str, function: Callable, *arguments: Any, **named: Any) -> None:
    """With one line in which the regular expression `message` is found."""
    with pytest.raises(TeacherError, match=message) as error:
        function(*arguments, **named)
    assert "\n" not in str(error.value)
