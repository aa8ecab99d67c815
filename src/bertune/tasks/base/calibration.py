"""Calibration as a task learns it, keeps it in its state and applies it: of labels, and of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bertune.errors import ConfigError, did_you_mean, listed
from bertune.metrics.calibration import (
    Bools,
    CalibrationFigures,
    Floats,
    Gold,
    ReliabilityBin,
    apply_platt,
    apply_temperature,
    calibration_figures,
    confidences,
    cost_threshold,
    fit_platt,
    fit_temperature,
    precision_threshold,
    reliability_table,
)
from bertune.metrics.conformal import MOST_SCORES, ConformalScores, rows_needed
from bertune.types import JSON, Example, Prediction

if TYPE_CHECKING:
    from bertune.tasks.base.task import Note

METHODS = ("auto", "temperature", "platt", "none")
COSTS = ("false_positive", "false_negative")
LEAST_SCORES_OF_A_LABEL = 20
_MOST_NAMED = 5
AnyCalibration = TypeVar("AnyCalibration", "LabelCalibration", "IntervalCalibration")
PredictionSet = tuple[str, ...] | tuple[float, float]


def _is_between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low < value < high


def cost_faults(costs: Any) -> list[str]:
    """Return what is wrong with costs: a mapping with false_positive, false_negative or both, above 0."""
    if not isinstance(costs, Mapping) or not costs:
        return [f"costs: {costs!r} is not a mapping such as {{false_positive: 1, false_negative: 5}}"]
    faults = [
        f"costs: {name!r} is neither {' nor '.join(COSTS)}{did_you_mean(str(name), COSTS)}"
        for name in costs
        if name not in COSTS
    ]
    return faults + [
        f"costs: {name} is {value!r}; it must be a number above 0"
        for name, value in costs.items()
        if isinstance(value, bool) or not _is_between(value, 0, math.inf)
    ]


@dataclass(frozen=True)
class CalibrationRequest:
    """What is to be learnt.

    Attributes:
        method: one of `METHODS`; auto is temperature for one label a row, Platt for several.
        target_precision: the precision that thresholds are to reach.
        costs: what a false positive and a false negative cost, for thresholds.
    """

    method: str = "auto"
    target_precision: float | None = None
    costs: Mapping[str, float] | None = None

    @property
    def chooses_thresholds(self) -> bool:
        """Tell whether thresholds are asked for."""
        return self.target_precision is not None or self.costs is not None

    def faults(self) -> list[str]:
        """Return what is wrong with it for any task."""
        faults = []
        if self.method not in METHODS:
            faults.append(f"method: {self.method!r} is none of {', '.join(METHODS)}")
        precision = self.target_precision
        if precision is not None and (isinstance(precision, bool) or not _is_between(precision, 0, 1)):
            faults.append(f"target_precision: {precision!r} is not a number between 0 and 1")
        if self.costs is not None:
            faults += cost_faults(self.costs)
        if self.target_precision is not None and self.costs is not None:
            faults.append("target_precision and costs both choose thresholds; use one of them")
        return faults

    def threshold(self, gold: Bools, probability: Floats) -> tuple[float, float]:
        """Return the threshold of a label by the rule, and the precision there (0 without predicted rows).

        Args:
            gold: (n,) whether the label applies.
            probability: (n,) of it, calibrated.
        """
        if self.target_precision is not None:
            return precision_threshold(gold, probability, self.target_precision)
        costs = {"false_positive": 1.0, "false_negative": 1.0, **(self.costs or {})}
        threshold = cost_threshold(gold, probability, **costs)
        predicted = probability >= threshold
        return threshold, float(gold[predicted].mean()) if predicted.any() else 0.0

    def describe_rule(self) -> str:
        """Return the rule of the thresholds in words; empty without one."""
        if self.target_precision is not None:
            return f"a precision of {self.target_precision:g}"
        if self.costs is not None:
            costs = {"false_positive": 1.0, "false_negative": 1.0, **self.costs}
            return ", ".join(f"{name} {value:g}" for name, value in sorted(costs.items(), reverse=True))
        return ""


@dataclass(frozen=True)
class LabelCalibration:
    """What turns a model's own probabilities into calibrated ones, and these into decisions and sets.

    Attributes:
        method: temperature, platt or none.
        rows: the rows it was learnt on, in words.
        num_rows: how many they were.
        temperature: what logits are divided by.
        platt: slope and offset of each label's logit.
        thresholds: of each label where a row has several; of two labels, that of the positive one; empty
            where the most probable label is predicted.
        rule: how the thresholds were chosen, in words.
        conformal: the scores of all rows; with several labels a row, of the rows of each label.
        before: how good the model's own probabilities are on the rows.
        after: how good calibrated ones are, each half of the rows with what was learnt on the other.
    """

    method: str
    rows: str
    num_rows: int
    temperature: float = 1.0
    platt: tuple[tuple[float, float], ...] = ()
    thresholds: tuple[float, ...] = ()
    rule: str = ""
    conformal: tuple[ConformalScores, ...] = ()
    before: JSON = field(default_factory=dict)
    after: JSON = field(default_factory=dict)

    def apply(self, probabilities: Floats) -> Floats:
        """Return calibrated probabilities (n, N) in fp64, so that no two become equal by rounding."""
        if self.method == "temperature" and self.temperature != 1:
            return apply_temperature(probabilities, self.temperature)
        if self.method == "platt":
            return apply_platt(probabilities, np.array(self.platt))
        return np.asarray(probabilities, np.float64)

    def undo_temperature(self, probabilities: Floats) -> Floats:
        """Return the model's own probabilities (n, N) of calibrated ones."""
        if self.temperature == 1:
            return probabilities
        return apply_temperature(probabilities, 1 / self.temperature)

    def to_json(self) -> JSON:
        """Return it as JSON values."""
        return {
            "method": self.method,
            "rows": self.rows,
            "num_rows": self.num_rows,
            "temperature": self.temperature,
            "platt": [list(pair) for pair in self.platt],
            "thresholds": list(self.thresholds),
            "rule": self.rule,
            "conformal": [scores.to_json() for scores in self.conformal],
            "before": self.before,
            "after": self.after,
        }

    @classmethod
    def from_json(cls, values: JSON | None) -> LabelCalibration | None:
        """Return what `to_json` wrote; None for None."""
        if values is None:
            return None
        return cls(
            values["method"],
            values["rows"],
            values["num_rows"],
            values["temperature"],
            tuple((slope, offset) for slope, offset in values["platt"]),
            tuple(values["thresholds"]),
            values["rule"],
            tuple(map(ConformalScores.from_json, values["conformal"])),
            values["before"],
            values["after"],
        )

    def describe_learnt(self) -> str:
        """Return in words how probabilities were calibrated."""
        learnt = f"learnt on {self.num_rows} {self.rows}"
        names = {
            "temperature": f"temperature {self.temperature:.4g}, {learnt}",
            "platt": f"Platt scaling of each label, {learnt}",
            "none": f"probabilities are the model's own; thresholds and coverage {learnt}",
        }
        return names[self.method]

    def describe(self) -> str:
        """Return in words how probabilities were calibrated, and what it brought."""
        text = self.describe_learnt()
        if self.method == "none" or not self.before:
            return text
        if not self.after:
            return f"{text}; expected calibration error {self.before['ece']:.4f} before"
        return (
            f"{text}; expected calibration error {self.before['ece']:.4f} before, {self.after['ece']:.4f} "
            "after (each half measured with what the other half taught)"
        )


@dataclass(frozen=True)
class IntervalCalibration:
    """The errors of predicted numbers on rows that the model was not trained on.

    Attributes:
        rows: the rows, in words.
        num_rows: how many they were.
        conformal: their absolute errors.
    """

    rows: str
    num_rows: int
    conformal: ConformalScores

    def to_json(self) -> JSON:
        """Return it as JSON values."""
        return {"rows": self.rows, "num_rows": self.num_rows, "conformal": self.conformal.to_json()}

    @classmethod
    def from_json(cls, values: JSON | None) -> IntervalCalibration | None:
        """Return what `to_json` wrote; None for None."""
        if values is None:
            return None
        return cls(values["rows"], values["num_rows"], ConformalScores.from_json(values["conformal"]))

    def describe(self) -> str:
        """Return in words what was learnt."""
        return f"errors for intervals, learnt on {self.num_rows} {self.rows}"


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration has learnt, and how good probabilities are before and after.

    After: each half of the rows is measured with what was learnt on the other half; None where the rows are
    too few for that, or nothing changes.
    """

    calibration: LabelCalibration | IntervalCalibration | None
    """What was learnt; None where calibration was taken away."""
    before: CalibrationFigures | None = None
    after: CalibrationFigures | None = None
    table_before: tuple[ReliabilityBin, ...] = ()
    table_after: tuple[ReliabilityBin, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    """By label, of calibrated probabilities; empty where the most probable label is predicted."""

    def describe(self) -> str:
        """Return in words what was learnt."""
        if self.calibration is None:
            return "none: probabilities are the model's own"
        return self.calibration.describe()


def learn_scaling(method: str, probabilities: Floats, gold: Gold, labels: Sequence[str], note: Note) -> JSON:
    """Return `temperature` or `platt` as `LabelCalibration` has them; say what could not be learnt."""
    if method == "temperature":
        temperature = fit_temperature(probabilities, gold)
        if temperature is None:
            right = bool((probabilities.argmax(1) == gold).all())
            why = "every row is right" if right else "the probabilities say no more than chance"
            note(f"temperature: stays 1, since {why}: no temperature is best")
        return {"temperature": 1.0 if temperature is None else temperature}
    if method == "platt":
        pairs = [fit_platt(probabilities[:, i], gold[:, i]) for i in range(len(labels))]
        left = [label for label, pair in zip(labels, pairs, strict=True) if pair is None]
        if left:
            note(
                "Platt scaling: labels that keep the model's own probability, since all rows have them, none "
                f"has, or a higher probability does not mean them more often: {listed(left, _MOST_NAMED)}"
            )
        return {"platt": tuple(pair or (1.0, 0.0) for pair in pairs)}
    return {}


def cross_fitted(
    method: str, probabilities: Floats, gold: Gold, halves: Bools, labels: Sequence[str]
) -> Floats | None:
    """Return calibrated probabilities (n, N) of each half of the rows with what was learnt on the other.

    Args:
        method: temperature or platt.
        probabilities: (n, N), the model's own.
        gold: as `calibration_figures` takes it.
        halves: (n,) in which half each row is.
        labels: the N labels.

    Returns:
        None where a half has no row, or `method` is none.
    """
    if method == "none" or halves.all() or not halves.any():
        return None
    result = np.empty(probabilities.shape)
    for half in (halves, ~halves):
        learnt = learn_scaling(method, probabilities[~half], gold[~half], labels, lambda _: None)
        result[half] = LabelCalibration(method, "", 0, **learnt).apply(probabilities[half])
    return result


def two_halves(examples: Sequence[Example], key: Callable[[Example], str]) -> Bools:
    """Return in which half each row is (n,): equal texts share one, each group is cut evenly.

    The halves depend on texts alone, not on the order of the rows.
    """
    digests = [
        blake2b("\0".join(e.texts).encode(errors="surrogatepass"), digest_size=16).digest() for e in examples
    ]
    group_of = {digest: key(example) for digest, example in zip(digests, examples, strict=True)}
    half_of = {
        digest: number % 2 == 1
        for number, digest in enumerate(sorted(group_of, key=lambda d: (group_of[d], d)))
    }
    return np.array([half_of[digest] for digest in digests])


def conformal_scores(
    calibration: LabelCalibration, probabilities: Floats, gold: Gold
) -> tuple[ConformalScores, ...]:
    """Return the scores 1 - p of what is true, from which sets of labels are made (LAC).

    With one label a row p is the model's own probability: the temperature was learnt on the same rows, and
    what is learnt on them must not shape their scores. With several, each label has scores of the rows that
    have it; calibrated probabilities rank them as the model's own do.
    """
    if gold.ndim == 1:
        return (ConformalScores.of(1 - probabilities[np.arange(len(gold)), gold].astype(np.float64)),)
    calibrated = calibration.apply(probabilities)
    most = max(LEAST_SCORES_OF_A_LABEL, MOST_SCORES // gold.shape[1])
    return tuple(ConformalScores.of(1 - calibrated[gold[:, i], i], most) for i in range(gold.shape[1]))


def report_on(
    calibration: LabelCalibration, probabilities: Floats, after: Floats | None, gold: Gold
) -> CalibrationReport:
    """Return figures and reliability tables of probabilities before and after calibration."""

    def table(p: Floats) -> tuple[ReliabilityBin, ...]:
        return tuple(reliability_table(*confidences(np.asarray(p, np.float64), gold)))

    return CalibrationReport(
        calibration,
        calibration_figures(probabilities, gold),
        None if after is None else calibration_figures(after, gold),
        table(probabilities),
        () if after is None else table(after),
    )


def check_coverage(coverage: Any) -> float:
    """Return a coverage as a number between 0 and 1.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(coverage, bool) or not isinstance(coverage, int | float) or not 0 < coverage < 1:
        raise ConfigError(f"coverage: {coverage!r} is not a number between 0 and 1, such as 0.9")
    return float(coverage)


def require_scores(calibration: AnyCalibration | None) -> AnyCalibration:
    """Return a calibration that holds scores for sets or intervals.

    Raises:
        ConfigError: it does not.
    """
    if calibration is None or not calibration.conformal:
        raise ConfigError(
            "coverage: this model has learnt no scores for it; learn them on a file with targets that it was "
            "not trained on: bertune calibrate MODEL FILE"
        )
    return calibration


def too_few_rows(coverage: float, num_rows: int, of_what: str = "") -> ConfigError:
    """Return the refusal of a coverage for which the rows are too few."""
    return ConfigError(
        f"coverage: {coverage:g} needs scores of at least {rows_needed(coverage)} rows{of_what}, and "
        f"calibration saw {num_rows}; ask for less, or calibrate on more rows: bertune calibrate MODEL FILE"
    )


def label_sets(
    calibration: LabelCalibration | None, labels: Sequence[str], coverage: Any, note: Note
) -> Callable[[Prediction], PredictionSet]:
    """Return what gives the set of labels of a prediction; see `Task.prediction_sets`."""
    coverage = check_coverage(coverage)
    learnt = require_scores(calibration)
    limits = np.array([scores.quantile(coverage) for scores in learnt.conformal])
    if np.isinf(limits).all():
        most = max(scores.num_rows for scores in learnt.conformal)
        raise too_few_rows(coverage, most, "" if len(limits) == 1 else " of a label")
    if np.isinf(limits).any():
        rare = [label for label, limit in zip(labels, limits, strict=True) if np.isinf(limit)]
        note(
            f"coverage: labels that are in every set, since fewer than {rows_needed(coverage)} rows with "
            f"them were there to learn from: {listed(rare, _MOST_NAMED)}"
        )
    names = np.array(labels, object)

    def to_set(prediction: Prediction) -> PredictionSet:
        by_label = prediction.probabilities or {}
        p = learnt.undo_temperature(np.array([[by_label[label] for label in labels]]))[0]
        return tuple(names[1 - p <= limits].tolist())

    return to_set


def intervals(
    calibration: IntervalCalibration | None, coverage: Any
) -> Callable[[Prediction], PredictionSet]:
    """Return what gives the interval of a predicted number; see `Task.prediction_sets`."""
    coverage = check_coverage(coverage)
    errors = require_scores(calibration).conformal
    width = errors.quantile(coverage)
    if np.isinf(width):
        raise too_few_rows(coverage, errors.num_rows)

    def to_interval(prediction: Prediction) -> PredictionSet:
        value = float(prediction.value)  # type: ignore[arg-type]
        return value - width, value + width

    return to_interval
