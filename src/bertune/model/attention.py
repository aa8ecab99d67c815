"""Attention over ragged rows: each row attends to itself alone.

Rows are put into buckets of similar length inside the batch, so the batch may stay uniformly random and little is
padded; padding lives and dies in this file. Letters: `T` packed tokens, `B` rows of a bucket, `S` its longest row,
`H` heads, `D` width of a head.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

BUCKET = 32
"""Rows whose lengths round up to the same multiple of this share a bucket."""


@dataclass(frozen=True)
class Bucket:
    """Rows of similar length, padded to the longest of them."""

    tokens: Tensor  # (B, S) the packed place of each token; pads point at place 0
    real: Tensor | None  # (B, 1, 1, S) which of them are no pads; None where none is


@dataclass(frozen=True)
class Plan:
    """How a batch is cut into buckets, and how their tokens return to packed order."""

    buckets: tuple[Bucket, ...]
    back: Tensor  # (T,) place of each packed token among the tokens of all buckets, pads included


def plan(lengths: Sequence[int], device: torch.device) -> Plan:
    """Cut rows into buckets.

    Args:
        lengths: tokens of each row, each at least 1.
        device: where the attention runs.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        groups[-(-length // BUCKET)].append(row)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    back = np.empty(starts[-1], np.int64)
    buckets = []
    done = 0
    for rows in groups.values():
        sizes = np.asarray([lengths[r] for r in rows])
        longest = int(sizes.max())
        real = np.arange(longest) < sizes[:, None]  # (B, S)
        tokens = starts[rows][:, None] + np.minimum(np.arange(longest), sizes[:, None] - 1)
        back[tokens[real]] = done + np.flatnonzero(real)
        done += real.size
        mask = None if real.all() else torch.from_numpy(real[:, None, None, :]).to(device)
        buckets.append(Bucket(torch.from_numpy(tokens).to(device), mask))
    return Plan(tuple(buckets), torch.from_numpy(back).to(device))


def attend(query: Tensor, key: Tensor, value: Tensor, plan: Plan, dropout: float = 0.0, scale: float | None = None) -> Tensor:
    """Compute softmax(QK^T * scale) V inside each row.

    Args:
        query: (T, H, D).
        key: (T, H, D).
        value: (T, H, D).
        plan: the buckets of this batch.
        dropout: share of attention probabilities set to 0.
        scale: 1 / sqrt(D) where not given.

    Returns:
        (T, H, D)
    """
    results = []
    for bucket in plan.buckets:
        q, k, v = (x[bucket.tokens].transpose(1, 2) for x in (query, key, value))  # (B, H, S, D)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bucket.real, dropout_p=dropout, scale=scale)
        results.append(mixed.transpose(1, 2).flatten(0, 1))  # (B * S, H, D)
    return torch.cat(results)[plan.back]
