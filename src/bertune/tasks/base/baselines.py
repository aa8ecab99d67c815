"""What a model that has learnt nothing scores, and how scores compare with that.

A constant prediction is the best one for the rows that are scored, by the metric that decides: so a score
that is no better could be had without reading a text. scikit-learn's DummyClassifier and DummyRegressor,
fitted on the same rows, score the same.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from bertune.types import Baseline, Entity, Example, Prediction, Scores

if TYPE_CHECKING:
    from bertune.tasks.base.task import Task

_SAME = 1e-9
"""Differences of scores that rounding makes."""
UNEVEN = 0.65
"""Share of one label from which labels are uneven."""
TELLS_APART = 0.1
"""Correlation from which predictions have to do with the targets."""
CHANCE = {
    **dict.fromkeys(("pearson", "spearman", "mcc"), 0.1),
    **dict.fromkeys(("f1", "f1_macro", "boundary_f1", "type_f1"), 0.05),
}
"""What a head with random weights may score where a constant scores 0, without having learnt anything."""
HARDLY_DIFFER = 0.1
"""Deviation of predictions, in deviations of the targets, up to which they hardly differ."""


@dataclass(frozen=True)
class Sign:
    """What predictions show about a model that has learnt nothing."""

    fact: str
    """What they show, such as "no entity is predicted"."""
    remedy: str = ""
    """What to change, as the user types it, where the fact alone says that."""


@dataclass(frozen=True)
class Constant:
    """A prediction for every row, and its name."""

    name: str
    predictions: Sequence[Prediction]


def with_baseline(scores: Scores, task: Task, examples: Sequence[Example]) -> Scores:
    """Return scores with what a model that has learnt nothing scores on the same rows."""
    return replace(scores, baseline=baseline_of(task, examples))


def baseline_of(task: Task, examples: Sequence[Example]) -> Baseline | None:
    """Return what a model that has learnt nothing scores; None where the task does not say.

    A task with a `score` of its own, and no `baseline` to go with it, does not say: its score may need more
    of a prediction than its value.
    """
    owners = [
        next(n for n, c in enumerate(type(task).__mro__) if name in vars(c)) for name in ("baseline", "score")
    ]
    return task.baseline(examples) if examples and owners[0] <= owners[1] else None


def best_constant(task: Task, examples: Sequence[Example], candidates: Iterable[Constant]) -> Baseline | None:
    """Return the candidate with the best main score, the first of equal ones; None without any."""
    scored = [(c.name, task.score(c.predictions, examples, intervals=False)) for c in candidates]
    if not scored:
        return None
    sign = 1 if scored[0][1].higher_is_better else -1
    name, scores = max(scored, key=lambda pair: sign * pair[1].main_value)
    return Baseline(name, scores.values)


def constant_labels(targets: Sequence[str], positive: str | None = None) -> list[Constant]:
    """Return the largest class for every row, and the positive label for every row.

    No other label can be better by any metric. Without two different targets there is nothing to tell apart.
    """
    counts = Counter(targets)
    if len(counts) < 2:
        return []
    largest = max(counts, key=counts.__getitem__)
    constants = [
        Constant(f"the largest class, {_short(largest)}, alone", [Prediction(largest)] * len(targets))
    ]
    if positive not in {None, largest}:
        positive = str(positive)
        constants.append(Constant(f"{_short(positive)} for every row", [Prediction(positive)] * len(targets)))
    return constants


def constant_label_sets(targets: Sequence[tuple[str, ...]]) -> list[Constant]:
    """Return the same labels for every row: those with the best micro F1, all, or the most frequent set."""
    counts = Counter(itertools.chain.from_iterable(map(set, targets)))
    sets = Counter(tuple(sorted(target)) for target in targets)
    if len(sets) < 2:
        return []
    by_number = [label for label, _ in counts.most_common()]
    hits = np.cumsum([counts[label] for label in by_number])
    f1 = 2 * hits / (len(targets) * np.arange(1, len(hits) + 1) + hits[-1])
    choices = (tuple(by_number[: int(f1.argmax()) + 1]), tuple(by_number), max(sets, key=sets.__getitem__))
    return [
        Constant(f"{_short_list(labels)} for every row", [Prediction(labels)] * len(targets))
        for labels in dict.fromkeys(choices)
    ]


def constant_numbers(targets: Sequence[float]) -> list[Constant]:
    """Return the mean for every row, and the median."""
    if len(set(targets)) < 2:
        return []
    numbers = {"mean": float(np.mean(targets)), "median": float(np.median(targets))}
    return [
        Constant(f"the {name}, {value:.4g}, for every row", [Prediction(value)] * len(targets))
        for name, value in numbers.items()
    ]


def constant_similarity(targets: Sequence[float]) -> list[Constant]:
    """Return one similarity for all pairs."""
    if len(set(targets)) < 2:
        return []
    return [Constant("one similarity for all pairs", [Prediction(0.0)] * len(targets))]


def no_entities(examples: Sequence[Example]) -> list[Constant]:
    """Return no entity for every text; nothing where no text has one."""
    if not any(example.target for example in examples):
        return []
    return [Constant("no entity at all", [Prediction(())] * len(examples))]


def constant_tags(examples: Sequence[Example]) -> list[Constant]:
    """Return the most frequent tag for every word; nothing where there is only one."""
    counts = Counter(span.label for example in examples for span in example.target)
    if len(counts) < 2:
        return []
    tag = max(counts, key=counts.__getitem__)
    predictions = [
        Prediction(tuple(Entity(s.start, s.end, tag, "", 1.0) for s in example.target))
        for example in examples
    ]
    return [Constant(f"the most frequent tag, {_short(tag)}, for every word", predictions)]


def compare_with_baseline(scores: Scores) -> str:
    """Return how scores fail to be better than their baseline; "" where they are better, or have none."""
    baseline, main = scores.baseline, scores.main_metric
    if baseline is None or main not in baseline.values:
        return ""
    base, sign = baseline.values[main], 1 if scores.higher_is_better else -1
    if sign * (scores.main_value - base) <= _SAME:
        return f"no better than {baseline.name} ({base:.4f})"
    if base == 0 and not baseline.is_untrained and scores.main_value < CHANCE.get(main, 0.0):
        return f"hardly better than {baseline.name} ({base:.4f})"
    bounds = scores.intervals.get(main)
    # What the untrained model scores is no constant of the rows, so an interval of one score says nothing.
    if bounds is None or baseline.is_untrained or sign * (bounds[sign < 0] - base) > _SAME:
        return ""
    return f"hardly better than {baseline.name} ({base:.4f}), which its 95 % interval reaches"


def label_signs(predictions: Sequence[Prediction], scores: Scores, *, is_weighted: bool) -> list[Sign]:
    """Return that all rows get the same label or labels, or that labels are told apart all the same.

    Args:
        predictions: with a label, or a tuple of labels.
        scores: of these predictions.
        is_weighted: whether labels have weights in the loss already, or can have none.
    """
    values = {prediction.value for prediction in predictions}
    if len(values) == 1:
        value = values.pop()
        labels = list(map(str, value)) if isinstance(value, tuple) else [str(value)]
        named = _short_list(labels)
        is_uneven = scores.values.get("accuracy", 0) > UNEVEN
        remedy = "options.class_weights=balanced" if is_uneven and not is_weighted else ""
        return [Sign(f"all {len(predictions)} rows get {named}", remedy)]
    mcc = scores.values.get("mcc", 0.0)
    if scores.main_metric == "accuracy" and mcc > TELLS_APART:
        return [Sign(f"labels are told apart all the same, MCC {mcc:.4f}", "options.metric=mcc or f1_macro")]
    return []


def number_signs(predicted: Sequence[float], targets: Sequence[float]) -> list[Sign]:
    """Return that predictions hardly differ, where they differ far less than the targets."""
    if not predicted or np.std(predicted) > HARDLY_DIFFER * np.std(targets):
        return []
    return [
        Sign(
            f"predictions lie between {min(predicted):.4g} and {max(predicted):.4g}, "
            f"targets between {min(targets):.4g} and {max(targets):.4g}"
        )
    ]


def entity_signs(predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Sign]:
    """Return that no entity is predicted, or how many are."""
    num_predicted = sum(len(cast("tuple[Entity, ...]", p.value)) for p in predictions)
    num_gold = sum(len(example.target) for example in examples)
    if num_predicted == 0:
        return [Sign(f"no entity is predicted, the rows have {num_gold}")]
    return [Sign(f"entities predicted: {num_predicted}, in the rows: {num_gold}")]


def similarity_signs(predictions: Sequence[Prediction], scores: Scores) -> list[Sign]:
    """Return that scores may be the wrong way round; of labels that they are all the same."""
    if predictions and isinstance(predictions[0].value, str):
        return label_signs(predictions, scores, is_weighted=True)
    if scores.values.get("spearman", 0.0) < -TELLS_APART:
        return [Sign("the correlation is negative", "see that a higher number means more alike")]
    return []


def _short(label: str) -> str:
    return repr(label if len(label) <= 40 else f"{label[:39]}…")


def _short_list(labels: Sequence[str]) -> str:
    if not labels:
        return "no label"
    return ", ".join(map(_short, labels[:3])) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
