"""From the states of tokens to one vector a text, and from two vectors to the label of a pair.

Letters: `T` packed tokens, `U` texts, `B` rows, `N` labels, `W` encoder width, `E` vector width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertune.heads.head import OUTPUT_AXES, Head
from bertune.kernels.linear import ACTIVATIONS
from bertune.kernels.ragged_ops import (
    last_token_pooling,
    max_pooling,
    mean_pooling,
    mean_sqrt_len_pooling,
    weighted_mean_pooling,
)
from bertune.types import Batch, EncoderOutput, PairIndex, Ragged

Pooling = Literal[
    "mean", "cls", "max", "pooler", "first_last_avg", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
]
_POOLING: dict[str, Callable[[Tensor, Ragged], Tensor]] = {
    "mean": mean_pooling,
    "first_last_avg": mean_pooling,
    "max": max_pooling,
    "mean_sqrt_len_tokens": mean_sqrt_len_pooling,
    "weightedmean": weighted_mean_pooling,
    "lasttoken": last_token_pooling,
}
"""What makes one vector of the states that a head reads, where they are more than one a text."""
_READS: dict[str, EncoderOutput] = {"cls": "first_token", "first_last_avg": "first_last"}


@dataclass(frozen=True)
class SentenceOutput:
    """The output of a batch.

    Attributes:
        vectors: (U, E) one a text.
        pair_index: the texts of each row.
        logits: (B, N) of labels, where rows have labels.
    """

    vectors: Tensor
    pair_index: PairIndex
    logits: Tensor | None = None

    def text_vectors(self, position: int) -> Tensor:
        """Return the vectors (B, E) of the texts at one position of the rows."""
        return self.vectors[self.pair_index.text_index[position]]

    def truncate(self, dim: int) -> SentenceOutput:
        """Return the output with the first `dim` features of each vector."""
        return SentenceOutput(self.vectors[:, :dim], self.pair_index, self.logits)


class SentenceHead(Head):
    """One vector a text, by pooling and dense layers; for labels a linear layer on two vectors.

    It is a `bertune.heads.head.EmbeddingHead`.

    Args:
        hidden_size: width of the encoder's states.
        pooling: how states become one vector. `pooler` is `cls`, with the hidden layer first in `dense`.
        dense: width and activation of each layer after it.
        normalize: whether the vectors of the output have length 1; a zero vector stays zero.
        num_labels: 0 where rows have no labels.
        labels_from_normalized: whether the label layer reads normalized vectors, as early versions did; from
            vectors of length 1 it learns slowly.
        concat_product: whether u * v is among the features of the label layer.
        classifier_learning_rate: learning rate of the label layer; None for the head's.

    Sources: Reimers and Gurevych 2019, arXiv 1908.10084, for [u; v; |u - v|]; bertorch's `SentenceBERT` for
    u * v.
    """

    label_axes = OUTPUT_AXES

    def __init__(
        self, hidden_size: int, pooling: Pooling, dense: Sequence[tuple[int, str]] = (), *,
        normalize: bool = False, num_labels: int = 0, labels_from_normalized: bool = False,
        concat_product: bool = False, classifier_learning_rate: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pooling = "cls" if pooling == "pooler" else pooling
        self.reads = _READS.get(self.pooling, "last")
        self.normalize = normalize
        self.labels_from_normalized = labels_from_normalized
        self.concat_product = concat_product
        self.activations = [activation for _, activation in dense]
        self.input_form = {
            "options.pooling": self.pooling,
            "options.dense": [list(layer) for layer in dense],
            "options.concat_product": concat_product,
            "labels from vectors of length 1": labels_from_normalized,
        }
        widths = [hidden_size, *(width for width, _ in dense)]
        self.dense = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.embedding_dim = widths[-1]
        if classifier_learning_rate is not None:
            self.learning_rates = {"out": classifier_learning_rate}
        num_features = (4 if concat_product else 3) * self.embedding_dim
        self.out = nn.Linear(num_features, num_labels) if num_labels else None
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # BERT's own initialisation
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def vectors(self, states: Tensor, ragged: Ragged) -> Tensor:
        """Return the vector of each text before `normalize`: (T, W), or (U, W) of first tokens, to (U, E)."""
        x = states if self.pooling == "cls" else _POOLING[self.pooling](states, ragged)
        for layer, activation in zip(self.dense, self.activations, strict=True):
            x = ACTIVATIONS[activation](layer(x))
        return x

    def finish(self, vectors: Tensor) -> Tensor:
        """Return vectors (U, E) of `vectors` as users get them: of length 1 with `normalize`."""
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def compare(self, vectors: Tensor, pair_index: PairIndex) -> SentenceOutput:
        """Return the output of rows whose texts have the given vectors (U, E), with logits for labels."""
        finished = self.finish(vectors)
        if self.out is None:
            return SentenceOutput(finished, pair_index)
        read = finished if self.labels_from_normalized else vectors
        u, v = (read[index] for index in pair_index.text_index[:2])
        features = [u, v, (u - v).abs(), *([u * v] if self.concat_product else [])]
        return SentenceOutput(finished, pair_index, self.out(torch.cat(features, -1)))

    def forward(self, states: Tensor, batch: Batch) -> SentenceOutput:
        """Return the output of a batch; in a batch without `pair_index` each row is one text."""
        vectors = self.vectors(states, batch.ragged)
        text_index = torch.arange(len(vectors), device=vectors.device)
        return self.compare(vectors, batch.pair_index or PairIndex((text_index,), text_index))
