"""Which numbers to compute with."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any, cast, get_args

import torch

from bertune.config import UsePrecision
from bertune.errors import ConfigError
from bertune.types import ComputePrecision, Numerics

FP32 = Numerics()


def choose_device(setting: str) -> torch.device:
    """Return the device to compute on.

    Raises:
        ConfigError: the device asked for is not there.
    """
    if setting == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    if setting not in {"cpu", "cuda", "mps"}:
        raise ConfigError(f"device: {setting!r} is none of auto, cpu, cuda, mps")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[setting]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ConfigError(f"device={setting}: this machine, or this build of torch, has none; found: {found}")
    return torch.device(setting)


def computes_bf16(device: torch.device) -> bool:
    """Tell whether bf16 runs on units made for it, rather than emulated at a fraction of the speed of fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        abilities = _abilities()
        return bool(abilities.get("amx_bf16") or abilities.get("avx512_bf16"))
    return False


def _abilities() -> Mapping[str, Any]:
    """Return what torch knows of this processor: name and whether it has it."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def computes_int8(device: torch.device) -> bool:
    """Tell whether a processor multiplies bytes on units made for it. Elsewhere sums of two products may overflow."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    abilities = _abilities()
    return bool(abilities.get("avx512_vnni") or abilities.get("amx_int8"))


def choose_precision(setting: str, device: torch.device) -> tuple[ComputePrecision, str]:
    """Return the precision to compute in, and why.

    Raises:
        ConfigError: fp16 without a CUDA GPU, int8 without a processor that has units for it, or no such precision.
    """
    if setting not in get_args(UsePrecision):
        raise ConfigError(f"precision: {setting!r} is none of {', '.join(get_args(UsePrecision))}")
    if setting == "int8" and not computes_int8(device):
        problem = f"precision int8 needs a processor with AVX512-VNNI or AMX; this {device.type} has neither"
        raise ConfigError(f"{problem}; use auto, fp32 or bf16")
    if setting == "fp16" and device.type != "cuda":
        raise ConfigError(f"precision fp16 needs a CUDA GPU, this run is on {device.type}; use auto, fp32 or bf16")
    if setting == "bf16" and not computes_bf16(device):
        return "bf16", f"as asked, although this {device.type} only emulates it: expect it to be slower than fp32"
    if setting != "auto":
        return cast(ComputePrecision, setting), "as asked"
    if computes_bf16(device):
        return "bf16", f"this {device.type} has units for it"
    return "fp32", f"this {device.type} has no units for bf16"


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_pages() -> bool:
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


def bound_kernel_caches(most: int) -> None:
    """Bound how many compiled products oneDNN and torch keep; without effect once the process has computed something.

    They keep one for every shape they meet, 1,024 of some megabytes each, and ragged batches are of a new shape nearly every
    time: a long file cost a gigabyte. What the environment already sets stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(most))
