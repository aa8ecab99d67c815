"""What tasks whose predictions can be calibrated share: tasks of labels, and tasks of a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.calibration import Bools, Floats, Gold
from bertune.metrics.classification import best_threshold
from bertune.metrics.conformal import ConformalScores
from bertune.tasks.base.calibration import (
    CalibrationReport,
    CalibrationRequest,
    IntervalCalibration,
    LabelCalibration,
    PredictionSet,
    conformal_scores,
    cross_fitted,
    intervals,
    label_sets,
    learn_scaling,
    report_on,
    two_halves,
)
from bertune.tasks.base.label_scores import MOST_LABELS
from bertune.types import JSON, Example, Prediction

if TYPE_CHECKING:
    from bertune.tasks.base.task import Note

DEV_ROWS = "dev rows"
"""The rows that `Task.calibrate` gets, in words."""
_FEW_ROWS = 50
_MOST_NAMED = 5


class CalibratedTask:
    """A task that learns its calibration at the end of training, where its settings ask for it."""

    options: Any

    def calibrate(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note
    ) -> list[Prediction]:
        """Learn on the dev rows; see `Task.calibrate`."""
        return self.calibrate_on(predictions, examples, note, DEV_ROWS)

    def calibrate_on(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note, rows: str
    ) -> list[Prediction]:
        """Learn on these rows; see `Task.calibrate_on`."""
        if self.options.calibration != "none":
            report = self.learn_calibration(predictions, examples, CalibrationRequest(), note, rows)
            note(f"calibration: {report.describe()}")
        return predictions

    def learn_calibration(
        self,
        predictions: Sequence[Prediction],
        examples: Sequence[Example],
        request: CalibrationRequest,
        note: Note,
        rows: str = DEV_ROWS,
    ) -> CalibrationReport:
        """Learn what calibrates predictions; see `Task.learn_calibration`."""
        raise NotImplementedError


class CalibratedLabels(CalibratedTask):
    """A task of labels with probabilities. `Classify` and `Match` say what is theirs."""

    calibration: LabelCalibration | None = None
    """What was learnt; None where probabilities are the model's own."""
    keeps_probabilities = False
    """Whether `decode_to_score` keeps the probabilities of each row, for calibration."""
    labels: tuple[str, ...]

    @property
    def has_several_labels(self) -> bool:
        """Tell whether a row has any number of labels."""
        return False

    @property
    def positive_id(self) -> int | None:
        """Return the id of the positive label, where there are two labels and a row has one."""
        return None

    @property
    def fixed_threshold(self) -> float | None:
        """Return the threshold that the settings state, if they do."""
        return None

    def gold_of(self, examples: Sequence[Example]) -> Gold:
        """Return the ids of the labels (n,); with several labels a row whether each applies (n, N)."""
        raise NotImplementedError

    def stratify_key(self, example: Example) -> str:
        """Return the group of an example; see `Task.stratify_key`."""
        raise NotImplementedError

    def reset_calibration(self) -> None:
        """Forget what calibration has learnt: probabilities are the model's own again."""
        self.calibration = None

    def calibrated(self, probabilities: Floats) -> Floats:
        """Return probabilities (n, N) as predictions have them."""
        return probabilities if self.calibration is None else self.calibration.apply(probabilities)

    def probability_rows(self, predictions: Sequence[Prediction]) -> Floats:
        """Return the probabilities (n, N) of predictions.

        Raises:
            ConfigError: they were made to be scored, without probabilities.
        """
        rows = [self._probability_row(prediction) for prediction in predictions]
        return np.stack(rows) if rows else np.empty((0, len(self.labels)))

    def _probability_row(self, prediction: Prediction) -> Floats:
        if prediction.vectors is not None:
            row: Floats = prediction.vectors[0]
            return row
        if prediction.probabilities is None:
            raise ConfigError(
                "calibrate: these predictions hold no probabilities; set keeps_probabilities of the task "
                "before they are made, or predict without to_score"
            )
        return np.array([prediction.probabilities[label] for label in self.labels])

    def check_calibration(self, request: CalibrationRequest) -> None:
        """Check that this can be learnt; see `Task.check_calibration`."""
        faults = request.faults()
        if request.method == ("temperature" if self.has_several_labels else "platt"):
            faults.append(
                "method: temperature is for one label a row, and rows of this model have several; use platt"
                if self.has_several_labels
                else "method: platt is for several labels a row, and here rows have one; use temperature"
            )
        if request.chooses_thresholds and not self.has_several_labels and self.positive_id is None:
            faults.append(
                "target_precision and costs are for two labels, or several labels a row; this model predicts "
                f"the most probable of {len(self.labels)} labels"
            )
        if faults:
            raise ConfigError("calibrate: " + "; ".join(faults))

    def learn_calibration(
        self,
        predictions: Sequence[Prediction],
        examples: Sequence[Example],
        request: CalibrationRequest,
        note: Note,
        rows: str = DEV_ROWS,
    ) -> CalibrationReport:
        """Learn from rows, and use what was learnt from now on; see `Task.learn_calibration`."""
        self.check_calibration(request)
        if not predictions:
            raise DataError(f"calibrate: no {rows} to learn from")
        method = request.method
        if method == "auto":
            method = "platt" if self.has_several_labels else "temperature"
        probabilities, gold = self.probability_rows(predictions), self.gold_of(examples)
        scaling = learn_scaling(method, probabilities, gold, self.labels, note)
        halves = two_halves(examples, self.stratify_key)
        after = cross_fitted(method, probabilities, gold, halves, self.labels)
        learnt = LabelCalibration(method, rows, len(examples), **scaling)
        thresholds, rule = self._choose_thresholds(request, learnt.apply(probabilities), gold, note, rows)
        report = report_on(learnt, probabilities, after, gold)
        self.calibration = LabelCalibration(
            method,
            rows,
            len(examples),
            **scaling,
            thresholds=thresholds,
            rule=rule,
            conformal=conformal_scores(learnt, probabilities, gold),
            before=report.before.to_json() if report.before else {},
            after=report.after.to_json() if report.after else {},
        )
        if len(examples) < _FEW_ROWS:
            note(f"calibration: {len(examples)} rows are few; what they teach is rough")
        return replace(report, calibration=self.calibration, thresholds=self.named_thresholds())

    def named_thresholds(self) -> dict[str, float]:
        """Return the thresholds of calibrated probabilities by label; of two labels, of the positive one."""
        thresholds = () if self.calibration is None else self.calibration.thresholds
        positive = self.positive_id
        names = self.labels if positive is None else (self.labels[positive],)
        return dict(zip(names, thresholds, strict=True)) if thresholds else {}

    def _choose_thresholds(
        self, request: CalibrationRequest, probabilities: Floats, gold: Gold, note: Note, rows: str
    ) -> tuple[tuple[float, ...], str]:
        """Return the thresholds of calibrated probabilities, and the rule that chose them."""
        several, positive = self.has_several_labels, self.positive_id
        if not several and positive is None:
            return (), ""
        ids = range(len(self.labels)) if several else [positive]
        columns = [(gold[:, i] if several else gold == i, probabilities[:, i]) for i in ids]
        if request.chooses_thresholds:
            found = [request.threshold(*column) for column in columns]
            names = [self.labels[i] for i in ids if i is not None]
            thresholds = tuple(threshold for threshold, _ in found)
            _note_thresholds(request, names, columns, found, note, rows)
            return thresholds, f"{request.describe_rule()} on the {rows}"
        if self.fixed_threshold is not None:
            return (self.fixed_threshold,) * len(columns), "options.threshold"
        if not several:
            return (), ""
        thresholds = tuple(best_threshold(flags, p.astype(np.float64)) for flags, p in columns)
        note(best_f1_note(self.labels, thresholds, rows))
        return thresholds, f"the best F1 of each label on the {rows}"

    def prediction_sets(self, coverage: Any, note: Note) -> Callable[[Prediction], PredictionSet]:
        """Return what gives the set of labels of a prediction; see `Task.prediction_sets`."""
        return label_sets(self.calibration, self.labels, coverage, note)

    def calibration_state(self) -> JSON:
        """Return the part of the task's state that calibration has learnt; empty without any."""
        return {} if self.calibration is None else {"calibration": self.calibration.to_json()}

    def load_calibration(self, state: JSON) -> None:
        """Restore what `calibration_state` returned."""
        if self.calibration is not None or "calibration" in state:  # else the task stays as `fit` left it
            self.calibration = LabelCalibration.from_json(state.get("calibration"))


def best_f1_note(labels: Sequence[str], thresholds: Sequence[float], rows: str) -> str:
    """Say which thresholds have the best F1."""
    flatters = (
        "which flatters the dev scores a little" if rows == DEV_ROWS else "which flatters scores on them"
    )
    return f"thresholds with the best F1 on the {rows}, {flatters}: {_named(labels, thresholds)}"


def _named(labels: Sequence[str], thresholds: Sequence[float]) -> str:
    chosen = [f"{label} {t:.3f}" for label, t in zip(labels, thresholds, strict=True)]
    rest = f", ... ({len(chosen)} in all)" if len(chosen) > MOST_LABELS else ""
    return ", ".join(chosen[:MOST_LABELS]) + rest


def _note_thresholds(
    request: CalibrationRequest,
    labels: Sequence[str],
    columns: Sequence[tuple[Bools, Floats]],
    found: Sequence[tuple[float, float]],
    note: Note,
    rows: str,
) -> None:
    """Say which thresholds a rule has chosen, and where the precision asked for is not reached."""
    thresholds = [threshold for threshold, _ in found]
    note(f"thresholds for {request.describe_rule()} on the {rows}: {_named(labels, thresholds)}")
    without = [label for label, (gold, _) in zip(labels, columns, strict=True) if not gold.any()]
    if without:
        kept = dict(zip(labels, thresholds, strict=True))[without[0]]
        note(f"thresholds: no row has the labels {listed(without, _MOST_NAMED)}; theirs is {kept:.3g}")
    target = request.target_precision
    if target is not None:
        missed = [
            f"{label} {precision:.3f}"
            for label, (_, precision) in zip(labels, found, strict=True)
            if precision < target - 1e-12 and label not in without
        ]
        if missed:
            more = f", ... ({len(missed)} in all)" if len(missed) > _MOST_NAMED else ""
            note(
                f"target_precision: {target:g} is not reached on the {rows}; the highest precision there is: "
                f"{', '.join(missed[:_MOST_NAMED])}{more}; its threshold is used"
            )


class CalibratedNumbers(CalibratedTask):
    """A task of one number, whose errors on rows make intervals."""

    calibration: IntervalCalibration | None = None
    """What was learnt; None where nothing was."""

    def reset_calibration(self) -> None:
        """Forget what was learnt."""
        self.calibration = None

    def check_calibration(self, request: CalibrationRequest) -> None:
        """Check that this can be learnt; see `Task.check_calibration`."""
        faults = request.faults()
        if request.method in {"temperature", "platt"}:
            faults.append(
                f"method: {request.method} is for labels, and this model predicts a number; use auto"
            )
        if request.chooses_thresholds:
            faults.append("target_precision and costs are for labels, and this model predicts a number")
        if faults:
            raise ConfigError("calibrate: " + "; ".join(faults))

    def learn_calibration(
        self,
        predictions: Sequence[Prediction],
        examples: Sequence[Example],
        request: CalibrationRequest,
        note: Note,
        rows: str = DEV_ROWS,
    ) -> CalibrationReport:
        """Learn the errors of rows; see `Task.learn_calibration`."""
        self.check_calibration(request)
        if not predictions:
            raise DataError(f"calibrate: no {rows} to learn from")
        predicted = np.array([p.value for p in predictions], float)
        errors = np.abs(predicted - np.array([e.target for e in examples], float))
        self.calibration = IntervalCalibration(rows, len(examples), ConformalScores.of(errors))
        return CalibrationReport(self.calibration)

    def prediction_sets(self, coverage: Any, note: Note) -> Callable[[Prediction], PredictionSet]:
        """Return what gives the interval of a predicted number; see `Task.prediction_sets`."""
        return intervals(self.calibration, coverage)

    def calibration_state(self) -> JSON:
        """Return the part of the task's state that calibration has learnt; empty without any."""
        return {} if self.calibration is None else {"calibration": self.calibration.to_json()}

    def load_calibration(self, state: JSON) -> None:
        """Restore what `calibration_state` returned."""
        if self.calibration is not None or "calibration" in state:  # else the task stays as `fit` left it
            self.calibration = IntervalCalibration.from_json(state.get("calibration"))
