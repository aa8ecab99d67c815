"""Metrics of many resamples at once: a row counts as often as a resample has drawn it.

Letters: `R` resamples, `n` rows, `N` labels, `u` different values. A weight is how often a resample has a
row: 0 or more. With a weight of 1 for every row each metric here is that of `bertune.metrics` of the same
name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.metrics.classification import Bools, Floats, precision_recall_f1, safe_divide
from bertune.metrics.spans import SpanCounts

WeightedMetric = Callable[[Floats], Floats]
"""A function of weights (R, n) that returns a metric (R,), or several (R, k)."""

_DENSE_NUMBERS = 2**22
"""Numbers of a table that is kept dense: 32 MiB."""
_NO_VARIANCE = 1e-12
"""Variance, in units of that of all rows, up to which a resample is constant but for rounding."""


class LabelSums:
    """The right, predicted and gold positives of each label, summed over the rows of a resample.

    Args:
        hits: (n, N) right positives of each row, as an array or a sparse array of scipy.
        predicted: (n, N) predicted positives.
        gold: (n, N) gold positives.
    """

    def __init__(self, hits: Any, predicted: Any, gold: Any) -> None:
        from scipy import sparse

        parts = [sparse.csr_array(part, dtype=float) for part in (hits, predicted, gold)]
        self._table: Any = sparse.hstack(parts, format="csr")
        if np.prod(self._table.shape, dtype=float) <= _DENSE_NUMBERS:
            self._table = self._table.toarray()

    def __call__(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the sums of right, predicted and gold positives, each (R, N)."""
        # scipy multiplies a sparse table from the left only.
        is_dense = isinstance(self._table, np.ndarray)
        sums = weights @ self._table if is_dense else (self._table.T @ weights.T).T
        hits, predicted, gold = np.split(np.asarray(sums), 3, axis=1)
        return hits, predicted, gold


def label_f1(hits: Floats, predicted: Floats, gold: Floats) -> Floats:
    """Return the F1 of each label (R, N) from sums (R, N)."""
    return safe_divide(2 * hits, predicted + gold)


def label_metric(
    metric: str,
    hits: Floats,
    predicted: Floats,
    gold: Floats,
    *,
    positive: int | None = None,
    all_labels: bool = False,
) -> Floats:
    """Return a metric of labels (R,) from sums (R, N), as `bertune.metrics.classification` has it.

    Args:
        metric: accuracy, f1, f1_macro, f1_micro, f1_weighted or mcc; accuracy and mcc for one label a row.
        hits: right positives.
        predicted: predicted positives.
        gold: gold positives.
        positive: the label of f1; without it f1 is over all positives, as for spans.
        all_labels: average over all labels, not over those that a resample has.
    """
    if metric == "accuracy":
        return safe_divide(hits.sum(1), gold.sum(1))
    if metric == "mcc":
        return _matthews_corrcoef(hits, predicted, gold)
    if metric == "f1_micro" or (metric == "f1" and positive is None):
        return safe_divide(2 * hits.sum(1), predicted.sum(1) + gold.sum(1))
    f1 = label_f1(hits, predicted, gold)
    if metric == "f1":
        return np.asarray(f1[:, positive])
    if metric == "f1_weighted":
        return safe_divide((f1 * gold).sum(1), gold.sum(1))
    if metric == "f1_macro":
        present = np.ones_like(f1) if all_labels else predicted + gold > 0
        return safe_divide((f1 * present).sum(1), present.sum(1))
    raise KeyError(metric)


def _matthews_corrcoef(hits: Floats, predicted: Floats, gold: Floats) -> Floats:
    total = gold.sum(1)
    variances = (total**2 - (predicted**2).sum(1)) * (total**2 - (gold**2).sum(1))
    covariance = hits.sum(1) * total - (gold * predicted).sum(1)
    return safe_divide(covariance, np.sqrt(np.maximum(variances, 0)))


def weighted_mean(values: npt.ArrayLike) -> WeightedMetric:
    """Return the mean of a number a row (n,), such as whether it is right."""
    column = np.asarray(values, float)
    return lambda weights: weights @ column / weights.sum(1)


def span_metric(metric: str, counts: SpanCounts) -> WeightedMetric:
    """Return a metric of spans: f1, f1_macro, boundary_f1 or type_f1; or accuracy, of tags."""
    label_sums, relaxed = LabelSums(*counts[:3]), counts.relaxed.astype(float)

    def value(weights: Floats) -> Floats:
        hits, predicted, gold = label_sums(weights)
        if metric not in {"boundary_f1", "type_f1"}:
            return label_metric(metric, hits, predicted, gold)
        boundary, predicted_overlaps, gold_overlaps, _ = (weights @ relaxed).T
        if metric == "boundary_f1":
            return safe_divide(2 * boundary, predicted.sum(1) + gold.sum(1))
        precision = safe_divide(predicted_overlaps, predicted.sum(1))
        recall = safe_divide(gold_overlaps, gold.sum(1))
        return safe_divide(2 * precision * recall, precision + recall)

    return value


def number_metric(metric: str, gold: Floats, predicted: Floats) -> WeightedMetric:
    """Return a metric of numbers (n,): pearson, spearman, mse or mae."""
    if metric == "mse":
        return weighted_mean((predicted - gold) ** 2)
    if metric == "mae":
        return weighted_mean(np.abs(predicted - gold))
    if metric == "pearson":
        return _pearson(gold, predicted)
    if metric == "spearman":
        return _spearman(gold, predicted)
    raise KeyError(metric)


def _pearson(gold: Floats, predicted: Floats) -> WeightedMetric:
    # With mean 0 and variance 1 the moments lose no digits.
    g, p = ((x - x.mean()) / (x.std() or 1.0) for x in (gold.astype(float), predicted.astype(float)))
    moments = np.stack([g, p, g * g, p * p, g * p], axis=1)

    def value(weights: Floats) -> Floats:
        mean_g, mean_p, gg, pp, gp = (weights @ moments / weights.sum(1, keepdims=True)).T
        return _correlation(gp - mean_g * mean_p, gg - mean_g**2, pp - mean_p**2)

    return value


def _correlation(covariance: Floats, variance: Floats, other_variance: Floats) -> Floats:
    """Return correlations (R,); 0 where one column is constant, up to rounding."""
    varies = (variance > _NO_VARIANCE) & (other_variance > _NO_VARIANCE)
    scale = np.sqrt(np.where(varies, variance * other_variance, 1.0))
    return np.asarray(np.where(varies, np.clip(covariance / scale, -1, 1), 0.0))


class WeightedRanks:
    """The ranks of numbers (n,) among the rows of a resample; ties share the mean rank."""

    def __init__(self, values: Floats) -> None:
        _, self._inverse = np.unique(values, return_inverse=True)
        self._order = np.argsort(self._inverse, kind="stable")
        self._starts = np.flatnonzero(np.diff(self._inverse[self._order], prepend=-1))

    def __call__(self, weights: Floats) -> Floats:
        """Return the rank of each row (R, n), for weights (R, n)."""
        counts = np.add.reduceat(weights[:, self._order], self._starts, axis=1)  # (R, u)
        ranks = counts.cumsum(1) - (counts - 1) / 2
        return np.asarray(ranks[:, self._inverse])


def _spearman(gold: Floats, predicted: Floats) -> WeightedMetric:
    gold_ranks, predicted_ranks = WeightedRanks(gold), WeightedRanks(predicted)

    def value(weights: Floats) -> Floats:
        total = weights.sum(1, keepdims=True)
        # The mean of all ranks is (total + 1) / 2; divided by the total, variances are below 1.
        g, p = ((ranks(weights) - (total + 1) / 2) / total for ranks in (gold_ranks, predicted_ranks))
        covariance, variance, other = ((weights * x).sum(1) / total[:, 0] for x in (g * p, g * g, p * p))
        return _correlation(covariance, variance, other)

    return value


def threshold_metric(metric: str, gold: Bools, similarity: Floats) -> WeightedMetric:
    """Return a metric of similarities (n,) and labels 0 and 1, as `binary_similarity_scores` has it.

    Args:
        metric: average_precision; or accuracy or f1, at the best threshold of the resample.
        gold: (n,) whether the texts of each pair belong together.
        similarity: (n,).
    """
    order = np.argsort(-similarity, kind="stable")
    falling, gold = similarity[order], gold[order].astype(float)
    last = np.flatnonzero(np.append(falling[:-1] > falling[1:], True))  # of each run of ties

    def value(weights: Floats) -> Floats:
        drawn = weights[:, order]
        hits, predicted = (x.cumsum(1)[:, last] for x in (drawn * gold, drawn))
        positives, total = hits[:, -1:], drawn.sum(1)
        precision, recall, f1 = precision_recall_f1(hits, predicted, positives)
        if metric == "average_precision":
            return np.asarray((np.diff(recall, prepend=0.0) * precision).sum(1))
        if metric == "f1":
            return np.asarray(f1.max(1))
        if metric == "accuracy":
            right = 2 * hits - predicted + total[:, None] - positives
            none_positive = total - positives[:, 0]
            return np.asarray(np.maximum(right.max(1), none_positive) / total)
        raise KeyError(metric)

    return value


def stacked(*metrics: WeightedMetric) -> WeightedMetric:
    """Return several metrics as one, beside each other (R, k)."""

    def value(weights: Floats) -> Floats:
        parts = [metric(weights) for metric in metrics]
        return np.concatenate([part[:, None] if part.ndim == 1 else part for part in parts], axis=1)

    return value
