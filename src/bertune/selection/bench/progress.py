"""What a bench says while it runs: a line for each run and set; on a terminal how far the run is."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from bertune.console import Console, duration
from bertune.selection.bench.plan import BenchPlan, BenchRun
from bertune.selection.bench.process import last_lines
from bertune.selection.bench.records import RunRecord
from bertune.selection.bench.result import SetResult
from bertune.selection.bench.tables import interval_text
from bertune.selection.trial_text import score_text, span_text
from bertune.types import JSON

HISTORY = "history.jsonl"
SCORED = "is trained, and scored"


class BenchProgress:
    """Says how far a bench is.

    Args:
        plan: what is run.
        console: shows it.
    """

    def __init__(self, plan: BenchPlan, console: Console) -> None:
        self._plan, self.console = plan, console
        self.total = len(list(plan.runs()))
        self._current: BenchRun | None = None
        self._number, self._began, self._has_trained = 0, 0.0, False

    def begin(self, number: int, run: BenchRun) -> None:
        """Hear that a run begins."""
        self._number, self._current, self._began = number, run, time.monotonic()
        self._has_trained = False

    def end(self, number: int, run: BenchRun, record: RunRecord, *, before: bool) -> None:
        """Hear that a run has ended, now or in an earlier call."""
        self._current = None
        self.console.info(f"[{number}/{self.total}] {self._title(run)}: {record_text(record, before=before)}")

    def end_set(self, results: Sequence[SetResult]) -> None:
        """Hear that all runs of a set have ended."""
        for each in results:
            score = each.score()
            if score is None or (len(each.done) == 1 and len(self._plan.seeds) == 1):
                continue
            title = f"{each.data.name}, {each.variant.name}" if len(results) > 1 else each.data.name
            self.console.info(
                f"{title}: {score.metric} {score_text(score.spread.mean)}, 95 % interval "
                f"{interval_text(score.interval)} over {len(each.done)} seeds"
            )

    def lines(self, width: int, height: int) -> list[tuple[str, str]]:
        """Return how far the present run is, for a terminal."""
        del height
        run = self._current
        if run is None:
            return []
        seconds = duration(time.monotonic() - self._began)
        position = position_text(run.folder)
        self._has_trained = self._has_trained or position == SCORED
        position = SCORED if self._has_trained else position  # its folder may be gone already
        return [(f"[{self._number}/{self.total}] {self._title(run)}: {position}, {seconds}"[:width], "bold")]

    def _title(self, run: BenchRun) -> str:
        return run.title if len(self._plan.variants) > 1 else f"{run.data.name}, seed {run.seed}"


def record_text(record: RunRecord, *, before: bool = False) -> str:
    """Write what a run came to in one line."""
    if not record.is_done:
        return f"failed: {record.message}"
    parts = [
        f"{s.main_metric} {score_text(s.main_value)}" for s in [record.scores.get("dev")] if s is not None
    ]
    parts += [f"test {score_text(s.main_value)}" for s in [record.scores.get("test")] if s is not None]
    if before:
        return ", ".join([*parts, "done before"])
    if math.isfinite(record.train_seconds):
        parts.append(span_text(record.train_seconds))
    speed, memory = record.summary.get("rows_per_s"), record.summary.get("peak_memory_gb")
    parts += [f"{speed:.0f} rows/s"] if speed else []
    parts += [f"{memory:.2f} GB"] if memory else []
    parts += ["went on after a stop"] if record.resumed else []
    return ", ".join([*parts, record.unlearnt] if record.unlearnt else parts)


def position_text(folder: Path) -> str:
    """Say how far a run is, by the last line of its history."""
    events: list[JSON] = []
    for line in last_lines(folder / HISTORY):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        events += [event] if isinstance(event, dict) and event.get("event") == "train" else []
    if not events:
        return "reads and prepares" if not (folder / HISTORY).is_file() else "begins"
    last = events[-1]
    left = last.get("eta_s")
    if left == 0:
        return SCORED
    rest = f", {duration(left)} to go" if isinstance(left, int | float) else ""
    return f"step {last.get('step')}, epoch {last.get('epoch', 0):.2f}{rest}"
