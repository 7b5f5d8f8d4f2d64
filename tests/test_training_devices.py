"""One network trained on eight devices, against the same on one.

A process sees as many CPU devices as XLA was told of when it started, and that of the tests has one.
So what needs several is computed once by this file, run as a script in a process of its own with
eight, and the tests look at what it wrote.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from training_data import KEY, SHAPE, Convolutional, Linear, make_dataset

from eigen_jax import checkpoint, platforms
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.teacher.logits import CachedLogits
from eigen_jax.training import (
    DivergedError,
    TrainConfig,
    TrainConfigError,
    TrainState,
    abstract_state,
    batch_shapes,
    epoch_order,
    evaluate,
    init_state,
    loop,
    prepare_training,
    programs,
    train_to,
)
from eigen_jax.training.programs import in_background

STEPS, HALF, CHUNK = 20, 10, 6

conv = partial(Layer, op="conv", channels=16, kernel=3, stride=1)
NETWORK = build_network(
    Architecture(
        input_shape=SHAPE,
        layers=(
            conv(inputs=(-1,)),
            Layer(op="pool", inputs=(0,)),
            conv(inputs=(0,), stride=2),
            Layer(op="concat", inputs=(1, 2)),
            conv(inputs=(3,), kernel=1),
        ),
    ),
    num_classes=3,
)
POINTWISE = build_network(
    Architecture(input_shape=SHAPE, layers=(conv(inputs=(-1,), kernel=1),)),
    num_classes=3,
)
CONFIG = TrainConfig(batch_size=16, learning_rate=0.05, decay_steps=(12,), pad=1, eval_batch_size=10)
CHUNKED = dataclasses.replace(platforms.GPU, steps_per_call=CHUNK)
DATASET = make_dataset(num_train=70)  # epochs of four batches

# Sums of float32 in another order, after twenty steps.
LOSS_TOLERANCE = 1e-4
STATE_TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def on_devices(devices: int, config: TrainConfig = CONFIG) -> TrainConfig:
    return dataclasses.replace(config, devices=devices)


def teacher_of(kind: str) -> CachedLogits | None:
    if kind == "plain":
        return None
    logits = np.random.default_rng(4).normal(size=(70, 18, 3)).astype(np.float16)  # 3 x 3 crops, flipped or not
    return CachedLogits(logits=jnp.asarray(logits), slots=jnp.arange(18, dtype=jnp.int32), fingerprint="random")


def new_state(network=NETWORK, config: TrainConfig = CONFIG) -> TrainState:
    return init_state(jax.random.key(3), network=network, config=config, input_shape=SHAPE)


def train(
    state: TrainState, until: int, *, devices: int, kind: str = "plain", network=NETWORK
) -> tuple[TrainState, dict[str, Any]]:
    """The state, and the loss of every call, the accuracies, and where the state lies."""
    losses: list[float] = []
    config = on_devices(devices)
    with mock.patch.object(loop, "CHECK_EVERY", 1):
        state, report = train_to(
            KEY,
            state,
            DATASET,
            until,
            network=network,
            config=config,
            teacher=teacher_of(kind),
            on_progress=lambda step, loss, rate: losses.append(loss),
        )
    images, labels = DATASET.validation_images, DATASET.validation_labels
    shares = [report.accuracy, evaluate(state, images, labels, network=network, batch_size=config.eval_batch_size)]
    homes = sorted({str(leaf.sharding) for leaf in jax.tree.leaves(state)})
    return state, {"losses": losses, "accuracies": shares, "homes": homes}


def halves_dataset() -> Dataset:
    """One batch of 16 images, drawn bright for the first four of eight devices and dark for the others."""
    images = np.random.default_rng(5).normal(size=(16, *SHAPE))
    order = np.asarray(epoch_order(KEY, 0, num_examples=16))
    images[order[:8]] += 5
    images[order[8:]] -= 5
    labels = jnp.arange(16, dtype=jnp.int32) % 3
    return dataclasses.replace(DATASET, train_images=jnp.asarray(images, jnp.float32), train_labels=labels)


HALVES_CONFIG = dataclasses.replace(CONFIG, pad=0, flip=False)


# --- the script --------------------------------------------------------------------------------------


def main(folder: Path) -> None:
    """Everything that needs eight devices; one file of states, one of numbers."""
    states: dict[str, TrainState] = {}
    results: dict[str, Any] = {"devices": jax.local_device_count()}

    def run(name: str, state: TrainState, until: int, **how: Any) -> None:
        states[name], results[name] = train(state, until, **how)

    run("mimicry 1", new_state(), STEPS, devices=1, kind="mimicry")
    results["built"] = {"single": prepare_and(partial(run, "mimicry 8"))}
    with mock.patch.object(platforms, "current", return_value=CHUNKED):
        results["built"]["chunks"] = prepare_and(partial(run, "chunks 8"))
    for devices in (1, 8):
        run(f"plain {devices}", new_state(), STEPS, devices=devices)
        run(f"linear {devices}", new_state(Linear()), STEPS, devices=devices, network=Linear())

    before = new_state()
    half, results["half"] = train(before, HALF, devices=8)
    checkpoint.save(folder / "checkpoints", HALF, {"state": half})
    # Not a copy from before: what the host has looked at, a program cannot overwrite.
    chex.assert_trees_all_equal(before, new_state())
    restored = checkpoint.restore(folder / "checkpoints", "state", abstract=half)
    run("from eight to two", restored, STEPS, devices=2)

    halves = halves_dataset()
    states["halves"], _ = train_to(
        KEY, new_state(POINTWISE), halves, 1, network=POINTWISE, config=on_devices(8, HALVES_CONFIG)
    )
    results["errors"] = errors()
    (folder / "states.msgpack").write_bytes(serialization.to_bytes(jax.device_get(states)))
    (folder / "results.json").write_text(json.dumps(results))


def errors() -> dict[str, str]:
    """What is raised where training cannot be."""

    def line(error: type[Exception], function, *arguments: Any, **named: Any) -> str:
        try:
            function(*arguments, **named)
        except error as caught:
            return f"{type(caught).__name__}: {caught}"
        return "none"

    sixteen, eight = on_devices(16), on_devices(8)
    huge = dataclasses.replace(eight, learning_rate=1e38)
    return {
        "too many": line(TrainConfigError, train_to, KEY, new_state(), DATASET, 1, network=NETWORK, config=sixteen),
        "too many, of shapes": line(TrainConfigError, batch_shapes, KEY, DATASET, config=sixteen),
        "no axis": line(
            TrainConfigError,
            train_to,
            KEY,
            new_state(Convolutional()),
            DATASET,
            1,
            network=Convolutional(),
            config=eight,
        ),
        # The loss of the one step is finite; what it makes of the parameters is not.
        "diverged": line(DivergedError, train_to, KEY, new_state(Linear()), DATASET, 1, network=Linear(), config=huge),
    }


def prepare_and(run) -> list[int]:
    """Trains with mimicry; the programs that were built ahead, and those once it is through."""
    config = on_devices(8)
    with mock.patch.object(programs, "_store", programs._Store(16, 1_000)):
        shapes = batch_shapes(KEY, DATASET, config=config, teacher=teacher_of("mimicry"))
        prepare_training(jax.random.key(3), None, DATASET, STEPS, shapes, network=NETWORK, config=config)
        done = threading.Event()
        in_background(done.set)
        assert done.wait(60)
        ahead = programs._store._built
        run(new_state(config=config), STEPS, devices=8, kind="mimicry")
        return [ahead, programs._store._built]


# --- the tests ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the script wrote."""

    folder: Path
    results: dict[str, Any]
    states: dict[str, TrainState]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Outcome:
    folder = tmp_path_factory.mktemp("devices")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    script = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert script.returncode == 0, script.stderr
    results = json.loads((folder / "results.json").read_text())
    assert results["devices"] == 8
    shapes = {name: new_state(network) for name, network in networks(results).items()}
    return Outcome(folder, results, serialization.from_bytes(shapes, (folder / "states.msgpack").read_bytes()))


def networks(results: dict[str, Any]) -> dict[str, Any]:
    trained = {name: NETWORK for name, result in results.items() if isinstance(result, dict) and "losses" in result}
    del trained["half"]
    return trained | {"linear 1": Linear(), "linear 8": Linear(), "halves": POINTWISE}


@pytest.mark.parametrize("kind", ["plain", "mimicry", "linear"])
def test_eight_devices_train_as_one_does(outcome, kind):
    one, eight = outcome.results[f"{kind} 1"], outcome.results[f"{kind} 8"]
    assert len(one["losses"]) == STEPS
    assert one["losses"][-1] < one["losses"][0]
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=LOSS_TOLERANCE)
    assert eight["accuracies"] == one["accuracies"]
    chex.assert_trees_all_close(outcome.states[f"{kind} 8"], outcome.states[f"{kind} 1"], **STATE_TOLERANCE)
    assert outcome.states[f"{kind} 8"].step == STEPS


def test_chunks_of_steps_on_eight_devices_are_the_steps_of_one(outcome):
    one, chunks = outcome.results["mimicry 1"], outcome.results["chunks 8"]
    whole = STEPS // CHUNK * CHUNK  # the steps after it are single calls
    means = [*np.reshape(one["losses"][:whole], (-1, CHUNK)).mean(axis=1), *one["losses"][whole:]]
    np.testing.assert_allclose(chunks["losses"], means, rtol=LOSS_TOLERANCE)
    assert chunks["accuracies"] == one["accuracies"]
    chex.assert_trees_all_close(outcome.states["chunks 8"], outcome.states["mimicry 1"], **STATE_TOLERANCE)


def test_the_state_comes_back_to_the_device_that_it_came_from(outcome):
    assert outcome.results["plain 8"]["homes"] == outcome.results["plain 1"]["homes"]
    assert len(outcome.results["plain 8"]["homes"]) == 1


def test_a_checkpoint_from_eight_devices_goes_on_on_two_and_in_a_process_that_has_one(outcome):
    whole = outcome.results["plain 8"]["losses"]
    assert outcome.results["half"]["losses"] == pytest.approx(whole[:HALF], rel=LOSS_TOLERANCE)
    two = outcome.results["from eight to two"]["losses"]
    np.testing.assert_allclose(two, whole[HALF:], rtol=LOSS_TOLERANCE)

    abstract = abstract_state(network=NETWORK, config=CONFIG, input_shape=SHAPE)
    restored = checkpoint.restore(outcome.folder / "checkpoints", "state", abstract=abstract)
    state, one = train(restored, STEPS, devices=1)
    np.testing.assert_allclose(one["losses"], whole[HALF:], rtol=LOSS_TOLERANCE)
    for other in (state, outcome.states["from eight to two"]):
        chex.assert_trees_all_close(other, outcome.states["plain 8"], **STATE_TOLERANCE)


def test_batch_statistics_are_those_of_the_whole_batch(outcome):
    state = new_state(POINTWISE)
    kernel = np.asarray(state.params["layer_0"]["conv"]["kernel"], np.float64)[0, 0]
    dataset = halves_dataset()
    order = np.asarray(epoch_order(KEY, 0, num_examples=16))
    maps = np.asarray(dataset.train_images, np.float64)[order] @ kernel
    running = outcome.states["halves"].batch_stats["layer_0"]["norm"]
    variance = maps.var(axis=(0, 1, 2))
    np.testing.assert_allclose(running["mean"], 0.1 * maps.mean(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * variance, rtol=1e-5)
    # What devices would find that do not ask one another is something else.
    alone = maps.reshape(8, 2, *maps.shape[1:]).var(axis=(1, 2, 3)).mean(axis=0)
    assert (variance > 2 * alone).any()


@pytest.mark.parametrize("calls", ["single", "chunks"])
def test_what_was_prepared_is_all_that_is_compiled(outcome, calls):
    ahead, in_all = outcome.results["built"][calls]
    assert ahead == {"single": 3, "chunks": 4}[calls]  # initial state, evaluation, and a step or a chunk and a step
    assert in_all == ahead


def test_what_cannot_be_trained_on_several_devices_gets_one_line(outcome):
    too_many = "TrainConfigError: devices is 16; this process has only 8: ask for at most 8"
    assert outcome.results["errors"] == {
        "too many": too_many,
        "too many, of shapes": too_many,
        "no axis": (
            "TrainConfigError: Convolutional has batch statistics and no field axis_name"
            " to average them over devices: train it on 1 device"
        ),
        "diverged": mock.ANY,
    }
    assert outcome.results["errors"]["diverged"].startswith("DivergedError: training diverged by step 1: ")
    assert "loss is nan" not in outcome.results["errors"]["diverged"]


def test_more_devices_than_this_process_has_get_one_line():
    with pytest.raises(TrainConfigError) as caught:
        train_to(KEY, new_state(), DATASET, 1, network=NETWORK, config=on_devices(16))
    present = jax.local_device_count()
    assert str(caught.value) == f"devices is 16; this process has only {present}: ask for at most {present}"


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"devices": 0}, "devices is 0; it must be at least 1"),
        ({"devices": 3, "batch_size": 16}, "batch_size is 16; it must be a multiple of devices, which is 3"),
    ],
)
def test_settings_that_cannot_be_get_one_line(setting, line):
    with pytest.raises(TrainConfigError) as caught:
        TrainConfig(**setting)
    assert str(caught.value) == line


if __name__ == "__main__":
    main(Path(sys.argv[1]))
