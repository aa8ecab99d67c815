"""Similarity of two texts, learned from labelled pairs: Sentence-BERT, CoSENT, cosine, contrastive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.label_settings import all_labels
from bertune.data.labels import get_label, get_number, unknown_label_error
from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.classification import confusion_matrix, per_label_scores, single_label_scores
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
from bertune.tasks.base.task import Note, rename_keys
from bertune.types import JSON, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from bertune.heads.sentence import SentenceHead, SentenceOutput

SOFTMAX_METRICS = ("accuracy", "f1_macro", "mcc")
_FORMAT_1_KEYS = {"range": "score_range", "binary": "is_binary"}


class MatchOptions(SentenceOptions):
    """Settings of matching."""

    loss: Literal["cosent", "cosine", "softmax", "contrastive"] = "cosent"
    """`cosent`: of two pairs the one with the higher score gets the higher cosine. `cosine`: the cosine
    becomes the score, scaled to 0 to 1 by the range of the training rows. `softmax`: labels are predicted
    from [u; v; |u - v|] (Sentence-BERT), for paraphrase and NLI labels. `contrastive`: pairs labelled 1 come
    closer, pairs labelled 0 move apart."""
    margin: Annotated[float, Field(gt=0)] = 0.5
    """contrastive: the distance (1 - cosine) from which pairs labelled 0 have no loss."""
    concat_product: bool = False
    """softmax: also predict labels from u * v (bertorch's `concat_multiply`)."""
    classifier_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """softmax: peak learning rate of the layer that predicts labels. It begins at random: at the encoder's
    rate it learns little within a few hundred steps. It has no weight decay; `train.head_learning_rate` is
    for the layers before it."""
    metric: Literal[
        "auto", "spearman", "pearson", "average_precision", "accuracy", "f1", "f1_macro", "mcc"
    ] = "auto"
    """The metric that decides which checkpoint is best. `auto`: spearman for scores, average_precision for
    labels 0 and 1, accuracy for softmax."""


class Match(SentenceTask):
    """Predict how similar two texts are, or the label of a pair. Each text is encoded by itself."""

    Options = MatchOptions
    columns: ClassVar[Columns] = Columns(("text", "text_b"), (), "label")
    example_row: ClassVar[str] = (
        '{"text": "How do I repay early?", "text_b": "Can I pay it back sooner?", "label": 1}'
    )
    options: MatchOptions

    def __init__(self, options: MatchOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.uses_whole_batch = options.loss == "cosent"
        self.min_batch_size = 2 if self.uses_whole_batch else 1
        self.labels: tuple[str, ...] = ()
        self.score_range = (0.0, 1.0)
        """Lowest and highest score of the training rows."""
        self.is_binary = False
        """Whether scores are labels, 0 and 1."""

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
        if self.options.loss == "softmax":
            return Example(texts, get_label(row, field), row.location)
        return Example(texts, int_if_whole(get_number(row, field)), row.location)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn the labels, or the range of the scores."""
        if self.data.label_delimiter is not None:
            raise ConfigError(
                "data.label_delimiter is for several labels a row, which pairs do not have; leave it out"
            )
        source = examples[0].location.source
        if self.options.loss == "softmax":
            self.labels = all_labels(self.data.labels, [e.target for e in examples])
            if len(self.labels) < 2:
                raise DataError(
                    f"{source}: all rows have the label {self.labels[0]!r}; at least two are needed"
                )
            for example in examples:
                self.check(example)
        else:
            gold = [e.target for e in examples]
            self.is_binary = is_binary(gold)
            if len(set(gold)) == 1:
                raise DataError(
                    f"{source}: all {len(gold)} rows have the score {gold[0]:g}; there is nothing to learn"
                )
            self.score_range = float(min(gold)), float(max(gold))
        self._check_options()

    def _check_options(self) -> None:
        """Raise one ConfigError for all options that do not fit the rows and the loss."""
        options, faults = self.options, []
        if options.metric not in {"auto", *self._metrics}:
            faults.append(
                f"options.metric={options.metric} is not a metric of these rows; "
                f"use auto, {', '.join(self._metrics)}"
            )
        if options.loss == "contrastive" and not self.is_binary:
            faults.append("options.loss=contrastive is for labels 0 and 1; for scores use cosent or cosine")
        if options.loss == "softmax" and options.matryoshka:
            faults.append("options.matryoshka has no effect with options.loss=softmax, which has no cosines")
        if not self.labels and self.data.labels is not None:
            faults.append("data.labels is for options.loss=softmax; leave it out")
        if options.loss in {"cosine", "contrastive"} and options.similarity != "cosine":
            faults.append(
                f"options.loss={options.loss} is for cosines, and vectors are compared by "
                f"{options.similarity}; set options.loss=cosent or options.similarity=cosine"
            )
        for name, loss in (
            ("scale", "cosent"),
            ("margin", "contrastive"),
            ("concat_product", "softmax"),
            ("classifier_learning_rate", "softmax"),
        ):
            defaults = {MatchOptions.model_fields[name].default}
            if name == "scale":
                defaults.add(UNBOUNDED_SCALE)  # filled in where it fits the similarity
            if options.loss != loss and getattr(options, name) not in defaults:
                faults.append(
                    f"options.{name} has no effect with options.loss={options.loss}; it belongs to {loss}"
                )
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
        if self.options.loss == "cosine" and (low, high) != (0, 1):
            targets += ", learnt as cosines from 0 to 1"
        return f"matching by {self.options.loss}; {targets}"

    def check(self, example: Example) -> None:
        """Check that the target is a label or a score as the training rows have them."""
        if self.labels and example.target is not None and example.target not in self.labels:
            raise unknown_label_error(example, example.target, self.labels)
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
        return str(example.target) if self.labels or self.is_binary else ""

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
            concat_product=options.concat_product,
            classifier_learning_rate=options.classifier_learning_rate if self.labels else None,
        )

    def encode_target(self, target: Any) -> Any:
        """Return the id of the label, or the score, scaled to 0 to 1 for the cosine loss."""
        if target is None:
            return None
        if self.labels:
            return self.labels.index(target)
        low, high = self.score_range
        return (target - low) / (high - low) if self.options.loss == "cosine" else float(target)

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
        if options.loss == "cosent":
            scores, num_rows = all_gather(target), len(batch.rows)
            return self.matryoshka_loss(
                out,
                lambda x: cosent_loss(all_gather(self.similarities(x)), scores, options.scale) * num_rows,
            )
        if options.loss == "contrastive":
            return self.matryoshka_loss(
                out, lambda x: contrastive_loss(self.similarities(x), target, options.margin)
            )
        return self.matryoshka_loss(out, lambda x: cosine_mse_loss(self.similarities(x), target))

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the similarity of each pair, or its label and the probability of each label."""
        if out.logits is None:
            return super().decode(out, batch)
        predictions = []
        for row in out.logits.float().softmax(-1).tolist():
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
        columns = np.array([ids[g] for g in gold]), np.array([ids[str(p.value)] for p in predictions])

        def label_scores(g: Any, p: Any) -> dict[str, float]:
            return single_label_scores(confusion_matrix(g, p, len(ids)), None)

        interval = bootstrap_interval(lambda g, p: label_scores(g, p)[main], *columns) if intervals else None
        matrix = confusion_matrix(*columns, len(ids))
        per_label = per_label_scores(self.labels, np.diag(matrix), matrix.sum(0), matrix.sum(1))
        return Scores(main, True, label_scores(*columns), {main: interval} if interval else {}, per_label)

    def state(self) -> JSON:
        """Return the labels, or the range of the scores."""
        return {
            **super().state(),
            "labels": list(self.labels),
            "score_range": list(self.score_range),
            "is_binary": self.is_binary,
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        state = rename_keys(state, _FORMAT_1_KEYS)
        low, high = state["score_range"]
        self.labels, self.score_range = tuple(state["labels"]), (low, high)
        self.is_binary = state["is_binary"]
