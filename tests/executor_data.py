"""A small problem for the tests of executors, with teachers that worker processes can import."""

import contextlib
import os
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax import checkpoint
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.data import Dataset
from eigen_jax.executor import Job
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
    return Dataset(
        train_images=images[:16],
        train_labels=labels[:16],
        validation_images=images[16:32],
        validation_labels=labels[16:32],
        test_images=images[32:],
        test_labels=labels[32:],
        num_classes=2,
        name="bright_and_dark",
        fingerprint="none",
    )


def make_job(folder: Path, number: int = 3, *, until: int = 7, config: TrainConfig = CONFIG, **rest) -> Job:
    """A job of the individual of a number, whose training is saved in `folder`/individuals/`number`."""
    rest.setdefault("architecture", network())
    place = folder.absolute() / "individuals" / str(number)
    return Job(name=f"0.{number}", key=jax.random.key(number), until=until, config=config, folder=place, **rest)


def leaves_of(folder: Path) -> list[np.ndarray]:
    """All that the newest checkpoint says of a training."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoint.restore(folder, "state"))]


def same_bits(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    """Whether two lists hold the same arrays."""
    return [each.shape for each in ours] == [each.shape for each in theirs] and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True)
    )


class Fair:
    """A teacher that does not know, and that takes its time."""

    fingerprint = "fair"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, examples, views, images):
        time.sleep(self.seconds)
        return jnp.zeros((examples.shape[0], 2), jnp.float32)


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
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(examples, views, images)

    def _is_training(self) -> bool:
        """Whether this process holds the lock."""
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(each) == self.lock:
                    return True
        return False


class Mistaken(Fair):
    """A teacher with a mistake in its program."""

    def __call__(self, examples, views, images):
        raise TypeError("a mistake")
