"""What the runs of a bench came to, on disk: a record of each, and its predictions of the dev rows."""

from __future__ import annotations

import gzip
import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertune.errors import DataError
from bertune.files import fsync, read_json_object, unique_part_of, write_text
from bertune.selection.parts import prediction_from_json, prediction_to_json, scores_from_json
from bertune.selection.spread import without_nan
from bertune.tasks.base.baselines import compare_with_baseline
from bertune.types import JSON, Prediction, Scores

RECORD_FORMAT = 1


@dataclass(frozen=True)
class RunRecord:
    """What a run came to.

    Attributes:
        message: why it failed; empty if it is done.
        scores: of the best checkpoint by split.
        summary: steps, seconds, speed and memory, as scores.json has them in `run`.
        data: rows and a hash of each split.
        resumed: whether it went on after a stop: `train_seconds` is of the last part alone then.
        wall_seconds: of its process, import and reading included; of the last part where it was resumed.
        machine: cores, device, precision, versions.
        notes: what a user should know.
    """

    message: str = ""
    scores: dict[str, Scores] = field(default_factory=dict)
    summary: JSON = field(default_factory=dict)
    data: JSON = field(default_factory=dict)
    resumed: bool = False
    wall_seconds: float = math.nan
    machine: JSON = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether it has scores."""
        return not self.message

    @property
    def unlearnt(self) -> str:
        """How its dev score fails to be better than one that needs no learning; empty where it is better."""
        return compare_with_baseline(self.scores["dev"]) if "dev" in self.scores else ""

    @property
    def train_seconds(self) -> float:
        """Seconds of training alone; of a resumed run by its speed, since it has not counted all of them."""
        seconds, speed = self.summary.get("train_seconds", math.nan), self.summary.get("rows_per_s", 0.0)
        if not self.resumed:
            return float(seconds)
        rows = self.summary.get("steps", 0) * self.summary.get("batch_size", 0)
        return rows / speed if rows and speed else math.nan

    def to_json(self) -> JSON:
        """Return it as JSON values."""
        return {
            "format": RECORD_FORMAT,
            "state": "done" if self.is_done else "failed",
            "message": self.message,
            "scores": {split: scores.to_json() for split, scores in self.scores.items()},
            "run": self.summary,
            "data": self.data,
            "resumed": self.resumed,
            "wall_seconds": round(self.wall_seconds, 3),
            "machine": self.machine,
            "notes": list(self.notes),
        }


def write_record(path: Path, record: RunRecord) -> None:
    """Write the record of a run; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(without_nan(record.to_json()), ensure_ascii=False, indent=1)
    write_text(path, text + "\n", durable=True)


def read_record(path: Path) -> RunRecord | None:
    """Return the record of a run; None where there is none, or none that can be read."""
    values = read_json_object(path)
    if values.get("format") != RECORD_FORMAT:
        return None
    seconds = values["wall_seconds"]
    return RunRecord(
        values["message"],
        {split: scores_from_json(scores) for split, scores in values["scores"].items()},
        values["run"],
        values["data"],
        values["resumed"],
        math.nan if seconds is None else seconds,
        values["machine"],
        tuple(values["notes"]),
    )


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions, a line each, compressed: values without probabilities and vectors.

    Raises:
        OSError: they cannot be written.
    """
    part = unique_part_of(path)
    with gzip.open(part, "wt", encoding="utf-8", compresslevel=5) as file:
        for prediction in predictions:
            values = prediction_to_json(prediction)
            kept = {
                name: values[name] for name in values if name not in {"confidence", "probabilities", "tags"}
            }
            file.write(json.dumps(without_nan(kept), ensure_ascii=False) + "\n")
    fsync(part)
    part.replace(path)


def read_predictions(path: Path) -> Sequence[Prediction]:
    """Read what `write_predictions` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    rest = {"confidence": None, "probabilities": None, "tags": None}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [prediction_from_json({**json.loads(line), **rest}) for line in file]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def machine_facts(versions: JSON, summary: JSON) -> JSON:
    """Return on what a run was computed.

    Args:
        versions: of packages, and what decides rounding; see `rounding_environment`.
        summary: of the run, with device and precision.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "device": summary.get("device"),
        "precision": summary.get("precision"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "platform": sys.platform,
        **versions,
    }
