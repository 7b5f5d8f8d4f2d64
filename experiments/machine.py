"""The machine and the software that numbers depend on."""

import contextlib
import importlib.metadata
import os
import platform
import re
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
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            cpu = found[1].strip()
    return {"cpu": cpu, "cores": cores(), "device": jax.devices()[0].device_kind}


def describe_versions() -> dict[str, str]:
    """Of the interpreter and of the packages that are installed."""
    versions = surroundings.describe()["versions"]
    del versions["device"]  # which is of the machine
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["torch"] = importlib.metadata.version("torch")
    return versions


def heading() -> str:
    return ", ".join(f"{name}: {value}" for name, value in {**describe_machine(), **describe_versions()}.items())
