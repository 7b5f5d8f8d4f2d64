"""Jobs and outcomes; what the search asks of an executor, and an executor of the places where jobs run."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jax import Array

from eigen_jax.architecture import Architecture
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.fitness import Measurement
from eigen_jax.resumable import Care, Seconds
from eigen_jax.training import TrainConfig

JobProgress = Callable[[int, int, float, float], None]  # position of the job, step, mean loss, steps a second


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inheritance:
    """The weights that a network starts from: those of its parent's layers, where they are of the same shapes."""

    folder: Path  # absolute; of the parent's training, as `Job.folder`
    layers: tuple[int | None, ...]  # of each layer, the parent's whose weights it has; None: it is drawn
    classifier: bool  # whether its classifier is the parent's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Training of one network up to a landmark, and its evaluation there: all that the outcome depends on."""

    name: str  # of the individual, in messages
    key: Array  # of the individual, the same at all its landmarks
    architecture: Architecture
    until: int  # the landmark, in steps since the start of training
    config: TrainConfig
    folder: Path  # absolute; where its training is saved and goes on from, the same at all its landmarks
    inheritance: Inheritance | None = None  # None: it is trained from scratch
    tested: bool = False  # whether the test images are looked at as well
    timed: bool = False  # whether the latency of one image is measured as well
    care: Care = dataclasses.field(default_factory=Care)  # where it is run, an executor lets it ask its own should_stop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job, and the one place where a measurement stands until it is recorded."""

    measurement: Measurement | None = None  # None if the job failed
    test_accuracy: float | None = None  # a fraction; None if the job failed, or was not to be tested
    cause: str | None = None  # why it failed, in one line; None if it did not
    seconds: Seconds = dataclasses.field(default_factory=Seconds)  # since the start of training, without evaluation


class ExecutorError(EigenError):
    """Jobs cannot be run, and no individual is to blame: one line for the user."""


class Executor(Protocol):
    """Where jobs run. What comes out depends on the jobs alone, not on the executor or on their order."""

    def run(self, jobs: Sequence[Job], *, on_progress: JobProgress | None = None) -> Iterator[tuple[int, Outcome]]:
        """Yields the position and the outcome of every job, all of different individuals, as they end.

        Whoever iterates may append to a list of jobs meanwhile: each is taken on as soon as there is room for it, and
        the iteration ends when all have ended and none has come. `on_progress` is called from the thread that iterates.

        Raises:
            StoppedError: it was asked to stop; all that was under way is saved.
            ExecutorError: jobs cannot be run; with workers, also for what `run_job` raises a CheckpointError.
            CheckpointError, ConfigError: see `run_job`.
        """


@dataclasses.dataclass(frozen=True)
class Ready:
    """A worker has its data, and begins with what it was given to do."""


class Progress(NamedTuple):
    """A worker's job is on its way."""

    step: int
    loss: float
    steps_per_second: float


class Overdue(NamedTuple):
    """A worker's job is far over its time and does not notice, as in a compilation, which nothing can interrupt."""

    cause: str  # one line
    seconds: float  # of work


@dataclasses.dataclass(frozen=True)
class Stopped:
    """A worker has saved its job and left it, as it was asked to."""


class Refused(NamedTuple):
    """A worker cannot do a job, for a reason that lies outside of the individual, such as a full disk."""

    reason: str  # one line for the user
    error: ConfigError | None = None  # where the reason is a setting


class Died(NamedTuple):
    """A worker is no more."""

    reason: str  # how it ended, to follow on "its worker "


Answer = Outcome | Stopped | Refused  # what becomes of a job
Message = Ready | Progress | Overdue | Answer | Died


class Worker(Protocol):
    """One that runs a job at a time, somewhere else. None of its methods waits."""

    def submit(self, job: Job) -> None: ...

    def prepare(self, job: Job) -> None: ...  # tells it which job it may be given next

    def stop(self) -> None: ...  # asks it to save its job and to leave it

    def kill(self) -> None: ...  # ends it at once; it sends no message any more


class Workers(Protocol):
    """A place where workers can be started."""

    size: int  # how many there can be at a time

    def start(self, slot: int) -> Worker:
        """Starts one at a place from 0 to size - 1; does not wait until it is ready."""

    # Of workers that it started itself, whatever their type.
    def messages(self, workers: Sequence[Any], timeout: float) -> list[tuple[Any, Message]]:
        """What workers have sent, each's in order; waits for it for `timeout` seconds at most."""

    def close(self) -> None:
        """Gives back what belongs to no single worker."""
