"""An encoder and a head as one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bertune.heads.head import EmbeddingHead, as_head
from bertune.types import Batch, Encoder, PairIndex, Ragged


class Model(nn.Module):
    """An encoder and a task's head. `forward` uses every parameter.

    Args:
        encoder: tokens to states.
        head: states to outputs: a `Head`, or any module whose `forward` takes states and a batch.
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = as_head(head)

    def forward(self, batch: Batch) -> Any:
        """Encode the batch and hand the states to the head: in fp32, unless it reads the word table."""
        if self.head.reads_word_table:
            states = self.encoder(batch.ragged, output=self.head.reads)
            return self.head(states.to(self.encoder.numerics.dtype), batch, self.encoder.word_embeddings())
        return self.head(self._states(batch.ragged), batch)

    def vectors(self, ragged: Ragged) -> Tensor:
        """Return the vector of each text (U, E), in fp32.

        Raises:
            TypeError: the head makes no vectors.
        """
        return self._embedding_head().vectors(self._states(ragged), ragged)

    def compare(self, vectors: Tensor, pair_index: PairIndex) -> Any:
        """Return the output of rows whose texts have the given vectors (U, E).

        Raises:
            TypeError: the head makes no vectors.
        """
        return self._embedding_head().compare(vectors, pair_index)

    def finish(self, vectors: Tensor) -> Tensor:
        """Return vectors (U, E) of `vectors` as users get them, such as with length 1."""
        head: Any = self.head
        finished: Tensor = head.finish(vectors)
        return finished

    @property
    def members(self) -> tuple[Model, ...]:
        """Return the models that make this one: itself, or those of an ensemble."""
        return (self,)

    @property
    def embedding_dim(self) -> int:
        """Return the width E of the vectors; 0 where the head makes none."""
        return self.head.embedding_dim if isinstance(self.head, EmbeddingHead) else 0

    def _embedding_head(self) -> EmbeddingHead:
        if not isinstance(self.head, EmbeddingHead):
            name = type(self.head).__name__
            raise TypeError(f"{name} makes no vectors: it lacks `vectors`, `compare` or `embedding_dim`")
        return self.head

    def _states(self, ragged: Ragged) -> Tensor:
        return self.encoder(ragged, output=self.head.reads).float()

    def hf_state_dict(self) -> dict[str, Tensor]:
        """Return all weights in fp32 under the names that transformers gives them."""
        encoder = {self.encoder.prefix + name: t for name, t in self.encoder.hf_state_dict().items()}
        head = {self.head.hf_name(name): t for name, t in self.head.state_dict().items()}
        return {
            name: t.detach().float() if t.is_floating_point() else t.detach()
            for name, t in (encoder | head).items()
        }

    def load_hf_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what `hf_state_dict` returned.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        prefix = self.encoder.prefix
        head = {name: state[self.head.hf_name(name)] for name in self.head.state_dict()}
        encoder = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        with torch.no_grad():
            self.encoder.load_hf_state_dict(encoder)
            of_head = {self.head.hf_name(name) for name in head}
            kept = {n: t for n, t in encoder.items() if n.startswith("pooler") and prefix + n not in of_head}
            if kept:
                self.encoder.kept_weights = kept
            self.head.load_state_dict(head)
