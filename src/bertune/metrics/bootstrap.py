"""Bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


def bootstrap_interval(
    metric: Callable[..., float], *columns: npt.NDArray[Any], num_resamples: int = 1000
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a metric: rows drawn with replacement, percentiles of the outcome.

    Args:
        metric: a function of the columns.
        columns: arrays with one entry a row.
        num_resamples: how often rows are drawn; always with the same seed.

    Returns:
        Lower and upper end; None for fewer than 2 rows, of which nothing can be said.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    n = len(columns[0])
    if n < 2:
        return None
    random = np.random.default_rng(0)
    outcomes = []
    for _ in range(num_resamples):
        drawn = random.integers(0, n, n)
        outcomes.append(metric(*(c[drawn] for c in columns)))
    low, high = np.percentile(outcomes, [2.5, 97.5])
    return float(low), float(high)
