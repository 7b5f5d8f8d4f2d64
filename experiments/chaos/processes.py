"""Processes under test: started, watched, disturbed. What belongs to a process is told by Linux's /proc."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_PROC = Path("/proc")
_POLL = 0.005  # seconds between two looks
# Makes the terminal that a process was given its own, as that of a login is, and becomes the command.
_ON_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_RAY_SERVERS = ("gcs_server", "raylet")  # that a local cluster starts, in this order


class Process(NamedTuple):
    """A process of this machine; the time tells it from a later one of the same number."""

    pid: int
    started: int  # clock ticks since boot
    command: str  # arguments, joined by spaces

    @property
    def is_alive(self) -> bool:
        return (found := _look_up(self.pid)) is not None and found.started == self.started

    def kill(self) -> bool:
        """Whether it was there to be killed."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
                return True
        return False


class Child(subprocess.Popen[bytes]):
    """A command that runs as a child of this process, out of reach of the terminal's Ctrl-C."""

    def __init__(self, command: Sequence[str], *, cwd: Path, output: Path, on_terminal: bool = False) -> None:
        """Starts it, adds what it prints to the file `output`, and gives it a terminal of its own if `on_terminal`."""
        self._terminal = _Terminal(output) if on_terminal else None
        self._began = time.monotonic()
        options: dict[str, Any] = {"cwd": cwd, "stdin": subprocess.DEVNULL, "start_new_session": True}
        with open(output, "ab") if self._terminal is None else self._terminal.theirs as out:
            if on_terminal:
                command = [sys.executable, "-S", "-c", _ON_TERMINAL, *command]
                options |= {"env": os.environ | {"TERM": "xterm"}, "stdin": out}
            super().__init__(command, stdout=out, stderr=out, **options)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def runs(self, seconds: float, *, until: Callable[[], object] = lambda: False) -> bool:
        """Waits so long, or until a condition holds or the process ends; whether it still runs."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if until() or time.monotonic() >= deadline:
                return True
            time.sleep(_POLL)
        return False

    def end(self) -> bool:
        """Kills it and waits for its end; whether it was this that ended it."""
        self.kill()
        code = self.wait()
        self.close_terminal()
        return code == -signal.SIGKILL

    def close_terminal(self) -> None:
        """Its processes get SIGHUP, and can neither read nor write there."""
        if self._terminal is not None:
            self._terminal.close()

    def handles(self, number: signal.Signals) -> bool:
        """Whether it does something of its own at a signal, as it is now."""
        with contextlib.suppress(OSError):  # it has ended
            status = (_PROC / str(self.pid) / "status").read_text()
            if found := re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE):
                return bool(int(found[1], 16) >> (number - 1) & 1)
        return False

    def descendants(self) -> tuple[Process, ...]:
        found = list(_children(self.pid))
        for process in found:  # which grows meanwhile
            found += _children(process.pid)
        return tuple(found)

    def workers(self) -> tuple[Process, ...]:
        """Those that train networks: its children, or the descendants that Ray names so; its own are in between."""
        everyone = self.descendants()
        if not any(server in process.command for process in everyone for server in _RAY_SERVERS):
            return tuple(_children(self.pid))
        return tuple(process for process in everyone if re.match("ray::(?!IDLE)", process.command))


class _Terminal:
    """A pseudo-terminal; what is printed there is added to a file."""

    def __init__(self, output: Path) -> None:
        self._ours, theirs = os.openpty()
        self.theirs = os.fdopen(theirs, "r+b", 0)
        self._is_closing = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Hangs up, once all that was printed is read."""
        self._is_closing.set()
        self._reader.join()

    def _read(self, output: Path) -> None:
        # It alone closes the terminal: that would have no effect while another thread reads.
        # Reading fails when the last process that could print has ended.
        with contextlib.suppress(OSError), open(self._ours, "rb", 0) as terminal, open(output, "ab", 0) as file:
            while (printed := select.select([terminal], [], [], _POLL)[0]) or not self._is_closing.is_set():
                if printed:
                    file.write(terminal.read(1 << 16))


def has_proc() -> bool:
    """Whether the system tells of a process's children."""
    return bool(list(_PROC.glob("self/task/*/children")))


def _children(pid: int) -> Iterator[Process]:
    for path in _PROC.glob(f"{pid}/task/*/children"):
        try:
            found = path.read_text().split()
        except OSError:  # it ended meanwhile
            continue
        yield from filter(None, map(_look_up, map(int, found)))


def _look_up(pid: int) -> Process | None:
    """The process of a number; None where it has ended, whether or not anybody has asked about it."""
    try:
        # The name, in parentheses, may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid=pid, started=int(fields[19]), command=command)
