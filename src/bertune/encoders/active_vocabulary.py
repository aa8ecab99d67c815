"""The active vocabulary: train only the word vectors that the training rows use.

A row of the word table that no training row uses never has a gradient. AdamW then only decays it by
the factor 1 - learning rate * weight decay, the same for all such rows. So these rows need no gradient and no
moments: one number, `scale`, stands for all of them. It is a parameter whose gradient is always 0, so
optimizer, moving average and checkpoint treat it as they would treat each of the rows. Gradient clipping is
unchanged too, since zeros add nothing to a norm.

Letters: `V` rows of the table, `A` active ones, `W` hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ActiveVocabulary(nn.Module):
    """A word table of which some rows are trained; it looks up all of them.

    Args:
        table: (V, W), the pretrained vectors. They are not changed.
        ids: the rows to train, in any order, repeated or not.
    """

    def __init__(self, table: Tensor, ids: Tensor) -> None:
        super().__init__()
        active = torch.unique(ids)
        index = torch.full((len(table),), len(active), dtype=torch.int64, device=ids.device)
        index[active] = torch.arange(len(active), device=ids.device)
        self.active_ids: Tensor
        self.active_index: Tensor
        self.pretrained_weight: Tensor
        self.register_buffer("active_ids", active.to(table.device), persistent=False)
        self.register_buffer("active_index", index.to(table.device), persistent=False)
        self.register_buffer("pretrained_weight", table, persistent=False)
        self.weight = nn.Parameter(table[self.active_ids].clone())  # (A, W)
        self.scale = nn.Parameter(table.new_ones(1, 1))  # two dimensions, so that it decays like a matrix

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of tokens, (...) to (..., W).

        Raises:
            IndexError: in training mode, on a CPU: a token is not active, so its vector could not be trained.
        """
        index = self.active_index[ids]
        if self.training:
            vectors = F.embedding(index, self.weight)
            output: Tensor = _WithZeroGradient.apply(vectors, self.scale)  # type: ignore[no-untyped-call]
            return output
        is_inactive = index == len(self.active_ids)
        vectors = F.embedding(index.masked_fill(is_inactive, 0), self.weight)
        decayed = F.embedding(ids, self.pretrained_weight) * self.scale
        return torch.where(is_inactive[..., None], decayed, vectors)

    @torch.no_grad()
    def full_weight(self) -> Tensor:
        """Return the table (V, W) as it would be if all of it had been trained."""
        return (self.pretrained_weight * self.scale).index_copy_(0, self.active_ids, self.weight.detach())


def make_active_vocabulary(table: Tensor, ids: Tensor) -> ActiveVocabulary | None:
    """Return a table (V, W) of which the rows `ids` are trained; None where these are all rows."""
    return ActiveVocabulary(table, ids) if len(torch.unique(ids)) < len(table) else None


class _WithZeroGradient(torch.autograd.Function):
    """Pass `vectors` on and give `scale` the gradient 0: AdamW skips a parameter without a gradient."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, scale: Tensor) -> Tensor:
        ctx.scale = scale
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, torch.zeros_like(ctx.scale)


def make_embedding(table: Tensor) -> nn.Embedding:
    """Return a table (V, W) as torch's own module, all rows to be trained."""
    return nn.Embedding(table.shape[0], table.shape[1], _weight=table)


def with_full_table(state: dict[str, Tensor], name: str, embedding: nn.Module) -> dict[str, Tensor]:
    """Return a state dict with the whole table of `embedding`, called `name`, even if a part is trained."""
    if not isinstance(embedding, ActiveVocabulary):
        return state
    others = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
    return {f"{name}.weight": embedding.full_weight(), **others}
