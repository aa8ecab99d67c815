"""Losses and gradients that are not finite: which rows are the cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from bertune.data.dataset import EncodedDataset
from bertune.errors import listed
from bertune.heads.model import Model
from bertune.tasks.base.task import Task

ADVICE = (
    "the usual causes are a learning rate that is too high (train.learning_rate, options), fp16 (train.precision=bf16 or fp32), and rows "
    "that hold something odd; train.skip_nonfinite=N passes over up to N such steps"
)


@torch.no_grad()
def culprits(model: Model, task: Task, rows: EncodedDataset, places: Sequence[int], device: torch.device) -> list[int]:
    """Return those rows of a batch whose loss is not finite even alone and without dropout."""
    model.eval()
    found = []
    for place in places:
        batch = rows.batch([place], task.collate_target).to(device)
        if not math.isfinite(float(task.loss(model(batch), batch))):
            found.append(place)
    return found


def described(places: Sequence[int], place_of: Callable[[int], str]) -> str:
    """Name rows by file and line."""
    return listed([place_of(place) for place in places], 5)
