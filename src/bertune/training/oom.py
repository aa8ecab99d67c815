"""Out of memory: how it is recognised, and how a batch is then cut further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bertune.config.schema import TrainConfig
from bertune.errors import TrainingError
from bertune.training.state import Progress


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out.

    Of a CUDA GPU, of an Apple GPU, or of the processor.
    """
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def split_further(
    progress: Progress,
    config: TrainConfig,
    rows: list[int],
    lengths: Any,
    *,
    max_parts: int,
    reason: str | None,
    location_of: Callable[[int], str],
) -> str:
    """Halve the micro-batches from now on, and return what the user should know of it.

    Args:
        progress: its `oom_splits` is doubled.
        config: the settings of training.
        rows: the rows of the batch, as indices into the data set.
        lengths: tokens of every row of the data set.
        max_parts: into how many parts the batch can be cut at most.
        reason: what the allocator said in this process; None if memory ran out in another one.
        location_of: names a row by file and line.

    Raises:
        TrainingError: the batch cannot be cut any further.
    """
    if config.micro_batches * progress.oom_splits >= max_parts:
        longest = max(rows, key=lambda row: int(lengths[row]))
        raise TrainingError(
            f"out of memory for a single row: {reason}; the longest of this batch is {location_of(longest)} "
            "with "
            f"{int(lengths[longest])} tokens. Set data.max_length lower, or take a smaller encoder"
        )
    progress.oom_splits *= 2
    return (
        f"out of memory: {reason or 'in another process'}; the step is repeated in micro-batches half as "
        "large, and so are all later ones. "
        f"The batch stays the same; train.micro_batches={config.micro_batches * progress.oom_splits} does so "
        "from the start"
    )
