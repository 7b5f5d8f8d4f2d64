"""The runs that experiments need: what each is, the folder that it has, and what it left there.

A run's folder is named by what it is and by all settings that its outcome depends on. Two experiments
that need the same run so name the same folder: it is made once and found again. What a run left is
read when it is first asked for, which raises ReportError where the run has not finished, its folder
is another run's, or a file is damaged.
"""

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from msgspec import UNSET

from eigen_jax import report
from eigen_jax.architecture import Architecture, fingerprint
from eigen_jax.data.types import DatasetName
from eigen_jax.lineage import Fate, Individual
from eigen_jax.report import PhaseSummary, ReportError
from eigen_jax.store import run_files
from eigen_jax.store.run_files import RunResult
from eigen_jax.teacher import TeacherError, read_teacher, seconds_of_logits
from experiments.reproduce import folders
from experiments.reproduce.folders import DataFacts, Origin, is_finished
from experiments.reproduce.request import digest
from experiments.settings import Settings

TEACHER_PARTS = ("teacher", "teacher's logits")  # the work on a teacher, which all runs that mimic it share


class Choice(enum.Enum):
    """A network of a finished search; the value says it to people."""

    FOUND = "the network found"
    BEFORE_DUPLICATION = "the best network before duplication"
    BEST_DUPLICATE = "the best duplicate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A whole search."""

    dataset: DatasetName
    label: str  # what people call it
    settings: Settings  # with its own seed and run folder

    @property
    def seed(self) -> int:
        """Of the search."""
        return self.settings.search.seed

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.settings.run_dir

    @cached_property
    def result(self) -> RunResult:
        """How it ended."""
        return report.read_result(self.folder)

    @cached_property
    def origin(self) -> Origin:
        """Where it was made."""
        return folders.read_origin(self.settings)

    @cached_property
    def individuals(self) -> tuple[Individual, ...]:
        """In the record's order."""
        return report.read_record(self.folder)

    @cached_property
    def phases(self) -> tuple[PhaseSummary, ...]:
        """In the order in which the search went through them."""
        return report.summarise_phases(self.individuals)

    def phases_until(self, name: str) -> tuple[PhaseSummary, ...] | None:
        """The phases up to the end of one; None where the search never came to it."""
        names = [phase.phase for phase in self.phases]
        return self.phases[: names.index(name) + 1] if name in names else None

    @property
    def found(self) -> Individual | None:
        """The network that the search found; None where nothing survived."""
        reference = self.result.found
        return None if reference is None else report.find_individual(self.individuals, reference)

    @property
    def duplicates(self) -> tuple[Individual, ...]:
        """All individuals that repeat a block of their parent."""
        return tuple(filter(report.is_duplicate, self.individuals))

    @property
    def best_duplicate(self) -> Individual | None:
        """The duplicate that came furthest, the most accurate of those, the earliest of equals; None without any."""
        measured = [each for each in self.duplicates if each.fate is not Fate.FAILED and each.t1.fitness is not None]
        return max(measured, key=_how_far, default=None)

    def chosen(self, choice: Choice) -> Individual | None:
        """The individual whose network a choice means; None where the search has none."""
        if choice is Choice.FOUND:
            return self.found
        if choice is Choice.BEST_DUPLICATE:
            return self.best_duplicate
        bests = [phase.best for phase in self.phases if phase.phase != "duplication"]
        return bests[-1] if bests else None

    @property
    def seconds(self) -> Mapping[str, float | None]:
        """Of the parts of its own: None for a final training that did not take place."""
        own = self.result.seconds
        return {"search": None if own.search is UNSET else own.search, "final training": own.final}

    @property
    def teacher_seconds(self) -> Mapping[str, float | None]:
        """Of the `TEACHER_PARTS` that it needed: None where they were not measured."""
        mimicry = self.result.mimicry
        if mimicry is None:
            return {}
        teacher, logits = TEACHER_PARTS
        seconds = {teacher: _seconds_of_training(self.settings)}
        if self.settings.teacher != "live":
            seconds[logits] = seconds_of_logits(self.settings.data.cache_folder(), mimicry.teacher)
        return seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retraining:
    """The training of a network of a search, from scratch, for as long as a search's final training."""

    search: Search
    choice: Choice
    mimicry: bool

    @property
    def seed(self) -> int:
        """Of the search, and of the training."""
        return self.search.seed

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.choice.value} trained {'with' if self.mimicry else 'without'} mimicry, seed {self.seed}"

    @property
    def network(self) -> Architecture | None:
        """What is trained; None where its search has not finished, or has no such network."""
        individual = self.search.chosen(self.choice) if is_finished(self.search.folder) else None
        return None if individual is None else individual.architecture

    @property
    def settings(self) -> Settings | None:
        """Of the training, with the run folder, which depends on the network; None without a network."""
        if self.network is None:
            return None
        search = self.search
        settings = search.settings if self.mimicry else dataclasses.replace(search.settings, teacher="none")
        kind, key = "mimicry" if self.mimicry else "plain", outcome_key(search.dataset, settings)
        name = f"{search.dataset}-trained-{fingerprint(self.network)[:12]}-{kind}-seed{self.seed}-{key}"
        return dataclasses.replace(settings, run_dir=search.folder.parent / name)

    @property
    def folder(self) -> Path | None:
        """Of the run; None without a network."""
        return None if self.settings is None else self.settings.run_dir

    @cached_property
    def result(self) -> RunResult:
        """How it ended."""
        assert self.folder is not None
        return run_files.read_result(self.folder)

    @cached_property
    def origin(self) -> Origin:
        """Where it was made."""
        assert self.settings is not None
        assert self.network is not None
        return folders.read_origin(self.settings, retrained=fingerprint(self.network))

    @property
    def seconds(self) -> Mapping[str, float | None]:
        """Of the parts of its own."""
        return {"training again": self.result.seconds.final}


Run = Search | Retraining


def state(run: Run) -> str:
    """What there is of a run: "finished", "begun", "missing", or "not needed" where there is nothing to train."""
    if run.folder is None:
        return "not needed" if isinstance(run, Retraining) and is_finished(run.search.folder) else "missing"
    if is_finished(run.folder):
        return "finished"
    return "begun" if run.folder.is_dir() and any(run.folder.iterdir()) else "missing"


def unfinished(runs: Iterable[Run]) -> list[Run]:
    """Those that are still to be made, or to be made to their end."""
    return [run for run in runs if state(run) in ("begun", "missing")]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """The runs without those that have another's folder, searches first: trainings wait for them."""
    by_place: dict[object, Run] = {}
    for run in sorted(runs, key=lambda run: isinstance(run, Retraining)):
        by_place.setdefault(run.folder or run, run)
    return list(by_place.values())


def check_together(runs: Iterable[Run], data: DataFacts | None) -> None:
    """Reads finished runs, and checks that they were made with the same data, and mimicked one teacher if any.

    Raises:
        ReportError: they were not, not with `data` where those are known, or one of them cannot be read.
    """
    known = {} if data is None else {"other data": (data.fingerprint, "this command's")}
    for run in runs:
        # Read as well, so that damage shows before more is made.
        _ = run.result, run.individuals if isinstance(run, Search) else None
        origin = run.origin
        for what, own in (("other data", origin.data_fingerprint), ("another teacher", origin.teacher_fingerprint)):
            if own is None:
                continue
            expected, whose = known.setdefault(what, (own, f"that of {run.label}"))
            if own != expected:
                raise ReportError(
                    f"{run.label} was made with {what} (fingerprint {own[:12]}, {whose} is {expected[:12]});"
                    " choose another --runs-dir, or the data and teacher of before"
                )


def describe_repeats(duplicate: Individual) -> str:
    """How often each block stands in a row, such as "2-1"."""
    return "-".join(map(str, duplicate.repeats or ()))


def outcome_key(dataset: DatasetName, settings: Settings) -> str:
    """Tells apart runs of different outcome, but for the data and a trained teacher: `check_together` tells those."""
    logits = None if settings.teacher == "none" else settings.teacher_logits
    return digest({"dataset": dataset, "teacher_logits": logits and logits.absolute(), **settings.outcome()})


def _seconds_of_training(settings: Settings) -> float | None:
    """What the training of a run's teacher took, all members together; None for logits from a file."""
    if settings.teacher_logits is not None:
        return None
    try:
        members = read_teacher(settings.teacher_dir).members
    except TeacherError:
        return None
    return sum(each.train_seconds + each.compile_seconds for each in members)


def _how_far(individual: Individual) -> tuple[int, float]:
    fitness = [each.fitness for each in (individual.t1, individual.t2, individual.t3) if each.fitness is not None]
    return len(fitness), fitness[-1]
