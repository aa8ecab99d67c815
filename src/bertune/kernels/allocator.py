"""Memory of the process: freed pages and caches of compiled kernels."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def retain_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next step instead of giving it back to the system.

    It maps every tensor above 32 MB anew and unmaps it when it is freed, so each step pays for all its pages again: a
    factor of 3 on attention over long rows. Nothing is done where the C library is another one, or where the
    environment already sets MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_, or BERTUNE_KEEP_PAGES is 0.

    Returns:
        Whether it was done.
    """
    asked = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys()
    if sys.platform != "linux" or asked or os.environ.get("BERTUNE_KEEP_PAGES") == "0":
        return False
    try:
        library = ctypes.CDLL("libc.so.6")
        library.gnu_get_libc_version  # noqa: B018  (musl has none)
        # Before glibc 2.35 the first may be 32 MB at most. mallopt takes an int.
        keeps_large = library.mallopt(_M_MMAP_THRESHOLD, 2**30) or library.mallopt(_M_MMAP_THRESHOLD, 2**25)
        keeps_freed = library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        return False
    return bool(keeps_large and keeps_freed)


def limit_kernel_caches(capacity: int) -> None:
    """Bound how many compiled products oneDNN and torch keep; without effect once the process has computed something.

    They keep one for every shape they meet, 1,024 of some megabytes each, and ragged batches are of a new shape nearly every
    time: a long file cost a gigabyte. What the environment already sets stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(capacity))
