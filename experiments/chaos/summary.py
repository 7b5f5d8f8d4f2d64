"""The disturbances of a campaign as a table."""

import collections
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.chaos.phases import Phase

_WRITTEN = "while a file was written"


class Disturbance(NamedTuple):
    """One kill, stop or hang-up."""

    run: int  # its number, from 1
    phase: Phase  # of the run, as its disk told then
    seconds: float  # after the start of the driver that was disturbed, or whose worker was
    written: tuple[Path, ...]  # what was being written; empty for nothing


def describe(one: Disturbance, number: int, noun: str) -> str:
    """The line that tells of a disturbance, such as a "kill"."""
    written = f", while {one.written[0].name} was written" if one.written else ""
    return f"{noun} {number:>3}  run {one.run:<3} {one.seconds:6.1f} s  {one.phase}{written}"


def table(disturbances: Iterable[Disturbance], noun: str) -> str:
    """The disturbances by phase, those among them that fell into the writing of a file, and the sums."""
    disturbances = list(disturbances)
    by_phase = collections.Counter(one.phase for one in disturbances)
    written = collections.Counter(one.phase for one in disturbances if one.written)
    rows = [(str(phase), by_phase[phase], written[phase]) for phase in Phase]
    rows.append(("all", by_phase.total(), written.total()))
    width = max(len(name) for name, _, _ in rows)
    counts, head = max(5, len(noun) + 1), f"{noun}s"
    lines = [f"{'phase':{width}}  {head:>{counts}}  {_WRITTEN}"]
    lines.extend(f"{name:{width}}  {count:>{counts}}  {during:>{len(_WRITTEN)}}" for name, count, during in rows)
    return "\n".join(lines)
