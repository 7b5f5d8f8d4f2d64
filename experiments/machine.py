"""The machine and the software that numbers depend on."""

import contextlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path

import jax

from eigen_jax import surroundings

_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
