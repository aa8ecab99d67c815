"""The peak memory of this process."""

from __future__ import annotations

import sys


def peak_memory_gb(device: str) -> float:
    """Return the peak memory so far in GB (10^9 bytes).

    Args:
        device: "cuda" for memory of the GPU that torch allocated; any other for memory of the process.
    """
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        info = psutil.Process().memory_info()
        return float(info.peak_wset) / 1e9  # type: ignore[attr-defined, unused-ignore]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
