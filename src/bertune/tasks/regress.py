"""A number for a text or a pair of texts, such as a rating or a similarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from bertune.data.labels import get_number
from bertune.errors import ConfigError, DataError
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.regression import regression_scores
from bertune.tasks.base.baselines import Sign, best_constant, constant_numbers, number_signs
from bertune.tasks.base.calibrated import CalibratedNumbers
from bertune.tasks.base.head_outputs import NUMBER, HeadOutputs
from bertune.tasks.base.old_state import rename_keys
from bertune.tasks.base.pooled import PooledOptions, PooledTask
from bertune.tasks.base.task import Note
from bertune.types import JSON, Baseline, Batch, Columns, Example, Prediction, Row, Scores

if TYPE_CHECKING:
    from torch import Tensor, nn

LOWER_IS_BETTER = {"mse", "mae"}
_FORMAT_1_KEYS = {"mean": "target_mean", "low": "target_min", "high": "target_max"}


class RegressOptions(PooledOptions):
    """Settings of regression."""

    loss: Literal["mse", "mae", "huber"] = "mse"
    """What is minimised. `mse`: the squared error; `mae`: the absolute error; `huber`: squared up to an error
    of 1, absolute beyond."""
    metric: Literal["pearson", "spearman", "mse", "mae"] = "pearson"
    """The metric that decides which checkpoint is best."""
    calibration: Literal["none", "auto"] = "none"
    """`auto` learns on the dev rows how wrong predictions are, for the intervals of `predict --coverage`."""


class Regress(CalibratedNumbers, PooledTask):
    """Predict one number."""

    Options = RegressOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b",), "label")
    shared_by_members: ClassVar[tuple[str, ...]] = ("num_texts",)
    example_row: ClassVar[str] = '{"text": "A man plays.", "text_b": "A man is playing.", "label": 4.8}'
    row_options: ClassVar[frozenset[str] | None] = frozenset()
    num_outputs = 1
    target_mean = 0.0
    """Mean of the training targets; the head's output begins there."""
    target_min = 0.0
    """Lowest training target."""
    target_max = 0.0
    """Highest training target."""

    def read(self, row: Row) -> Example:
        """Return the texts and the number of a row."""
        return Example(self.read_texts(row), get_number(row, self.columns.target), row.location)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn the mean and the range of the targets."""
        super().fit(examples, note)
        for name in ("labels", "label_delimiter", "drop_labels"):
            if getattr(self.data, name):
                raise ConfigError(f"data.{name} is for labels, and regress predicts a number; leave it out")
        targets = np.array([e.target for e in examples])
        if len(np.unique(targets)) == 1:
            raise DataError(
                f"{examples[0].location.source}: every target is {targets[0]}; there is nothing to learn"
            )
        self.target_mean = float(targets.mean())
        self.target_min, self.target_max = float(targets.min()), float(targets.max())

    def head_outputs(self) -> HeadOutputs:
        """Return that the output is a number."""
        return HeadOutputs(NUMBER)

    def describe(self) -> str:
        """Return one line about the problem."""
        return (
            "regression, as task regress states; "
            f"training targets from {self.target_min:g} to {self.target_max:g}, mean {self.target_mean:.4g}"
        )

    def head(self, encoder: Any, pretrained: dict[str, Tensor]) -> nn.Module:
        """Return a head whose bias is the mean of the targets."""
        head = super().head(encoder, pretrained)
        head.out.bias.data.fill_(self.target_mean)  # type: ignore[union-attr, operator]
        return head

    def collate_target(self, targets: list[Any]) -> Any:
        """Return the targets (B,) in fp32."""
        import torch

        return torch.tensor(targets, dtype=torch.float32)

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the error, summed over rows."""
        from torch.nn import functional as F

        losses: dict[str, Callable[..., Tensor]] = {
            "mse": F.mse_loss,
            "mae": F.l1_loss,
            "huber": F.huber_loss,
        }
        return losses[self.options.loss](out[:, 0].float(), batch.target, reduction="sum")

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        """Return the squared difference of two passes, summed over rows."""
        return ((out[:, 0].float() - other[:, 0].float()) ** 2).sum()

    def mean_output(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the mean of the numbers (B, 1)."""
        from bertune.tasks.base.ensembling import mean_number

        return mean_number(outputs)

    def decode(self, out: Tensor, batch: Batch) -> list[Prediction]:
        """Return the number of each row."""
        return [Prediction(value) for value in out[:, 0].float().tolist()]

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return correlations and errors."""
        gold = np.array([e.target for e in examples], float)
        predicted = np.array([p.value for p in predictions], float)
        main = self.options.metric
        interval = None
        if intervals:
            interval = bootstrap_interval(lambda g, p: regression_scores(g, p)[main], gold, predicted)
        return Scores(
            main,
            main not in LOWER_IS_BETTER,
            regression_scores(gold, predicted),
            {main: interval} if interval else {},
        )

    def baseline(self, examples: Sequence[Example]) -> Baseline | None:
        """Return what the mean, or the median, for every row scores."""
        return best_constant(self, examples, constant_numbers([e.target for e in examples]))

    def unlearnt_signs(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Sign]:
        """Return that predictions hardly differ, if they do not."""
        return number_signs([float(cast(float, p.value)) for p in predictions], [e.target for e in examples])

    def state(self) -> JSON:
        """Return the number of texts a row, and the mean and the range of the targets."""
        return {
            **super().state(),
            "target_mean": self.target_mean,
            "target_min": self.target_min,
            "target_max": self.target_max,
            **self.calibration_state(),
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        state = rename_keys(state, _FORMAT_1_KEYS)
        self.target_mean = state["target_mean"]
        self.target_min, self.target_max = state["target_min"], state["target_max"]
        self.load_calibration(state)

    def hf_config(self, head: Any) -> JSON:
        """Return the head's part of config.json, as transformers has it for regression."""
        names = {"id2label": {"0": "value"}, "label2id": {"value": 0}}
        return {**super().hf_config(head), **names, "problem_type": "regression"}
