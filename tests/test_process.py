"""Memory: what was freed is used again, in a process of its own, and what images may take of a device's."""

import ctypes
import subprocess
import sys
from unittest.mock import Mock

import jax
import pytest

from eigen_jax.data import DataConfig, PixelImages, StreamedImages
from experiments import process
from experiments.settings import Machine, Settings

# 64 MiB, taken in a thread as JAX takes its working memory; a fault is a page that the kernel has to clear.
PROGRAM = """
import ctypes, resource, sys, threading
from experiments.process import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def take():
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(1 << 26)))
    ctypes.memset(block, 1, 1 << 26)
    libc.free(block)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print([faults() for _ in range(4)][-1])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_large_blocks_are_not_cleared_again():
    left, kept = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("leave", "keep")
    )
    assert left >= 1 << 10, "64 MiB, in pages of at most 64 KiB"
    assert kept < left / 10


@pytest.mark.parametrize(
    ("backend", "told", "options", "expected"),
    [
        ("cpu", None, {}, 100),  # a driver and two workers
        ("cpu", None, {"workers": 5}, 50),
        ("cpu", None, {"executor": "inline", "device_memory": 0.5}, 600),
        ("cpu", None, {"device_memory": 0.0}, 0),
        ("gpu", {"bytes_limit": 8_000}, {}, 1_000),  # a driver and a worker
        ("gpu", {"bytes_limit": 8_000}, {"worker_gpus": 0.3}, 500),
        ("gpu", {"bytes_limit": 8_000}, {"worker_gpus": 2.0, "workers": 7}, 1_000),
        ("gpu", None, {"executor": "inline"}, 2 << 30),
    ],
)
def test_images_have_a_share_of_the_memory_that_processes_share(monkeypatch, backend, told, options, expected):
    monkeypatch.setattr(process, "memory", lambda: 1_200)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_devices", lambda: [Mock(memory_stats=lambda: told)])
    assert process.device_bytes(Settings(machine=Machine(**options))) == expected


def test_data_of_more_than_the_share_are_streamed(tmp_path):
    data = DataConfig(name="digits", validation_size=200, preprocessing="standardize", cache_dir=tmp_path)
    for share, kept in ((0.25, PixelImages), (0.0, StreamedImages)):
        loaded = process.load_data(Settings(data=data, machine=Machine(device_memory=share)))
        assert isinstance(loaded.train_images, kept)
