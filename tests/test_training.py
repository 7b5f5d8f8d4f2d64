"""Training: the arithmetic of a step against NumPy float64, mimicry, resuming, divergence, trace budgets."""

import dataclasses
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_data import KEY, SHAPE, SMALL, TRACES, Convolutional, Linear, make_dataset, new_state

from eigen_jax import checkpoint
from eigen_jax.data import apply_views
from eigen_jax.training import (
    CHECK_EVERY,
    Batch,
    DivergedError,
    TrainConfig,
    TrainConfigError,
    abstract_state,
    draw_batch,
    epoch_order,
    evaluate,
    make_schedule,
    train_step,
    train_to,
)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.1), (14_999, 0.1), (15_000, 0.01), (19_999, 0.01), (20_000, 0.001), (24_999, 0.001)],
)
def test_learning_rate_falls_tenfold_at_15000_and_at_20000_steps(step, rate):
    np.testing.assert_allclose(make_schedule(TrainConfig())(jnp.int32(step)), rate, rtol=1e-6)


def test_learning_rate_without_decay_steps_is_constant():
    np.testing.assert_allclose(make_schedule(TrainConfig(decay_steps=()))(jnp.int32(90_000)), 0.1, rtol=1e-6)


def test_steps_of_a_linear_network_are_sgd_with_momentum_and_weight_decay():
    rng = np.random.default_rng(1)
    images = rng.normal(size=(5, *SHAPE)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 2], np.int32)
    config = TrainConfig(batch_size=5, learning_rate=0.2, decay_steps=(1,), decay_rate=0.5)
    state = new_state(Linear(), config)

    inputs = images.reshape(5, -1).astype(np.float64)
    weights = {name: np.asarray(value, np.float64) for name, value in state.params["Dense_0"].items()}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    batch = Batch(images=jnp.asarray(images), labels=jnp.asarray(labels))
    for rate in (0.2, 0.1):
        logits = inputs @ weights["kernel"] + weights["bias"]
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected_loss = -np.log(softmax[np.arange(5), labels]).mean()
        error = (softmax - np.eye(3)[labels]) / 5
        gradients = {"kernel": inputs.T @ error, "bias": error.sum(axis=0)}
        for name, value in weights.items():
            velocity[name] = 0.9 * velocity[name] + gradients[name] + 5e-4 * value
            weights[name] = value - rate * velocity[name]

        state, metrics = train_step(state, batch, network=Linear(), config=config)

        np.testing.assert_allclose(metrics.loss, expected_loss, rtol=1e-5)
        np.testing.assert_allclose(metrics.accuracy, (logits.argmax(axis=1) == labels).mean(), rtol=1e-6)
        np.testing.assert_allclose(metrics.norm, np.sqrt(sum((w**2).sum() for w in weights.values())), rtol=1e-5)
        for name, value in weights.items():
            np.testing.assert_allclose(state.params["Dense_0"][name], value, rtol=2e-5, atol=1e-6)
    assert state.step == 2


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_steps_that_mimic_a_teacher_are_sgd_on_equations_3_and_4(dtype):
    rng = np.random.default_rng(2)
    images = rng.normal(size=(5, *SHAPE)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 2], np.int32)
    teacher_logits = rng.normal(scale=4, size=(5, 3)).astype(dtype)
    config = TrainConfig(batch_size=5, learning_rate=0.2, decay_steps=(), mimicry_weight=0.7, temperature=3.0)
    state = new_state(Linear(), config)

    inputs = images.reshape(5, -1).astype(np.float64)
    targets = np.exp(log_softmax(teacher_logits.astype(np.float64) / 3))
    weights = {name: np.asarray(value, np.float64) for name, value in state.params["Dense_0"].items()}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    batch = Batch(images=jnp.asarray(images), labels=jnp.asarray(labels), teacher_logits=jnp.asarray(teacher_logits))
    for _ in range(2):
        logits = inputs @ weights["kernel"] + weights["bias"]
        plain, softened = log_softmax(logits), log_softmax(logits / 3)
        expected_loss = (-0.3 * plain[np.arange(5), labels] - 0.7 * 9 * (targets * softened).sum(axis=1)).mean()
        # Softmaxes less their targets; the factor of 9 loses one 3 to the chain rule.
        error = (0.3 * (np.exp(plain) - np.eye(3)[labels]) + 0.7 * 3 * (np.exp(softened) - targets)) / 5
        gradients = {"kernel": inputs.T @ error, "bias": error.sum(axis=0)}
        for name, value in weights.items():
            velocity[name] = 0.9 * velocity[name] + gradients[name] + 5e-4 * value
            weights[name] = value - 0.2 * velocity[name]

        state, metrics = train_step(state, batch, network=Linear(), config=config)

        np.testing.assert_allclose(metrics.loss, expected_loss, rtol=1e-5)
        np.testing.assert_allclose(metrics.accuracy, (logits.argmax(axis=1) == labels).mean(), rtol=1e-6)
        for name, value in weights.items():
            np.testing.assert_allclose(state.params["Dense_0"][name], value, rtol=2e-5, atol=1e-6)


def test_steps_with_nesterov_momentum_look_ahead():
    config = TrainConfig(batch_size=2, learning_rate=0.2, decay_steps=(), weight_decay=0.0, nesterov=True)
    images, labels = np.ones((2, *SHAPE), np.float32), np.array([0, 1], np.int32)
    state = new_state(Linear(), config)
    bias, velocity = np.asarray(state.params["Dense_0"]["bias"], np.float64), np.zeros(3)
    kernel = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    kernel_velocity = np.zeros_like(kernel)
    for _ in range(3):
        softmax = np.exp(log_softmax((kernel.sum(axis=0) + bias)[None]))[0]
        gradient = softmax - np.array([0.5, 0.5, 0.0])  # the same of each pixel's weights: all pixels are 1
        velocity, kernel_velocity = 0.9 * velocity + gradient, 0.9 * kernel_velocity + gradient
        bias = bias - 0.2 * (gradient + 0.9 * velocity)
        kernel = kernel - 0.2 * (gradient + 0.9 * kernel_velocity)
        batch = Batch(images=jnp.asarray(images), labels=jnp.asarray(labels))
        state, _ = train_step(state, batch, network=Linear(), config=config)
    np.testing.assert_allclose(state.params["Dense_0"]["bias"], bias, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(state.params["Dense_0"]["kernel"], kernel, rtol=2e-5, atol=1e-6)


class RecordingTeacher:
    """Gives the sums of thirds of the pixels it sees as logits, and keeps what it was asked."""

    fingerprint = "recording"

    def __init__(self) -> None:
        self.asked: list[tuple[jax.Array, jax.Array, jax.Array]] = []

    def __call__(self, examples, views, images):
        self.asked.append((examples, views, images))
        return images.reshape(images.shape[0], 3, -1).mean(axis=-1).astype(jnp.float16)


def test_a_teacher_is_asked_about_the_views_that_the_student_sees(monkeypatch):
    dataset, teacher, seen = make_dataset(), RecordingTeacher(), []
    plain = draw_batch

    def watched(*arguments, **options):
        seen.append(plain(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr("eigen_jax.training.loop.draw_batch", watched)
    train_to(KEY, new_state(), dataset, 5, network=Convolutional(), config=SMALL, teacher=teacher)  # 4 steps an epoch
    assert len(teacher.asked) == 5
    for (examples, views, images), batch in zip(teacher.asked, seen, strict=True):
        expected = apply_views(dataset.train_images[examples], views, pad=1)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_array_equal(batch.labels, dataset.train_labels[examples])
    epoch = np.concatenate([examples for examples, _, _ in teacher.asked[:4]])
    assert len(set(epoch.tolist())) == 32, "no example twice in an epoch"
    numbers = np.concatenate([views for _, views, _ in teacher.asked])
    assert numbers.min() >= 0
    assert numbers.max() < 18  # 3 x 3 crops, flipped or not
    assert len(set(numbers.tolist())) > 9


def test_mimicry_with_no_weight_gives_the_same_bits_as_no_teacher():
    dataset, config = make_dataset(), dataclasses.replace(SMALL, mimicry_weight=0.0)
    network = Convolutional()
    alone, _ = train_to(KEY, new_state(), dataset, 6, network=network, config=config)
    ignored, _ = train_to(KEY, new_state(), dataset, 6, network=network, config=config, teacher=RecordingTeacher())
    chex.assert_trees_all_equal(ignored, alone)
    mimicking, _ = train_to(KEY, new_state(), dataset, 6, network=network, config=SMALL, teacher=RecordingTeacher())
    assert (mimicking.params["Dense_0"]["kernel"] != alone.params["Dense_0"]["kernel"]).any()


def test_resuming_with_a_teacher_gives_the_same_bits():
    dataset, network = make_dataset(), Convolutional()
    whole, _ = train_to(KEY, new_state(), dataset, 6, network=network, config=SMALL, teacher=RecordingTeacher())
    state = new_state()
    for until in (3, 6):
        state, _ = train_to(KEY, state, dataset, until, network=network, config=SMALL, teacher=RecordingTeacher())
    chex.assert_trees_all_equal(state, whole)


def test_weight_decay_reaches_all_parameters():
    config = TrainConfig(batch_size=4, learning_rate=1.0, momentum=0.0, weight_decay=0.25)
    without = TrainConfig(batch_size=4, learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    state = new_state(config=config)
    batch = Batch(images=jnp.ones((4, *SHAPE)), labels=jnp.zeros(4, jnp.int32))
    decayed, _ = train_step(state, batch, network=Convolutional(), config=config)
    plain, _ = train_step(state, batch, network=Convolutional(), config=without)
    expected = jax.tree.map(lambda after, before: after - 0.25 * before, plain.params, state.params)
    chex.assert_trees_all_close(decayed.params, expected, atol=1e-6)


def test_initial_state_is_the_modules_own():
    state = new_state()
    variables = Convolutional().init(jax.random.key(3), jnp.zeros((1, *SHAPE)), train=False)
    chex.assert_trees_all_close(state.variables, dict(variables), rtol=1e-6)
    assert state.step == 0
    assert new_state(Linear()).batch_stats == {}


def test_state_holds_no_key_and_only_arrays():
    trained, _ = train_to(KEY, new_state(), make_dataset(), 2, network=Convolutional(), config=SMALL)
    for leaf in jax.tree.leaves(trained):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype in (jnp.float32, jnp.int32)  # a raw key is uint32, a typed one its own dtype


def test_an_epoch_visits_each_example_once_and_epochs_differ():
    orders = [np.asarray(epoch_order(KEY, epoch, num_examples=36)) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(36))
    assert (orders[0] != orders[1]).any()


def test_batches_are_the_slices_of_the_epochs_order_and_drop_the_rest():
    images = jnp.arange(36, dtype=jnp.float32)[:, None, None, None] * jnp.ones((1, *SHAPE))
    labels = jnp.arange(36, dtype=jnp.int32)
    order = epoch_order(KEY, 1, num_examples=36)
    for step, first in [(4, 0), (5, 8), (7, 24)]:  # 4 batches of 8 an epoch, 4 examples left over
        batch = draw_batch(KEY, step, order, images, labels, batch_size=8, pad=0, flip=True)
        np.testing.assert_array_equal(batch.labels, order[first : first + 8])
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], order[first : first + 8])


def test_views_differ_from_step_to_step_and_not_from_call_to_call():
    dataset = make_dataset()
    order = jnp.arange(36, dtype=jnp.int32)

    def draw(step):
        arrays = (order, dataset.train_images, dataset.train_labels)
        return draw_batch(KEY, step, *arrays, batch_size=8, pad=1, flip=True).images

    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(4)).any()  # the same examples, an epoch later


def test_resuming_through_a_checkpoint_gives_the_same_bits(tmp_path):
    dataset, network = make_dataset(), Convolutional()
    whole, _ = train_to(KEY, new_state(), dataset, 5, network=network, config=SMALL)  # 4 steps an epoch

    part, report = train_to(KEY, new_state(), dataset, 2, network=network, config=SMALL)
    assert report.steps == 2
    checkpoint.save(tmp_path, 2, {"network": part})
    abstract = abstract_state(network=network, config=SMALL, input_shape=SHAPE)
    restored = checkpoint.restore(tmp_path, "network", abstract=abstract)
    resumed, report = train_to(KEY, restored, dataset, 5, network=network, config=SMALL)

    assert report.steps == 3
    assert resumed.step == 5
    chex.assert_trees_all_equal(resumed, whole)
    other, _ = train_to(jax.random.key(8), new_state(), dataset, 5, network=network, config=SMALL)
    assert (other.params["Dense_0"]["kernel"] != whole.params["Dense_0"]["kernel"]).any()


def test_training_leaves_its_input_usable_and_a_landmark_behind_changes_nothing():
    dataset, state = make_dataset(), new_state()
    trained, _ = train_to(KEY, state, dataset, 3, network=Convolutional(), config=SMALL)
    chex.assert_trees_all_equal(state, new_state())
    again, report = train_to(KEY, trained, dataset, 2, network=Convolutional(), config=SMALL)
    assert report.steps == 0
    chex.assert_trees_all_equal(again, trained)


def test_learns_separable_data():
    dataset, network = make_dataset(num_train=160), Convolutional()
    state, report = train_to(KEY, new_state(), dataset, 120, network=network, config=SMALL)
    accuracy = evaluate(state, dataset.validation_images, dataset.validation_labels, network=network, batch_size=10)
    assert accuracy > 0.95
    assert report.loss < 0.3
    assert report.accuracy > 0.9
    assert report.train_seconds > 0


def test_progress_comes_at_every_look_and_at_the_end():
    seen = []
    until = CHECK_EVERY + 3
    arguments = (KEY, new_state(), make_dataset(), until)
    _, report = train_to(
        *arguments, network=Convolutional(), config=SMALL, on_progress=lambda *progress: seen.append(progress)
    )
    assert [step for step, _, _ in seen] == [CHECK_EVERY, until]
    assert seen[-1][1] == report.loss
    assert all(rate > 0 for _, _, rate in seen)


def test_divergence_is_raised_and_says_when():
    config = TrainConfig(batch_size=8, learning_rate=1e6, decay_steps=(), pad=1)
    dataset = make_dataset(separable=False)
    with pytest.raises(DivergedError, match=r"^training diverged by step 50: .*; lower the learning rate$") as caught:
        train_to(KEY, new_state(Linear(), config), dataset, 200, network=Linear(), config=config)
    assert caught.value.step == CHECK_EVERY


def test_parameters_that_are_not_finite_are_divergence_though_the_loss_is():
    dataset = make_dataset()
    state = new_state()
    stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), state.batch_stats)  # unread in training
    with pytest.raises(DivergedError) as caught:
        train_to(KEY, dataclasses.replace(state, batch_stats=stats), dataset, 1, network=Convolutional(), config=SMALL)
    assert np.isfinite(caught.value.loss)


def test_divergence_survives_pickling_between_processes():
    error = pickle.loads(pickle.dumps(DivergedError(12, float("inf"))))
    assert (error.step, error.loss, str(error)) == (12, float("inf"), str(DivergedError(12, float("inf"))))


def test_equal_networks_are_traced_once_for_training_and_once_for_evaluation():
    dataset = make_dataset()
    width = 5  # of no other test, so nothing is compiled yet
    state = new_state(Convolutional(width=width))
    new_state(Convolutional(width=width))
    assert TRACES.count((width, False, 1)) == 1
    TRACES.clear()
    for until in (2, 5):
        state, _ = train_to(KEY, state, dataset, until, network=Convolutional(width=width), config=SMALL)
    for size in (1, 10, 17, 23):
        images, labels = dataset.validation_images[:size], dataset.validation_labels[:size]
        evaluate(state, images, labels, network=Convolutional(width=width), batch_size=10)
    assert [(width, True, 8), (width, False, 10)] == TRACES


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"eval_batch_size": -1}, "eval_batch_size is -1; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be finite and more than 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be finite and more than 0"),
        ({"decay_rate": -1.0}, "decay_rate is -1.0; it must be finite and more than 0"),
        ({"momentum": 1.0}, "momentum is 1.0; it must be from 0 to less than 1"),
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001; it must be finite and at least 0"),
        ({"mimicry_weight": -0.1}, "mimicry_weight is -0.1; it must be from 0 to 1"),
        ({"mimicry_weight": 1.5}, "mimicry_weight is 1.5; it must be from 0 to 1"),
        ({"mimicry_weight": float("nan")}, "mimicry_weight is nan; it must be from 0 to 1"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be finite and more than 0"),
        ({"temperature": -5.0}, "temperature is -5.0; it must be finite and more than 0"),
        ({"temperature": float("inf")}, "temperature is inf; it must be finite and more than 0"),
        ({"pad": -1}, "pad is -1; it must be from 0 to 256"),
        ({"dtype": "float16"}, "dtype is float16; it must be one of float32, bfloat16"),
        ({"decay_steps": (20, 10)}, "decay_steps is (20, 10); it must be steps in ascending order, each at least 1"),
        ({"decay_steps": (0,)}, "decay_steps is (0,); it must be steps in ascending order, each at least 1"),
    ],
)
def test_settings_that_cannot_be_get_one_line(setting, line):
    with pytest.raises(TrainConfigError) as caught:
        TrainConfig(**setting)
    assert str(caught.value) == line


def test_a_batch_larger_than_the_training_set_gets_one_line():
    config = TrainConfig(batch_size=37)
    with pytest.raises(TrainConfigError) as caught:
        train_to(KEY, new_state(config=config), make_dataset(), 1, network=Convolutional(), config=config)
    assert str(caught.value) == "batch_size is 37; the training set has only 36 images"


def test_a_pause_gives_the_state_so_far_and_training_goes_on_to_the_same_bits():
    dataset, network = make_dataset(), Convolutional()
    asked: list[None] = []

    def pause() -> bool:
        asked.append(None)
        return len(asked) == 2

    whole, _ = train_to(KEY, new_state(), dataset, 5, network=network, config=SMALL)
    looks: list[int] = []
    paused, report = train_to(
        KEY,
        new_state(),
        dataset,
        5,
        network=network,
        config=SMALL,
        on_progress=lambda step, loss, rate: looks.append(step),
        pause=pause,
    )
    assert paused.step == report.steps == 2
    assert looks == [2]
    resumed, _ = train_to(KEY, paused, dataset, 5, network=network, config=SMALL, pause=lambda: False)
    chex.assert_trees_all_equal(resumed, whole)
