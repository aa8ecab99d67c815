"""How long training alone takes, and what it gets done in that time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bertune.data.batching import num_batches
from bertune.types import JSON

if TYPE_CHECKING:
    from bertune.training.step import TrainStep


class Clock:
    """Measures training alone: evaluation and saving are not counted, nor what was done before a run went on."""

    def __init__(self, work: TrainStep) -> None:
        self.work = work
        self.seconds, self.rows, self.tokens = 0.0, 0, 0
        self._started = time.perf_counter()
        self._line = (0.0, 0, 0, work.state.progress.step)

    def count(self, rows: list[int]) -> None:
        """Take in a finished step."""
        self.rows += len(rows)
        self.tokens += int(self.work.rows.lengths[rows].sum())

    def paused(self) -> Any:
        """Return a context whose time is not counted."""
        return _Pause(self)

    def stop(self) -> None:
        """Add the time since the clock last ran."""
        now = time.perf_counter()
        self.seconds += now - self._started
        self._started = now

    def start(self) -> None:
        """Run again from now."""
        self._started = time.perf_counter()

    def line(self) -> JSON:
        """Return one line of progress since the last one."""
        self.stop()
        progress = self.work.state.progress
        seconds, rows, tokens, step = self._line
        spent = max(self.seconds - seconds, 1e-9)
        done = max(progress.step - step, 1)
        self._line = (self.seconds, self.rows, self.tokens, progress.step)
        loss, progress.since_log = progress.since_log.value, type(progress.since_log)()
        steps_per_epoch = num_batches(len(self.work.rows), self.work.config.batch_size)
        return {
            "step": progress.step,
            "epoch": round(progress.step / steps_per_epoch, 4),
            "loss": loss,
            "learning_rate": max(group["lr"] for group in self.work.state.optimizer.param_groups),
            "rows_per_s": (self.rows - rows) / spent,
            "tokens_per_s": (self.tokens - tokens) / spent,
            "eta_s": (self.work.total - progress.step) * spent / done,
        }


class _Pause:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __enter__(self) -> None:
        self.clock.stop()

    def __exit__(self, *_: object) -> None:
        self.clock.start()
