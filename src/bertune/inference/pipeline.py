"""A finished model as a function from texts to predictions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from bertune.data.dataset import EncodedDataset
from bertune.errors import DataError
from bertune.heads.model import Model
from bertune.inference.predict import predict_dataset
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.types import Example, Location, Prediction, Row

CHUNK_ROWS = 4096
"""Rows that are read, encoded and sorted together when a file is predicted."""


@dataclass
class Pipeline:
    """A finished model: texts in, predictions out.

    Attributes:
        task: what the outputs mean; its `labels`, if it has any, among other things.
        num_truncated_rows: rows longer than `max_length` in the last call.
    """

    model: Model
    task: Task
    tokenizer: Tokenizer
    device: torch.device
    num_truncated_rows: int = 0

    def predict(self, texts: Iterable[str | tuple[str, ...] | list[str]]) -> list[Prediction]:
        """Predict texts, or pairs of texts, in their order; where the task looks at words, a list is the words of a text.

        Raises:
            DataError: a text is empty or no text.
        """
        if isinstance(texts, str):
            raise DataError("predict takes a list of texts, got one text; write predict([text])")
        examples = [
            self.task.read(_as_row(text, n, self.task.columns.is_word_level))
            for n, text in enumerate(texts, 1)
        ]
        return list(self.predict_stream(examples))

    def predict_stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predict examples in their order, in memory that does not grow with their number."""
        self.num_truncated_rows = 0
        for rows in self._encoded(iter(examples)):
            predictions, _ = predict_dataset(self.model, self.task, rows, self.device)
            self.num_truncated_rows += rows.num_truncated_rows
            yield from predictions

    def predict_examples(self, examples: Sequence[Example]) -> tuple[list[Prediction], float]:
        """Predict examples that have targets; return predictions and the mean loss."""
        rows = self._encode(examples)
        self.num_truncated_rows = rows.num_truncated_rows
        return predict_dataset(self.model, self.task, rows, self.device)

    def predict_dataset(self, rows: EncodedDataset) -> tuple[list[Prediction], float]:
        """Do the same with rows that are encoded; predictions hold what scores need."""
        self.num_truncated_rows = rows.num_truncated_rows
        return predict_dataset(self.model, self.task, rows, self.device, to_score=True)

    def _encode(self, examples: Sequence[Example]) -> EncodedDataset:
        return EncodedDataset(self.task.encode(examples, self.tokenizer))

    def _encoded(self, examples: Iterator[Example]) -> Iterator[EncodedDataset]:
        """Yield encoded chunks; while one is predicted, the next is encoded in another thread."""
        chunk = list(itertools.islice(examples, CHUNK_ROWS))
        if len(chunk) < CHUNK_ROWS:  # all there is: no thread
            if chunk:
                yield self._encode(chunk)
            return
        with ThreadPoolExecutor(1, "bertune-encode") as worker:
            coming = worker.submit(self._encode, chunk)
            while chunk := list(itertools.islice(examples, CHUNK_ROWS)):
                rows, coming = coming.result(), worker.submit(self._encode, chunk)
                yield rows
            yield coming.result()


def _as_row(text: Any, number: int, of_words: bool) -> Row:
    if isinstance(text, tuple | list) and not of_words:
        if len(text) != 2:
            raise DataError(f"texts:{number}: a pair has two texts, got {len(text)}")
        return Row({"text": text[0], "text_b": text[1]}, Location("texts", number))
    return Row({"text": text}, Location("texts", number))
