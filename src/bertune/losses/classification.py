"""Losses: functions of tensors, without parameters, each a sum over what it counts.

A sum rather than a mean, so that the loop can divide by the count of the whole batch: micro-batches and processes
then change nothing. Letters: `B` rows, `N` labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Sum the cross-entropy over rows; divide by the sum of the rows' weights for torch's weighted mean.

    Args:
        logits: (B, N).
        target: (B,) label ids.
        weights: (N,) one a label.
        smoothing: share of the probability spread over all labels.

    Source: `torch.nn.CrossEntropyLoss`.
    """
    return F.cross_entropy(logits.float(), target, weight=weights, label_smoothing=smoothing, reduction="sum")


def focal_loss(logits: Tensor, target: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Sum the focal loss: cross-entropy times (1 - p) ** gamma, so that easy rows count less.

    Args:
        logits: (B, N).
        target: (B,) label ids.
        gamma: 0 gives cross-entropy; 2 is the paper's.
        weights: (N,) one a label.

    Source: Lin et al. 2017, arXiv 1708.02002, equation 5.
    """
    log_p = F.log_softmax(logits.float(), -1).gather(-1, target[:, None])[:, 0]  # (B,)
    loss = -((1 - log_p.exp()).clamp_min(torch.finfo(torch.float32).tiny) ** gamma) * log_p
    return (loss if weights is None else loss * weights[target]).sum()


def binary_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """Sum the binary cross-entropy over rows and labels.

    Args:
        logits: (B, N).
        target: (B, N) of 0 and 1.
        weights: (N,) what a positive of each label counts.
        smoothing: targets move this share towards 0.5.
        gamma: focal exponent; 0 is plain.
    """
    logits = logits.float()
    soft = target * (1 - smoothing) + smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="none")
    if gamma:
        p = torch.sigmoid(logits)
        loss = (
            loss * (target * (1 - p) + (1 - target) * p).clamp_min(torch.finfo(torch.float32).tiny) ** gamma
        )
    return loss.sum()


def symmetric_kl(logits: Tensor, other: Tensor) -> Tensor:
    """Sum over rows of (KL(p||q) + KL(q||p)) / 2 of two softmax distributions (B, N).

    Source: R-Drop, Liang et al. 2021, arXiv 2106.14448, equation 2.
    """
    p, q = F.log_softmax(logits.float(), -1), F.log_softmax(other.float(), -1)
    return ((p.exp() - q.exp()) * (p - q)).sum() / 2


def symmetric_binary_kl(logits: Tensor, other: Tensor) -> Tensor:
    """Sum over rows and labels of (KL(p||q) + KL(q||p)) / 2 of two sigmoids (B, N)."""
    p, q = logits.float(), other.float()
    # For Bernoulli variables the symmetric divergence is the difference of means times the difference of logits.
    return ((torch.sigmoid(p) - torch.sigmoid(q)) * (p - q)).sum() / 2
