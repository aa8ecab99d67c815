"""Metrics of classification: accuracy, precision, recall, F1, Matthews correlation, thresholds.

Letters: `n` rows, `N` labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def confusion_matrix(gold: Ints, predicted: Ints, num_labels: int) -> Ints:
    """Return the number of rows (N, N) with each gold label (first axis) and predicted label (second axis).

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(gold * num_labels + predicted, minlength=num_labels**2).reshape(num_labels, num_labels)


def safe_divide(numerator: Any, denominator: Any) -> Floats:
    """Return numerator / denominator, elementwise; 0 where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    zeros = np.zeros(np.broadcast(numerator, denominator).shape)
    result: Floats = np.divide(numerator, denominator, out=zeros, where=denominator != 0)
    return result


def precision_recall_f1(hits: Any, predicted: Any, gold: Any) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 from numbers, or arrays, of right, predicted and gold positives.

    >>> [float(x) for x in precision_recall_f1(2, 4, 2)]
    [0.5, 1.0, 0.6666666666666666]
    """
    hits, predicted, gold = (np.asarray(x, float) for x in (hits, predicted, gold))
    return safe_divide(hits, predicted), safe_divide(hits, gold), safe_divide(2 * hits, predicted + gold)


def averaged_f1(hits: Any, predicted: Any, gold: Any, present: Any = None) -> dict[str, float]:
    """Return macro, micro and weighted F1 over labels.

    Args:
        hits: (N,) right positives of each label.
        predicted: (N,) predicted positives of each label.
        gold: (N,) gold positives of each label.
        present: (N,) of bool, the labels to average over; if None those that occur in gold or in the
            predictions, as in scikit-learn without a list of labels.
    """
    hits, predicted, gold = (np.asarray(x, float) for x in (hits, predicted, gold))
    _, _, f1 = precision_recall_f1(hits, predicted, gold)
    averaged = (predicted + gold > 0) if present is None else np.asarray(present)
    return {
        "f1_macro": float(f1[averaged].mean()) if averaged.any() else 0.0,
        "f1_micro": float(safe_divide(2 * hits.sum(), predicted.sum() + gold.sum())),
        "f1_weighted": float(safe_divide((f1 * gold).sum(), gold.sum())),
    }


@dataclass(frozen=True)
class LabelCounts:
    """How often each label is right, predicted and gold: all that single-label metrics need, for any `N`.

    Attributes:
        hits: (N,) rows whose gold label was predicted.
        predicted: (N,) rows with the label as prediction.
        gold: (N,) rows with the label.
    """

    hits: Ints
    predicted: Ints
    gold: Ints

    @classmethod
    def of_ids(cls, gold: Ints, predicted: Ints, num_labels: int) -> LabelCounts:
        """Count the labels of rows.

        Args:
            gold: (n,) the label of each row.
            predicted: (n,) the predicted label.
            num_labels: N.
        """
        hits, predicted_count, gold_count = (
            np.bincount(ids, minlength=num_labels) for ids in (gold[gold == predicted], predicted, gold)
        )
        return cls(hits, predicted_count, gold_count)

    @classmethod
    def of_matrix(cls, matrix: Ints) -> LabelCounts:
        """Return the counts of a confusion matrix (N, N)."""
        return cls(np.diag(matrix), matrix.sum(0), matrix.sum(1))


def most_confused(gold: Ints, predicted: Ints, most: int) -> list[tuple[int, int, int]]:
    """Return gold label, predicted label and number of rows of the pairs that are most often confused.

    >>> most_confused(np.array([0, 0, 1, 2]), np.array([1, 1, 1, 0]), most=5)
    [(0, 1, 2), (2, 0, 1)]
    """
    wrong = gold != predicted
    pairs, counts = np.unique(np.stack([gold[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(pairs[0, i]), int(pairs[1, i]), int(counts[i])) for i in order]


def matthews_corrcoef(matrix: Ints) -> float:
    """Return the Matthews correlation of a confusion matrix (N, N), for any number of labels.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    return _matthews_corrcoef(LabelCounts.of_matrix(matrix))


def _matthews_corrcoef(counts: LabelCounts) -> float:
    gold, predicted, hits = counts.gold.astype(float), counts.predicted.astype(float), counts.hits.sum()
    total = gold.sum()
    variances = (total**2 - (predicted**2).sum()) * (total**2 - (gold**2).sum())
    return float(safe_divide(hits * total - (gold * predicted).sum(), np.sqrt(max(variances, 0.0))))


def single_label_scores(matrix: Ints | LabelCounts, positive: int | None) -> dict[str, float]:
    """Return all metrics of a single-label problem.

    Args:
        matrix: a confusion matrix (N, N), see `confusion_matrix`; or its counts.
        positive: with two labels, the label of precision, recall and F1; None for their macro average.
    """
    counts = matrix if isinstance(matrix, LabelCounts) else LabelCounts.of_matrix(matrix)
    hits, predicted, gold = counts.hits, counts.predicted, counts.gold
    precision, recall, f1 = precision_recall_f1(hits, predicted, gold)
    averages = averaged_f1(hits, predicted, gold)
    present = predicted + gold > 0
    scores = {"accuracy": float(safe_divide(hits.sum(), gold.sum()))}
    if positive is not None:
        scores |= {
            "precision": float(precision[positive]),
            "recall": float(recall[positive]),
            "f1": float(f1[positive]),
        }
    else:
        scores |= {
            "precision_macro": float(precision[present].mean()),
            "recall_macro": float(recall[present].mean()),
        }
    return scores | averages | {"mcc": _matthews_corrcoef(counts)}


@dataclass(frozen=True)
class LabelPairs:
    """The labels of multi-label rows as pairs of row and label: labels that do not apply cost nothing.

    Attributes:
        rows: (pairs,) the row of each pair.
        labels: (pairs,) its label.
        shape: n and N.
    """

    rows: Ints
    labels: Ints
    shape: tuple[int, int]

    @classmethod
    def of_lists(cls, lists: Sequence[Sequence[int]], num_labels: int) -> LabelPairs:
        """Return the pairs of rows, given the ids of the labels of each."""
        rows = np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])
        labels = np.fromiter(itertools.chain.from_iterable(lists), np.int64)
        return cls(rows, labels, (len(lists), num_labels))

    @classmethod
    def of_flags(cls, flags: Bools) -> LabelPairs:
        """Return the pairs of a table (n, N) of whether each label applies."""
        rows, labels = np.nonzero(flags)
        return cls(rows, labels, (flags.shape[0], flags.shape[1]))

    def intersection(self, other: LabelPairs) -> LabelPairs:
        """Return the pairs that both have."""
        codes, other_codes = (pairs.rows * self.shape[1] + pairs.labels for pairs in (self, other))
        in_both = np.isin(codes, other_codes)
        return LabelPairs(self.rows[in_both], self.labels[in_both], self.shape)

    def count_labels(self) -> Ints:
        """Return how many rows have each label (N,)."""
        return np.bincount(self.labels, minlength=self.shape[1])

    def count_rows(self) -> Ints:
        """Return how many labels each row has (n,)."""
        return np.bincount(self.rows, minlength=self.shape[0])


class MultiLabelMetrics:
    """The metrics of a multi-label problem, for all rows or for rows drawn with replacement.

    Args:
        gold: the labels that apply.
        predicted: the labels that were predicted.
    """

    def __init__(self, gold: LabelPairs, predicted: LabelPairs) -> None:
        self.gold, self.predicted, self.hits = gold, predicted, gold.intersection(predicted)
        self._row_counts = tuple(pairs.count_rows() for pairs in (self.hits, predicted, gold))
        self._counters = tuple(map(_weighted_counter, (self.hits, predicted, gold)))

    def scores(self) -> dict[str, float]:
        """Return all metrics. `accuracy` is the fraction of rows with all labels right."""
        hits, predicted, gold = (p.count_labels() for p in (self.hits, self.predicted, self.gold))
        averages = averaged_f1(hits, predicted, gold, np.ones(self.gold.shape[1], bool))
        by_rows = self._scores_of_rows(np.arange(self.gold.shape[0]))
        return {**averages, **by_rows, "f1_micro": averages["f1_micro"]}

    def resampled(self, rows: Ints, metric: str) -> float:
        """Return one metric of some rows, each as often as it is named."""
        if metric not in {"f1_macro", "f1_weighted"}:
            return self._scores_of_rows(rows)[metric]
        weights = np.bincount(rows, minlength=self.gold.shape[0])
        hits, predicted, gold = (count(weights) for count in self._counters)
        return averaged_f1(hits, predicted, gold, np.ones(self.gold.shape[1], bool))[metric]

    def _scores_of_rows(self, rows: Ints) -> dict[str, float]:
        """Return the metrics that need no counts of each label."""
        hits, predicted, gold = (counts[rows] for counts in self._row_counts)
        num_labels, wrong = self.gold.shape[1], predicted + gold - 2 * hits
        precision, recall, f1 = precision_recall_f1(hits.sum(), predicted.sum(), gold.sum())
        return {
            "f1_micro": float(f1),
            "precision_micro": float(precision),
            "recall_micro": float(recall),
            "accuracy": float((wrong == 0).mean()),
            "hamming": float((num_labels * len(rows) - wrong.sum()) / (num_labels * len(rows))),
        }


def _weighted_counter(pairs: LabelPairs) -> Callable[[Ints], npt.NDArray[Any]]:
    """Return a function of the weight of each row (n,) that counts each label (N,)."""
    num_rows, num_labels = pairs.shape
    if len(pairs.rows) * 8 < num_rows * num_labels:
        return lambda weights: np.bincount(pairs.labels, weights[pairs.rows], minlength=num_labels)
    dense = np.zeros(pairs.shape, np.float32)  # whole numbers up to 2^24 are exact
    dense[pairs.rows, pairs.labels] = 1
    return lambda weights: (weights.astype(np.float32) @ dense).astype(float)


def multi_label_scores(gold: Bools, predicted: Bools) -> dict[str, float]:
    """Return all metrics of a multi-label problem; see `MultiLabelMetrics`.

    Args:
        gold: (n, N) whether each label applies.
        predicted: (n, N) whether each label was predicted.
    """
    return MultiLabelMetrics(LabelPairs.of_flags(gold), LabelPairs.of_flags(predicted)).scores()


def best_threshold(gold: Bools, probability: Floats) -> float:
    """Return the threshold with the highest F1 on the given rows, halfway between two probabilities.

    A row is positive if its probability is at least the threshold. Ties go to the threshold nearest to 0.5.
    Without positive rows the threshold is 0.5.

    >>> best_threshold(np.array([True, True, False]), np.array([0.9, 0.4, 0.2]))
    0.3
    """
    if not gold.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    p = probability[order]
    hits = np.cumsum(gold[order])
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + gold.sum())
    threshold = (p + np.append(p[1:], 0.0)) / 2
    possible = np.append(p[:-1] > p[1:], True)  # no threshold lies between equal probabilities
    f1 = np.where(possible, f1, -1.0)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    i = best[np.argmin(np.abs(threshold[best] - 0.5))]
    low, high = (p[i + 1] if i + 1 < len(p) else -1.0), p[i]
    return _shortest_between(float(threshold[i]), low, high)


def threshold_between(low: float, high: float) -> float:
    """Return a threshold halfway between two probabilities: `low` is below it, `high` is not.

    >>> threshold_between(0.2, 0.4)
    0.3
    """
    return _shortest_between((low + high) / 2, low if low > 0 else -1.0, high)


def _shortest_between(threshold: float, low: float, high: float) -> float:
    """Round a threshold to the fewest digits that leave it above `low` and at most `high`."""
    rounded = (round(threshold, digits) for digits in range(6, 20))
    return next((t for t in rounded if low < t <= high), float(high))


def per_label_scores(
    labels: Sequence[str], hits: Any, predicted: Any, gold: Any
) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support of each label."""
    precision, recall, f1 = precision_recall_f1(hits, predicted, gold)
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for label, p, r, f, s in zip(labels, precision, recall, f1, np.asarray(gold), strict=True)
    }
