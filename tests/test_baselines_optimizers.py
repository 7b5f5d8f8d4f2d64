"""SGD by groups of parameters, against plain NumPy step by step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax.baselines.optimizers import Group, GroupedSGD, clip_norms
from eigen_jax.training import OPTIMIZERS, TrainConfig, make_optimizer

SHAPES = {"conv_1": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "classifier": {"kernel": (4, 2), "bias": (2,)}}


def drawn(seed: int) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {layer: {name: rng.normal(size=shape) for name, shape in own.items()} for layer, own in SHAPES.items()}


def trained(optimizer: str | GroupedSGD, steps: int, **config: Any) -> Any:
    """The parameters after so many steps of gradients that are drawn."""
    made = make_optimizer(TrainConfig(optimizer=optimizer, **config))
    params: Any = jax.tree.map(lambda each: jnp.asarray(each, jnp.float32), drawn(0))
    state = made.init(params)
    for step in range(steps):
        gradients = jax.tree.map(lambda each: jnp.asarray(each, jnp.float32), drawn(1 + step))
        updates, state = jax.jit(made.update)(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def by_hand(steps: int, rates: Any, decays: Any, momenta: Any, *, nesterov: bool = False, norms: Any = None) -> Any:
    """The same in NumPy: `rates`, `decays` and `norms` by layer and name, `rates` and `momenta` of the step."""
    params = drawn(0)
    velocities = jax.tree.map(np.zeros_like, params)
    for step in range(steps):
        for layer, own in drawn(1 + step).items():
            for name, gradient in own.items():
                gradient = gradient + decays(layer, name) * params[layer][name]
                velocity = momenta(step) * velocities[layer][name] + gradient
                velocities[layer][name] = velocity
                direction = gradient + momenta(step) * velocity if nesterov else velocity
                moved = params[layer][name] - rates(layer, name, step) * direction
                most = norms(layer, name) if norms else None
                if most is not None:
                    for unit in np.ndindex(moved.shape[-1]):
                        length = np.sqrt((moved[..., unit] ** 2).sum())
                        moved[..., unit] *= min(1, most / length)
                params[layer][name] = moved
    return params


def assert_equal(one: Any, two: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), one, two)


@pytest.mark.parametrize("name", ["nin", "nin-cifar100", "highway"])
def test_biases_and_the_last_layer_have_rates_and_decays_of_their_own(name):
    def rate(layer: str, part: str, step: int) -> float:
        last = 0.1 if layer == "classifier" and name == "nin" else 1.0
        return 0.05 * (0.5 if step >= 2 else 1.0) * last * (2 if part == "bias" else 1)

    def decay(layer: str, part: str) -> float:
        return 0 if part == "bias" else 0.1 if layer == "classifier" and name == "highway" else 0.01

    nesterov = name == "highway"
    config = {"learning_rate": 0.05, "weight_decay": 0.01, "decay_steps": (2,), "decay_rate": 0.5, "nesterov": nesterov}
    assert_equal(trained(name, 4, **config), by_hand(4, rate, decay, lambda step: 0.9, nesterov=nesterov))


def test_maxout_has_a_rising_momentum_and_norms_that_are_bounded():
    groups = (
        Group("conv_1/.*", rate=0.05),
        Group("conv_1/kernel", max_norm=0.9),
        Group("classifier/kernel", max_norm=1.0),
    )
    made = GroupedSGD(groups=groups, final_momentum=0.65)
    config = {"learning_rate": 0.3, "weight_decay": 0.0, "decay_steps": (8,), "decay_rate": 0.01, "momentum": 0.5}

    def rate(layer: str, part: str, step: int) -> float:
        return 0.3 * (1 - 0.99 * min(step, 8) / 8) * (0.05 if layer == "conv_1" else 1.0)

    def norm(layer: str, part: str) -> float | None:
        return None if part == "bias" else 0.9 if layer == "conv_1" else 1.0

    expected = by_hand(6, rate, lambda layer, part: 0.0, lambda step: 0.5 + 0.15 * min(step, 4) / 4, norms=norm)
    own = trained(made, 6, schedule="linear", **config)
    assert_equal(own, expected)
    norms = np.linalg.norm(own["conv_1"]["kernel"].reshape(-1, 4), axis=0)
    assert norms.max() == pytest.approx(0.9, rel=1e-5)
    assert norms.min() < 0.89


def test_short_weights_are_left_as_they_are_and_long_ones_shortened():
    weights = jnp.array([[3.0, 0.3, 0.0], [4.0, 0.4, 0.0]])
    np.testing.assert_allclose(clip_norms(weights, 1.0), [[0.6, 0.3, 0.0], [0.8, 0.4, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(("stage", "slower"), [(50_000, 1.0), (500, 100.0), (None, 1.0)])
def test_companion_heads_learn_at_a_thousandth_of_a_rate_that_fades_over_their_stage(stage, slower):
    for name, bias in (("dsn", 2.0), ("sgd-companions", 1.0)):
        config = TrainConfig(
            optimizer=name, learning_rate=0.5, decay_steps=(), momentum=0.0, weight_decay=0.0, companion_steps=stage
        )
        optimizer = OPTIMIZERS[name](config)
        params: Any = {
            "companion_2": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
            "conv_1": {"kernel": jnp.ones(1)},
        }
        state = optimizer.init(params)
        for step in range(3):
            updates, state = optimizer.update(params, state, params)
            faded = 0.5 * 0.001 * (1 + 1e-4 * slower * step) ** -0.75
            np.testing.assert_allclose(updates["companion_2"]["kernel"], -faded, rtol=1e-6)
            np.testing.assert_allclose(updates["companion_2"]["bias"], -bias * faded, rtol=1e-6)
            np.testing.assert_allclose(updates["conv_1"]["kernel"], -0.5, rtol=1e-6)
