"""Translates files of earlier formats when they are read.

| format | written by | what differs |
|---|---|---|
| 1 | 0.1 | settings, weights inside checkpoints and fields of the training progress have other names |

Weights of saved folders need no translation: every format has transformers' names there.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bertune.inference.fingerprint import FORMAT_1_PARAMETERS, rename_parameter
from bertune.types import JSON

PROGRESS = {
    "position": "batches_done",
    "since_log": "loss_since_log",
    "since_epoch": "loss_since_epoch",
    "best": "best_score",
    "stale": "evals_without_gain",
    "reference": "reference_score",
    "told": "last_logged_step",
    "settled": "last_completed_step",
    "cuts": "oom_splits",
    "skipped": "nonfinite_steps",
}
"""Fields of `bertune.training.state.Progress`: in format 1, and today."""


def upgrade_training_state(tensors: dict[str, Tensor], values: JSON) -> tuple[dict[str, Tensor], JSON]:
    """Return the tensors and values of a checkpoint's state under today's names.

    A state of today's format stays as it is.
    """
    if "settled" not in values["progress"]:
        return tensors, values
    progress: dict[str, Any] = {PROGRESS.get(name, name): value for name, value in values["progress"].items()}
    renamed = {rename_parameter(name, FORMAT_1_PARAMETERS): tensor for name, tensor in tensors.items()}
    return renamed, {**values, "progress": progress}
