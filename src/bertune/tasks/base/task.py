"""The contract of a task: what a row means, what the head is, how wrong it was.

To add a task, write one file beside this one with one subclass of Task in it. The file's name is the task's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bertune.config.schema import DataConfig, Section
from bertune.errors import ConfigError
from bertune.types import (
    JSON,
    Batch,
    Columns,
    EncodedExample,
    Encoder,
    Example,
    Prediction,
    Row,
    Scores,
    Tokenizer,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

Note = Callable[[str], None]


class Task(ABC):
    """One kind of problem. Six methods to write, the rest have defaults."""

    Options: ClassVar[type[Section]] = Section
    """The task's own settings, a docstring under each field."""
    columns: ClassVar[Columns]
    """What is read from a row: drives the search for columns and the error messages."""
    example_row: ClassVar[str]
    """What a user's file looks like, shown by `bertune tasks`."""
    uses_whole_batch: bool = False
    """Whether the loss of a row depends on the other rows of its batch. Micro-batches then share their vectors, by a second
    forward pass, so that they change nothing either; the head must have `vectors` and `compare`."""
    min_batch_size: int = 1
    """How many rows a batch needs for its loss to say anything; known once `fit` has run."""
    learnt: ClassVar[tuple[str, ...]] = ()
    """Attributes that `read` and `fit` set, all of them: with these a run goes on from rows that are kept on disk. Without it files are
    read again in every run."""
    hf_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """The class of transformers that opens a saved folder with its head."""
    pipeline_tag: ClassVar[str] = "text-classification"
    """What the Hub calls such a model."""

    def __init__(self, options: Any, data: DataConfig) -> None:
        self.options = options
        self.data = data

    @abstractmethod
    def read(self, row: Row) -> Example:
        """Say what a row means. The target is None where the row has none.

        Raises:
            DataError: with `row.location`, when the row cannot be used.
        """

    @abstractmethod
    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Build the head: `forward(states, batch) -> out`.

        Args:
            encoder: the encoder it will stand on.
            pretrained: `weight` and `bias` of a hidden layer, where the checkpoint has one.
        """

    @abstractmethod
    def loss(self, out: Any, batch: Batch) -> Tensor:
        """Return the loss summed over rows, or over what `loss_denominator` counts. No parameters here."""

    @abstractmethod
    def decode(self, out: Any, batch: Batch) -> list[Prediction]:
        """Turn what the head gave into predictions, one a row, in order."""

    @abstractmethod
    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Compare predictions with targets; `intervals` asks for bootstrap intervals too."""

    @abstractmethod
    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn from the training rows what the head and the loss must know, such as the labels.

        Raises:
            DataError: nothing can be learnt from these rows.
        """

    def describe(self) -> str:
        """Say in one line what problem this is, once `fit` or `load_state` has run."""
        return type(self).__name__.lower()

    def check(self, example: Example) -> None:
        """Refuse an example whose target does not belong to what `fit` has learnt.

        Raises:
            DataError: names the row.
        """

    def check_scorable(self, examples: Sequence[Example]) -> None:
        """Refuse examples that cannot be scored together.

        Raises:
            DataError: says what they lack, such as two different scores to correlate with.
        """

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Turn examples into integers. Large data comes in parts; see `is_chunkable`."""
        pieces = tokenizer.encode([e.texts for e in examples])
        return [
            EncodedExample((piece,), self.encode_target(e.target))
            for piece, e in zip(pieces, examples, strict=True)
        ]

    def is_chunkable(self, examples: Sequence[Example]) -> bool:
        """Tell whether `encode` makes the same of these rows when it is given a part of them at a time."""
        return True

    def report(self) -> list[str]:
        """Say what the rows encoded since the last call have shown that a user should know."""
        return []

    def encode_target(self, target: Any) -> Any:
        """Turn a target into a number or a list of numbers; None stays None."""
        return target

    def collate_target(self, targets: list[Any]) -> Any:
        """Turn the targets of a batch into a tensor."""
        import torch

        return torch.tensor(targets)

    def loss_denominator(self, batch: Batch) -> float:
        """Return what the loss of a batch is divided by: rows, unless the task counts otherwise."""
        return float(len(batch.rows))

    def divergence(self, out: Any, other: Any) -> Tensor:
        """Return how far two dropout passes lie apart, summed over rows, for R-Drop.

        Raises:
            ConfigError: the task has no such distance.
        """
        raise ConfigError(
            "train.r_drop: this task has no distance between two passes; leave train.r_drop out"
        )

    def example_labels(self, example: Example) -> tuple[str, ...]:
        """Return the labels of an example, for counting."""
        return example.target if isinstance(example.target, tuple) else (example.target,)

    def stratify_key(self, example: Example) -> str:
        """Return the group whose share a drawn subset keeps, such as the label."""
        return ""

    def calibrate(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note
    ) -> list[Prediction]:
        """Choose decision settings on the dev rows, after training; return the predictions as they now are."""
        return predictions

    def compact_prediction(self, prediction: Prediction) -> Prediction:
        """Return what `score` and `calibrate` need of a prediction, so that those of a large dev set take little memory."""
        return prediction

    def state(self) -> JSON:
        """Return what `fit` and `calibrate` have learnt, to be kept with the weights."""
        return {}

    def load_state(self, state: JSON) -> None:
        """Take back what `state` gave."""

    def hf_config(self, head: nn.Module) -> JSON:
        """Return what config.json must say besides the encoder's settings, such as id2label."""
        return {}

    def hf_incompatibility(self, head: nn.Module) -> str:
        """Say why transformers cannot open the saved folder with its head, or nothing when it can."""
        return "transformers knows no such head"

    def ignored_by_hf(self, head: nn.Module) -> str:
        """Say what other tools leave out although they open the head, or nothing."""
        return ""
