"""Scores of predicted labels, in time and memory that grow with rows and labels, not with their squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.classification import (
    LabelCounts,
    LabelPairs,
    MultiLabelMetrics,
    confusion_matrix,
    most_confused,
    per_label_scores,
    single_label_scores,
)
from bertune.types import Scores

MOST_LABELS = 100
"""Labels up to which the confusion matrix is whole."""
MOST_PAIRS = 1000
"""Pairs of confused labels that are kept beyond."""
Ints = npt.NDArray[np.int64]


def score_single_label(
    labels: Sequence[str], gold: Ints, predicted: Ints, main: str, positive: int | None, *, intervals: bool
) -> Scores:
    """Score rows with one label.

    Args:
        labels: all labels.
        gold: (n,) the id of the label of each row.
        predicted: (n,) the id of the predicted label.
        main: the metric that decides.
        positive: the id of the positive label, where there are two.
        intervals: whether to compute the bootstrap interval of the main metric.
    """
    counts = LabelCounts.of_ids(gold, predicted, len(labels))
    # Labels that no row has change no metric, so that resamples need not count them.
    present = np.unique(np.concatenate([gold, predicted])) if len(labels) > MOST_LABELS else None
    columns = (
        (gold, predicted) if present is None else (np.searchsorted(present, i) for i in (gold, predicted))
    )
    num_present = len(labels) if present is None else len(present)

    def main_score(g: Any, p: Any) -> float:
        return single_label_scores(LabelCounts.of_ids(g, p, num_present), positive)[main]

    interval = bootstrap_interval(main_score, *columns) if intervals else None
    return Scores(
        main,
        True,
        single_label_scores(counts, positive),
        {main: interval} if interval else {},
        per_label_scores(labels, counts.hits, counts.predicted, counts.gold),
        _confusion(labels, gold, predicted),
    )


def _confusion(labels: Sequence[str], gold: Ints, predicted: Ints) -> dict[str, dict[str, int]]:
    """Return rows by gold and predicted label; of many labels the pairs that are most often confused."""
    if len(labels) <= MOST_LABELS:
        return {
            label: dict(zip(labels, map(int, counts), strict=True))
            for label, counts in zip(labels, confusion_matrix(gold, predicted, len(labels)), strict=True)
        }
    confusion: dict[str, dict[str, int]] = {}
    for g, p, count in most_confused(gold, predicted, MOST_PAIRS):
        confusion.setdefault(labels[g], {})[labels[p]] = count
    return confusion


def score_multi_label(
    labels: Sequence[str],
    gold: Sequence[Sequence[int]],
    predicted: Sequence[Sequence[int]],
    main: str,
    *,
    intervals: bool,
) -> Scores:
    """Score rows with several labels.

    Args:
        labels: all labels.
        gold: the ids of the labels of each row.
        predicted: the ids of the predicted labels of each row.
        main: the metric that decides.
        intervals: whether to compute the bootstrap interval of the main metric.
    """
    metrics = MultiLabelMetrics(*(LabelPairs.of_lists(ids, len(labels)) for ids in (gold, predicted)))
    interval = None
    if intervals:
        interval = bootstrap_interval(lambda rows: metrics.resampled(rows, main), np.arange(len(gold)))
    counts = (pairs.count_labels() for pairs in (metrics.hits, metrics.predicted, metrics.gold))
    return Scores(
        main,
        True,
        metrics.scores(),
        {main: interval} if interval else {},
        per_label_scores(labels, *counts),
    )
