"""Learn from labelled pairs how alike two texts are: Sentence-BERT, CoSENT, cosine regression, contrastive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.labels import get_label, get_number, read_labels, sort_labels, unknown_label_error
from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.classification import confusion_matrix, per_label_scores, single_label_scores
from bertune.tasks.base.sentence import (
    METRICS,
    SentenceOptions,
    SentenceTask,
    check_not_constant,
    int_if_whole,
    is_binary,
    score_binary,
    score_correlation,
)
from bertune.tasks.base.task import Note
from bertune.types import JSON, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from bertune.heads.sentence import SentenceOutput

SOFTMAX_METRICS = ("accuracy", "f1_macro", "mcc")


class MatchOptions(SentenceOptions):
    """Settings of matching."""

    loss: Literal["cosent", "cosine", "softmax", "contrastive"] = "cosent"
    """`cosent`: of two pairs the one with the higher score shall have the higher cosine. `cosine`: the cosine shall be the score,
    brought to 0 to 1 by the range of the training rows. `softmax`: labels are told from [u; v; |u - v|] (Sentence-BERT), for paraphrase
    and NLI labels. `contrastive`: pairs labelled 1 together, pairs labelled 0 apart."""
    margin: Annotated[float, Field(gt=0)] = 0.5
    """contrastive: from which distance (1 - cosine) pairs labelled 0 are left alone."""
    concat_product: bool = False
    """softmax: also tell labels from u * v (bertorch's `concat_multiply`)."""
    classifier_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """softmax: peak learning rate of the layer that tells labels, which begins at random: at the encoder's rate it is hardly learnt
    within a few hundred steps. It has no weight decay; `train.head_learning_rate` is for the layers before it."""
    metric: Literal[
        "auto", "spearman", "pearson", "average_precision", "accuracy", "f1", "f1_macro", "mcc"
    ] = "auto"
    """The figure that decides which checkpoint is best; `auto` is spearman for scores, average_precision for labels 0 and 1, and
    accuracy for softmax."""


class Match(SentenceTask):
    """Say how alike two texts are, or which label a pair has, each text encoded for itself."""

    Options = MatchOptions
    columns: ClassVar[Columns] = Columns(("text", "text_b"), (), "label")
    example_row: ClassVar[str] = (
        '{"text": "How do I repay early?", "text_b": "Can I pay it back sooner?", "label": 1}'
    )
    learnt: ClassVar[tuple[str, ...]] = ("labels", "score_range", "is_binary")
    options: MatchOptions

    def __init__(self, options: MatchOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.uses_whole_batch = options.loss == "cosent"
        self.min_batch_size = 2 if self.uses_whole_batch else 1
        self.labels: tuple[str, ...] = ()
        self.score_range = (0.0, 1.0)
        """Lowest and highest score of the training rows."""
        self.is_binary = False
        """Whether scores are labels 0 and 1."""

    @property
    def main_metric(self) -> str:
        """Return the figure that decides."""
        if self.options.metric != "auto":
            return self.options.metric
        return self._figures[0]

    @property
    def _figures(self) -> tuple[str, ...]:
        return SOFTMAX_METRICS if self.labels else METRICS["labels" if self.is_binary else "scores"]

    def read(self, row: Row) -> Example:
        """Read both texts and the score or label of a row."""
        texts = self.read_texts(row, "text_b")
        target = self.columns.target
        value = (
            get_label(row, target)
            if self.options.loss == "softmax"
            else int_if_whole(get_number(row, target))
        )
        return Example(texts, value, row.location)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn the labels, or the range of the scores."""
        if self.data.label_delimiter is not None:
            raise ConfigError(
                "data.label_delimiter is for several labels a row, which pairs do not have; leave it out"
            )
        if self.options.loss == "softmax":
            self.labels = read_labels(self.data.labels) or sort_labels(e.target for e in examples)
            if len(self.labels) < 2:
                raise DataError(
                    f"{examples[0].location.source}: all rows have the label {self.labels[0]!r}; at least two are needed"
                )
            for example in examples:
                self.check(example)
        else:
            gold = [e.target for e in examples]
            self.is_binary = is_binary(gold)
            if len(set(gold)) == 1:
                raise DataError(
                    f"{examples[0].location.source}: all {len(gold)} rows have the score {gold[0]:g}; there is nothing to learn"
                )
            self.score_range = float(min(gold)), float(max(gold))
        self._check_options()

    def _check_options(self) -> None:
        o, faults = self.options, []
        if o.metric not in {"auto", *self._figures}:
            faults.append(
                f"options.metric={o.metric} is no figure of these rows; use auto, {', '.join(self._figures)}"
            )
        if o.loss == "contrastive" and not self.is_binary:
            faults.append("options.loss=contrastive is for labels 0 and 1; for scores use cosent or cosine")
        if o.loss == "softmax" and o.matryoshka:
            faults.append("options.matryoshka has no part in options.loss=softmax, which compares no cosines")
        if not self.labels and self.data.labels is not None:
            faults.append("data.labels is for options.loss=softmax; leave it out")
        for name, for_loss in (
            ("scale", "cosent"),
            ("margin", "contrastive"),
            ("concat_product", "softmax"),
            ("classifier_learning_rate", "softmax"),
        ):
            if o.loss != for_loss and getattr(o, name) != MatchOptions.model_fields[name].default:
                faults.append(
                    f"options.{name} has no part in options.loss={o.loss}; it belongs to {for_loss}"
                )
        if faults:
            raise ConfigError("; ".join(faults))

    def describe(self) -> str:
        """Say what is learnt from which targets."""
        if self.labels:
            return f"matching by labels (softmax on two vectors); {len(self.labels)} labels: {listed(self.labels)}"
        kind = (
            "labels 0 and 1"
            if self.is_binary
            else f"scores from {self.score_range[0]:g} to {self.score_range[1]:g}"
        )
        return f"matching by {self.options.loss}; {kind}"

    def check(self, example: Example) -> None:
        """Refuse a label that is not among those learnt."""
        if self.labels and example.target is not None and example.target not in self.labels:
            raise unknown_label_error(example, example.target, self.labels)
        if self.is_binary and example.target not in {0, 1, None}:
            raise DataError(
                f"{example.location}: the score is {example.target:g}, where all training rows have 0 or 1"
            )

    def check_scorable(self, examples: Sequence[Example]) -> None:
        """Refuse scores that are all the same, and labels of one kind."""
        if not self.labels:
            check_not_constant(
                [e.target for e in examples], examples[0].location.source, labels=self.is_binary
            )

    def stratify_key(self, example: Example) -> str:
        """Return the label."""
        return str(example.target) if self.labels or self.is_binary else ""

    def head_kwargs(self) -> JSON:
        """Return how many labels the head tells, from what, and how fast it learns that."""
        o = self.options
        return {
            "num_labels": len(self.labels),
            "concat_product": o.concat_product,
            "classifier_learning_rate": o.classifier_learning_rate if self.labels else None,
        }

    def encode_target(self, target: Any) -> Any:
        """Return a label's id, or the score, from 0 to 1 for the cosine loss."""
        if target is None:
            return None
        if self.labels:
            return self.labels.index(target)
        low, high = self.score_range
        return (target - low) / (high - low) if self.options.loss == "cosine" else float(target)

    def collate_target(self, targets: list[Any]) -> Any:
        """Return ids (B,), or scores (B,) as fp32."""
        import torch

        return torch.tensor(targets) if self.labels else super().collate_target(targets)

    def loss(self, out: SentenceOutput, batch: Batch) -> Tensor:
        """Return the loss summed over rows; CoSENT, which is one figure of a whole batch, counts once for each row."""
        from bertune.distributed import all_gather
        from bertune.losses.classification import cross_entropy
        from bertune.losses.similarity import contrastive_loss, cosent_loss, cosine_mse_loss

        if batch.target is None:
            raise DataError("a loss needs the scores of all rows")
        target, o = batch.target, self.options
        if out.logits is not None:
            return cross_entropy(out.logits, target)
        if o.loss == "cosent":
            scores = all_gather(target)  # pairs are compared over all processes
            return self.matryoshka_loss(
                out,
                lambda x: cosent_loss(all_gather(self.similarities(x)), scores, o.scale) * len(batch.rows),
            )
        if o.loss == "contrastive":
            return self.matryoshka_loss(
                out, lambda x: contrastive_loss(self.similarities(x), target, o.margin)
            )
        return self.matryoshka_loss(out, lambda x: cosine_mse_loss(self.similarities(x), target))

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the cosine of each pair, or its label with the probability of each."""
        if out.logits is None:
            return super().decode(out, batch)
        found = []
        for row in out.logits.float().softmax(-1).tolist():
            best = max(range(len(row)), key=row.__getitem__)
            found.append(Prediction(self.labels[best], row[best], dict(zip(self.labels, row, strict=True))))
        return found

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return rank correlation for scores, average precision for labels 0 and 1, accuracy for softmax."""
        gold = [e.target for e in examples]
        if not self.labels:
            return (score_binary if self.is_binary else score_correlation)(
                gold, predictions, self.main_metric, intervals=intervals
            )
        ids = {label: n for n, label in enumerate(self.labels)}
        columns = np.array([ids[g] for g in gold]), np.array([ids[str(p.value)] for p in predictions])

        def figures(g: Any, p: Any) -> dict[str, float]:
            return single_label_scores(confusion_matrix(g, p, len(ids)), None)

        found = (
            bootstrap_interval(lambda g, p: figures(g, p)[self.main_metric], *columns) if intervals else None
        )
        matrix = confusion_matrix(*columns, len(ids))
        per_label = per_label_scores(self.labels, np.diag(matrix), matrix.sum(0), matrix.sum(1))
        return Scores(
            self.main_metric, True, figures(*columns), {self.main_metric: found} if found else {}, per_label
        )

    def state(self) -> JSON:
        """Return what was learnt of labels and scores."""
        return {"labels": list(self.labels), "range": list(self.score_range), "binary": self.is_binary}

    def load_state(self, state: JSON) -> None:
        """Take back what was learnt of labels and scores."""
        self.labels, self.score_range, self.is_binary = (
            tuple(state["labels"]),
            (state["range"][0], state["range"][1]),
            state["binary"],
        )
