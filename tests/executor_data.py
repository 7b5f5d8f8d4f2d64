"""A small problem for the tests of executors, with teachers that worker processes can import."""

import dataclasses
import importlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from refusals import refuses

from eigen_jax.architecture import Architecture, Layer
from eigen_jax.data import Dataset
from eigen_jax.executor import ExecutorError, InlineExecutor, Job, Outcome, PoolExecutor
from eigen_jax.fitness import Measurement
from eigen_jax.resumable import Care
from eigen_jax.store import checkpoint
from eigen_jax.store.locks import StoppedError, never
from eigen_jax.training import TrainConfig

CONFIG = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=0, flip=False, eval_batch_size=16)
SHAPE = (4, 4, 1)


def network(channels: int = 4) -> Architecture:
    """One convolution."""
    layers = (Layer(op="conv", inputs=(-1,), channels=channels, kernel=3, stride=1),)
    return Architecture(input_shape=SHAPE, layers=layers)


def make_dataset(*, noise: float = 0.1) -> Dataset:
    """Images that are bright or dark: two classes that one convolution tells apart."""
    labels = jnp.arange(48, dtype=jnp.int32) % 2
    brightness = np.asarray(labels)[:, None, None, None] * 2 - 1
    images = jnp.asarray(brightness + np.random.default_rng(0).normal(0, noise, (48, *SHAPE)), jnp.float32)
    parts = {"train": slice(16), "validation": slice(16, 32), "test": slice(32, 48)}
    arrays: dict[str, Any] = {f"{part}_images": images[at] for part, at in parts.items()}
    arrays |= {f"{part}_labels": labels[at] for part, at in parts.items()}
    return Dataset(**arrays, num_classes=2, name="bright_and_dark", fingerprint="none")


def measured(accuracy: float) -> Measurement:
    """What a job that is only pretended measures."""
    return Measurement(accuracy=accuracy, parameters=20, flops=30)


def reproducible(measurement: Measurement | None) -> Measurement | None:
    """What is measured again to the bit: all but the times."""
    return measurement and dataclasses.replace(measurement, latency=None, batch_latency=None)


def make_job(
    folder: Path,
    number: int = 3,
    *,
    until: int = 7,
    config: TrainConfig = CONFIG,
    architecture: Architecture | None = None,
    tested: bool = False,
    timed: bool = False,
    **care,
) -> Job:
    """A job of the individual of a number, whose training is saved in `folder`/individuals/`number`."""
    return Job(
        name=f"0.{number}",
        key=jax.random.key(number),
        architecture=architecture or network(),
        until=until,
        config=config,
        folder=folder.absolute() / "individuals" / str(number),
        tested=tested,
        timed=timed,
        care=Care(**care),
    )


def make_jobs(folder: Path, count: int, *, networks: int = 1, **rest) -> list[Job]:
    """Jobs of several individuals, tested, with so many architectures in turn."""
    architectures = [network(4 + number % networks) for number in range(count)]
    return [make_job(folder, each, architecture=architectures[each], tested=True, **rest) for each in range(count)]


def elsewhere(job: Job) -> Job:
    """The same job in another folder."""
    return dataclasses.replace(job, folder=job.folder.parent / "elsewhere" / job.folder.name)


def after(calls: int) -> Callable[[], bool]:
    """A `ShouldStop` that is asked so often in vain."""
    counter = itertools.count()
    return lambda: next(counter) >= calls


def leaves_of(folder: Path) -> list[np.ndarray]:
    """All that the newest checkpoint says of a training."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoint.restore(folder, "state"))]


def same_bits(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> bool:
    """Whether two lists hold the same arrays."""
    return [each.shape for each in ours] == [each.shape for each in theirs] and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True)
    )


def check_as_inline(jobs: Sequence[Job], outcomes: dict[int, Outcome], dataset: Dataset, teacher=None) -> None:
    """Checks that outcomes and all that was saved are those of one process without a disturbance."""
    alone = [dataclasses.replace(elsewhere(job), care=Care(save_every=3_600.0)) for job in jobs]
    expected = dict(InlineExecutor(dataset, teacher=teacher).run(alone))
    assert all(outcome.cause is None for outcome in expected.values())
    ours, theirs = (
        {position: (reproducible(each.measurement), each.test_accuracy, each.cause) for position, each in some.items()}
        for some in (outcomes, expected)
    )
    assert ours == theirs
    assert all(same_bits(leaves_of(one.folder), leaves_of(two.folder)) for one, two in zip(jobs, alone, strict=True))


def check_stop(executor: PoolExecutor, dataset: Dataset, folder: Path) -> None:
    """Checks that a stop saves two jobs under way, and is forgotten by the next ones, which go on from there."""
    jobs = make_jobs(folder, 2, until=1_000_000, save_every=3_600.0)
    told: set[int] = set()
    deadline = time.monotonic() + 200  # a job that were stopped unasked would be waited for without an end
    executor.should_stop = lambda: told == {0, 1} or time.monotonic() > deadline
    try:
        with pytest.raises(StoppedError):
            list(executor.run(jobs, on_progress=lambda position, *_: told.add(position)))
        steps = [checkpoint.latest_step(job.folder) or 0 for job in jobs]
        assert all(0 < step < 1_000_000 for step in steps)
        executor.should_stop = lambda: time.monotonic() > deadline
        further = [dataclasses.replace(job, until=step + 20) for job, step in zip(jobs, steps, strict=True)]
        check_as_inline(further, dict(executor.run(further)), dataset)
    finally:
        executor.should_stop = never


def forget_jobs(executor: PoolExecutor) -> None:
    """Lets an executor be used again whose workers are idle, after an error that ends a search."""
    for slot in executor._slots:
        slot.position = None


def plain_sgd(config: TrainConfig) -> optax.GradientTransformation:
    """An optimizer of the user's own, which workers find where the tests are."""
    return optax.sgd(config.learning_rate)


class Lost:
    """What no worker finds again."""

    def __call__(self) -> bool:
        return False

    def __reduce__(self):
        return importlib.import_module, ("nowhere_to_be_found",)


def of_main() -> bool:
    """Seems to be of the script that was started."""
    return False


of_main.__module__ = "__main__"

# What cannot be in a job, with the line that says why.
UNFINDABLE: list[tuple[Callable[[], bool], str]] = [
    (
        lambda: False,
        "no worker can import executor_data.<lambda>; define it by a name of its own in a module",
    ),
    (of_main, "no worker can import __main__.of_main; define it by a name of its own in a module"),
    (
        threading.Lock().locked,
        "cannot pickle '_thread.lock' object, so no worker can have it; use the executor 'inline'",
    ),
    (
        Lost(),
        "a worker cannot read what it was sent (ModuleNotFoundError: No module named 'nowhere_to_be_found'); put what"
        " is missing where all workers find it, such as into a module in a folder of sys.path",
    ),
]


def check_own_code(executor: PoolExecutor, dataset: Dataset, folder: Path) -> None:
    """Checks that workers find what is the user's own, and that one line says what they could not."""
    jobs = make_jobs(folder, 1, config=dataclasses.replace(CONFIG, optimizer=plain_sgd))
    check_as_inline(jobs, dict(executor.run(jobs)), dataset)
    for should_stop, line in UNFINDABLE:
        with refuses(ExecutorError, line):
            list(executor.run([make_job(folder, 9, should_stop=should_stop)]))
        forget_jobs(executor)
    jobs = make_jobs(folder, 2, config=dataclasses.replace(CONFIG, optimizer=plain_sgd), until=9)
    check_as_inline(jobs, dict(executor.run(jobs)), dataset)  # nobody is harmed


class Fair:
    """A teacher that does not know, and that takes its time."""

    fingerprint = "fair"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, examples, views, images):
        time.sleep(self.seconds)
        return jnp.zeros((examples.shape[0], 2), jnp.float32)


def _target(link: Path) -> str | None:
    """What an open file's link points to; None where another thread has closed the file since."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return None


class Killer(Fair):
    """A teacher that kills the process that trains in a folder, at its first question or later, once or always."""

    def __init__(self, folder: Path, *, once: bool, after: int = 0) -> None:
        super().__init__()
        self.left = after  # questions that it answers before
        self.lock = str(folder.absolute() / ".lock")
        self.killed = Path(f"{folder.absolute()}.killed")
        self.once = once

    def __call__(self, examples, views, images):
        is_training = self._is_training()
        self.left -= is_training
        if is_training and self.left < 0 and not (self.once and self.killed.exists()):
            self.killed.touch()
            self.end()
        return super().__call__(examples, views, images)

    def _is_training(self) -> bool:
        """Whether this process holds the lock."""
        return self.lock in map(_target, Path("/proc/self/fd").iterdir())

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Mistaken(Fair):
    """A teacher with a mistake in its program."""

    def __call__(self, examples, views, images):
        raise TypeError("a mistake")
