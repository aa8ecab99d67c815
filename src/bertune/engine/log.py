"""Where the record of a run goes: the screen, history.jsonl, and trackers through accelerate."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertune.config import RunConfig
from bertune.errors import ConfigError, MissingExtra, did_you_mean
from bertune.talk import Talk, duration
from bertune.types import JSON

if TYPE_CHECKING:
    from accelerate import Accelerator

TRACKERS = {
    "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "comet_ml": "comet_ml", "aim": "aim",
    "clearml": "clearml", "dvclive": "dvclive", "swanlab": "swanlab", "trackio": "trackio",
}  # fmt: skip
"""Trackers that accelerate knows, and the package of each."""


def check_trackers(names: list[str]) -> None:
    """Refuse trackers that do not exist or are not installed; accelerate alone would leave them out in silence.

    Raises:
        ConfigError: no such tracker.
        MissingExtra: its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"log.trackers: no tracker {name!r}{did_you_mean(name, TRACKERS)}; known: {', '.join(TRACKERS)}")
        if importlib.util.find_spec(TRACKERS[name]) is None:
            if name == "tensorboard":
                raise MissingExtra(name, "tensorboard", "log.trackers")
            raise ConfigError(f"log.trackers: the package of {name!r} is not installed; install it with: pip install {TRACKERS[name]}")


class RunLog:
    """Hears of progress and passes it on."""

    def __init__(self, folder: Path, run: RunConfig, accelerator: Accelerator, talk: Talk) -> None:
        self.talk = talk
        self.evaluations: list[JSON] = []
        self._file = (folder / "history.jsonl").open("w", encoding="utf-8")
        self._began = time.perf_counter()
        self._accelerator = accelerator if run.log.trackers else None
        if self._accelerator is not None:
            self._accelerator.init_trackers("bertune", config=_flat(run.model_dump()))

    def record(self, what: str, values: JSON) -> None:
        """Pass one event on."""
        known = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}  # JSON has no NaN
        line = {"what": what, **known, "seconds": round(time.perf_counter() - self._began, 3)}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        if self._accelerator is not None:
            numbers = {f"{what}/{k}": float(v) for k, v in values.items() if isinstance(v, int | float) and k != "step"}
            self._accelerator.log(numbers, step=values["step"])
        if what == "train":
            self.talk.say(_progress_line(values))
        elif what == "dev":
            self.evaluations.append(values)
            self.talk.say(_dev_line(values))

    def tick(self, step: int, total: int) -> None:
        """Move the bar."""
        self.talk.tick(step)

    def close(self) -> None:
        """Write out what trackers and files still hold."""
        self._file.close()
        if self._accelerator is not None:
            self._accelerator.end_training()

    def table(self) -> None:
        """Write one line for each evaluation."""
        if not self.evaluations:
            return
        without = {"dev_loss"} if math.isnan(self.evaluations[0]["dev_loss"]) else set()
        names = [k for k in self.evaluations[0] if k not in {"step", "best", *without}]
        rows = [
            [f"{e['step']}{' *' if e['best'] else '  '}", *(f"{e[n]:.2f}" if n == "epoch" else f"{e[n]:.4f}" for n in names)]
            for e in self.evaluations
        ]
        self.talk.table(["step  ", *(n.replace("_", " ") for n in names)], rows)


def _progress_line(v: JSON) -> str:
    return (
        f"step {v['step']:>5}  epoch {v['epoch']:5.2f}  loss {v['loss']:.4f}  rate {v['learning_rate']:.2e}  "
        f"{v['rows_per_s']:.0f} rows/s  {v['tokens_per_s']:.0f} tokens/s  {duration(v['eta_s'])} to go"
    )


def _dev_line(v: JSON) -> str:
    skipped = {"step", "epoch", "train_loss", "dev_loss", "best"}
    figures = "  ".join(f"{k} {x:.4f}" for k, x in v.items() if k not in skipped)
    loss = "" if math.isnan(v["dev_loss"]) else f"loss {v['dev_loss']:.4f}  "  # a task may have none for rows to be scored
    return f"dev at step {v['step']}  {loss}{figures}{'  (best so far)' if v['best'] else ''}"


def _flat(values: Any, above: str = "") -> dict[str, Any]:
    """Flatten nested settings to `section.name`, in types every tracker takes."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{above}{name}.")
        else:
            result[above + name] = value if isinstance(value, int | float | str | bool) else str(value)
    return result
