"""Training that outlives its process: saved on the way to a folder, and gone on with from there.

A process that is killed at any moment loses what it did since its last save. Whoever asks for the same training again
gets the bits of one that nobody disturbed, where the device computes deterministically.
"""

import contextlib
import dataclasses
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from eigen_jax.clock import WorkClock
from eigen_jax.errors import EigenError
from eigen_jax.store import checkpoint
from eigen_jax.store.files import told_as
from eigen_jax.store.locks import LOCK, ShouldStop, StoppedError, held, never
from eigen_jax.training import (
    Programs,
    ProgressCallback,
    Training,
    TrainState,
    abstract_state,
    init_state,
    start_from,
    train_to,
)

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
        return self.compiling + self.training

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(compiling=self.compiling + other.compiling, training=self.training + other.training)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Care:
    """How a training is looked after; no outcome depends on it but that of a time limit."""

    save_every: float = 60.0  # seconds between two saves
    time_limit: float | None = None  # seconds that a training may take, compiling included; None: no limit
    should_stop: ShouldStop = never  # whether to save and to leave; asked after every call of a program

    def check(self, step: int, seconds: Seconds) -> None:
        """Raises `StoppedError` or `TimeLimitError` where a training at `step` that took `seconds` is to end."""
        if self.should_stop():
            raise StoppedError(f"training was stopped at step {step}")
        if self.time_limit is not None and seconds.total >= self.time_limit:
            raise TimeLimitError(f"training took more than {self.time_limit:g} s, and was at step {step}")

    def saves(self, clock: WorkClock, seconds: Seconds) -> Callable[[], bool]:
        """What says whether a training that goes on now, and took `seconds`, is to be saved."""
        left = math.inf if self.time_limit is None else self.time_limit - seconds.total
        due = clock() + min(self.save_every, left)
        return lambda: self.should_stop() or clock() >= due


def train_resumably(
    training: Training,
    until: int,
    folder: Path,
    *,
    care: Care | None = None,
    on_progress: ProgressCallback | None = None,
    clock: WorkClock | None = None,
    programs: Programs | None = None,
) -> tuple[TrainState, Seconds]:
    """Trains from scratch until `until` steps were taken in all, or from what a folder holds of this training.

    The folder, this training's own, is made where it is missing. It gets the state and the seconds at `until`, and on
    the way; where its newest save is past `until` it is cleared: no way leads back. The clock, of the process's work,
    is paused while the disk is waited for. For the rest see `train_to`.

    Raises:
        StoppedError, TimeLimitError: see `Care.check`.
        DivergedError, ConfigError: see `train_to`.
        CheckpointError: a checkpoint cannot be written, or is of another network, or the folder another process's.
    """
    care, clock = care or Care(), clock or WorkClock()
    trained: dict[str, Any] = {"network": training.network, "config": training.config, "teacher": training.teacher}
    told: dict[str, Any] = {"on_progress": on_progress, "clock": clock, "programs": programs}
    with contextlib.ExitStack() as owned:
        with told_as(checkpoint.CheckpointError, folder), clock.paused():
            # From others, such as the process of a killed driver that has not noticed yet.
            owned.enter_context(held(folder / LOCK, patience=_PATIENCE))
        state, seconds = _resume(training, until, folder, clock, programs)
        while (step := int(state.step)) < until:
            care.check(step, seconds)
            pause = care.saves(clock, seconds)
            state, report = train_to(training.key, state, training.dataset, until, pause=pause, **trained, **told)
            seconds += Seconds(compiling=report.compile_seconds, training=report.train_seconds)
            with clock.paused():
                checkpoint.save(folder, int(state.step), {"state": state, "seconds": dataclasses.asdict(seconds)})
    return state, seconds


def _resume(
    training: Training, until: int, folder: Path, clock: WorkClock, programs: Programs | None
) -> tuple[TrainState, Seconds]:
    """The newest state saved, or an untrained one, and what it took so far."""
    made: dict[str, Any] = {"network": training.network, "config": training.config, "input_shape": training.input_shape}
    step = checkpoint.latest_step(folder)
    if step is not None and step > until:
        _logger.warning("%s was trained past step %d, and is trained from scratch", folder, until)
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
        step = None
    if step is None:
        began = clock()
        state = init_state(training.weights_key, **made, programs=programs)
        if training.initial is not None:
            state = start_from(state, training.initial, config=training.config)
        return jax.block_until_ready(state), Seconds(compiling=clock() - began)
    with clock.paused():
        state = checkpoint.restore(folder, "state", step=step, abstract=abstract_state(**made))
        seconds = checkpoint.restore(folder, "seconds", step=step)
    return state, Seconds(**{field.name: float(seconds.get(field.name, 0)) for field in dataclasses.fields(Seconds)})
