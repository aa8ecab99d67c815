"""The only prediction loop."""

from __future__ import annotations

from typing import cast

import torch

from bertune.data.batching import by_length
from bertune.data.dataset import EncodedDataset
from bertune.distributed import all_gather_object, num_processes, own_share, single_process
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.types import PairIndex, Prediction

MAX_TOKENS = 8192
"""Most tokens of one forward pass."""
COMPARED = 1024
"""Rows whose texts' vectors are compared together."""


@torch.inference_mode()
def predict_rows(
    model: Model, task: Task, rows: EncodedDataset, device: torch.device, *, to_score: bool = False
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
        for places in own_share(list(by_length(rows.lengths, MAX_TOKENS))):
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
        parts = all_gather_object(({place: p for place, p in enumerate(found) if p is not None}, float(total), count))
        for part, _, _ in parts:
            for place, prediction in part.items():
                found[place] = prediction
        total, count = torch.tensor(sum(part for _, part, _ in parts), dtype=torch.float64), sum(part for _, _, part in parts)
    return [p for p in found if p is not None], float(total) / count if count else float("nan")


def _predict_compared(model: Model, task: Task, rows: EncodedDataset, device: torch.device) -> tuple[list[Prediction], float]:
    """Predict rows of several texts: every text is encoded once, then rows are compared in their order."""
    vectors = text_vectors(model, rows, device)
    found: list[Prediction] = []
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    with single_process():  # comparing costs little, so every process does all of it
        for start in range(0, len(rows), COMPARED):
            places = range(start, min(start + COMPARED, len(rows)))
            texts, sides = rows.sides(places)
            here = rows.compared(places, sides, task.collate_target, rows.texts([]))
            batch = here.to(device)
            out = model.compare(vectors[list(texts)].to(device), cast(PairIndex, batch.sides))
            counted = task.count(here) if here.target is not None or not task.columns.target_needed else 0.0
            if counted:
                total += task.loss(out, batch).cpu().double()
                count += counted
            found += task.decode(out, batch)
    return found, float(total) / count if count else float("nan")


@torch.inference_mode()
def text_vectors(model: Model, rows: EncodedDataset, device: torch.device) -> torch.Tensor:
    """Return the vector of each text (texts, E), fp32, in main memory."""
    model.eval()
    vectors = torch.empty(len(rows.text_lengths), model.vector_size)
    mine = own_share(list(by_length(rows.text_lengths, MAX_TOKENS)))
    with model.encoder.inference():
        for numbers in mine:
            vectors[numbers] = model.vectors(rows.texts(numbers).to(device)).float().cpu()
    if num_processes() > 1:
        for part in all_gather_object([(numbers, vectors[numbers]) for numbers in mine]):
            for numbers, found in part:
                vectors[numbers] = found
    return vectors
