"""Device, precision and launcher of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bertune.config.schema import RunConfig
from bertune.errors import ConfigError
from bertune.kernels.precision import choose_device, choose_precision
from bertune.training.trackers import check_trackers
from bertune.types import Numerics

if TYPE_CHECKING:
    from accelerate import Accelerator


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
    from accelerate.utils import AutocastKwargs

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
        cpu=device.type == "cpu",
        log_with=run.log.trackers or None,
        project_dir=str(out) if run.log.trackers else None,
    )
    return accelerator, Numerics(precision, run.train.fast_dropout), reason


def apply_launcher_settings(run: RunConfig, note: Callable[[str], None]) -> RunConfig:
    """Return the settings with what accelerate's launcher was told about a sharded model.

    Args:
        run: the settings.
        note: hears what was taken over.

    Raises:
        ConfigError: the launcher asks for something that bertune does not have, and that would be ignored
            silently.
    """
    for variable, name in {
        "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
        "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    }.items():
        if _is_true(variable):
            raise ConfigError(
                f"the launcher's configuration asks for {name} ({variable}={os.environ[variable]}), which "
                "bertune does not use; launch "
                "with distributed_type MULTI_GPU (and use_cpu: true on processors) or with torchrun; "
                "train.fsdp=true shards the model"
            )
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
