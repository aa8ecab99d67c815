"""What goes wrong inside a step, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from bertune.data.batching import EncodedRows
from bertune.errors import listed
from bertune.model import Model
from bertune.tasks.task import Task

ADVICE = (
    "the usual causes are a learning rate that is too high (train.learning_rate, options), fp16 (train.precision=bf16 or fp32), and rows "
    "that hold something odd; train.skip_nonfinite=N passes over up to N such steps"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory was short: of a GPU, of Apple's, or of the processor."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text or "not enough memory" in text)


@torch.no_grad()
def culprits(model: Model, task: Task, rows: EncodedRows, places: Sequence[int], device: torch.device) -> list[int]:
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
