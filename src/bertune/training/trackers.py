"""Experiment trackers (TensorBoard, Weights & Biases, MLflow, SwanLab ...) through accelerate."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from bertune.config.schema import RunConfig
from bertune.errors import ConfigError, MissingExtra, did_you_mean
from bertune.training.listener import Listener
from bertune.types import JSON

if TYPE_CHECKING:
    from accelerate import Accelerator

TRACKERS = {
    "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "comet_ml": "comet_ml", "aim": "aim",
    "clearml": "clearml", "dvclive": "dvclive", "swanlab": "swanlab", "trackio": "trackio",
}  # fmt: skip
"""Trackers that accelerate knows, and the package of each."""


def check_trackers(names: list[str]) -> None:
    """Refuse trackers that do not exist or are not installed; accelerate alone would leave them out silently.

    Raises:
        ConfigError: no such tracker.
        MissingExtra: its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(
                f"log.trackers: no tracker {name!r}{did_you_mean(name, TRACKERS)}; known: "
                f"{', '.join(TRACKERS)}"
            )
        if importlib.util.find_spec(TRACKERS[name]) is None:
            if name == "tensorboard":
                raise MissingExtra(name, "tensorboard", "log.trackers")
            raise ConfigError(
                f"log.trackers: the package of {name!r} is not installed; install it with: pip install "
                f"{TRACKERS[name]}"
            )


class Trackers(Listener):
    """Passes the figures of a run on to its trackers.

    Args:
        accelerator: made with `log_with=run.log.trackers`.
        run: the settings, which trackers record too.
    """

    def __init__(self, accelerator: Accelerator, run: RunConfig) -> None:
        self._accelerator, self._run = accelerator, run

    def on_start(self, step: int, total_steps: int, *, evaluated: bool = True) -> None:
        """Open the trackers. TensorBoard forgets what an earlier start logged of steps that are repeated."""
        arguments = {"tensorboard": {"purge_step": step + 1}}
        self._accelerator.init_trackers(
            "bertune", config=_flatten(self._run.model_dump()), init_kwargs=arguments
        )

    def on_log(self, record: JSON) -> None:
        """Log under `train/`."""
        self._log("train", record)

    def on_evaluate(self, record: JSON) -> None:
        """Log under `dev/`."""
        self._log("dev", record)

    def on_epoch(self, record: JSON) -> None:
        """Log under `epoch/`."""
        self._log("epoch", record)

    def _log(self, event: str, record: JSON) -> None:
        numbers = {
            f"{event}/{k}": float(v) for k, v in record.items() if isinstance(v, int | float) and k != "step"
        }
        self._accelerator.log(numbers, step=record["step"])

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._accelerator.trackers:  # `end_training` would end the group of processes as well
            tracker.finish()


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to `section.name`, in types that every tracker takes."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
