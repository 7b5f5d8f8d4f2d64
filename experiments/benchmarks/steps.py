"""Training steps of three networks, ours beside PyTorch's."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp

from eigen_jax import platforms
from eigen_jax.architecture import Architecture
from eigen_jax.training import ComputeDtype
from eigen_jax.training.programs import Programs, compiled
from experiments.benchmarks import our_steps, torch_steps
from experiments.benchmarks.architectures import describe, training_flops
from experiments.benchmarks.machine import has_gpu
from experiments.benchmarks.measuring import Effort, NotMeasured, Row, Timing, Work, interleave, not_measured

GROUP = "training steps, batch 128"
PEAK_GROUP = "hardware"
REFERENCE = "PyTorch eager float32"
DTYPES: tuple[ComputeDtype, ...] = ("float32", "bfloat16")

_CPU_CHUNK = 8  # steps of one program on the CPU, where training itself calls for each
_GPU_CALLS = 20  # steps before the loss is fetched on a GPU, which would stand idle if each waited for it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way to take training steps."""

    prepare: Callable[[], Work]
    dtype: ComputeDtype
    steps: int  # in a call of what is prepared
    single: str | None = None  # the way that calls for each step, where this one takes many in one program


def measure_peak(effort: Effort, *, size: int | None = None) -> tuple[dict[str, float], list[Row]]:
    """The rate of a matrix product of `size` by `size`, ours and PyTorch's in turns.

    Returns:
        The rate that a step in each dtype is held against, FLOP/s, and the rows. On the CPU it is
        that of float32 for both dtypes.
    """
    size = size or (8_192 if has_gpu() else 2_048)
    dtypes = DTYPES if has_gpu() else DTYPES[:1]
    what = f"matrix product, {size:,} x {size:,}"
    rates: dict[str, float] = {}
    rows = []
    for dtype in dtypes:
        sides = {
            f"ours {dtype}": functools.partial(_our_product, size, dtype),
            f"PyTorch {dtype}": functools.partial(_torch_product, size, dtype),
        }
        for method, timing in interleave(sides, effort).items():
            if isinstance(timing, NotMeasured):
                rows.append(not_measured(timing, group=PEAK_GROUP, what=what, method=method))
                continue
            rate = 2 * size**3 / timing.median
            rates[dtype] = max(rates.get(dtype, 0), rate)
            values = {"ms": 1e3 * timing.median, "gflops_per_second": rate / 1e9}
            rows.append(Row(group=PEAK_GROUP, what=what, method=method, values=values))
    return {dtype: rates.get(dtype, rates["float32"]) for dtype in DTYPES}, rows


def ways(architecture: Architecture) -> dict[str, Way]:
    """All ways to take training steps of a network, by name."""
    calls = _GPU_CALLS if has_gpu() else 1
    found = {}
    for compiles, side in ((False, "PyTorch eager"), (True, "torch.compile")):
        for dtype in DTYPES:
            prepare = functools.partial(_their_step, architecture, dtype=dtype, compiles=compiles, steps=calls)
            found[f"{side} {dtype}"] = Way(prepare=prepare, dtype=dtype, steps=calls)
    for dtype in DTYPES:
        prepare = functools.partial(our_steps.make_step, architecture, dtype=dtype, calls=calls)
        found[f"ours {dtype}"] = Way(prepare=prepare, dtype=dtype, steps=calls)
    # In what each platform is for.
    dtype, chunk = ("bfloat16", platforms.current().steps_per_call) if has_gpu() else ("float32", _CPU_CHUNK)
    prepare = functools.partial(our_steps.make_step, architecture, dtype=dtype, calls=1, steps=chunk)
    single = f"ours {dtype}"
    found[f"{single}, {chunk} in one call"] = Way(prepare=prepare, dtype=dtype, steps=chunk, single=single)
    return found


def measure_steps(
    name: str,
    architecture: Architecture,
    *,
    peak: Mapping[str, float],
    effort: Effort,
    left_out: Callable[[str, str], str | None] = lambda name, way: None,
) -> Iterator[Row]:
    """The training step of one network, all ways in turns.

    Args:
        name: of the network.
        architecture: the network.
        peak: see `measure_peak`.
        effort: for each way.
        left_out: why a network is not measured in a way; None: it is.
    """
    what = describe(name, architecture)
    ways_there_are = ways(architecture)
    reasons = {way: left_out(name, way) for way in ways_there_are}
    works = {way: each.prepare for way, each in ways_there_are.items() if reasons[way] is None}
    timings = interleave(works, effort)
    seconds = {
        way: timing.median / ways_there_are[way].steps for way, timing in timings.items() if isinstance(timing, Timing)
    }
    for way, each in ways_there_are.items():
        timing = timings.get(way, NotMeasured(reasons[way]))
        if isinstance(timing, NotMeasured):
            yield not_measured(timing, group=GROUP, what=what, method=way)
            continue
        images = our_steps.CONFIG.batch_size / seconds[way]
        values = {
            "ms": 1e3 * seconds[way],
            "images_per_second": images,
            "share_of_peak": training_flops(architecture) * images / peak[each.dtype],
            "first_seconds": timing.first,
        }
        if REFERENCE in seconds:
            values["times_pytorch"] = seconds[way] / seconds[REFERENCE]
        if each.single in seconds:
            values["times_single"] = seconds[way] / seconds[each.single]
        yield Row(group=GROUP, what=what, method=way, values=values)


def _their_step(architecture: Architecture, *, dtype: ComputeDtype, compiles: bool, steps: int) -> Work:
    return torch_steps.make_step(
        architecture,
        our_steps.initial_state(architecture),
        our_steps.noise_batch(architecture.input_shape),
        config=our_steps.CONFIG,
        dtype=dtype,
        compiles=compiles,
        steps=steps,
    )


def _our_product(size: int, dtype: ComputeDtype) -> Work:
    factor = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = compiled(jnp.matmul, (factor, factor), programs=Programs())
    return lambda: jax.block_until_ready(product(factor, factor))


def _torch_product(size: int, dtype: ComputeDtype) -> Work:
    torch = torch_steps.require_torch()
    factor = torch.randn(size, size, device=torch_steps.torch_device()).to(getattr(torch, dtype))

    def work() -> None:
        torch.matmul(factor, factor)
        torch_steps.synchronize()

    return work
