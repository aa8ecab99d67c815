"""Vectors of length 1, and metrics of the similarity of pairs that have a score or a label.

Letters: `n` rows, `c` thresholds.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.metrics.classification import Bools, Floats, Ints, precision_recall_f1
from bertune.metrics.regression import pearson, spearman

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
"""How alike two vectors are: their cosine, their product, or their distance, negative."""

_MIN_NORM = 1e-12
"""`torch.nn.functional.normalize` has the same limit."""
_MARGIN = 1e-6
"""How far above 1 a threshold may be. Rounding moves the cosine of equal vectors less far from 1."""


def l2_normalize(vectors: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """Return vectors (..., d) with length 1; a zero vector stays zero.

    This is the rule of `torch.nn.functional.normalize`: a vector is divided by its length, but by no less
    than 1e-12.

    Args:
        vectors: (..., d).
        dtype: the type of the computation and of the result; None for the type of `vectors`.
    """
    array = np.asarray(vectors, dtype)
    normalized: npt.NDArray[Any] = array / np.maximum(
        np.linalg.norm(array, axis=-1, keepdims=True), _MIN_NORM
    )
    return normalized


def similarity_matrix(
    a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], similarity: Similarity
) -> npt.NDArray[np.floating]:
    """Return the similarity (n, m) of each row of `a` (n, d) with each row of `b` (m, d).

    Distances are negative, so that more is always more alike, as in sentence-transformers.

    >>> similarity_matrix(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), "euclidean").tolist()
    [[-5.0]]
    """
    distances: npt.NDArray[np.floating]
    if similarity == "manhattan":
        distances = np.stack([np.abs(b - row).sum(1) for row in a])
        return -distances
    if similarity == "euclidean":  # in fp64: small distances of long vectors are small differences
        x, y = a.astype(np.float64), b.astype(np.float64)
        squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
        distances = np.sqrt(np.maximum(squares, 0))
        return -distances
    if similarity == "cosine":
        a, b = l2_normalize(a), l2_normalize(b)
    products: npt.NDArray[np.floating] = a @ b.T
    return products


def correlation_scores(gold: Floats, similarity: npt.NDArray[np.floating]) -> dict[str, float]:
    """Return the correlations of gold scores (n,) and similarities (n,): of ranks, and of values.

    >>> round(correlation_scores(np.array([1.0, 2, 5]), np.array([0.1, 0.2, 0.9]))["spearman"], 6)
    1.0
    """
    scores, cosines = np.asarray(gold, np.float64), np.asarray(similarity, np.float64)
    return {"spearman": spearman(scores, cosines), "pearson": pearson(scores, cosines)}


class _Thresholds(NamedTuple):
    """All thresholds that split rows by similarity, from no positive row to all. Ties are not split."""

    hits: Ints
    """(c,) right positives."""
    predicted: Ints
    """(c,) predicted positives."""
    edges: Floats
    """(c + 1,) falling: threshold i is above edge i + 1, and at most edge i."""

    def value(self, index: int) -> float:
        """Return a threshold halfway between its edges, with the fewest digits that leave it between them.

        Its fp32 value is between them too, since numpy compares fp32 similarities with that.
        """
        high, low = self.edges[index], self.edges[index + 1]
        middle = float(low + high) / 2
        rounded = (round(middle, digits) for digits in range(6, 18))
        return next(
            (t for t in rounded if low < t <= high and low < float(np.float32(t)) <= high), float(high)
        )


def _all_thresholds(gold: Bools, similarity: npt.NDArray[np.floating]) -> _Thresholds:
    order = np.argsort(-similarity, kind="stable")
    falling = similarity[order].astype(float)
    last = np.flatnonzero(np.append(falling[:-1] > falling[1:], True))  # of each run of ties
    hits = np.cumsum(gold[order])[last]
    highest, lowest = max(1.0, falling[0] + _MARGIN), min(-1.0, falling[-1])
    return _Thresholds(
        np.append(0, hits), np.append(0, last + 1), np.concatenate([[highest], falling[last], [lowest]])
    )


def binary_similarity_scores(gold: Bools, similarity: npt.NDArray[np.floating]) -> dict[str, float]:
    """Return average precision, and the highest accuracy and F1 of any threshold on these rows.

    A row is positive if its similarity is at least the threshold. A threshold is halfway between two
    similarities; the outermost are halfway to 1 and to -1. Of equally good thresholds the highest counts.
    Precision and recall are those of the highest F1.

    Args:
        gold: (n,) whether the texts of each pair belong together; n is at least 1.
        similarity: (n,) cosines.

    Source: average precision as in scikit-learn's `average_precision_score`; thresholds as in
        sentence-transformers' `BinaryClassificationEvaluator`, except that it has no threshold at which every
        row is negative.

    >>> binary_similarity_scores(np.array([True, True, False]), np.array([0.9, 0.4, 0.2]))["f1_threshold"]
    0.3
    """
    thresholds = _all_thresholds(gold, similarity)
    positives = int(gold.sum())
    precision, recall, f1 = precision_recall_f1(thresholds.hits, thresholds.predicted, positives)
    # Right rows: true positives and true negatives.
    right = 2 * thresholds.hits - thresholds.predicted + len(gold) - positives
    best, best_f1 = int(right.argmax()), int(f1.argmax())
    return {
        "average_precision": float(np.diff(recall) @ precision[1:]),
        "accuracy": float(right[best] / len(gold)),
        "accuracy_threshold": thresholds.value(best),
        "f1": float(f1[best_f1]),
        "precision": float(precision[best_f1]),
        "recall": float(recall[best_f1]),
        "f1_threshold": thresholds.value(best_f1),
    }
