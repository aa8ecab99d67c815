"""Device and precision of the computation."""

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


def has_fast_bf16(device: torch.device) -> bool:
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


def has_fast_int8(device: torch.device) -> bool:
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
    if setting == "int8" and not has_fast_int8(device):
        problem = f"precision int8 needs a processor with AVX512-VNNI or AMX; this {device.type} has neither"
        raise ConfigError(f"{problem}; use auto, fp32 or bf16")
    if setting == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"precision fp16 needs a CUDA GPU, this run is on {device.type}; use auto, fp32 or bf16"
        )
    if setting == "bf16" and not has_fast_bf16(device):
        return (
            "bf16",
            f"as asked, although this {device.type} only emulates it: expect it to be slower than fp32",
        )
    if setting != "auto":
        return cast(ComputePrecision, setting), "as asked"
    if has_fast_bf16(device):
        return "bf16", f"this {device.type} has units for it"
    return "fp32", f"this {device.type} has no units for bf16"
