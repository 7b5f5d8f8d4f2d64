"""Training that is stopped, killed or damaged, and ends with the bits of one that nobody disturbed."""

import dataclasses
import itertools
import logging
import threading
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
from executor_data import CONFIG, SHAPE, after, make_dataset, network, same_bits
from refusals import refuses

from eigen_jax import resumable
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.resumable import Care, Seconds, TimeLimitError, train_resumably
from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.locks import StoppedError
from eigen_jax.training import DivergedError, Training, TrainState, abstract_state, init_state, train_to

KEY = jax.random.key(3)
NETWORK = build_network(network(), num_classes=2, dtype="float32")
UNTIL = 5


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(noise=1.0)


def by_the_loop(dataset: Dataset, until: int = UNTIL, key: jax.Array = KEY) -> TrainState:
    """The state after so many steps, by the training loop alone."""
    state = init_state(key, network=NETWORK, config=CONFIG, input_shape=SHAPE)
    return train_to(KEY, state, dataset, until, network=NETWORK, config=CONFIG)[0]


@pytest.fixture(scope="module")
def undisturbed(dataset) -> list[np.ndarray]:
    return arrays(by_the_loop(dataset))


def arrays(state: TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def train(
    dataset: Dataset, folder: Path, until: int = UNTIL, *, init_key=None, on_progress=None, **care
) -> tuple[TrainState, Seconds]:
    training = Training(key=KEY, init_key=init_key, dataset=dataset, network=NETWORK, config=CONFIG)
    return train_resumably(training, until, folder, care=Care(**care), on_progress=on_progress)


@pytest.fixture
def saved(monkeypatch) -> list[int]:
    """The steps that are saved from now on."""
    steps: list[int] = []
    save = checkpoint.save

    def watched(folder, step, items, **rest):
        save(folder, step, items, **rest)
        steps.append(step)

    monkeypatch.setattr(checkpoint, "save", watched)
    return steps


def test_training_is_saved_at_the_landmark_and_restored_there_when_it_is_asked_for_again(
    dataset, tmp_path, undisturbed, saved, monkeypatch
):
    folder = tmp_path / "new" / "folder"
    state, seconds = train(dataset, folder)
    assert saved == [UNTIL]
    assert same_bits(arrays(state), undisturbed)
    abstract = abstract_state(network=NETWORK, config=CONFIG, input_shape=SHAPE)
    assert same_bits(arrays(checkpoint.restore(folder, "state", abstract=abstract)), undisturbed)
    assert seconds.training > 0
    assert seconds.total == seconds.compiling + seconds.training
    monkeypatch.setattr(resumable, "train_to", None)
    state, again = train(dataset, folder)
    assert same_bits(arrays(state), undisturbed)
    assert again == seconds
    assert saved == [UNTIL]


def test_saves_on_the_way_and_an_earlier_landmark_change_no_bits(dataset, tmp_path, undisturbed, saved):
    told: list[int] = []
    train(dataset, tmp_path, 3, save_every=0)
    assert saved == [1, 2, 3]
    state, _ = train(dataset, tmp_path, on_progress=lambda step, *_: told.append(step), save_every=0)
    assert told == [4, 5]
    assert saved == [1, 2, 3, 4, 5]
    assert checkpoint.steps(tmp_path) == (4, 5)
    assert same_bits(arrays(state), undisturbed)


def test_initial_weights_have_a_key_of_their_own(dataset, tmp_path):
    theirs = jax.random.key(11)
    with pytest.raises(StoppedError):
        train(dataset, tmp_path, init_key=theirs, should_stop=after(2))
    state, _ = train(dataset, tmp_path, init_key=theirs)
    assert same_bits(arrays(state), arrays(by_the_loop(dataset, key=theirs)))


@pytest.mark.parametrize("calls", [0, 1, UNTIL - 1])
def test_a_stop_is_saved_first_and_gone_on_from(dataset, tmp_path, undisturbed, calls):
    with pytest.raises(StoppedError, match=f"at step {calls}$"):
        train(dataset, tmp_path, should_stop=after(calls))
    # One question before training, and one after each step.
    assert (checkpoint.latest_step(tmp_path) or 0) == calls
    state, _ = train(dataset, tmp_path, should_stop=after(UNTIL - calls))  # who is asked there has reached the landmark
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

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", failing)
        with pytest.raises(CheckpointError, match="the disk is gone"):
            train(dataset, tmp_path, save_every=0)
    assert (checkpoint.latest_step(tmp_path) or 0) == nth - before
    state, _ = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)


def test_divergence_leaves_the_folder_to_others(dataset, tmp_path, undisturbed):
    bright = dataclasses.replace(dataset, train_images=dataset.train_images.at[:].set(np.nan))
    with pytest.raises(DivergedError, match=r"^training diverged by step 5: the mean loss is nan; lower the learning"):
        train(bright, tmp_path)
    assert checkpoint.latest_step(tmp_path) is None
    state, _ = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)


def test_a_training_over_its_time_is_left_on_the_way_and_earlier_processes_count(dataset, tmp_path, undisturbed):
    for until, limit, said in (
        (UNTIL, 1e-9, "1e-09 s, and was at step 0$"),
        (100_000, 0.5, r"0\.5 s, and was at step"),
    ):
        with pytest.raises(TimeLimitError, match=f"took more than {said}"):
            train(dataset, tmp_path / "slow", until, time_limit=limit)
    earlier = Seconds(compiling=1_000.0, training=2_000.0)
    checkpoint.save(tmp_path, 3, {"state": by_the_loop(dataset, 3), "seconds": dataclasses.asdict(earlier)})
    with pytest.raises(TimeLimitError, match=r"took more than 2500 s, and was at step 3$"):
        train(dataset, tmp_path, time_limit=2_500)
    state, seconds = train(dataset, tmp_path, time_limit=10_000)
    assert same_bits(arrays(state), undisturbed)
    assert 1_000 <= seconds.compiling < 1_900
    assert 2_000 < seconds.training < 2_900
    assert dataclasses.asdict(seconds) == pytest.approx(checkpoint.restore(tmp_path, "seconds"))


def test_a_folder_that_was_trained_further_is_trained_from_scratch(dataset, tmp_path, undisturbed, caplog):
    train(dataset, tmp_path, UNTIL + 1)
    with caplog.at_level(logging.WARNING, logger="eigen_jax.resumable"):
        state, _ = train(dataset, tmp_path)
    assert same_bits(arrays(state), undisturbed)
    assert checkpoint.steps(tmp_path) == (UNTIL,)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} was trained past step {UNTIL}, and is trained from scratch"
    ]


def test_a_folder_in_use_is_waited_for_and_then_refused(dataset, tmp_path, undisturbed, monkeypatch):
    lock = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(resumable, "_PATIENCE", 0.1)
        line = f"{tmp_path} is in use by another process; wait for it or end it, or choose another folder"
        with refuses(CheckpointError, line):
            train(dataset, tmp_path)
    assert checkpoint.latest_step(tmp_path) is None
    timer = threading.Timer(0.3, lock.release)
    timer.start()
    state, _ = train(dataset, tmp_path)
    timer.join()
    assert same_bits(arrays(state), undisturbed)


def test_a_folder_that_cannot_be_made_gets_one_line(dataset, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "folder", Path("/proc/nothing")):
        with pytest.raises(CheckpointError, match=rf"^cannot write {folder}: .*; choose a folder that can be written$"):
            train(dataset, folder)
