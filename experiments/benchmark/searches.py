"""What searches take: to breed, by the time that is training, by where a generation is trained, and in memory."""

import dataclasses
import functools
import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, decode
from eigen_jax.data import Dataset, load_dataset
from eigen_jax.executor import InlineExecutor, Job
from eigen_jax.genome import Genome, GenomeSpec, minimal_genome
from eigen_jax.lineage import Individual
from eigen_jax.mutation import mutate
from eigen_jax.search import RunFolderError, SearchObserver, run_search
from eigen_jax.strategies.eigen import EvolutionConfig, EvolutionState, evolution_step, initial_state
from eigen_jax.training import TrainConfig
from experiments.benchmark.measuring import NotMeasured, Plan, Progress, Row, Rows, not_measured, rate_row
from experiments.benchmark.ours import noise_dataset
from experiments.command_line import parse
from experiments.machine import cores
from experiments.process import keep_freed_memory
from experiments.runner import open_executor
from experiments.settings import Machine, Settings

MUTATION_STEPS = 100  # of every child, as in the paper's primary succession
GENERATIONS = 20
SPEC, CONFIG = GenomeSpec(), EvolutionConfig()

# Of the networks that the memory is measured with.
EARLY = 30  # after which it is read first
_STATM = Path("/proc/self/statm")
_SPEC = GenomeSpec(capacity=32, channels=(4, 8, 16), input_shape=(8, 8, 1))
_CONFIG = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=1, flip=False, eval_batch_size=8)
_STEPS = 3  # of training
_MUTATIONS = 10
_BRED = 64  # children a call


def measure_evolution(plan: Plan, progress: Progress) -> Rows:
    """Mutation, in one call and in one for each core; and generations."""
    rate = functools.partial(rate_row, group="evolution", runs=plan.runs)
    progress("mutation")
    for batch in plan.mutation_batches:
        for threads in sorted({cores() if plan.quick else 1, cores()}):
            share = batch // threads
            method = f"batch {batch:,}, " + ("one call" if threads == 1 else f"{threads} threads of {share:,}")
            with ThreadPoolExecutor(threads) as pool:
                work = _breeding(pool, threads, share, runs=1 + plan.runs)
                yield rate(work, what=f"children of {MUTATION_STEPS} steps", method=method, amount=share * threads)
    progress("evolution steps")
    method = f"population {CONFIG.population_size}, {GENERATIONS} generations"
    fitness = jnp.tile(jnp.linspace(0.1, 0.9, CONFIG.population_size, dtype=jnp.float32)[:, None], (1, 3))
    yield rate(functools.partial(_generations, fitness), what="evolution steps", method=method, amount=GENERATIONS)


def breeder(spec: GenomeSpec, *, steps: int) -> Callable[[jax.Array], Genome]:
    """Gives children [P] of the global-pooling network for keys [P], each mutated by so many steps."""
    parent, count = minimal_genome(spec), jnp.asarray(steps, jnp.int32)
    breed = jax.jit(jax.vmap(functools.partial(mutate, spec=spec), (0, None, None)))
    return lambda keys: breed(keys, parent, count)[0]


def _breeding(pool: ThreadPoolExecutor, threads: int, share: int, *, runs: int) -> Callable[[int], object]:
    breed = breeder(SPEC, steps=MUTATION_STEPS)
    keys = [list(jax.random.split(jax.random.key(run), (threads, share))) for run in range(runs)]
    jax.block_until_ready(keys)
    return lambda run: list(pool.map(lambda part: jax.block_until_ready(breed(part)), keys[run]))


def _generations(fitness: jax.Array, run: int) -> EvolutionState:
    """Generations of the primary succession, of rising fitness, so that the search does not saturate."""
    state = initial_state(jax.random.key(run), spec=SPEC, config=CONFIG)
    for generation in range(1, GENERATIONS):
        risen = fitness + 0.01 * generation
        state = evolution_step(jax.random.key(generation), state, risen, spec=SPEC, config=CONFIG)
    return state


def short_search(options: str) -> Settings:
    """A search on the digits, without a teacher, later phases or final training: short in generations alone."""
    alone = "--preset small --teacher none --final-steps 0"
    phases = "--max-primary-generations 1 --max-secondary-generations 0 --max-duplication-generations 0"
    return parse(f"{alone} {phases} {options}".split(), program="", dataset="digits")


def measure_search(plan: Plan, progress: Progress) -> Rows:
    progress("a search on the digits")
    full = "--population 4 --p 2 --q 1 --t1 500 --t2 1500 --t3 2000 --max-primary-generations 2"
    settings = short_search("--population 3 --p 2 --q 1 --t1 500 --t2 500 --t3 500" if plan.quick else full)
    dataset, config = load_dataset(settings.data), settings.search_config()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_search(config, dataset, folder)
        wall = time.perf_counter() - began
        individuals = lineage.read(Path(folder) / "lineage.jsonl")
    method = f"{config.landmarks[-1]:,} steps an individual"
    yield _share_row(individuals, wall, what="search on the digits", method=method)


def measure_folder(folder: Path) -> Row:
    """The time of a finished run, which records none: told by the times of its files, pauses counted."""
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
    values = {
        "seconds": wall,
        "share_training": math.fsum(each.seconds_training for each in individuals) / wall,
        "share_compiling": math.fsum(each.seconds_compiling for each in individuals) / wall,
        "trained": sum(each.same_as is None for each in individuals),
    }
    return Row(group="time of a search", what=what, method=method, values=values)


def measure_workers(plan: Plan, progress: Progress) -> Rows:
    """A generation, by where its individuals are trained: the first of a search, with nothing compiled or started."""
    full = "--population 8 --p 4 --q 2 --t1 200 --t2 400 --t3 400"
    settings = short_search("--population 4 --p 2 --q 2 --t1 200 --t2 200 --t3 200" if plan.quick else full)
    dataset = load_dataset(settings.data)
    seconds = {}
    for name, workers in (("inline", None), ("1 worker process", 1), ("2 worker processes", 2)):
        progress(f"a generation, {name}")
        machine = Machine(executor="processes" if workers else "inline", workers=workers)
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


def measure_memory(plan: Plan, progress: Progress) -> Rows:
    """Resident memory over many architectures, in a process of its own, where nothing else has used memory before."""
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
    """Trains networks one after another, as a search does; gives the MiB in use after `EARLY`, and after all."""
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
