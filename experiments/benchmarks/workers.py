"""The wall time of a generation, by where its individuals are trained."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eigen_jax.data import Dataset, load_dataset
from eigen_jax.search import SearchObserver, run_search
from experiments.benchmarks.measuring import Row
from experiments.executors import open_executor
from experiments.presets import PRESETS
from experiments.settings import Machine, Settings

GROUP = "time of a generation"

_PLACES = {
    "inline": Machine(executor="inline"),
    "1 worker process": Machine(executor="processes", workers=1),
    "2 worker processes": Machine(executor="processes", workers=2),
}


def generation_settings(*, quick: bool) -> Settings:
    """A search of one generation on the digits, without a teacher, duplication or final training."""
    small = PRESETS["digits"]["small"]
    evolution = dataclasses.replace(
        small.search.evolution,
        population_size=4 if quick else 8,
        first_rank=2 if quick else 4,
        second_rank=2,
        max_primary_generations=1,
        max_secondary_generations=0,
        max_duplication_generations=0,
    )
    later = 200 if quick else 400
    search = dataclasses.replace(small.search, t1=200, t2=later, t3=later, final_steps=0, evolution=evolution)
    return dataclasses.replace(small, teacher="none", search=search)


def measure_workers(settings: Settings, progress: Callable[[str], None]) -> Iterator[Row]:
    """A row for each place; the ratio is to one worker process.

    Each has a cache of compiled programs of its own, empty at first, and workers that start with the
    generation, as the first generation of a search has them.

    Args:
        settings: of the search; those of the machine are set here.
        progress: told what is measured next.
    """
    dataset = load_dataset(settings.data)
    seconds = {}
    for name, machine in _PLACES.items():
        progress(f"a generation, {name}")
        seconds[name] = _time_generation(dataclasses.replace(settings, machine=machine), dataset)
    for name, taken in seconds.items():
        values = {"seconds": taken, "times_one_worker": taken / seconds["1 worker process"]}
        yield Row(
            group=GROUP,
            what=f"{settings.search.evolution.population_size} individuals, digits",
            method=name,
            values=values,
        )


class _Clock(SearchObserver):
    def generation_started(self, **_: Any) -> None:
        self.began = time.perf_counter()

    def generation_ended(self, **_: Any) -> None:
        self.taken = time.perf_counter() - self.began


def _time_generation(settings: Settings, dataset: Dataset) -> float:
    clock = _Clock()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "compiled").mkdir()
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, cache_dir=folder))
        executor = stack.enter_context(open_executor(settings, dataset, None, lambda: False))
        run_search(settings.search_config(), dataset, folder / "run", executor=executor, observer=clock)
    return clock.taken
