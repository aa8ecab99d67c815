"""Metrics of labelled spans: precision, recall, F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bertune.metrics.classification import Ints, averaged_f1, precision_recall_f1, safe_divide

LabelledSpan = tuple[int, int, str]


class SpanCounts(NamedTuple):
    """The numbers of spans of each sentence (n) and label (N)."""

    hits: Ints
    """(n, N) right spans."""
    predicted: Ints
    """(n, N) predicted spans."""
    gold: Ints
    """(n, N) gold spans."""
    relaxed: Ints
    """(n, 4) right boundaries, whatever the label; predicted spans that overlap a gold span of their label;
    gold spans that overlap a predicted span of their label; right boundaries with the right label."""


def count_spans(
    gold: Sequence[Sequence[LabelledSpan]], predicted: Sequence[Sequence[LabelledSpan]], labels: Sequence[str]
) -> SpanCounts:
    """Count the spans of sentences. A span is `(start, end, label)`; it is right if all three are."""
    ids = {label: n for n, label in enumerate(labels)}
    counts = np.zeros((3, len(gold), len(labels)), np.int64)
    relaxed = np.zeros((len(gold), 4), np.int64)
    for n, (g, p) in enumerate(zip(gold, predicted, strict=True)):
        for row, spans in enumerate((set(g) & set(p), p, g)):
            for _, _, label in spans:
                counts[row, n, ids[label]] += 1
        relaxed[n] = (
            len({s[:2] for s in g} & {s[:2] for s in p}),
            sum(any(_overlap(s, other) for other in g) for s in p),
            sum(any(_overlap(s, other) for other in p) for s in g),
            counts[0, n].sum(),
        )
    return SpanCounts(counts[0], counts[1], counts[2], relaxed)


def count_tags(
    gold: Sequence[Sequence[LabelledSpan]], predicted: Sequence[Sequence[LabelledSpan]], labels: Sequence[str]
) -> SpanCounts:
    """Count the tags of sentences, one a word, as spans of one word; `relaxed` is not counted."""
    ids = {label: n for n, label in enumerate(labels)}
    counts = np.zeros((3, len(gold), len(labels)), np.int64)
    for n, (g, p) in enumerate(zip(gold, predicted, strict=True)):
        for row, spans in enumerate((set(g) & set(p), p, g)):
            np.add.at(counts[row, n], [ids[label] for _, _, label in spans], 1)
    return SpanCounts(counts[0], counts[1], counts[2], np.zeros((len(gold), 4), np.int64))


def tag_scores(counts: SpanCounts) -> dict[str, float]:
    """Return all metrics of tags, one a word.

    - `accuracy`: fraction of words with the right tag.
    - `f1_macro`: mean F1 of the tags.
    """
    hits, predicted, gold = (c.sum(0) for c in counts[:3])
    return {
        "accuracy": float(safe_divide(hits.sum(), gold.sum())),
        "f1_macro": averaged_f1(hits, predicted, gold)["f1_macro"],
    }


def _overlap(span: LabelledSpan, other: LabelledSpan) -> bool:
    """Tell whether two spans have a common part and the same label."""
    return span[2] == other[2] and span[0] < other[1] and other[0] < span[1]


def span_scores(counts: SpanCounts) -> dict[str, float]:
    """Return all metrics of spans: exact, by boundaries alone, and by label alone.

    - `precision`, `recall`, `f1`, `f1_macro`: start, end and label are right.
    - `boundary_f1`: start and end are right, whatever the label.
    - `type_f1`: the span overlaps one of the same label.
    - `type_accuracy`: fraction of right labels among right boundaries.

    Source: Nakayama 2018 (seqeval) for the exact metrics; Segura-Bedmar et al. 2013 (SemEval task 9) for
        `boundary_f1` and `type_f1`.
    """
    hits, predicted, gold = (c.sum(0) for c in counts[:3])
    precision, recall, f1 = precision_recall_f1(hits.sum(), predicted.sum(), gold.sum())
    averages = averaged_f1(hits, predicted, gold)
    boundary, predicted_overlaps, gold_overlaps, right = counts.relaxed.sum(0)
    type_precision = safe_divide(predicted_overlaps, predicted.sum())
    type_recall = safe_divide(gold_overlaps, gold.sum())
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "f1_macro": averages["f1_macro"],
        "boundary_f1": float(safe_divide(2 * boundary, predicted.sum() + gold.sum())),
        "type_f1": float(safe_divide(2 * type_precision * type_recall, type_precision + type_recall)),
        "type_accuracy": float(safe_divide(right, boundary)),
    }
