"""Memory that was freed is used again, in a process of its own: the setting lasts as long as the process."""

import ctypes
import subprocess
import sys

import pytest

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
