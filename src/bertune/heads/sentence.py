"""From ragged hidden states to one vector a text, and from vectors to what a pair of texts is.

Letters: `T` packed tokens, `U` texts, `W` width of the encoder, `E` width of the vectors, `B` rows, `N` labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertune.kernels.linear import ACTIVATIONS
from bertune.kernels.ragged_ops import max_pooling, mean_pooling
from bertune.types import Batch, EncoderOutput, PairIndex, Ragged

Pooling = Literal["mean", "cls", "max", "pooler", "first_last_avg"]


@dataclass(frozen=True)
class SentenceOutput:
    """What a head makes of the rows of a batch: the vectors (U, E) of the texts, where each stands, and logits (B, N) of labels."""

    vectors: Tensor
    pair_index: PairIndex
    logits: Tensor | None = None

    def text_vectors(self, position: int) -> Tensor:
        """Return the vectors (B, E) of the texts at one position of the rows."""
        return self.vectors[self.pair_index.text_index[position]]

    def truncate(self, dim: int) -> SentenceOutput:
        """Return the same with the first `dim` features of each vector."""
        return SentenceOutput(self.vectors[:, :dim], self.pair_index, self.logits)


class SentenceHead(nn.Module):
    """Pooling, dense layers, length 1 where asked for; and a linear layer on two vectors where rows have labels.

    Args:
        hidden_size: width of the encoder's states.
        pooling: how states become one vector. `cls` for a `pooler`, whose hidden layer is the first of `dense`.
        dense: width and activation of each layer after it.
        normalize: whether vectors have length 1.
        num_labels: 0 where rows have no labels.
        concat_product: whether u * v is among what the labels are told from.
        classifier_learning_rate: learning rate of the layer that tells labels, where it has one of its own.

    Sources: Reimers and Gurevych 2019, arXiv 1908.10084, for [u; v; |u - v|]; bertorch's `SentenceBERT` for u * v.
    """

    def __init__(
        self, hidden_size: int, pooling: Pooling, dense: Sequence[tuple[int, str]] = (), *,
        normalize: bool = False, num_labels: int = 0, concat_product: bool = False, classifier_learning_rate: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pooling = "cls" if pooling == "pooler" else pooling
        self.reads: EncoderOutput = {"cls": "first_token", "first_last_avg": "first_last"}.get(
            self.pooling, "last"
        )  # type: ignore[assignment]
        self.normalize = normalize
        self.concat_product = concat_product
        self.activations = [activation for _, activation in dense]
        widths = [hidden_size, *(size for size, _ in dense)]
        self.dense = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.embedding_dim = widths[-1]
        self.learning_rates = {} if classifier_learning_rate is None else {"out": classifier_learning_rate}
        self.out = (
            nn.Linear((4 if concat_product else 3) * self.embedding_dim, num_labels) if num_labels else None
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # BERT's own initialisation
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def vectors(self, states: Tensor, ragged: Ragged) -> Tensor:
        """Return the vector of each text: (T, W), or (U, W) of first tokens, to (U, E)."""
        x = states
        if self.pooling != "cls":
            x = (max_pooling if self.pooling == "max" else mean_pooling)(states, ragged)
        for layer, activation in zip(self.dense, self.activations, strict=True):
            x = ACTIVATIONS[activation](layer(x))
        return F.normalize(x, dim=-1) if self.normalize else x

    def compare(self, vectors: Tensor, pair_index: PairIndex) -> SentenceOutput:
        """Put the vectors (U, E) of the texts where they stand, and judge the pair where rows have labels."""
        if self.out is None:
            return SentenceOutput(vectors, pair_index)
        u, v = (vectors[place] for place in pair_index.text_index[:2])
        features = [u, v, (u - v).abs(), *([u * v] if self.concat_product else [])]
        return SentenceOutput(vectors, pair_index, self.out(torch.cat(features, -1)))

    def forward(self, states: Tensor, batch: Batch) -> SentenceOutput:
        """Return vectors of the batch's texts, and where they stand; a batch of single texts has one side."""
        vectors = self.vectors(states, batch.ragged)
        each = torch.arange(len(vectors), device=vectors.device)
        return self.compare(vectors, batch.pair_index or PairIndex((each,), each))
