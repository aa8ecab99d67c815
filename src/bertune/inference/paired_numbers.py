"""Predictions of numbers by several models on the same rows: values, similarities, and scores of searches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertune.inference.paired_rows import PairedRows, PairMetrics
from bertune.metrics.classification import Bools, Floats
from bertune.metrics.weighted import WeightedMetric, number_metric, threshold_metric, weighted_mean
from bertune.tasks.base.search_scores import queries_of, rank_texts
from bertune.tasks.embed import Embed
from bertune.types import Example, Prediction

SAME_NUMBER = 1e-6
"""Numbers of two models that differ by no more than this, or this share of them, are the same prediction."""


class ValueRows(PairedRows):
    """A number a row."""

    def __init__(self, main: str, predictions: Sequence[Sequence[Prediction]], gold: Sequence[float]) -> None:
        self._main, self._gold = main, np.array(gold, float)
        self._predicted = [np.array([p.value for p in rows], float) for rows in predictions]
        self.num_units = len(gold)

    def pair(self, a: int, b: int) -> PairMetrics:
        """Return the metrics of the numbers; every row is a type."""
        is_sum = self._main in {"pearson", "mse", "mae"}  # others need ranks or cumulated sums
        cost = self.num_units * (1 if is_sum else 10)
        first, second = self._metric(self._predicted[a]), self._metric(self._predicted[b])
        return PairMetrics(first, second, np.ones(self.num_units, np.int64), cost)

    def _metric(self, predicted: Floats) -> WeightedMetric:
        return number_metric(self._main, self._gold, predicted)

    def differ(self, a: int, b: int) -> Bools:
        """Return whether two numbers differ by more than rounding."""
        close = np.isclose(self._predicted[a], self._predicted[b], SAME_NUMBER, SAME_NUMBER)
        return np.asarray(~close)


class NumberRows(ValueRows):
    """Predictions of a number."""

    error_name = "absolute errors"

    def errors(self, model: int) -> Floats:
        """Return absolute errors."""
        return np.asarray(np.abs(self._predicted[model] - self._gold))

    def row_numbers(self, model: int) -> dict[str, Floats]:
        """Return the absolute error of each row."""
        return {"error": self.errors(model)}


class SimilarityRows(ValueRows):
    """Similarities of pairs that have scores; the two are numbers of different scales."""

    error_name = "errors of ranks"

    def errors(self, model: int) -> Floats:
        """Return how far a row's rank by similarity is from its rank by score, as a share of all ranks."""
        from scipy.stats import rankdata

        ranks = rankdata(self._predicted[model]), rankdata(self._gold)
        return np.asarray(np.abs(ranks[0] - ranks[1]) / max(1, self.num_units - 1))


class BinaryRows(ValueRows):
    """Similarities of pairs that have labels, 0 and 1."""

    error_name = "shares of pairs on the wrong side"

    def _metric(self, predicted: Floats) -> WeightedMetric:
        return threshold_metric(self._main, self._gold > 0, predicted)

    def errors(self, model: int) -> Floats:
        """Return the share of the rows of the other label that are on the wrong side of a row; ties half."""
        similarity, is_positive = self._predicted[model], self._gold > 0
        errors = np.empty(self.num_units)
        for own, sign in ((is_positive, 1), (~is_positive, -1)):
            others = np.sort(sign * similarity[~own])
            own_similarity = sign * similarity[own]
            above = len(others) - np.searchsorted(others, own_similarity, "right")
            above_or_tied = len(others) - np.searchsorted(others, own_similarity, "left")
            errors[own] = (above + above_or_tied) / 2 / max(1, len(others))
        return errors


class SearchRows(PairedRows):
    """Queries of a search, whose texts to find are ranked by each model.

    Args:
        tasks: of each model, which says how its vectors are compared.
        main: the metric to compare.
        predictions: (m, n) of each model.
        examples: (n,) rows with a query and texts to find.
    """

    unit = "queries"
    error_name = "scores of queries"

    def __init__(
        self,
        tasks: Sequence[Embed],
        main: str,
        predictions: Sequence[Sequence[Prediction]],
        examples: Sequence[Example],
    ) -> None:
        self._main = main
        self._scores = [
            rank_texts(rows, examples, task.similarity).per_query[main]
            for task, rows in zip(tasks, predictions, strict=True)
        ]
        index_of = {query: n for n, query in enumerate(queries_of(examples))}
        self._query = np.array([index_of[example.texts[0]] for example in examples])
        self.num_units = len(index_of)

    def pair(self, a: int, b: int) -> PairMetrics:
        """Return the mean scores of the queries."""
        first, second = (weighted_mean(self._scores[n]) for n in (a, b))
        return PairMetrics(first, second, np.ones(self.num_units, np.int64), self.num_units)

    def errors(self, model: int) -> Floats:
        """Return how far each query is from a score of 1."""
        return np.asarray(1 - self._scores[model])

    def differ(self, a: int, b: int) -> Bools:
        """Return whether the query of a row has another score."""
        return np.asarray((np.abs(self._scores[a] - self._scores[b]) > SAME_NUMBER)[self._query])

    def row_numbers(self, model: int) -> dict[str, Floats]:
        """Return the score of the query of each row."""
        return {self._main: self._scores[model][self._query]}


class TextRows(PairedRows):
    """Single texts, whose vectors have no right answer."""

    unit = "texts"

    def __init__(self, examples: Sequence[Example]) -> None:
        self.num_units = len(examples)

    def pair(self, a: int, b: int) -> None:
        """Return nothing: how far texts lie apart is no mean over rows."""

    def differ(self, a: int, b: int) -> Bools:
        """Return that no text has a prediction."""
        return np.zeros(self.num_units, bool)
