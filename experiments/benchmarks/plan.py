"""What is measured, group by group, and how long."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.training import TrainConfig
from experiments.benchmarks.architectures import benchmark_architectures, describe
from experiments.benchmarks.compilation import GROUP as COMPILATION_GROUP
from experiments.benchmarks.compilation import measure_compilation
from experiments.benchmarks.evolution import measure_evolution, measure_mutation, threads_to_try
from experiments.benchmarks.machine import available_cores, has_gpu
from experiments.benchmarks.measuring import Effort, Row, not_measured
from experiments.benchmarks.memory import GROUP as MEMORY_GROUP
from experiments.benchmarks.memory import measure_memory
from experiments.benchmarks.mimicry import measure_mimicry
from experiments.benchmarks.parts import measure_parts
from experiments.benchmarks.search import measure_search, search_settings
from experiments.benchmarks.steps import GROUP as STEPS_GROUP
from experiments.benchmarks.steps import measure_peak, measure_steps
from experiments.benchmarks.workers import generation_settings, measure_workers

Progress = Callable[[str], None]

FULL, QUICK = Effort(rounds=15, seconds=10), Effort(rounds=5, seconds=2)

_LEFT_OUT = "left out by --quick"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure. The defaults are those of a full run."""

    quick: bool = False  # leave out what takes long to compile
    effort: Effort = FULL
    mutation_batches: tuple[int, ...] = (512, 1024, 2048)
    runs: int = 7  # of mutation and of evolution
    memory: int | None = 300  # networks; None: left out


def quick_plan(*, memory: int | None) -> Plan:
    """Two minutes on two cores."""
    return Plan(quick=True, effort=QUICK, mutation_batches=(256,), runs=2, memory=memory)


def _steps(plan: Plan, progress: Progress) -> Iterator[Row]:
    progress("matrix product")
    peak, rows = measure_peak(plan.effort)
    yield from rows
    for name, architecture in benchmark_architectures().items():
        progress(describe(name, architecture))
        left_out = _quickly_left_out if plan.quick else lambda name, way: None
        yield from measure_steps(name, architecture, peak=peak, effort=plan.effort, left_out=left_out)
    if not has_gpu():
        yield not_measured("no GPU at hand", group=STEPS_GROUP, what="GPU")


def _quickly_left_out(name: str, way: str) -> str | None:
    """What takes long: `torch.compile`, the large network, and all but single float32 steps of the typical one."""
    typical = ("PyTorch eager float32", "ours float32")
    slow = name == "large" or way.startswith("torch.compile") or (name == "typical" and way not in typical)
    return _LEFT_OUT if slow else None


def _parts(plan: Plan, progress: Progress) -> Iterator[Row]:
    progress("convolutions, normalisation, pooling")
    yield from measure_parts(plan.effort)


def _mimicry(plan: Plan, progress: Progress) -> Iterator[Row]:
    progress("training with and without a teacher")
    small = benchmark_architectures()["small"]
    yield from measure_mimicry(architecture=small, images=5_000, config=TrainConfig(), effort=plan.effort, steps=4)


def _evolution(plan: Plan, progress: Progress) -> Iterator[Row]:
    spec = GenomeSpec()
    progress("mutation")
    threads = (available_cores(),) if plan.quick else threads_to_try()
    yield from measure_mutation(spec=spec, batches=plan.mutation_batches, threads=threads, runs=plan.runs)
    progress("evolution steps")
    yield measure_evolution(spec=spec, config=EvolutionConfig(), runs=plan.runs)


def _compilation(plan: Plan, progress: Progress) -> Iterator[Row]:
    for name, architecture in benchmark_architectures().items():
        if plan.quick and name == "large":
            yield not_measured(_LEFT_OUT, group=COMPILATION_GROUP, what=describe(name, architecture))
            continue
        progress(describe(name, architecture))
        yield measure_compilation(name, architecture)


def _search(plan: Plan, progress: Progress) -> Iterator[Row]:
    progress("a search on the digits")
    yield measure_search(search_settings(quick=plan.quick))


def _workers(plan: Plan, progress: Progress) -> Iterator[Row]:
    yield from measure_workers(generation_settings(quick=plan.quick), progress)


def _memory(plan: Plan, progress: Progress) -> Iterator[Row]:
    if plan.memory is None:
        yield not_measured(f"{_LEFT_OUT}; --memory 300 measures it", group=MEMORY_GROUP, what="different networks")
        return
    progress(f"{plan.memory:,} networks")
    yield measure_memory(plan.memory)


GROUPS: Mapping[str, Callable[[Plan, Progress], Iterator[Row]]] = {
    "steps": _steps,
    "parts": _parts,
    "mimicry": _mimicry,
    "evolution": _evolution,
    "compile": _compilation,
    "search": _search,
    "workers": _workers,
    "memory": _memory,
}
