"""Processes under test: started, watched, killed. What belongs to a process is told by Linux's /proc."""

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_PROC = Path("/proc")
_POLL = 0.005  # seconds between two looks
_RAY_SERVERS = ("gcs_server", "raylet")  # that a local cluster starts, in this order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """A process of this machine; the time tells it from a later one of the same number."""

    pid: int
    started: int  # clock ticks since boot
    command: str  # arguments, joined by spaces

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; a dead one that nobody has asked about does not."""
        found = _look_up(self.pid)
        return found is not None and found.started == self.started

    def kill(self) -> bool:
        """Kills it; whether it was there to be killed."""
        if not self.is_alive:
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


class Child:
    """A command that runs as a child of this process, out of reach of the terminal's Ctrl-C."""

    def __init__(self, command: Sequence[str], *, cwd: Path, output: Path) -> None:
        """Starts it; what it prints is added to the file `output`."""
        with open(output, "ab") as file:
            self._process = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.began

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        return self._process.poll()

    def runs_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Waits until a condition holds, the time is over, or the process ends; whether it still runs."""
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            if condition() or time.monotonic() >= deadline:
                return True
            time.sleep(max(0.0, min(_POLL, deadline - time.monotonic())))
        return False

    def sleeps(self, seconds: float) -> bool:
        """Waits so long, or until the process ends; whether it still runs."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return True
        return False

    def wait(self) -> None:
        """Waits until it has ended."""
        self._process.wait()

    def kill(self) -> bool:
        """Kills it and waits for its end; whether it was this that ended it."""
        self._process.kill()
        return self._process.wait() == -signal.SIGKILL

    def descendants(self) -> tuple[Process, ...]:
        """Its children, theirs, and so on."""
        return tuple(_descendants(self._process.pid))

    def workers(self) -> tuple[Process, ...]:
        """Those of its descendants that train networks: on Ray those that it names so, else its children.

        Between Ray's workers and the driver are processes of Ray's own, without which no cluster is left.
        """
        descendants = self.descendants()
        if any(server in process.command for process in descendants for server in _RAY_SERVERS):
            return tuple(
                process
                for process in descendants
                if process.command.startswith("ray::") and not process.command.startswith("ray::IDLE")
            )
        return tuple(process for process in map(_look_up, _children(self._process.pid)) if process)


def has_proc() -> bool:
    """Whether the system tells of a process's children."""
    return bool(list(_PROC.glob("self/task/*/children")))


def _descendants(pid: int) -> Iterator[Process]:
    for child in _children(pid):
        if (process := _look_up(child)) is not None:
            yield process
        yield from _descendants(child)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in _PROC.glob(f"{pid}/task/*/children"):
        try:
            found.extend(map(int, path.read_text().split()))
        except OSError:  # it ended meanwhile
            continue
    return found


def _look_up(pid: int) -> Process | None:
    """The process of a number; None where it has ended."""
    try:
        # The name, in parentheses, may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    state, started = fields[0], int(fields[19])
    return None if state in "ZX" else Process(pid=pid, started=started, command=command)
