"""Bootstrap intervals of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


def bootstrap_interval(
    metric: Callable[..., float], *columns: npt.NDArray[Any], num_resamples: int = 1000
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a metric: percentiles over rows drawn with replacement.

    Args:
        metric: a function of the columns.
        columns: arrays with one entry a row.
        num_resamples: how often rows are drawn; the seed is always the same.

    Returns:
        Lower and upper end; None for fewer than 2 rows.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    n = len(columns[0])
    if n < 2:
        return None
    rng = np.random.default_rng(0)
    values = []
    for _ in range(num_resamples):
        rows = rng.integers(0, n, n)
        values.append(metric(*(column[rows] for column in columns)))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
