"""Predictions of labels, sets of labels and spans by several models on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bertune.data.labels import format_label
from bertune.inference.paired_rows import PairedRows, PairMetrics
from bertune.metrics.classification import Bools, Floats, Ints
from bertune.metrics.spans import count_spans, count_tags
from bertune.metrics.weighted import (
    LabelSums,
    WeightedMetric,
    label_f1,
    label_metric,
    span_metric,
    stacked,
    weighted_mean,
)
from bertune.tasks.classify import Classify
from bertune.tasks.tag import Tag
from bertune.types import Example, Prediction


class LabelRows(PairedRows):
    """One label a row."""

    def __init__(
        self,
        labels: Sequence[str],
        main: str,
        predictions: Sequence[Sequence[Prediction]],
        examples: Sequence[Example],
        positive: int | None,
    ) -> None:
        ids = {label: n for n, label in enumerate(labels)}
        gold = np.array([ids[format_label(e.target)] for e in examples])
        predicted = [np.array([ids[str(p.value)] for p in rows]) for rows in predictions]
        # Labels that no row has change no metric. The positive one is kept.
        kept = np.unique(
            np.concatenate([gold, *predicted, [] if positive is None else [positive]]).astype(int)
        )
        self._gold, *self._predicted = (np.searchsorted(kept, x) for x in (gold, *predicted))
        self._positive = None if positive is None else int(np.searchsorted(kept, positive))
        # As in `single_label_scores`: f1 is of the positive label only.
        self._main, self.labels = main, tuple(labels[n] for n in kept)
        self.support = np.bincount(self._gold, minlength=len(kept))
        self.num_units = len(gold)

    def pair(self, a: int, b: int) -> PairMetrics:
        """Return the metrics; rows with the same gold label and predictions are of one type."""
        first, counts = _types(self._gold, self._predicted[a], self._predicted[b], len(self.labels))
        gold = self._gold[first]
        m = [self._metric(gold, self._predicted[n][first]) for n in (a, b)]
        return PairMetrics(m[0], m[1], counts, _label_cost(len(counts), len(self.labels)))

    def _metric(self, gold: Ints, predicted: Ints) -> WeightedMetric:
        from scipy import sparse

        shape, rows = (len(gold), len(self.labels)), np.arange(len(gold))
        right = gold == predicted
        parts = (gold[right], rows[right]), (predicted, rows), (gold, rows)
        tables = [sparse.csr_array((np.ones(len(ids)), (row, ids)), shape=shape) for ids, row in parts]
        sums = LabelSums(*tables)

        def value(weights: Floats) -> Floats:
            counted = sums(weights)
            main = label_metric(self._main, *counted, positive=self._positive)
            return np.concatenate([main[:, None], label_f1(*counted)], axis=1)

        return value

    def right(self, model: int) -> Bools:
        """Return whether the label is right."""
        return np.asarray(self._predicted[model] == self._gold)

    def differ(self, a: int, b: int) -> Bools:
        """Return whether two models predict different labels."""
        return np.asarray(self._predicted[a] != self._predicted[b])


class LabelSetRows(PairedRows):
    """Several labels a row."""

    def __init__(
        self,
        task: Classify,
        main: str,
        predictions: Sequence[Sequence[Prediction]],
        examples: Sequence[Example],
    ) -> None:
        self._main, self.labels = main, task.labels
        ids = {label: n for n, label in enumerate(task.labels)}
        sets: dict[tuple[int, ...], int] = {}  # different sets of labels, numbered

        def number(value: Any) -> int:
            return sets.setdefault(tuple(sorted({ids[label] for label in value})), len(sets))

        self._gold = np.array([number(e.target) for e in examples])
        self._predicted = [np.array([number(p.value) for p in rows]) for rows in predictions]
        self._sets = list(sets)
        self.support = np.bincount(
            [label for n in self._gold.tolist() for label in self._sets[n]], minlength=len(self.labels)
        )
        self.num_units = len(examples)

    def pair(self, a: int, b: int) -> PairMetrics:
        """Return the metrics; rows with the same sets of labels are of one type."""
        first, counts = _types(self._gold, self._predicted[a], self._predicted[b], len(self._sets))
        gold = self._gold[first]
        m = [self._metric(gold, self._predicted[n][first]) for n in (a, b)]
        return PairMetrics(m[0], m[1], counts, _label_cost(len(counts), len(self.labels)))

    def _metric(self, gold: Ints, predicted: Ints) -> WeightedMetric:
        sums, all_right = LabelSums(*self._tables(gold, predicted)), weighted_mean(gold == predicted)

        def value(weights: Floats) -> Floats:
            counted = sums(weights)
            if self._main == "accuracy":
                main = all_right(weights)
            else:
                main = label_metric(self._main, *counted, all_labels=True)
            return np.concatenate([main[:, None], label_f1(*counted)], axis=1)

        return value

    def _tables(self, gold: Ints, predicted: Ints) -> list[Any]:
        """Return right, predicted and gold labels as sparse tables (t, N)."""
        from scipy import sparse

        tables = []
        for numbers in (predicted, gold):
            members = [self._sets[n] for n in numbers.tolist()]
            rows = np.repeat(np.arange(len(members)), [len(m) for m in members])
            labels = np.array([label for m in members for label in m], np.int64)
            shape = len(members), len(self.labels)
            tables.append(sparse.csr_array((np.ones(len(rows)), (rows, labels)), shape=shape))
        return [tables[0].multiply(tables[1]), *tables]

    def right(self, model: int) -> Bools:
        """Return whether all labels of a row are right."""
        return np.asarray(self._predicted[model] == self._gold)

    def differ(self, a: int, b: int) -> Bools:
        """Return whether two models predict different labels."""
        return np.asarray(self._predicted[a] != self._predicted[b])


class SpanRows(PairedRows):
    """Spans of sentences."""

    unit = "sentences"

    def __init__(
        self, task: Tag, main: str, predictions: Sequence[Sequence[Prediction]], examples: Sequence[Example]
    ) -> None:
        gold = [list(e.target) for e in examples]
        self._spans = [
            [[(e.start, e.end, e.label) for e in p.value] for p in rows]  # type: ignore[union-attr]
            for rows in predictions
        ]
        count = count_tags if task.scheme == "none" else count_spans
        self._main, self.labels = main, task.entity_types
        self._counts = [count(gold, spans, self.labels) for spans in self._spans]
        self._right = [
            np.array([set(g) == set(p) for g, p in zip(gold, spans, strict=True)]) for spans in self._spans
        ]
        self.support = self._counts[0].gold.sum(0)
        self.num_units = len(examples)

    def pair(self, a: int, b: int) -> PairMetrics:
        """Return the metrics of spans; every sentence is a type."""
        counts = np.ones(self.num_units, np.int64)
        cost = _label_cost(self.num_units, len(self.labels))
        return PairMetrics(self._metric(a), self._metric(b), counts, cost)

    def _metric(self, model: int) -> WeightedMetric:
        counts = self._counts[model]
        sums = LabelSums(*counts[:3])
        return stacked(span_metric(self._main, counts), lambda weights: label_f1(*sums(weights)))

    def right(self, model: int) -> Bools:
        """Return whether all spans of a sentence are right, and none is missing."""
        return self._right[model]

    def differ(self, a: int, b: int) -> Bools:
        """Return whether two models predict different spans."""
        pairs = zip(self._spans[a], self._spans[b], strict=True)
        return np.array([set(x) != set(y) for x, y in pairs])


def _types(gold: Ints, a: Ints, b: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the first row of each type of rows, in the order of the rows, and how many rows it has.

    That order does not change where two models change places, so neither do the draws.
    """
    _, gold_and_a = np.unique(gold * size + a, return_inverse=True)  # or the product of three may overflow
    _, first, counts = np.unique(gold_and_a * size + b, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]


def _label_cost(num_types: int, num_labels: int) -> int:
    """Return how many numbers a resample costs: a weight for each type, and much work for each label."""
    return num_types + 20 * num_labels
