"""What glibc's allocator keeps of freed memory: for a process that makes large arrays now and then, and for years."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT = 8 << 20  # at the top of the heap: what a request frees is not mapped again for the next one
LARGE = 512 << 10  # a column of 200,000 items; what a request makes is smaller


def give_back_large_blocks() -> None:
    """Blocks over `LARGE` bytes are always mapped by themselves, so that they return to the system when they are freed.
    Left alone, glibc raises that limit to 32 MB as it sees such blocks freed, and what they leave stays.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, KEPT), (M_ARENA_MAX, 2)):
            if hasattr(libc, "mallopt"):
                libc.mallopt(parameter, value)


def give_back_free_memory() -> None:
    """All that is free now. Milliseconds: for the end of a start, not for a request."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
