"""Classification: accuracy, precision, recall, F1, Matthews' coefficient, thresholds. Plain numbers, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def confusion_matrix(gold: Ints, predicted: Ints, num_labels: int) -> Ints:
    """Count rows (N, N): gold label down, predicted label across.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(gold * num_labels + predicted, minlength=num_labels**2).reshape(num_labels, num_labels)


def safe_divide(above: Any, below: Any) -> Floats:
    above, below = np.asarray(above, float), np.asarray(below, float)
    result: Floats = np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)
    return result


def precision_recall_f1(hits: Any, predicted: Any, gold: Any) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 from counts of right, predicted and gold positives; arrays go through.

    >>> [float(x) for x in precision_recall_f1(2, 4, 2)]
    [0.5, 1.0, 0.6666666666666666]
    """
    hits, predicted, gold = (np.asarray(x, float) for x in (hits, predicted, gold))
    return safe_divide(hits, predicted), safe_divide(hits, gold), safe_divide(2 * hits, predicted + gold)


def averaged_f1(hits: Any, predicted: Any, gold: Any, present: Any = None) -> dict[str, float]:
    """Return macro, micro and weighted F1 over labels.

    Args:
        hits: right positives of each label (N,).
        predicted: positives that were predicted (N,).
        gold: positives there are (N,).
        present: labels to average over (N,) of bool; without it those that occur in gold or in the predictions,
            as scikit-learn does when it is given no list of labels.
    """
    hits, predicted, gold = (np.asarray(x, float) for x in (hits, predicted, gold))
    _, _, f1 = precision_recall_f1(hits, predicted, gold)
    counted = (predicted + gold > 0) if present is None else np.asarray(present)
    return {
        "f1_macro": float(f1[counted].mean()) if counted.any() else 0.0,
        "f1_micro": float(safe_divide(2 * hits.sum(), predicted.sum() + gold.sum())),
        "f1_weighted": float(safe_divide((f1 * gold).sum(), gold.sum())),
    }


def matthews_corrcoef(matrix: Ints) -> float:
    """Return the Matthews correlation of a confusion matrix (N, N), for any number of labels.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    counts = matrix.astype(float)
    gold, predicted, total, right = counts.sum(1), counts.sum(0), counts.sum(), np.trace(counts)
    spread = (total**2 - (predicted**2).sum()) * (total**2 - (gold**2).sum())
    return float(safe_divide(right * total - (gold * predicted).sum(), np.sqrt(max(spread, 0.0))))


def single_label_scores(matrix: Ints, positive: int | None) -> dict[str, float]:
    """Return every figure of a confusion matrix (N, N).

    Args:
        matrix: gold label down, predicted label across.
        positive: the label that precision, recall and F1 are about when there are two; None averages them (macro).
    """
    hits, predicted, gold = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    precision, recall, f1 = precision_recall_f1(hits, predicted, gold)
    averages = averaged_f1(hits, predicted, gold)
    counted = predicted + gold > 0
    figures = {"accuracy": float(safe_divide(hits.sum(), matrix.sum()))}
    if positive is not None:
        figures |= {
            "precision": float(precision[positive]),
            "recall": float(recall[positive]),
            "f1": float(f1[positive]),
        }
    else:
        figures |= {
            "precision_macro": float(precision[counted].mean()),
            "recall_macro": float(recall[counted].mean()),
        }
    return figures | averages | {"mcc": matthews_corrcoef(matrix)}


def multi_label_scores(gold: Bools, predicted: Bools) -> dict[str, float]:
    """Return every figure of a multi-label problem; `accuracy` asks for all labels of a row to be right.

    Args:
        gold: (n, N) which labels apply.
        predicted: (n, N) which labels were predicted.
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

    A row counts as positive from the threshold upwards. Ties go to the threshold nearest to 0.5; without any
    positive row it is 0.5.

    >>> best_threshold(np.array([True, True, False]), np.array([0.9, 0.4, 0.2]))
    0.3
    """
    if not gold.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    p = probability[order]
    hits = np.cumsum(gold[order])
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + gold.sum())
    cut = (p + np.append(p[1:], 0.0)) / 2
    usable = np.append(p[:-1] > p[1:], True)  # between equal probabilities nothing can be cut
    f1 = np.where(usable, f1, -1.0)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    i = best[np.argmin(np.abs(cut[best] - 0.5))]
    low, high = (p[i + 1] if i + 1 < len(p) else -1.0), p[i]
    # As few digits as leave the cut between its two probabilities.
    return next(
        (t for digits in range(6, 20) if low < (t := round(float(cut[i]), digits)) <= high), float(high)
    )


def per_label_scores(
    labels: Sequence[str], hits: Any, predicted: Any, gold: Any
) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support of each label."""
    precision, recall, f1 = precision_recall_f1(hits, predicted, gold)
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for label, p, r, f, s in zip(labels, precision, recall, f1, np.asarray(gold), strict=True)
    }
