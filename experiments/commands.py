"""What every command does: its mistakes are told in one line, its output may be lost, and it may be interrupted."""

import contextlib
import functools
import io
import os
import signal
import sys
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
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_NO_READER = 141  # 128 + SIGPIPE

_HANGUP = getattr(signal, "SIGHUP", None)  # which Windows has not


class Interrupted(Exception):
    """A command was asked to stop, and has saved what it did."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


class NoReaderError(Exception):
    """Whoever read what a command shows is gone."""


def command(function: Callable[P, int | None]) -> Callable[P, int]:
    """Makes the function of a command one that tells mistakes and gives an exit code, see `run_command`."""

    @functools.wraps(function)
    def main(*args: P.args, **kwargs: P.kwargs) -> int:
        return run_command(functools.partial(function, *args, **kwargs))

    return main


def run_command(function: Callable[[], int | None]) -> int:
    """Calls a function that prints by `show`, or by print and `make_console`, and tells mistakes of the user.

    Returns:
        The exit code: 0, or the function's own; `BAD_INPUT` after one line on stderr that says what to do,
        before which stands the traceback where JAX was told to look for NaNs and found one; 128 and the
        number of the signal that stopped the command, or that its reader's end stands for.
    """
    with guarded():
        try:
            return function() or 0
        except NoReaderError:
            return _NO_READER
        except EigenError as error:
            print(f"error: {error.told(flag_of)}", file=sys.stderr)
            return BAD_INPUT
        except FloatingPointError as error:
            traceback.print_exc()
            without = "Without JAX_DEBUG_NANS, which looks for it, the same command goes on"
            print(f"error: {error}; the traceback above says where. {without}", file=sys.stderr)
            return BAD_INPUT
        except Interrupted as error:
            print(f"stopped by {error.number.name}, and saved; the same command goes on", file=sys.stderr)
            return 128 + error.number
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from what was saved last", file=sys.stderr)
            return INTERRUPTED


@contextlib.contextmanager
def held_off() -> Iterator[ShouldStop]:
    """Lets a first Ctrl-C, SIGTERM or SIGHUP only be asked about; one more of the first two ends the command at once.

    A SIGHUP that the process ignores already, as nohup has it, stays ignored.

    Yields a function that says whether there was one. Raises Interrupted in place of the `StoppedError` that
    comes of it, and KeyboardInterrupt at a second signal.
    """
    received: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        # A terminal that closes sends it as often as its shell and the system like; nobody there insists.
        if received and number == _HANGUP:
            return
        received.append(signal.Signals(number))
        if len(received) > 1:
            raise KeyboardInterrupt
        # Not print: the signal may have come in the middle of one, which cannot be entered twice.
        with contextlib.suppress(OSError):
            os.write(2, f"{received[0].name}: saving what is under way; once more to leave without\n".encode())

    signals = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        signals.append(_HANGUP)
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield lambda: bool(received)
    except StoppedError:
        raise Interrupted(received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stream:
    """A stream that goes on unseen, once its reader, its terminal or the room on its disk is gone."""

    def __init__(self, stream: Any, *, warn: Any = None) -> None:
        """Escapes characters that `stream` has not, from now on, and tells `warn`, if there is one, of a loss."""
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self.stream = stream
        self._warn = warn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._going_on():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._going_on():
            self.stream.flush()

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
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
    """Prints what a command was asked for; raises NoReaderError or EigenError where it cannot be written."""
    stream = sys.stdout.stream if isinstance(sys.stdout, _Stream) else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _abandon(stream)
        raise NoReaderError from None
    except OSError as error:
        _abandon(stream)
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
