"""Metrics of classification: accuracy, precision, recall, F1, Matthews correlation, thresholds.

Letters: `n` rows, `N` labels.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def matthews_corrcoef(matrix: Ints) -> float:
    """Return the Matthews correlation of a confusion matrix (N, N), for any number of labels.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    counts = matrix.astype(float)
    gold, predicted, total, hits = counts.sum(1), counts.sum(0), counts.sum(), np.trace(counts)
    variances = (total**2 - (predicted**2).sum()) * (total**2 - (gold**2).sum())
    return float(safe_divide(hits * total - (gold * predicted).sum(), np.sqrt(max(variances, 0.0))))


def single_label_scores(matrix: Ints, positive: int | None) -> dict[str, float]:
    """Return all metrics of a confusion matrix (N, N).

    Args:
        matrix: see `confusion_matrix`.
        positive: with two labels, the label of precision, recall and F1; None for their macro average.
    """
    hits, predicted, gold = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    precision, recall, f1 = precision_recall_f1(hits, predicted, gold)
    averages = averaged_f1(hits, predicted, gold)
    present = predicted + gold > 0
    scores = {"accuracy": float(safe_divide(hits.sum(), matrix.sum()))}
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
    return scores | averages | {"mcc": matthews_corrcoef(matrix)}


def multi_label_scores(gold: Bools, predicted: Bools) -> dict[str, float]:
    """Return all metrics of a multi-label problem. `accuracy` is the fraction of rows with all labels right.

    Args:
        gold: (n, N) whether each label applies.
        predicted: (n, N) whether each label was predicted.
    """
    counts = (gold & predicted).sum(0), predicted.sum(0), gold.sum(0)
    total = precision_recall_f1(*(c.sum() for c in counts))
    return {
        **averaged_f1(*counts, present=np.ones(gold.shape[1], bool)),
        "precision_micro": float(total[0]),
        "recall_micro": float(total[1]),
        "accuracy": float((gold == predicted).all(1).mean()),
        "hamming": float((gold == predicted).mean()),
    }


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
    # The fewest digits that leave the threshold between its two probabilities.
    rounded = (round(float(threshold[i]), digits) for digits in range(6, 20))
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
