"""Tokens to vectors: encoders, heads, losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bertune.model.auto import AutoEncoder
from bertune.types import Batch


class Model(nn.Module):
    """An encoder and a task's head. Every parameter is used inside `forward`."""

    def __init__(self, encoder: AutoEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Any:
        """Encode each input of the batch and hand their states to the head."""
        states: tuple[Tensor, ...] = tuple(self.encoder(ragged) for ragged in batch.inputs)
        return self.head(states, batch)

    def saved_state(self) -> dict[str, Tensor]:
        """Return all weights in fp32 under the names that transformers gives them."""
        encoder = {self.encoder.prefix + name: t for name, t in self.encoder.hf.state_dict().items()}
        head = {self._saved_name(name): t for name, t in self.head.state_dict().items()}
        return {n: t.detach().float() if t.is_floating_point() else t.detach() for n, t in (encoder | head).items()}

    def load_saved(self, state: dict[str, Tensor]) -> None:
        """Take back what `saved_state` gave.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        encoder = {n: state[self.encoder.prefix + n] for n in self.encoder.hf.state_dict()}
        head = {n: state[self._saved_name(n)] for n in self.head.state_dict()}
        with torch.no_grad():
            self.encoder.hf.load_state_dict(encoder)
            self.head.load_state_dict(head)

    def _saved_name(self, name: str) -> str:
        saved_name = getattr(self.head, "saved_name", None)
        return str(saved_name(name)) if saved_name is not None else f"bertune_head.{name}"
