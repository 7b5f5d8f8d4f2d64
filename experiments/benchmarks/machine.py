"""What the numbers depend on."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax

_VERSIONED = ("eigen_jax", "jax", "jaxlib", "flax", "optax", "numpy", "torch")


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, str | int]:
    """The processors."""
    return {"cpu": _cpu_model(), "cores": available_cores(), "device": jax.devices()[0].device_kind}


def describe_versions() -> dict[str, str]:
    """Of the interpreter and of the packages that are installed."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def has_gpu() -> bool:
    """Whether JAX computes on something else than the CPU."""
    return jax.default_backend() != "cpu"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
