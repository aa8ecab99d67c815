"""The mean of what several models say of the same rows, for the tasks' `mean_output`.

Every mean is computed in fp64 where the device has it, and returned in fp32.

Letters: `k` models, `B` rows, `N` labels, `U` texts, `E` width of a model's vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertune.heads.crf import CRFPotentials
from bertune.heads.sentence import SentenceOutput
from bertune.losses.similarity import l2_normalize
from bertune.metrics.similarity import Similarity
from bertune.types import JSON

VECTOR_SCALES = {"cosine": 0.5, "dot": 0.5, "manhattan": 1.0}
"""Similarities that are the mean of the models' for vectors side by side, each divided by k to this power."""


def mean_number(outputs: Sequence[Tensor]) -> Tensor:
    """Return the mean of numbers (B, N)."""
    return _stack(outputs).mean(0).float()


def mean_class_logits(outputs: Sequence[Tensor]) -> Tensor:
    """Return logits (B, N) whose softmax is the mean of the models' softmax: its logarithm."""
    return _log_mean_exp(_stack(outputs).log_softmax(-1))


def mean_label_logits(outputs: Sequence[Tensor]) -> Tensor:
    """Return logits (B, N) whose sigmoid is the mean of the models' sigmoid."""
    logits = _stack(outputs)
    return (torch.logsumexp(F.logsigmoid(logits), 0) - torch.logsumexp(F.logsigmoid(-logits), 0)).float()


def mean_chain(outputs: Sequence[CRFPotentials], *, crf: bool) -> CRFPotentials:
    """Return the potentials of the mean of several models.

    Without a CRF the emissions are the logarithm of the mean probability of each label of a word; the scores
    of pairs, which say what is legal, are the same for all models. With a CRF it is the mean of all
    potentials: the probability of a path is the geometric mean of the models', up to a constant.
    """
    if not crf:
        return outputs[0]._replace(emissions=mean_class_logits([out.emissions for out in outputs]))
    return CRFPotentials(*(mean_number(scores) for scores in zip(*outputs, strict=True)))


def mean_sentence_output(outputs: Sequence[SentenceOutput], similarity: Similarity) -> SentenceOutput:
    """Return vectors whose similarity is the mean of the models', and logits of the mean probabilities."""
    logits = [out.logits for out in outputs if out.logits is not None]
    vectors = join_vectors([out.vectors for out in outputs], similarity)
    return SentenceOutput(vectors, outputs[0].pair_index, mean_class_logits(logits) if logits else None)


def join_vectors(vectors: Sequence[Tensor], similarity: Similarity) -> Tensor:
    """Return the vectors of k models side by side (U, sum of E), so that similarities are the models' mean.

    For cosines each vector has length 1 / sqrt(k); where a model gives a zero vector it does not count. For
    products each is divided by sqrt(k), for the Manhattan distance by k. The Euclidean distance of vectors
    side by side is no mean of distances.
    """
    scale = len(vectors) ** -VECTOR_SCALES[similarity]
    parts = [l2_normalize(part) if similarity == "cosine" else part.float() for part in vectors]
    return torch.cat([part * scale for part in parts], -1)


def _stack(outputs: Sequence[Tensor]) -> Tensor:
    """Return (k, ...), in fp64 except on Apple GPUs, which have none."""
    stacked = torch.stack([out.float() for out in outputs])
    return stacked if stacked.device.type == "mps" else stacked.double()


def _log_mean_exp(logarithms: Tensor) -> Tensor:
    return (torch.logsumexp(logarithms, 0) - math.log(len(logarithms))).float()


def ensemble_state(states: Sequence[JSON]) -> tuple[JSON, list[str]]:
    """Return the state of a task for the mean of several models, and what a user should know about it.

    It is that of the first model. What was learnt from the predictions of one model is not true of the mean:
    a calibration is left out, and thresholds are the mean of the models', until they are learnt from rows.
    """
    state, notes = dict(states[0]), []
    state.pop("calibration", None)
    if any(each.get("calibration") for each in states):
        notes.append(
            "calibration: that of the members is not true of their mean, and is left out; to learn that of "
            "the mean: bertune calibrate OUT FILE"
        )
    thresholds = [each.get("thresholds") for each in states]
    if any(values != thresholds[0] for values in thresholds):
        state["thresholds"] = np.array(thresholds, float).mean(0).tolist()
        notes.append(
            "thresholds: the mean of the members', which were learnt for each of them; to learn those of the "
            "mean from rows with labels: bertune calibrate OUT FILE"
        )
    return state, notes
