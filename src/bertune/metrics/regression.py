"""Metrics of numbers: correlation and error."""

from __future__ import annotations

import numpy as np

from bertune.metrics.classification import Floats


def pearson(gold: Floats, predicted: Floats) -> float:
    """Return the correlation of two columns of numbers (n,); 0 if one of them is constant.

    >>> round(pearson(np.array([1.0, 2, 3]), np.array([2.0, 4, 6])), 6)
    1.0
    """
    g, p = gold - gold.mean(), predicted - predicted.mean()
    # Rounding gives a constant column differences in the last digit, which mean nothing.
    if any(np.abs(d).max() <= 1e-13 * np.abs(x).max() for d, x in ((g, gold), (p, predicted))):
        return 0.0
    return float(np.clip((g / np.linalg.norm(g)) @ (p / np.linalg.norm(p)), -1, 1))


def spearman(gold: Floats, predicted: Floats) -> float:
    """Return the correlation of ranks, where ties share the mean rank; 0 if one column is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(gold), rankdata(predicted))


def regression_scores(gold: Floats, predicted: Floats) -> dict[str, float]:
    """Return Pearson, Spearman, mean squared and mean absolute error."""
    error = predicted - gold
    return {
        "pearson": pearson(gold, predicted),
        "spearman": spearman(gold, predicted),
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
    }
