"""The only prediction loop, and a finished model as a function from texts to predictions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

import torch

from bertune.data.batching import EncodedRows, by_length
from bertune.errors import DataError
from bertune.model import Model
from bertune.model.tokenizer import Tokenizer
from bertune.tasks.task import Task
from bertune.types import Example, Prediction, Row

MAX_TOKENS = 8192
"""Most tokens of one forward pass."""
CHUNK = 4096
"""Rows that are read, encoded and sorted together when a file is predicted."""


@torch.inference_mode()
def predict_rows(model: Model, task: Task, rows: EncodedRows, device: torch.device) -> tuple[list[Prediction], float]:
    """Predict every row.

    Rows go through the model sorted by length; predictions come back in the order of the rows.

    Returns:
        The predictions, and the loss per counted thing over all rows that have a target (NaN without any).
    """
    model.eval()
    found: list[Prediction | None] = [None] * len(rows)
    total = torch.zeros((), dtype=torch.float64)
    count = 0.0
    with model.encoder.inference():
        for places in by_length(rows.lengths, MAX_TOKENS):
            here = rows.batch(places, task.collate_target)
            counted = task.count(here) if here.target is not None else 0.0
            batch = here.to(device)
            out = model(batch)
            if counted:
                total += task.loss(out, batch).cpu().double()  # in this order: Apple GPUs have no float64
                count += counted
            for place, prediction in zip(places, task.decode(out, batch), strict=True):
                found[place] = prediction
    return [p for p in found if p is not None], float(total) / count if count else float("nan")


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

    def predict(self, texts: Iterable[str | tuple[str, str] | list[str]]) -> list[Prediction]:
        """Predict texts, or pairs of texts, in their order.

        Raises:
            DataError: a text is empty or no text.
        """
        if isinstance(texts, str):
            raise DataError("predict takes a list of texts, got one text; write predict([text])")
        examples = [self.task.read(_as_row(text, n)) for n, text in enumerate(texts, 1)]
        return list(self.stream(examples))

    def stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predict examples in their order, in memory that does not grow with their number."""
        self.num_cut = 0
        with self.model.encoder.inference():
            for rows in _one_ahead(self._encoded(examples)):
                predictions, _ = predict_rows(self.model, self.task, rows, self.device)
                self.num_cut += rows.num_cut
                yield from predictions

    def evaluate(self, examples: Sequence[Example]) -> tuple[list[Prediction], float]:
        """Predict examples that have targets; return predictions and the mean loss."""
        rows = EncodedRows(self.task.encode(examples, self.tokenizer))
        self.num_cut = rows.num_cut
        return predict_rows(self.model, self.task, rows, self.device)

    def _encoded(self, examples: Iterable[Example]) -> Iterator[EncodedRows]:
        source = iter(examples)
        while chunk := list(itertools.islice(source, CHUNK)):
            yield EncodedRows(self.task.encode(chunk, self.tokenizer))


def _one_ahead(items: Iterator[EncodedRows]) -> Iterator[EncodedRows]:
    """Yield the same items; while one is used, the next is made in another thread."""
    made: Queue[EncodedRows | BaseException | None] = Queue(maxsize=1)
    abandoned = threading.Event()

    def work() -> None:
        try:
            for item in items:
                made.put(item)
                if abandoned.is_set():
                    return
            made.put(None)
        except BaseException as error:
            made.put(error)

    # A daemon, or Ctrl-C would wait for a line that never comes on standard input.
    threading.Thread(target=work, daemon=True, name="bertune-encode").start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        abandoned.set()
        with suppress(Empty):
            made.get_nowait()


def _as_row(text: Any, number: int) -> Row:
    if isinstance(text, tuple | list):
        if len(text) != 2:
            raise DataError(f"texts:{number}: a pair has two texts, got {len(text)}")
        return Row({"text": text[0], "text_b": text[1]}, "texts", number)
    return Row({"text": text}, "texts", number)
