"""Tokens to vectors: encoders, heads, losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bertune.types import Batch, Encoder, PairIndex, Ragged


class Model(nn.Module):
    """An encoder and a task's head. Every parameter is used inside `forward`.

    A head may say in `reads` what it reads of the encoder; see `bertune.types.Reads`. One for texts that are compared has
    `vectors(states, ragged) -> (U, E)`, a vector for each text, and `compare(vectors, pair_index) -> out`.
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Any:
        """Encode the batch and hand the states, in fp32, to the head."""
        return self.head(self._states(batch.ragged), batch)

    def vectors(self, ragged: Ragged) -> Tensor:
        """Return the vector of each text (U, E), in fp32, where the head makes vectors."""
        return self.head.vectors(self._states(ragged), ragged)  # type: ignore[operator, no-any-return]

    def compare(self, vectors: Tensor, pair_index: PairIndex) -> Any:
        """Return what the head makes of rows whose texts have the given vectors (U, E)."""
        return self.head.compare(vectors, pair_index)  # type: ignore[operator]

    @property
    def embedding_dim(self) -> int:
        """Return the width E of the vectors; 0 where the head makes none."""
        return int(self.head.embedding_dim) if hasattr(self.head, "vectors") else 0  # type: ignore[arg-type]

    def _states(self, ragged: Ragged) -> Tensor:
        return self.encoder(ragged, output=getattr(self.head, "reads", "last")).float()

    def hf_state_dict(self) -> dict[str, Tensor]:
        """Return all weights in fp32 under the names that transformers gives them."""
        encoder = {self.encoder.prefix + name: t for name, t in self.encoder.hf_state_dict().items()}
        head = {self._hf_name(name): t for name, t in self.head.state_dict().items()}
        return {
            n: t.detach().float() if t.is_floating_point() else t.detach()
            for n, t in (encoder | head).items()
        }

    def load_hf_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `hf_state_dict` gave.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        prefix = self.encoder.prefix
        head = {n: state[self._hf_name(n)] for n in self.head.state_dict()}
        with torch.no_grad():
            self.encoder.load_hf_state_dict(
                {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            )
            self.head.load_state_dict(head)

    def _hf_name(self, name: str) -> str:
        hf_name = getattr(self.head, "hf_name", None)
        return str(hf_name(name)) if hf_name is not None else f"bertune_head.{name}"
