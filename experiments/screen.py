"""Where commands print, whatever becomes of it: stdout and stderr that cannot fail, and the console on them."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console


class LostOutputError(Exception):
    """What a command was asked to show cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"stdout cannot be written ({error.strerror}); redirect it to where there is room")
        self.is_reader_gone = isinstance(error, BrokenPipeError)


class _Stream:
    """A stream that goes on unseen, once its reader, its terminal or the room on its disk is gone."""

    def __init__(self, stream: Any, *, warn: Any = None) -> None:
        """Escapes characters that `stream` has not, from now on, and tells `warn`, if there is one, of a loss."""
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self.stream = stream
        self._warn = warn
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            self.stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        try:
            self.stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        _abandon(self.stream)
        if self._warn is not None and not self._is_lost:
            self._is_lost = True
            print(f"stdout cannot be written ({error.strerror}); going on unseen", file=self._warn, flush=True)


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
    """Prints what a command was asked for, where there is nothing else to do.

    Raises:
        LostOutputError: it cannot be written.
    """
    stream = sys.stdout.stream if isinstance(sys.stdout, _Stream) else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        _abandon(stream)
        raise LostOutputError(error) from None


def make_console() -> Console:
    """Where work shows how far it is: stdout, with text taken as it is, whatever a path may hold."""
    return Console(markup=False, emoji=False, highlight=False)


def _abandon(stream: Any) -> None:
    """Sends all that a stream, or a child that inherits it, has still to write to nowhere."""
    with contextlib.suppress(OSError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
