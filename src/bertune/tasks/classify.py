"""A label, or several labels, for a text or a pair of texts."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from bertune.config.schema import DataConfig
from bertune.data.label_settings import all_labels, find_labels
from bertune.data.labels import unknown_label_error
from bertune.errors import DataError, listed
from bertune.metrics.calibration import Floats, Gold
from bertune.metrics.classification import best_threshold
from bertune.tasks.base.baselines import (
    Sign,
    best_constant,
    constant_label_sets,
    constant_labels,
    label_signs,
)
from bertune.tasks.base.calibrated import CalibratedLabels, best_f1_note
from bertune.tasks.base.classify_options import ClassifyOptions, check_options, weights_of_labels
from bertune.tasks.base.head_outputs import ONE_LABEL, SEVERAL_LABELS, HeadOutputs
from bertune.tasks.base.label_scores import score_multi_label, score_single_label
from bertune.tasks.base.labels import LabelReader, read_target, suspicious_labels
from bertune.tasks.base.old_state import rename_keys
from bertune.tasks.base.pooled import PooledTask
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.task import Note
from bertune.types import JSON, Baseline, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

_FORMAT_1_KEYS = {"multi": "is_multi_label", "weights": "class_weights"}


class Classify(CalibratedLabels, PooledTask):
    """Choose labels."""

    Options = ClassifyOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b",), "label", spreadable=("label",))
    shared_by_members: ClassVar[tuple[str, ...]] = ("num_texts", "is_multi_label", "labels")
    example_row: ClassVar[str] = '{"text": "Where is my parcel?", "label": "order_status"}'

    row_options: ClassVar[frozenset[str] | None] = frozenset({"problem_type"})

    def __init__(self, options: ClassifyOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.labels = ()
        self.keeps_probabilities = options.calibration_request is not None
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

    def head_outputs(self) -> HeadOutputs:
        """Return that outputs are labels, one a row or several."""
        kind = SEVERAL_LABELS if self.is_multi_label else ONE_LABEL
        return HeadOutputs(kind, self.labels, by_position=self.labels)

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

    @property
    def has_several_labels(self) -> bool:
        """Tell whether a row has any number of labels."""
        return bool(self.is_multi_label)

    @property
    def fixed_threshold(self) -> float | None:
        """Return the threshold that the settings state, if they do."""
        threshold = self.options.threshold
        return None if threshold == "tuned" else float(threshold)

    @property
    def decision_thresholds(self) -> Sequence[float] | None:
        """Return the threshold of each label, or of the positive label; None: the most probable is chosen."""
        if self.calibration is not None and self.calibration.thresholds:
            return self.calibration.thresholds
        if self.is_multi_label:
            return self.thresholds
        fixed = self.fixed_threshold
        return None if fixed is None or self.positive_id is None else (fixed,)

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
        several = self.has_several_labels
        check_options(self.options, self.data, self.labels, is_multi_label=several)
        self.class_weights = weights_of_labels(
            self.options.class_weights, self.labels, counts, len(examples), is_multi_label=several
        )
        threshold = self.options.threshold
        self.thresholds = [0.5 if threshold == "tuned" else threshold] * len(self.labels)

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
        """Return the probability of each label of each row (n, N): the model's own in fp32."""
        probabilities = out.float().sigmoid() if self.is_multi_label else out.float().softmax(-1)
        return self.calibrated(probabilities.cpu().numpy())

    def _predictions(self, rows: Floats) -> list[Prediction]:
        """Return predictions of probabilities (n, N), which stay an array."""
        thresholds = self.decision_thresholds
        if not self.is_multi_label:
            best = rows.argmax(1)
            if thresholds is not None and (positive := self.positive_id) is not None:
                is_positive = rows[:, positive].astype(np.float64) >= thresholds[0]
                best = np.where(is_positive, positive, 1 - positive)
            return [
                Prediction(
                    self.labels[i], float(row[i]), vectors=(row,) if self.keeps_probabilities else None
                )
                for i, row in zip(best.tolist(), rows, strict=True)
            ]
        labels, applies = np.array(self.labels, object), rows.astype(np.float64) >= np.array(thresholds)
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

    def baseline(self, examples: Sequence[Example]) -> Baseline | None:
        """Return what the same label, or the same labels, for every row score."""
        targets = [e.target for e in examples]
        positive = None if self.positive_id is None else self.labels[self.positive_id]
        constants = (
            constant_label_sets(targets) if self.is_multi_label else constant_labels(targets, positive)
        )
        return best_constant(self, examples, constants)

    def unlearnt_signs(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Sign]:
        """Return that all rows get the same label, and what uneven labels need."""
        return label_signs(
            predictions,
            self.score(predictions, examples, intervals=False),
            is_weighted=self.is_multi_label or self.class_weights is not None,
        )

    def stratify_key(self, example: Example) -> str:
        """Return the label, or the labels together."""
        return "\0".join(example.target) if self.is_multi_label else str(example.target)

    def gold_of(self, examples: Sequence[Example]) -> Gold:
        """Return the ids of the labels (n,); multi-label: whether each label applies (n, N)."""
        if not self.is_multi_label:
            return np.array([self._ids[e.target] for e in examples])
        gold = np.zeros((len(examples), len(self.labels)), bool)
        for flags, example in zip(gold, examples, strict=True):
            flags[[self._ids[label] for label in example.target]] = True
        return gold

    def calibrate_on(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note, rows: str
    ) -> list[Prediction]:
        """Choose the threshold of each label, and learn what the settings ask of calibration."""
        request = self.options.calibration_request
        if self.is_multi_label and self.fixed_threshold is None:
            probabilities, gold = self.probability_rows(predictions), self.gold_of(examples)
            self.thresholds = [
                best_threshold(gold[:, i], probabilities[:, i].astype(np.float64))
                for i in range(len(self.labels))
            ]
            if request is None:
                note(best_f1_note(self.labels, self.thresholds, rows))
                return self._predictions(probabilities)
        if request is None:
            return predictions
        report = self.learn_calibration(predictions, examples, request, note, rows)
        note(f"calibration: {report.describe()}")
        return self._predictions(self.calibrated(self.probability_rows(predictions)))

    def decide(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return complete predictions with what calibration has learned; they were made without it."""
        if not predictions:
            return []
        rows = self.calibrated(self.probability_rows(predictions))
        return [
            replace(
                p,
                value=d.value,
                confidence=d.confidence,
                probabilities=dict(zip(self.labels, values, strict=True)),
            )
            for p, d, values in zip(predictions, self._predictions(rows), rows.tolist(), strict=True)
        ]

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
            **self.calibration_state(),
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        state = rename_keys(state, _FORMAT_1_KEYS)
        self.labels, self.is_multi_label = state["labels"], state["is_multi_label"]
        self.is_multi_hot = state.get("is_multi_hot", False)
        self.problem_reason = state.get("problem_reason", "as trained")
        self.class_weights, self.thresholds = state["class_weights"], state["thresholds"]
        self.load_calibration(state)

    def ignored_by_hf(self, head: Any) -> str:
        """Return that other tools give the model's own probabilities and decisions, where that differs."""
        calibration, left_out = self.calibration, []
        if calibration is not None and calibration.method != "none":
            left_out.append("the calibration of probabilities")
        if not self.is_multi_label and self.decision_thresholds is not None:
            left_out.append("the threshold of the positive label")
        return " and ".join(left_out)

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
