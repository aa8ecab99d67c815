"""How predictions of several models are compared, by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from bertune.errors import listed
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


def comparison_faults(names: Sequence[str], tasks: Sequence[Task]) -> list[str]:
    """Return why models cannot be compared, a line a reason: other problems, other labels.

    Args:
        names: (m,) of the models, for messages.
        tasks: (m,) of each model.
    """
    problems = [_problem(task) for task in tasks]
    if len(set(problems)) > 1:
        each = "; ".join(f"{name}: {problem}" for name, problem in zip(names, problems, strict=True))
        return [f"the models solve different problems: {each}; give models of one"]
    faults = []
    first = _labels_of(tasks[0])
    for name, task in zip(names[1:], tasks[1:], strict=True):
        labels = _labels_of(task)
        lacks, more = (set(x) - set(y) for x, y in ((first, labels), (labels, first)))
        parts = [f"lacks {listed(sorted(lacks))}"] if lacks else []
        parts += [f"has {listed(sorted(more))} besides"] if more else []
        if parts:
            faults.append(
                f"{name} has other labels than {names[0]}: it {' and '.join(parts)}; "
                "give models with the same labels"
            )
    return faults


def comparison_notes(names: Sequence[str], tasks: Sequence[Task], lead: int, main: str) -> list[str]:
    """Return how models were trained in another way than they are compared, a line a way.

    Args:
        names: (m,) of the models.
        tasks: (m,) of each model.
        lead: the one that reads and scores the rows.
        main: the metric to compare.
    """
    ways = {
        "chosen by the metric": ([getattr(t.options, "metric", "") for t in tasks], f"compared by {main}"),
        "trained on": (
            [t.unit if isinstance(t, Tag) else "" for t in tasks],
            f"plain texts are cut as for {names[lead]}",
        ),
        "trained for the positive label": (
            [_positive_label(t) for t in tasks],
            f"scored by that of {names[lead]}",
        ),
    }
    return [
        f"the models were {way} {'; '.join(map('{1} ({0})'.format, names, values))}; here {here}"
        for way, (values, here) in ways.items()
        if len(set(values)) > 1
    ]


def _positive_label(task: Task) -> str:
    is_binary = isinstance(task, Classify) and task.positive_id is not None
    return task.labels[task.positive_id or 0] if isinstance(task, Classify) and is_binary else ""


def _problem(task: Task) -> str:
    """Return the task and the form of its labels; the same for all models of sentence vectors."""
    name = type(task).__name__.lower()
    if isinstance(task, Classify):
        return f"{name}, {'several labels' if task.is_multi_label else 'one label'} a row"
    if isinstance(task, Tag):
        return f"{name}, {'one tag a word' if task.scheme == 'none' else 'entities'}"
    if isinstance(task, Match) and task.labels:
        return f"{name}, one label a pair"
    return "similarity of texts" if type(task) in {Match, Embed} else name


def _labels_of(task: Task) -> tuple[str, ...]:
    """Return the labels that a task predicts; nothing for numbers."""
    name = "entity_types" if isinstance(task, Tag) else "labels"
    return tuple(getattr(task, name, ()))
