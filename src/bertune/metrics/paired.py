"""Tests of the difference between two models on the same rows: paired bootstrap, McNemar, Wilcoxon, Holm.

Letters: `R` resamples, `t` types of rows, `n` rows, `k` metrics. Rows of one type count the same in every
metric, so a resample need only say how many rows of each type it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertune.metrics.classification import Bools, Floats, Ints
from bertune.metrics.weighted import WeightedMetric

NUM_RESAMPLES = 10_000
"""Resamples of a paired bootstrap, where they cost little."""
MIN_RESAMPLES = 1_000
"""Resamples of large data."""
EXACT_BELOW = 25
"""Rows on which one model alone is right, up to which McNemar's test is exact."""
_BLOCK = 2**18
"""Weights in memory at once: 2 MiB, about as much as a processor's cache holds."""
_MULTINOMIAL_COST = 5
"""How many rows are drawn in the time in which the number of rows of one type is."""


@dataclass(frozen=True)
class PairedDifference:
    """The difference of a metric between two models on the same rows, second minus first."""

    difference: float
    interval: tuple[float, float] | None
    """Its 95 % bootstrap interval; None for fewer than 2 rows."""
    p_value: float | None
    """Two-sided: how easily the choice of rows alone gives such a difference; None without interval."""
    num_resamples: int


def bootstrap_differences(
    a: WeightedMetric,
    b: WeightedMetric,
    counts: Ints,
    *,
    num_resamples: int = NUM_RESAMPLES,
    num_values: int = 1,
    seed: int = 0,
) -> Floats:
    """Draw rows with replacement, the same for both models, and return the differences of their metrics.

    The number of rows of each type in a resample is multinomial, which is the same as drawing row by row.

    Args:
        a: metrics of the first model, a function of weights (R, t).
        b: those of the second.
        counts: (t,) how many rows there are of each type.
        num_resamples: R.
        num_values: how many numbers the metrics compute of a resample, such as sums of each label.
        seed: of the draws.

    Returns:
        (R, k) the metrics of `b` minus those of `a`.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13; Koehn 2004,
        "Statistical Significance Tests for Machine Translation Evaluation", for pairs of models.
    """
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // max(len(counts), num_values))
    parts = []
    for start in range(0, num_resamples, size):
        weights = _draw(rng, counts, min(size, num_resamples - start))
        difference = b(weights) - a(weights)
        parts.append(difference[:, None] if difference.ndim == 1 else difference)
    return np.concatenate(parts)


def _draw(rng: np.random.Generator, counts: Ints, size: int) -> Floats:
    """Return how many rows of each type each of some resamples has: (size, t)."""
    total, num_types = int(counts.sum()), len(counts)
    if num_types * _MULTINOMIAL_COST < total:
        return rng.multinomial(total, counts / total, size).astype(float)
    rows = rng.integers(0, total, (size, total), np.int32)
    drawn = rows if num_types == total else np.repeat(np.arange(num_types), counts)[rows]
    weights = np.empty((size, num_types))
    for weight, types in zip(weights, drawn, strict=True):  # faster than one count of them all
        weight[:] = np.bincount(types, minlength=num_types)
    return weights


def paired_difference(difference: float, resampled: Floats, num_rows: int) -> PairedDifference:
    """Return a difference with its interval and p-value.

    The interval has the 2.5 % and 97.5 % percentiles of the resampled differences. The p-value is the same
    interval turned round: twice the share of resamples on the other side of 0, or on it, with one more in
    numerator and denominator, at most 1. So it is below 0.05 where the interval excludes 0.

    Args:
        difference: of all rows.
        resampled: (R,) of resamples.
        num_rows: how many rows there are.

    Source: Efron and Tibshirani 1993, chapters 13 and 15 (percentiles; their one more is Davison and Hinkley
        1997, section 4.2); Koehn 2004 counts the resamples in which a model is better.
    """
    if num_rows < 2:
        return PairedDifference(difference, None, None, 0)
    low, high = np.percentile(resampled, [2.5, 97.5])
    tails = [(1 + int(np.count_nonzero(tail))) / (1 + len(resampled)) for tail in _tails(resampled)]
    return PairedDifference(difference, (float(low), float(high)), min(1.0, 2 * min(tails)), len(resampled))


def _tails(resampled: Floats) -> tuple[Bools, Bools]:
    """Return which resamples (R,) are not above 0, and which are not below it, but for rounding."""
    return resampled <= 1e-12, resampled >= -1e-12


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of whether two models are right equally often; the first is `a`, the second `b`."""

    both_right: int
    only_a: int
    """Rows on which the first model alone is right."""
    only_b: int
    both_wrong: int
    exact: bool
    """Whether the p-value is binomial, without approximation."""
    p_value: float


def mcnemar(a_right: Bools, b_right: Bools) -> McNemar:
    """Test whether two models are right equally often, by the rows on which one alone is right.

    With fewer than 25 of these the test is exact (binomial, two-sided); else it is chi-square with
    continuity correction, (|b - c| - 1)² / (b + c) with one degree of freedom.

    Args:
        a_right: (n,) whether the first model is right.
        b_right: (n,) whether the second is.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions";
        Edwards 1948 for the correction; as statsmodels' `mcnemar`.
    """
    from scipy.stats import binom, chi2

    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    discordant, exact = only_a + only_b, only_a + only_b < EXACT_BELOW
    if exact:
        p_value = min(1.0, 2 * float(binom.cdf(min(only_a, only_b), discordant, 0.5)))
    else:
        p_value = float(chi2.sf((abs(only_a - only_b) - 1) ** 2 / discordant, 1))
    both_right, both_wrong = int((a_right & b_right).sum()), int((~a_right & ~b_right).sum())
    return McNemar(both_right, only_a, only_b, both_wrong, exact, p_value)


@dataclass(frozen=True)
class ErrorTest:
    """Wilcoxon's signed-rank test of whether the errors of two models on a row are equally large."""

    a_smaller: int
    """Rows on which the first model has the smaller error."""
    b_smaller: int
    equal: int
    p_value: float


def wilcoxon(a_errors: Floats, b_errors: Floats) -> ErrorTest:
    """Test whether errors (n,) of two models on the same rows are equally large; equal ones are left out.

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods"; `scipy.stats.wilcoxon`.
    """
    from scipy.stats import wilcoxon as signed_rank

    differences = b_errors - a_errors
    a_smaller, b_smaller = int((differences > 0).sum()), int((differences < 0).sum())
    different = differences[differences != 0]
    p_value = float(signed_rank(different).pvalue) if len(different) else 1.0
    return ErrorTest(a_smaller, b_smaller, len(differences) - len(different), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order.

    With m p-values, the i-th smallest is multiplied by m - i + 1, and is no less than those before it.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = highest
    return corrected
