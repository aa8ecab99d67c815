"""Precision, recall and F1 of labelled spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bertune.metrics.classification import Ints, averaged_f1, precision_recall_f1, safe_divide

LabelledSpan = tuple[int, int, str]


class SpanCounts(NamedTuple):
    """How many spans of each sentence: right, predicted, gold, by label (n, N); and by other ideas of right (n, 4)."""

    hits: Ints
    predicted: Ints
    gold: Ints
    relaxed: Ints
    """Right boundaries whatever the label; predicted spans that touch a gold span of their label; gold spans that touch a predicted one
    of theirs; right boundaries with the right label."""


def count_spans(
    gold: Sequence[Sequence[LabelledSpan]], predicted: Sequence[Sequence[LabelledSpan]], labels: Sequence[str]
) -> SpanCounts:
    """Count the spans of sentences; a span is `(start, end, label)`, and right if all three are."""
    ids = {label: n for n, label in enumerate(labels)}
    counts = np.zeros((3, len(gold), len(labels)), np.int64)
    relaxed = np.zeros((len(gold), 4), np.int64)
    for n, (g, p) in enumerate(zip(gold, predicted, strict=True)):
        for kind, found in enumerate((set(g) & set(p), p, g)):
            for _, _, label in found:
                counts[kind, n, ids[label]] += 1
        relaxed[n] = (
            len({s[:2] for s in g} & {s[:2] for s in p}),
            sum(any(_touch(s, other) for other in g) for s in p),
            sum(any(_touch(s, other) for other in p) for s in g),
            counts[0, n].sum(),
        )
    return SpanCounts(counts[0], counts[1], counts[2], relaxed)


def _touch(span: LabelledSpan, other: LabelledSpan) -> bool:
    return span[2] == other[2] and span[0] < other[1] and other[0] < span[1]


def span_scores(counts: SpanCounts) -> dict[str, float]:
    """Return every figure of spans: exact, by boundaries alone, and by label alone.

    `boundary_f1`: start and end are right, whatever the label. `type_f1`: a span of the same label is touched, wherever it begins and
    ends. `type_accuracy`: share of right labels among right boundaries.

    Source: Nakayama 2018 (seqeval) for the exact figures; Segura-Bedmar et al. 2013 (SemEval task 9) for the two others.
    """
    hits, predicted, gold = (c.sum(0) for c in counts[:3])
    precision, recall, f1 = precision_recall_f1(hits.sum(), predicted.sum(), gold.sum())
    averages = averaged_f1(hits, predicted, gold)
    boundary, touching, touched, right = counts.relaxed.sum(0)
    t_precision, t_recall = safe_divide(touching, predicted.sum()), safe_divide(touched, gold.sum())
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "f1_macro": averages["f1_macro"],
        "boundary_f1": float(safe_divide(2 * boundary, predicted.sum() + gold.sum())),
        "type_f1": float(safe_divide(2 * t_precision * t_recall, t_precision + t_recall)),
        "type_accuracy": float(safe_divide(right, boundary)),
    }
