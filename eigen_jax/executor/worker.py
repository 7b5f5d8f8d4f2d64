"""A worker process: reads jobs from its driver, one at a time, and sends back what becomes of them.

    python -m eigen_jax.executor.worker FD

Started by `eigen_jax.executor.processes` alone, with one end of a pipe as descriptor FD; ends when its driver does.
"""

import contextlib
import functools
import logging
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from eigen_jax.executor.interface import ExecutorError, Message, Ready, Refused
from eigen_jax.executor.pickling import unpack
from eigen_jax.executor.processes import DRIVERS_SIGNALS, PREPARE, RUN, STOP
from eigen_jax.executor.session import Session, open_session
from eigen_jax.platforms import return_freed_memory


def main(descriptor: int) -> None:
    """Serves the driver at the other end of a pipe until it hangs up."""
    # By force: absl has set the root logger up before. Orbax logs through it, with warnings that are of no use.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    _stand_back()
    connection = Connection(descriptor)
    send = functools.partial(_send, connection, threading.Lock())
    driver = os.getppid()
    try:
        # Nothing here holds the arrays that were sent: they are as large as those on the device.
        session = open_session(unpack(connection.recv_bytes()), is_held=lambda: _is_stopped(driver))
    except (EOFError, OSError):
        return
    except ExecutorError as error:
        session = Refused(str(error))
    if isinstance(session, Refused):
        send(session)
        return
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, session, jobs, stop), daemon=True).start()
    send(Ready())
    while True:
        return_freed_memory()  # which a worker that waits would hold
        send(session.answer(jobs.get(), should_stop=stop.is_set, tell=send))


def _stand_back() -> None:
    """Lets the driver decide when to save and end, and outlive this process."""
    for number in DRIVERS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DRIVERS_SIGNALS)
    # Out of memory, Linux is to choose a worker; other systems have no such file.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _listen(connection: Connection, session: Session, jobs: "queue.SimpleQueue[bytes]", stop: threading.Event) -> None:
    """Takes what the driver sends; ends the process when it hangs up."""
    while True:
        try:
            what, packed = connection.recv()
        except (EOFError, OSError):
            _leave()
        if what == RUN:
            # Here, so that no request that follows is overlooked, and none outlives its job.
            stop.clear()
            jobs.put(packed)
        elif what == PREPARE:
            # Whatever is wrong with it is told when it is run.
            with contextlib.suppress(Exception):
                session.prepare(unpack(packed))
        elif what == STOP:
            stop.set()


def _is_stopped(driver: int) -> bool:
    """Whether the driver is stopped, where the system tells of it: its workers are then to hold still as well."""
    try:
        # The name, in parentheses, may hold anything.
        return Path(f"/proc/{driver}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False


def _send(connection: Connection, lock: threading.Lock, message: Message) -> None:
    try:
        with lock:
            connection.send(message)
    except OSError:
        _leave()


def _leave() -> None:
    """At once, and whatever the other threads do: the driver is gone, and its successor takes over its jobs."""
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
