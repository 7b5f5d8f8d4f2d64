"""Training steps, and the parts that show what one could cost at least, beside PyTorch's; compilation; mimicry."""

import dataclasses
import functools
import importlib.util
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eigen_jax import platforms, training
from eigen_jax.architecture import Architecture, count_flops
from eigen_jax.builder import build_network
from eigen_jax.data import num_views
from eigen_jax.teacher import CachedLogits
from eigen_jax.training import ComputeDtype, Teacher
from experiments.benchmark import measuring, ours, plain_flax
from experiments.benchmark.measuring import Plan, Prepare, Progress, Row, Rows, Work, compare
from experiments.benchmark.ours import benchmark_architectures, describe, one_convolution
from experiments.machine import has_gpu

GROUP = "training steps, batch 128"
COMPILATION_GROUP = "compilation of a training step"
REFERENCE = "PyTorch eager float32"
PLAIN = "plain Flax float32"
DTYPES: tuple[ComputeDtype, ...] = ("float32", "bfloat16")
LEFT_OUT = "left out by --quick"
BATCH = 128  # of the parts
CONVOLUTIONS = (
    *(one_convolution(32, 32, 32), one_convolution(32, 3, 32), one_convolution(32, 32, 48, stride=2)),
    *(one_convolution(8, 96, 96), one_convolution(32, 32, 64, kernel=1)),
)
PASSES = ("forward", "input gradient", "kernel gradient")

_QUICK = (REFERENCE, "ours float32")  # the ways that a quick run measures
_CPU_CHUNK = 8  # steps of one program on the CPU, where training itself calls for each
_GPU_CALLS = 20  # steps before the loss is fetched on a GPU, which would stand idle if each waited for it
_MIMICRY_IMAGES = 5_000  # 162 views of each are cached
_MIMICRY_STEPS = 4  # of each call


def _best_dtype() -> ComputeDtype:
    return "bfloat16" if has_gpu() else "float32"


def _require_pytorch() -> types.ModuleType:
    """`experiments.benchmark.pytorch`; raises `NotMeasured` without PyTorch, or where it cannot use JAX's GPU."""
    if importlib.util.find_spec("torch") is None:
        raise measuring.NotMeasured("PyTorch is not installed; pip install -e '.[torch]'")
    from experiments.benchmark import pytorch

    pytorch.set_up()
    return pytorch


def _sides(function: str, *arguments: Any) -> dict[str, Prepare]:
    return {
        "ours": lambda: getattr(ours, function)(*arguments),
        "PyTorch": lambda: getattr(_require_pytorch(), function)(*arguments),
    }


def measure_parts(plan: Plan, progress: Progress) -> Rows:
    """Convolutions, pass by pass; normalisation and pooling, forward and backward together."""
    progress("convolutions, normalisation, pooling")
    dtype, shape = _best_dtype(), (BATCH, 32, 32, 32)
    versus = functools.partial(compare, plan=plan, group="parts of a step, batch 128", times_pytorch="PyTorch")
    for each in CONVOLUTIONS:
        (size, _, read), (layer,) = each.input_shape, each.layers
        kernel = f"{layer.kernel} x {layer.kernel}" + (", stride 2" if layer.stride == 2 else "")
        what = f"conv {kernel}, {read} to {layer.channels}, on {size} x {size}"
        for part in PASSES:
            sides = _sides("convolution", each, part, BATCH, dtype)
            yield from versus(sides, what=f"{what}: {part}", flops=BATCH * count_flops(each, num_classes=0))
    for name, function in (("batch norm and ReLU", "norm"), ("max pooling", "pool")):
        yield from versus(_sides(function, shape, dtype), what=f"{name}, 32 on 32 x 32: forward and backward")


def measure_steps(plan: Plan, progress: Progress) -> Rows:
    """The peak of the hardware, and the training step of each network."""
    progress("matrix product")
    peak, rows = measure_peak(plan)
    yield from rows
    for name, architecture in benchmark_architectures().items():
        progress(describe(name, architecture))
        yield from measure_network(name, architecture, peak, plan)
    if not has_gpu():
        yield measuring.not_measured("no GPU at hand", group=GROUP, what="GPU")


def measure_peak(plan: Plan, *, size: int | None = None) -> tuple[dict[ComputeDtype, float], list[Row]]:
    """FLOP/s that a step in each dtype is held against, on the CPU those of float32, and the rows that show them."""
    size = size or (8_192 if has_gpu() else 2_048)
    rates, rows = dict[ComputeDtype, float](), list[Row]()
    for dtype in DTYPES if has_gpu() else DTYPES[:1]:
        works = {f"{side} {dtype}": prepare for side, prepare in _sides("product", size, dtype).items()}
        what = f"matrix product, {size:,} x {size:,}"
        found = list(compare(works, plan, group="hardware", what=what, flops=2 * size**3))
        rates[dtype] = 1e9 * max(row.values.get("gflops_per_second", 0) for row in found)
        rows += found
    return {dtype: rates.get(dtype, rates["float32"]) for dtype in DTYPES}, rows


class Way(NamedTuple):
    prepare: Prepare
    dtype: ComputeDtype
    steps: int  # in a call of what is prepared
    single: str = ""  # the way before it that calls for each step, where this one takes many in one program


def ways(architecture: Architecture) -> dict[str, Way]:
    """All ways to take training steps of a network, by name."""
    calls = _GPU_CALLS if has_gpu() else 1
    sides: dict[str, Callable[..., Work]] = {
        "PyTorch eager": lambda *arguments: _require_pytorch().training_steps(*arguments),
        "torch.compile": lambda *arguments: _require_pytorch().training_steps(*arguments, compiles=True),
        "plain Flax": plain_flax.training_steps,
        "ours": ours.training_steps,
    }
    found = {
        f"{side} {dtype}": Way(functools.partial(prepare, architecture, dtype, calls), dtype, calls)
        for side, prepare in sides.items()
        for dtype in DTYPES
    }
    best, chunk = _best_dtype(), platforms.current().steps_per_call if has_gpu() else _CPU_CHUNK
    many = functools.partial(ours.training_steps, architecture, best, 1, chunk)
    return found | {f"ours {best}, {chunk} in one call": Way(many, best, chunk, single=f"ours {best}")}


def measure_network(name: str, architecture: Architecture, peak: Mapping[ComputeDtype, float], plan: Plan) -> Rows:
    """The training step of one network, all ways in turns; `peak` as `measure_peak` gives it."""
    found = ways(architecture)
    works = {way: _left_out if plan.quick and way not in _QUICK else each.prepare for way, each in found.items()}
    units, what = {way: each.steps for way, each in found.items()}, describe(name, architecture)
    times: dict[str, float] = {}
    for row in compare(works, plan, group=GROUP, what=what, units=units, tells_first=True, times_pytorch=REFERENCE):
        if not row.note:
            way, ms = found[row.method], row.values["ms"]
            times[row.method] = ms
            images = 1e3 * ours.CONFIG.batch_size / ms
            share = ours.training_flops(architecture) * images / peak[way.dtype]
            values = {**row.values, "images_per_second": images, "share_of_peak": share}
            if way.single in times:
                values["times_single"] = ms / times[way.single]
            row = dataclasses.replace(row, values=values)
        yield row


def _left_out() -> Work:
    raise measuring.NotMeasured(LEFT_OUT)


def measure_compilation(plan: Plan, progress: Progress) -> Rows:
    """Tracing and compiling a step, anew at each call, beside the step that plain Flax makes."""
    for name, architecture in benchmark_architectures().items():
        what = describe(name, architecture)
        if plan.quick and name == "large":
            yield measuring.not_measured(LEFT_OUT, group=COMPILATION_GROUP, what=what)
            continue
        progress(what)
        works: dict[str, Work] = {
            "ours float32": functools.partial(ours.compile_steps, architecture, "float32", None),
            PLAIN: functools.partial(plain_flax.compile_steps, architecture, "float32"),
        }
        prepared = {method: functools.partial(lambda work: work, work) for method, work in works.items()}
        for row in compare(prepared, plan, group=COMPILATION_GROUP, what=what, times_plain=PLAIN):
            seconds = row.values["ms"] / 1e3
            taken = {"seconds": seconds, "seconds_per_layer": seconds / len(architecture.layers)}
            kept = {column: value for column, value in row.values.items() if column != "ms"}
            yield dataclasses.replace(row, values=kept | taken)


def measure_mimicry(plan: Plan, progress: Progress) -> Rows:
    """Training without a teacher, and with one whose logits are cached; it draws its batches, as a search does."""
    progress("training with and without a teacher")
    architecture, config = ours.eight_layers(), ours.CONFIG
    dataset, views = ours.noise_dataset(_MIMICRY_IMAGES, architecture.input_shape), num_views(config.pad)
    logits = jax.random.normal(jax.random.key(2), (_MIMICRY_IMAGES, views, ours.NUM_CLASSES), jnp.float16)
    teacher = CachedLogits(logits=logits, slots=jnp.arange(views, dtype=jnp.int32), fingerprint="")
    state, _ = ours.untrained(architecture)
    network = build_network(architecture, num_classes=ours.NUM_CLASSES)

    def prepare(mimicked: Teacher | None) -> Work:
        train = functools.partial(training.train_to, network=network, config=config, teacher=mimicked)
        return lambda: jax.block_until_ready(train(jax.random.key(1), state, dataset, _MIMICRY_STEPS)[0])

    works = {"plain": functools.partial(prepare, None), "mimicking cached logits": functools.partial(prepare, teacher)}
    units = dict.fromkeys(works, _MIMICRY_STEPS)
    what = f"training, batch {config.batch_size}, {len(architecture.layers)} layers"
    yield from compare(works, plan, group="mimicry", what=what, units=units, tells_first=True, times_plain="plain")
