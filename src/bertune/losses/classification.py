"""Losses of labels: functions of tensors, without parameters.

Each is a sum, not a mean. The training loop divides it by the count of the whole batch, so that micro-batches
and processes change nothing. Letters: `B` rows, `N` labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy summed over rows. Divided by the sum of the rows' weights it is torch's mean.

    Args:
        logits: (B, N).
        target: (B,) label ids.
        weights: (N,) one a label; None for 1.
        smoothing: fraction of the probability that is spread over all labels.

    Source: `torch.nn.CrossEntropyLoss`.
    """
    return F.cross_entropy(logits.float(), target, weight=weights, label_smoothing=smoothing, reduction="sum")


def focal_loss(logits: Tensor, target: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Return the focal loss summed over rows.

    It is the cross-entropy times (1 - p) ** gamma, so that easy rows count less.

    Args:
        logits: (B, N).
        target: (B,) label ids.
        gamma: 0 gives cross-entropy; the paper uses 2.
        weights: (N,) one a label; None for 1.

    Source: Lin et al. 2017, arXiv 1708.02002, equation 5.
    """
    log_p = F.log_softmax(logits.float(), -1).gather(-1, target[:, None])[:, 0]  # (B,)
    loss = -((1 - log_p.exp()).clamp_min(torch.finfo(torch.float32).tiny) ** gamma) * log_p
    return (loss if weights is None else loss * weights[target]).sum()


def binary_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """Return the binary cross-entropy summed over rows and labels.

    Args:
        logits: (B, N).
        target: (B, N) of 0 and 1.
        weights: (N,) weight of a positive of each label; None for 1.
        smoothing: fraction of the way that targets move towards 0.5.
        gamma: focal exponent; 0 for plain cross-entropy.
    """
    logits = logits.float()
    soft = target * (1 - smoothing) + smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="none")
    if gamma:
        p = torch.sigmoid(logits)
        error = (target * (1 - p) + (1 - target) * p).clamp_min(torch.finfo(torch.float32).tiny)
        loss = loss * error**gamma
    return loss.sum()


def symmetric_kl(logits: Tensor, other: Tensor) -> Tensor:
    """Return (KL(p||q) + KL(q||p)) / 2 of the softmax of two logits (B, N), summed over rows.

    Source: R-Drop, Liang et al. 2021, arXiv 2106.14448, equation 2.
    """
    p, q = F.log_softmax(logits.float(), -1), F.log_softmax(other.float(), -1)
    return ((p.exp() - q.exp()) * (p - q)).sum() / 2


def symmetric_binary_kl(logits: Tensor, other: Tensor) -> Tensor:
    """Return (KL(p||q) + KL(q||p)) / 2 of the sigmoid of two logits (B, N), summed over rows and labels."""
    p, q = logits.float(), other.float()
    # For Bernoulli variables the symmetric divergence is (difference of means) * (difference of logits).
    return ((torch.sigmoid(p) - torch.sigmoid(q)) * (p - q)).sum() / 2
