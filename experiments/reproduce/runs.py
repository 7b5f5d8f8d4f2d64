"""The runs that experiments need: what each is, the folder that it has, and what it left there.

A run's folder is named by what it is and by all settings that its outcome depends on, so it is made once. What it
left is read when it is first asked for, which raises ReportError or RunFolderError where the run has not finished,
its folder is another run's, or a file is damaged.
"""

import contextlib
import dataclasses
import enum
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax

from eigen_jax import report
from eigen_jax.architecture import Architecture
from eigen_jax.data import Dataset
from eigen_jax.errors import EigenError
from eigen_jax.lineage import Fate, Individual
from eigen_jax.networks import NamedNetwork, build_network, fingerprint
from eigen_jax.report import PhaseSummary
from eigen_jax.search import load_network
from eigen_jax.store import run_files
from eigen_jax.store.files import told_as
from eigen_jax.store.records import JSONError, as_json, convert, read_json, write_json
from eigen_jax.store.run_files import RunFolderError, RunResult
from eigen_jax.teacher import TeacherError, read_teacher, seconds_of_logits
from eigen_jax.training import latency
from experiments.machine import describe_machine
from experiments.reproduce.request import Request, digest
from experiments.settings import Settings

TEACHER_PARTS = ("teacher", "teacher's logits")  # the work on a teacher, which all runs that mimic it share

_MACHINE = "machine.json"


@dataclasses.dataclass(frozen=True)
class DataFacts:
    fingerprint: str
    train: int  # images
    validation: int
    test: int

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        images = dataset.train_images, dataset.validation_images, dataset.test_images
        return cls(dataset.fingerprint, *map(len, images))

    def __str__(self) -> str:
        return f"{self.train:,} images to train on, {self.validation:,} to validate, {self.test:,} to test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """machine.json: what finished a run, with how much data, and how fast the network is there."""

    cpu: str
    cores: int
    device: str
    accelerators: int
    data: DataFacts | None = None  # of the command
    latency: float | None = None  # seconds of one image's forward pass; None where the run itself measured it, or none

    def __str__(self) -> str:
        cores = f"{self.cpu}, {self.cores} cores"
        return cores if self.device == "cpu" else f"{self.accelerators} x {self.device}; {cores}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run was made, as settings.json and machine.json say."""

    data_fingerprint: str
    teacher_fingerprint: str | None = None  # of the teacher, as networks asked it; None without mimicry
    versions: dict[str, str]  # package to version
    machine: Machine | None = None  # None where it was not noted

    @property
    def data(self) -> DataFacts | None:
        """None where they were not noted, or are not the run's."""
        data = self.machine and self.machine.data
        return data if data and data.fingerprint == self.data_fingerprint else None


class Choice(enum.Enum):
    """A network of a finished search; the value says it to people."""

    FOUND = "the network found"
    BEFORE_DUPLICATION = "the best network before duplication"
    BEST_DUPLICATE = "the best duplicate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned:
    """A run whose settings are known before any other has finished."""

    label: str  # what people call it
    settings: Settings  # with its own seed and run folder

    @property
    def seed(self) -> int:
        return self.settings.search.seed

    @property
    def folder(self) -> Path:
        return self.settings.run_dir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(_Planned):
    part: ClassVar[str] = "final training"  # of the compute, what trains to the end

    @cached_property
    def result(self) -> RunResult:
        return report.read_result(self.folder)

    @cached_property
    def origin(self) -> Origin:
        return read_origin(self.settings)

    @cached_property
    def individuals(self) -> tuple[Individual, ...]:
        return report.read_record(self.folder)

    def phases_until(self, name: str) -> tuple[PhaseSummary, ...] | None:
        """The phases up to the end of one; None where the search never came to it."""
        phases = report.summarise_phases(self.individuals)
        names = [phase.phase for phase in phases]
        return phases[: names.index(name) + 1] if name in names else None

    @property
    def duplicates(self) -> tuple[Individual, ...]:
        return tuple(filter(report.is_duplicate, self.individuals))

    def chosen(self, choice: Choice) -> Individual | None:
        """The individual whose network a choice means; None where the search has none."""
        if choice is Choice.FOUND:
            found = self.result.found
            return None if found is None else report.find_individual(self.individuals, found)
        if choice is Choice.BEST_DUPLICATE:  # who came furthest, the fittest of those, the earliest of equals
            measured = [each for each in self.duplicates if each.fate is not Fate.FAILED and _fitness(each)]
            return max(measured, key=lambda each: (len(_fitness(each)), _fitness(each)[-1]), default=None)
        return report.fittest(each for each in self.individuals if each.phase != "duplication")

    @property
    def teacher_seconds(self) -> Mapping[str, float | None]:
        """Of the `TEACHER_PARTS` that it needed: None where they were not measured."""
        mimicry, settings, (teacher, logits) = self.result.mimicry, self.settings, TEACHER_PARTS
        if mimicry is None:
            return {}
        seconds: dict[str, float | None] = {teacher: None}
        if settings.teacher_logits is None:
            with contextlib.suppress(TeacherError):
                members = read_teacher(settings.teacher_dir).members
                seconds[teacher] = sum(each.train_seconds + each.compile_seconds for each in members)
        if settings.teacher != "live":
            seconds[logits] = seconds_of_logits(settings.data.cache_folder(), mimicry.teacher)
        return seconds


@dataclasses.dataclass(frozen=True)
class Retraining:
    """The training of a network of a search, from scratch, for as long as a search's final training."""

    part: ClassVar[str] = "training again"

    choice: Choice
    mimicry: bool
    search: Search

    @property
    def seed(self) -> int:
        return self.search.seed

    @property
    def label(self) -> str:
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
        settings = self.search.settings
        settings = settings if self.mimicry else dataclasses.replace(settings, teacher="none")
        slug = f"trained-{fingerprint(self.network)[:12]}-{'mimicry' if self.mimicry else 'plain'}"
        return placed(settings, settings.run_dir.parent, slug)

    @property
    def folder(self) -> Path | None:
        settings = self.settings
        return None if settings is None else settings.run_dir

    @cached_property
    def result(self) -> RunResult:
        assert self.folder is not None
        return run_files.read_result(self.folder)

    @cached_property
    def origin(self) -> Origin:
        assert self.settings is not None
        assert self.network is not None
        return read_origin(self.settings, retrained=fingerprint(self.network))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandDesigned(_Planned):
    """The training of a hand-designed network by one of the `RECIPES`."""

    part: ClassVar[str] = "training of hand-designed networks"

    network: NamedNetwork
    recipe: str

    @property
    def also(self) -> dict[str, str]:
        """What its settings.json says besides settings, as that of `experiments.baseline`."""
        return {"baseline": self.network.name, "recipe": self.recipe}

    @cached_property
    def result(self) -> RunResult:
        return run_files.read_result(self.folder)

    @cached_property
    def origin(self) -> Origin:
        return read_origin(self.settings, **self.also, retrained=fingerprint(self.network))


Run = Search | Retraining | HandDesigned


@dataclasses.dataclass
class Study:
    """The runs of a request; nothing is read or made before it is asked for."""

    request: Request
    data: DataFacts | None = None  # of all runs: as loaded, or as noted beside one of them; None if neither
    refused: dict[Path, EigenError] = dataclasses.field(default_factory=dict)  # by run folder: why it cannot be made

    @property
    def is_papers(self) -> bool:
        """Whether its runs are the paper's experiment: the paper's data set, all of it, and its schedule."""
        request, data = self.request, self.data
        if request.settings.data.name == "digits" or request.preset != "paper" or request.is_changed:
            return False
        return data is not None and (data.train + data.validation, data.test) == (50_000, 10_000)

    @cached_property
    def eigen(self) -> tuple[Search, ...]:
        return self.searches(self.request.settings, what="EIGEN", slug="eigen")

    @cached_property
    def plain(self) -> tuple[Search, ...]:
        """EIGEN without mimicry, in the search and in the final training."""
        plain = dataclasses.replace(self.request.settings, teacher="none")
        return self.searches(plain, what="EIGEN without mimicry", slug="plain")

    @cached_property
    def step_sizes(self) -> dict[int, tuple[Search, ...]]:
        """Primary successions alone, by their most mutation steps a child, all of equally many generations."""
        request, searches = self.request, {}
        # The best never gets worse, so a gain of less than nothing never ends a succession.
        alone: dict[str, Any] = {"max_primary_generations": request.generations, "saturation_gain": 0.0}
        alone |= {"max_secondary_generations": 0, "max_duplication_generations": 0}
        for size in request.step_sizes:
            evolution = dataclasses.replace(request.settings.search.evolution, primary_steps=size, **alone)
            search = dataclasses.replace(request.settings.search, evolution=evolution, final_steps=0)
            changed = dataclasses.replace(request.settings, search=search)
            searches[size] = self.searches(changed, what=f"step size {size}", slug=f"steps{size}")
        return searches

    def retrainings(self, *choices: Choice, mimicry: Sequence[bool] = (True,)) -> tuple[Retraining, ...]:
        """Trainings of the chosen networks of each of EIGEN's searches, with mimicry, without, or both."""
        return tuple(itertools.starmap(Retraining, itertools.product(choices, mimicry, self.eigen)))

    def searches(self, common: Settings, *, what: str, slug: str) -> tuple[Search, ...]:
        """A search a seed; `slug` stands for `what` in the names of folders."""
        each = zip(self.request.seeds, self._seeded(common, slug), strict=True)
        return tuple(Search(label=f"{what}, seed {seed}", settings=settings) for seed, settings in each)

    def trainings(
        self, common: Settings, *, what: str, slug: str, network: NamedNetwork, recipe: str
    ) -> tuple[HandDesigned, ...]:
        """A training of a hand-designed network a seed."""
        each = zip(self.request.seeds, self._seeded(common, slug), strict=True)
        return tuple(
            HandDesigned(label=f"{what}, seed {seed}", network=network, recipe=recipe, settings=settings)
            for seed, settings in each
        )

    def _seeded(self, common: Settings, slug: str) -> Iterator[Settings]:
        for seed in self.request.seeds:
            settings = dataclasses.replace(common, search=dataclasses.replace(common.search, seed=seed))
            yield placed(settings, self.request.runs_dir, f"{self.request.preset}-{slug}")


def describe_repeats(duplicate: Individual) -> str:
    return "-".join(map(str, duplicate.repeats or ()))  # such as 2-1


def placed(settings: Settings, runs_dir: Path, slug: str) -> Settings:
    """With the run's folder, whose name tells apart all that the outcome depends on but data and a trained teacher."""
    logits = None if settings.teacher == "none" else settings.teacher_logits
    given = {"dataset": settings.data.name, "teacher_logits": logits and logits.absolute()}
    name = f"{settings.data.name}-{slug}-seed{settings.search.seed}-{digest({**given, **settings.outcome()})}"
    return dataclasses.replace(settings, run_dir=runs_dir / name)


def is_finished(folder: Path) -> bool:
    return run_files.RESULT.is_in(folder)  # which is written last


def read_origin(settings: Settings, **more: str) -> Origin:
    """Where the run of these settings, and of what settings.json holds besides them, was made."""
    folder, now = settings.run_dir, as_json({**settings.outcome(), **more})
    recorded, noted = run_files.read_settings(folder), folder / _MACHINE
    recorded.check_same(now, path=folder, partly=True, advice="choose another --runs-dir")
    try:
        origin = convert({**recorded.settings, "versions": recorded.versions}, Origin)
        return dataclasses.replace(origin, machine=convert(read_json(noted), Machine)) if noted.exists() else origin
    except (OSError, JSONError) as error:
        raise RunFolderError(
            f"{folder} has a settings.json or a {_MACHINE} that is damaged ({error}); put back the run's own files"
        ) from None


def measure_latency(run: HandDesigned) -> float | None:
    """Seconds of one image's forward pass, here and now; None where the training diverged, and so left no network."""
    if run.result.test_accuracy is None:
        return None
    network, variables = load_network(run.folder)
    module = build_network(network, num_classes=run.settings.data.num_classes, dtype=run.result.dtype)
    return latency(variables, jax.numpy.zeros((1, *network.input_shape)), network=module)


def note_machine(folder: Path, data: DataFacts | None, latency: float | None = None) -> None:
    noted = {
        **describe_machine(),
        "accelerators": len(jax.devices()),
        "data": data and dataclasses.asdict(data),
        "latency": latency,
    }
    with told_as(RunFolderError, folder / _MACHINE, "choose another --runs-dir"):
        write_json(folder / _MACHINE, noted)


def _fitness(individual: Individual) -> list[float]:
    """The first objective at each landmark, as far as it came."""
    return [each.fitness[0] for each in individual.landmarks if each.fitness is not None]
