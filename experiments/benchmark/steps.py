"""Training steps of three networks, ours beside PyTorch's, how long ours take to compile, and what mimicry adds."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eigen_jax import platforms, training
from eigen_jax.architecture import Architecture
from eigen_jax.builder import build_network
from eigen_jax.data import num_views
from eigen_jax.teacher import CachedLogits
from eigen_jax.training import Batch, ComputeDtype, Teacher, TrainConfig, TrainState
from eigen_jax.training.programs import compiled
from experiments.benchmark import measuring, networks
from experiments.benchmark.measuring import NotMeasured, Plan, Prepare, Progress, Row, Work, compare, ratios
from experiments.benchmark.networks import NUM_CLASSES, benchmark_architectures, describe
from experiments.machine import has_gpu

GROUP = "training steps, batch 128"
COMPILATION_GROUP = "compilation of a training step"
REFERENCE = "PyTorch eager float32"
DTYPES: tuple[ComputeDtype, ...] = ("float32", "bfloat16")
LEFT_OUT = "left out by --quick"

# The paper's (Section 4.1), at a constant rate.
CONFIG = TrainConfig(decay_steps=())

_CPU_CHUNK = 8  # steps of one program on the CPU, where training itself calls for each
_GPU_CALLS = 20  # steps before the loss is fetched on a GPU, which would stand idle if each waited for it
_MIMICRY_IMAGES = 5_000  # 162 views of each are cached
_MIMICRY_STEPS = 4  # of each call


class Way(NamedTuple):
    """One way to take training steps."""

    prepare: Prepare
    dtype: ComputeDtype
    steps: int  # in a call of what is prepared
    single: str = ""  # the way that calls for each step, where this one takes many in one program


def measure_steps(plan: Plan, progress: Progress) -> Iterator[Row]:
    """The peak of the hardware, and the training step of each network."""
    progress("matrix product")
    peak, rows = measure_peak(plan)
    yield from rows
    for name, architecture in benchmark_architectures().items():
        progress(describe(name, architecture))
        yield from measure_network(name, architecture, peak=peak, plan=plan)
    if not has_gpu():
        yield measuring.not_measured("no GPU at hand", group=GROUP, what="GPU")


def measure_peak(plan: Plan, *, size: int | None = None) -> tuple[dict[ComputeDtype, float], list[Row]]:
    """The rate of a matrix product of `size` by `size`, ours and PyTorch's in turns.

    Returns:
        The rate that a step in each dtype is held against, FLOP/s, and the rows. On the CPU it is
        that of float32 for both dtypes.
    """
    size = size or (8_192 if has_gpu() else 2_048)
    rates: dict[ComputeDtype, float] = {}
    rows: list[Row] = []

    def values(name: str, seconds: Mapping[str, float]) -> dict[str, float]:
        rate = 2 * size**3 / seconds[name]
        rates[dtype] = max(rates.get(dtype, 0), rate)
        return {"ms": 1e3 * seconds[name], "gflops_per_second": rate / 1e9}

    for dtype in DTYPES if has_gpu() else DTYPES[:1]:
        works: dict[str, Prepare] = {
            f"ours {dtype}": functools.partial(_our_product, size, dtype),
            f"PyTorch {dtype}": functools.partial(_their_product, size, dtype),
        }
        rows += compare(works, plan, values, group="hardware", what=f"matrix product, {size:,} x {size:,}")
    return {dtype: rates.get(dtype, rates["float32"]) for dtype in DTYPES}, rows


def measure_network(
    name: str, architecture: Architecture, *, peak: Mapping[ComputeDtype, float], plan: Plan
) -> Iterator[Row]:
    """The training step of one network, all ways in turns; `peak` is that of `measure_peak`."""
    found = ways(architecture)

    def values(way: str, calls: Mapping[str, float]) -> dict[str, float]:
        seconds = {each: call / found[each].steps for each, call in calls.items()}
        images = CONFIG.batch_size / seconds[way]
        return {
            "ms": 1e3 * seconds[way],
            "images_per_second": images,
            "share_of_peak": networks.training_flops(architecture) * images / peak[found[way].dtype],
            **ratios(seconds, way, times_pytorch=REFERENCE, times_single=found[way].single),
        }

    works = {way: _left_out if plan.quick and _is_slow(name, way) else each.prepare for way, each in found.items()}
    return compare(works, plan, values, group=GROUP, what=describe(name, architecture), tells_first=True)


def ways(architecture: Architecture) -> dict[str, Way]:
    """All ways to take training steps of a network, by name."""
    calls = _GPU_CALLS if has_gpu() else 1
    sides: dict[str, Callable[..., Work]] = {
        "PyTorch eager": functools.partial(_their_steps, compiles=False),
        "torch.compile": functools.partial(_their_steps, compiles=True),
        "ours": our_steps,
    }
    found = {
        f"{side} {dtype}": Way(functools.partial(prepare, architecture, dtype, calls), dtype, calls)
        for side, prepare in sides.items()
        for dtype in DTYPES
    }
    # In what each platform is for.
    best, chunk = (DTYPES[1], platforms.current().steps_per_call) if has_gpu() else (DTYPES[0], _CPU_CHUNK)
    many = functools.partial(our_steps, architecture, best, 1, chunk)
    return found | {f"ours {best}, {chunk} in one call": Way(many, best, chunk, single=f"ours {best}")}


def _is_slow(name: str, way: str) -> bool:
    """`torch.compile`, the large network, and all but single float32 steps of the typical one."""
    is_plain = way in (REFERENCE, "ours float32")
    return name == "large" or way.startswith("torch.compile") or (name == "typical" and not is_plain)


def _left_out() -> Work:
    raise NotMeasured(LEFT_OUT)


def measure_compilation(plan: Plan, progress: Progress) -> Iterator[Row]:
    """Tracing and compiling, once: where the process has compiled a step before, what it took then."""
    for name, architecture in benchmark_architectures().items():
        what = describe(name, architecture)
        if plan.quick and name == "large":
            yield measuring.not_measured(LEFT_OUT, group=COMPILATION_GROUP, what=what)
            continue
        progress(what)
        seconds = compile_steps(architecture, "float32", None).seconds
        values = {"seconds": seconds, "seconds_per_layer": seconds / len(architecture.layers)}
        yield Row(group=COMPILATION_GROUP, what=what, method="ours float32", values=values)


def measure_mimicry(plan: Plan, progress: Progress) -> Iterator[Row]:
    """Training without a teacher, and with one whose logits are cached; it draws its batches, as a search does."""
    progress("training with and without a teacher")
    architecture = networks.eight_layers()
    dataset = networks.noise_dataset(_MIMICRY_IMAGES, architecture.input_shape)
    views = num_views(CONFIG.pad)
    logits = jax.random.normal(jax.random.key(2), (_MIMICRY_IMAGES, views, NUM_CLASSES), jnp.float16)
    teacher = CachedLogits(logits=logits, slots=jnp.arange(views, dtype=jnp.int32), fingerprint="")
    state, _ = untrained(architecture)
    network = build_network(architecture, num_classes=NUM_CLASSES)

    def prepare(mimicked: Teacher | None) -> Work:
        train = functools.partial(training.train_to, network=network, config=CONFIG, teacher=mimicked)
        return lambda: jax.block_until_ready(train(jax.random.key(1), state, dataset, _MIMICRY_STEPS)[0])

    def values(name: str, seconds: Mapping[str, float]) -> dict[str, float]:
        return {"ms": 1e3 * seconds[name] / _MIMICRY_STEPS, **ratios(seconds, name, times_plain="plain")}

    works = {"plain": functools.partial(prepare, None), "mimicking cached logits": functools.partial(prepare, teacher)}
    what = f"training, batch {CONFIG.batch_size}, {len(architecture.layers)} layers"
    yield from compare(works, plan, values, group="mimicry", what=what, tells_first=True)


class CompiledSteps(NamedTuple):
    """A program of one or more training steps."""

    run: Callable[..., Any]  # of a state, which it donates, and a batch, or a stack of them
    batch: Batch
    seconds: float  # of tracing and compiling


@functools.cache
def compile_steps(architecture: Architecture, dtype: ComputeDtype, steps: int | None) -> CompiledSteps:
    """Compiles, once a process, so many steps in one program by `train_steps`; for None, one by `train_step`."""
    network = build_network(architecture, num_classes=NUM_CLASSES, dtype=dtype)
    state, batch = untrained(architecture)
    function: Callable[..., Any] = training.train_step
    if steps is not None:
        function = training.train_steps
        batch = jax.block_until_ready(jax.tree.map(lambda leaf: jnp.stack([leaf] * steps), batch))
    began = time.perf_counter()
    config = dataclasses.replace(CONFIG, dtype=dtype)
    run = compiled(function, (state, batch), donate=(0,), network=network, config=config)
    return CompiledSteps(run, batch, time.perf_counter() - began)


def our_steps(architecture: Architecture, dtype: ComputeDtype, calls: int, steps: int | None = None) -> Work:
    """Training from the untrained network on, in so many calls of the program of `compile_steps` at a time."""
    program = compile_steps(architecture, dtype, steps)
    state = jax.tree.map(jnp.copy, untrained(architecture)[0])

    def work() -> float:
        nonlocal state
        for _ in range(calls):
            state, metrics = program.run(state, program.batch)
        return float(metrics.loss.ravel()[-1])

    return work


def _their_steps(architecture: Architecture, dtype: ComputeDtype, steps: int, *, compiles: bool) -> Work:
    config = dataclasses.replace(CONFIG, dtype=dtype)
    state, batch = untrained(architecture)
    pytorch = measuring.require_pytorch()
    return pytorch.training_steps(architecture, state, batch, config=config, compiles=compiles, steps=steps)


@functools.cache
def untrained(architecture: Architecture) -> tuple[TrainState, Batch]:
    """A network before training, and images of noise with labels of all classes; the same for all that are timed."""
    network = build_network(architecture, num_classes=NUM_CLASSES)
    state = training.init_state(jax.random.key(0), network=network, config=CONFIG, input_shape=architecture.input_shape)
    images, labels = networks.noise_images(1, CONFIG.batch_size, architecture.input_shape)
    return jax.block_until_ready((state, Batch(images=images, labels=labels)))


def _our_product(size: int, dtype: ComputeDtype) -> Work:
    factor = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    return ready(jnp.matmul, factor, factor)


def _their_product(size: int, dtype: ComputeDtype) -> Work:
    return measuring.require_pytorch().product(size, dtype)


def ready(function: Callable[..., Any], *arguments: Any) -> Work:
    """Calls of the compiled function, each waited for."""
    program = compiled(function, arguments)
    return lambda: jax.block_until_ready(program(*arguments))
