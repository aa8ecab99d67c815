"""A label, or several labels, for a text or a pair of texts."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from bertune.config.schema import DataConfig, label_to_text
from bertune.data.label_settings import all_labels, find_labels, unknown_labels
from bertune.data.labels import unknown_label_error
from bertune.errors import ConfigError, DataError, did_you_mean, listed
from bertune.metrics.classification import best_threshold
from bertune.tasks.base.label_scores import MOST_LABELS, score_multi_label, score_single_label
from bertune.tasks.base.labels import LabelReader, read_target, suspicious_labels
from bertune.tasks.base.pooled import PooledOptions, PooledTask
from bertune.tasks.base.task import Note, RowReader, rename_keys
from bertune.types import JSON, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

Floats = npt.NDArray[np.floating[Any]]
_FORMAT_1_KEYS = {"multi": "is_multi_label", "weights": "class_weights"}


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
    dev rows."""
    positive_label: str | None = None
    """Two labels: the one of which precision, recall and F1 are computed; without it the second."""
    metric: Literal["auto", "accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "mcc"] = "auto"
    """The metric that decides which checkpoint is best; `auto` is accuracy, for multi-label f1_micro."""

    @field_validator("positive_label", mode="before")
    @classmethod
    def _label_is_text(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list | dict) else label_to_text(value)

    @field_validator("class_weights", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        weights = {label_to_text(label): weight for label, weight in value.items()}
        if len(weights) < len(value):
            raise ValueError(f"names a label twice: {listed(value)}")
        return weights


class Classify(PooledTask):
    """Choose labels."""

    Options = ClassifyOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b",), "label", spreadable=("label",))
    shared_by_members: ClassVar[tuple[str, ...]] = ("num_texts", "is_multi_label", "labels")
    example_row: ClassVar[str] = '{"text": "Where is my parcel?", "label": "order_status"}'

    row_options: ClassVar[frozenset[str] | None] = frozenset({"problem_type"})

    def __init__(self, options: ClassifyOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.labels = ()
        self.class_weights: list[float] | None = None
        self.thresholds: list[float] = []
        self.is_multi_label: bool | None = {"auto": None, "single_label": False, "multi_label": True}[
            options.problem_type
        ]
        self.problem_reason = "as options.problem_type states"
        """Why the problem is multi-label or single-label, for `describe`."""
        self.is_multi_hot = False
        """Whether rows write a 0 or 1 for each label."""
        if self.is_multi_label is None and data.label_delimiter is not None:
            self.is_multi_label, self.problem_reason = True, "since data.label_delimiter is given"

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of their ids."""
        return self._labels

    @labels.setter
    def labels(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._ids = {label: i for i, label in enumerate(self._labels)}

    def known_labels(self) -> Sequence[str]:
        """Return the labels; none where rows write a 0 or 1 for each, which are kept anyway."""
        return () if self.is_multi_hot else self.labels

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
        if positive is None:
            return 1
        return self._ids[find_labels([positive], self.labels, "options.positive_label")[positive]]

    def read(self, row: Row) -> Example:
        """Return the texts of a row, and its label or a tuple of its labels.

        Before `fit`, with problem type `auto`, a list is taken as several labels.
        """
        texts = self.read_texts(row)
        target = read_target(
            row,
            self.columns.target,
            self.data.label_delimiter,
            is_multi_label=self.is_multi_label,
            multi_hot_labels=self.labels if self.is_multi_hot else (),
        )
        return Example(texts, target, row.location)

    def new_reader(self) -> RowReader:
        """Return a reader that checks that labels are of one form."""
        return LabelReader(self)

    def with_problem_type(self, *, is_multi_label: bool, reason: str) -> Self:
        """Return a copy of the task for rows with several labels, or with one."""
        task = copy.copy(self)
        task.is_multi_label, task.problem_reason = is_multi_label, reason
        return task

    def with_multi_hot(self, labels: Sequence[str]) -> Self:
        """Return a copy of the task for rows that write a 0 or 1 for each of these labels."""
        task = copy.copy(self)
        task.labels, task.is_multi_hot = tuple(labels), True
        return task

    def adopt_label_form(self, task: Classify) -> None:
        """Read rows as another task has been decided to do."""
        self.is_multi_label, self.problem_reason = task.is_multi_label, task.problem_reason
        self.labels, self.is_multi_hot = task.labels, task.is_multi_hot

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn whether rows have several labels, which labels there are, and their weights."""
        super().fit(examples, note)
        if self.is_multi_label is None:
            self.is_multi_label = isinstance(examples[0].target, tuple)
            self.problem_reason = (
                f"since the labels are {'lists' if self.is_multi_label else 'single values'}"
            )
        counts = Counter(label for e in examples for label in self._target_labels(e))
        if not self.is_multi_hot:
            self.labels = all_labels(self.data.labels, counts)
        for example in examples:
            self.check(example)
        source = examples[0].location.source
        if not counts:
            raise DataError(f"{source}: no row has any label")
        if len(counts) < 2 and not self.is_multi_label:
            raise DataError(
                f"{source}: all {len(examples)} rows have the label {next(iter(counts))!r}; "
                "at least two are needed"
            )
        unseen = [label for label in self.labels if label not in counts]
        if unseen:
            note(f"labels without a training row: {listed(unseen)}; the model cannot learn them")
        suspicion = suspicious_labels(counts, is_multi_label=self.is_multi_label)
        if suspicion:
            note(suspicion)
        self._check_options()
        self.class_weights = self._class_weights(counts, len(examples))
        threshold = self.options.threshold
        self.thresholds = [0.5 if threshold == "tuned" else threshold] * len(self.labels)

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
        if faults:
            raise ConfigError("; ".join(faults))

    def _class_weights(self, counts: Counter[str], num_rows: int) -> list[float] | None:
        """Return the weight of each label. Multi-label: of its positives, negatives over positives."""
        given = self.options.class_weights
        if given is None:
            return None
        if isinstance(given, dict):
            found = find_labels(list(given), self.labels, "options.class_weights")
            weights = {found[name]: weight for name, weight in given.items()}
            return [float(weights.get(label, 1.0)) for label in self.labels]
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
            if label not in self._ids:
                raise unknown_label_error(example, label, self.labels)

    def _target_labels(self, example: Example) -> tuple[str, ...]:
        return example.target if self.is_multi_label else (example.target,)

    def encode_target(self, target: Any) -> Any:
        """Return the id of the label; multi-label: those of all labels that apply."""
        if target is None:
            return None
        if self.is_multi_label:
            return tuple(self._ids[label] for label in target)
        return self._ids[target]

    def collate_target(self, targets: list[Any]) -> Tensor:
        """Return the ids of labels (B,); multi-label: 1.0 for each label that applies, else 0.0 (B, N)."""
        import torch

        if not self.is_multi_label:
            return torch.tensor(targets)
        dense = torch.zeros(len(targets), len(self.labels))
        for row, ids in zip(dense, targets, strict=True):
            row[list(ids)] = 1.0
        return dense

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

    def mean_output(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the logits (B, N) of the mean probabilities."""
        from bertune.tasks.base.ensembling import mean_class_logits, mean_label_logits

        return mean_label_logits(outputs) if self.is_multi_label else mean_class_logits(outputs)

    def decode(self, out: Tensor, batch: Batch) -> list[Prediction]:
        """Return the label or labels of each row, with the probability of each label."""
        rows = self._probabilities(out)
        return [
            replace(short, probabilities=dict(zip(self.labels, values, strict=True)), vectors=None)
            for short, values in zip(self._predictions(rows), rows.tolist(), strict=True)
        ]

    def decode_to_score(self, out: Tensor, batch: Batch) -> list[Prediction]:
        """Return the label or labels of each row; several labels with their probabilities as an array."""
        methods = ("decode", "compact_prediction", "calibrate", "score")
        if any(getattr(type(self), name) is not getattr(Classify, name) for name in methods):
            return super().decode_to_score(out, batch)
        return self._predictions(self._probabilities(out))

    def _probabilities(self, out: Tensor) -> Floats:
        """Return the probability of each label of each row (n, N), fp32."""
        probabilities = out.float().sigmoid() if self.is_multi_label else out.float().softmax(-1)
        array: Floats = probabilities.cpu().numpy()
        return array

    def _predictions(self, rows: Floats) -> list[Prediction]:
        """Return predictions of probabilities (n, N), which stay an array."""
        if not self.is_multi_label:
            best = rows.argmax(1).tolist()
            return [Prediction(self.labels[i], float(row[i])) for i, row in zip(best, rows, strict=True)]
        labels, applies = np.array(self.labels, object), rows.astype(np.float64) >= np.array(self.thresholds)
        return [
            Prediction(tuple(labels[flags].tolist()), vectors=(row,))
            for flags, row in zip(applies, rows, strict=True)
        ]

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return accuracy, precision, recall, F1 and MCC, overall and by label."""
        main = self.main_metric
        if self.is_multi_label:
            gold = [[self._ids[label] for label in e.target] for e in examples]
            predicted = [list(map(self._ids.__getitem__, cast(Any, p.value))) for p in predictions]
            return score_multi_label(self.labels, gold, predicted, main, intervals=intervals)
        gold_ids = np.array([self._ids[e.target] for e in examples])
        predicted_ids = np.array([self._ids[str(p.value)] for p in predictions])
        return score_single_label(
            self.labels, gold_ids, predicted_ids, main, self.positive_id, intervals=intervals
        )

    def stratify_key(self, example: Example) -> str:
        """Return the label, or the labels together."""
        return "\0".join(example.target) if self.is_multi_label else str(example.target)

    def calibrate(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note
    ) -> list[Prediction]:
        """Choose the threshold of each label on the dev rows."""
        if not self.is_multi_label or self.options.threshold != "tuned":
            return predictions
        rows = np.stack([self._probability_row(p) for p in predictions])
        gold = np.zeros(rows.shape, bool)
        for flags, example in zip(gold, examples, strict=True):
            flags[[self._ids[label] for label in example.target]] = True
        self.thresholds = [
            best_threshold(gold[:, i], rows[:, i].astype(np.float64)) for i in range(len(self.labels))
        ]
        chosen = [f"{label} {t:.3f}" for label, t in zip(self.labels, self.thresholds, strict=True)]
        rest = f", ... ({len(chosen)} in all)" if len(chosen) > MOST_LABELS else ""
        note(
            "thresholds with the best F1 on the dev rows, which flatters the dev scores a little: "
            f"{', '.join(chosen[:MOST_LABELS])}{rest}"
        )
        return self._predictions(rows)

    def decide(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return predictions of several labels with today's thresholds; others as they are."""
        if not self.is_multi_label or not predictions:
            return list(predictions)
        decided = self._predictions(np.stack([self._probability_row(p) for p in predictions]))
        return [replace(p, value=d.value) for p, d in zip(predictions, decided, strict=True)]

    def _probability_row(self, prediction: Prediction) -> Floats:
        """Return the probability of each label (N,) of a multi-label prediction."""
        if prediction.vectors is not None:
            row: Floats = prediction.vectors[0]
            return row
        by_label = prediction.probabilities or {}
        return np.array([by_label[label] for label in self.labels])

    def state(self) -> JSON:
        """Return the kind of problem, labels, weights and thresholds."""
        return {
            **super().state(),
            "labels": list(self.labels),
            "is_multi_label": self.is_multi_label,
            "is_multi_hot": self.is_multi_hot,
            "problem_reason": self.problem_reason,
            "class_weights": self.class_weights,
            "thresholds": self.thresholds,
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        state = rename_keys(state, _FORMAT_1_KEYS)
        self.labels, self.is_multi_label = state["labels"], state["is_multi_label"]
        self.is_multi_hot = state.get("is_multi_hot", False)
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
