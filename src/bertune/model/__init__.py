"""Tokens to vectors: encoders, heads, losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bertune.types import Batch, Encoder


class Model(nn.Module):
    """An encoder and a task's head. Every parameter is used inside `forward`.

    A head that says `first_only` reads the first token of each row alone and gets no other state.
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Any:
        """Encode each input of the batch and hand their states, in fp32, to the head."""
        first_only = bool(getattr(self.head, "first_only", False))
        states: tuple[Tensor, ...] = tuple(self.encoder(ragged, first_only=first_only).float() for ragged in batch.inputs)
        return self.head(states, batch)

    def saved_state(self) -> dict[str, Tensor]:
        """Return all weights in fp32 under the names that transformers gives them."""
        encoder = {self.encoder.prefix + name: t for name, t in self.encoder.checkpoint().items()}
        head = {self._saved_name(name): t for name, t in self.head.state_dict().items()}
        return {n: t.detach().float() if t.is_floating_point() else t.detach() for n, t in (encoder | head).items()}

    def load_saved(self, state: dict[str, Tensor]) -> None:
        """Take back what `saved_state` gave.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        prefix = self.encoder.prefix
        head = {n: state[self._saved_name(n)] for n in self.head.state_dict()}
        with torch.no_grad():
            self.encoder.load_checkpoint({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
            self.head.load_state_dict(head)

    def _saved_name(self, name: str) -> str:
        saved_name = getattr(self.head, "saved_name", None)
        return str(saved_name(name)) if saved_name is not None else f"bertune_head.{name}"
