"""How much memory this process has held at most."""

from __future__ import annotations

import sys


def peak_memory_gb(device: str) -> float:
    """Return the most memory held so far, in 10^9 bytes: of the GPU where one is used, else of the process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e9  # type: ignore[attr-defined, unused-ignore]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
