"""The only prediction loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class PredictionResult:
    """The predictions of a data set, and how wrong they are."""

    predictions: list[Prediction]
    """One a row, in the order of the rows."""
    loss: float
    """The mean loss, over what the task counts in all rows that have a target; NaN without any."""


@dataclass
class _LossSum:
    """The sum of losses in fp64, and what it is divided by."""

    total: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    denominator: float = 0.0

    def add(self, loss: torch.Tensor, denominator: float) -> None:
        self.total += loss.cpu().double()  # in this order: Apple GPUs have no float64
        self.denominator += denominator

    def mean(self) -> float:
        return float(self.total) / self.denominator if self.denominator else math.nan


@torch.inference_mode()
def predict_dataset(
    model: Model, task: Task, dataset: EncodedDataset, device: torch.device, *, to_score: bool = False
) -> PredictionResult:
    """Predict every row; several processes share the work, and each has the whole result.

    Rows go through the model sorted by length, so that the rows of a batch are about equally long.

    Args:
        model: encoder and head, on `device`.
        task: turns outputs into predictions, and counts the loss.
        dataset: the rows.
        device: where the model is.
        to_score: keep only as much of each prediction as `task.score` needs.
    """
    model.eval()
    if dataset.is_multi_text:
        return _compare_dataset(model, task, dataset, device)
    predictions: dict[int, Prediction] = {}
    loss = _LossSum()
    with model.encoder.inference():
        for rows in own_share(list(length_sorted_batches(dataset.lengths, MAX_BATCH_TOKENS))):
            cpu_batch = task.prepare(dataset.get_batch(rows, task.collate_target), None)
            denominator = task.loss_denominator(cpu_batch) if cpu_batch.target is not None else 0.0
            batch = cpu_batch.to(device)
            out = model(batch)
            if denominator:
                loss.add(task.loss(out, batch), denominator)
            decode = task.decode_to_score if to_score else task.decode
            predictions.update(zip(rows, decode(out, batch), strict=True))
    if num_processes() > 1:
        shares = all_gather_object((predictions, float(loss.total), loss.denominator))
        predictions = {row: prediction for share, _, _ in shares for row, prediction in share.items()}
        total = torch.tensor(sum(total for _, total, _ in shares), dtype=torch.float64)
        loss = _LossSum(total, sum(denominator for _, _, denominator in shares))
    return PredictionResult([predictions[row] for row in sorted(predictions)], loss.mean())


def _compare_dataset(
    model: Model, task: Task, dataset: EncodedDataset, device: torch.device
) -> PredictionResult:
    """Predict rows of several texts: encode every text once, then compare rows in their order."""
    vectors = embed_texts(model, dataset, device)
    predictions: list[Prediction] = []
    loss = _LossSum()
    with single_process():  # comparing costs little, so every process does all of it
        for start in range(0, len(dataset), COMPARE_BATCH_ROWS):
            rows = range(start, min(start + COMPARE_BATCH_ROWS, len(dataset)))
            texts, pair_index = dataset.index_pairs(rows)
            cpu_batch = dataset.make_batch(rows, pair_index, task.collate_target, dataset.gather_texts([]))
            batch = cpu_batch.to(device)
            out = model.compare(vectors[list(texts)].to(device), cast(PairIndex, batch.pair_index))
            has_loss = cpu_batch.target is not None or not task.columns.target_required
            denominator = task.loss_denominator(cpu_batch) if has_loss else 0.0
            if denominator:
                loss.add(task.loss(out, batch), denominator)
            predictions += task.decode(out, batch)
    return PredictionResult(predictions, loss.mean())


@torch.inference_mode()
def embed_texts(model: Model, dataset: EncodedDataset, device: torch.device) -> torch.Tensor:
    """Return the vector of each text (texts, E), fp32, in main memory; several processes share the work."""
    model.eval()
    vectors = torch.empty(len(dataset.text_lengths), model.embedding_dim)
    own_batches = own_share(list(length_sorted_batches(dataset.text_lengths, MAX_BATCH_TOKENS)))
    with model.encoder.inference():
        for texts in own_batches:
            vectors[texts] = model.vectors(dataset.gather_texts(texts).to(device)).float().cpu()
    if num_processes() > 1:
        for share in all_gather_object([(texts, vectors[texts]) for texts in own_batches]):
            for texts, part in share:
                vectors[texts] = part
    return vectors
