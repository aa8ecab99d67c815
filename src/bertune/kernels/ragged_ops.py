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


def max_pooling(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the largest value of each feature over a row: (T, W) to (B, W)."""
    index = token_row_index(ragged)[:, None].expand_as(states)
    maxima = states.new_zeros(len(ragged.lengths), states.shape[-1])
    return maxima.scatter_reduce(0, index, states, "amax", include_self=False)
