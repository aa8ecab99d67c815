"""Losses and gradients that are not finite.

Found before they reach the weights, and explained by file and line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bertune.distributed import num_processes
from bertune.errors import TrainingError, listed
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.training.state import TrainState
from bertune.types import Batch

ADVICE = (
    "usual causes: a learning rate that is too high (train.learning_rate, options), fp16 "
    "(train.precision=bf16 or fp32), and rows with "
    "odd content; train.max_nonfinite_steps=N skips up to N such steps"
)


class FiniteCheck:
    """Tells before each optimizer step whether loss and gradient are finite.

    Args:
        model: on its device.
        task: gives the loss of single rows, to find the cause.
        get_batch: returns rows as the batch of a step, whose number counts from 0.
        state: counts the skipped steps.
        total_steps: steps of the run, for messages.
        max_skipped: how many such steps are skipped before the run ends.
        rows_are_independent: whether a row has a loss of its own.
        location_of: names a training row by file and line.
        warn: hears of each skipped step.
    """

    def __init__(  # noqa: PLR0913  (what an explanation needs)
        self,
        model: Model,
        task: Task,
        get_batch: Callable[[list[int], int], Batch],
        state: TrainState,
        *,
        total_steps: int,
        max_skipped: int,
        rows_are_independent: bool,
        location_of: Callable[[int], str],
        warn: Callable[[str], None],
    ) -> None:
        self.model, self.task, self.get_batch, self.state = model, task, get_batch, state
        self.total_steps, self.max_skipped, self.rows_are_independent = (
            total_steps,
            max_skipped,
            rows_are_independent,
        )
        self.location_of, self.warn = location_of, warn
        self._device = next(model.parameters()).device
        self._deferred: tuple[int, list[int], Tensor] | None = None

    def allows(self, rows: list[int], watched: Tensor, all_finite: bool) -> bool:
        """Tell whether the weights may change.

        With one GPU the answer for a step comes a step later, so the host need not wait.

        Args:
            rows: the rows of the batch.
            watched: a number that is finite if loss and gradient are.
            all_finite: whether the losses of all processes are finite.

        Raises:
            TrainingError: it is not finite, and no such step may be skipped any more.
        """
        step = self.state.progress.step + 1
        if self._device.type == "cpu" or num_processes() > 1 or self.max_skipped:
            return self._is_finite(step, rows, watched, all_finite)
        self.check_deferred()
        self._deferred = (step, rows, watched)
        return True

    def check_deferred(self) -> None:
        """Check the last step, if that was deferred.

        Raises:
            TrainingError: its loss or gradient was not finite.
        """
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            self._is_finite(*deferred)

    def _is_finite(self, step: int, rows: list[int], watched: Tensor, all_finite: bool = True) -> bool:
        if all_finite and math.isfinite(float(watched)):
            return True
        progress = self.state.progress
        self.state.optimizer.zero_grad()
        message = (
            f"loss or gradient is not finite at step {step} of {self.total_steps}; "
            f"the batch: {locations(rows, self.location_of)}; {self._cause(rows, step)}"
        )
        if progress.nonfinite_steps >= self.max_skipped:
            raise TrainingError(f"{message}; {ADVICE}")
        progress.nonfinite_steps += 1
        self.warn(
            f"{message}; skipped, number {progress.nonfinite_steps} of {self.max_skipped} "
            "(train.max_nonfinite_steps)"
        )
        return False

    def _cause(self, rows: list[int], step: int) -> str:
        if num_processes() > 1 or not self.rows_are_independent:
            return "its rows cannot be checked one by one"
        bad = nonfinite_rows(
            self.model, self.task, lambda row: self.get_batch([row], step - 1).to(self._device), rows
        )
        if not bad:
            return "none of its rows alone is the cause"
        return (
            "every row has such a loss, so the weights are the cause"
            if len(bad) == len(rows)
            else f"cause: {locations(bad, self.location_of)}"
        )


@torch.no_grad()
def nonfinite_rows(
    model: Model, task: Task, batch_of: Callable[[int], Batch], rows: Sequence[int]
) -> list[int]:
    """Return the rows of a batch whose loss is not finite even alone and without dropout."""
    model.eval()
    bad = []
    for row in rows:
        batch = batch_of(row)
        if not math.isfinite(float(task.loss(model(batch), batch))):
            bad.append(row)
    return bad


def locations(rows: Sequence[int], location_of: Callable[[int], str]) -> str:
    """Name rows by file and line."""
    return listed([location_of(row) for row in rows], 5)
