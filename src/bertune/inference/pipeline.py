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
from bertune.inference.predict import predict_rows
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.types import Example, Prediction, Row

CHUNK = 4096
"""Rows that are read, encoded and sorted together when a file is predicted."""


@dataclass
class Pipeline:
    """A finished model: texts in, predictions out.

    Attributes:
        task: what the outputs mean; its `labels`, if it has any, among other things.
        num_cut: rows longer than `max_length` in the last call.
    """

    model: Model
    task: Task
    tokenizer: Tokenizer
    device: torch.device
    num_cut: int = 0

    def predict(self, texts: Iterable[str | tuple[str, ...] | list[str]]) -> list[Prediction]:
        """Predict texts, or pairs of texts, in their order; where the task looks at words, a list is the words of a text.

        Raises:
            DataError: a text is empty or no text.
        """
        if isinstance(texts, str):
            raise DataError("predict takes a list of texts, got one text; write predict([text])")
        examples = [self.task.read(_as_row(text, n, self.task.columns.of_words)) for n, text in enumerate(texts, 1)]
        return list(self.stream(examples))

    def stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predict examples in their order, in memory that does not grow with their number."""
        self.num_cut = 0
        for rows in self._encoded(iter(examples)):
            predictions, _ = predict_rows(self.model, self.task, rows, self.device)
            self.num_cut += rows.num_cut
            yield from predictions

    def evaluate(self, examples: Sequence[Example]) -> tuple[list[Prediction], float]:
        """Predict examples that have targets; return predictions and the mean loss."""
        rows = self._encode(examples)
        self.num_cut = rows.num_cut
        return predict_rows(self.model, self.task, rows, self.device)

    def evaluate_rows(self, rows: EncodedDataset) -> tuple[list[Prediction], float]:
        """Do the same with rows that are encoded; predictions hold what scores need."""
        self.num_cut = rows.num_cut
        return predict_rows(self.model, self.task, rows, self.device, to_score=True)

    def _encode(self, examples: Sequence[Example]) -> EncodedDataset:
        return EncodedDataset(self.task.encode(examples, self.tokenizer))

    def _encoded(self, examples: Iterator[Example]) -> Iterator[EncodedDataset]:
        """Yield encoded chunks; while one is predicted, the next is encoded in another thread."""
        chunk = list(itertools.islice(examples, CHUNK))
        if len(chunk) < CHUNK:  # all there is: no thread
            if chunk:
                yield self._encode(chunk)
            return
        with ThreadPoolExecutor(1, "bertune-encode") as worker:
            coming = worker.submit(self._encode, chunk)
            while chunk := list(itertools.islice(examples, CHUNK)):
                rows, coming = coming.result(), worker.submit(self._encode, chunk)
                yield rows
            yield coming.result()


def _as_row(text: Any, number: int, of_words: bool) -> Row:
    if isinstance(text, tuple | list) and not of_words:
        if len(text) != 2:
            raise DataError(f"texts:{number}: a pair has two texts, got {len(text)}")
        return Row({"text": text[0], "text_b": text[1]}, "texts", number)
    return Row({"text": text}, "texts", number)
