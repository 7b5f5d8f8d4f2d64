"""Many steps a call, and compilation ahead: the same weights as single steps that compile when they are needed."""

import dataclasses
from typing import Any

import chex
import numpy as np
import pytest
from training_data import (
    KEY,
    SMALL,
    TRACES,
    Convolutional,
    Linear,
    LiveTeacher,
    cached_teacher,
    make_dataset,
    new_state,
    wait_for_background,
)

from eigen_jax import platforms
from eigen_jax.teacher.logits import MappedLogits
from eigen_jax.training import DivergedError, Programs, TrainConfig, Training, batch_shapes, evaluate, prepare_training
from eigen_jax.training.loop import steps_of_calls, train_to

# XLA rounds the same sums in another order in a loop's body.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def use_chunks(monkeypatch, platform=platforms.GPU, steps_per_call=6) -> None:
    """A platform with short chunks, on the device at hand."""
    platform = dataclasses.replace(platform, steps_per_call=steps_per_call)
    monkeypatch.setattr(platforms, "current", lambda: platform)


def teacher_of(kind: str):
    cached = cached_teacher()
    mapped = MappedLogits(np.asarray(cached.logits), np.asarray(cached.slots), "mapped")
    return {"none": None, "live": LiveTeacher(), "mapped": mapped, "cached": cached}[kind]


@pytest.mark.parametrize("kind", ["none", "live", "mapped", "cached"])
def test_chunks_and_single_steps_give_the_same_weights_through_an_interruption(kind, monkeypatch):
    config = dataclasses.replace(SMALL, averaging=0.9)
    options: dict[str, Any] = {"network": Convolutional(), "config": config, "teacher": teacher_of(kind)}
    single, report = train_to(KEY, new_state(config=config), make_dataset(), 27, **options)

    use_chunks(monkeypatch)
    start = state = new_state(config=config)
    for until in (9, 27):  # chunks of 6, over the ends of epochs of 4
        state, chunk_report = train_to(KEY, state, make_dataset(), until, **options)
    chex.assert_trees_all_close(state, single, **TOLERANCE)
    assert state.step == 27
    assert chunk_report.steps == 18

    whole, chunk_report = train_to(KEY, start, make_dataset(), 27, **options)
    chex.assert_trees_all_close(whole, single, **TOLERANCE)
    np.testing.assert_allclose(chunk_report.loss, report.loss, rtol=1e-4)
    np.testing.assert_allclose(chunk_report.accuracy, report.accuracy, atol=0.02)
    chex.assert_trees_all_equal(start, new_state(config=config))  # left usable


@pytest.mark.parametrize(
    ("start", "until", "steps_per_call", "expected"),
    [
        (0, 3, 1, [1, 1, 1]),
        (0, 12, 6, [6, 6]),
        (0, 14, 6, [6, 6, 1, 1]),
        (4, 19, 6, [1, 1, 6, 6, 1]),
        (4, 10, 6, [1, 1, 1, 1, 1, 1]),
        (2, 5, 6, [1, 1, 1]),
    ],
)
def test_chunks_begin_at_multiples_of_their_length(start, until, steps_per_call, expected):
    assert steps_of_calls(start, until, steps_per_call=steps_per_call) == expected


def test_looks_come_between_chunks_and_at_the_end(monkeypatch):
    use_chunks(monkeypatch)
    seen: list[tuple[int, float, float]] = []
    options: dict[str, Any] = {"on_progress": lambda *progress: seen.append(progress)}
    _, report = train_to(KEY, new_state(), make_dataset(), 61, network=Convolutional(), config=SMALL, **options)
    assert [step for step, _, _ in seen] == [54, 61]  # the first end of a chunk after 50
    assert seen[-1][1] == report.loss
    assert all(rate > 0 for _, _, rate in seen)


def test_divergence_inside_of_a_chunk_is_seen_at_the_look(monkeypatch):
    use_chunks(monkeypatch)
    config = TrainConfig(batch_size=8, learning_rate=1e6, decay_steps=(), pad=1)
    with pytest.raises(DivergedError) as caught:
        train_to(KEY, new_state(Linear(), config), make_dataset(separable=False), 200, network=Linear(), config=config)
    assert caught.value.step == 54


@pytest.mark.parametrize(
    ("kind", "width", "steps_per_call"),
    [
        ("none", 6, 3),
        ("mapped", 8, 1),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [("none", 6, 1), ("mapped", 8, 3)]),
        *(pytest.param("live", 7, each, marks=pytest.mark.slow) for each in (1, 3)),
    ],
)
def test_what_was_prepared_is_all_that_is_traced_and_changes_no_bit(kind, width, steps_per_call, monkeypatch):
    use_chunks(monkeypatch, platforms.CPU, steps_per_call)
    dataset, teacher, network = make_dataset(), teacher_of(kind), Convolutional(width=width)

    def outcome(programs):
        options: dict[str, Any] = {"network": network, "programs": programs}
        state = new_state(**options)
        state, _ = train_to(KEY, state, dataset, 4, config=SMALL, teacher=teacher, **options)
        images, labels = dataset.validation_images, dataset.validation_labels
        return state, evaluate(state, images, labels, batch_size=SMALL.eval_batch_size, **options)

    held = Programs()
    TRACES.clear()
    shapes = batch_shapes(KEY, dataset, config=SMALL, teacher=teacher)
    same = Training(key=KEY, dataset=dataset, network=Convolutional(width=width), config=SMALL)
    prepare_training(same, 4, shapes, programs=held)
    wait_for_background(held)
    prepared = sorted(TRACES)
    assert {(width, False, 1), (width, False, 10)} <= {*prepared}
    first = outcome(held)
    assert sorted(TRACES) == prepared
    chex.assert_trees_all_equal(first, outcome(Programs()))
