"""Where the record of a run goes: the screen, history.jsonl, and trackers through accelerate."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertune.config.schema import RunConfig
from bertune.console import Console, duration
from bertune.distributed import rank
from bertune.errors import ConfigError, MissingExtra, TrainingError, did_you_mean
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


class History:
    """Hears of progress and passes it on; of several processes the first one writes.

    Args:
        folder: where history.jsonl is.
        run: the settings.
        accelerator: passes figures on to trackers.
        talk: the screen.
        since: the step from which a run goes on; what history.jsonl has of later ones is of steps that are done again.
        settled: whether the evaluation of that step was made.
    """

    def __init__(
        self, folder: Path, run: RunConfig, accelerator: Accelerator, talk: Console, since: int = 0, *, settled: bool = True
    ) -> None:
        self.talk = talk
        self.path = folder / "history.jsonl"
        before = [e for e in _lines_until(self.path, since) if settled or e["step"] < since or e["what"] not in {"dev", "epoch"}]
        self.evaluations: list[JSON] = [{k: v for k, v in e.items() if k not in {"what", "seconds"}} for e in before if e["what"] == "dev"]
        for evaluation in self.evaluations:
            evaluation |= {name: math.nan for name, value in evaluation.items() if value is None}
        self._file = None
        if rank() == 0:
            part = self.path.with_name(f"{self.path.name}.part")
            part.write_text("".join(_text(line) for line in before), encoding="utf-8")
            part.replace(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        self._began = time.perf_counter() - (before[-1]["seconds"] if before else 0.0)
        self._accelerator = accelerator if run.log.trackers else None
        if self._accelerator is not None:
            # TensorBoard then forgets what an earlier start has told of steps that are done again.
            forgetting = {"tensorboard": {"purge_step": since + 1}}
            self._accelerator.init_trackers("bertune", config=_flat(run.model_dump()), init_kwargs=forgetting)

    def record(self, what: str, values: JSON) -> None:
        """Pass one event on."""
        known = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}  # JSON has no NaN
        line = {"what": what, **known, "seconds": round(time.perf_counter() - self._began, 3)}
        self._write(line)
        if what == "trouble":
            self.talk.say(f"trouble: {values['message']}")
            return
        if self._accelerator is not None:
            numbers = {f"{what}/{k}": float(v) for k, v in values.items() if isinstance(v, int | float) and k != "step"}
            self._accelerator.log(numbers, step=values["step"])
        if what == "train":
            self.talk.say(_progress_line(values))
        elif what == "dev":
            self.evaluations.append(values)
            self.talk.say(_dev_line(values))

    def _write(self, line: JSON) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_text(line))
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written: {error.strerror or error}; checkpoints are as they were") from None

    def tick(self, step: int, total: int) -> None:
        """Move the bar."""
        self.talk.tick(step)

    def close(self) -> None:
        """Write out what trackers and files still hold."""
        if self._file is not None:
            with suppress(OSError):  # what could not be written has been said
                self._file.close()
        if self._accelerator is not None:
            for tracker in self._accelerator.trackers:  # `end_training` would end the group of processes as well
                tracker.finish()

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


def _text(line: JSON) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _lines_until(path: Path, step: int) -> list[JSON]:
    """Return what a history has up to a step; a last line that was cut off is of a later one."""
    if not step or not path.is_file():
        return []
    found = []
    for text in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(text.decode("utf-8"))
        except ValueError:
            break
        if line["step"] <= step:
            found.append(line)
    return found


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
