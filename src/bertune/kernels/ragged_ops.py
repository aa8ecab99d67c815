"""Pooling over the tokens of ragged rows.

Letters: `T` packed tokens, `B` rows, `W` width of the states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertune.types import Ragged


def token_row_index(ragged: Ragged) -> Tensor:
    """Return the row of each token (T,)."""
    lengths = ragged.offsets.diff()
    return torch.repeat_interleave(lengths, output_size=ragged.input_ids.numel())


def first_token_pooling(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the state of the first token of each row, [CLS] or <s>: (T, W) to (B, W)."""
    return states[ragged.offsets[:-1]]


def mean_pooling(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the mean state of each row, special tokens included: (T, W) to (B, W)."""
    lengths = ragged.offsets.diff()
    sums = states.new_zeros(len(lengths), states.shape[-1]).index_add(0, token_row_index(ragged), states)
    return sums / lengths[:, None].to(states.dtype)


def mean_sqrt_len_pooling(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the sum of each row by the root of its length, special tokens included: (T, W) to (B, W)."""
    return mean_pooling(states, ragged) * ragged.offsets.diff()[:, None].to(states.dtype).sqrt()


def weighted_mean_pooling(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the mean of each row, where the n-th token counts n times: (T, W) to (B, W)."""
    row_index, lengths = token_row_index(ragged), ragged.offsets.diff()
    first = ragged.offsets[:-1][row_index]
    weights = (torch.arange(len(row_index), device=first.device) - first + 1).to(states.dtype)
    sums = states.new_zeros(len(lengths), states.shape[-1])
    sums = sums.index_add(0, row_index, states * weights[:, None])
    return sums / (lengths * (lengths + 1) / 2)[:, None].to(states.dtype)


def last_token_pooling(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the state of the last token of each row, special tokens included: (T, W) to (B, W)."""
    return states[ragged.offsets[1:] - 1]


def max_pooling(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the largest value of each feature over a row: (T, W) to (B, W)."""
    index = token_row_index(ragged)[:, None].expand_as(states)
    maxima = states.new_zeros(len(ragged.lengths), states.shape[-1])
    return maxima.scatter_reduce(0, index, states, "amax", include_self=False)
