"""Devices: whether there are any, and how each kind trains fastest: the choices that were made by measurement.

None of the choices changes what is computed, beyond the rounding of float32.
`python -m experiments.benchmark` measures what they are worth.
"""

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import jax

from eigen_jax.errors import EigenError

_GPUS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of NVIDIA's driver, of Windows's, of AMD's
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_CHOOSING = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES")  # variables that choose devices


class PlatformError(EigenError):
    """The environment asks for devices that JAX does not find."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Platform:
    """How to use one kind of device."""

    states_gradients: bool  # whether convolutions state their gradients, or JAX derives them
    steps_per_call: int  # training steps that one call of a compiled program takes
    # Of XLA, for training and evaluation, and those that are others where several devices share each batch.
    compiler_options: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    sharing_options: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    # For a program of many small operations that runs once a generation: compiled fast, and run no faster than needed.
    brief_options: Mapping[str, int] = dataclasses.field(default_factory=dict)


CPU = Platform(
    states_gradients=True,
    steps_per_call=1,
    # What YNNPACK gets: sums and matrix products, without what stands around these, and not convolutions, which by
    # default it gets as well and computes half as fast.
    compiler_options={
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    },
    brief_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)
GPU = Platform(
    states_gradients=False,
    steps_per_call=50,
    # Half the CPU time of compiling, and steps that take as long: nothing but convolutions is compiled in several ways
    # to see which is faster, and nothing reordered to hide transfers between GPUs, which one alone has none of.
    compiler_options={
        "xla_gpu_experimental_enable_fusion_autotuner": False,
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_enable_latency_hiding_scheduler": False,
    },
    sharing_options={"xla_gpu_enable_latency_hiding_scheduler": True},
)


def current() -> Platform:
    """The platform of the default device."""
    return CPU if jax.default_backend() == "cpu" else GPU


def return_freed_memory() -> None:
    """Gives the system back what the process has freed, where its C library can: by itself, it may keep most of it."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def memory() -> int:
    """Bytes of memory that this process may have: all of the machine, or what its control groups are bounded to."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if not kinds:  # version 2
                group, name = _CGROUPS / path.lstrip("/"), "memory.max"
            elif "memory" in kinds.split(","):
                group, name = _CGROUPS / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
            else:
                continue
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # "max" is no bound
                    bounds.append(int((folder / name).read_text()))
    return min(bounds)


def host() -> tuple[jax.Device, Mapping[str, int]]:
    """Where a program of many small operations takes least, and how it is compiled: the CPU, where JAX has it."""
    try:
        return jax.local_devices(backend="cpu")[0], CPU.brief_options
    except RuntimeError:
        return jax.local_devices()[0], GPU.brief_options


def check_devices_are_there() -> None:
    """Raises a PlatformError where JAX finds no device to compute on, for which it looks once, at the first call."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second without a word, where no GPU answers
        reason = (str(error).splitlines() or [""])[0].partition(" (set JAX_PLATFORMS")[0]
        asked = " and ".join(f"{name}={os.environ[name]}" for name in _CHOOSING if name in os.environ)
        raise PlatformError(
            f"JAX finds no device{asked and f' with {asked}'}{reason and f' ({reason})'};"
            f" {asked and 'leave that out, or '}set JAX_PLATFORMS=cpu to compute on the CPU"
        ) from None


def finds_gpu() -> bool:
    """Whether JAX is going to compute on a GPU, told before it looks for its devices, which it does only once.

    There must be a device of a GPU's driver and a plugin of JAX, and no variable that hides one of them.
    """
    asked = (jax.config.values["jax_platforms"] or os.environ.get("JAX_PLATFORM_NAME") or "").partition(",")[0]
    if asked == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    has_plugin = importlib.metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("jax_plugins")
    return bool(has_plugin) and any(Path(device).exists() for device in _GPUS)
