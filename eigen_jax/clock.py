"""Time that a process spends at its work, which the clock on the wall knows nothing of."""

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

_TICK = 0.1  # seconds between two looks
_GAP = 1.0  # the longest time between two looks that is taken for work; a process that is stopped looks at nothing


@dataclasses.dataclass(kw_only=True, eq=False)
class WorkClock:
    """Seconds of work, counted from its making on; called, it says how many.

    As a context manager, it watches: a thread looks at it ten times a second, so that no time counts in which the whole
    process did not run (it was stopped, or the machine slept or was frozen) or was to hold still.
    """

    is_held: Callable[[], bool] = lambda: False  # whether the process is to hold still; asked at each look
    alarm_at: float = math.inf  # seconds of work after which the alarm is given
    alarm: Callable[[float], None] = lambda seconds: None  # called once, by the watching thread, with those seconds
    now: Callable[[], float] = time.monotonic  # seconds from any fixed time on

    def __post_init__(self) -> None:
        self.held = False  # as of the last look
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None
        self._paused = False
        self._worked = 0.0
        self._counted_until = self.now()

    def __call__(self) -> float:
        """Seconds of work until now."""
        with self._lock:
            now = self.now()
            gap, self._counted_until = now - self._counted_until, now
            if not (self._paused or self.held):
                self._worked += gap if self._watcher is None else min(gap, _GAP)
            return self._worked

    def __enter__(self) -> Self:
        self()
        self._watcher = threading.Thread(target=self._watch, name="clock", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._watcher is not None:
            self._watcher.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is not counted."""
        self()
        self._paused = True
        try:
            yield
        finally:
            self()
            self._paused = False

    def wait_while_held(self) -> None:
        """Returns when the process need not hold still."""
        while self.held:
            time.sleep(_TICK)

    def _watch(self) -> None:
        while not self._ended.wait(_TICK):
            seconds = self()
            self.held = self.is_held()
            if seconds >= self.alarm_at:
                self.alarm_at = math.inf
                self.alarm(seconds)
