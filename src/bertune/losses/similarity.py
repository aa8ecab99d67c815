"""Losses of sentence vectors: functions of tensors in fp32, without parameters.

Each is a sum over rows, as in `bertune.losses.classification`, except `cosent_loss`: it compares pairs of
rows, so its value belongs to the whole batch. Cosines are from -1 to 1. `scale` multiplies them before an
exponential; it is the inverse of the temperature.

Letters: `B` rows, `N` candidates, `E` width of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bertune.metrics.similarity import Similarity

_MIN_NORM = 1e-6
"""Vectors up to this length are treated as zero vectors."""


def l2_normalize(vectors: Tensor) -> Tensor:
    """Return vectors (..., E) with length 1; a zero vector stays zero.

    Unlike `bertune.metrics.similarity.l2_normalize` this function has a gradient. Near zero this gradient is
    as large as 1 / length, so that vectors up to `_MIN_NORM` become zero and receive none.
    """
    vectors = vectors.float()
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return (vectors / length.clamp_min(_MIN_NORM)).masked_fill(length <= _MIN_NORM, 0.0)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine (B,) of each row of `a` (B, E) with the same row of `b`; 0 with a zero vector."""
    return (l2_normalize(a) * l2_normalize(b)).sum(-1)


def cosine_similarity_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine (B, N) of each row of `a` (B, E) with each of `b` (N, E); 0 with a zero vector."""
    return l2_normalize(a) @ l2_normalize(b).t()


def pairwise_similarity(a: Tensor, b: Tensor, similarity: Similarity) -> Tensor:
    """Return the similarity (B,) of each row of `a` (B, E) with the same row of `b`; distances are negative.

    Source: sentence-transformers' `SimilarityFunction`, with the same values.
    """
    if similarity == "cosine":
        return cosine_similarity(a, b)
    if similarity == "dot":
        return (a.float() * b.float()).sum(-1)
    order = 1 if similarity == "manhattan" else 2
    distances: Tensor = torch.linalg.vector_norm(a.float() - b.float(), order, dim=-1)
    return -distances


def similarity_matrix(a: Tensor, b: Tensor, similarity: Similarity) -> Tensor:
    """Return the similarity (B, N) of each row of `a` (B, E) with each of `b` (N, E); distances are negative.

    Source: sentence-transformers' `SimilarityFunction`, with the same values.
    """
    if similarity == "cosine":
        return cosine_similarity_matrix(a, b)
    if similarity == "dot":
        return a.float() @ b.float().t()
    order = 1.0 if similarity == "manhattan" else 2.0  # by differences: a product is inexact near 0
    return -torch.cdist(a.float(), b.float(), order, compute_mode="donot_use_mm_for_euclid_dist")


def cosent_loss(similarity: Tensor, score: Tensor, scale: float) -> Tensor:
    """Return log(1 + sum of exp(scale * (similarity_j - similarity_i))).

    The sum is over all i and j with score_i > score_j. Only the order of scores counts, and rows of equal
    score are not compared. Without a pair to compare the loss is 0, and so is its gradient. With rows in
    rising order of score the sum over j is a running sum, so that the cost is O(B log B).

    Args:
        similarity: (B,) cosines.
        score: (B,) how similar the texts are, as any numbers.
        scale: factor on cosines.

    Source: Su 2022, kexue.fm/archives/8847; sentence-transformers' `CoSENTLoss` has the same value.
    """
    score, order = torch.sort(score.float(), stable=True)
    # Running sums are as large as the scale and their differences small. Apple GPUs have no float64.
    scaled = scale * similarity[order].to(torch.float32 if similarity.device.type == "mps" else torch.float64)
    lower = torch.searchsorted(score, score)  # (B,) number of rows with a strictly lower score
    running = torch.cat([scaled.new_full((1,), -torch.inf), torch.logcumsumexp(scaled, 0)])
    pairs = running[lower] - scaled  # (B,) log of the sum over j, for each i
    return torch.logsumexp(torch.cat([pairs.new_zeros(1), pairs]), 0).float()


def contrastive_loss(similarity: Tensor, label: Tensor, margin: float) -> Tensor:
    """Return the contrastive loss summed over rows, with d = 1 - cosine.

    It is d^2 / 2 for similar texts and max(0, margin - d)^2 / 2 for others.

    Args:
        similarity: (B,) cosines.
        label: (B,) 1 for similar texts, 0 for others.
        margin: the distance from which texts that are not similar have a loss of 0.

    Source: Hadsell, Chopra and LeCun 2006, equation 4; sentence-transformers' `ContrastiveLoss` is its mean.
    """
    distance, label = 1 - similarity.float(), label.float()
    return (label * distance**2 + (1 - label) * F.relu(margin - distance) ** 2).sum() / 2


def cosine_mse_loss(similarity: Tensor, target: Tensor) -> Tensor:
    """Return the squared differences of cosines (B,) and target cosines (B,), summed over rows.

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
    similarity: Similarity = "cosine",
) -> Tensor:
    """Return the cross-entropy of the positive among all candidates of the batch, summed over rows.

    Args:
        anchors: (B, E).
        candidates: (N, E) positives of all rows, and hard negatives if there are any.
        positive: (B,) the index of each row's positive among the candidates.
        false: (B, N) of bool, the false negatives of each row, which are left out; see `false_negative_mask`.
            The value for the row's own positive has no effect.
        margin: how much higher than the other similarities the one with the positive must be.
        scale: factor on similarities.
        symmetric: return the mean of this loss and the loss of the opposite direction: the anchor of each
            positive among all anchors of the batch. Left out there are anchors whose false negative the
            positive is, and anchors with the same positive.
        similarity: how vectors are compared.

    Source: Gao, Yao and Chen 2021 (SimCSE), arXiv 2104.08821, equation 1, with the margin of PaddleNLP's and
        bertorch's `BatchNegModel`; `symmetric` is bertorch's `--mean_loss`.
    """
    similarities = similarity_matrix(anchors, candidates, similarity)
    forward = _ranking_loss(similarities, positive, false, margin, scale)
    if not symmetric:
        return forward
    same_positive = positive[:, None] == positive
    anchor = torch.arange(len(positive), device=positive.device)
    false = false[:, positive].t() | same_positive
    backward = _ranking_loss(similarities[:, positive].t(), anchor, false, margin, scale)
    return (forward + backward) / 2


def _ranking_loss(similarity: Tensor, positive: Tensor, false: Tensor, margin: float, scale: float) -> Tensor:
    """Return the cross-entropy of cosines (B, N) with the positive's column (B,), summed over rows.

    False negatives (B, N) are left out.
    """
    is_positive = F.one_hot(positive, similarity.shape[1])
    logits = scale * (similarity - margin * is_positive)
    logits = logits.masked_fill(false & (is_positive == 0), -torch.inf)
    return F.cross_entropy(logits, positive, reduction="sum")


def false_negative_mask(anchor_ids: Tensor, candidate_ids: Tensor, positive: Tensor) -> Tensor:
    """Return which candidates are false negatives of each row, (B, N) of bool.

    These are candidates with the text of the anchor, of its positive, or of the positive of a row with the
    same anchor text: the loss would push them away although they belong together. A row's own positive is not
    one of them.

    Args:
        anchor_ids: (B,) the text of each anchor; equal texts have equal numbers, also among the candidates.
        candidate_ids: (N,) the text of each candidate.
        positive: (B,) the index of each row's positive among the candidates.
    """
    num_anchors = len(anchor_ids)
    texts, inverse = torch.unique(torch.cat([anchor_ids, candidate_ids]), return_inverse=True)
    anchor, candidate = inverse[:num_anchors], inverse[num_anchors:]
    _, group = torch.unique(anchor_ids, return_inverse=True)  # (B,) rows with the same anchor text
    related = torch.zeros(num_anchors, len(texts), dtype=torch.bool, device=inverse.device)  # (group, text)
    related[group, anchor] = True
    related[group, candidate[positive]] = True
    false = related[group[:, None], candidate]
    false[torch.arange(num_anchors, device=inverse.device), positive] = False
    return false
