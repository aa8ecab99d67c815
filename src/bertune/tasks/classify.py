"""A label, or several labels, for a text or a pair of texts."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.labels import (
    LabelTypeCheck,
    format_label,
    get_label,
    get_labels,
    read_labels,
    sort_labels,
    unknown_label_error,
)
from bertune.errors import ConfigError, DataError, did_you_mean, listed
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.classification import (
    best_threshold,
    confusion_matrix,
    multi_label_scores,
    per_label_scores,
    single_label_scores,
)
from bertune.tasks.base.pooled import PooledOptions, PooledTask
from bertune.tasks.base.task import Note, RowReader, rename_keys
from bertune.types import JSON, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

_FORMAT_1_KEYS = {"multi": "is_multi_label", "weights": "class_weights"}


class ClassifyOptions(PooledOptions):
    """Settings of classification."""

    problem_type: Literal["auto", "single_label", "multi_label"] = "auto"
    """`single_label`: exactly one label a row. `multi_label`: any number of labels. `auto`: multi_label when
    the labels are lists or `data.label_delimiter` is given; a line of the log says which."""
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
    dev rows."""
    positive_label: str | None = None
    """Two labels: the one of which precision, recall and F1 are computed; without it the second."""
    metric: Literal["auto", "accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "mcc"] = "auto"
    """The metric that decides which checkpoint is best; `auto` is accuracy, for multi-label f1_micro."""


class Classify(PooledTask):
    """Choose labels."""

    Options = ClassifyOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b",), "label")
    example_row: ClassVar[str] = '{"text": "Where is my parcel?", "label": "order_status"}'

    def __init__(self, options: ClassifyOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.labels: tuple[str, ...] = ()
        self.class_weights: list[float] | None = None
        self.thresholds: list[float] = []
        self.is_multi_label: bool | None = {"auto": None, "single_label": False, "multi_label": True}[
            options.problem_type
        ]
        self.problem_reason = "as options.problem_type states"
        """Why the problem is multi-label or single-label, for `describe`."""
        if self.is_multi_label is None and data.label_delimiter is not None:
            self.is_multi_label, self.problem_reason = True, "since data.label_delimiter is given"

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Return the number of labels."""
        return len(self.labels)

    @property
    def main_metric(self) -> str:
        """Return the metric that decides."""
        if self.options.metric != "auto":
            return str(self.options.metric)
        return "f1_micro" if self.is_multi_label else "accuracy"

    @property
    def positive_id(self) -> int | None:
        """Return the id of the positive label, where there are two labels and a row has one."""
        if self.is_multi_label or len(self.labels) != 2:
            return None
        positive = self.options.positive_label
        return self.labels.index(positive) if positive is not None else 1

    def read(self, row: Row) -> Example:
        """Return the texts of a row, and its label or a tuple of its labels.

        Before `fit`, with problem type `auto`, a list is taken as several labels.
        """
        target = self.columns.target
        texts = self.read_texts(row)
        is_multi_label = self.is_multi_label
        if is_multi_label is None:
            is_multi_label = isinstance(row.fields.get(target), list)
        if is_multi_label:
            return Example(texts, get_labels(row, target, self.data.label_delimiter), row.location)
        return Example(texts, get_label(row, target), row.location)

    def new_reader(self) -> RowReader:
        """Return a reader that checks that labels are of one kind."""
        return LabelReader(self)

    def with_problem_type(self, *, is_multi_label: bool) -> Self:
        """Return a copy of the task for rows with several labels, or with one."""
        task = copy.copy(self)
        task.is_multi_label = is_multi_label
        task.problem_reason = _label_form(is_multi_label)
        return task

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn whether rows have several labels, which labels there are, and their weights."""
        super().fit(examples, note)
        if self.is_multi_label is None:
            self.is_multi_label = isinstance(examples[0].target, tuple)
            self.problem_reason = _label_form(self.is_multi_label)
        row_labels = [label for e in examples for label in self._target_labels(e)]
        counts = Counter(row_labels)
        self.labels = read_labels(self.data.labels) or sort_labels(row_labels)
        for example in examples:
            self.check(example)
        source = examples[0].location.source
        if not row_labels:
            raise DataError(f"{source}: no row has any label")
        if len(counts) < 2 and not self.is_multi_label:
            raise DataError(
                f"{source}: all {len(examples)} rows have the label {row_labels[0]!r}; "
                "at least two are needed"
            )
        unseen = [label for label in self.labels if label not in counts]
        if unseen:
            note(f"labels without a training row: {listed(unseen)}; the model cannot learn them")
        self._note_suspicious_labels(counts, note)
        self._check_options()
        self.class_weights = self._class_weights(counts, len(examples))
        threshold = self.options.threshold
        self.thresholds = [0.5 if threshold == "tuned" else threshold] * len(self.labels)

    def _note_suspicious_labels(self, counts: Counter[str], note: Note) -> None:
        """Note that labels look like numbers to predict, or like texts."""

        def is_fraction(label: str) -> bool:
            try:
                return not float(label).is_integer()
            except (ValueError, OverflowError):
                return False

        if sum(map(is_fraction, counts)) > len(counts) / 2:
            note(
                f"the {len(counts)} labels look like measured numbers ({listed(self.labels, 3)}); "
                "to predict a number use task regress"
            )
        elif len(counts) > 50 and len(counts) > sum(counts.values()) / 5:
            note(
                f"{len(counts)} labels for {sum(counts.values())} rows; is the label in another column? "
                "(data.columns)"
            )

    def _check_options(self) -> None:
        """Raise one ConfigError for all options that do not fit the problem."""
        options, labels, faults = self.options, self.labels, []
        is_binary = not self.is_multi_label and len(labels) == 2
        if options.metric == "mcc" and self.is_multi_label:
            faults.append("options.metric=mcc is for single-label problems")
        if options.loss == "focal" and options.label_smoothing and not self.is_multi_label:
            faults.append("options.label_smoothing has no effect with options.loss=focal; use one of them")
        default_gamma = ClassifyOptions.model_fields["focal_gamma"].default
        if options.loss != "focal" and options.focal_gamma != default_gamma:
            faults.append(
                "options.focal_gamma has no effect with options.loss=cross_entropy; set options.loss=focal"
            )
        if options.threshold != "tuned" and not self.is_multi_label:
            faults.append(
                "options.threshold is for several labels a row; here the most probable label is predicted"
            )
        if not self.is_multi_label and self.data.label_delimiter is not None:
            faults.append("data.label_delimiter contradicts options.problem_type=single_label")
        if options.metric == "f1" and not is_binary:
            faults.append("options.metric=f1 is for two labels; use f1_macro, f1_micro or f1_weighted")
        positive = options.positive_label
        if positive is not None and not is_binary:
            faults.append(
                f"options.positive_label is for two labels, but there are {len(labels)}: {listed(labels)}"
            )
        elif positive is not None and positive not in labels:
            faults.append(
                f"options.positive_label: {positive!r} is not a label{did_you_mean(positive, labels)}; "
                f"labels: {listed(labels)}"
            )
        if isinstance(options.class_weights, dict):
            unknown = [label for label in options.class_weights if label not in labels]
            if unknown:
                faults.append(
                    f"options.class_weights: no such labels: {listed(unknown)}; labels: {listed(labels)}"
                )
        if faults:
            raise ConfigError("; ".join(faults))

    def _class_weights(self, counts: Counter[str], num_rows: int) -> list[float] | None:
        """Return the weight of each label. Multi-label: of its positives, negatives over positives."""
        given = self.options.class_weights
        if given is None:
            return None
        if isinstance(given, dict):
            return [float(given.get(label, 1.0)) for label in self.labels]
        if self.is_multi_label:
            return [
                (num_rows - counts[label]) / counts[label] if counts[label] else 1.0 for label in self.labels
            ]
        return [num_rows / (len(counts) * counts[label]) if counts[label] else 1.0 for label in self.labels]

    def describe(self) -> str:
        """Return one line about the problem, and why it is taken as this problem."""
        problem = "multi-label" if self.is_multi_label else "single-label"
        labels = f"{len(self.labels)} labels: {listed(self.labels)}"
        positive = ""
        if self.positive_id is not None:
            positive = f", positive label {self.labels[self.positive_id]!r}"
        return f"{problem} classification, {self.problem_reason}; {labels}{positive}"

    def check(self, example: Example) -> None:
        """Check that labels are among those learned, and the number of texts."""
        super().check(example)
        if example.target is None:
            return
        for label in self._target_labels(example):
            if label not in self.labels:
                raise unknown_label_error(example, label, self.labels)

    def _target_labels(self, example: Example) -> tuple[str, ...]:
        return example.target if self.is_multi_label else (example.target,)

    def encode_target(self, target: Any) -> Any:
        """Return the id of the label; multi-label: 0.0 or 1.0 for each label."""
        if target is None:
            return None
        if self.is_multi_label:
            return [float(label in target) for label in self.labels]
        return self.labels.index(target)

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the loss, summed over rows; multi-label: over rows and labels."""
        from bertune.losses.classification import binary_cross_entropy, cross_entropy, focal_loss

        if batch.target is None:
            raise DataError("a loss needs the labels of all rows")
        options = self.options
        weights = None
        if self.class_weights is not None:
            weights = out.new_tensor(self.class_weights, dtype=out.float().dtype)
        gamma = options.focal_gamma if options.loss == "focal" else 0.0
        if self.is_multi_label:
            return binary_cross_entropy(out, batch.target, weights, options.label_smoothing, gamma)
        if gamma:
            return focal_loss(out, batch.target, gamma, weights)
        return cross_entropy(out, batch.target, weights, options.label_smoothing)

    def loss_denominator(self, batch: Batch) -> float:
        """Return the number of rows, or the sum of their weights; multi-label: rows times labels."""
        if self.is_multi_label:
            return float(len(batch.rows) * len(self.labels))
        if self.class_weights is None or batch.target is None:
            return float(len(batch.rows))
        return float(sum(self.class_weights[i] for i in batch.target.tolist()))

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        """Return the symmetric Kullback-Leibler divergence of two passes, summed."""
        from bertune.losses.classification import symmetric_binary_kl, symmetric_kl

        return symmetric_binary_kl(out, other) if self.is_multi_label else symmetric_kl(out, other)

    def decode(self, out: Tensor, batch: Batch) -> list[Prediction]:
        """Return the label or labels of each row, with the probability of each label."""
        probabilities = (out.float().sigmoid() if self.is_multi_label else out.float().softmax(-1)).tolist()
        return [self._prediction(row) for row in probabilities]

    def _prediction(self, probabilities: list[float]) -> Prediction:
        by_label = dict(zip(self.labels, probabilities, strict=True))
        if self.is_multi_label:
            applies = (p >= t for p, t in zip(probabilities, self.thresholds, strict=True))
            labels = tuple(label for label, yes in zip(self.labels, applies, strict=True) if yes)
            return Prediction(labels, None, by_label)
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return Prediction(self.labels[best], probabilities[best], by_label)

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return accuracy, precision, recall, F1 and MCC, overall and by label."""
        if self.is_multi_label:
            return self._score_multi_label(predictions, examples, intervals=intervals)
        ids = {label: i for i, label in enumerate(self.labels)}
        gold = np.array([ids[e.target] for e in examples])
        predicted = np.array([ids[str(p.value)] for p in predictions])
        num_labels, main = len(self.labels), self.main_metric

        def main_score(g: Any, p: Any) -> float:
            return single_label_scores(confusion_matrix(g, p, num_labels), self.positive_id)[main]

        matrix = confusion_matrix(gold, predicted, num_labels)
        confusion = {
            label: {other: int(count) for other, count in zip(self.labels, counts, strict=True)}
            for label, counts in zip(self.labels, matrix, strict=True)
        }
        interval = bootstrap_interval(main_score, gold, predicted) if intervals else None
        return Scores(
            main,
            True,
            single_label_scores(matrix, self.positive_id),
            {main: interval} if interval else {},
            per_label_scores(self.labels, np.diag(matrix), matrix.sum(0), matrix.sum(1)),
            confusion,
        )

    def _score_multi_label(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool
    ) -> Scores:
        main = self.main_metric
        gold = np.array([[label in e.target for label in self.labels] for e in examples])
        predicted = np.array(
            [[label in p.value for label in self.labels] for p in predictions]  # type: ignore[operator]
        )
        interval = None
        if intervals:
            interval = bootstrap_interval(lambda g, p: multi_label_scores(g, p)[main], gold, predicted)
        return Scores(
            main,
            True,
            multi_label_scores(gold, predicted),
            {main: interval} if interval else {},
            per_label_scores(self.labels, (gold & predicted).sum(0), predicted.sum(0), gold.sum(0)),
        )

    def compact_prediction(self, prediction: Prediction) -> Prediction:
        """Return the label alone; multi-label predictions stay whole, for the thresholds."""
        return prediction if self.is_multi_label else Prediction(prediction.value)

    def stratify_key(self, example: Example) -> str:
        """Return the label, or the labels together."""
        return "\0".join(example.target) if self.is_multi_label else str(example.target)

    def calibrate(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note
    ) -> list[Prediction]:
        """Choose the threshold of each label on the dev rows."""
        if not self.is_multi_label or self.options.threshold != "tuned":
            return predictions
        for i, label in enumerate(self.labels):
            gold = np.array([label in e.target for e in examples])
            probability = np.array([(p.probabilities or {})[label] for p in predictions])
            self.thresholds[i] = best_threshold(gold, probability)
        chosen = ", ".join(f"{label} {t:.3f}" for label, t in zip(self.labels, self.thresholds, strict=True))
        note(f"thresholds with the best F1 on the dev rows, which flatters the dev scores a little: {chosen}")
        return [
            self._prediction([(p.probabilities or {})[label] for label in self.labels]) for p in predictions
        ]

    def state(self) -> JSON:
        """Return the kind of problem, labels, weights and thresholds."""
        return {
            **super().state(),
            "labels": list(self.labels),
            "is_multi_label": self.is_multi_label,
            "problem_reason": self.problem_reason,
            "class_weights": self.class_weights,
            "thresholds": self.thresholds,
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        state = rename_keys(state, _FORMAT_1_KEYS)
        self.labels, self.is_multi_label = tuple(state["labels"]), state["is_multi_label"]
        self.problem_reason = state.get("problem_reason", "as trained")
        self.class_weights, self.thresholds = state["class_weights"], state["thresholds"]

    @property
    def cross_encoder_activation(self) -> str:  # type: ignore[override]
        """Return what makes probabilities of several labels; one label has logits, as in transformers."""
        return "activation.Sigmoid" if self.is_multi_label else "linear.Identity"

    def hf_config(self, head: Any) -> JSON:
        """Return the head's part of config.json, and the names of the labels."""
        return {
            **super().hf_config(head),
            "id2label": {str(i): label for i, label in enumerate(self.labels)},
            "label2id": {label: i for i, label in enumerate(self.labels)},
            "problem_type": "multi_label_classification"
            if self.is_multi_label
            else "single_label_classification",
        }


def _label_form(is_multi_label: bool) -> str:
    return f"since the labels are {'lists' if is_multi_label else 'single values'}"


class LabelReader(RowReader):
    """Reads the rows of one pass, whose labels must be of one kind.

    With problem type `auto` the first label of the pass decides: where it is a list, all rows have several
    labels. Within a file single labels must be all text, or all numbers.

    Args:
        task: the task before or after `fit`.
    """

    def __init__(self, task: Classify) -> None:
        super().__init__(task)
        self._decided_task = task
        self._label_types = LabelTypeCheck()

    def read(self, row: Row) -> Example:
        """Return the texts of a row, and its label or a tuple of its labels.

        Raises:
            DataError: the row cannot be used, or its label is of another kind than those before it.
        """
        example = self._decided_task.read(row)
        if example.target is None:
            return example
        target = self.task.columns.target
        is_multi_label = isinstance(example.target, tuple)
        if self._decided_task.is_multi_label is None:
            self._decided_task = self._decided_task.with_problem_type(is_multi_label=is_multi_label)
        # A task of your own may change the label; what it makes of mixed types is its own matter.
        if not is_multi_label and example.target == format_label(row.fields.get(target)):
            self._label_types.check(row, target)
        return example
