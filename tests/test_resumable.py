"""Training that is stopped, killed or damaged, and ends with the bits of one that nobody disturbed."""

import contextlib
import dataclasses
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
from executor_data import CONFIG, SHAPE, make_dataset, network, same_bits

from eigen_jax import checkpoint, resumable
from eigen_jax.builder import build_network
from eigen_jax.checkpoint import CheckpointError
from eigen_jax.data import Dataset
from eigen_jax.resumable import Seconds, StoppedError, TimeLimitError, never, train_resumably
from eigen_jax.training import DivergedError, TrainState, abstract_state, init_state, train_to

KEY = jax.random.key(3)
NETWORK = build_network(network(), num_classes=2, dtype="float32")
UNTIL = 7


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(noise=1.0)


@pytest.fixture(scope="module")
def undisturbed(dataset) -> list[np.ndarray]:
    """The state after `UNTIL` steps, by the training loop alone."""
    state = init_state(KEY, network=NETWORK, config=CONFIG, input_shape=SHAPE)
    state, _ = train_to(KEY, state, dataset, UNTIL, network=NETWORK, config=CONFIG)
    return arrays(state)


def arrays(state: TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def train(dataset: Dataset, folder: Path, until: int = UNTIL, **rest) -> tuple[TrainState, Seconds]:
    return train_resumably(KEY, dataset, until, folder, network=NETWORK, config=CONFIG, **rest)


def after(calls: int) -> Callable[[], bool]:
    """A `ShouldStop` that is asked so often in vain."""
    counter = itertools.count()
    return lambda: next(counter) >= calls


def saved(monkeypatch) -> list[int]:
    """The steps that are saved from now on."""
    steps: list[int] = []
    save = checkpoint.save

    def watched(folder, step, items, **rest):
        save(folder, step, items, **rest)
        steps.append(step)

    monkeypatch.setattr(checkpoint, "save", watched)
    return steps


# --- What is saved when -----------------------------------------------------------------------


def test_training_is_saved_at_the_landmark_and_is_what_the_loop_gives(dataset, tmp_path, undisturbed, monkeypatch):
    steps = saved(monkeypatch)
    state, seconds = train(dataset, tmp_path / "new" / "folder")
    assert steps == [UNTIL]
    assert same_bits(arrays(state), undisturbed)
    abstract = abstract_state(network=NETWORK, config=CONFIG, input_shape=SHAPE)
    restored = checkpoint.restore(tmp_path / "new" / "folder", "state", abstract=abstract)
    assert same_bits(arrays(restored), undisturbed)
    assert seconds.training > 0
    assert seconds.total == seconds.compiling + seconds.training


def test_training_is_saved_on_the_way_without_a_change_of_bits(dataset, tmp_path, undisturbed, monkeypatch):
    steps = saved(monkeypatch)
    state, _ = train(dataset, tmp_path, save_every=0)
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert same_bits(arrays(state), undisturbed)
    assert checkpoint.steps(tmp_path) == (6, 7)


def test_a_landmark_that_was_reached_is_restored_and_nothing_is_trained_or_saved(
    dataset, tmp_path, undisturbed, monkeypatch
):
    _, first = train(dataset, tmp_path)
    steps = saved(monkeypatch)
    monkeypatch.setattr(resumable, "train_to", None)
    state, again = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)
    assert again == first
    assert steps == []


def test_a_later_landmark_goes_on_from_the_earlier_one(dataset, tmp_path, undisturbed):
    told: list[int] = []
    train(dataset, tmp_path, 3)
    state, _ = train(dataset, tmp_path, on_progress=lambda step, *_: told.append(step), save_every=0)
    assert told == [4, 5, 6, 7]
    assert same_bits(arrays(state), undisturbed)


def test_initial_weights_have_a_key_of_their_own(dataset, tmp_path):
    theirs = jax.random.key(11)
    state, _ = train(dataset, tmp_path / "a", init_key=theirs)
    expected = init_state(theirs, network=NETWORK, config=CONFIG, input_shape=SHAPE)
    expected, _ = train_to(KEY, expected, dataset, UNTIL, network=NETWORK, config=CONFIG)
    assert same_bits(arrays(state), arrays(expected))
    with pytest.raises(StoppedError):
        train(dataset, tmp_path / "b", init_key=theirs, should_stop=after(2))
    state, _ = train(dataset, tmp_path / "b", init_key=theirs)
    assert same_bits(arrays(state), arrays(expected))


# --- Stops and errors -------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [0, 1, 3, UNTIL - 1])
def test_a_stop_is_saved_first_and_gone_on_from(dataset, tmp_path, undisturbed, calls):
    with pytest.raises(StoppedError, match=f"at step {calls}$"):
        train(dataset, tmp_path, should_stop=after(calls))
    # One question before training, and one after each step.
    assert (checkpoint.latest_step(tmp_path) or 0) == calls
    state, _ = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)


def test_who_is_asked_to_stop_at_the_landmark_has_reached_it(dataset, tmp_path, undisturbed):
    state, _ = train(dataset, tmp_path, should_stop=after(UNTIL))
    assert same_bits(arrays(state), undisturbed)


@pytest.mark.parametrize("before", [True, False], ids=["before it is written", "after it is written"])
@pytest.mark.parametrize("nth", [1, 3])
def test_an_error_at_any_save_costs_no_bits(dataset, tmp_path, undisturbed, monkeypatch, nth, before):
    save, counter = checkpoint.save, itertools.count(1)

    def failing(folder, step, items, **rest):
        fails = next(counter) == nth
        if not (fails and before):
            save(folder, step, items, **rest)
        if fails:
            raise CheckpointError("the disk is gone")

    monkeypatch.setattr(checkpoint, "save", failing)
    with pytest.raises(CheckpointError, match="the disk is gone"):
        train(dataset, tmp_path, save_every=0)
    monkeypatch.setattr(checkpoint, "save", save)
    assert (checkpoint.latest_step(tmp_path) or 0) == nth - before
    state, _ = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)


def test_divergence_leaves_the_folder_to_others(dataset, tmp_path, undisturbed):
    bright = dataclasses.replace(dataset, train_images=dataset.train_images.at[:].set(np.nan))
    with pytest.raises(DivergedError):
        train(bright, tmp_path)
    assert checkpoint.latest_step(tmp_path) is None
    state, _ = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)


# --- Seconds and the time limit ---------------------------------------------------------------


def save_at_step_3(dataset: Dataset, folder: Path, seconds: Seconds) -> None:
    """Leaves what another process has left, which took so long."""
    state = init_state(KEY, network=NETWORK, config=CONFIG, input_shape=SHAPE)
    state, _ = train_to(KEY, state, dataset, 3, network=NETWORK, config=CONFIG)
    checkpoint.save(folder, 3, {"state": state, "seconds": dataclasses.asdict(seconds)})


def test_seconds_are_carried_over(dataset, tmp_path):
    save_at_step_3(dataset, tmp_path, Seconds(compiling=1_000.0, training=2_000.0))
    _, seconds = train(dataset, tmp_path)
    assert 1_000 <= seconds.compiling < 1_100
    assert 2_000 < seconds.training < 2_100
    assert dataclasses.asdict(seconds) == pytest.approx(checkpoint.restore(tmp_path, "seconds"))


def test_the_time_limit_counts_earlier_processes(dataset, tmp_path):
    save_at_step_3(dataset, tmp_path, Seconds(compiling=40.0, training=61.0))
    with pytest.raises(TimeLimitError, match=r"took more than 100 s, and was at step 3$"):
        train(dataset, tmp_path, time_limit=100)
    assert train(dataset, tmp_path, time_limit=1_000)[0].step == UNTIL


def test_a_training_over_its_time_is_left_on_the_way(dataset, tmp_path):
    with pytest.raises(TimeLimitError, match=r"took more than 1e-09 s, and was at step 0$"):
        train(dataset, tmp_path, time_limit=1e-9)
    began = time.monotonic()
    with pytest.raises(TimeLimitError):
        train(dataset, tmp_path, 100_000, time_limit=0.5)
    assert time.monotonic() - began < 20


# --- Damage -----------------------------------------------------------------------------------


def largest_file(folder: Path) -> Path:
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def truncate(step: Path) -> None:
    file = largest_file(step)
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(step: Path) -> None:
    file = largest_file(step)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
@pytest.mark.parametrize("newest_alone", [True, False])
def test_damage_is_passed_over_and_the_end_is_the_same(dataset, tmp_path, undisturbed, damage, newest_alone):
    with pytest.raises(StoppedError):
        train(dataset, tmp_path, should_stop=after(4), save_every=0)
    steps = checkpoint.steps(tmp_path)
    assert len(steps) == 2
    for step in steps[1:] if newest_alone else steps:
        damage(tmp_path / str(step))
    told: list[int] = []
    state, _ = train(dataset, tmp_path, save_every=0, on_progress=lambda step, *_: told.append(step))
    assert told[0] == (steps[0] + 1 if newest_alone else 1)
    assert same_bits(arrays(state), undisturbed)
    assert checkpoint.steps(tmp_path) == (6, 7)


def test_a_folder_that_was_trained_further_is_trained_from_scratch(dataset, tmp_path, undisturbed, caplog):
    train(dataset, tmp_path, 12)
    with caplog.at_level(logging.WARNING, logger="eigen_jax.resumable"):
        state, _ = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)
    assert checkpoint.steps(tmp_path) == (UNTIL,)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} was trained past step {UNTIL}, and is trained from scratch"
    ]


# --- The folder -------------------------------------------------------------------------------


def test_a_folder_in_use_is_waited_for_and_then_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "_PATIENCE", 0.1)
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(CheckpointError, match=f"^{tmp_path} is in use by another process; end that one first$"),
    ):
        train(dataset, tmp_path)
    assert checkpoint.latest_step(tmp_path) is None


def test_a_folder_that_gets_free_in_time_is_taken(dataset, tmp_path, undisturbed):
    lock = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()
    timer = threading.Timer(0.3, lock.release)
    timer.start()
    state, _ = train(dataset, tmp_path)
    timer.join()
    assert same_bits(arrays(state), undisturbed)


def test_the_folder_is_free_afterwards_whatever_happened(dataset, tmp_path):
    for should_stop in (after(2), never):
        with contextlib.suppress(StoppedError):
            train(dataset, tmp_path, should_stop=should_stop)
        with filelock.FileLock(tmp_path / ".lock", timeout=0):
            pass


def test_a_folder_that_cannot_be_made_gets_one_line(dataset, tmp_path):
    (tmp_path / "file").write_text(json.dumps({}))
    for folder in (tmp_path / "file" / "folder", Path("/proc/nothing")):
        with pytest.raises(CheckpointError, match=rf"^cannot write {folder}: .*; choose a folder that can be written$"):
            train(dataset, folder)
