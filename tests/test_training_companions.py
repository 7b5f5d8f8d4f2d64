"""Companion heads, whose logits a network sows in training, and the course of a training that is stretched."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from training_data import SHAPE, make_dataset, new_state

from eigen_jax.losses import LOSSES, mimicry_loss
from eigen_jax.training import Batch, TrainConfig, evaluate, stretch, train_step

CONFIG = TrainConfig(batch_size=5, learning_rate=0.1, decay_steps=(), momentum=0.0, weight_decay=0.0)


class Supervised(nn.Module):
    """Two linear layers, with a head on the first."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(4, name="first")(images.reshape(images.shape[0], -1))
        if train or self.is_initializing():
            self.sow("companions", "logits", nn.Dense(self.num_classes, name="companion")(x))
        return nn.Dense(self.num_classes, name="last")(x)


def batch(teacher: bool) -> Batch:
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(5, *SHAPE)), np.array([0, 2, 1, 1, 2])
    logits = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) if teacher else None
    return Batch(images=jnp.asarray(images, jnp.float32), labels=jnp.asarray(labels, jnp.int32), teacher_logits=logits)


@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize("loss", ["cross-entropy", "squared-hinge"])
@pytest.mark.parametrize(("companion_steps", "counted"), [(None, (True, True)), (1, (True, False))])
def test_the_losses_of_companion_heads_join_for_as_many_steps_as_they_are_trained(
    companion_steps, counted, loss, teacher
):
    config = dataclasses.replace(CONFIG, loss=loss, companion_steps=companion_steps)
    state, seen = new_state(Supervised(), config), batch(teacher)

    def total(params: Any, is_counted: bool) -> jax.Array:
        def losses(logits: jax.Array) -> jax.Array:
            if seen.teacher_logits is None:
                return LOSSES[loss](logits, seen.labels).mean()
            options: Any = {"weight": 0.9, "temperature": 5.0, "loss": LOSSES[loss]}
            return mimicry_loss(logits, seen.labels, seen.teacher_logits, **options).mean()

        x = seen.images.reshape(5, -1) @ params["first"]["kernel"] + params["first"]["bias"][None]
        heads = ["last", "companion"] if is_counted else ["last"]
        return sum((losses(x @ params[head]["kernel"] + params[head]["bias"][None]) for head in heads), jnp.zeros(()))

    for is_counted in counted:
        expected, gradients = jax.value_and_grad(total)(state.params, is_counted)
        following, metrics = train_step(state, seen, network=Supervised(), config=config)
        np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)
        moved = jax.tree.map(lambda before, gradient: before - 0.1 * gradient, state.params, gradients)
        jax.tree.map(
            lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5), following.params, moved
        )
        state = following


def test_accuracy_is_that_of_the_output_and_evaluation_asks_no_head():
    dataset = make_dataset()
    state = new_state(Supervised(), CONFIG)
    without = {name: own for name, own in state.params.items() if name != "companion"}
    shared: Any = {"network": Supervised(), "batch_size": 10}
    images, labels = dataset.validation_images, dataset.validation_labels
    reached = evaluate(dataclasses.replace(state, params=without), images, labels, **shared)
    assert evaluate(state, images, labels, **shared) == reached
    _, metrics = train_step(state, batch(False), network=Supervised(), config=CONFIG)
    logits: Any = Supervised().apply(state.variables, batch(False).images, train=False)
    assert float(metrics.accuracy) == pytest.approx(np.mean(logits.argmax(-1) == batch(False).labels))


def test_a_stretched_training_has_the_same_course_and_no_step_before_the_first():
    config = dataclasses.replace(CONFIG, decay_steps=(100, 200, 400), companion_steps=50)
    assert stretch(config, 1) == config
    doubled = stretch(config, 2)
    assert (doubled.decay_steps, doubled.companion_steps) == ((200, 400, 800), 100)
    # Equal steps are one, at which rates of their own are all applied.
    short = stretch(config, 0.004)
    assert (short.decay_steps, short.companion_steps) == ((1, 2), 1)
    by_rates = stretch(dataclasses.replace(config, decay_rates=(0.5, 0.1, 3.0)), 0.004)
    assert (by_rates.decay_steps, by_rates.decay_rates) == ((1, 2), (0.05, 3.0))
    assert stretch(CONFIG, 0.5) == CONFIG
