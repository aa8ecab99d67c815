"""history.jsonl: every event of a run as a line of JSON, also across restarts."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from bertune.distributed import rank
from bertune.errors import ConfigError, TrainingError
from bertune.files import write_text
from bertune.training.listener import Listener
from bertune.types import JSON

HISTORY = "history.jsonl"
"""The file in the folder of a run."""


class History(Listener):
    """Writes the events of training; of several processes the first one writes.

    A run that goes on keeps the lines up to its step; later lines belong to steps that are repeated.

    Args:
        folder: the folder of the run.

    Attributes:
        evaluations: the record of each evaluation so far, those before a restart included.
        records: the `train` records so far, likewise.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HISTORY
        self.evaluations: list[JSON] = []
        self.records: list[JSON] = []
        self._warnings: set[tuple[int, str]] = set()
        self._file: IO[str] | None = None
        self._began = time.perf_counter()

    def on_start(self, step: int, total_steps: int, *, evaluated: bool = True) -> None:
        """Keep the lines of earlier starts up to `step`.

        Raises:
            ConfigError: the file cannot be written.
        """
        kept = [
            e
            for e in _lines_until(self.path, step)
            if evaluated or e["step"] < step or e["event"] not in {"dev", "epoch"}
        ]
        self.evaluations = [
            {k: v for k, v in e.items() if k not in {"event", "seconds"}} for e in kept if e["event"] == "dev"
        ]
        for evaluation in self.evaluations:
            evaluation |= {name: math.nan for name, value in evaluation.items() if value is None}
        self.records = [e for e in kept if e["event"] == "train"]
        self._warnings = {(e["step"], e["message"]) for e in kept if e["event"] == "warning"}
        self._began = time.perf_counter() - (kept[-1]["seconds"] if kept else 0.0)
        if rank():
            return
        try:
            write_text(self.path, "".join(_as_line(event) for event in kept))
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"out: {str(self.path.parent)!r} cannot be written: {error.strerror or error}"
            ) from None

    def on_log(self, record: JSON) -> None:
        """Write a `train` line."""
        self._add("train", record)
        self.records.append(record)

    def on_evaluate(self, record: JSON) -> None:
        """Write a `dev` line."""
        self._add("dev", record)
        self.evaluations.append(record)

    def on_epoch(self, record: JSON) -> None:
        """Write an `epoch` line."""
        self._add("epoch", record)

    def on_warning(self, step: int, message: str) -> None:
        """Write a `warning` line."""
        self._add("warning", {"step": step, "message": message})
        self._warnings.add((step, message))

    def has_warning(self, step: int, message: str) -> bool:
        """Tell whether a warning is written already, perhaps before a restart."""
        return (step, message) in self._warnings

    def _add(self, event: str, record: JSON) -> None:
        valid = {
            k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()
        }  # JSON has no NaN
        self._write({"event": event, **valid, "seconds": round(time.perf_counter() - self._began, 3)})

    def _write(self, event: JSON) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_as_line(event))
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"{self.path}: cannot be written: {error.strerror or error}; checkpoints are unchanged"
            ) from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):  # a failed write was reported already
                self._file.close()


def _as_line(event: JSON) -> str:
    return json.dumps(event, ensure_ascii=False) + "\n"


def _lines_until(path: Path, step: int) -> list[JSON]:
    """Return the events of a history up to a step. A last line that was cut off belongs to a later step."""
    if not step or not path.is_file():
        return []
    events = []
    for text in path.read_bytes().split(b"\n"):
        try:
            event = json.loads(text.decode("utf-8"))
        except ValueError:
            break
        if "what" in event:  # written by a version before 0.2
            event = {"event": event.pop("what"), **event}
        if event["step"] <= step:
            events.append(event)
    return events
