"""Memory of the process: freed pages, and caches of compiled kernels."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def retain_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next step instead of giving it back to the system.

    By default glibc maps each tensor above 32 MB and unmaps it when it is freed. Each step then pays again
    for all its pages, which makes attention over long rows 3 times as slow. The setting stays as it is where
    the C library is not glibc, where the environment sets MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_,
    and where BERTUNE_KEEP_PAGES is 0.

    Returns:
        Whether glibc took the setting.
    """
    set_by_user = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys()
    if sys.platform != "linux" or set_by_user or os.environ.get("BERTUNE_KEEP_PAGES") == "0":
        return False
    try:
        library = ctypes.CDLL("libc.so.6")
        library.gnu_get_libc_version  # noqa: B018  (musl has none)
        # Before glibc 2.35 the map threshold may be 32 MB at most. mallopt takes an int.
        keeps_large = library.mallopt(_M_MMAP_THRESHOLD, 2**30) or library.mallopt(_M_MMAP_THRESHOLD, 2**25)
        keeps_freed = library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        return False
    return bool(keeps_large and keeps_freed)


def limit_kernel_caches(capacity: int) -> None:
    """Limit how many compiled matrix products oneDNN and torch keep.

    They keep one for each shape, up to 1,024 of some megabytes each. Ragged batches have a new shape nearly
    every time, so a long file took a gigabyte. Limits that the environment sets stay. The call has no effect
    once the process has computed something.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(capacity))
