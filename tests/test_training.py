"""Training and evaluation: arithmetic against NumPy float64, mimicry, resuming, divergence, trace budgets."""

import dataclasses
import itertools
import math
import pickle
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference_layers import log_softmax
from refusals import refuses
from training_data import KEY, SHAPE, SMALL, TRACES, Convolutional, Linear, LiveTeacher, make_dataset, new_state

from eigen_jax.config import name_of
from eigen_jax.data import apply_views
from eigen_jax.errors import ConfigError
from eigen_jax.store import checkpoint
from eigen_jax.teacher import TeacherConfig
from eigen_jax.training.config import DivergedError, TrainConfig, make_optimizer, make_schedule
from eigen_jax.training.evaluation import accuracy, evaluate, predict
from eigen_jax.training.loop import CHECK_EVERY, batch_shapes, train_to
from eigen_jax.training.step import Batch, abstract_state, draw_batch, epoch_order, start_from, train_step

BOTH = [TrainConfig, TeacherConfig]

take_step = jax.jit(train_step, static_argnames=("network", "config"))


def train(state, until, *, key=KEY, dataset=None, network=None, config=SMALL, **options):
    """Training of the usual network on the usual data, in epochs of four steps."""
    dataset, network = dataset or make_dataset(), network or Convolutional()
    return train_to(key, state, dataset, until, network=network, config=config, **options)


def test_learning_rate_falls_tenfold_at_15000_and_at_20000_steps_and_is_constant_without_decay_steps():
    steps = [0, 14_999, 15_000, 19_999, 20_000, 24_999]
    rates = [make_schedule(TrainConfig())(jnp.int32(step)) for step in steps]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)
    np.testing.assert_allclose(make_schedule(TrainConfig(decay_steps=()))(jnp.int32(90_000)), 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "steps", "rates", "expected"),
    [
        ("constant", (100, 500), (10.0, 0.5), {0: 0.02, 99: 0.02, 100: 0.2, 499: 0.2, 500: 0.1, 900: 0.1}),
        ("linear", (100, 500), (10.0, 0.0), {0: 0.02, 25: 0.065, 100: 0.2, 300: 0.1, 500: 0.0, 900: 0.0}),
        ("linear", (4, 8), (), {0: 0.02, 2: 0.011, 4: 0.002, 6: 0.0011, 8: 0.0002, 9: 0.0002}),  # a tenth at each
        ("linear", (), (), {0: 0.02, 7: 0.02}),
        ("one-cycle", (500,), (), {0: 0.002, 50: 0.011, 99: 0.01982, 100: 0.02, 300: 0.01, 499: 5e-5, 500: 0, 900: 0}),
        ("one-cycle", (5,), (), {0: 0.002, 1: 0.02, 2: 0.015, 4: 0.005, 5: 0.0}),
        ("one-cycle", (2,), (), {0: 0.002, 1: 0.02, 2: 0.0, 3: 0.0}),
        ("one-cycle", (1,), (), {0: 0.002, 1: 0.0, 2: 0.0}),
    ],
)
def test_a_schedule_jumps_or_goes_straight_from_step_to_step(schedule, steps, rates, expected):
    config = TrainConfig(learning_rate=0.02, decay_steps=steps, decay_rates=rates, schedule=schedule)
    given = [make_schedule(config)(jnp.int32(step)) for step in expected]
    assert {rate.dtype for rate in given} == {jnp.float32.dtype}
    np.testing.assert_allclose(given, list(expected.values()), rtol=1e-4, atol=0.0)  # where 0, exactly


@dataclasses.dataclass(frozen=True)
class Lion:
    """An optimizer of the user's own, with a setting."""

    decay: float = 0.0

    def __call__(self, config):
        return optax.chain(optax.lion(config.learning_rate), optax.add_decayed_weights(self.decay))


def broken(config):
    raise KeyError("rate")


@pytest.mark.parametrize(
    ("optimizer", "problem"),
    [
        (broken, "which fails with KeyError: 'rate'; mend it"),
        (make_schedule, "which gives function; it must give an optax.GradientTransformation"),
        (
            partial(Lion, 0.1),
            "which is not equal to its own copy; make it a function or a frozen dataclass",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_gets_one_line_when_the_config_is_made(optimizer, problem):
    with refuses(ConfigError, f"optimizer is {name_of(optimizer)}, {problem}"):
        TrainConfig(optimizer=optimizer)


def test_an_optimizer_of_the_users_own_trains_and_its_state_is_saved_and_gone_on_from(tmp_path):
    config = dataclasses.replace(SMALL, optimizer=Lion(decay=0.1), learning_rate=0.01)
    assert config == dataclasses.replace(SMALL, optimizer=Lion(decay=0.1), learning_rate=0.01)
    assert name_of(config.optimizer).startswith("test_training:Lion(decay=0.1) ")
    whole, _ = train(new_state(config=config), 4, config=config)
    half, _ = train(new_state(config=config), 2, config=config)
    checkpoint.save(tmp_path, 2, {"network": half})
    abstract = abstract_state(network=Convolutional(), config=config, input_shape=SHAPE)
    resumed, _ = train(checkpoint.restore(tmp_path, "network", abstract=abstract), 4, config=config)
    chex.assert_trees_all_equal(resumed, whole)
    chex.assert_trees_all_equal_structs(whole.opt_state, make_optimizer(config).init(whole.params))
    by_sgd, _ = train(new_state(), 4)
    assert (whole.params["Dense_0"]["kernel"] != by_sgd.params["Dense_0"]["kernel"]).any()


@pytest.mark.parametrize(
    ("changes", "teacher_dtype"),
    [
        ({"decay_steps": (1,), "decay_rate": 0.5}, None),
        ({"nesterov": True}, None),
        ({"averaging": 0.15}, None),
        ({"averaging": 0.15, "mimicry_weight": 0.7, "temperature": 3.0}, np.float32),
        ({"mimicry_weight": 0.7, "temperature": 3.0}, np.float32),
        ({"mimicry_weight": 0.7, "temperature": 3.0}, np.float16),
    ],
)
def test_steps_of_a_linear_network_are_sgd_with_momentum_and_weight_decay_on_equations_3_and_4(changes, teacher_dtype):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(5, *SHAPE)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 2], np.int32)
    config = TrainConfig(**{"batch_size": 5, "learning_rate": 0.2, "decay_steps": ()} | changes)
    state = new_state(Linear(), config)
    batch = Batch(images=jnp.asarray(images), labels=jnp.asarray(labels))
    share, temperature, targets = 0.0, 1.0, np.zeros((5, 3))
    if teacher_dtype is not None:
        share, temperature, teacher_logits = 0.7, 3.0, rng.normal(scale=4, size=(5, 3)).astype(teacher_dtype)
        targets = np.exp(log_softmax(teacher_logits.astype(np.float64) / 3))
        batch = dataclasses.replace(batch, teacher_logits=jnp.asarray(teacher_logits))

    inputs = images.reshape(5, -1).astype(np.float64)
    weights = {name: np.asarray(value, np.float64) for name, value in state.params["Dense_0"].items()}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    average, true = dict(weights), np.eye(3)[labels]
    for step, rate in enumerate((0.2, *[0.1 if config.decay_steps else 0.2] * 2)):
        logits = inputs @ weights["kernel"] + weights["bias"]
        plain, softened = log_softmax(logits), log_softmax(logits / temperature)
        losses = -((1 - share) * true * plain + share * temperature**2 * targets * softened).sum(axis=1)
        # Softmaxes less their targets; the square of the temperature loses one to the chain rule.
        error = (1 - share) * (np.exp(plain) - true) + share * temperature * (np.exp(softened) - targets)
        gradients = {"kernel": inputs.T @ error / 5, "bias": error.mean(axis=0)}
        for name, value in weights.items():
            gradient = gradients[name] + config.weight_decay * value
            velocity[name] = 0.9 * velocity[name] + gradient
            weights[name] = value - rate * (gradient + 0.9 * velocity[name] if config.nesterov else velocity[name])

        state, metrics = take_step(state, batch, network=Linear(), config=config)

        np.testing.assert_allclose(metrics.loss, losses.mean(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(metrics.accuracy, (logits.argmax(axis=1) == labels).mean(), rtol=1e-6)
        np.testing.assert_allclose(metrics.norm, np.sqrt(sum((w**2).sum() for w in weights.values())), rtol=1e-5)
        kept = min(config.averaging, [1 / 10, 2 / 11, 3 / 12][step])  # 0 without averaging
        average = {name: kept * average[name] + (1 - kept) * value for name, value in weights.items()}
        for name, value in weights.items():
            np.testing.assert_allclose(state.params["Dense_0"][name], value, rtol=2e-5, atol=1e-6)
            np.testing.assert_allclose(state.variables["params"]["Dense_0"][name], average[name], rtol=2e-5, atol=1e-6)
    assert state.step == 3


def test_a_teacher_is_asked_about_the_views_that_the_student_sees(monkeypatch):
    dataset, teacher, seen = make_dataset(), LiveTeacher(), []

    def watched(*arguments, **options):
        seen.append(draw_batch(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr("eigen_jax.training.step.draw_batch", watched)
    train(new_state(), 5, dataset=dataset, teacher=teacher)
    assert len(teacher.asked) == 5
    for (examples, views, images), batch in zip(teacher.asked, seen, strict=True):
        np.testing.assert_array_equal(images, apply_views(dataset.train_images[examples], views, pad=1))
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_array_equal(batch.labels, dataset.train_labels[examples])
    epoch = np.concatenate([examples for examples, _, _ in teacher.asked[:4]])
    assert len(set(epoch.tolist())) == 32, "no example twice in an epoch"
    numbers = np.concatenate([views for _, views, _ in teacher.asked])
    assert numbers.min() >= 0
    assert numbers.max() < 18  # 3 x 3 crops, flipped or not
    assert len(set(numbers.tolist())) > 9


def test_mimicry_with_no_weight_gives_the_same_bits_as_no_teacher():
    alone, _ = train(new_state(), 6)
    ignored, _ = train(new_state(), 6, config=dataclasses.replace(SMALL, mimicry_weight=0.0), teacher=LiveTeacher())
    chex.assert_trees_all_equal(ignored, alone)
    mimicking, _ = train(new_state(), 6, teacher=LiveTeacher())
    assert (mimicking.params["Dense_0"]["kernel"] != alone.params["Dense_0"]["kernel"]).any()


AVERAGED = dataclasses.replace(SMALL, averaging=0.4)


@pytest.mark.parametrize("teacher", [None, LiveTeacher()], ids=["alone", "mimicking"])
def test_networks_are_evaluated_by_weights_and_statistics_averaged_over_steps_and_trained_on_from_the_raw(teacher):
    averaged = new_state(config=AVERAGED)
    expected = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), averaged.variables)
    chex.assert_trees_all_equal(averaged.variables, new_state().variables)
    for kept in (1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 0.4, 0.4):  # 6 / 15 is 0.4
        averaged, _ = train(averaged, int(averaged.step) + 1, config=AVERAGED, teacher=teacher)
        expected = jax.tree.map(lambda old, new, kept=kept: kept * old + (1 - kept) * new, expected, averaged.trained)
    chex.assert_trees_all_close(averaged.variables, expected, rtol=1e-5, atol=1e-6)
    assert (averaged.variables["batch_stats"]["BatchNorm_0"]["var"] != averaged.batch_stats["BatchNorm_0"]["var"]).any()
    raw, _ = train(new_state(), 7, teacher=teacher)
    chex.assert_trees_all_close(averaged.trained, raw.variables, rtol=1e-5, atol=1e-6)
    images = make_dataset().validation_images
    logits: Any = Convolutional().apply(averaged.variables, images, train=False)
    shown = evaluate(averaged, images, jnp.argmax(logits, axis=1), network=Convolutional(), batch_size=10)
    assert shown == 1.0


def test_a_state_without_an_average_is_saved_in_the_form_that_it_always_had(tmp_path):
    for name, config in {"plain": SMALL, "averaged": AVERAGED}.items():
        checkpoint.save(tmp_path / name, 0, {"network": new_state(config=config)})
    plain, averaged = (checkpoint.restore(tmp_path / name, "network") for name in ("plain", "averaged"))
    assert set(plain) == {"step", "params", "batch_stats", "opt_state"}
    assert set(averaged) == {*plain, "average"}


def test_weight_decay_reaches_all_parameters():
    configs = [TrainConfig(batch_size=4, learning_rate=1.0, momentum=0.0, weight_decay=decay) for decay in (0.25, 0.0)]
    state = new_state(config=configs[0])
    batch = Batch(images=jnp.ones((4, *SHAPE)), labels=jnp.zeros(4, jnp.int32))
    decayed, plain = (take_step(state, batch, network=Convolutional(), config=config)[0] for config in configs)
    expected = jax.tree.map(lambda after, before: after - 0.25 * before, plain.params, state.params)
    chex.assert_trees_all_close(decayed.params, expected, atol=1e-6)


def test_an_epoch_visits_each_example_once_in_slices_of_its_own_order_and_in_views_of_its_own():
    before, order = (epoch_order(KEY, epoch, num_examples=36) for epoch in (0, 1))
    for each in (before, order):
        np.testing.assert_array_equal(np.sort(each), np.arange(36))
    assert (before != order).any()
    labels = np.arange(36, dtype=np.int32)
    images = np.ones((36, *SHAPE), np.float32) * labels[:, None, None, None]
    for step, first in [(4, 0), (5, 8), (7, 24)]:  # 4 batches of 8 an epoch, 4 examples left over
        batch = draw_batch(KEY, step, order, images, labels, batch_size=8, pad=0, flip=True)
        np.testing.assert_array_equal(batch.labels, order[first : first + 8])
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], order[first : first + 8])
    # Views differ from step to step and not from call to call.
    arrays = (jnp.arange(36, dtype=jnp.int32), make_dataset().train_images, labels)
    first, again, later = (draw_batch(KEY, step, *arrays, batch_size=8, pad=1, flip=True).images for step in (0, 0, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != later).any()  # the same examples, an epoch later


@pytest.mark.parametrize("config", [SMALL, AVERAGED], ids=["raw", "averaged"])
@pytest.mark.parametrize("teacher", [None, LiveTeacher()], ids=["alone", "mimicking"])
def test_landmarks_pauses_and_checkpoints_leave_no_trace_in_the_bits(tmp_path, teacher, config):
    whole, _ = train(new_state(config=config), 5, teacher=teacher, config=config)

    landmark, report = train(new_state(config=config), 1, teacher=teacher, config=config)
    assert report.steps == 1
    answers, looks = [False, True], []
    options = {"on_progress": lambda step, loss, rate: looks.append(step), "pause": lambda: answers.pop(0)}
    paused, report = train(landmark, 5, teacher=teacher, config=config, **options)
    assert (paused.step, report.steps, looks) == (3, 2, [3])
    checkpoint.save(tmp_path, 3, {"network": paused})
    abstract = abstract_state(network=Convolutional(), config=config, input_shape=SHAPE)
    restored = checkpoint.restore(tmp_path, "network", abstract=abstract)
    resumed, report = train(restored, 5, teacher=teacher, config=config, pause=lambda: False)

    assert (resumed.step, report.steps) == (5, 2)
    chex.assert_trees_all_equal(resumed, whole)
    other, _ = train(new_state(config=config), 5, teacher=teacher, config=config, key=jax.random.key(8))
    assert (other.params["Dense_0"]["kernel"] != whole.params["Dense_0"]["kernel"]).any()


def test_training_leaves_its_input_the_modules_initial_state_usable_and_a_landmark_behind_changes_nothing():
    state, initialize = new_state(), jax.jit(partial(Convolutional().init, train=False))
    chex.assert_trees_all_close(state.variables, dict(initialize(jax.random.key(3), jnp.zeros((1, *SHAPE)))), rtol=1e-6)
    assert state.step == 0
    assert new_state(Linear()).batch_stats == {}
    trained, _ = train(state, 3)
    chex.assert_trees_all_equal(state, new_state())
    again, report = train(trained, 2)
    assert report.steps == 0
    chex.assert_trees_all_equal(again, trained)
    for leaf in jax.tree.leaves(trained):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype in (jnp.float32, jnp.int32)  # a raw key is uint32, a typed one its own dtype


def test_learns_separable_data_and_tells_of_it_at_every_look_and_at_the_end():
    dataset, until, seen = make_dataset(num_train=160), 2 * CHECK_EVERY + 20, []
    state, report = train(new_state(), until, dataset=dataset, on_progress=lambda *progress: seen.append(progress))
    images, labels = dataset.validation_images, dataset.validation_labels
    assert evaluate(state, images, labels, network=Convolutional(), batch_size=10) > 0.95
    assert report.loss < 0.3
    assert report.accuracy > 0.9
    assert report.train_seconds > 0
    assert [step for step, _, _ in seen] == [CHECK_EVERY, 2 * CHECK_EVERY, until]
    assert seen[-1][1] == report.loss
    assert all(rate > 0 for _, _, rate in seen)


def test_divergence_is_raised_and_says_when_in_another_process_too():
    config = TrainConfig(batch_size=8, learning_rate=1e6, decay_steps=(), pad=1)
    options = {"dataset": make_dataset(separable=False), "network": Linear(), "config": config}
    with pytest.raises(DivergedError, match=r"^training diverged by step 50: .*; lower the learning rate$") as caught:
        train(new_state(Linear(), config), 200, **options)
    again = pickle.loads(pickle.dumps(caught.value))  # as between processes
    assert (again.step, repr(again.loss), str(again)) == (CHECK_EVERY, repr(caught.value.loss), str(caught.value))


def test_parameters_that_are_not_finite_are_divergence_though_the_loss_is():
    state = new_state()
    stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), state.batch_stats)  # unread in training
    with pytest.raises(DivergedError) as caught:
        train(dataclasses.replace(state, batch_stats=stats), 1)
    assert np.isfinite(caught.value.loss)


def test_equal_networks_are_traced_once_for_training_and_once_for_evaluation():
    dataset, width = make_dataset(), 5  # of no other test, so nothing is compiled yet
    state, _ = (new_state(Convolutional(width=width)) for _ in range(2))
    assert TRACES.count((width, False, 1)) == 1
    TRACES.clear()
    for until in (2, 5):
        state, _ = train(state, until, network=Convolutional(width=width))
    for size in (1, 10, 17, 23):
        images, labels = dataset.validation_images[:size], dataset.validation_labels[:size]
        evaluate(state, images, labels, network=Convolutional(width=width), batch_size=10)
    assert [(width, True, 8), (width, False, 10)] == TRACES


@pytest.mark.parametrize(
    ("kinds", "names", "values", "must"),
    [
        (BOTH, ["batch_size", "eval_batch_size"], [0, -1], "at least 1"),
        (BOTH, ["learning_rate"], [0.0, -1.0], "more than 0"),
        (BOTH, ["learning_rate", "momentum", "weight_decay"], [math.nan, math.inf], "a finite number"),
        (BOTH, ["momentum"], [-0.1, 1.0], "at least 0 and less than 1"),
        (BOTH, ["weight_decay"], [-1e-4], "at least 0"),
        (BOTH, ["pad"], [-1, 257], "from 0 to 256"),
        (BOTH[:1], ["devices"], [0], "at least 1"),
        (BOTH[:1], ["decay_rate", "temperature"], [0.0, -1.0], "more than 0"),
        (BOTH[:1], ["decay_rate", "temperature", "mimicry_weight"], [math.nan, math.inf], "a finite number"),
        (BOTH[:1], ["mimicry_weight"], [-0.1, 1.5], "from 0 to 1"),
        (BOTH[:1], ["decay_steps"], [(20, 10), (10, 10)], "in ascending order"),
        (BOTH[:1], ["decay_steps"], [(0,)], "at least 1, each"),
        (BOTH[:1], ["decay_rates"], [(-0.1,)], "at least 0, each"),
        (BOTH[:1], ["averaging"], [-0.1, 1.0], "at least 0 and less than 1"),
        (BOTH[1:], ["members", "growth", "epochs"], [0], "at least 1"),
        (BOTH[1:], ["depth"], [39], "6 n + 4 for an n of at least 1"),
        (BOTH[1:], ["depth"], [4], "at least 10"),
        (BOTH[1:], ["stem_stride"], [0, 3], "from 1 to 2"),
        (BOTH[1:], ["compression"], [0.0, 1.5], "more than 0 and at most 1"),
        (BOTH[1:], ["seed"], [-1, 2**32], "from 0 to 4,294,967,295"),
    ],
)
def test_settings_of_training_and_of_teachers_that_cannot_be_get_one_line(kinds, names, values, must):
    for kind, name, value in itertools.product(kinds, names, values):
        with refuses(ConfigError, f"{name} is {value}; it must be {must}"):
            kind(**{name: value})


def test_batches_that_cannot_be_get_one_line():
    with refuses(ConfigError, "batch_size is 16; it must be a multiple of devices, which is 3"):
        TrainConfig(devices=3, batch_size=16)
    with refuses(ConfigError, "decay_rates is (1.0,); it must have a rate for each of decay_steps, which is (1, 2)"):
        TrainConfig(decay_steps=(1, 2), decay_rates=(1.0,))
    for steps in ((), (1, 2)):
        line = f"schedule is 'one-cycle', and decay_steps is {steps}; name one step, at which the rate is to be 0"
        with refuses(ConfigError, line):
            TrainConfig(schedule="one-cycle", decay_steps=steps)
    with refuses(ConfigError, "schedule is 'one-cycle', and decay_rates is (0.5,); leave the rates out"):
        TrainConfig(schedule="one-cycle", decay_steps=(5,), decay_rates=(0.5,))
    for kind in BOTH:
        with refuses(ConfigError, "dtype is 'float16'; it must be one of float32, bfloat16"):
            kind(dtype="float16")
    config = TrainConfig(batch_size=37)
    for use in (partial(train, new_state(config=config), 1), partial(batch_shapes, KEY, make_dataset())):
        with refuses(ConfigError, "batch_size is 37; the training set has only 36 images"):
            use(config=config)
    for size, batch_size in ((0, 10), (3, 0)):
        with refuses(ConfigError, f"{size} images in batches of {batch_size}; both must be at least 1"):
            predict({}, jnp.zeros((size, *SHAPE)), network=Linear(), batch_size=batch_size)


@pytest.mark.parametrize("size", [1, 9, 10, 11, 23])
def test_logits_are_of_every_image_in_order_and_of_no_other_and_accuracy_is_exact(size):
    rng = np.random.default_rng(size)
    images, labels = rng.normal(size=(size, *SHAPE)).astype(np.float32), rng.integers(0, 3, size).astype(np.int32)
    state = new_state(Linear())
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params["Dense_0"])
    expected = images.reshape(size, -1).astype(np.float64) @ dense["kernel"] + dense["bias"]
    logits = predict(state.variables, jnp.asarray(images), network=Linear(), batch_size=10)
    assert (type(logits), logits.shape, logits.dtype) == (np.ndarray, (size, 3), np.float32)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    share = int((expected.argmax(axis=1) == labels).sum()) / size
    assert evaluate(state, jnp.asarray(images), jnp.asarray(labels), network=Linear(), batch_size=10) == share


def test_accuracy_is_the_share_of_largest_logits_at_the_label():
    logits = np.array([[1, 3, 2], [9, 0, 8], [-1, -2, -3], [0, 0, 1]], np.float32)
    assert accuracy(logits, jnp.array([1, 2, 0, 2])) == 0.75
    assert accuracy(logits, jnp.array([0, 1, 1, 0])) == 0.0


def test_evaluation_uses_the_running_averages():
    dataset, network, state = make_dataset(), Convolutional(), new_state()
    stats = {"BatchNorm_0": {"mean": jnp.full(4, 0.3), "var": jnp.full(4, 2.0)}}
    state = dataclasses.replace(state, batch_stats=stats)
    images, labels = dataset.validation_images, dataset.validation_labels
    logits = jax.jit(partial(network.apply, train=False))({"params": state.params, "batch_stats": stats}, images)
    expected = int((np.asarray(logits).argmax(axis=1) == np.asarray(labels)).sum()) / len(labels)
    assert evaluate(state, images, labels, network=network, batch_size=5) == expected


def test_training_starts_from_the_weights_of_another_network_but_for_its_classifier():
    config = dataclasses.replace(SMALL, averaging=0.5)
    state = new_state(Convolutional(num_classes=4), config)
    others = [
        jax.tree.map(lambda leaf: np.asarray(leaf) + 3, new_state(Convolutional(num_classes=classes)).variables)
        for classes in (3, 4)
    ]
    started, alike = (start_from(state, other, config=config) for other in others)
    expected = {**others[0]["params"], "Dense_0": state.params["Dense_0"]}
    chex.assert_trees_all_equal(started.trained, {"params": expected, "batch_stats": others[0]["batch_stats"]})
    chex.assert_trees_all_equal(started.variables, started.trained)
    chex.assert_trees_all_equal(alike.trained, others[1])
