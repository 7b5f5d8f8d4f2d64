"""How much of a search's wall time is training steps, and what a generation takes by where it is trained."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eigen_jax import lineage
from eigen_jax.data import Dataset, load_dataset
from eigen_jax.lineage import Individual
from eigen_jax.search import RunFolderError, SearchObserver, run_search
from experiments.benchmark.measuring import Plan, Progress, Row
from experiments.executors import open_executor
from experiments.presets import PRESETS
from experiments.settings import Machine, Settings


def short_search(
    *, population: int, ranks: tuple[int, int], landmarks: tuple[int, int, int], generations: int = 1
) -> Settings:
    """A search on the digits, without a teacher, later phases or final training; `landmarks` as --t1, --t2, --t3.

    It is short in generations, not in the training of each individual.
    """
    small, (first, second), (t1, t2, t3) = PRESETS["digits"]["small"], ranks, landmarks
    evolution = dataclasses.replace(
        small.search.evolution,
        population_size=population,
        first_rank=first,
        second_rank=second,
        max_primary_generations=generations,
        max_secondary_generations=0,
        max_duplication_generations=0,
    )
    search = dataclasses.replace(small.search, t1=t1, t2=t2, t3=t3, final_steps=0, evolution=evolution)
    return dataclasses.replace(small, teacher="none", search=search)


def measure_search(plan: Plan, progress: Progress) -> Iterator[Row]:
    """A search in a folder that is then removed; the wall time is that of `run_search`."""
    progress("a search on the digits")
    if plan.quick:
        settings = short_search(population=3, ranks=(2, 1), landmarks=(500, 500, 500))
    else:
        settings = short_search(population=4, ranks=(2, 1), landmarks=(500, 1_500, 2_000), generations=2)
    dataset, config = load_dataset(settings.data), settings.search_config()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_search(config, dataset, folder)
        wall = time.perf_counter() - began
        individuals = lineage.read(Path(folder) / "lineage.jsonl")
    steps = f"{config.landmarks[-1]:,} steps an individual"
    yield _share_row(individuals, wall, what="search on the digits", method=steps)


def measure_folder(folder: Path) -> Row:
    """The same of a finished run, which records no wall time: told by the times of its files, pauses counted.

    Raises:
        LineageError: the folder has no record of a run, or a damaged one.
        RunFolderError: the run has not finished, or its files are copies that tell no times.
    """
    record, settings = folder / "lineage.jsonl", folder / "settings.json"
    individuals = lineage.read(record)
    if not (folder / "result.json").exists() or not settings.exists():
        raise RunFolderError(f"{folder} is no folder of a finished run; name one with settings.json and result.json")
    wall = record.stat().st_mtime - settings.stat().st_mtime
    if wall <= 0 or wall < math.fsum(each.seconds_training for each in individuals):
        raise RunFolderError(
            f"the files in {folder} were written within {max(wall, 0):.0f} s, less than their run trained for, so they"
            " are copies and tell no wall time; name the original folder"
        )
    method = "wall time: from settings.json to the last line of lineage.jsonl"
    return _share_row(individuals, wall, what=str(folder), method=method)


def _share_row(individuals: Sequence[Individual], wall: float, *, what: str, method: str) -> Row:
    """The shares of training and of waiting for compilation in a search that took `wall` seconds."""
    values = {
        "seconds": wall,
        "share_training": math.fsum(each.seconds_training for each in individuals) / wall,
        "share_compiling": math.fsum(each.seconds_compiling for each in individuals) / wall,
        "trained": sum(each.same_as is None for each in individuals),
    }
    return Row(group="time of a search", what=what, method=method, values=values)


def measure_workers(plan: Plan, progress: Progress) -> Iterator[Row]:
    """A generation, by where its individuals are trained: the first of a search, with nothing compiled or started."""
    if plan.quick:
        settings = short_search(population=4, ranks=(2, 2), landmarks=(200, 200, 200))
    else:
        settings = short_search(population=8, ranks=(4, 2), landmarks=(200, 400, 400))
    dataset = load_dataset(settings.data)
    places = {
        "inline": Machine(executor="inline"),
        "1 worker process": Machine(executor="processes", workers=1),
        "2 worker processes": Machine(executor="processes", workers=2),
    }
    seconds = {}
    for name, machine in places.items():
        progress(f"a generation, {name}")
        seconds[name] = _time_generation(dataclasses.replace(settings, machine=machine), dataset)
    what = f"{settings.search.evolution.population_size} individuals, digits"
    for name, taken in seconds.items():
        values = {"seconds": taken, "times_one_worker": taken / seconds["1 worker process"]}
        yield Row(group="time of a generation", what=what, method=name, values=values)


class _Clock(SearchObserver):
    def generation_started(self, **_: Any) -> None:
        self.began = time.perf_counter()

    def generation_ended(self, **_: Any) -> None:
        self.taken = time.perf_counter() - self.began


def _time_generation(settings: Settings, dataset: Dataset) -> float:
    clock = _Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "compiled").mkdir()
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, cache_dir=folder))
        with open_executor(settings, dataset, None, lambda: False) as executor:
            run_search(settings.search_config(), dataset, folder / "run", executor=executor, observer=clock)
    return clock.taken
