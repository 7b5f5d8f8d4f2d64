"""What the search asks of an executor, and what an executor asks of the places where jobs run."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.executor.jobs import Job, Outcome

JobProgress = Callable[[int, int, float, float], None]  # position of the job, step, mean loss, steps a second


class ExecutorError(EigenError):
    """Jobs cannot be run, and no individual is to blame: one line for the user."""


class Executor(Protocol):
    """Where jobs run. What comes out depends on the jobs alone, not on the executor or on their order."""

    def run(self, jobs: Sequence[Job], *, on_progress: JobProgress | None = None) -> Iterator[tuple[int, Outcome]]:
        """Yields the position and the outcome of every job, all of different individuals, as they end.

        `on_progress` is called from the thread that iterates.

        Raises:
            StoppedError: it was asked to stop; all that was under way is saved.
            ExecutorError: jobs cannot be run.
            CheckpointError, ConfigError: see `run_job`; an executor with workers may raise an
                ExecutorError that says the same.
        """


@dataclasses.dataclass(frozen=True)
class Ready:
    """A worker has its data, and begins with what it was given to do."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """A worker's job is on its way."""

    step: int
    loss: float
    steps_per_second: float


@dataclasses.dataclass(frozen=True)
class Finished:
    """A worker's job has ended."""

    outcome: Outcome


@dataclasses.dataclass(frozen=True)
class Overdue:
    """A worker's job is far over its time and does not notice, as in a compilation, which nothing can interrupt."""

    cause: str  # one line
    seconds: float  # of work


@dataclasses.dataclass(frozen=True)
class Stopped:
    """A worker has saved its job and left it, as it was asked to."""


@dataclasses.dataclass(frozen=True)
class Refused:
    """A worker cannot do a job, for a reason that lies outside of the individual, such as a full disk."""

    reason: str  # one line for the user
    error: ConfigError | None = None  # where the reason is a setting


@dataclasses.dataclass(frozen=True)
class Died:
    """A worker is no more."""

    reason: str  # how it ended, to follow on "its worker "


Message = Ready | Progress | Finished | Overdue | Stopped | Refused | Died


class Worker(Protocol):
    """One that runs a job at a time, somewhere else. None of its methods waits."""

    def submit(self, job: Job) -> None:
        """Gives it a job."""

    def prepare(self, job: Job) -> None:
        """Tells it which job it may be given next."""

    def stop(self) -> None:
        """Asks it to save its job and to leave it."""

    def kill(self) -> None:
        """Ends it at once. It sends no message any more."""


class Workers(Protocol):
    """A place where workers can be started."""

    @property
    def size(self) -> int:
        """How many there can be at a time."""

    def start(self, slot: int) -> Worker:
        """Starts one at a place from 0 to size - 1; does not wait until it is ready."""

    # Of workers that it started itself, whatever their type.
    def messages(self, workers: Sequence[Any], timeout: float) -> list[tuple[Any, Message]]:
        """What workers have sent, each's in order; waits for it for `timeout` seconds at most."""

    def close(self) -> None:
        """Gives back what belongs to no single worker."""
