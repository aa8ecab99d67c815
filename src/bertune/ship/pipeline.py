"""The only prediction loop, and a finished model as a function from texts to predictions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from bertune.config import Precision
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


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return a context that computes in the given precision; weights stay as they are."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


@torch.inference_mode()
def predict_rows(
    model: Model, task: Task, rows: EncodedRows, device: torch.device, precision: Precision = "fp32"
) -> tuple[list[Prediction], float]:
    """Predict every row.

    Rows go through the model sorted by length; predictions come back in the order of the rows.

    Returns:
        The predictions, and the loss per counted thing over all rows that have a target (NaN without any).
    """
    model.eval()
    found: list[Prediction | None] = [None] * len(rows)
    total = torch.zeros((), dtype=torch.float64)
    count = 0.0
    for places in by_length(rows.lengths, MAX_TOKENS):
        here = rows.batch(places, task.collate_target)
        counted = task.count(here) if here.target is not None else 0.0
        batch = here.to(device)
        with autocast(device, precision):
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
    precision: Precision
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
        source = iter(examples)
        while chunk := list(itertools.islice(source, CHUNK)):
            predictions, _, cut = self._predict(chunk)
            self.num_cut += cut
            yield from predictions

    def evaluate(self, examples: Sequence[Example]) -> tuple[list[Prediction], float]:
        """Predict examples that have targets; return predictions and the mean loss."""
        predictions, loss, self.num_cut = self._predict(examples)
        return predictions, loss

    def _predict(self, examples: Sequence[Example]) -> tuple[list[Prediction], float, int]:
        rows = EncodedRows(self.task.encode(examples, self.tokenizer))
        predictions, loss = predict_rows(self.model, self.task, rows, self.device, self.precision)
        return predictions, loss, sum(cut > 0 for cut in rows.cut)


def _as_row(text: Any, number: int) -> Row:
    if isinstance(text, tuple | list):
        if len(text) != 2:
            raise DataError(f"texts:{number}: a pair has two texts, got {len(text)}")
        return Row({"text": text[0], "text_b": text[1]}, "texts", number)
    return Row({"text": text}, "texts", number)
