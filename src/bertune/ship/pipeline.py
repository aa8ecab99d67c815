"""The only prediction loop, and a finished model as a function from texts to predictions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import torch

from bertune.data.batching import EncodedRows, by_length
from bertune.errors import DataError
from bertune.model import Model
from bertune.model.gather import alone, everyones, num_processes, share
from bertune.model.tokenizer import Tokenizer
from bertune.tasks.task import Task
from bertune.types import Example, Prediction, Row, Sides

MAX_TOKENS = 8192
"""Most tokens of one forward pass."""
COMPARED = 1024
"""Rows whose texts' vectors are compared together."""
CHUNK = 4096
"""Rows that are read, encoded and sorted together when a file is predicted."""


@torch.inference_mode()
def predict_rows(
    model: Model, task: Task, rows: EncodedRows, device: torch.device, *, to_score: bool = False
) -> tuple[list[Prediction], float]:
    """Predict every row.

    Rows go through the model sorted by length; predictions come back in the order of the rows; `to_score`: as much of them as scores need.

    Several processes share the work, and each has all predictions afterwards.

    Returns:
        The predictions, and the loss per counted thing over all rows that have a target (NaN without any).
    """
    model.eval()
    if rows.are_compared:
        return _predict_compared(model, task, rows, device)
    found: list[Prediction | None] = [None] * len(rows)
    total = torch.zeros((), dtype=torch.float64)
    count = 0.0
    with model.encoder.inference():
        for places in share(list(by_length(rows.lengths, MAX_TOKENS))):
            here = rows.batch(places, task.collate_target)
            counted = task.count(here) if here.target is not None else 0.0
            batch = here.to(device)
            out = model(batch)
            if counted:
                total += task.loss(out, batch).cpu().double()  # in this order: Apple GPUs have no float64
                count += counted
            for place, prediction in zip(places, task.decode(out, batch), strict=True):
                found[place] = task.to_score(prediction) if to_score else prediction
    if num_processes() > 1:
        parts = everyones(({place: p for place, p in enumerate(found) if p is not None}, float(total), count))
        for part, _, _ in parts:
            for place, prediction in part.items():
                found[place] = prediction
        total, count = torch.tensor(sum(part for _, part, _ in parts), dtype=torch.float64), sum(part for _, _, part in parts)
    return [p for p in found if p is not None], float(total) / count if count else float("nan")


def _predict_compared(model: Model, task: Task, rows: EncodedRows, device: torch.device) -> tuple[list[Prediction], float]:
    """Predict rows of several texts: every text is encoded once, then rows are compared in their order."""
    vectors = text_vectors(model, rows, device)
    found: list[Prediction] = []
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    with alone():  # comparing costs little, so every process does all of it
        for start in range(0, len(rows), COMPARED):
            places = range(start, min(start + COMPARED, len(rows)))
            texts, sides = rows.sides(places)
            here = rows.compared(places, sides, task.collate_target, rows.texts([]))
            batch = here.to(device)
            out = model.compare(vectors[list(texts)].to(device), cast(Sides, batch.sides))
            counted = task.count(here) if here.target is not None or not task.columns.target_needed else 0.0
            if counted:
                total += task.loss(out, batch).cpu().double()
                count += counted
            found += task.decode(out, batch)
    return found, float(total) / count if count else float("nan")


@torch.inference_mode()
def text_vectors(model: Model, rows: EncodedRows, device: torch.device) -> torch.Tensor:
    """Return the vector of each text (texts, E), fp32, in main memory."""
    model.eval()
    vectors = torch.empty(len(rows.text_lengths), model.vector_size)
    mine = share(list(by_length(rows.text_lengths, MAX_TOKENS)))
    with model.encoder.inference():
        for numbers in mine:
            vectors[numbers] = model.vectors(rows.texts(numbers).to(device)).float().cpu()
    if num_processes() > 1:
        for part in everyones([(numbers, vectors[numbers]) for numbers in mine]):
            for numbers, found in part:
                vectors[numbers] = found
    return vectors


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

    def evaluate_rows(self, rows: EncodedRows) -> tuple[list[Prediction], float]:
        """Do the same with rows that are encoded; predictions hold what scores need."""
        self.num_cut = rows.num_cut
        return predict_rows(self.model, self.task, rows, self.device, to_score=True)

    def _encode(self, examples: Sequence[Example]) -> EncodedRows:
        return EncodedRows(self.task.encode(examples, self.tokenizer))

    def _encoded(self, examples: Iterator[Example]) -> Iterator[EncodedRows]:
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
