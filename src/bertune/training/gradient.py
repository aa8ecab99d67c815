"""The gradient of a batch, in micro-batches. There are two strategies, since there are two kinds of losses.

Where the loss of a row depends on this row alone, micro-batches are rows: their gradients add up
(`PlainGradient`). Where it depends on the other rows of the batch, as for in-batch negatives, micro-batches
are texts: their vectors are computed first, then the loss, then each part again (`CachedGradient`). Either
way the result is the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from bertune.config.schema import TrainConfig
from bertune.data.batching import micro_batches
from bertune.errors import TrainingError
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.training.rng import RngState
from bertune.types import Batch


class GradientStrategy(Protocol):
    """How the gradient of a batch is computed in parts."""

    rows_are_independent: ClassVar[bool]
    """Whether the loss of a row can be computed without the other rows."""

    def micro_batches(self, rows: list[int], lengths: Any, oom_splits: int) -> list[list[int]]:
        """Cut the rows of a batch into those of each forward pass.

        Args:
            rows: indices into the data set.
            lengths: tokens of every row of the data set.
            oom_splits: how many times more parts than the settings ask for, since memory was short.
        """
        ...

    def backward(self, batch: Batch, count: float, oom_splits: int) -> Tensor:
        """Add the gradient of summed loss / `count` to the parameters.

        Return the summed loss, on the device.
        """
        ...


@dataclass(frozen=True)
class PlainGradient:
    """Forward and backward for each micro-batch of rows.

    Args:
        model: gets the gradient.
        task: gives the loss.
        config: how a batch is cut, and R-Drop.
        run_backward: `accelerator.backward`, which scales the loss in fp16.
    """

    rows_are_independent: ClassVar[bool] = True

    model: Model
    task: Task
    config: TrainConfig
    run_backward: Callable[[Tensor], None]

    def micro_batches(self, rows: list[int], lengths: Any, oom_splits: int) -> list[list[int]]:
        """Cut rows by number and by tokens; see `GradientStrategy`."""
        return split(rows, lengths, self.config, oom_splits)

    def backward(self, batch: Batch, count: float, oom_splits: int) -> Tensor:
        """Add the gradient of one micro-batch; see `GradientStrategy`.

        Source of R-Drop, the mean of two losses plus the distance of the two passes: Wu et al. 2021, arXiv
        2106.14448.
        """
        out = self.model(batch)
        loss = self.task.loss(out, batch)
        if self.config.r_drop:
            other = self.model(batch)
            mean_loss = (loss + self.task.loss(other, batch)) / 2
            loss = mean_loss + self.config.r_drop * self.task.divergence(out, other)
        self.run_backward(loss / count)
        return loss.detach()


@dataclass(frozen=True)
class CachedGradient:
    """Gradient caching for losses over a whole batch, in the memory of one part of its texts.

    First the vectors of all texts, without what a gradient needs. Then the loss, and its gradient with
    respect to the vectors. Then each part again with the same dropout, through which that gradient flows
    back.

    Args:
        plain: does the work where the texts need no cut.

    Source: Gao et al. 2021 (GradCache), arXiv 2101.06983.
    """

    rows_are_independent: ClassVar[bool] = False

    plain: PlainGradient

    def micro_batches(self, rows: list[int], lengths: Any, oom_splits: int) -> list[list[int]]:
        """Return the rows as they are: their texts are cut in `backward`.

        Every process has one batch, even an empty one.
        """
        return [rows]

    def text_parts(self, batch: Batch, oom_splits: int) -> list[list[int]]:
        """Return the texts of each forward pass, as numbers within the batch."""
        lengths = np.array(batch.ragged.lengths)
        return split(list(range(len(lengths))), lengths, self.plain.config, oom_splits)

    def backward(self, batch: Batch, count: float, oom_splits: int) -> Tensor:
        """Add the gradient of the whole batch, part by part; see `GradientStrategy`.

        Raises:
            TrainingError: the rows are single texts that cannot be compared.
        """
        parts = self.text_parts(batch, oom_splits)
        if len(parts) == 1:
            return self.plain.backward(batch, count, oom_splits)
        if batch.pair_index is None:
            raise TrainingError("a loss over the rows of a batch needs rows of several texts")
        model, device = self.plain.model, batch.ragged.offsets.device
        ragged = [batch.ragged.slice_rows(part[0], part[-1] + 1) for part in parts]
        rng_states, vectors = [], []
        with torch.no_grad():
            for part in ragged:
                rng_states.append(RngState.capture(device))
                vectors.append(model.vectors(part))
        # A process may have no row of a small batch.
        no_vectors = torch.zeros(0, model.embedding_dim, device=device)
        cached = torch.cat(vectors or [no_vectors]).requires_grad_()
        loss = self.plain.task.loss(model.compare(cached, batch.pair_index), batch)
        self.plain.run_backward(loss / count)
        if cached.grad is not None:  # a loss that is constant gives none
            gradients = torch.split(cached.grad, [len(part) for part in parts])
            for part, state, gradient in zip(ragged, rng_states, gradients, strict=True):
                state.restore(device)
                torch.autograd.backward(model.vectors(part), gradient)
        return loss.detach()


def split(rows: list[int], lengths: Any, config: TrainConfig, oom_splits: int) -> list[list[int]]:
    """Cut rows, or texts, as the settings of micro-batches say, and further where memory was short."""
    if not rows:
        return []
    max_tokens = config.micro_batch_tokens
    tokens = max(1, max_tokens // oom_splits) if max_tokens else None
    return micro_batches(rows, lengths, config.micro_batches * oom_splits, tokens)


def gradient_strategy(
    model: Model, task: Task, config: TrainConfig, run_backward: Callable[[Tensor], None]
) -> GradientStrategy:
    """Return the strategy that the task's loss needs."""
    plain = PlainGradient(model, task, config, run_backward)
    return CachedGradient(plain) if task.uses_whole_batch else plain
