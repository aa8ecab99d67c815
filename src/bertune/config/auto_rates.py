"""The learning rates that `auto` stands for: a function of the task, the encoder's size and the steps.

The rule and the runs behind it: docs/defaults.md, `benchmarks/defaults.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bertune.config.schema import TrainConfig
from bertune.errors import ConfigError

AUTO = "auto"
AUTO_SETTINGS = ("learning_rate", "head_learning_rate", "warmup_ratio")
"""The settings of `train` that may be `auto`."""
BASE_SIZE = 12 * 768**2
"""Layers times squared width of BERT-base, to which the parameters of its layers are proportional."""
BASE_RATE = 5e-5
"""The rate of an encoder of that size in a short run."""
SIZE_POWER, SMALL_POWER_OF_LONG_RUNS = 0.7, 0.35
"""How the rate falls with the size. What small encoders get more shrinks in longer runs."""
SMALL_STEPS_POWER = 0.41
"""How fast it shrinks beyond `HEAD_STEPS` steps."""
SHORT_RUN = 200
"""Steps up to which a run is short; from there on the rate falls."""
STEPS_POWER = 0.15
LOWEST_RATE, HIGHEST_RATE = 1e-5, 5e-4
NEW_RATE, NEW_WIDTH = 1e-3, 256
"""The rate of an encoder that begins from nothing, and the width up to which it is that high; it falls with
the width, to about 3e-4 at that of BERT-base."""
HEAD_WIDTH, HEAD_STEPS = 512, 50
"""Width and steps up to which a head learns at the rate that its task names."""
HEAD_STEPS_POWER = 0.35
WARMUP_RATIO = 0.1
NICE_DIGITS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)


@dataclass(frozen=True)
class TaskRates:
    """What a task says of the rates at which it learns by default."""

    head: float | None = 1e-3
    """Of a head that begins at random, in a run of a few steps, on states of width 512 or less; None: the
    encoder's."""
    encoder_factor: float = 1.0
    """Of the encoder's rate. Below 1 where the encoder's vectors are good before training."""


@dataclass(frozen=True)
class Learner:
    """What the rates depend on.

    Attributes:
        width: of the encoder's states; 0 where it is not known.
        layers: of the encoder, likewise.
        steps: of the whole run.
        task_rates: of the task.
        head_is_new: whether a layer that learns at the head's rate begins at random.
        encoder_is_new: whether the encoder does.
    """

    width: int
    layers: int
    steps: int
    task_rates: TaskRates = TaskRates()
    head_is_new: bool = True
    encoder_is_new: bool = False


def encoder_rate(learner: Learner) -> float:
    """Return the peak learning rate of an encoder, with one or two digits.

    It falls with the size of the encoder, and with the number of steps where there are many. An encoder whose
    size is not known learns as one of base size.
    """
    if learner.encoder_is_new:
        return nice(NEW_RATE * min(1.0, NEW_WIDTH / max(learner.width, 1)))
    times_smaller = BASE_SIZE / (learner.layers * learner.width**2 or BASE_SIZE)
    power = SIZE_POWER
    if times_smaller > 1:
        power *= (HEAD_STEPS / max(learner.steps, HEAD_STEPS)) ** SMALL_STEPS_POWER
        power = max(power, SMALL_POWER_OF_LONG_RUNS)
    rate = BASE_RATE * times_smaller**power * learner.task_rates.encoder_factor
    rate *= (SHORT_RUN / max(learner.steps, SHORT_RUN)) ** STEPS_POWER
    return nice(min(max(rate, LOWEST_RATE), HIGHEST_RATE))


def head_rate(learner: Learner, encoder: float) -> float | None:
    """Return the peak learning rate of the head; None for that of the encoder, where none of it is new.

    A step of Adam changes the outputs of a layer by its rate times its width, so the rate falls with the
    width (Yang et al. 2022, arXiv 2203.03466). In a long run there is time to learn at a lower rate.
    """
    narrow = learner.task_rates.head
    if narrow is None or not learner.head_is_new:
        return None
    rate = narrow * min(1.0, HEAD_WIDTH / max(learner.width, 1))
    rate *= (HEAD_STEPS / max(learner.steps, HEAD_STEPS)) ** HEAD_STEPS_POWER
    return max(nice(rate), encoder)


def nice(rate: float) -> float:
    """Return the nearest rate that is easy to read, such as 1.5e-4.

    >>> [nice(x) for x in (1.4e-4, 8.9e-5, 2.6e-5)]
    [0.00015, 0.0001, 3e-05]
    """
    power = math.floor(math.log10(rate))
    digits = min(NICE_DIGITS, key=lambda digit: abs(math.log(rate) - math.log(digit * 10.0**power)))
    return float(f"{digits * 10.0**power:.1e}")


def has_auto(config: TrainConfig) -> bool:
    """Tell whether a setting that this run reads is still `auto`."""
    return any(getattr(config, name) == AUTO for name in _read_settings(config))


def settle(config: TrainConfig, learner: Learner) -> tuple[TrainConfig, str]:
    """Put numbers in the place of `auto`; what is given stays as it is.

    Returns:
        The settings, and a line that says what was chosen and why; "" where nothing was `auto`.
    """
    values: dict[str, float | None] = {}
    said: list[str] = []
    given = config.learning_rate
    rate = encoder_rate(learner) if isinstance(given, str) else given
    if given == AUTO:
        values["learning_rate"] = rate
        kind = "new encoder" if learner.encoder_is_new else "encoder"
        said.append(f"learning_rate {short(rate)} ({kind} of {_describe_size(learner)})")
    if config.head_learning_rate == AUTO:
        head = values["head_learning_rate"] = head_rate(learner, rate)
        said += [] if head is None else [f"head_learning_rate {short(head)} (a new head)"]
    if "warmup_ratio" in _read_settings(config) and config.warmup_ratio == AUTO:
        values["warmup_ratio"] = WARMUP_RATIO
        said.append(f"warm-up {warmup_steps(config, learner.steps)} of {learner.steps} steps")
    return config.model_copy(update=values), ", ".join(said)


def take_settled(config: TrainConfig, before: TrainConfig) -> TrainConfig:
    """Put the values of other settings of the same run in the place of `auto`."""
    values = {name: getattr(before, name) for name in AUTO_SETTINGS if getattr(config, name) == AUTO}
    return config.model_copy(update=values)


def warmup_steps(config: TrainConfig, total: int) -> int:
    """Return the number of steps in which the rate rises.

    Never the whole run: the last step learns at the full rate, and a single step does not learn at rate 0.
    """
    given = config.warmup_steps
    if given is None:
        ratio = WARMUP_RATIO if config.warmup_ratio == AUTO else number(config, "warmup_ratio")
        given = math.ceil(total * ratio)
    return min(given, max(total - 1, 0))


def number(config: TrainConfig, name: str) -> float:
    """Return a setting of `train` that has been settled.

    Raises:
        ConfigError: it is still `auto`: `settle` was not called.
    """
    value: Any = getattr(config, name)
    if value == AUTO:
        raise ConfigError(f"train.{name} is auto; give a number, since nothing here knows the model")
    return float(value)


def short(rate: float) -> str:
    """Write a rate as a run file has it.

    >>> short(0.0003), short(1.5e-05)
    ('3e-4', '1.5e-5')
    """
    digits, _, power = f"{rate:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _describe_size(learner: Learner) -> str:
    known = learner.width and learner.layers
    return f"width {learner.width}, {learner.layers} layers" if known else "unknown size"


def _read_settings(config: TrainConfig) -> tuple[str, ...]:
    has_ratio = config.warmup_steps is None and config.schedule != "constant"
    return AUTO_SETTINGS if has_ratio else AUTO_SETTINGS[:2]
