"""The machine and the software that numbers depend on."""

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from eigen_jax import surroundings


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether JAX computes on something else than the CPU."""
    return jax.default_backend() != "cpu"


def describe_machine() -> dict[str, str | int]:
    """The processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor() or platform.machine()
    return {"cpu": cpu, "cores": cores(), "device": jax.devices()[0].device_kind}


def describe_versions() -> dict[str, str]:
    """Of the interpreter and of the packages that are installed."""
    versions = surroundings.describe()["versions"]
    del versions["device"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["torch"] = importlib.metadata.version("torch")
    return versions


def heading() -> str:
    """Machine and versions in one line."""
    return ", ".join(f"{name}: {value}" for name, value in {**describe_machine(), **describe_versions()}.items())
