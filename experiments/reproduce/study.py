"""All runs that a request may need, each as one object."""

import dataclasses
from functools import cached_property

from experiments.reproduce.folders import DataFacts
from experiments.reproduce.request import Request
from experiments.reproduce.runs import Choice, Retraining, Search, outcome_key
from experiments.settings import Settings


@dataclasses.dataclass(kw_only=True)
class Study:
    """The runs of a request; nothing is read or made before it is asked for."""

    request: Request
    data: DataFacts | None = None  # of all runs: as loaded, or as noted beside one of them; None if neither

    @cached_property
    def eigen(self) -> tuple[Search, ...]:
        """EIGEN as the settings have it, a search a seed."""
        return self._searches(self.request.settings, what="EIGEN", slug="eigen")

    @cached_property
    def plain(self) -> tuple[Search, ...]:
        """EIGEN without mimicry, in the search and in the final training."""
        plain = dataclasses.replace(self.request.settings, teacher="none")
        return self._searches(plain, what="EIGEN without mimicry", slug="plain")

    @cached_property
    def step_sizes(self) -> dict[int, tuple[Search, ...]]:
        """Primary successions alone, by their most mutation steps a child, all of equally many generations."""
        alone = dataclasses.replace(
            self.request.settings,
            max_primary_generations=self.request.generations,
            max_secondary_generations=0,
            max_duplication_generations=0,
            # The best never gets worse, so a gain of less than nothing never ends a succession.
            saturation_gain=0.0,
            final_steps=0,
        )
        sizes = {size: dataclasses.replace(alone, primary_steps=size) for size in self.request.step_sizes}
        return {
            size: self._searches(settings, what=f"step size {size}", slug=f"steps{size}")
            for size, settings in sizes.items()
        }

    def retrainings(self, choice: Choice, *, mimicry: bool) -> tuple[Retraining, ...]:
        """Trainings of a network of each of EIGEN's searches."""
        return tuple(Retraining(search=search, choice=choice, mimicry=mimicry) for search in self.eigen)

    def _searches(self, common: Settings, *, what: str, slug: str) -> tuple[Search, ...]:
        """A search a seed; `slug` stands for `what` in the names of folders."""
        request, searches = self.request, []
        for seed in request.seeds:
            settings = dataclasses.replace(common, seed=seed)
            key = outcome_key(request.dataset, settings)
            folder = request.runs_dir / f"{request.dataset}-{request.preset}-{slug}-seed{seed}-{key}"
            settings = dataclasses.replace(settings, run_dir=folder)
            searches.append(Search(dataset=request.dataset, what=what, settings=settings))
        return tuple(searches)
