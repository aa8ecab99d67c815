"""The only prediction loop."""

from __future__ import annotations

from typing import cast

import torch

from bertune.data.batching import length_sorted_batches
from bertune.data.dataset import EncodedDataset
from bertune.distributed import all_gather_object, num_processes, own_share, single_process
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.types import PairIndex, Prediction

MAX_BATCH_TOKENS = 8192
"""Most tokens of one forward pass."""
COMPARE_BATCH_ROWS = 1024
"""Rows whose texts' vectors are compared together."""


@torch.inference_mode()
def predict_dataset(
    model: Model, task: Task, rows: EncodedDataset, device: torch.device, *, to_score: bool = False
) -> tuple[list[Prediction], float]:
    """Predict every row.

    Rows go through the model sorted by length; predictions come back in the order of the rows; `to_score`: as much of them as scores need.

    Several processes share the work, and each has all predictions afterwards.

    Returns:
        The predictions, and the loss per counted thing over all rows that have a target (NaN without any).
    """
    model.eval()
    if rows.is_multi_text:
        return _predict_compared(model, task, rows, device)
    found: list[Prediction | None] = [None] * len(rows)
    total = torch.zeros((), dtype=torch.float64)
    count = 0.0
    with model.encoder.inference():
        for places in own_share(list(length_sorted_batches(rows.lengths, MAX_BATCH_TOKENS))):
            here = rows.get_batch(places, task.collate_target)
            counted = task.loss_denominator(here) if here.target is not None else 0.0
            batch = here.to(device)
            out = model(batch)
            if counted:
                total += task.loss(out, batch).cpu().double()  # in this order: Apple GPUs have no float64
                count += counted
            for place, prediction in zip(places, task.decode(out, batch), strict=True):
                found[place] = task.compact_prediction(prediction) if to_score else prediction
    if num_processes() > 1:
        parts = all_gather_object(
            ({place: p for place, p in enumerate(found) if p is not None}, float(total), count)
        )
        for part, _, _ in parts:
            for place, prediction in part.items():
                found[place] = prediction
        total, count = (
            torch.tensor(sum(part for _, part, _ in parts), dtype=torch.float64),
            sum(part for _, _, part in parts),
        )
    return [p for p in found if p is not None], float(total) / count if count else float("nan")


def _predict_compared(
    model: Model, task: Task, rows: EncodedDataset, device: torch.device
) -> tuple[list[Prediction], float]:
    """Predict rows of several texts: every text is encoded once, then rows are compared in their order."""
    vectors = embed_texts(model, rows, device)
    found: list[Prediction] = []
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    with single_process():  # comparing costs little, so every process does all of it
        for start in range(0, len(rows), COMPARE_BATCH_ROWS):
            places = range(start, min(start + COMPARE_BATCH_ROWS, len(rows)))
            texts, sides = rows.index_pairs(places)
            here = rows.make_batch(places, sides, task.collate_target, rows.gather_texts([]))
            batch = here.to(device)
            out = model.compare(vectors[list(texts)].to(device), cast(PairIndex, batch.pair_index))
            counted = (
                task.loss_denominator(here)
                if here.target is not None or not task.columns.target_required
                else 0.0
            )
            if counted:
                total += task.loss(out, batch).cpu().double()
                count += counted
            found += task.decode(out, batch)
    return found, float(total) / count if count else float("nan")


@torch.inference_mode()
def embed_texts(model: Model, rows: EncodedDataset, device: torch.device) -> torch.Tensor:
    """Return the vector of each text (texts, E), fp32, in main memory."""
    model.eval()
    vectors = torch.empty(len(rows.text_lengths), model.embedding_dim)
    mine = own_share(list(length_sorted_batches(rows.text_lengths, MAX_BATCH_TOKENS)))
    with model.encoder.inference():
        for numbers in mine:
            vectors[numbers] = model.vectors(rows.gather_texts(numbers).to(device)).float().cpu()
    if num_processes() > 1:
        for part in all_gather_object([(numbers, vectors[numbers]) for numbers in mine]):
            for numbers, found in part:
                vectors[numbers] = found
    return vectors
