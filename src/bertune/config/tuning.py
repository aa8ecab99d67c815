"""The sections `tune` and `search` beside a run: how settings are searched, and which."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from bertune.config.load import validation_messages
from bertune.config.schema import Fraction, PositiveInt, Section
from bertune.errors import ConfigError
from bertune.types import JSON

TRAIN_SPACE: JSON = {
    "train.learning_rate": {"log_uniform": [1e-5, 5e-4]},
    "train.epochs": {"int": [1, 6]},
    "train.batch_size": {"choice": [8, 16, 32, 64]},
    "train.warmup_ratio": {"uniform": [0.0, 0.2]},
    "train.layer_decay": {"uniform": [0.7, 1.0]},
    "train.head_learning_rate": {"log_uniform": [1e-4, 1e-2]},
    "train.dropout": {"choice": [0.0, 0.1, 0.2]},
}
"""What is searched of the training of any task where a run file has no section `search`."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: Any) -> Any:
    """Return a duration in seconds; what is none of one is for pydantic to say.

    >>> [parse_duration(v) for v in ("90s", "2h", "1h30m", 5)]
    [90.0, 7200.0, 5400.0, 5]
    """
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", value)
    if not parts or re.sub(r"\d+(\.\d+)?\s*[smhd]|\s", "", value):
        raise ValueError("must be a duration such as 90s, 30m, 2h or 1h30m")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


Seconds = Annotated[float, Field(gt=0), BeforeValidator(parse_duration)]


class RayConfig(Section):
    """How trials are spread with `tune.engine=ray`."""

    address: str | None = None
    """Which Ray: `auto` is the cluster that this machine belongs to, `HOST:PORT` another one. Without it, Ray
    is started on this machine, and ended with the search."""
    cpus_per_trial: PositiveInt | None = None
    """Cores of a trial, and so how many trials run at once. Without it, a quarter of a machine's cores."""
    gpus_per_trial: Annotated[float, Field(ge=0)] | None = None
    """GPUs of a trial; 0.5 has two trials share one. Without it, 1 where there are GPUs and `device` is not
    cpu."""
    concurrent: PositiveInt | None = None
    """How many trials run at once. Without it, as many as fit on the machines that are there at the
    beginning."""


class TuneConfig(Section):
    """How settings are searched."""

    engine: Literal["optuna", "ray"] = "optuna"
    """`optuna`: trials one after the other in this process, and in every other process that is started on the
    same folder. `ray`: Ray Tune with ASHA, on this machine or a cluster."""
    trials: PositiveInt = 20
    """How many trials the study has in all, those of other processes and of earlier calls included."""
    time: Seconds | None = None
    """Begin no trial after this time, and stop the one that runs: seconds, or 30m, 2h, 1h30m."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How the settings of the next trial are drawn: `tpe` learns from the trials before."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials end early. `median`: those below the median of the trials before, at the same part of
    their training; `hyperband`: those that lose in their bracket."""
    startup_trials: PositiveInt = 5
    """Trials that run to their end, and are drawn at random, before the sampler learns and the pruner
    prunes."""
    evaluations: PositiveInt = 6
    """How often a trial is scored, in equal parts of its training; it may be pruned each time but the
    last."""
    holdout: Fraction = 0.2
    """Fraction of the training rows that scores the trials. The dev rows are not used for that."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Score each trial by its mean over so many folds of the training rows, instead of `holdout`. A trial
    takes as many times as long."""
    group: str | None = None
    """Column of the training files whose rows of one value stay together, such as an author: they all train a
    trial, or all score it."""
    limit: PositiveInt | Fraction | None = None
    """Search on so many of the training rows, or on this fraction of them, drawn by label. The winner is
    trained on all rows."""
    refit: bool = True
    """Train the best settings on all training rows, and score the dev rows once."""
    ray: RayConfig = RayConfig()


def take_sections(raw: JSON) -> tuple[JSON, TuneConfig, JSON]:
    """Divide a run file with a search into its parts.

    Args:
        raw: nested settings, as `read_config` returns them.

    Returns:
        The settings of the run, those of the search, and the section `search` as it is written.

    Raises:
        ConfigError: a setting of `tune` is wrong; or `search` is no mapping.
    """
    run = dict(raw)
    tune, search = run.pop("tune", None), run.pop("search", None)
    faults: list[str] = []
    if search is not None and not isinstance(search, dict):
        faults.append(
            "search: must name settings, such as train.learning_rate: {log_uniform: [1e-5, 1e-4]}; got "
            f"{search!r}"
        )
    config = TuneConfig()
    try:
        config = TuneConfig.model_validate({} if tune is None else tune)
    except ValidationError as error:
        faults += validation_messages(error, TuneConfig, ("tune",))
    if faults:
        raise ConfigError("\n".join(faults))
    return run, config, search or {}
