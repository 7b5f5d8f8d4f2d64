"""Runs one search uninterrupted and then again and again under disturbances, and compares them."""

import dataclasses
import functools
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.chaos import folders
from experiments.chaos.folders import Phase
from experiments.chaos.processes import Child, Process

Kind = Literal["kill", "stop", "terminal"]  # SIGKILL; SIGSTOP, and later SIGCONT; the end of the terminal it runs on
NOUNS: dict[Kind, str] = {"kill": "kill", "stop": "stop", "terminal": "hang-up"}

_ROOT = Path(__file__).resolve().parents[2]  # where `python -m experiments` finds this package
_OUTPUT = "output.txt"  # in the folder of each run: what its processes printed
_PATIENCE = 20.0  # uninterrupted runs that one may take, or wait for something to happen
_LEAST_PATIENCE = 300.0  # seconds of the same
_LINGER = 60.0  # seconds that workers have to notice that their driver is dead
_STOPS = (0.5, 5.0)  # seconds that a stop takes, from the shortest to the longest
_HUNG_UP = 128 + signal.Signals.SIGHUP if hasattr(signal, "SIGHUP") else None  # exit code
_MOST = 40  # disturbances of one run; then it is left to end, so that none goes on for ever
_tell = functools.partial(print, flush=True)


class DifferentError(Exception):
    """A run that failed, did not end, came out otherwise than the uninterrupted one, or left something behind."""


class Disturbance(NamedTuple):
    run: int  # its number, from 1
    phase: Phase  # of the run, as its disk told then
    seconds: float  # after the start of the driver that was disturbed, or whose worker was
    written: tuple[Path, ...]  # what was being written; empty for nothing

    def describe(self, number: int, noun: str) -> str:
        written = f", while {self.written[0].name} was written" if self.written else ""
        return f"{noun} {number:>3}  run {self.run:<3} {self.seconds:6.1f} s  {self.phase}{written}"


class _Reference(NamedTuple):
    folder: Path
    start_seconds: float  # until it began to work
    seconds: float
    patience: float  # seconds after which a run that does nothing is taken to hang
    phases: tuple[str, ...]  # of its generations


@dataclasses.dataclass(kw_only=True)
class Campaign:
    command: Callable[[Path, Path], list[str]]  # what searches, or goes on, in a run's folder and with one for caches
    folder: Path  # of all runs; there, and empty
    times: int  # in all
    seed: int  # of the moments
    victim: Literal["run", "worker"]
    kind: Kind
    disturbances: list[Disturbance] = dataclasses.field(default_factory=list)
    runs: int = 0  # that were begun, the uninterrupted ones apart

    def run(self) -> None:
        """Disturbs as often as is wanted, and lets the last run end."""
        # The first one compiles what the others find compiled, so its times say little.
        first, reference = self._uninterrupted("first"), self._uninterrupted("reference")
        self._check_same(first.folder, reference.folder, "the second of two uninterrupted runs")
        moments = random.Random(self.seed)
        while len(self.disturbances) < self.times:
            self.runs += 1
            run = _DisturbedRun(self, reference, moments)
            run.to_its_end()
            self._check_same(run.folder, reference.folder, run.name)
            _tell(f"{run.name} ended by itself, equal to the uninterrupted one")

    def _uninterrupted(self, name: str) -> _Reference:
        child = self.start(folder := self.make_folder(name))
        try:
            child.runs(_LEAST_PATIENCE, until=lambda: folders.phase_of(folder) != Phase.START)
            start_seconds = child.seconds
            child.wait()
            seconds = child.seconds
        finally:
            child.end()
        name = f"uninterrupted run ({name})"
        _check_ended_well(child, folder, f"the {name}")
        _tell(f"{name}: {seconds:.1f} s, {start_seconds:.1f} s of them until the teacher")
        patience = max(_LEAST_PATIENCE, _PATIENCE * seconds)
        return _Reference(folder, start_seconds, seconds, patience, folders.phases_of(folder))

    @property
    def cache(self) -> Path:
        """One for all runs: compiled programs are found again under the very same path only."""
        return self.folder / "cache"

    def make_folder(self, name: str) -> Path:
        """The folder of a new run, which finds the programs that others have compiled, and nothing else of theirs."""
        for entry in self.cache.glob("*"):
            if entry.name != folders.COMPILED:
                shutil.rmtree(entry)
        (folder := self.folder / name).mkdir()
        return folder

    def start(self, folder: Path) -> Child:
        command, output = self.command(folder, self.cache), folder / _OUTPUT
        return Child(command, cwd=_ROOT, output=output, on_terminal=self.kind == "terminal")

    def _check_same(self, folder: Path, reference: Path, name: str) -> None:
        if (difference := folders.first_difference(reference, folder)) is not None:
            raise DifferentError(f"{name}: {difference}")
        for path, _ in folders.temporary_files(self.cache):
            raise DifferentError(f"{name}: {path} was left behind")


class _DisturbedRun:
    """One run, disturbed until it ends by itself."""

    def __init__(self, campaign: Campaign, reference: _Reference, moments: random.Random) -> None:
        self.campaign, self.reference, self.moments = campaign, reference, moments
        self.name = f"run {campaign.runs}"
        self.folder = campaign.make_folder(f"run-{campaign.runs}")
        self.chance = random.Random(f"{campaign.seed} {campaign.runs}")  # of victims, and of how long stops take
        self.disturbed = 0  # times
        self.was_at_once = False  # the last time
        self.orphans: set[Process] = set()  # descendants of drivers that were ended

    def to_its_end(self) -> None:
        """Starts it, disturbs it, gives its command again where that has ended it."""
        ends_driver = self.campaign.victim == "run" and self.campaign.kind != "stop"
        child = self.campaign.start(self.folder)
        try:
            while self._is_disturbed(child):
                if ends_driver:
                    child = self.campaign.start(self.folder)
        finally:
            child.end()
        _check_ended_well(child, self.folder, self.name)
        deadline = time.monotonic() + _LINGER
        while lingering := [orphan for orphan in self.orphans if orphan.is_alive]:
            if time.monotonic() > deadline:
                command = " ".join(lingering[0].command.split())[:80]
                raise DifferentError(f"{self.name}: process {lingering[0].pid} ({command}) outlived its driver")
            time.sleep(0.1)

    def _is_disturbed(self, child: Child) -> bool:
        """Waits for the next moment and disturbs; False where the run has ended, left alone or too quick."""
        campaign, patience = self.campaign, self.reference.patience
        if self.disturbed >= _MOST or len(campaign.disturbances) >= campaign.times:
            if child.runs(patience):
                waited = f"did not end in {patience:.0f} s when left alone; it stands in {self._phase()}"
                raise DifferentError(f"{self.name} was disturbed {self.disturbed} times, and {waited}")
            return False
        places = self.folder, campaign.cache
        before, phase = folders.temporary_files(*places), self._phase()
        delay, event = self._draw_moment()
        if event == "turn" and not child.runs(patience, until=lambda: self._phase() != phase):
            return False
        if not child.runs(delay):
            return False
        if event == "writing" and not child.runs(patience, until=lambda: folders.temporary_files(self.folder) - before):
            return False
        seconds = child.seconds

        def look() -> Disturbance:
            written = sorted(path for path, _ in folders.temporary_files(*places) - before)
            return Disturbance(campaign.runs, self._phase(), seconds, tuple(written))

        if found := self._disturb(child, look):
            self.disturbed += 1
            campaign.disturbances.append(found)
            _tell(found.describe(len(campaign.disturbances), NOUNS[campaign.kind]))
        return found is not None

    def _draw_moment(self) -> tuple[float, Literal["nothing", "writing", "turn"]]:
        """Seconds, and what is awaited besides: moments reach every phase of a run, and the middle of writing files.

        turn: they count from the beginning of the next phase, else from the start of the process; writing: after
        them comes the first file that is being written.
        """
        start, moments = self.reference.start_seconds, self.moments
        # A run would be disturbed about six times, if none of its work were lost; later moments tend to be later.
        scale = max(self.reference.seconds - start, start) / 6 * 1.05**self.disturbed
        # The first moment of a run alone can reach the start of one that has nothing on disk yet. No two in a row
        # come within the time that a start takes, so that each second one at least finds some work done.
        share = moments.random()
        self.was_at_once = not self.was_at_once and share < (0.15 if self.disturbed else 0.5)
        if self.was_at_once:
            return moments.uniform(0, start), "nothing"
        kind = moments.random()
        if kind < 0.25:
            return moments.uniform(0, scale / 2), "turn"
        return start + moments.expovariate(1 / scale), "writing" if kind < 0.5 else "nothing"

    def _disturb(self, child: Child, look: Callable[[], Disturbance]) -> Disturbance | None:
        """Does it, and looks where it was done; None where the run has ended before."""
        if self.campaign.kind == "stop":
            child.send_signal(signal.SIGSTOP)
            found = look() if child.poll() is None else None
            time.sleep(self.chance.uniform(*_STOPS) if found else 0)
            child.send_signal(signal.SIGCONT)
            return found
        if self.campaign.victim == "worker":
            return look() if self._kill_worker(child) else None
        self.orphans.update(child.descendants())
        if self.campaign.kind == "kill":
            return look() if child.end() else None
        found = look()
        return found if self._hang_up(child) else None

    def _kill_worker(self, child: Child) -> bool:
        """Kills one of the workers, waiting until there is one; False where the run has ended before."""
        deadline = time.monotonic() + self.reference.patience
        while time.monotonic() < deadline:
            if (workers := child.workers()) and self.chance.choice(workers).kill():
                return True
            if not child.runs(0.01):
                return False
        raise DifferentError(f"{self.name} has no worker that could be killed; choose another executor")

    def _hang_up(self, child: Child) -> bool:
        """Closes the terminal and waits for the end that follows from it; False where the run has ended by itself."""
        is_working = child.handles(signal.SIGHUP)
        child.close_terminal()
        if child.runs(self.reference.patience):
            raise DifferentError(f"{self.name} goes on without the terminal that it was started on")
        # Before it works and when it has finished, there is nothing to save.
        ends = {_HUNG_UP} if is_working and self._phase() is not Phase.ENDED else {_HUNG_UP, -signal.SIGHUP}
        if child.returncode not in {0, *ends}:
            raise DifferentError(f"{self.name} ended with code {child.returncode} when its terminal was closed")
        return child.returncode != 0

    def _phase(self) -> Phase:
        return folders.phase_of(self.folder, phases=self.reference.phases)


def _check_ended_well(child: Child, folder: Path, name: str) -> None:
    if child.returncode != 0 or not (folder / folders.RUN / "result.json").exists():
        said = (folder / _OUTPUT).read_text(errors="replace").strip().rpartition("\n")[2].strip() or "nothing"
        raise DifferentError(f"{name} ended with code {child.returncode} and said: {said}")
