"""Measures what a search waits for: mutation, evolution and training steps a second.

    python -m experiments.benchmark                         # two minutes on two cores
    python -m experiments.benchmark --quick                 # a first look
    python -m experiments.benchmark --json benchmark.json   # the same numbers for programs

Rates are medians of several runs, without the compilation, whose seconds stand beside them. Run it
on an otherwise idle machine.
"""

import dataclasses
import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp

from eigen_jax.architecture import IMAGE, Architecture, Layer
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset, num_views
from eigen_jax.evolution import EvolutionConfig, evolution_step, initial_state
from eigen_jax.genome import GenomeSpec, minimal_genome
from eigen_jax.mutation import mutate
from eigen_jax.search.folder import write_json
from eigen_jax.teacher import CachedLogits
from eigen_jax.training import Teacher, TrainConfig, init_state, train_to
from experiments.command_line import Parser
from experiments.runner import BAD_INPUT
from experiments.settings import SettingsError

MUTATION_STEPS = 100  # of every child, as in the paper's primary succession


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table."""

    name: str  # what is counted
    method: str  # how it was run
    per_second: float  # median over the runs
    slowest: float  # of the runs, per second
    fastest: float
    compile_seconds: float  # the first call, compilation included
    runs: int


def measure(work: Callable[[int], object], *, name: str, method: str, amount: int, runs: int) -> Measurement:
    """Times calls of `work`, which gets the number of the run and does `amount` of what is counted."""

    def seconds(run: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(work(run))
        return time.perf_counter() - start

    compiling = seconds(0)
    rates = [amount / seconds(run) for run in range(1, runs + 1)]
    return Measurement(
        name=name,
        method=method,
        per_second=statistics.median(rates),
        slowest=min(rates),
        fastest=max(rates),
        compile_seconds=compiling,
        runs=runs,
    )


def measure_mutation(*, spec: GenomeSpec, batches: Sequence[int], runs: int) -> Iterator[Measurement]:
    """Children of the global-pooling network, in one call, and in one call a core on a share of the batch."""
    parent = minimal_genome(spec)
    steps = jnp.asarray(MUTATION_STEPS, jnp.int32)
    breed = jax.jit(jax.vmap(functools.partial(mutate, spec=spec), (0, None, None)))
    cores = available_cores()
    for batch in batches:
        for threads in sorted({1, cores}):
            share = batch // threads
            keys = [
                [jax.random.split(jax.random.key(run * threads + thread), share) for thread in range(threads)]
                for run in range(runs + 1)
            ]
            jax.block_until_ready(keys)
            with ThreadPoolExecutor(threads) as pool:

                def work(run, pool=pool, keys=keys):
                    return list(pool.map(lambda part: jax.block_until_ready(breed(part, parent, steps)), keys[run]))

                method = f"batch {batch:,}, " + ("one call" if threads == 1 else f"{threads} threads of {share:,}")
                name = f"children of {MUTATION_STEPS} steps"
                yield measure(work, name=name, method=method, amount=share * threads, runs=runs)


def measure_evolution(*, spec: GenomeSpec, config: EvolutionConfig, runs: int) -> Iterator[Measurement]:
    """Generations of the primary succession: extinction, selection, and new children."""
    calls = 20
    fitness = jnp.tile(jnp.linspace(0.1, 0.9, config.population_size, dtype=jnp.float32)[:, None], (1, 3))

    def work(run):
        state = initial_state(jax.random.key(run), spec=spec, config=config)
        for generation in range(1, calls):
            # Rising, so that the search does not saturate.
            state = evolution_step(
                jax.random.key(generation), state, fitness + 0.01 * generation, spec=spec, config=config
            )
        return state

    method = f"population {config.population_size}, {calls} generations"
    yield measure(work, name="evolution steps", method=method, amount=calls, runs=runs)


def measure_mimicry(
    *, architecture: Architecture, images: int, config: TrainConfig, runs: int, steps: int
) -> Iterator[Measurement]:
    """Training steps without a teacher, and with one whose logits are cached, in turns.

    Args:
        architecture: the network, for ten classes.
        images: of the training set; 162 views of each are cached at padding 4.
        config: the batch size and the padding.
        runs: how often each of the two is timed.
        steps: of each run.
    """
    data_key, logits_key, key = jax.random.split(jax.random.key(0), 3)
    drawn = jax.random.normal(data_key, (images, *architecture.input_shape))
    labels = jnp.arange(images, dtype=jnp.int32) % 10
    dataset = Dataset(drawn, labels, drawn, labels, drawn, labels, num_classes=10, name="noise", fingerprint="")
    views = num_views(config.pad)
    logits = jax.random.normal(logits_key, (images, views, 10), jnp.float16)
    teacher = CachedLogits(logits=logits, slots=jnp.arange(views, dtype=jnp.int32), fingerprint="")
    network = build_network(architecture, num_classes=10)
    start = init_state(key, network=network, config=config, input_shape=architecture.input_shape)

    def timed(mimicked: Teacher | None) -> float:
        began = time.perf_counter()
        jax.block_until_ready(train_to(key, start, dataset, steps, network=network, config=config, teacher=mimicked)[0])
        return time.perf_counter() - began

    methods: dict[str, Teacher | None] = {"plain": None, "mimicking cached logits": teacher}
    compiling = {method: timed(mimicked) for method, mimicked in methods.items()}
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(runs):
        for method, mimicked in methods.items():
            seconds[method].append(timed(mimicked))
    for method, each in seconds.items():
        yield Measurement(
            name=f"training steps, batch {config.batch_size}",
            method=f"{len(architecture.layers)} layers, {method}",
            per_second=steps / statistics.median(each),
            slowest=steps / max(each),
            fastest=steps / min(each),
            compile_seconds=compiling[method],
            runs=runs,
        )


def eight_layers() -> Architecture:
    """Eight 3 x 3 convolutions of 32 to 96 channels, three of them halving; images of 32 x 32 x 3."""
    shapes = [(32, 1), (32, 1), (48, 2), (48, 1), (64, 2), (64, 1), (96, 2), (96, 1)]
    layers = [
        Layer(op="conv", inputs=(position - 1 if position else IMAGE,), channels=channels, kernel=3, stride=stride)
        for position, (channels, stride) in enumerate(shapes)
    ]
    return Architecture(input_shape=(32, 32, 3), layers=tuple(layers))


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str | int]:
    """What the numbers depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def table(measurements: Sequence[Measurement]) -> str:
    """The measurements as aligned text, the best way of each thing marked."""
    best = {m.name: max(o.per_second for o in measurements if o.name == m.name) for m in measurements}
    rows: list[Sequence[str]] = [("", "", "a second", "slowest", "fastest", "compiling")]
    for m in measurements:
        mark = " *" if m.per_second == best[m.name] else ""
        rates = [f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in (m.per_second, m.slowest, m.fastest)]
        rows.append((m.name, m.method + mark, *rates, f"{m.compile_seconds:.1f} s"))
    name, method, *numbers = (max(map(len, column)) for column in zip(*rows, strict=True))
    layout = "  ".join([f"{{:{name}}}", f"{{:{method}}}", *(f"{{:>{width}}}" for width in numbers)])
    return "\n".join(layout.format(*row) for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; returns the exit code."""
    parser = Parser(prog="python -m experiments.benchmark", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small batch and two runs of everything")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE, too")
    try:
        arguments = parser.parse_args(argv)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        folder = arguments.json.absolute().parent
        print(f"error: there is no folder {folder} to write {arguments.json.name} in; make it", file=sys.stderr)
        return BAD_INPUT
    batches, runs = ((256,), 2) if arguments.quick else ((512, 1024, 2048), 7)
    print(", ".join(f"{name}: {value}" for name, value in machine().items()), flush=True)
    spec = GenomeSpec()
    plain, mimicking = measure_mimicry(
        architecture=eight_layers(), images=5_000, config=TrainConfig(), runs=3 if arguments.quick else 25, steps=4
    )
    measurements = [
        *measure_mutation(spec=spec, batches=batches, runs=runs),
        *measure_evolution(spec=spec, config=EvolutionConfig(), runs=runs),
        plain,
        mimicking,
    ]
    print(table(measurements))
    print(f"A step that mimics cached logits takes {plain.per_second / mimicking.per_second:.3f} times the plain one.")
    if arguments.json is not None:
        rows = [dataclasses.asdict(measurement) for measurement in measurements]
        write_json(arguments.json, {"machine": machine(), "measurements": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
