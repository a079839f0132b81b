"""Freed memory is kept for the next allocation, not given back to the system, which saves a part of every update."""

import ctypes

# The parameters of glibc's mallopt (malloc.h): their numbers, and what they are set to.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
VALUES = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28}


def keep_freed_memory() -> bool:
    """Make this process, and its forks, keep the memory they free.

    glibc maps every large block anew and gives it back when it is freed. An update of a language model on a CPU
    allocates the same activations and logits again and again, hundreds of megabytes, and the system fills each of their
    pages with zeros each time (``benchmarks/kept_memory.py``). The price is that the process stays as large as it once
    was.

    Returns:
        Whether it was done; False where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(parameter, value) for parameter, value in VALUES.items()])
