"""What an evaluation measures besides accuracy: the loss against NumPy, times against a network that sleeps."""

import itertools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from reference_layers import log_softmax
from training_data import SHAPE, Linear, make_dataset, new_state

from eigen_jax.training import Programs, evaluation, latency, mean_loss, predict, predict_timed

SLEEP = 0.02  # seconds


class Sleepy(nn.Module):
    """Takes its time for each batch, however large."""

    @nn.compact
    def __call__(self, images, *, train):
        def wait(pixels):
            time.sleep(SLEEP)
            return pixels

        shape = jax.ShapeDtypeStruct((images.shape[0], 3), images.dtype)
        return jax.pure_callback(wait, shape, images[:, 0, :3, 0])


def test_the_mean_loss_is_of_float64():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=9, size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    expected = -log_softmax(logits.astype(np.float64))[np.arange(50), labels].mean()
    assert mean_loss(logits, jnp.asarray(labels)) == pytest.approx(expected, rel=1e-12)
    # One of two equal logits is right with probability 1/2.
    assert mean_loss(np.zeros((3, 2), np.float32), jnp.array([0, 1, 1])) == pytest.approx(math.log(2), rel=1e-12)
    assert mean_loss(np.array([[3e38, -3e38]], np.float32), jnp.array([1])) == pytest.approx(6e38, rel=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_none(wrong):
    assert mean_loss(np.array([[0, 1], [wrong, 0]], np.float32), jnp.array([0, 0])) is None


@pytest.mark.parametrize(("size", "calls"), [(1, 4), (10, 4), (25, 4), (40, 4), (41, 5), (65, 7)])
def test_a_batch_takes_the_median_of_all_calls_but_the_first_and_of_at_least_three(size, calls, monkeypatch):
    images = make_dataset(num_validation=size).validation_images
    state, reads = new_state(Linear()), itertools.count()
    durations = [900.0, 5.0, 1.0, 3.0, 2.0, 7.0, 9.0]
    # The clock is read before and after each call.
    clock = list(itertools.chain(*((100.0, 100.0 + each) for each in durations)))
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: clock[next(reads)])
    logits, seconds = predict_timed(state.variables, images, network=Linear(), batch_size=10)
    assert seconds == np.median(durations[1:calls])
    assert next(reads) == 2 * calls
    monkeypatch.undo()
    assert logits.tobytes() == predict(state.variables, images, network=Linear(), batch_size=10).tobytes()


@pytest.mark.parametrize(
    ("durations", "calls"), [([0.09] * 10, 10), ([0.3, 0.3, 0.3, 0.3], 4), ([5.0] * 3, 3)], ids=["ten", "some", "three"]
)
def test_one_image_is_timed_some_ten_times_within_a_second(durations, calls, monkeypatch):
    images, state, reads = make_dataset(num_validation=2).validation_images, new_state(Linear()), itertools.count()
    clock = list(itertools.chain(*((7.0, 7.0 + each) for each in (40.0, *durations))))
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: clock[next(reads)])
    assert latency(state.variables, images, network=Linear()) == pytest.approx(durations[0])
    assert next(reads) == 2 * (1 + calls)


def test_times_are_those_of_the_device_to_its_end():
    images = jnp.zeros((20, *SHAPE))
    with Programs() as programs:
        of_one = latency({}, images, network=Sleepy(), programs=programs)
        _, of_batch = predict_timed({}, images, network=Sleepy(), batch_size=20, programs=programs)
    assert SLEEP <= of_one < 10 * SLEEP
    assert SLEEP <= of_batch < 10 * SLEEP


@pytest.mark.slow
def test_the_latency_of_a_network_is_of_the_order_of_a_timing_by_hand():
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            x = nn.Dense(2_000)(images.reshape(images.shape[0], -1))
            return nn.Dense(2_000)(nn.relu(x))

    images, network = jnp.ones((8, *SHAPE)), Wide()
    variables = network.init(jax.random.key(0), images, train=False)
    measured = latency(variables, images, network=network)
    program = jax.jit(lambda variables, image: network.apply(variables, image, train=False))
    times = []
    for number in range(11):
        began = time.perf_counter()
        jax.block_until_ready(program(variables, images[number % 8][None]))
        times.append(time.perf_counter() - began)
    assert np.median(times[1:]) / 5 < measured < 5 * np.median(times[1:])
