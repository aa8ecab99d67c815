"""How predictions of several models are compared, by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from bertune.inference.paired_labels import LabelRows, LabelSetRows, SpanRows
from bertune.inference.paired_numbers import (
    BinaryRows,
    NumberRows,
    SearchRows,
    SimilarityRows,
    TextRows,
)
from bertune.inference.paired_rows import NUMBERS_OF_ALL_RESAMPLES, PairedRows, PairMetrics
from bertune.metrics.classification import Bools, Floats
from bertune.metrics.weighted import WeightedMetric
from bertune.tasks.base.task import Task
from bertune.tasks.classify import Classify
from bertune.tasks.embed import Embed
from bertune.tasks.match import Match
from bertune.tasks.regress import Regress
from bertune.tasks.tag import Tag
from bertune.types import Example, Prediction


def paired_rows(
    tasks: Sequence[Task], main: str, predictions: Sequence[Sequence[Prediction]], examples: Sequence[Example]
) -> PairedRows:
    """Return how the predictions of models are compared.

    Args:
        tasks: (m,) of each model, the first one says what targets mean; all have `main` as main metric.
        main: the metric to compare.
        predictions: (m, n) of each model.
        examples: (n,) with targets.
    """
    task, score = tasks[0], type(tasks[0]).score
    if isinstance(task, Classify) and score is Classify.score:
        if task.is_multi_label:
            return LabelSetRows(task, main, predictions, examples)
        return LabelRows(task.labels, main, predictions, examples, task.positive_id)
    if isinstance(task, Match) and score is Match.score and task.labels:
        return LabelRows(task.labels, main, predictions, examples, None)
    if isinstance(task, Tag) and score is Tag.score:
        return SpanRows(task, main, predictions, examples)
    if isinstance(task, Regress) and score is Regress.score:
        return NumberRows(main, predictions, [e.target for e in examples])
    if isinstance(task, Match) and score is Match.score:
        gold = [e.target for e in examples]
        kind = "labels" if task.is_binary else "scores"
    elif isinstance(task, Embed) and score is Embed.score:
        gold, kind = [task.relatedness_of(e) for e in examples], task.evaluation_kind(examples)
    else:
        return OwnTaskRows(task, main, predictions, examples)
    if kind == "labels":
        return BinaryRows(main, predictions, gold)
    if kind == "scores":
        return SimilarityRows(main, predictions, gold)
    if kind == "search":
        return SearchRows(cast("Sequence[Embed]", tasks), main, predictions, examples)
    return TextRows(examples)


class OwnTaskRows(PairedRows):
    """A task of the user's own, which scores each resample itself."""

    def __init__(
        self, task: Task, main: str, predictions: Sequence[Sequence[Prediction]], examples: Sequence[Example]
    ) -> None:
        self._task, self._main = task, main
        self._predictions, self._examples = predictions, examples
        self.num_units = len(examples)

    def pair(self, a: int, b: int) -> PairMetrics:
        """Return the main metric by the task's own score."""
        counts = np.ones(self.num_units, np.int64)
        return PairMetrics(self._metric(a), self._metric(b), counts, NUMBERS_OF_ALL_RESAMPLES)

    def _metric(self, model: int) -> WeightedMetric:
        def score(weights: Floats) -> float:
            rows = np.repeat(np.arange(self.num_units), weights.astype(int)).tolist()
            predictions, examples = self._predictions[model], self._examples
            scores = self._task.score(
                [predictions[n] for n in rows], [examples[n] for n in rows], intervals=False
            )
            return scores.values[self._main]

        return lambda weights: np.array([score(row) for row in weights])

    def differ(self, a: int, b: int) -> Bools:
        """Return whether the values of two predictions differ."""
        pairs = zip(self._predictions[a], self._predictions[b], strict=True)
        return np.array([x.value != y.value for x, y in pairs])
