"""How good similarities of pairs are: pairs with a score, and pairs with a label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.metrics.classification import Bools, Floats, Ints, precision_recall_f1
from bertune.metrics.regression import pearson, spearman

_BEYOND = 1e-6
"""How far above the highest cosine, where that is 1, a threshold may lie; rounding takes cosines of equal vectors less far from 1."""


def correlation_scores(gold: Floats, similarity: npt.NDArray[np.floating]) -> dict[str, float]:
    """Return the correlations of similarities (n,) with what people say (n,): of ranks, and of values.

    >>> round(correlation_scores(np.array([1.0, 2, 5]), np.array([0.1, 0.2, 0.9]))["spearman"], 6)
    1.0
    """
    scores, cosines = np.asarray(gold, np.float64), np.asarray(similarity, np.float64)
    return {"spearman": spearman(scores, cosines), "pearson": pearson(scores, cosines)}


class _Cuts(NamedTuple):
    """Every way to cut rows by similarity, from none positive to all of them, c ways; ties are never cut."""

    hits: Ints
    """(c,) right positives."""
    predicted: Ints
    """(c,) positives."""
    edges: Floats
    """(c + 1,) falling: a cut lies above the next edge, at most at its own."""

    def threshold(self, cut: int) -> float:
        """Return a number in the middle between the rows on both sides of a cut, with as few digits as keep it between them.

        In fp32 too, which is what numpy compares fp32 with.
        """
        high, low = self.edges[cut], self.edges[cut + 1]
        middle = float(low + high) / 2
        short = (round(middle, digits) for digits in range(6, 18))
        return next((t for t in short if low < t <= high and low < float(np.float32(t)) <= high), float(high))


def _cuts(gold: Bools, similarity: npt.NDArray[np.floating]) -> _Cuts:
    order = np.argsort(-similarity, kind="stable")
    falling = similarity[order].astype(float)
    last = np.flatnonzero(np.append(falling[:-1] > falling[1:], True))  # of each run of ties
    hits = np.cumsum(gold[order])[last]
    above, below = max(1.0, falling[0] + _BEYOND), min(-1.0, falling[-1])
    return _Cuts(
        np.append(0, hits), np.append(0, last + 1), np.concatenate([[above], falling[last], [below]])
    )


def binary_similarity_scores(gold: Bools, similarity: npt.NDArray[np.floating]) -> dict[str, float]:
    """Return average precision, and the best accuracy and the best F1 that a threshold can reach on these rows.

    A row counts as positive from the threshold upwards. A threshold lies halfway between two similarities; the outermost ones halfway
    to 1 and to -1. Among thresholds that are as good as each other it is the highest. Precision and recall are those of the best F1.

    Args:
        gold: (n,) which pairs belong together, at least one row.
        similarity: (n,) cosines.

    Source: average precision as scikit-learn's `average_precision_score`; thresholds as sentence-transformers'
    `BinaryClassificationEvaluator`, which cannot call every row negative.

    >>> binary_similarity_scores(np.array([True, True, False]), np.array([0.9, 0.4, 0.2]))["f1_threshold"]
    0.3
    """
    cuts = _cuts(gold, similarity)
    positives = int(gold.sum())
    precision, recall, f1 = precision_recall_f1(cuts.hits, cuts.predicted, positives)
    right = (
        2 * cuts.hits - cuts.predicted + len(gold) - positives
    )  # positives that are found and negatives that are not
    best, best_f1 = int(right.argmax()), int(f1.argmax())
    return {
        "average_precision": float(np.diff(recall) @ precision[1:]),
        "accuracy": float(right[best] / len(gold)),
        "accuracy_threshold": cuts.threshold(best),
        "f1": float(f1[best_f1]),
        "precision": float(precision[best_f1]),
        "recall": float(recall[best_f1]),
        "f1_threshold": cuts.threshold(best_f1),
    }
