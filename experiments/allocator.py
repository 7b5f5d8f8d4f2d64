"""The C library's allocator, set for programs that take and give back large blocks at every step."""

import ctypes

# Of malloc.h in glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_KEPT_BYTES = 1 << 30

# The same, as glibc reads it at the start of a process: for processes that this one starts.
KEPT_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
}


def keep_freed_memory() -> bool:
    """Lets the process reuse memory that it freed, in place of handing it back to the system.

    A training step on a CPU takes its working memory anew each time. By default, glibc maps blocks
    that large for each call and unmaps them afterwards, and the kernel clears every page again: a
    fifth of the time of a step. It keeps them in one arena here.

    Returns:
        Whether the C library could be told; without glibc, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: _KEPT_BYTES, _M_TRIM_THRESHOLD: _KEPT_BYTES}
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings.items())
