"""Settings of classification, and which of them fit a problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bertune.config.schema import DataConfig, label_to_text
from bertune.data.label_settings import find_labels, unknown_labels
from bertune.errors import ConfigError, did_you_mean, listed
from bertune.tasks.base.calibration import CalibrationRequest, cost_faults
from bertune.tasks.base.pooled import PooledOptions


class ClassifyOptions(PooledOptions):
    """Settings of classification."""

    problem_type: Literal["auto", "single_label", "multi_label"] = "auto"
    """`single_label`: exactly one label a row. `multi_label`: any number of labels. `auto`: multi_label when
    the labels are lists, also as text, a 0 or 1 for each label, or `data.label_delimiter` is given; a line of
    the log says which."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal` lets easy rows count less."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Exponent of the focal loss."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all labels."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Weight of the rows of each label in the loss: `balanced` (rows / labels / rows of the label) or a
    mapping."""
    threshold: Literal["tuned"] | Annotated[float, Field(gt=0, lt=1)] = "tuned"
    """Multi-label: the probability from which a label applies; `tuned` finds the best F1 of each label on the
    dev rows. Two labels: the probability from which the positive label is predicted; with `tuned` the more
    probable one is."""
    calibration: Literal["none", "auto"] = "none"
    """`auto` learns on the dev rows what makes probabilities true: a temperature where a row has one label,
    Platt scaling of each label where it has several. The dev rows also teach `predict --coverage`."""
    target_precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Several labels a row, or two labels (of the positive one): use the lowest threshold whose precision on
    the dev rows is so high."""
    costs: dict[str, float] | None = None
    """Several labels a row, or two labels: what a mistake costs, as {false_positive: 1, false_negative: 5};
    use the threshold with the least cost on the dev rows. What is not named costs 1."""
    positive_label: str | None = None
    """Two labels: the one of which precision, recall and F1 are computed; without it the second."""
    metric: Literal["auto", "accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "mcc"] = "auto"
    """The metric that decides which checkpoint is best; `auto` is accuracy, for multi-label f1_micro."""

    @field_validator("positive_label", mode="before")
    @classmethod
    def _label_is_text(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list | dict) else label_to_text(value)

    @field_validator("costs")
    @classmethod
    def _costs_are_costs(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and (faults := cost_faults(value)):
            raise ValueError("; ".join(fault.removeprefix("costs: ") for fault in faults))
        return value

    @field_validator("class_weights", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        weights = {label_to_text(label): weight for label, weight in value.items()}
        if len(weights) < len(value):
            raise ValueError(f"names a label twice: {listed(value)}")
        return weights

    @property
    def calibration_request(self) -> CalibrationRequest | None:
        """Return what calibration shall learn; None where nothing."""
        request = CalibrationRequest(self.calibration, self.target_precision, self.costs)
        return request if self.calibration != "none" or request.chooses_thresholds else None


def check_options(
    options: ClassifyOptions, data: DataConfig, labels: Sequence[str], *, is_multi_label: bool
) -> None:
    """Check that settings fit the problem.

    Raises:
        ConfigError: some do not; the message names all of them.
    """
    is_binary = not is_multi_label and len(labels) == 2
    faults = [
        *_loss_faults(options, data, is_multi_label=is_multi_label, is_binary=is_binary),
        *_threshold_faults(options, len(labels), has_thresholds=is_multi_label or is_binary),
        *_label_faults(options, labels, is_binary=is_binary),
    ]
    if faults:
        raise ConfigError("; ".join(faults))


def _loss_faults(
    options: ClassifyOptions, data: DataConfig, *, is_multi_label: bool, is_binary: bool
) -> list[str]:
    faults = []
    if options.metric == "mcc" and is_multi_label:
        faults.append("options.metric=mcc is for single-label problems")
    if options.loss == "focal" and options.label_smoothing and not is_multi_label:
        faults.append("options.label_smoothing has no effect with options.loss=focal; use one of them")
    default_gamma = ClassifyOptions.model_fields["focal_gamma"].default
    if options.loss != "focal" and options.focal_gamma != default_gamma:
        faults.append(
            "options.focal_gamma has no effect with options.loss=cross_entropy; set options.loss=focal"
        )
    if not is_multi_label and data.label_delimiter is not None:
        faults.append("data.label_delimiter contradicts options.problem_type=single_label")
    if options.metric == "f1" and not is_binary:
        faults.append("options.metric=f1 is for two labels; use f1_macro, f1_micro or f1_weighted")
    return faults


def _threshold_faults(options: ClassifyOptions, num_labels: int, *, has_thresholds: bool) -> list[str]:
    given = [
        name
        for name, is_given in (
            ("options.threshold", options.threshold != "tuned"),
            ("options.target_precision", options.target_precision is not None),
            ("options.costs", options.costs is not None),
        )
        if is_given
    ]
    if given and not has_thresholds:
        verb = "is" if len(given) == 1 else "are"
        return [
            f"{', '.join(given)} {verb} for several labels a row, or for two labels; here the most probable "
            f"of {num_labels} labels is predicted"
        ]
    if len(given) > 1:
        return [f"{', '.join(given)} contradict each other: each chooses the threshold; use one of them"]
    return []


def _label_faults(options: ClassifyOptions, labels: Sequence[str], *, is_binary: bool) -> list[str]:
    faults, positive = [], options.positive_label
    if positive is not None and not is_binary:
        faults.append(
            f"options.positive_label is for two labels, but there are {len(labels)}: {listed(labels)}"
        )
    elif positive is not None and not find_labels([positive], labels, "options.positive_label"):
        faults.append(
            f"options.positive_label: {positive!r} is not a label{did_you_mean(positive, labels)}; "
            f"labels: {listed(labels)}"
        )
    if isinstance(options.class_weights, dict):
        found = find_labels(list(options.class_weights), labels, "options.class_weights")
        unknown = [label for label in options.class_weights if label not in found]
        if unknown:
            faults.append(f"options.class_weights: no such labels: {unknown_labels(unknown, labels)}")
    return faults


def weights_of_labels(
    given: Any, labels: Sequence[str], counts: Counter[str], num_rows: int, *, is_multi_label: bool
) -> list[float] | None:
    """Return the weight of each label. Multi-label: of its positives, negatives over positives.

    Args:
        given: `options.class_weights`.
        labels: all labels.
        counts: the training rows of each label.
        num_rows: the training rows.
        is_multi_label: whether a row has several labels.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        found = find_labels(list(given), labels, "options.class_weights")
        weights = {found[name]: weight for name, weight in given.items()}
        return [float(weights.get(label, 1.0)) for label in labels]
    if is_multi_label:
        return [(num_rows - counts[label]) / counts[label] if counts[label] else 1.0 for label in labels]
    return [num_rows / (len(counts) * counts[label]) if counts[label] else 1.0 for label in labels]
