"""Losses on sentence vectors: functions of tensors in fp32, without parameters.

Like those of `losses/classification.py`, each is a sum over the rows it counts. `cosent_loss` is not: it looks at pairs of rows, so its value belongs to the
whole batch. Letters: `B` rows, `N` candidates, `E` width of a vector. Cosines lie in [-1, 1] and have no unit; `scale` multiplies them
before an exponential and is the inverse of what papers call temperature.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SHORTEST = 1e-6
"""A vector that is no longer than this has no direction."""


def _directions(vectors: Tensor) -> Tensor:
    """Return vectors (..., E) of length 1; one without a direction becomes 0, and no gradient goes to it."""
    vectors = vectors.float()
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return (vectors / length.clamp_min(_SHORTEST)).masked_fill(length <= _SHORTEST, 0.0)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of each row of `a` (B, E) with the same row of `b` (B, E), as (B,); with a zero vector it is 0."""
    return (_directions(a) * _directions(b)).sum(-1)


def cosine_similarity_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of each row of `a` (B, E) with each row of `b` (N, E), as (B, N); with a zero vector it is 0."""
    return _directions(a) @ _directions(b).t()


def cosent_loss(similarity: Tensor, score: Tensor, scale: float) -> Tensor:
    """Return log(1 + sum of exp(scale * (similarity_j - similarity_i))) over all i and j with score_i > score_j.

    Only the order of scores counts, and rows of equal score are not compared. Takes O(B log B) steps: with rows in rising order of score,
    the sum over j is a running one. Without a pair to compare it is 0, and so is its gradient.

    Args:
        similarity: (B,) cosines.
        score: (B,) how similar the texts are; any numbers.
        scale: what cosines are multiplied by.

    Source: Su 2022, kexue.fm/archives/8847; sentence-transformers' `CoSENTLoss` has the same value.
    """
    score, order = torch.sort(score.float(), stable=True)
    # Running sums are as large as the scale, and their differences are what counts; Apple GPUs have no float64.
    scaled = scale * similarity[order].to(torch.float32 if similarity.device.type == "mps" else torch.float64)
    lower = torch.searchsorted(score, score)  # (B,) how many rows have a strictly lower score
    running = torch.cat([scaled.new_full((1,), -torch.inf), torch.logcumsumexp(scaled, 0)])
    pairs = running[lower] - scaled  # (B,) log of the sum over j, for each i
    return torch.logsumexp(torch.cat([pairs.new_zeros(1), pairs]), 0).float()


def contrastive_loss(similarity: Tensor, label: Tensor, margin: float) -> Tensor:
    """Sum over rows: d^2 / 2 for similar texts, max(0, margin - d)^2 / 2 for others, where d = 1 - cosine.

    Args:
        similarity: (B,) cosines.
        label: (B,) 1 for similar texts, 0 for others.
        margin: a distance beyond which texts that are not similar cost nothing.

    Source: Hadsell, Chopra and LeCun 2006, equation 4; sentence-transformers' `ContrastiveLoss` is its mean.
    """
    distance, label = 1 - similarity.float(), label.float()
    return (label * distance**2 + (1 - label) * F.relu(margin - distance) ** 2).sum() / 2


def cosine_mse_loss(similarity: Tensor, target: Tensor) -> Tensor:
    """Sum the squared differences of cosines (B,) and the cosines they should be (B,).

    Source: Reimers and Gurevych 2019, arXiv 1908.10084, section 3, regression objective.
    """
    return F.mse_loss(similarity.float(), target.float(), reduction="sum")


def in_batch_negatives_loss(
    anchors: Tensor,
    candidates: Tensor,
    positive: Tensor,
    false: Tensor,
    margin: float,
    scale: float,
    symmetric: bool,
) -> Tensor:
    """Sum over rows the cross-entropy of finding the positive among all candidates of the batch by cosine.

    Args:
        anchors: (B, E).
        candidates: (N, E) positives of all rows and any hard negatives.
        positive: (B,) which candidate is the positive of each row.
        false: (B, N) of bool, candidates that are no negatives of a row and take no part in it (`false_negative_mask`). What it says of the
            row's own positive does not matter.
        margin: what the cosine with the positive must be ahead.
        scale: what cosines are multiplied by.
        symmetric: take the mean of this and of the same the other way round, where each row's positive has to find its anchor among all
            anchors of the batch. There, anchors of which that positive is no negative take no part, nor those that share it.

    Source: Gao, Yao and Chen 2021 (SimCSE), arXiv 2104.08821, equation 1, with the margin of PaddleNLP's and bertorch's `BatchNegModel`;
    `symmetric` is bertorch's `--mean_loss`.
    """
    similarity = cosine_similarity_matrix(anchors, candidates)
    forth = _matching(similarity, positive, false, margin, scale)
    if not symmetric:
        return forth
    shared = positive[:, None] == positive
    rows = torch.arange(len(positive), device=positive.device)
    back = _matching(similarity[:, positive].t(), rows, false[:, positive].t() | shared, margin, scale)
    return (forth + back) / 2


def _matching(similarity: Tensor, positive: Tensor, false: Tensor, margin: float, scale: float) -> Tensor:
    """Sum over rows the cross-entropy of cosines (B, N) with the positive's column (B,), without what `false` (B, N) leaves out."""
    own = F.one_hot(positive, similarity.shape[1])
    logits = scale * (similarity - margin * own)
    return F.cross_entropy(logits.masked_fill(false & (own == 0), -torch.inf), positive, reduction="sum")


def false_negative_mask(anchor_ids: Tensor, candidate_ids: Tensor, positive: Tensor) -> Tensor:
    """Return which candidates are no negatives of a row (B, N) of bool: they would be pushed away although they belong together.

    These are the candidates with the text of the anchor itself, of its positive, or of the positive of any row with the same anchor text.
    A row's own positive is never among them.

    Args:
        anchor_ids: (B,) the text of each anchor; equal texts have equal numbers, here and among candidates.
        candidate_ids: (N,) the text of each candidate.
        positive: (B,) which candidate is the positive of each row.
    """
    anchors = len(anchor_ids)
    texts, place = torch.unique(torch.cat([anchor_ids, candidate_ids]), return_inverse=True)
    anchor, candidate = place[:anchors], place[anchors:]
    _, group = torch.unique(anchor_ids, return_inverse=True)  # rows with the same anchor text
    belongs = torch.zeros(
        anchors, len(texts), dtype=torch.bool, device=place.device
    )  # which texts, to each group
    belongs[group, anchor] = True
    belongs[group, candidate[positive]] = True
    false = belongs[group[:, None], candidate]
    false[torch.arange(anchors, device=place.device), positive] = False
    return false
