"""When to kill: moments that reach every phase of a run, and the middle of writing files."""

import random
from typing import Literal, NamedTuple

MOST_KILLS = 40  # of one run; then it is left to end, so that no run is killed for ever

# Shares of the moments, the first of a run apart.
_AT_ONCE = 0.15  # within the time that a start takes
_WRITING = 0.25
_TURN = 0.25
# The first moment of a run, which alone can reach the start of one that has nothing on disk yet.
_FIRST_AT_ONCE = 0.5

_PARTS = 6  # a run would be disturbed about so many times, if none of its work were lost
_LONGER = 1.05  # delays grow by this with each kill of a run


class Moment(NamedTuple):
    """When to kill a process."""

    delay: float  # seconds
    # turn: the delay counts from the beginning of the next phase, else from the start of the process;
    # writing: after it, the first file that is being written is waited for.
    awaits: Literal["nothing", "writing", "turn"]


class Moments:
    """Draws moments; what it draws is a function of the seed, of the two times and of the calls."""

    def __init__(self, seed: int, *, start_seconds: float, run_seconds: float) -> None:
        """Takes the seconds that a process needs before it begins to work, and those of a whole run."""
        self._random = random.Random(seed)
        self._start = start_seconds
        self._mean = max(run_seconds - start_seconds, start_seconds) / _PARTS
        self._was_at_once = False

    def draw(self, kills: int) -> Moment:
        """The next moment of a run that was killed so many times; later ones tend to have longer delays.

        No two in a row come within the time that a start takes, so that each second one at least
        finds some work done.
        """
        scale = self._mean * _LONGER**kills
        share = self._random.random()
        self._was_at_once = not self._was_at_once and share < (_AT_ONCE if kills else _FIRST_AT_ONCE)
        if self._was_at_once:
            return Moment(self._random.uniform(0, self._start), "nothing")
        kind = self._random.random()
        if kind < _TURN:
            return Moment(self._random.uniform(0, scale / 2), "turn")
        delay = self._start + self._random.expovariate(1 / scale)
        return Moment(delay, "writing" if kind < _TURN + _WRITING else "nothing")
