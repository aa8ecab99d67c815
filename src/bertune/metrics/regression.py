"""Correlation and error of numbers."""

from __future__ import annotations

import numpy as np

from bertune.metrics.classification import Floats


def pearson(gold: Floats, predicted: Floats) -> float:
    """Return the correlation of two columns of numbers; 0 when one of them is constant.

    >>> round(pearson(np.array([1.0, 2, 3]), np.array([2.0, 4, 6])), 6)
    1.0
    """
    g, p = gold - gold.mean(), predicted - predicted.mean()
    # Rounding leaves a constant column with differences of the last digit: those carry no order.
    if any(np.abs(d).max() <= 1e-13 * np.abs(x).max() for d, x in ((g, gold), (p, predicted))):
        return 0.0
    return float(np.clip((g / np.linalg.norm(g)) @ (p / np.linalg.norm(p)), -1, 1))


def spearman(gold: Floats, predicted: Floats) -> float:
    """Return the correlation of ranks, ties sharing theirs; 0 when one column is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(gold), rankdata(predicted))


def regression_scores(gold: Floats, predicted: Floats) -> dict[str, float]:
    """Return Pearson, Spearman, mean squared and mean absolute error."""
    wrong = predicted - gold
    return {
        "pearson": pearson(gold, predicted),
        "spearman": spearman(gold, predicted),
        "mse": float((wrong**2).mean()),
        "mae": float(np.abs(wrong).mean()),
    }
