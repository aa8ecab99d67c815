"""The device and the precision of a computation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import torch

from bertune.config.schema import UsePrecision
from bertune.errors import ConfigError
from bertune.types import ComputePrecision, Numerics

FP32 = Numerics()


def choose_device(setting: str) -> torch.device:
    """Return the device to compute on.

    Args:
        setting: auto, cpu, cuda or mps.

    Raises:
        ConfigError: no such setting, or the device is not available.
    """
    if setting == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    if setting not in {"cpu", "cuda", "mps"}:
        raise ConfigError(f"device: {setting!r} is none of auto, cpu, cuda, mps")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[setting]:
        names = ", ".join(name for name, is_available in available.items() if is_available)
        raise ConfigError(f"device={setting}: this machine, or this build of torch, has none; found: {names}")
    return torch.device(setting)


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether the device has bf16 units. Elsewhere bf16 is emulated, at a fraction of fp32's speed."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = _cpu_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False


def _cpu_capabilities() -> Mapping[str, Any]:
    """Return the instruction sets that torch knows: name, and whether this processor has it."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # not in old torch


def has_fast_int8(device: torch.device) -> bool:
    """Tell whether a processor has int8 units. Elsewhere sums of two products may overflow."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    capabilities = _cpu_capabilities()
    return bool(capabilities.get("avx512_vnni") or capabilities.get("amx_int8"))


def choose_precision(setting: str, device: torch.device) -> tuple[ComputePrecision, str]:
    """Return the precision to compute in, and the reason.

    Raises:
        ConfigError: no such precision, fp16 without a CUDA GPU, or int8 on a device without int8 units.
    """
    if setting not in get_args(UsePrecision):
        raise ConfigError(f"precision: {setting!r} is none of {', '.join(get_args(UsePrecision))}")
    if setting == "int8" and not has_fast_int8(device):
        problem = f"precision int8 needs a processor with AVX512-VNNI or AMX; this {device.type} has neither"
        raise ConfigError(f"{problem}; use auto, fp32 or bf16")
    if setting == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"precision fp16 needs a CUDA GPU, this run is on {device.type}; use auto, fp32 or bf16"
        )
    if setting == "bf16" and not has_fast_bf16(device):
        return "bf16", f"as set, although this {device.type} only emulates it: it may be slower than fp32"
    if setting != "auto":
        return cast(ComputePrecision, setting), "as set"
    if has_fast_bf16(device):
        return "bf16", f"this {device.type} has units for it"
    return "fp32", f"this {device.type} has no units for bf16"
