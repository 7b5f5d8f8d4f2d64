"""Jobs among several workers: who gets which, and what happens when one dies or takes too long."""

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from eigen_jax.executor import interface
from eigen_jax.executor.interface import ExecutorError, Job, JobProgress, Outcome, Worker, Workers
from eigen_jax.resumable import Seconds
from eigen_jax.store import checkpoint
from eigen_jax.store.locks import ShouldStop, StoppedError, never

STARTS = 3  # times in a row that a worker may die before it is ready
_POLL = 0.2  # seconds between two looks at whether to stop
_STOPPING = 120.0  # seconds without a word that workers have to save


@dataclasses.dataclass(kw_only=True)
class _Slot:
    """A place for a worker."""

    worker: Worker | None = None
    ready: bool = False
    position: int | None = None  # of the job that it runs


@dataclasses.dataclass
class _Work:
    """The jobs of one call of `run`, which may become more."""

    jobs: Sequence[Job]
    known: int = 0  # of them
    ended: int = 0
    queue: deque[int] = dataclasses.field(default_factory=deque)  # positions of those that wait for a worker
    # How often a job's worker has died, by its position and the newest step that was saved.
    deaths: Counter[tuple[int, int | None]] = dataclasses.field(default_factory=Counter)


class PoolExecutor:
    """An `Executor` with workers in other processes, on this machine or on others.

    A worker that dies takes nobody along: its job goes to another, which goes on from the last save.
    A job whose workers die again and again without getting any further has failed, for good.
    """

    def __init__(self, workers: Workers, *, should_stop: ShouldStop = never, retries: int = 3) -> None:
        self.workers = workers  # started when there are jobs for them
        self.should_stop = should_stop  # whether to save the jobs under way and to leave
        self.retries = retries  # how often a job whose worker died is tried again from the same save
        self._slots = [_Slot() for _ in range(workers.size)]
        self._failed_starts = 0
        self._home: dict[Path, int] = {}  # slot of the worker that has a job's programs, by the job's folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all workers."""
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.kill()
                slot.worker = None
        self.workers.close()

    def run(self, jobs: Sequence[Job], *, on_progress: JobProgress | None = None) -> Iterator[tuple[int, Outcome]]:
        """See `Executor`."""
        work = _Work(jobs)
        try:
            while work.ended < len(jobs):
                if self.should_stop():
                    self._stop_all()
                    raise StoppedError("jobs were stopped")
                self._assign(work)
                for slot, message in self._messages():
                    position = slot.position
                    if isinstance(message, interface.Progress) and on_progress is not None and position is not None:
                        on_progress(position, *message)
                    outcome = self._take(slot, message, work)
                    if outcome is not None and position is not None:
                        work.ended += 1
                        yield position, outcome
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Ends the workers whose jobs nobody waits for any more: what they say would be taken for the next ones'."""
        for slot in self._slots:
            if slot.position is not None and slot.worker is not None:
                slot.worker.kill()
                slot.worker = slot.position = None

    def _assign(self, work: _Work) -> None:
        """Gives jobs to idle workers, and tells each which one it may be given next."""
        work.queue.extend(range(work.known, len(work.jobs)))
        work.known = len(work.jobs)
        for number, slot in enumerate(self._slots):
            if slot.position is not None or not work.queue:
                continue
            if slot.worker is None:
                slot.worker, slot.ready = self.workers.start(number), False
            slot.position = self._pick(number, work)
            work.queue.remove(slot.position)
            slot.worker.submit(work.jobs[slot.position])
            if work.queue:
                following = work.jobs[self._pick(number, work)]
                self._home.setdefault(following.folder, number)
                slot.worker.prepare(following)

    def _pick(self, slot: int, work: _Work) -> int:
        """The first job whose programs this worker has; else that no worker has; else the first."""
        homes = [self._home.get(work.jobs[position].folder) for position in work.queue]
        wanted = next((home for home in (slot, None) if home in homes), homes[0])
        return work.queue[homes.index(wanted)]

    def _messages(self) -> list[tuple[_Slot, interface.Message]]:
        slots = {id(slot.worker): slot for slot in self._slots}
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        return [(slots[id(worker)], message) for worker, message in self.workers.messages(workers, _POLL)]

    def _take(self, slot: _Slot, message: interface.Message, work: _Work) -> Outcome | None:
        """Takes note of a message; gives the outcome that it brings, if any."""
        position = slot.position
        if isinstance(message, interface.Ready):
            slot.ready, self._failed_starts = True, 0
        elif isinstance(message, interface.Refused):
            slot.position = None
            raise message.error or ExecutorError(message.reason)
        elif isinstance(message, Outcome) and position is not None:
            slot.position = None
            self._home[work.jobs[position].folder] = self._slots.index(slot)
            return message
        elif isinstance(message, interface.Overdue) and position is not None and slot.worker is not None:
            slot.worker.kill()
            slot.worker = slot.position = None
            return Outcome(cause=message.cause, seconds=Seconds(training=message.seconds))
        elif isinstance(message, interface.Died):
            slot.worker = slot.position = None
            if not slot.ready:
                self._count_failed_start(message.reason)
            elif position is not None and (outcome := self._count_death(work, position, message.reason)):
                return outcome
            if position is not None:
                work.queue.appendleft(position)
        return None

    def _count_failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= STARTS:
            problem = f"workers end before they are ready (the last one {reason})"
            raise ExecutorError(f"{problem}; see what they wrote above, or use the executor 'inline'")

    def _count_death(self, work: _Work, position: int, reason: str) -> Outcome | None:
        """The outcome of a job whose worker died once too often; None if it is to be tried again."""
        place = position, checkpoint.latest_step(work.jobs[position].folder)
        work.deaths[place] += 1
        if work.deaths[place] <= self.retries:
            return None
        return Outcome(cause=f"its worker died {work.deaths[place]} times at one place: the last one {reason}")

    def _stop_all(self) -> None:
        """Lets every worker save; what they still finish is found again when the same jobs are run."""
        for slot in self._slots:
            if slot.worker is not None and slot.position is not None:
                slot.worker.stop()
        # Counted in looks: a driver that was stopped itself has not waited.
        silent_looks = 0
        while any(slot.position is not None for slot in self._slots) and silent_looks * _POLL < _STOPPING:
            messages = self._messages()
            silent_looks += not messages
            for slot, message in messages:
                if isinstance(message, interface.Answer | interface.Died):
                    slot.position = None
                if isinstance(message, interface.Died):
                    slot.worker = None
