"""What tables need of finished runs: the end of each phase, what it cost, and how the run ended."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from eigen_jax import lineage
from eigen_jax.lineage import Individual, fittest
from eigen_jax.report.files import ReportError
from eigen_jax.store import run_files
from eigen_jax.store.run_files import Reference, RunResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseSummary:
    phase: str
    individuals: tuple[Individual, ...]  # its own, at least one, in the record's order
    best: Individual | None  # the fittest survivor at the end of the phase, of it and of those before; None: none yet

    @property
    def trained(self) -> int:
        """Individuals that were trained, not taken over from an equal one."""
        return sum(each.same_as is None for each in self.individuals)

    @property
    def seconds(self) -> float:
        """Compilation and training of its individuals, one after another."""
        return math.fsum(each.seconds_compiling + each.seconds_training for each in self.individuals)


def summarise_phases(individuals: Sequence[Individual]) -> tuple[PhaseSummary, ...]:
    """The phases of a search, of its record, in the order in which it went through them."""
    summaries: list[PhaseSummary] = []
    best = None
    for phase, group in itertools.groupby(individuals, key=lambda individual: individual.phase):
        own = tuple(group)
        best = fittest((best, *own))
        summaries.append(PhaseSummary(phase=phase, individuals=own, best=best))
    return tuple(summaries)


def best_so_far(individuals: Sequence[Individual]) -> tuple[Individual | None, ...]:
    """For each generation of a record, the fittest of it and of all before."""
    generations = itertools.groupby(individuals, key=lambda individual: individual.generation)
    bests = (fittest(generation) for _, generation in generations)
    return tuple(itertools.accumulate(bests, lambda *contenders: fittest(contenders)))


def is_duplicate(individual: Individual) -> bool:
    """Whether an individual repeats a block of its parent."""
    return individual.repeats is not None and max(individual.repeats, default=1) > 1


def find_individual(individuals: Iterable[Individual], reference: Reference) -> Individual:
    """The individual at a place of the record; raises a ReportError where it has none there."""
    found = next((each for each in individuals if each.reference == reference), None)
    if found is None:
        raise ReportError(
            f"the record has no individual {reference}; put back the lineage.jsonl that belongs to this run"
        )
    return found


def read_result(folder: str | Path) -> RunResult:
    """How a finished search ended; raises RunFolderError where result.json is damaged, ReportError for no search."""
    if not _in_run_folder(Path(folder), "result.json").exists():
        raise ReportError(f"{folder} has no result.json: its run has not finished; finish it with the command it began")
    result = run_files.read_result(Path(folder))
    if not result.is_of_search:
        raise ReportError(f"{folder} has a result.json that does not tell all of a search; name the folder of a search")
    return result


def read_record(folder: str | Path) -> tuple[Individual, ...]:
    """The individuals of a run, finished or not; raises ReportError where the folder is no run's, or has none yet."""
    path = _in_run_folder(Path(folder), "lineage.jsonl")
    individuals = lineage.read(path)
    if not individuals:
        raise ReportError(f"{path} records no generation yet; run the search on with the command it began")
    return individuals


def _in_run_folder(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder; name the folder of a run")
    if missing := [each for each in ("lineage.jsonl", "settings.json") if not (folder / each).exists()]:
        raise ReportError(f"{folder} is no run folder: it has no {missing[0]}; name the folder of a run")
    return folder / name
