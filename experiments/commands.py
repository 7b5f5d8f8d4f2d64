"""What every command does: its mistakes are told in one line, its output may be lost, and it may be interrupted."""

import contextlib
import functools
import io
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ParamSpec

from rich.console import Console

from eigen_jax.errors import EigenError
from eigen_jax.store.locks import ShouldStop, StoppedError
from experiments.settings import flag_of

P = ParamSpec("P")

BAD_INPUT = 2  # exit codes
UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Interrupted(Exception):
    """A command was asked to stop by a signal, its one argument, or None for its time, and has saved what it did."""


def command(function: Callable[P, int | None]) -> Callable[P, int]:
    """Makes a command of a function that prints by `show`, or by print and `make_console`; its mistakes are told.

    The command gives its exit code: 0, or the function's own; `BAD_INPUT` after one line on stderr that says what
    to do, before which stands the traceback where JAX was told to look for NaNs and found one; 128 and the number of
    the signal that stopped it.
    """

    @functools.wraps(function)
    @guarded()
    def main(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return function(*args, **kwargs) or 0
        except EigenError as error:
            told = error.told(flag_of)
        except FloatingPointError as error:
            traceback.print_exc()
            without = "Without JAX_DEBUG_NANS, which looks for it, the same command goes on"
            told = f"{error}; the traceback above says where. {without}"
        except Interrupted as error:
            (number,) = error.args
            if number is None:
                print("stopped when its time was over, and saved; the same command goes on", file=sys.stderr)
                return UNFINISHED
            print(f"stopped by {number.name}, and saved; the same command goes on", file=sys.stderr)
            return 128 + number
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from what was saved last", file=sys.stderr)
            return INTERRUPTED
        print(f"error: {told}", file=sys.stderr)
        return BAD_INPUT

    return main


@contextlib.contextmanager
def held_off(stop_at: float = math.inf) -> Iterator[ShouldStop]:
    """Lets a first Ctrl-C, SIGTERM or SIGHUP only be asked about; one more of the first two ends the command at once.

    A SIGHUP that the process ignores already, as nohup has it, stays ignored. Yields a function that says whether there
    was one, or `time.monotonic` has come to `stop_at`. Raises Interrupted in place of the `StoppedError` that comes of
    it.
    """
    received: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        # A terminal that closes sends it as often as its shell and the system like; nobody there insists.
        if received and number == signal.SIGHUP:
            return
        received.append(signal.Signals(number))
        if len(received) > 1:
            raise KeyboardInterrupt
        # Not print: the signal may have come in the middle of one, which cannot be entered twice.
        with contextlib.suppress(OSError):
            os.write(2, f"{received[0].name}: saving what is under way; once more to leave without\n".encode())

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield lambda: bool(received) or time.monotonic() >= stop_at
    except StoppedError:
        raise Interrupted(received[0] if received else None) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stream:
    """A stream that goes on unseen, once its reader, its terminal or the room on its disk is gone; `warn` is told."""

    def __init__(self, stream: Any, *, warn: Any = None) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that it has not
        self.stream, self._warn = stream, warn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, write: Callable[..., object], *texts: str) -> None:
        try:
            write(*texts)
        except OSError as error:
            _abandon(self.stream)
            warn, self._warn = self._warn, None
            if warn is not None:
                print(f"stdout cannot be written ({error.strerror}); going on unseen", file=warn, flush=True)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Lets work go on when stdout or stderr cannot be written; says so of stdout, once, on stderr."""
    # A process without one of them has None there, to which print prints nothing.
    errors: Any = sys.stderr and _Stream(sys.stderr)
    output: Any = sys.stdout and _Stream(sys.stdout, warn=errors)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            yield
        finally:
            # Here, because a failure at the end of the interpreter can no more be handled.
            for stream in (output, errors):
                if stream is not None:
                    stream.flush()


def show(text: object) -> None:
    """Prints what a command was asked for; raises EigenError where it cannot, SystemExit where its reader is gone."""
    stream = sys.stdout.stream if isinstance(sys.stdout, _Stream) else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        _abandon(stream)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        raise EigenError(f"stdout cannot be written ({error.strerror}); redirect it to where there is room") from None


def make_console() -> Console:
    """Where work shows how far it is: stdout, with text taken as it is, whatever a path may hold."""
    return Console(markup=False, emoji=False, highlight=False)


def _abandon(stream: Any) -> None:
    """Sends all that a stream, or a child that inherits it, has still to write to nowhere."""
    with contextlib.suppress(OSError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
