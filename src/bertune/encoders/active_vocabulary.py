"""The active vocabulary: train only the word vectors that the training rows use.

A row of the word table that no training row uses has no gradient, ever. AdamW then only decays it, w <- w * (1 - rate *
decay), the same factor for all such rows. So they need no gradient and no moments: one number, `scale`, stands for them
all. It is a parameter whose gradient is always 0, so optimizer, moving average and checkpoint treat it as they would have
treated each of the rows. Gradient clipping is unchanged too, since zeros add nothing to a norm.
Letters: `V` rows of the table, `A` active ones, `W` width, `T` tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ActiveVocabulary(nn.Module):
    """A word table of which some rows are trained; it answers for all of them.

    Args:
        table: (V, W), the pretrained vectors. They are not changed.
        ids: the rows to train, in any order and as often as you like.
    """

    def __init__(self, table: Tensor, ids: Tensor) -> None:
        super().__init__()
        active = torch.unique(ids)
        slots = torch.full((len(table),), len(active), dtype=torch.int64, device=ids.device)
        slots[active] = torch.arange(len(active), device=ids.device)
        self.active_ids: Tensor
        self.active_index: Tensor
        self.pretrained_weight: Tensor
        self.register_buffer("active_ids", active.to(table.device), persistent=False)
        self.register_buffer("active_index", slots.to(table.device), persistent=False)
        self.register_buffer("pretrained_weight", table, persistent=False)
        self.weight = nn.Parameter(table[self.active_ids].clone())  # (A, W)
        self.scale = nn.Parameter(table.new_ones(1, 1))  # two dimensions, so that it decays like a matrix

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of tokens, (...) to (..., W).

        Raises:
            IndexError: in training mode, on a processor: a token is not active, so its vector could not learn.
        """
        slots = self.active_index[ids]
        if self.training:
            found = F.embedding(slots, self.weight)
            return _WithZeroGradient.apply(found, self.scale)  # type: ignore[no-any-return, no-untyped-call]
        inactive = slots == len(self.active_ids)
        found = F.embedding(slots.masked_fill(inactive, 0), self.weight)
        return torch.where(inactive[..., None], F.embedding(ids, self.pretrained_weight) * self.scale, found)

    @torch.no_grad()
    def full_weight(self) -> Tensor:
        """Return the table (V, W) as it would be if all of it had been trained."""
        return (self.pretrained_weight * self.scale).index_copy_(0, self.active_ids, self.weight.detach())


def make_active_vocabulary(table: Tensor, ids: Tensor) -> ActiveVocabulary | None:
    """Return a table (V, W) of which the rows `ids` are trained; None where they are all of it, so that nothing is saved."""
    return ActiveVocabulary(table, ids) if len(torch.unique(ids)) < len(table) else None


class _WithZeroGradient(torch.autograd.Function):
    """Hands `found` through, and gives `scale` the gradient 0: AdamW skips a parameter that has none."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, scale: Tensor) -> Tensor:
        ctx.like = scale
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, torch.zeros_like(ctx.like)


def make_embedding(table: Tensor) -> nn.Embedding:
    """Return a table (V, W) as torch's own module, to be trained whole."""
    return nn.Embedding(table.shape[0], table.shape[1], _weight=table)


def with_full_table(state: dict[str, Tensor], name: str, words: nn.Module) -> dict[str, Tensor]:
    """Return a state dict in which the word table called `name` is whole, whichever part of it is being trained."""
    if not isinstance(words, ActiveVocabulary):
        return state
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
    return {f"{name}.weight": words.full_weight(), **kept}
