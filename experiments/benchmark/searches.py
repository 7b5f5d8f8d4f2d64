"""What searches take: how much of the time is training, a generation by where it is trained, and memory."""

import dataclasses
import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, decode
from eigen_jax.data import Dataset, load_dataset
from eigen_jax.executor import InlineExecutor, Job
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Individual
from eigen_jax.search import RunFolderError, SearchObserver, run_search
from eigen_jax.training import TrainConfig
from experiments.benchmark.measuring import NotMeasured, Plan, Progress, Row, not_measured
from experiments.benchmark.networks import breeder, noise_dataset
from experiments.benchmark.steps import LEFT_OUT
from experiments.presets import PRESETS
from experiments.process import keep_freed_memory
from experiments.runner import open_executor
from experiments.settings import Machine, Settings

EARLY = 30  # networks after which memory is read first
_STATM = Path("/proc/self/statm")
_SPEC = GenomeSpec(capacity=32, channels=(4, 8, 16), input_shape=(8, 8, 1))
_CONFIG = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=1, flip=False, eval_batch_size=8)
_STEPS = 3  # of training, of each network
_MUTATIONS = 10
_BRED = 64  # children a call


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

    Raises LineageError or RunFolderError where it has not finished, is damaged, or a copy that tells no times.
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


def measure_memory(plan: Plan, progress: Progress) -> Iterator[Row]:
    """Resident memory over many architectures, in a process of its own, where nothing else has used memory before."""
    if plan.memory is None:
        yield not_measured(f"{LEFT_OUT}; --memory 300 measures it", group="memory", what="different networks")
        return
    progress(f"{plan.memory:,} networks")
    what = f"{plan.memory:,} different networks, {_STEPS} steps each"
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=keep_freed_memory) as process:
            early, end = process.submit(train_networks, plan.memory).result()
    except (BrokenProcessPool, NotMeasured) as reason:
        yield not_measured(reason, group="memory", what=what)
    else:
        yield Row(group="memory", what=what, values={"mib_early": early, "mib": end, "times_early": end / early})


def train_networks(count: int) -> tuple[float, float]:
    """Trains networks one after another, as a search does; gives the MiB in use after `EARLY` of them, and after all.

    Raises NotMeasured where this system does not tell a process its memory, or a network fails.
    """
    memory = [_resident_mib()]  # after none, one, two networks, and so on
    executor = InlineExecutor(noise_dataset(64, _SPEC.input_shape))
    for architecture in itertools.islice(different_architectures(), count):
        name = str(len(memory))
        with tempfile.TemporaryDirectory() as folder:
            place, key = Path(folder), jax.random.key(0)
            job = Job(name=name, key=key, architecture=architecture, until=_STEPS, config=_CONFIG, folder=place)
            ((_, outcome),) = executor.run([job])
        if outcome.cause is not None:
            raise NotMeasured(f"network {name} failed: {outcome.cause}")
        memory.append(_resident_mib())
        if len(memory) % EARLY == 1:
            print(f"        memory: {name}/{count:,} networks, {memory[-1]:,.0f} MiB", file=sys.stderr, flush=True)
    return memory[min(EARLY, count)], memory[-1]


def different_architectures() -> Iterator[Architecture]:
    """Small networks, no two equal, the same in every process."""
    breed = breeder(_SPEC, steps=_MUTATIONS)
    seen = set()
    for generation in itertools.count():
        genomes = jax.device_get(breed(jax.random.split(jax.random.key(generation), _BRED)))
        for child in range(_BRED):
            architecture = decode(jax.tree.map(lambda leaf, child=child: leaf[child], genomes), spec=_SPEC)
            if architecture not in seen:
                seen.add(architecture)
                yield architecture


def _resident_mib() -> float:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        raise NotMeasured("resident memory is read from /proc, and there is none") from None
