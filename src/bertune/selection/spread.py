"""The spread of a metric over folds or seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertune.types import JSON


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and 95 % interval of a figure over folds or seeds."""

    mean: float
    deviation: float
    """Over the number of values less 1; NaN for a single value."""
    interval: tuple[float, float] | None
    """By Student's t; None for a single value. The training rows of folds overlap, so for folds it is too
    narrow: no estimate without bias exists (Bengio and Grandvalet 2004, JMLR 5, 1089-1105)."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of some values.

        >>> spread = Spread.of([1.0, 2.0, 3.0])
        >>> spread.mean, spread.deviation, [round(end, 4) for end in spread.interval]
        (2.0, 1.0, [-0.4841, 4.4841])
        """
        count, mean = len(values), float(np.mean(values))
        if count < 2 or not math.isfinite(mean):
            return cls(mean, math.nan, None)
        from scipy.special import stdtrit  # scipy.stats takes half a second to import

        deviation = float(np.std(values, ddof=1))
        half = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
        return cls(mean, deviation, (mean - half, mean + half))

    def to_json(self) -> JSON:
        """Return the figures as JSON values."""
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "interval_95": None if self.interval is None else list(self.interval),
        }


def spread_of_metrics(values: Sequence[dict[str, float]]) -> dict[str, Spread]:
    """Return the spread of each metric that all folds or seeds have."""
    names = [name for name in values[0] if all(name in other for other in values)]
    return {name: Spread.of([each[name] for each in values]) for name in names}


def without_nan(value: object) -> object:
    """Return JSON values with null in the place of NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
