"""Workers as processes of this machine."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from eigen_jax import surroundings
from eigen_jax.executor.interface import Died, Job, Message, Ready
from eigen_jax.executor.pickling import pack
from eigen_jax.executor.session import to_host
from eigen_jax.platforms import return_freed_memory
from eigen_jax.training import Dataset, Teacher

PREPARE, RUN, STOP = "prepare", "run", "stop"  # what a worker is told to do

# A terminal, or a machine that is taken away, tells all processes, and the driver lets its workers save. Windows has
# not all of them.
DRIVERS_SIGNALS = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def python_path() -> dict[str, str]:
    """The variable with which another Python finds this very package, and the modules that this process finds now."""
    # Its standard library, another Python has itself.
    own = [path for path in map(os.path.abspath, sys.path) if not path.startswith(sysconfig.get_path("stdlib"))]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys([str(Path(__file__).resolve().parents[2]), *own]))}


class ProcessWorkers:
    """`Workers` that are Python processes; see `eigen_jax.executor.worker`."""

    def __init__(
        self, dataset: Dataset, *, teacher: Teacher | None = None, environments: Sequence[Mapping[str, str]] = ({}, {})
    ) -> None:
        """Starts nothing. The teacher is anything that can be pickled.

        `environments` are, of each worker, the variables that it has besides this process's own, such as
        which devices it sees, and which share of their memory it takes.
        """
        self._payload = to_host(dataset, teacher)
        self._environments = environments
        self.size = len(environments)

    def start(self, slot: int) -> "ProcessWorker":
        return ProcessWorker(self._payload, self._environments[slot])

    def messages(self, workers: Sequence[Any], timeout: float) -> list[tuple[Any, Message]]:
        by_connection = {worker.connection: worker for worker in workers}
        ready = wait(list(by_connection), timeout)
        return [(by_connection[each], by_connection[each].receive()) for each in ready]

    def close(self) -> None:
        """There is nothing to give back."""


class ProcessWorker:
    """A `Worker` that is a process, as its driver sees it."""

    def __init__(self, payload: Any, environment: Mapping[str, str]) -> None:
        """Starts it; raises ExecutorError where the teacher cannot be sent, here as in `submit` what a job holds."""
        packed = pack(payload)
        self.connection, theirs = Pipe()
        # The worker is of the driver's process group, so that Ctrl-Z stops it, too. It is born with the driver's
        # signals blocked, because it takes it seconds to come to ignoring them.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, DRIVERS_SIGNALS)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "eigen_jax.executor.worker", str(theirs.fileno())],
                env={**os.environ, **python_path(), **surroundings.environment(), **environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        # Packed here and not by the thread that sends, where an error would be nobody's.
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._outbox.put(packed)
        # Sending data waits until the worker reads them, which takes it seconds to come to.
        threading.Thread(target=_send_all, args=(self.connection, self._outbox), daemon=True).start()

    def submit(self, job: Job) -> None:
        self._outbox.put(pack((RUN, pack(job))))

    def prepare(self, job: Job) -> None:
        self._outbox.put(pack((PREPARE, pack(job))))

    def stop(self) -> None:
        self._outbox.put(pack((STOP, b"")))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._outbox.put(None)

    def receive(self) -> Message:
        """The next thing that it sent; its death, if there is nothing more."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            self._outbox.put(None)
            return Died(_how_it_ended(self.process.wait()))
        if isinstance(message, Ready):
            return_freed_memory()  # of the images that it was sent
        return message


def _send_all(connection: Connection, outbox: "queue.SimpleQueue[bytes | None]") -> None:
    # A worker that has died is told of by the other direction.
    with contextlib.suppress(OSError):
        for message in iter(outbox.get, None):
            connection.send_bytes(message)
            del message  # while the next one is waited for: the first holds all images


def _how_it_ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"
