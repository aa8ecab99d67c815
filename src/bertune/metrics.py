"""How good predictions are: plain numbers from plain arrays, without torch.

Everything about labels comes from counts (true positives, false positives, false negatives, or a confusion matrix),
so that a bootstrap of a thousand resamples costs little. Tests hold every figure against scikit-learn and scipy.
A figure whose denominator is 0 is 0, as with scikit-learn's `zero_division=0`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
SpanOf = tuple[int, int, str]


def confusion_matrix(gold: Ints, predicted: Ints, num_labels: int) -> Ints:
    """Count rows (N, N): gold label down, predicted label across.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(gold * num_labels + predicted, minlength=num_labels**2).reshape(num_labels, num_labels)


def _ratio(above: Any, below: Any) -> Floats:
    above, below = np.asarray(above, float), np.asarray(below, float)
    result: Floats = np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)
    return result


def precision_recall_f1(hits: Any, predicted: Any, gold: Any) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 from counts of right, predicted and gold positives; arrays go through.

    >>> [float(x) for x in precision_recall_f1(2, 4, 2)]
    [0.5, 1.0, 0.6666666666666666]
    """
    hits, predicted, gold = (np.asarray(x, float) for x in (hits, predicted, gold))
    return _ratio(hits, predicted), _ratio(hits, gold), _ratio(2 * hits, predicted + gold)


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
        "f1_micro": float(_ratio(2 * hits.sum(), predicted.sum() + gold.sum())),
        "f1_weighted": float(_ratio((f1 * gold).sum(), gold.sum())),
    }


def matthews(matrix: Ints) -> float:
    """Return the Matthews correlation of a confusion matrix (N, N), for any number of labels.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    counts = matrix.astype(float)
    gold, predicted, total, right = counts.sum(1), counts.sum(0), counts.sum(), np.trace(counts)
    spread = (total**2 - (predicted**2).sum()) * (total**2 - (gold**2).sum())
    return float(_ratio(right * total - (gold * predicted).sum(), np.sqrt(max(spread, 0.0))))


def single_label(matrix: Ints, positive: int | None) -> dict[str, float]:
    """Return every figure of a confusion matrix (N, N).

    Args:
        matrix: gold label down, predicted label across.
        positive: the label that precision, recall and F1 are about when there are two; None averages them (macro).
    """
    hits, predicted, gold = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    precision, recall, f1 = precision_recall_f1(hits, predicted, gold)
    averages = averaged_f1(hits, predicted, gold)
    counted = predicted + gold > 0
    figures = {"accuracy": float(_ratio(hits.sum(), matrix.sum()))}
    if positive is not None:
        figures |= {"precision": float(precision[positive]), "recall": float(recall[positive]), "f1": float(f1[positive])}
    else:
        figures |= {"precision_macro": float(precision[counted].mean()), "recall_macro": float(recall[counted].mean())}
    return figures | averages | {"mcc": matthews(matrix)}


def multi_label(gold: Bools, predicted: Bools) -> dict[str, float]:
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


def regression(gold: Floats, predicted: Floats) -> dict[str, float]:
    """Return Pearson, Spearman, mean squared and mean absolute error."""
    wrong = predicted - gold
    return {
        "pearson": pearson(gold, predicted),
        "spearman": spearman(gold, predicted),
        "mse": float((wrong**2).mean()),
        "mae": float(np.abs(wrong).mean()),
    }


def interval(metric: Callable[..., float], *columns: npt.NDArray[Any], resamples: int = 1000) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a metric: rows drawn with replacement, percentiles of the outcome.

    Args:
        metric: a function of the columns.
        columns: arrays with one entry a row.
        resamples: how often rows are drawn; always with the same seed.

    Returns:
        Lower and upper end; None for fewer than 2 rows, of which nothing can be said.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    n = len(columns[0])
    if n < 2:
        return None
    random = np.random.default_rng(0)
    outcomes = []
    for _ in range(resamples):
        drawn = random.integers(0, n, n)
        outcomes.append(metric(*(c[drawn] for c in columns)))
    low, high = np.percentile(outcomes, [2.5, 97.5])
    return float(low), float(high)


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
    return next((t for digits in range(6, 20) if low < (t := round(float(cut[i]), digits)) <= high), float(high))


def per_label(labels: Sequence[str], hits: Any, predicted: Any, gold: Any) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support of each label."""
    precision, recall, f1 = precision_recall_f1(hits, predicted, gold)
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for label, p, r, f, s in zip(labels, precision, recall, f1, np.asarray(gold), strict=True)
    }


class SpanCounts(NamedTuple):
    """How many spans of each sentence: right, predicted, gold, by label (n, N); and by other ideas of right (n, 4)."""

    hits: Ints
    predicted: Ints
    gold: Ints
    loose: Ints
    """Right boundaries whatever the label; predicted spans that touch a gold span of their label; gold spans that touch a predicted one
    of theirs; right boundaries with the right label."""


def count_spans(gold: Sequence[Sequence[SpanOf]], predicted: Sequence[Sequence[SpanOf]], labels: Sequence[str]) -> SpanCounts:
    """Count the spans of sentences; a span is `(start, end, label)`, and right if all three are."""
    ids = {label: n for n, label in enumerate(labels)}
    counts = np.zeros((3, len(gold), len(labels)), np.int64)
    loose = np.zeros((len(gold), 4), np.int64)
    for n, (g, p) in enumerate(zip(gold, predicted, strict=True)):
        for kind, found in enumerate((set(g) & set(p), p, g)):
            for _, _, label in found:
                counts[kind, n, ids[label]] += 1
        loose[n] = (
            len({s[:2] for s in g} & {s[:2] for s in p}),
            sum(any(_touch(s, other) for other in g) for s in p),
            sum(any(_touch(s, other) for other in p) for s in g),
            counts[0, n].sum(),
        )
    return SpanCounts(counts[0], counts[1], counts[2], loose)


def _touch(span: SpanOf, other: SpanOf) -> bool:
    return span[2] == other[2] and span[0] < other[1] and other[0] < span[1]


def spans(counts: SpanCounts) -> dict[str, float]:
    """Return every figure of spans: exact, by boundaries alone, and by label alone.

    `boundary_f1`: start and end are right, whatever the label. `type_f1`: a span of the same label is touched, wherever it begins and
    ends. `type_accuracy`: share of right labels among right boundaries.

    Source: Nakayama 2018 (seqeval) for the exact figures; Segura-Bedmar et al. 2013 (SemEval task 9) for the two others.
    """
    hits, predicted, gold = (c.sum(0) for c in counts[:3])
    precision, recall, f1 = precision_recall_f1(hits.sum(), predicted.sum(), gold.sum())
    averages = averaged_f1(hits, predicted, gold)
    boundary, touching, touched, right = counts.loose.sum(0)
    t_precision, t_recall = _ratio(touching, predicted.sum()), _ratio(touched, gold.sum())
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "f1_macro": averages["f1_macro"],
        "boundary_f1": float(_ratio(2 * boundary, predicted.sum() + gold.sum())),
        "type_f1": float(_ratio(2 * t_precision * t_recall, t_precision + t_recall)),
        "type_accuracy": float(_ratio(right, boundary)),
    }
