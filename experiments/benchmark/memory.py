"""Whether memory stays flat over many architectures."""

import itertools
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jax

from eigen_jax.architecture import Architecture, decode
from eigen_jax.executor import InlineExecutor, Job
from eigen_jax.genome import GenomeSpec
from eigen_jax.training import TrainConfig
from experiments.benchmark.measuring import NotMeasured, Plan, Progress, Row, not_measured
from experiments.benchmark.networks import breeder, noise_dataset
from experiments.benchmark.steps import LEFT_OUT
from experiments.process import keep_freed_memory

GROUP = "memory"
EARLY = 30  # networks after which memory is read first

_STATM = Path("/proc/self/statm")
_SPEC = GenomeSpec(capacity=32, channels=(4, 8, 16), input_shape=(8, 8, 1))
_CONFIG = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=1, flip=False, eval_batch_size=8)
_STEPS = 3  # of training, of each network
_MUTATIONS = 10
_BRED = 64  # children a call


def measure_memory(plan: Plan, progress: Progress) -> Iterator[Row]:
    """Resident memory over many architectures, in a process of its own, where nothing else has used memory before."""
    if plan.memory is None:
        yield not_measured(f"{LEFT_OUT}; --memory 300 measures it", group=GROUP, what="different networks")
        return
    progress(f"{plan.memory:,} networks")
    what = f"{plan.memory:,} different networks, {_STEPS} steps each"
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=keep_freed_memory) as process:
            early, end = process.submit(train_networks, plan.memory).result()
    except (BrokenProcessPool, NotMeasured) as reason:
        yield not_measured(reason, group=GROUP, what=what)
    else:
        yield Row(group=GROUP, what=what, values={"mib_early": early, "mib": end, "times_early": end / early})


def train_networks(count: int) -> tuple[float, float]:
    """Trains networks one after another, as a search does; gives the MiB in use after `EARLY` of them, and after all.

    Raises:
        NotMeasured: this system does not tell a process its memory, or a network fails.
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
