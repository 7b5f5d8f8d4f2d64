"""One network trained on several devices, against the same on one.

A process sees as many CPU devices as XLA was told of when it started, and that of the tests has one.
So what needs several is computed once by this file, run as a script in a process of its own with
two or eight, and the tests look at what it wrote.
"""

import dataclasses
import itertools
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from layer_data import concat, conv, network, pool
from training_data import KEY, SHAPE, Convolutional, Linear, cached_teacher, make_dataset, wait_for_background

from eigen_jax import platforms
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.store import checkpoint
from eigen_jax.training import Programs, Training, batch_shapes, devices, evaluate, loop, prepare_training, train_to
from eigen_jax.training.config import DivergedError, TrainConfig
from eigen_jax.training.step import TrainState, abstract_state, draw_batches, epoch_order, init_state, train_step

STEPS, HALF, CHUNK = 20, 10, 6
KINDS = {2: ("mimicry",), 8: ("mimicry", "plain", "linear")}  # of training, by the number of devices

LAYERS = conv(-1, 16), pool(0), conv(0, 16, stride=2), concat(1, 2), conv(3, 16, kernel=1)
NETWORK, POINTWISE = (
    build_network(network(*layers, input_shape=SHAPE), num_classes=3) for layers in (LAYERS, [conv(-1, 16, kernel=1)])
)
CONFIG = TrainConfig(batch_size=16, learning_rate=0.05, decay_steps=(12,), pad=1, eval_batch_size=10, averaging=0.8)
DATASET, TEACHER = make_dataset(num_train=70), cached_teacher(count=70)  # epochs of four batches

# Sums of float32 in another order, after twenty steps.
LOSS_TOLERANCE = 1e-4
STATE_TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def on_devices(devices: int, **changes: Any) -> TrainConfig:
    return dataclasses.replace(CONFIG, devices=devices, **changes)


def own_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The user's, with a state of its own kind."""
    rate = optax.linear_schedule(-config.learning_rate, 0.0, STEPS)
    return optax.chain(optax.trace(0.5), optax.scale_by_schedule(lambda count: rate(jnp.float32(count))))


OPTIMIZERS = {"linear": own_optimizer}  # by the kind of training


def new_state(network=NETWORK, config: TrainConfig = CONFIG, programs: Programs | None = None) -> TrainState:
    return init_state(jax.random.key(3), network=network, config=config, input_shape=SHAPE, programs=programs)


def train(
    state: TrainState, until: int, *, devices: int, kind: str = "mimicry", programs: Programs | None = None
) -> tuple[TrainState, dict[str, Any]]:
    """The state, and the loss of every call, the accuracies, and where the state lies."""
    losses: list[float] = []
    module = Linear() if kind == "linear" else NETWORK
    teacher = TEACHER if kind == "mimicry" else None
    options: dict[str, Any] = {"network": module, "programs": programs}
    with mock.patch.object(loop, "CHECK_EVERY", 1):
        told: dict[str, Any] = {"on_progress": lambda step, loss, rate: losses.append(loss), "teacher": teacher}
        config = on_devices(devices, optimizer=OPTIMIZERS.get(kind, "sgd"))
        state, report = train_to(KEY, state, DATASET, until, config=config, **told, **options)
    images, labels = DATASET.validation_images, DATASET.validation_labels
    shares = [report.accuracy, evaluate(state, images, labels, batch_size=10, **options)]
    homes = sorted({str(leaf.sharding) for leaf in jax.tree.leaves(state)})
    return state, {"losses": losses, "accuracies": shares, "homes": homes}


def train_by_pmap(devices: int) -> tuple[TrainState, list[float]]:
    """What a user of `jax.pmap` writes: the states of all devices, [devices, ...] each, and the loss of each step."""
    config = CONFIG  # of one device: pmap divides the batches
    module = build_network(NETWORK.architecture, num_classes=3, axis_name="batch")
    step = partial(train_step, network=module, config=config, axis_name="batch")
    run, losses = jax.pmap(step, axis_name="batch"), []
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), new_state(module))
    batches = draw_batches(KEY, DATASET, 0, config=config, teacher=TEACHER)
    for batch in itertools.islice(batches, STEPS):
        shares = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), batch)
        states, metrics = run(states, shares)
        losses.append(float(metrics.loss[0]))
    return states, losses


def halves_dataset() -> Dataset:
    """One batch of 16 images, drawn bright for the first half of the devices and dark for the others."""
    images = np.random.default_rng(5).normal(size=(16, *SHAPE))
    order = np.asarray(epoch_order(KEY, 0, num_examples=16))
    images[order[:8]] += 5
    images[order[8:]] -= 5
    labels = jnp.arange(16, dtype=jnp.int32) % 3
    return dataclasses.replace(DATASET, train_images=jnp.asarray(images, jnp.float32), train_labels=labels)


def main(folder: Path, devices: int) -> None:
    """Everything that needs several devices."""
    states: dict[str, TrainState] = {}
    results: dict[str, Any] = {"devices": jax.local_device_count()}

    def run(name: str, state: TrainState, until: int, **how: Any) -> None:
        states[name], results[name] = train(state, until, **how)

    built = {"single": prepare_and(partial(run, "mimicry on all"), devices)}
    with mock.patch.object(platforms, "current", return_value=dataclasses.replace(platforms.GPU, steps_per_call=CHUNK)):
        built["chunks"] = prepare_and(partial(run, "chunks on all"), devices)
    run("mimicry on one", new_state(), STEPS, devices=1)
    for kind in KINDS[devices][1:]:
        for name, count in {"one": 1, "all": devices}.items():
            config = on_devices(1, optimizer=OPTIMIZERS.get(kind, "sgd"))
            state = new_state(Linear() if kind == "linear" else NETWORK, config)
            run(f"{kind} on {name}", state, STEPS, devices=count, kind=kind)

    states["pmap"], results["pmap"] = train_by_pmap(devices)
    before = new_state()
    half, results["half"] = train(before, HALF, devices=devices)
    checkpoint.save(folder / "checkpoints", HALF, {"state": half})
    # Not a copy from before: what the host has looked at, a program cannot overwrite.
    chex.assert_trees_all_equal(before, new_state())
    restored = checkpoint.restore(folder / "checkpoints", "state", abstract=half)
    run("from all to a quarter", restored, STEPS, devices=max(1, devices // 4))

    options: dict[str, Any] = {"network": POINTWISE, "config": on_devices(devices, pad=0, flip=False)}
    states["halves"], _ = train_to(KEY, new_state(POINTWISE), halves_dataset(), 1, **options)
    results |= {"built": built, "errors": errors(devices)}
    (folder / "outcome.pickle").write_bytes(pickle.dumps((jax.device_get(states), results)))


def errors(devices: int) -> dict[str, str]:
    """What is raised where training cannot be."""

    def line(function, *arguments: Any, **named: Any) -> str:
        try:
            function(*arguments, **named)
        except (ConfigError, DivergedError) as caught:
            return f"{type(caught).__name__}: {caught}"
        return "none"

    def line_of_step(network, config: TrainConfig) -> str:
        return line(train_to, KEY, new_state(network), DATASET, 1, network=network, config=config)

    return {
        "too many": line_of_step(NETWORK, on_devices(16)),
        "too many, of shapes": line(batch_shapes, KEY, DATASET, config=on_devices(16)),
        "no axis": line_of_step(Convolutional(), on_devices(devices)),
        # The loss of the one step is finite; what it makes of the parameters is not.
        "diverged": line_of_step(Linear(), on_devices(devices, learning_rate=1e38)),
    }


def prepare_and(run, devices: int) -> list[int]:
    """Trains with mimicry; the programs that were built ahead, and those once it is through."""
    config = on_devices(devices)
    training = Training(key=jax.random.key(3), dataset=DATASET, network=NETWORK, config=config)
    shapes = batch_shapes(KEY, DATASET, config=config, teacher=TEACHER)
    with Programs() as programs:
        prepare_training(training, STEPS, shapes, programs=programs)
        wait_for_background(programs)
        ahead = len(programs._programs)
        run(new_state(config=config, programs=programs), STEPS, devices=devices, programs=programs)
        return [ahead, len(programs._programs)]


@pytest.fixture(scope="module", params=[2, pytest.param(8, marks=pytest.mark.slow)])
def outcome(request, tmp_path_factory) -> SimpleNamespace:
    """What the script wrote."""
    folder, devices = tmp_path_factory.mktemp("devices"), request.param
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    command = [sys.executable, __file__, str(folder), str(devices)]
    script = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert script.returncode == 0, script.stderr
    states, results = pickle.loads((folder / "outcome.pickle").read_bytes())
    assert results["devices"] == devices
    return SimpleNamespace(devices=devices, folder=folder, states=states, results=results)


def test_several_devices_train_as_one_does_in_steps_and_in_chunks_of_them(outcome):
    for kind in KINDS[outcome.devices]:
        one, several = (outcome.results[f"{kind} on {number}"] for number in ("one", "all"))
        assert len(one["losses"]) == STEPS
        assert one["losses"][-1] < one["losses"][0]
        np.testing.assert_allclose(several["losses"], one["losses"], rtol=LOSS_TOLERANCE)
        assert several["accuracies"] == one["accuracies"]
        # The state comes back to the device that it came from.
        assert several["homes"] == one["homes"]
        assert len(one["homes"]) == 1
        state = outcome.states[f"{kind} on all"]
        chex.assert_trees_all_close(state, outcome.states[f"{kind} on one"], **STATE_TOLERANCE)
        assert state.step == STEPS
    # So do chunks of steps.
    one, chunks = outcome.results["mimicry on one"], outcome.results["chunks on all"]
    whole = STEPS // CHUNK * CHUNK  # the steps after it are single calls
    means = [*np.reshape(one["losses"][:whole], (-1, CHUNK)).mean(axis=1), *one["losses"][whole:]]
    np.testing.assert_allclose(chunks["losses"], means, rtol=LOSS_TOLERANCE)
    assert chunks["accuracies"] == one["accuracies"]
    state = outcome.states["chunks on all"]
    chex.assert_trees_all_close(state, outcome.states["mimicry on one"], **STATE_TOLERANCE)


def test_pmap_trains_as_one_device_and_as_the_searchs_own_path_do(outcome):
    first = jax.tree.map(lambda leaf: leaf[0], outcome.states["pmap"])
    for name in ("mimicry on one", "mimicry on all"):
        np.testing.assert_allclose(outcome.results["pmap"], outcome.results[name]["losses"], rtol=LOSS_TOLERANCE)
        chex.assert_trees_all_close(first, outcome.states[name], **STATE_TOLERANCE)
    replicas = jax.tree.map(lambda leaf: np.broadcast_to(leaf[:1], leaf.shape), outcome.states["pmap"])
    chex.assert_trees_all_equal(outcome.states["pmap"], replicas)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(replicas)} == {outcome.devices}


def test_a_checkpoint_from_several_devices_goes_on_on_fewer_and_in_a_process_that_has_one(outcome):
    whole = outcome.results["mimicry on all"]["losses"]
    assert outcome.results["half"]["losses"] == pytest.approx(whole[:HALF], rel=LOSS_TOLERANCE)

    abstract = abstract_state(network=NETWORK, config=CONFIG, input_shape=SHAPE)
    restored = checkpoint.restore(outcome.folder / "checkpoints", "state", abstract=abstract)
    fewer = outcome.states["from all to a quarter"], outcome.results["from all to a quarter"]
    for state, result in (fewer, train(restored, STEPS, devices=1)):
        np.testing.assert_allclose(result["losses"], whole[HALF:], rtol=LOSS_TOLERANCE)
        chex.assert_trees_all_close(state, outcome.states["mimicry on all"], **STATE_TOLERANCE)


def test_batch_statistics_are_those_of_the_whole_batch(outcome):
    kernel = np.asarray(new_state(POINTWISE).params["layer_0"]["conv"]["kernel"], np.float64)[0, 0]
    order = np.asarray(epoch_order(KEY, 0, num_examples=16))
    maps = np.asarray(halves_dataset().train_images, np.float64)[order] @ kernel
    running = outcome.states["halves"].batch_stats["layer_0"]["norm"]
    variance = maps.var(axis=(0, 1, 2))
    np.testing.assert_allclose(running["mean"], 0.1 * maps.mean(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * variance, rtol=1e-5)
    # What devices would find that do not ask one another is something else.
    alone = maps.reshape(outcome.devices, -1, *maps.shape[1:]).var(axis=(1, 2, 3)).mean(axis=0)
    assert (variance > 2 * alone).any()


def test_what_was_prepared_is_all_that_is_compiled(outcome):
    # Initial state, evaluation, and a step or a chunk and a step: ahead, and in all.
    assert outcome.results["built"] == {"single": [3, 3], "chunks": [4, 4]}


def test_what_cannot_be_trained_on_several_devices_gets_one_line(outcome):
    present = outcome.devices
    too_many = f"ConfigError: devices is 16; this process has only {present}: ask for at most {present}"
    no_axis = (
        "ConfigError: Convolutional has batch statistics and no field axis_name"
        " to average them over devices: train it on 1 device"
    )
    diverged = outcome.results["errors"].pop("diverged")
    assert outcome.results["errors"] == {"too many": too_many, "too many, of shapes": too_many, "no axis": no_axis}
    assert diverged.startswith("DivergedError: training diverged by step 1: ")
    assert "loss is nan" not in diverged


def test_transfers_between_gpus_are_scheduled_where_several_share_a_batch(monkeypatch):
    scheduler, mesh = "xla_gpu_enable_latency_hiding_scheduler", jax.sharding.Mesh(jax.devices()[:1], (devices.AXIS,))
    monkeypatch.setattr(platforms, "current", lambda: platforms.GPU)
    monkeypatch.setattr(devices, "_mesh", lambda count: mesh)
    monkeypatch.setattr(devices, "compiled", lambda *arguments, **how: how["options"])
    state, batch = new_state(), batch_shapes(KEY, DATASET, config=CONFIG)
    for count, is_scheduled in ((1, False), (2, True)):
        how: dict[str, Any] = {"network": NETWORK, "config": on_devices(count), "programs": None}
        assert devices.compile_call(state, batch, 1, **how) == {
            **platforms.GPU.compiler_options,
            scheduler: is_scheduled,
        }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
