"""The kills of a campaign as a table."""

import collections
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from experiments.disturbance.phases import Phase

_HEAD = ("phase", "kills", "while a file was written")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill."""

    run: int  # its number, from 1
    phase: Phase  # of the run, as its disk told right after
    seconds: float  # after the start of the driver that was killed, or whose worker was
    written: tuple[Path, ...]  # what was being written; empty for nothing


def describe(kill: Kill, number: int) -> str:
    """The line that tells of a kill."""
    written = f", while {kill.written[0].name} was written" if kill.written else ""
    return f"kill {number:>3}  run {kill.run:<3} {kill.seconds:6.1f} s  {kill.phase}{written}"


def table(kills: Iterable[Kill]) -> str:
    """The kills by phase, those among them that fell into the writing of a file, and the sums."""
    kills = list(kills)
    by_phase = collections.Counter(kill.phase for kill in kills)
    written = collections.Counter(kill.phase for kill in kills if kill.written)
    rows = [(str(phase), by_phase[phase], written[phase]) for phase in Phase]
    rows.append(("all", by_phase.total(), written.total()))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{_HEAD[0]:{width}}  {_HEAD[1]:>5}  {_HEAD[2]}"]
    lines.extend(f"{name:{width}}  {count:>5}  {during:>{len(_HEAD[2])}}" for name, count, during in rows)
    return "\n".join(lines)
