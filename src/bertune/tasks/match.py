"""Similarity of two texts, learned from labelled pairs: Sentence-BERT, CoSENT, cosine, contrastive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.columns import RELATED_PAIRS, ColumnMapping
from bertune.data.label_settings import all_labels
from bertune.data.labels import format_label, get_label, get_number, unknown_label_error
from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.calibration import Ints
from bertune.metrics.classification import confusion_matrix, per_label_scores, single_label_scores
from bertune.tasks.base.baselines import best_constant, constant_labels, constant_similarity
from bertune.tasks.base.calibrated import CalibratedLabels
from bertune.tasks.base.calibration import CalibrationRequest, PredictionSet
from bertune.tasks.base.head_outputs import PAIR_LABEL, HeadOutputs
from bertune.tasks.base.old_state import rename_keys
from bertune.tasks.base.pair_labels import TargetKind, choose_target, read_number_or_label
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.sentence import (
    METRICS,
    UNBOUNDED_SCALE,
    SentenceOptions,
    SentenceTask,
    check_not_constant,
    int_if_whole,
    is_binary,
    score_binary,
    score_correlation,
)
from bertune.tasks.base.task import Note
from bertune.types import JSON, Baseline, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from bertune.heads.sentence import SentenceHead, SentenceOutput

SOFTMAX_METRICS = ("accuracy", "f1_macro", "mcc")
_FORMAT_1_KEYS = {"range": "score_range", "binary": "is_binary"}


class MatchOptions(SentenceOptions):
    """Settings of matching."""

    loss: Literal["auto", "cosent", "cosine", "softmax", "contrastive"] = "auto"
    """`auto`: `softmax` for labels in words and for numbers that look like classes, as in NLI data, else
    `cosent`; it is said at the start. `cosent`: of two pairs the one with the higher score gets the higher
    cosine. `cosine`: the cosine becomes the score, scaled to 0 to 1 by the range of the training rows.
    `softmax`: labels are predicted from [u; v; |u - v|] (Sentence-BERT), for paraphrase and NLI labels.
    `contrastive`: pairs labelled 1 come closer, pairs labelled 0 move apart."""
    margin: Annotated[float, Field(gt=0)] = 0.5
    """contrastive: the distance (1 - cosine) from which pairs labelled 0 have no loss."""
    concat_product: bool = False
    """softmax: also predict labels from u * v (bertorch's `concat_multiply`)."""
    classifier_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """softmax: peak learning rate of the layer that predicts labels. It begins at random: at the encoder's
    rate it learns little within a few hundred steps. It has no weight decay; `train.head_learning_rate` is
    for the layers before it."""
    calibration: Literal["none", "auto"] = "none"
    """softmax: `auto` learns on the dev rows a temperature that makes probabilities true, and what
    `predict --coverage` needs."""
    metric: Literal[
        "auto", "spearman", "pearson", "average_precision", "accuracy", "f1", "f1_macro", "mcc"
    ] = "auto"
    """The metric that decides which checkpoint is best. `auto`: spearman for scores, average_precision for
    labels 0 and 1, accuracy for softmax."""


class Match(CalibratedLabels, SentenceTask):
    """Predict how similar two texts are, or the label of a pair. Each text is encoded by itself."""

    Options = MatchOptions
    columns: ClassVar[Columns] = Columns(
        ("text", "text_b"), (), "label", spreadable=("text", "text_b"), pair_aliases=RELATED_PAIRS
    )
    shared_by_members: ClassVar[tuple[str, ...]] = (*SentenceTask.shared_by_members, "labels", "is_binary")
    example_row: ClassVar[str] = (
        '{"text": "How do I repay early?", "text_b": "Can I pay it back sooner?", "label": 1}'
    )
    options: MatchOptions
    row_options: ClassVar[frozenset[str] | None] = SentenceTask.text_options | {"loss"}

    def __init__(self, options: MatchOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self._set_loss("cosent" if options.loss == "auto" else options.loss)
        self._mapping: ColumnMapping = {}  # of the training rows, while the task learns from them
        self.labels: tuple[str, ...] = ()
        self.score_range = (0.0, 1.0)
        """Lowest and highest score of the training rows."""
        self.is_binary = False
        """Whether scores are labels, 0 and 1."""
        self.labels_from_normalized = False
        """Whether the layer of labels reads normalized vectors; see `SentenceHead`."""

    def _set_loss(self, loss: str) -> None:
        self.loss_name = loss
        self.uses_whole_batch = loss == "cosent"
        self.min_batch_size = 2 if self.uses_whole_batch else 1

    @property
    def main_metric(self) -> str:
        """Return the metric that decides."""
        if self.options.metric != "auto":
            return self.options.metric
        return self._metrics[0]

    @property
    def _metrics(self) -> tuple[str, ...]:
        return SOFTMAX_METRICS if self.labels else METRICS["labels" if self.is_binary else "scores"]

    def read(self, row: Row) -> Example:
        """Return both texts of a row, and its score or label."""
        texts = self.read_texts(row, "text_b")
        field = self.columns.target
        if self.options.loss == "softmax" or (self.options.loss == "auto" and self.data.labels is not None):
            return Example(texts, get_label(row, field), row.location)
        if self.options.loss == "auto":
            return Example(texts, read_number_or_label(row, field), row.location)
        return Example(texts, int_if_whole(get_number(row, field)), row.location)

    def new_reader(self) -> MatchReader:
        """Return a reader that refuses numbers among labels in words."""
        return MatchReader(self)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn the labels, or the range of the scores; choose the loss if the settings do not."""
        if self.data.label_delimiter is not None:
            raise ConfigError(
                "data.label_delimiter is for several labels a row, which pairs do not have; leave it out"
            )
        if self.options.loss == "auto":
            kind = self._choose_target(examples)
            self._set_loss("softmax" if kind.is_classes else "cosent")
            if kind.reason:
                note(kind.reason)
        self._mapping = {}
        if self.loss_name == "softmax":
            self._fit_labels(examples)
        else:
            self._fit_scores(examples)
        self._check_options()

    def refit(self, examples: Sequence[Example], note: Note, options: Any = None) -> Self:
        """Return a copy that has learned from a part of the rows; loss and range of scores are kept."""
        options = self.options if options is None else options
        task = super().refit(examples, note, options.model_copy(update={"loss": self.loss_name}))
        task.options = options
        task.score_range, task.is_binary = self.score_range, self.is_binary
        return task

    def known_labels(self) -> Sequence[str]:
        """Return the labels, where the loss is softmax."""
        return self.labels

    def head_outputs(self) -> HeadOutputs:
        """Return that the outputs are labels of pairs, or vectors."""
        return HeadOutputs(PAIR_LABEL, self.labels) if self.labels else super().head_outputs()

    def learn_columns(self, mapping: ColumnMapping) -> None:
        """Hear which columns the training rows come from; their names may say what numbers mean."""
        super().learn_columns(mapping)
        self._mapping = mapping

    def _choose_target(self, examples: Sequence[Example]) -> TargetKind:
        if self.data.labels is not None:
            return TargetKind(True, "data.labels: learned as classes (options.loss=softmax)")
        if self.options.metric in METRICS["scores"]:
            return TargetKind(False)
        return choose_target(examples, self._mapping, self.columns.target)

    def _fit_labels(self, examples: Sequence[Example]) -> None:
        source = examples[0].location.source
        labels = all_labels(self.data.labels, [format_label(e.target) for e in examples])
        if len(labels) < 2:
            raise DataError(f"{source}: all rows have the label {labels[0]!r}; at least two are needed")
        self.labels = labels
        for example in examples:
            self.check(example)

    def _fit_scores(self, examples: Sequence[Example]) -> None:
        gold, source = [e.target for e in examples], examples[0].location.source
        self.is_binary = is_binary(gold)
        if len(set(gold)) == 1:
            raise DataError(
                f"{source}: all {len(gold)} rows have the score {gold[0]:g}; there is nothing to learn"
            )
        self.score_range = float(min(gold)), float(max(gold))

    def _check_options(self) -> None:
        """Raise one ConfigError for all options that do not fit the rows and the loss."""
        options, loss, faults = self.options, self.loss_name, []
        chosen = f"options.loss={loss}" + (" (chosen by the labels)" if options.loss == "auto" else "")
        if options.metric not in {"auto", *self._metrics}:
            faults.append(
                f"options.metric={options.metric} is not a metric of these rows; "
                f"use auto, {', '.join(self._metrics)}"
            )
        if loss == "contrastive" and not self.is_binary:
            faults.append("options.loss=contrastive is for labels 0 and 1; for scores use cosent or cosine")
        if loss == "softmax" and options.matryoshka:
            faults.append(f"options.matryoshka has no effect with {chosen}, which has no cosines")
        if not self.labels and self.data.labels is not None:
            faults.append("data.labels is for options.loss=softmax; leave it out")
        if loss in {"cosine", "contrastive"} and options.similarity != "cosine":
            faults.append(
                f"options.loss={loss} is for cosines, and vectors are compared by "
                f"{options.similarity}; set options.loss=cosent or options.similarity=cosine"
            )
        for name, owner in (
            ("scale", "cosent"),
            ("margin", "contrastive"),
            ("concat_product", "softmax"),
            ("classifier_learning_rate", "softmax"),
            ("calibration", "softmax"),
        ):
            defaults = {MatchOptions.model_fields[name].default}
            if name == "scale":
                defaults.add(UNBOUNDED_SCALE)  # filled in where it fits the similarity
            if loss != owner and getattr(options, name) not in defaults:
                faults.append(f"options.{name} has no effect with {chosen}; it belongs to {owner}")
        if faults:
            raise ConfigError("; ".join(faults))

    def describe(self) -> str:
        """Return one line about the loss and the targets."""
        if self.labels:
            return (
                "matching by labels (softmax on two vectors); "
                f"{len(self.labels)} labels: {listed(self.labels)}"
            )
        low, high = self.score_range
        targets = "labels 0 and 1" if self.is_binary else f"scores from {low:g} to {high:g}"
        meaning = "a higher one says that texts are more alike"
        if self.loss_name == "cosine" and (low, high) != (0, 1):
            meaning = f"cosines are predicted, where 0 stands for {low:g} and 1 for {high:g}"
        return f"matching by {self.loss_name}; {targets}, {meaning}"

    def check(self, example: Example) -> None:
        """Check that the target is a label or a score as the training rows have them."""
        if self.labels:
            label = None if example.target is None else format_label(example.target)
            if label is not None and label not in self.labels:
                raise unknown_label_error(example, label, self.labels)
            return
        if isinstance(example.target, str):
            raise DataError(
                f"{example.location}: {self.columns.target!r} must be a number, as in the training rows, "
                f"got {example.target[:40]!r}"
            )
        if self.is_binary and example.target not in {0, 1, None}:
            raise DataError(
                f"{example.location}: the score is {example.target:g}, where all training rows have 0 or 1"
            )

    def check_scorable(self, examples: Sequence[Example]) -> None:
        """Check that scores, or labels 0 and 1, are not all the same."""
        if not self.labels:
            check_not_constant(
                [e.target for e in examples], examples[0].location.source, labels=self.is_binary
            )

    def stratify_key(self, example: Example) -> str:
        """Return the label; nothing for scores."""
        return format_label(example.target) if self.labels or self.is_binary else ""

    def build_head(self, hidden_size: int, dense: Sequence[tuple[int, str]]) -> SentenceHead:
        """Return a new head, with a layer that predicts labels where there are any."""
        from bertune.heads.sentence import SentenceHead

        options = self.options
        return SentenceHead(
            hidden_size,
            options.pooling,
            dense,
            normalize=options.normalize,
            num_labels=len(self.labels),
            labels_from_normalized=self.labels_from_normalized,
            concat_product=options.concat_product,
            classifier_learning_rate=options.classifier_learning_rate if self.labels else None,
        )

    def encode_target(self, target: Any) -> Any:
        """Return the id of the label, or the score, scaled to 0 to 1 for the cosine loss."""
        if target is None:
            return None
        if self.labels:
            return self.labels.index(format_label(target))
        low, high = self.score_range
        return (target - low) / (high - low) if self.loss_name == "cosine" else float(target)

    def collate_target(self, targets: list[Any]) -> Any:
        """Return ids (B,), or scores (B,) in fp32."""
        import torch

        return torch.tensor(targets) if self.labels else super().collate_target(targets)

    def loss(self, out: SentenceOutput, batch: Batch) -> Tensor:
        """Return the loss, summed over rows.

        CoSENT has one loss for a whole batch, over all processes; it counts once for each row.
        """
        from bertune.distributed import all_gather
        from bertune.losses.classification import cross_entropy
        from bertune.losses.similarity import contrastive_loss, cosent_loss, cosine_mse_loss

        if batch.target is None:
            raise DataError("a loss needs the scores of all rows")
        target, options = batch.target, self.options
        if out.logits is not None:
            return cross_entropy(out.logits, target)
        if self.loss_name == "cosent":
            scores, num_rows = all_gather(target), len(batch.rows)
            return self.matryoshka_loss(
                out,
                lambda x: cosent_loss(all_gather(self.similarities(x)), scores, options.scale) * num_rows,
            )
        if self.loss_name == "contrastive":
            return self.matryoshka_loss(
                out, lambda x: contrastive_loss(self.similarities(x), target, options.margin)
            )
        return self.matryoshka_loss(out, lambda x: cosine_mse_loss(self.similarities(x), target))

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the similarity of each pair, or its label and the probability of each label."""
        if out.logits is None:
            return super().decode(out, batch)
        predictions = []
        for row in self.calibrated(out.logits.float().softmax(-1).cpu().numpy()).tolist():
            best = max(range(len(row)), key=row.__getitem__)
            by_label = dict(zip(self.labels, row, strict=True))
            predictions.append(Prediction(self.labels[best], row[best], by_label))
        return predictions

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return correlations for scores, average precision for labels 0 and 1, accuracy for softmax."""
        gold, main = [e.target for e in examples], self.main_metric
        if not self.labels:
            score = score_binary if self.is_binary else score_correlation
            return score(gold, predictions, main, intervals=intervals)
        ids = {label: n for n, label in enumerate(self.labels)}
        columns = self.gold_of(examples), np.array([ids[str(p.value)] for p in predictions])

        def label_scores(g: Any, p: Any) -> dict[str, float]:
            return single_label_scores(confusion_matrix(g, p, len(ids)), None)

        interval = bootstrap_interval(lambda g, p: label_scores(g, p)[main], *columns) if intervals else None
        matrix = confusion_matrix(*columns, len(ids))
        per_label = per_label_scores(self.labels, np.diag(matrix), matrix.sum(0), matrix.sum(1))
        return Scores(main, True, label_scores(*columns), {main: interval} if interval else {}, per_label)

    def baseline(self, examples: Sequence[Example]) -> Baseline | None:
        """Return what the largest class scores, or one similarity for all pairs."""
        if self.labels:
            return best_constant(self, examples, constant_labels([format_label(e.target) for e in examples]))
        return best_constant(self, examples, constant_similarity([e.target for e in examples]))

    def has_untrained_baseline(self) -> bool:
        """Tell whether pairs are judged by their vectors, which the encoder has before training."""
        return not self.labels

    def gold_of(self, examples: Sequence[Example]) -> Ints:
        """Return the ids of the labels (n,)."""
        ids = {label: n for n, label in enumerate(self.labels)}
        return np.array([ids[format_label(e.target)] for e in examples])

    def check_calibration(self, request: CalibrationRequest) -> None:
        """Check that this can be learnt: of labels, without thresholds; see `Task.check_calibration`."""
        if not self.labels:
            raise ConfigError(
                "calibrate: this model of task match predicts similarities, which are no probabilities; only "
                "one that predicts labels (options.loss=softmax) can be calibrated"
            )
        super().check_calibration(request)

    def prediction_sets(self, coverage: Any, note: Note) -> Callable[[Prediction], PredictionSet]:
        """Return what gives the set of labels of a prediction; see `Task.prediction_sets`."""
        if not self.labels:
            raise ConfigError(
                "coverage: this model of task match predicts similarities, which have no sets; only one that "
                "predicts labels (options.loss=softmax) has"
            )
        return super().prediction_sets(coverage, note)

    def state(self) -> JSON:
        """Return the labels, or the range of the scores."""
        return {
            **super().state(),
            "loss": self.loss_name,
            "text_columns": list(self.text_columns),
            "labels": list(self.labels),
            "score_range": list(self.score_range),
            "is_binary": self.is_binary,
            "labels_from_normalized": self.labels_from_normalized,
            **self.calibration_state(),
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        state = rename_keys(state, _FORMAT_1_KEYS)
        low, high = state["score_range"]
        self.labels, self.score_range = tuple(state["labels"]), (low, high)
        self.is_binary = state["is_binary"]
        self.labels_from_normalized = state.get("labels_from_normalized", True)  # as early versions did
        self.text_columns = tuple(state.get("text_columns", ()))
        if self.options.loss == "auto":
            self._set_loss(state.get("loss", "softmax" if self.labels else "cosent"))
        self.load_calibration(state)


class MatchReader(RowReader):
    """Reads rows, and refuses numbers among labels in words: the one or the other is a mistake."""

    def __init__(self, task: Match) -> None:
        super().__init__(task)
        self.task: Match = task
        self._mapping: ColumnMapping | None = None  # of the first file
        self._first: Example | None = None

    def see_columns(self, mapping: ColumnMapping) -> None:
        """Remember the columns of the first file."""
        self._mapping = self._mapping or mapping

    def read(self, row: Row) -> Example:
        """Return what a row means."""
        example = super().read(row)
        if example.target is None:
            return example
        first = self._first = self._first or example
        if isinstance(first.target, str) != isinstance(example.target, str):
            raise DataError(
                f"{row.location}: {self.task.columns.target!r} is {example.target!r}, but {first.target!r} "
                f"at {first.location}; write numbers or words in all rows, or set options.loss=softmax"
            )
        return example

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Let the task learn from the training rows and the names of their columns."""
        self.task.learn_columns(self._mapping or {})
        super().fit(examples, note)
