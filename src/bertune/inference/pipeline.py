"""A finished model as a function from texts to predictions."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bertune.data.dataset import EncodedDataset
from bertune.encoders.int8 import quantize
from bertune.errors import DataError
from bertune.heads.model import Model
from bertune.inference.int8_sample import sample_texts
from bertune.inference.predict import PredictionResult, predict_dataset
from bertune.kernels.allocator import limit_kernel_caches, retain_freed_memory
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.types import Example, Location, Prediction, Row

if TYPE_CHECKING:
    from typing_extensions import Self

KERNEL_CACHES = 32
"""Shapes of which oneDNN keeps prepared kernels."""
CHUNK_ROWS = 4096
"""Rows of a file that are read, encoded and sorted by length together."""
MIN_CHUNK_ROWS, MOST_OUTPUTS = 64, 1 << 20
"""Fewer rows where a prediction is a number for each of many labels: so many numbers together."""


@dataclass
class Pipeline:
    """A finished model: texts in, predictions out.

    Attributes:
        model: encoder and head.
        task: knows what the outputs mean, such as the `labels`.
        tokenizer: texts to token ids.
        device: where the model computes.
        num_truncated_rows: rows of the last call that were longer than `max_length`.
    """

    model: Model
    task: Task
    tokenizer: Tokenizer
    device: torch.device
    num_truncated_rows: int = 0

    def prepare(self) -> Self:
        """Prepare the weights for many calls in this process; return the pipeline.

        Raises:
            ConfigError: the precision is int8, and processor or encoder lack it.
        """
        retain_freed_memory()
        limit_kernel_caches(KERNEL_CACHES)
        for member in self.model.members:
            if member.encoder.numerics.precision == "int8":
                quantize(member.encoder, sample_texts(self.tokenizer))
            member.encoder.prepare_inference()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied pipeline, and prepare its weights in this process."""
        self.__dict__.update(state)
        self.prepare()

    def predict(
        self, texts: Iterable[str | tuple[str, ...] | list[str]], *, coverage: float | None = None
    ) -> list[Prediction]:
        """Predict texts, or pairs of texts, in their order.

        For a task about words, a list is the words of one text.

        Args:
            texts: the texts.
            coverage: how often the `prediction_set` of a prediction shall hold the truth, such as 0.9;
                without it predictions have no such set.

        Raises:
            DataError: a text is empty, or is not a text.
            ConfigError: the model cannot give sets with this coverage.
        """
        if isinstance(texts, str):
            raise DataError("predict takes a list of texts, got one text; write predict([text])")
        examples = [
            self.task.read(_to_row(text, number, self.task.columns.is_word_level))
            for number, text in enumerate(texts, 1)
        ]
        if coverage is None:
            return list(self.predict_stream(examples))
        to_set = self.task.prediction_sets(coverage, lambda line: warnings.warn(line, stacklevel=5))
        return [replace(p, prediction_set=to_set(p)) for p in self.predict_stream(examples)]

    def predict_stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predict examples in their order, in memory that does not grow with their number."""
        self.num_truncated_rows = 0
        for dataset in self._encode_chunks(iter(examples)):
            result = predict_dataset(self.model, self.task, dataset, self.device)
            self.num_truncated_rows += dataset.num_truncated_rows
            yield from result.predictions

    def predict_examples(self, examples: Sequence[Example], *, to_score: bool = False) -> PredictionResult:
        """Predict examples; those with targets count in the loss.

        Args:
            examples: what to predict.
            to_score: keep only as much of each prediction as scores need.
        """
        dataset = self._encode(examples)
        self.num_truncated_rows = dataset.num_truncated_rows
        return predict_dataset(self.model, self.task, dataset, self.device, to_score=to_score)

    def predict_dataset(self, dataset: EncodedDataset) -> PredictionResult:
        """Predict encoded rows; a prediction holds only what scores need."""
        self.num_truncated_rows = dataset.num_truncated_rows
        return predict_dataset(self.model, self.task, dataset, self.device, to_score=True)

    def _encode(self, examples: Sequence[Example]) -> EncodedDataset:
        return EncodedDataset(self.task.encode(examples, self.tokenizer))

    def _encode_chunks(self, examples: Iterator[Example]) -> Iterator[EncodedDataset]:
        """Yield encoded chunks. While one is predicted, a thread encodes the next."""
        # A prediction has a number for each label, so of thousands of labels fewer rows are held.
        num_outputs = getattr(self.task, "num_outputs", 1)
        size = min(CHUNK_ROWS, max(MIN_CHUNK_ROWS, MOST_OUTPUTS // max(1, num_outputs)))
        chunk = list(itertools.islice(examples, size))
        if len(chunk) < size:  # the only chunk needs no thread
            if chunk:
                yield self._encode(chunk)
            return
        with ThreadPoolExecutor(1, "bertune-encode") as worker:
            next_dataset = worker.submit(self._encode, chunk)
            while chunk := list(itertools.islice(examples, size)):
                dataset, next_dataset = next_dataset.result(), worker.submit(self._encode, chunk)
                yield dataset
            yield next_dataset.result()


def _to_row(text: Any, number: int, is_word_level: bool) -> Row:
    if isinstance(text, tuple | list) and not is_word_level:
        if len(text) != 2:
            raise DataError(f"texts:{number}: a pair has two texts, got {len(text)}")
        return Row({"text": text[0], "text_b": text[1]}, Location("texts", number))
    return Row({"text": text}, Location("texts", number))
