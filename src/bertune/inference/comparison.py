"""How the predictions of models differ: tests of each pair of models, and the difference of each label."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from bertune.inference.paired_rows import PairedRows, PairMetrics
from bertune.metrics.classification import Floats
from bertune.metrics.paired import (
    ErrorTest,
    McNemar,
    PairedDifference,
    bootstrap_differences,
    holm,
    mcnemar,
    paired_difference,
    wilcoxon,
)
from bertune.types import JSON, Scores

SIGNIFICANT = 0.05
"""The corrected p-value below which one model is called better."""


@dataclass(frozen=True)
class ComparedModel:
    """A model and its scores."""

    name: str
    """The last part of its path, or as many parts as tell it from the others."""
    folder: str
    scores: Scores
    num_truncated_rows: int
    """How many rows were longer than its max_length."""


@dataclass(frozen=True)
class LabelDifference:
    """The F1 of a label by two models, `b` minus `a`."""

    label: str
    f1_a: float
    f1_b: float
    difference: float
    interval: tuple[float, float] | None
    """95 %, by the same resamples as the main metric; not corrected for the number of labels."""
    support: int
    """How often the label is gold."""


@dataclass(frozen=True)
class PairComparison:
    """Two models on the same rows."""

    a: str
    b: str
    main: PairedDifference
    """Of the main metric, `b` minus `a`."""
    p_holm: float | None
    """Its p-value, corrected for the number of pairs of models."""
    better: str | None
    """The better model; None where no difference was shown."""
    mcnemar: McNemar | None
    """For rows that are right or wrong."""
    error_test: ErrorTest | None
    """For rows with a number: whose errors are smaller."""
    error_name: str
    """What these errors are."""
    test_p_holm: float | None
    """The p-value of the one or the other test, corrected for the number of pairs."""
    per_label: list[LabelDifference]
    """The largest difference first; labels that no row has, in gold or predictions, are left out."""
    num_disagreements: int
    """Rows on which the two predictions differ."""

    def to_json(self) -> JSON:
        """Return the comparison as JSON values."""
        main = self.main
        tests: JSON = {"mcnemar": None, "error_test": None}
        if self.mcnemar is not None:
            tests["mcnemar"] = {**asdict(self.mcnemar), "p_holm": self.test_p_holm}
        if self.error_test is not None:
            what = {"errors": self.error_name}
            tests["error_test"] = {**what, **asdict(self.error_test), "p_holm": self.test_p_holm}
        return {
            "a": self.a,
            "b": self.b,
            "difference": main.difference,
            "interval_95": main.interval and list(main.interval),
            "p_value": main.p_value,
            "p_holm": self.p_holm,
            "num_resamples": main.num_resamples,
            "better": self.better,
            **tests,
            "num_disagreements": self.num_disagreements,
            "per_label": [_label_to_json(label) for label in self.per_label],
        }


def _label_to_json(label: LabelDifference) -> JSON:
    values = asdict(label)
    interval = values.pop("interval")
    return {**values, "interval_95": interval and list(interval)}


@dataclass(frozen=True)
class Comparison:
    """How models differ on the same rows."""

    task: str
    metric: str
    """The main metric, of the first model."""
    higher_is_better: bool
    num_rows: int
    unit: str
    """What is resampled: rows, sentences, queries or texts."""
    num_units: int
    models: list[ComparedModel]
    pairs: list[PairComparison]
    num_disagreements: int
    """Rows on which any two models differ."""
    output: str | None
    """The file with these rows."""

    def to_json(self) -> JSON:
        """Return the comparison as JSON values."""
        return {
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "num_rows": self.num_rows,
            "unit": self.unit,
            "num_units": self.num_units,
            "models": [
                {
                    "name": model.name,
                    "folder": model.folder,
                    "scores": model.scores.to_json(),
                    "num_truncated_rows": model.num_truncated_rows,
                }
                for model in self.models
            ],
            "pairs": [pair.to_json() for pair in self.pairs],
            "num_disagreements": self.num_disagreements,
            "output": self.output,
        }


def compare_pairs(models: Sequence[ComparedModel], paired: PairedRows) -> list[PairComparison]:
    """Compare every pair of models, and correct the p-values for the number of pairs.

    Args:
        models: (m,) with their scores.
        paired: their predictions.
    """
    pairs = [_compare_pair(models, paired, a, b) for a, b in itertools.combinations(range(len(models)), 2)]
    main = _corrected([pair.main.p_value for pair in pairs])
    tests = _corrected(
        [test.p_value if (test := pair.mcnemar or pair.error_test) else None for pair in pairs]
    )
    higher_is_better = models[0].scores.higher_is_better
    return [
        replace(pair, p_holm=p, better=_better(pair, p, higher_is_better), test_p_holm=test_p)
        for pair, p, test_p in zip(pairs, main, tests, strict=True)
    ]


def _compare_pair(models: Sequence[ComparedModel], paired: PairedRows, a: int, b: int) -> PairComparison:
    metrics = paired.pair(a, b)
    main, per_label = _no_interval(models[a], models[b]), list[LabelDifference]()
    if metrics is not None:
        main, per_label = _bootstrap(metrics, paired)
    right, errors = [paired.right(n) for n in (a, b)], [paired.errors(n) for n in (a, b)]
    return PairComparison(
        models[a].name,
        models[b].name,
        main,
        p_holm=None,
        better=None,
        mcnemar=None if right[0] is None or right[1] is None else mcnemar(right[0], right[1]),
        error_test=None if errors[0] is None or errors[1] is None else wilcoxon(errors[0], errors[1]),
        error_name=paired.error_name,
        test_p_holm=None,
        per_label=per_label,
        num_disagreements=int(paired.differ(a, b).sum()),
    )


def _no_interval(a: ComparedModel, b: ComparedModel) -> PairedDifference:
    return PairedDifference(b.scores.main_value - a.scores.main_value, None, None, 0)


def _bootstrap(metrics: PairMetrics, paired: PairedRows) -> tuple[PairedDifference, list[LabelDifference]]:
    """Return the difference of the main metric, and of the F1 of each label, by the same resamples."""
    resampled = bootstrap_differences(
        metrics.a,
        metrics.b,
        metrics.counts,
        num_resamples=metrics.num_resamples,
        num_values=1 + 6 * len(paired.labels),
    )
    all_rows = metrics.counts[None].astype(float)
    value_a, value_b = (np.reshape(metric(all_rows), -1) for metric in (metrics.a, metrics.b))
    main = paired_difference(float(value_b[0] - value_a[0]), resampled[:, 0], paired.num_units)
    return main, _label_differences(value_a[1:], value_b[1:], resampled[:, 1:], paired)


def _label_differences(
    f1_a: Floats, f1_b: Floats, resampled: Floats, paired: PairedRows
) -> list[LabelDifference]:
    """Return the difference of each label, the largest first; of equal ones the more frequent label."""
    intervals: list[tuple[float, float] | None] = [None] * len(paired.labels)
    if paired.num_units > 1 and paired.labels:
        low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
        intervals = list(zip(low.tolist(), high.tolist(), strict=True))
    differences = [
        LabelDifference(label, float(x), float(y), float(y - x), interval, int(support))
        for label, x, y, interval, support in zip(
            paired.labels, f1_a, f1_b, intervals, paired.support, strict=True
        )
    ]
    return sorted(differences, key=lambda d: (-abs(d.difference), -d.support))


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected by Holm; None stays None."""
    corrected = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(corrected) for p in p_values]


def _better(pair: PairComparison, p_value: float | None, higher_is_better: bool) -> str | None:
    if p_value is None or p_value >= SIGNIFICANT:
        return None
    return pair.b if (pair.main.difference > 0) == higher_is_better else pair.a
