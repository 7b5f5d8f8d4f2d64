"""Ctrl-C, SIGTERM and the end of the terminal, held off until what is under way is saved."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from eigen_jax.store.locks import ShouldStop, StoppedError

_HANGUP = getattr(signal, "SIGHUP", None)  # which Windows has not


class Interrupted(Exception):
    """A command was asked to stop, and has saved what it did."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def held_off() -> Iterator[ShouldStop]:
    """Lets a first Ctrl-C, SIGTERM or SIGHUP only be asked about; one more of the first two ends the command at once.

    A SIGHUP that the process ignores already, as nohup has it, stays ignored.

    Yields a function that says whether there was one, and takes the `StoppedError` that comes of it.

    Raises:
        Interrupted: work was stopped for that.
        KeyboardInterrupt: at a second signal.
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

    before = {number: signal.signal(number, note) for number in _signals()}
    try:
        yield lambda: bool(received)
    except StoppedError:
        raise Interrupted(received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    signals = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        signals.append(_HANGUP)
    return signals
