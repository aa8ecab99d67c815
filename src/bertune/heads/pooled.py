"""A head with one vector of outputs a row."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bertune.encoders.families.family import HeadSpec
from bertune.heads.head import OUTPUT_AXES, Head
from bertune.kernels.linear import ACTIVATIONS
from bertune.kernels.ragged_ops import max_pooling, mean_pooling
from bertune.types import Batch

Pooling = Literal["pooler", "cls", "mean", "max"]


class PooledHead(Head):
    """One vector of `num_outputs` a row: pooling, then the layers of `form`.

    With pooling `pooler` this is exactly the head that transformers gives the architecture: a hidden layer on
    the first token. With `cls`, `mean` and `max` there is no hidden layer.
    """

    label_axes = OUTPUT_AXES

    def __init__(
        self, hidden_size: int, num_outputs: int, pooling: Pooling, form: HeadSpec, dropout: float
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.input_form = {"options.pooling": pooling}
        self.reads = "first_token" if pooling in {"pooler", "cls"} else "last"
        self.form = form
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size) if pooling == "pooler" else None
        self.out = nn.Linear(hidden_size, num_outputs)
        for layer in (self.dense, self.out):
            if layer is not None:  # BERT's own initialisation
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        """Return (B, N)."""
        hidden = states
        if self.dense is not None:
            hidden = self.dense(self.dropout(hidden) if self.form.dropout_before_dense else hidden)
            hidden = ACTIVATIONS[self.form.activation](hidden)
        elif self.reads == "last":
            hidden = {"mean": mean_pooling, "max": max_pooling}[self.pooling](hidden, batch.ragged)
        return self.out(self.dropout(hidden))  # type: ignore[no-any-return]

    def hf_name(self, name: str) -> str:
        """Return the name of a parameter in a saved folder: the one that transformers gives it."""
        layer, _, parameter = name.partition(".")
        return f"{self.form.dense if layer == 'dense' else self.form.out}.{parameter}"
