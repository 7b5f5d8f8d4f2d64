"""The runs that experiments need: what each is, and the folder that it has, whichever experiment asks for it.

A run's folder is named by what it is and by all settings that its outcome depends on. Two
experiments that need the same run so plan the same folder: it is made once and found again.
"""

import dataclasses
import enum

from eigen_jax.architecture import Architecture, fingerprint
from eigen_jax.data.types import DatasetName
from experiments.paper.request import Request, digest
from experiments.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A whole search."""

    dataset: DatasetName
    what: str  # for people, without the seed
    settings: Settings  # with its own seed and run folder

    @property
    def seed(self) -> int:
        """Of the search."""
        return self.settings.search.seed

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.what}, seed {self.seed}"


class Choice(enum.Enum):
    """A network of a finished search; the value says it to people."""

    FOUND = "the network found"
    BEFORE_DUPLICATION = "the best network before duplication"
    BEST_DUPLICATE = "the best duplicate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retraining:
    """The training of a network of a search, from scratch, for as long as a search's final training.

    Its folder depends on the network, which is known once the search has ended.
    """

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

    def settings_for(self, architecture: Architecture) -> Settings:
        """The settings, with the run folder, of the training of this network."""
        settings = self.search.settings
        if not self.mimicry:
            settings = dataclasses.replace(settings, teacher="none")
        name = "-".join(
            (
                self.search.dataset,
                "trained",
                fingerprint(architecture)[:12],
                "mimicry" if self.mimicry else "plain",
                f"seed{self.seed}",
                _key(self.search.dataset, settings),
            )
        )
        return dataclasses.replace(settings, run_dir=settings.run_dir.parent / name)


Plan = Search | Retraining


def eigen_searches(request: Request) -> tuple[Search, ...]:
    """EIGEN as the settings have it, a search a seed."""
    return _searches(request, "EIGEN", "eigen", request.settings)


def plain_searches(request: Request) -> tuple[Search, ...]:
    """EIGEN without mimicry, in the search and in the final training."""
    settings = dataclasses.replace(request.settings, teacher="none")
    return _searches(request, "EIGEN without mimicry", "plain", settings)


def step_size_searches(request: Request, size: int) -> tuple[Search, ...]:
    """Primary successions alone, up to `size` mutation steps a child, all of equally many generations."""
    search = request.settings.search
    evolution = dataclasses.replace(
        search.evolution,
        primary_steps=size,
        max_primary_generations=request.generations,
        max_secondary_generations=0,
        max_duplication_generations=0,
        # The best never gets worse, so a gain of less than nothing never ends a succession.
        saturation_gain=0.0,
    )
    search = dataclasses.replace(search, final_steps=0, evolution=evolution)
    settings = dataclasses.replace(request.settings, search=search)
    return _searches(request, f"step size {size}", f"steps{size}", settings)


def retrainings(request: Request, choice: Choice, *, mimicry: bool) -> tuple[Retraining, ...]:
    """Trainings of a network of each of EIGEN's searches."""
    return tuple(Retraining(search=search, choice=choice, mimicry=mimicry) for search in eigen_searches(request))


def _searches(request: Request, what: str, slug: str, of_all: Settings) -> tuple[Search, ...]:
    searches = []
    for seed in request.seeds:
        settings = dataclasses.replace(of_all, search=dataclasses.replace(of_all.search, seed=seed))
        key = _key(request.dataset, settings)
        folder = request.runs_dir / f"{request.dataset}-{request.preset}-{slug}-seed{seed}-{key}"
        settings = dataclasses.replace(settings, run_dir=folder)
        searches.append(Search(dataset=request.dataset, what=what, settings=settings))
    return tuple(searches)


def _key(dataset: DatasetName, settings: Settings) -> str:
    """Tells apart runs of different outcome, but for the data and a trained teacher, which `check_together` tells."""
    logits = None if settings.teacher == "none" else settings.teacher_logits
    return digest({"dataset": dataset, "teacher_logits": logits and logits.absolute(), **settings.outcome()})
