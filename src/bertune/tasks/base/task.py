"""The contract of a task: what a row means, what the head is, how wrong the output was.

To add a task, write one file beside `classify.py` with one subclass of Task. The name of the file is the name
of the task.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bertune.config.auto_rates import TaskRates
from bertune.config.new_encoder import NewEncoder
from bertune.config.schema import DataConfig, Section
from bertune.config.tuning import TRAIN_SPACE
from bertune.errors import ConfigError
from bertune.tasks.base.row_reader import RowReader
from bertune.types import (
    JSON,
    Baseline,
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
    from typing_extensions import Self

    from bertune.tasks.base.baselines import Sign
    from bertune.tasks.base.calibration import CalibrationReport, CalibrationRequest, PredictionSet
    from bertune.tasks.base.head_outputs import HeadOutputs

Note = Callable[[str], None]
"""Called with each line that a user should see."""


class Task(ABC):
    """One kind of problem. Seven methods are abstract, the others have defaults.

    What a task has learned is in `state()`, all of it: saved folders, the cache of data sets and a resumed
    run go on from there.
    """

    Options: ClassVar[type[Section]] = Section
    """The task's own settings, with a docstring under each field."""
    columns: ClassVar[Columns]
    """The fields of a row that the task reads; the search for columns and error messages use it."""
    example_row: ClassVar[str]
    """A row of a data file, as `bertune tasks` shows it."""
    uses_whole_batch: bool = False
    """Whether the loss of a row depends on the other rows of its batch.

    Micro-batches then share their vectors by a second forward pass, so that they change no result. The head
    must be a `bertune.heads.head.EmbeddingHead`.
    """
    min_batch_size: int = 1
    """The fewest rows of a batch from which the loss can learn; final after `fit`."""
    shared_by_members: ClassVar[tuple[str, ...]] = ()
    """Attributes that all models of an ensemble must share, such as `labels` or `options.similarity`."""
    hf_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """The class of transformers that opens a saved folder with its head."""
    pipeline_tag: ClassVar[str] = "text-classification"
    """The Hub's name for this kind of model."""

    row_options: ClassVar[frozenset[str] | None] = None
    """The options on which `read` and `encode` depend; None: all may. A search for settings reads rows again
    only where one of these changes."""

    auto_rates: ClassVar[TaskRates] = TaskRates()
    """What `train.learning_rate` and `train.head_learning_rate` are by default: of `auto`."""
    search_space: ClassVar[JSON] = TRAIN_SPACE
    """What a search for settings tries where the run file has no section `search`, as that would write it."""

    def __init__(self, options: Any, data: DataConfig) -> None:
        self.options = options
        self.data = data

    @abstractmethod
    def read(self, row: Row) -> Example:
        """Return what a row means; the target is None where the row has none.

        The task does not change: learning is for `fit`. A task that must know earlier rows of a file has a
        reader of its own, see `new_reader`.

        Raises:
            DataError: the row cannot be used; the message begins with `row.location`.
        """

    @abstractmethod
    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Return the head, a module with `forward(states, batch) -> out`; see `bertune.heads.head.Head`.

        Args:
            encoder: the encoder below the head.
            pretrained: `weight` and `bias` of a hidden layer, where the checkpoint has one; else empty.
        """

    @abstractmethod
    def loss(self, out: Any, batch: Batch) -> Tensor:
        """Return the loss, summed over what `loss_denominator` counts. The task has no parameters."""

    @abstractmethod
    def decode(self, out: Any, batch: Batch) -> list[Prediction]:
        """Return a prediction for each row of the batch, in order, from the head's output."""

    def mean_output(self, outputs: Sequence[Any]) -> Any:
        """Return the output of an ensemble, from the outputs of its models for the same batch.

        A task that has it also says in `shared_by_members` what the models must have in common.

        Raises:
            ConfigError: the task does not say what the mean of outputs is.
        """
        raise ConfigError("; ".join(Task.ensemble_faults(self)))

    def ensemble_faults(self) -> list[str]:
        """Return why a model of this task cannot be in an ensemble, each as the end of a sentence."""
        if type(self).mean_output is not Task.mean_output:
            return []
        name = type(self).__name__.lower()
        return [f"task {name} does not say what the mean of several outputs is (Task.mean_output)"]

    @abstractmethod
    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Compare predictions with targets.

        Args:
            predictions: one for each example.
            examples: examples with targets.
            intervals: whether to compute bootstrap intervals too.
        """

    @abstractmethod
    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn what head and loss need from the training rows, such as the labels.

        Raises:
            DataError: these rows cannot be learned from.
        """

    def head_outputs(self) -> HeadOutputs | None:
        """Return what the outputs of the head mean, after `fit` or `load_state`.

        A run that goes on from another one keeps weights by it. None: it begins with a new head.
        """
        return None

    def new_reader(self) -> RowReader:
        """Return what reads the rows of one pass over data files; see `RowReader`."""
        return RowReader(self)

    def with_data(self, data: DataConfig) -> Self:
        """Return a copy of the task that reads data by other settings."""
        task = copy.deepcopy(self)
        task.data = data
        return task

    def refit(self, examples: Sequence[Example], note: Note, options: Any = None) -> Self:
        """Return a copy that has learned from these rows instead, which are a part of those learned from.

        What a row can be is kept, such as the labels: a row that is held out may have one that no other has.

        Args:
            examples: the rows to learn from.
            note: called with each line that a user should see.
            options: other options of the task, where they differ in nothing of `row_options`.

        Raises:
            DataError: these rows cannot be learned from.
            ConfigError: the options do not fit the rows.
        """
        task = copy.deepcopy(self)
        task.options = self.options if options is None else options
        if labels := self.known_labels():
            task.data = self.data.model_copy(update={"labels": list(labels)})
        task.fit(examples, note)
        task.data = self.data
        return task

    def known_labels(self) -> Sequence[str]:
        """Return all labels that `fit` has learned, for a task that `data.labels` may name them to."""
        return ()

    def describe(self) -> str:
        """Return one line about the problem, after `fit` or `load_state`."""
        return type(self).__name__.lower()

    def check(self, example: Example) -> None:
        """Check that the target fits what `fit` has learned.

        Raises:
            DataError: it does not; the message begins with the example's location.
        """

    def check_scorable(self, examples: Sequence[Example]) -> None:
        """Check that examples can be scored together.

        Raises:
            DataError: they cannot; the message says what they lack, such as two different scores.
        """

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return examples as token ids and target ids. Large data comes in chunks; see `is_chunkable`."""
        encodings = tokenizer.encode([e.texts for e in examples])
        return [
            EncodedExample((encoding,), self.encode_target(e.target))
            for encoding, e in zip(encodings, examples, strict=True)
        ]

    def see_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Hear which tokenizer the model has, before the head is built and rows are encoded.

        Raises:
            ConfigError: the task cannot work with it.
        """

    def pack(self, rows: list[EncodedExample]) -> list[EncodedExample]:
        """Return training rows in the form in which they become batches: by default as they are.

        Rows come in chunks of 8,192. A task may make fewer or more of them. Rows that are scored or predicted
        stay as they are.
        """
        return rows

    @property
    def trains_all_words(self) -> bool:
        """Tell whether word vectors are trained that no training row uses: `prepare` may put any there."""
        return type(self).prepare is not Task.prepare

    def is_chunkable(self, examples: Sequence[Example]) -> bool:
        """Tell whether `encode` gives the same for these examples when it gets them in chunks."""
        return True

    def report(self) -> list[str]:
        """Return what a user should know about the rows encoded, or learned from, since the last call."""
        return []

    def own_encoder(self) -> NewEncoder | None:
        """Return the encoder that `model: new` makes of a run's rows; None: only a pretrained one will do."""
        return None

    def encode_target(self, target: Any) -> Any:
        """Return a target as a number or a list of numbers; None stays None."""
        return target

    def collate_target(self, targets: list[Any]) -> Any:
        """Return the encoded targets of a batch as a tensor."""
        import torch

        return torch.tensor(targets)

    def prepare(self, batch: Batch, seed: int | None) -> Batch:
        """Return a batch that the task may change before the forward pass, such as by masking tokens.

        What is drawn must depend on the seed and on each row alone, as `bertune.data.row_random` helps to do:
        then micro-batches, processes and resume change nothing. Evaluations do not call it for rows of
        several texts, whose vectors are compared.

        Args:
            batch: a micro-batch, on the CPU.
            seed: of run and step; None in evaluation and prediction, which must give the same each time.
        """
        return batch

    def loss_denominator(self, batch: Batch) -> float:
        """Return what the loss of a batch is divided by: by default the number of rows."""
        return float(len(batch.rows))

    def divergence(self, out: Any, other: Any) -> Tensor:
        """Return the distance of two dropout passes, summed over what `loss_denominator` counts, for R-Drop.

        Raises:
            ConfigError: the task has no such distance.
        """
        raise ConfigError("train.r_drop: this task has no distance between two passes; leave it out")

    def baseline(self, examples: Sequence[Example]) -> Baseline | None:
        """Return what the best constant prediction scores on these rows; None: the task does not say.

        None as well where there is nothing to tell apart, such as rows that all have one label.
        """
        return None

    def has_untrained_baseline(self) -> bool:
        """Tell whether the model before its first step is what training must beat, as for text vectors."""
        return False

    def unlearnt_signs(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Sign]:
        """Return what the predictions of a model that is no better than its baseline show."""
        return []

    def example_labels(self, example: Example) -> tuple[str, ...]:
        """Return the labels of an example, for counts."""
        return example.target if isinstance(example.target, tuple) else (example.target,)

    def stratify_key(self, example: Example) -> str:
        """Return the group of an example: a random subset keeps each group's share.

        The group is the label; several labels have a null character between them. Each label keeps a training
        row where that is possible.
        """
        return ""

    def calibrate(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note
    ) -> list[Prediction]:
        """Choose decision settings on the dev rows, after training; return the new predictions."""
        return predictions

    def decide(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return predictions with the decisions that `calibrate` has learned, such as thresholds.

        Args:
            predictions: complete ones, not those of `decode_to_score`; perhaps of another model.
        """
        return list(predictions)

    def calibrate_on(
        self, predictions: list[Prediction], examples: Sequence[Example], note: Note, rows: str
    ) -> list[Prediction]:
        """Do what `calibrate` does with rows that are not dev rows, such as "out-of-fold rows".

        Predictions must come from the model as it was trained: `reset_calibration` before they are made.
        """
        return self.calibrate(predictions, examples, note)

    def reset_calibration(self) -> None:
        """Forget what calibration has learnt, so that probabilities are the model's own."""

    def check_calibration(self, request: CalibrationRequest) -> None:
        """Check that `learn_calibration` can learn this.

        Raises:
            ConfigError: it cannot; the message names all reasons.
        """
        raise ConfigError(
            f"calibrate: task {type(self).__name__.lower()} has neither probabilities of labels nor numbers "
            "to calibrate; classify, regress and match with classes (options.loss=softmax) have"
        )

    def learn_calibration(
        self,
        predictions: Sequence[Prediction],
        examples: Sequence[Example],
        request: CalibrationRequest,
        note: Note,
        rows: str,
    ) -> CalibrationReport:
        """Learn what calibrates predictions, and use it from now on.

        Args:
            predictions: with probabilities, made after `reset_calibration`.
            examples: the same rows, with targets, on which the model was not trained.
            request: what is to be learnt.
            note: called with each line that a user should see.
            rows: the rows in words, such as "rows of dev.csv".

        Raises:
            ConfigError: see `check_calibration`.
        """
        self.check_calibration(request)
        raise NotImplementedError

    def prediction_sets(self, coverage: Any, note: Note) -> Callable[[Prediction], PredictionSet]:
        """Return what gives the labels, or the interval, that hold the truth as often as `coverage` says.

        Raises:
            ConfigError: the task has none, or the model has not learnt them, or `coverage` is impossible.
        """
        raise ConfigError(
            f"coverage: task {type(self).__name__.lower()} has no sets of predictions; classify (sets of "
            "labels), regress (intervals) and match with classes (options.loss=softmax) have"
        )

    def decode_to_score(self, out: Any, batch: Batch) -> list[Prediction]:
        """Return as much of the predictions of a batch as `score` and `calibrate` need."""
        return [self.compact_prediction(prediction) for prediction in self.decode(out, batch)]

    def compact_prediction(self, prediction: Prediction) -> Prediction:
        """Return the part of a prediction that `score` and `calibrate` need, to save memory on large data."""
        return prediction

    def state(self) -> JSON:
        """Return all that `fit` and `calibrate` have learned, as JSON values.

        A task that is built anew from the same settings must be the same task after `load_state`.
        """
        return {}

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned, now or in an earlier version."""

    def hf_config(self, head: nn.Module) -> JSON:
        """Return the task's part of config.json, such as id2label."""
        return {}

    def hf_incompatibility(self, head: nn.Module) -> str:
        """Return why transformers cannot open the saved folder with its head, or "" when it can."""
        return "the head is the task's own"

    def ignored_by_hf(self, head: nn.Module) -> str:
        """Return what other tools ignore although they open the head, or ""."""
        return ""
