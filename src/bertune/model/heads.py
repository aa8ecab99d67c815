"""From ragged hidden states to what a task needs.

Letters: `T` packed tokens, `M` words, `B` rows, `W` width, `N` outputs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bertune.model.crf import Chain
from bertune.model.linear import ACTIVATIONS
from bertune.model.names import HeadForm
from bertune.types import Batch, Ragged, Reads

Pooling = Literal["pooler", "cls", "mean", "max"]


def rows_of_tokens(ragged: Ragged) -> Tensor:
    """Return the row of each token (T,)."""
    lengths = ragged.offsets.diff()
    return torch.repeat_interleave(lengths, output_size=ragged.ids.numel())


def first_tokens(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the state of the first token of each row, [CLS] or <s>: (T, W) -> (B, W)."""
    return states[ragged.offsets[:-1]]


def mean_tokens(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the mean state of each row, special tokens included: (T, W) -> (B, W)."""
    lengths = ragged.offsets.diff()
    sums = states.new_zeros(len(lengths), states.shape[-1]).index_add(0, rows_of_tokens(ragged), states)
    return sums / lengths[:, None].to(states.dtype)


def max_tokens(states: Tensor, ragged: Ragged) -> Tensor:
    """Return the largest value of each feature over a row: (T, W) -> (B, W)."""
    index = rows_of_tokens(ragged)[:, None].expand_as(states)
    empty = states.new_zeros(len(ragged.lengths), states.shape[-1])
    return empty.scatter_reduce(0, index, states, "amax", include_self=False)


class PooledHead(nn.Module):
    """One vector of `num_outputs` a row: pooling, then the layers of `form`.

    With pooling `pooler` this is exactly the head that transformers gives the architecture: a hidden layer on the
    first token. With `cls`, `mean` and `max` there is no hidden layer.
    """

    def __init__(self, width: int, num_outputs: int, pooling: Pooling, form: HeadForm, dropout: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.reads: Reads = "first_token" if pooling in {"pooler", "cls"} else "last"
        self.form = form
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(width, width) if pooling == "pooler" else None
        self.out = nn.Linear(width, num_outputs)
        for layer in (self.dense, self.out):
            if layer is not None:  # BERT's own initialisation
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        """Return (B, N)."""
        hidden = states
        if self.dense is not None:
            hidden = self.dense(self.dropout(hidden) if self.form.dropout_first else hidden)
            hidden = ACTIVATIONS[self.form.activation](hidden)
        elif self.reads == "last":
            hidden = {"mean": mean_tokens, "max": max_tokens}[self.pooling](hidden, batch.ragged)
        return self.out(self.dropout(hidden))  # type: ignore[no-any-return]

    def saved_name(self, name: str) -> str:
        """Return the name of a parameter in a saved checkpoint."""
        layer, _, kind = name.partition(".")
        return f"{self.form.dense if layer == 'dense' else self.form.out}.{kind}"


class TokenHead(nn.Module):
    """A label for each word: dropout, then a linear layer on the first token of the word, as transformers has it.

    With `crf` a chain of labels is judged as a whole, by scores that are learnt for pairs, first and last labels. Without it these
    are 0. What `legal` forbids is -inf in either case, so that only legal chains are ever predicted.
    """

    def __init__(self, width: int, legal: tuple[Tensor, Tensor, Tensor], *, crf: bool, dropout: float) -> None:
        super().__init__()
        pairs, first, last = legal  # (N, N), (N,), (N,) of bool
        num_labels = len(first)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, num_labels)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.crf = nn.ParameterDict()
        if crf:
            sizes = {"transitions": (num_labels, num_labels), "start": (num_labels,), "end": (num_labels,)}
            self.crf.update({name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()})
        for name, allowed in (("transitions", pairs), ("start", first), ("end", last)):
            self.register_buffer(f"illegal_{name}", ~allowed, persistent=False)
        self.own_rates: dict[str, float] = {}
        """Learning rates of parameters that do not learn at the head's, by the first part of their name."""
        self.saved_class = ""
        """The class of transformers that opens it, if there is one."""
        self.dropout_name = ""
        """What config.json calls its dropout."""

    def forward(self, states: Tensor, batch: Batch) -> Chain:
        """Return what the chains of the batch are judged by: emissions (M, N), a row for each word of the batch."""
        emissions = self.out(self.dropout(states[batch.ragged.words])).float()
        return Chain(emissions, *(self._scores(name, emissions) for name in ("transitions", "start", "end")))

    def _scores(self, name: str, like: Tensor) -> Tensor:
        illegal = getattr(self, f"illegal_{name}")
        scores = self.crf[name].float() if name in self.crf else like.new_zeros(illegal.shape)
        return scores.masked_fill(illegal, float("-inf"))

    def saved_name(self, name: str) -> str:
        """Return the name of a parameter in a saved checkpoint: transformers' own for the linear layer."""
        layer, _, kind = name.partition(".")
        return f"classifier.{kind}" if layer == "out" else f"bertune_head.{name}"
