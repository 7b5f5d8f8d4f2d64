"""Ctrl-C and SIGTERM, held off until what is under way is saved."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from eigen_jax.resumable import ShouldStop, StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A command was asked to stop, and has saved what it did."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def held_off() -> Iterator[ShouldStop]:
    """Lets a first Ctrl-C or SIGTERM only be asked about; a second one ends the command where it is.

    Yields a function that says whether there was one, and takes the `StoppedError` that comes of it.

    Raises:
        Interrupted: work was stopped for that.
        KeyboardInterrupt: at a second signal.
    """
    received: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        if len(received) > 1:
            raise KeyboardInterrupt
        # Not print: the signal may have come in the middle of one, which cannot be entered twice.
        os.write(2, f"{received[0].name}: saving what is under way; once more to leave without\n".encode())

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield lambda: bool(received)
    except StoppedError:
        raise Interrupted(received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
