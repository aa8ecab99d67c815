"""Device, precision and launcher of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bertune.config.schema import RunConfig
from bertune.errors import ConfigError
from bertune.kernels.precision import choose_device, choose_precision
from bertune.training import history
from bertune.types import Numerics

if TYPE_CHECKING:
    from accelerate import Accelerator


def accelerator_of(run: RunConfig, out: Path) -> tuple[Accelerator, Numerics, str]:
    """Set up device and precision, and say why this one.

    Raises:
        ConfigError: the precision is not to be had.
    """
    from accelerate import Accelerator  # late: it takes a second, and prediction needs none
    from accelerate.state import AcceleratorState
    from accelerate.utils import AutocastKwargs

    history.check_trackers(run.log.trackers)
    device = choose_device(run.device)
    precision, why = choose_precision(run.train.precision, device)
    AcceleratorState._reset_state(reset_partial_state=True)  # or a second run in this process keeps the first one's precision
    accelerator = Accelerator(
        mixed_precision="fp16" if precision == "fp16" else "no",
        kwargs_handlers=[AutocastKwargs(enabled=False)],  # encoders cast by themselves; of fp16 only the loss scaling is wanted
        cpu=device.type == "cpu",
        log_with=run.log.trackers or None,
        project_dir=str(out) if run.log.trackers else None,
    )
    return accelerator, Numerics(precision, run.train.fast_dropout), why


def as_launched(run: RunConfig, note: Callable[[str], None]) -> RunConfig:
    """Take over what accelerate's launcher was told of a model in pieces.

    Args:
        run: the settings.
        note: hears what was taken over.

    Raises:
        ConfigError: what it was told is not there, and would be passed over in silence.
    """
    for name, what in {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}.items():
        if os.environ.get(name, "false").lower() in {"true", "1", "yes"}:
            raise ConfigError(
                f"the launcher's configuration asks for {what} ({name}={os.environ[name]}), which bertune does not use; launch with "
                "distributed_type MULTI_GPU (and use_cpu: true on processors) or with torchrun; train.shard=true keeps the model in pieces"
            )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in {"true", "1", "yes"}:
        os.environ["ACCELERATE_USE_FSDP"] = "false"  # bertune cuts the model itself
        note("the launcher's configuration asks for FSDP, so train.shard=true; its other settings of FSDP are not used")
        return run.model_copy(update={"train": run.train.model_copy(update={"shard": True})})
    return run
