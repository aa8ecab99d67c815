"""A label, or several, for a text or a pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.labels import (
    LabelTypeCheck,
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
from bertune.tasks.base.task import Note
from bertune.types import JSON, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor


class ClassifyOptions(PooledOptions):
    """Settings of classification."""

    problem_type: Literal["auto", "single_label", "multi_label"] = "auto"
    """`single_label`: exactly one label a row. `multi_label`: any number of them. `auto`: multi_label when the labels
    are lists or `data.label_delimiter` is given; what was found is always printed."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal` lets easy rows count less."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Exponent of the focal loss."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all labels."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """What a row of each label counts in the loss: `balanced` (rows / labels / rows of the label) or a mapping."""
    threshold: Literal["tuned"] | Annotated[float, Field(gt=0, lt=1)] = "tuned"
    """Multi-label: from which probability a label applies; `tuned` finds the best F1 of each label on the dev rows."""
    positive_label: str | None = None
    """Two labels: the one that precision, recall and F1 are about; without it the second."""
    metric: Literal["auto", "accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "mcc"] = "auto"
    """The figure that decides which checkpoint is best; `auto` is accuracy, for multi-label f1_micro."""


class Classify(PooledTask):
    """Choose labels."""

    Options = ClassifyOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b",), "label")
    example_row: ClassVar[str] = '{"text": "Where is my parcel?", "label": "order_status"}'
    learnt: ClassVar[tuple[str, ...]] = (
        "labels",
        "is_multi_label",
        "class_weights",
        "thresholds",
        "num_texts",
        "_because",
    )

    def __init__(self, options: ClassifyOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.labels: tuple[str, ...] = ()
        self._kind = LabelTypeCheck()
        self.class_weights: list[float] | None = None
        self.thresholds: list[float] = []
        self.is_multi_label: bool | None = {"auto": None, "single_label": False, "multi_label": True}[
            options.problem_type
        ]
        self._because = "as options.problem_type states"
        if self.is_multi_label is None and data.label_delimiter is not None:
            self.is_multi_label, self._because = True, "since data.label_delimiter is given"

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Return the number of labels."""
        return len(self.labels)

    @property
    def main_metric(self) -> str:
        """Return the figure that decides."""
        if self.options.metric != "auto":
            return str(self.options.metric)
        return "f1_micro" if self.is_multi_label else "accuracy"

    @property
    def positive_id(self) -> int | None:
        """Return the id of the positive label of a binary problem."""
        if self.is_multi_label or len(self.labels) != 2:
            return None
        return (
            self.labels.index(self.options.positive_label) if self.options.positive_label is not None else 1
        )

    def read(self, row: Row) -> Example:
        """Read the texts and the label or labels of a row."""
        target = self.columns.target
        if self.is_multi_label is None and row.fields.get(target) is not None:
            self.is_multi_label = isinstance(row.fields[target], list)
            self._because = f"since the labels are {'lists' if self.is_multi_label else 'single values'}"
        texts = self.read_texts(row)
        if self.is_multi_label:
            return Example(texts, get_labels(row, target, self.data.label_delimiter), row.location)
        self._kind.check(row, target)
        return Example(texts, get_label(row, target), row.location)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn the labels and their weights."""
        super().fit(examples, note)
        held = [label for e in examples for label in (e.target if self.is_multi_label else (e.target,))]
        counts = Counter(held)
        stated = read_labels(self.data.labels)
        self.labels = stated or sort_labels(held)
        for example in examples:
            self.check(example)
        if len(counts) < (1 if self.is_multi_label else 2):
            raise DataError(f"{examples[0].location.source}: all {len(examples)} rows have the label {held[0]!r}; at least two are needed" if held
                            else f"{examples[0].location.source}: no row has any label")  # fmt: skip
        unseen = [label for label in self.labels if label not in counts]
        if unseen:
            note(f"labels without a training row: {listed(unseen)}; the model cannot learn them")
        self._note_numbers(counts, note)
        self._check_options()
        self.class_weights = self._weights(counts, len(examples))
        fixed = self.options.threshold
        self.thresholds = [0.5 if fixed == "tuned" else fixed] * len(self.labels)

    def _note_numbers(self, counts: Counter[str], note: Note) -> None:
        def is_fraction(label: str) -> bool:
            try:
                return not float(label).is_integer()
            except (ValueError, OverflowError):
                return False

        if sum(map(is_fraction, counts)) > len(counts) / 2:
            note(
                f"the {len(counts)} labels look like measured numbers ({listed(self.labels, 3)}); to predict a number use task regress"
            )
        elif len(counts) > 50 and len(counts) > sum(counts.values()) / 5:
            note(f"{len(counts)} labels for {sum(counts.values())} rows; is the right column taken as label?")

    def _check_options(self) -> None:
        options = self.options
        faults = (
            ["options.metric=mcc is for single-label problems"]
            if options.metric == "mcc" and self.is_multi_label
            else []
        )
        if options.loss == "focal" and options.label_smoothing and not self.is_multi_label:
            faults.append("options.label_smoothing has no part in options.loss=focal; use one of them")
        if (
            options.loss != "focal"
            and options.focal_gamma != ClassifyOptions.model_fields["focal_gamma"].default
        ):
            faults.append(
                "options.focal_gamma has no part in options.loss=cross_entropy; set options.loss=focal"
            )
        if options.threshold != "tuned" and not self.is_multi_label:
            faults.append(
                "options.threshold is for several labels a row; here the most probable label is taken"
            )
        if not self.is_multi_label and self.data.label_delimiter is not None:
            faults.append("data.label_delimiter contradicts options.problem_type=single_label")
        if options.metric == "f1" and (self.is_multi_label or len(self.labels) != 2):
            faults.append("options.metric=f1 is for two labels; use f1_macro, f1_micro or f1_weighted")
        positive = options.positive_label
        if positive is not None and (self.is_multi_label or len(self.labels) != 2):
            faults.append(
                f"options.positive_label is for two labels, here are {len(self.labels)}: {listed(self.labels)}"
            )
        elif positive is not None and positive not in self.labels:
            faults.append(
                f"options.positive_label: {positive!r} is no label{did_you_mean(positive, self.labels)}; labels: {listed(self.labels)}"
            )
        if isinstance(options.class_weights, dict):
            wrong = [label for label in options.class_weights if label not in self.labels]
            if wrong:
                faults.append(
                    f"options.class_weights: no such labels: {listed(wrong)}; labels: {listed(self.labels)}"
                )
        if faults:
            raise ConfigError("; ".join(faults))

    def _weights(self, counts: Counter[str], num_rows: int) -> list[float] | None:
        given = self.options.class_weights
        if given is None:
            return None
        if isinstance(given, dict):
            return [float(given.get(label, 1.0)) for label in self.labels]
        if self.is_multi_label:  # what a positive counts: negatives over positives
            return [
                (num_rows - counts[label]) / counts[label] if counts[label] else 1.0 for label in self.labels
            ]
        return [num_rows / (len(counts) * counts[label]) if counts[label] else 1.0 for label in self.labels]

    def describe(self) -> str:
        """Say what problem this is and how it was told."""
        kind = "multi-label" if self.is_multi_label else "single-label"
        positive = (
            f", positive label {self.labels[self.positive_id]!r}" if self.positive_id is not None else ""
        )
        return f"{kind} classification, {self._because}; {len(self.labels)} labels: {listed(self.labels)}{positive}"

    def check(self, example: Example) -> None:
        """Refuse a label that is not among those learnt, and a pair among single texts."""
        super().check(example)
        if example.target is None:
            return
        for label in example.target if self.is_multi_label else (example.target,):
            if label not in self.labels:
                raise unknown_label_error(example, label, self.labels)

    def encode_target(self, target: Any) -> Any:
        """Return a label's id, or one 0 or 1 for each label."""
        if target is None:
            return None
        if self.is_multi_label:
            return [float(label in target) for label in self.labels]
        return self.labels.index(target)

    def _tensor(self, values: list[float] | None, like: Tensor) -> Tensor | None:
        return None if values is None else like.new_tensor(values, dtype=like.float().dtype)

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the loss summed over rows."""
        from bertune.losses.classification import (
            binary_cross_entropy,
            cross_entropy,
            focal_loss,
        )

        o = self.options
        weights = self._tensor(self.class_weights, out)
        if batch.target is None:
            raise DataError("a loss needs the labels of all rows")
        gamma = o.focal_gamma if o.loss == "focal" else 0.0
        if self.is_multi_label:
            return binary_cross_entropy(out, batch.target, weights, o.label_smoothing, gamma)
        if gamma:
            return focal_loss(out, batch.target, gamma, weights)
        return cross_entropy(out, batch.target, weights, o.label_smoothing)

    def loss_denominator(self, batch: Batch) -> float:
        """Return rows times labels for multi-label; else rows, or the sum of their weights as torch's mean has it."""
        if self.is_multi_label:
            return float(len(batch.rows) * len(self.labels))
        if self.class_weights is None or batch.target is None:
            return float(len(batch.rows))
        return float(sum(self.class_weights[i] for i in batch.target.tolist()))

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        """Return the symmetric divergence of two passes, summed."""
        from bertune.losses.classification import (
            symmetric_binary_kl,
            symmetric_kl,
        )

        return symmetric_binary_kl(out, other) if self.is_multi_label else symmetric_kl(out, other)

    def decode(self, out: Tensor, batch: Batch) -> list[Prediction]:
        """Return labels with the probability of each."""
        probabilities = (out.float().sigmoid() if self.is_multi_label else out.float().softmax(-1)).tolist()
        return [self._prediction(row) for row in probabilities]

    def _prediction(self, row: list[float]) -> Prediction:
        by_label = dict(zip(self.labels, row, strict=True))
        if self.is_multi_label:
            chosen = tuple(
                label for label, p, t in zip(self.labels, row, self.thresholds, strict=True) if p >= t
            )
            return Prediction(chosen, None, by_label)
        best = max(range(len(row)), key=row.__getitem__)
        return Prediction(self.labels[best], row[best], by_label)

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return accuracy, precision, recall, F1 and what belongs to them."""
        if self.is_multi_label:
            return self._score_multi(predictions, examples, intervals)
        ids = {label: i for i, label in enumerate(self.labels)}
        gold = np.array([ids[e.target] for e in examples])
        predicted = np.array([ids[str(p.value)] for p in predictions])
        n = len(self.labels)
        matrix = confusion_matrix(gold, predicted, n)

        def main(g: Any, p: Any) -> float:
            return single_label_scores(confusion_matrix(g, p, n), self.positive_id)[self.main_metric]

        found = bootstrap_interval(main, gold, predicted) if intervals else None
        per_label = per_label_scores(self.labels, np.diag(matrix), matrix.sum(0), matrix.sum(1))
        confusion = {
            g: {p: int(c) for p, c in zip(self.labels, row, strict=True)}
            for g, row in zip(self.labels, matrix, strict=True)
        }
        values = single_label_scores(matrix, self.positive_id)
        return Scores(
            self.main_metric, True, values, {self.main_metric: found} if found else {}, per_label, confusion
        )

    def _score_multi(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], intervals: bool
    ) -> Scores:
        gold = np.array([[label in e.target for label in self.labels] for e in examples])
        predicted = np.array([[label in p.value for label in self.labels] for p in predictions])  # type: ignore[operator]
        found = (
            bootstrap_interval(lambda g, p: multi_label_scores(g, p)[self.main_metric], gold, predicted)
            if intervals
            else None
        )
        per_label = per_label_scores(self.labels, (gold & predicted).sum(0), predicted.sum(0), gold.sum(0))
        return Scores(
            self.main_metric,
            True,
            multi_label_scores(gold, predicted),
            {self.main_metric: found} if found else {},
            per_label,
        )

    def compact_prediction(self, prediction: Prediction) -> Prediction:
        """Return the label alone; where there are several, thresholds are tuned on all probabilities."""
        return prediction if self.is_multi_label else Prediction(prediction.value)

    def stratify_key(self, example: Example) -> str:
        """Return the label or labels."""
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
        note(f"thresholds with the best F1 on the dev rows, so dev scores are a little flattering: {chosen}")
        return [
            self._prediction([(p.probabilities or {})[label] for label in self.labels]) for p in predictions
        ]

    def state(self) -> JSON:
        """Return labels, weights and thresholds."""
        return {
            **super().state(),
            "labels": list(self.labels),
            "multi": self.is_multi_label,
            "thresholds": self.thresholds,
            "weights": self.class_weights,
        }

    def load_state(self, state: JSON) -> None:
        """Take back labels, weights and thresholds."""
        super().load_state(state)
        self.labels, self.is_multi_label = tuple(state["labels"]), state["multi"]
        self.thresholds, self.class_weights = state["thresholds"], state["weights"]
        self._because = "as trained"

    def hf_config(self, head: Any) -> JSON:
        """Give transformers the names of the labels."""
        return {
            **super().hf_config(head),
            "id2label": {str(i): label for i, label in enumerate(self.labels)},
            "label2id": {label: i for i, label in enumerate(self.labels)},
            "problem_type": "multi_label_classification"
            if self.is_multi_label
            else "single_label_classification",
        }
