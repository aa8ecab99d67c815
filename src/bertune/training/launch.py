"""Device, precision and launcher of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bertune.config.schema import RunConfig
from bertune.distributed import num_processes
from bertune.errors import ConfigError
from bertune.kernels.precision import choose_device, choose_precision
from bertune.training.trackers import check_trackers
from bertune.types import Numerics

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or sequence parallelism",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker's own kind of processes",
}
"""Switches of accelerate's launcher for what bertune does not do, and would ignore silently."""
_NOT_USED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        {"1"},
        "a step sees the train.batch_size rows you set; train.micro_batches cuts them to save memory",
    ),
    "ACCELERATE_MIXED_PRECISION": ({"no"}, "train.precision decides"),
    "ACCELERATE_DYNAMO_BACKEND": ({"no"}, "models are not compiled"),
}
"""Variables of the launcher without effect: the values that say nothing, and what decides instead."""


def check_environment(run: RunConfig) -> None:
    """Refuse trackers, a device or a precision that this machine does not have.

    Raises:
        ConfigError: one of them is not available.
        MissingExtra: the package of a tracker is not installed.
    """
    check_trackers(run.log.trackers)
    choose_precision(run.train.precision, choose_device(run.device))


def build_accelerator(run: RunConfig, out: Path) -> tuple[Accelerator, Numerics, str]:
    """Set up device and precision.

    Returns:
        The accelerator, the precision of the encoder, and why it was chosen.

    Raises:
        ConfigError: device or precision is not available.
    """
    from accelerate import Accelerator  # late: it takes a second, and prediction does not need it
    from accelerate.state import AcceleratorState
    from accelerate.utils import AutocastKwargs, GradientAccumulationPlugin

    device = choose_device(run.device)
    precision, reason = choose_precision(run.train.precision, device)
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # or a second run in this process keeps the precision of the first
    accelerator = Accelerator(
        mixed_precision="fp16" if precision == "fp16" else "no",
        kwargs_handlers=[
            AutocastKwargs(enabled=False)
        ],  # encoders cast by themselves; of fp16 only the loss scaling is used
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # or a variable would set it
        cpu=device.type == "cpu",
        log_with=run.log.trackers or None,
        project_dir=str(out) if run.log.trackers else None,
    )
    _check_device(run, accelerator, device)
    return accelerator, Numerics(precision, run.train.fast_dropout), reason


def _check_device(run: RunConfig, accelerator: Accelerator, device: torch.device) -> None:
    """Refuse a device or a number of processes that accelerate took from the environment against ours.

    Raises:
        ConfigError: names both, and the variables that accelerate reads.
    """
    if accelerator.device.type != device.type:
        variables = ("ACCELERATE_TORCH_DEVICE", "ACCELERATE_USE_CPU", "PJRT_DEVICE")
        found = ", ".join(f"{name}={os.environ[name]}" for name in variables if name in os.environ)
        raise ConfigError(
            f"device: bertune computes on {device.type} (device={run.device}), but accelerate has chosen "
            f"{accelerator.device.type} ({found or 'from what is installed'}); unset the variable, or set "
            f"device={accelerator.device.type} if bertune offers it"
        )
    if accelerator.num_processes != num_processes():
        raise ConfigError(
            f"accelerate counts {accelerator.num_processes} processes and bertune {num_processes()}; start "
            "them with torchrun or accelerate launch, which set RANK and WORLD_SIZE"
        )


def apply_launcher_settings(run: RunConfig, note: Callable[[str], None]) -> RunConfig:
    """Return the settings with what accelerate's launcher was told: the processor, and a sharded model.

    Args:
        run: the settings.
        note: hears what was taken over, and what is not used.

    Raises:
        ConfigError: the launcher asks for something that bertune does not have, and that would be ignored
            silently.
    """
    for variable, name in _REFUSED.items():
        if _is_true(variable):
            raise ConfigError(
                f"the launcher's configuration asks for {name} ({variable}={os.environ[variable]}), which "
                "bertune does not use; launch "
                "with distributed_type MULTI_GPU (and use_cpu: true on processors) or with torchrun; "
                "train.fsdp=true shards the model"
            )
    for variable, (neutral, instead) in _NOT_USED.items():
        value = os.environ.get(variable, "")
        if value and value.lower() not in neutral:
            note(f"{variable}={value}, as the launcher's configuration says, is not used: {instead}")
    if _is_true("ACCELERATE_USE_CPU") and run.device == "auto":
        note("the launcher's configuration asks for the processor, so device=cpu")
        run = run.model_copy(update={"device": "cpu"})
    if _is_true("ACCELERATE_USE_FSDP"):
        os.environ["ACCELERATE_USE_FSDP"] = "false"  # bertune shards the model itself
        note(
            "the launcher's configuration asks for FSDP, so train.fsdp=true; its other settings of FSDP are "
            "not used"
        )
        return run.model_copy(update={"train": run.train.model_copy(update={"fsdp": True})})
    return run


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in {"true", "1", "yes"}
