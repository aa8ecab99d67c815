"""Time of training alone, and the rows and tokens that were trained in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bertune.config.auto_rates import number
from bertune.data.batching import num_batches
from bertune.training.step import TrainStep
from bertune.types import JSON


class Throughput:
    """Measures training alone: evaluation and saving do not count, nor do steps before a resume.

    Args:
        train_step: what is measured.
    """

    def __init__(self, train_step: TrainStep) -> None:
        self._train_step = train_step
        self.seconds, self.rows, self.tokens = 0.0, 0, 0
        self._started = time.perf_counter()
        self._at_last_record = (0.0, 0, 0, train_step.state.progress.step)

    def count(self, rows: list[int]) -> None:
        """Count the rows of a finished step."""
        self.rows += len(rows)
        self.tokens += int(self._train_step.dataset.lengths[rows].sum())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the block."""
        self._stop()
        try:
            yield
        finally:
            self._started = time.perf_counter()

    def _stop(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._started
        self._started = now

    def record(self) -> JSON:
        """Return the figures since the last record.

        Loss, learning rate, rows and tokens per second, seconds to go.
        """
        self._stop()
        train_step, progress = self._train_step, self._train_step.state.progress
        seconds, rows, tokens, step = self._at_last_record
        elapsed = max(self.seconds - seconds, 1e-9)
        steps = max(progress.step - step, 1)
        self._at_last_record = (self.seconds, self.rows, self.tokens, progress.step)
        loss, progress.loss_since_log = progress.loss_since_log.value, type(progress.loss_since_log)()
        steps_per_epoch = num_batches(len(train_step.dataset), train_step.config.batch_size)
        return {
            "step": progress.step,
            "epoch": round(progress.step / steps_per_epoch, 4),
            "loss": loss,
            "learning_rate": self._encoder_rate(),
            "rows_per_s": (self.rows - rows) / elapsed,
            "tokens_per_s": (self.tokens - tokens) / elapsed,
            "eta_s": (train_step.total_steps - progress.step) * elapsed / steps,
        }

    def _encoder_rate(self) -> float:
        """Return the learning rate that the top of the encoder has now; the head's may be another one."""
        group = self._train_step.state.optimizer.param_groups[0]
        factor = group["lr"] / group["peak_lr"]
        return number(self._train_step.config, "learning_rate") * float(factor)
