"""Training that outlives its process: saved on the way to a folder, and gone on with from there.

    <folder>/<step>/    "state" and "seconds" after so many steps; see `eigen_jax.store.checkpoint`
    <folder>/.lock      held by the process that trains

A process that is killed at any moment loses what it did since its last save. Whoever asks for the
same training again gets the bits of a training that nobody disturbed, where the device computes
deterministically.
"""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
from flax import linen as nn
from jax import Array

from eigen_jax.clock import WorkClock
from eigen_jax.errors import EigenError
from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.files import told_as
from eigen_jax.store.locks import LOCK, ShouldStop, StoppedError, held, never
from eigen_jax.training import (
    Dataset,
    ProgressCallback,
    Teacher,
    TrainConfig,
    TrainState,
    abstract_state,
    init_state,
    train_to,
)

SAVE_EVERY = 60.0  # seconds between two saves

_PATIENCE = 60.0  # seconds that the process of a killed driver has to end

_logger = logging.getLogger(__name__)


class TimeLimitError(EigenError):
    """A training takes longer than it may."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """What a training took, in all the processes that had a part in it."""

    compiling: float = 0.0  # waiting for programs; initialisation included, which is nearly all compilation
    training: float = 0.0

    @property
    def total(self) -> float:
        """Both together."""
        return self.compiling + self.training

    def __add__(self, other: "Seconds") -> "Seconds":
        """Of one after the other."""
        return Seconds(compiling=self.compiling + other.compiling, training=self.training + other.training)


def train_resumably(
    key: Array,
    dataset: Dataset,
    until: int,
    folder: Path,
    *,
    network: nn.Module,
    config: TrainConfig,
    init_key: Array | None = None,
    teacher: Teacher | None = None,
    save_every: float = SAVE_EVERY,
    time_limit: float | None = None,
    should_stop: ShouldStop = never,
    on_progress: ProgressCallback | None = None,
    clock: WorkClock | None = None,
) -> tuple[TrainState, Seconds]:
    """Trains from scratch until `until` steps were taken in all, or from what a folder holds of this training.

    Saves at `until`, and on the way. A folder whose newest save is past `until` is cleared: no way leads back.

    Args:
        key: of batches and views; see `train_to`.
        dataset: its training part is used.
        until: the landmark, in steps since the start of training.
        folder: this training's own; made where it is missing.
        network: the module.
        config: the settings.
        init_key: of the initial weights; `key` by default.
        teacher: whom the network mimics; None for plain cross-entropy.
        save_every: seconds between two saves.
        time_limit: seconds that the whole training may take.
        should_stop: asked after every call of a program.
        on_progress: see `train_to`.
        clock: of the process's work; paused while the disk is waited for. A new one by default.

    Raises:
        StoppedError: it was asked to stop, and is saved.
        TimeLimitError: it takes longer than `time_limit`.
        DivergedError, ConfigError: see `train_to`.
        CheckpointError: a checkpoint cannot be written, or is of another network, or the folder is
            another process's.
    """
    clock = clock or WorkClock()
    init_key = key if init_key is None else init_key
    with _locked(folder, clock):
        state, seconds = _resume(init_key, dataset, until, folder, network=network, config=config, clock=clock)
        while (step := int(state.step)) < until:
            _check(step, seconds, time_limit=time_limit, should_stop=should_stop)
            began = clock()
            left = save_every if time_limit is None else min(save_every, time_limit - seconds.total)

            def is_due(began: float = began, left: float = left) -> bool:
                return should_stop() or clock() - began >= left

            state, report = train_to(
                key,
                state,
                dataset,
                until,
                network=network,
                config=config,
                teacher=teacher,
                on_progress=on_progress,
                pause=is_due,
                clock=clock,
            )
            seconds += Seconds(compiling=report.compile_seconds, training=report.train_seconds)
            with clock.paused():
                checkpoint.save(folder, int(state.step), {"state": state, "seconds": dataclasses.asdict(seconds)})
    return state, seconds


def _check(step: int, seconds: Seconds, *, time_limit: float | None, should_stop: ShouldStop) -> None:
    if should_stop():
        raise StoppedError(f"training was stopped at step {step}")
    if time_limit is not None and seconds.total >= time_limit:
        raise TimeLimitError(f"training took more than {time_limit:g} s, and was at step {step}")


def _resume(
    key: Array,
    dataset: Dataset,
    until: int,
    folder: Path,
    *,
    network: nn.Module,
    config: TrainConfig,
    clock: WorkClock,
) -> tuple[TrainState, Seconds]:
    """The newest state saved, or an untrained one, and what it took so far."""
    _, height, width, channels = dataset.train_images.shape
    shape = (height, width, channels)
    step = checkpoint.latest_step(folder)
    if step is not None and step > until:
        _logger.warning("%s was trained past step %d, and is trained from scratch", folder, until)
        _clear(folder)
        step = None
    if step is None:
        began = clock()
        state = jax.block_until_ready(init_state(key, network=network, config=config, input_shape=shape))
        return state, Seconds(compiling=clock() - began)
    abstract = abstract_state(network=network, config=config, input_shape=shape)
    with clock.paused():
        state = checkpoint.restore(folder, "state", step=step, abstract=abstract)
        seconds = checkpoint.restore(folder, "seconds", step=step)
    return state, Seconds(**{field.name: float(seconds.get(field.name, 0)) for field in dataclasses.fields(Seconds)})


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)


@contextlib.contextmanager
def _locked(folder: Path, clock: WorkClock) -> Iterator[None]:
    """Keeps other processes out, such as one that a killed driver has left and that has not noticed yet."""
    with contextlib.ExitStack() as stack:
        with told_as(CheckpointError, folder), clock.paused():
            stack.enter_context(held(folder / LOCK, patience=_PATIENCE))
        yield
