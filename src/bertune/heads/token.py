"""One label a word."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bertune.heads.crf import CRFPotentials
from bertune.types import Batch


class TokenHead(nn.Module):
    """A label for each word: dropout, then a linear layer on the first token of the word, as transformers has it.

    With `crf` a chain of labels is judged as a whole, by scores that are learnt for pairs, first and last labels. Without it these
    are 0. What `legal` forbids is -inf in either case, so that only legal chains are ever predicted.
    """

    def __init__(
        self, hidden_size: int, legal: tuple[Tensor, Tensor, Tensor], *, crf: bool, dropout: float
    ) -> None:
        super().__init__()
        pairs, first, last = legal  # (N, N), (N,), (N,) of bool
        num_labels = len(first)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, num_labels)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.crf = nn.ParameterDict()
        if crf:
            sizes = {"transitions": (num_labels, num_labels), "start": (num_labels,), "end": (num_labels,)}
            self.crf.update({name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()})
        for name, allowed in (("transitions", pairs), ("start", first), ("end", last)):
            self.register_buffer(f"illegal_{name}", ~allowed, persistent=False)
        self.learning_rates: dict[str, float] = {}
        """Learning rates of parameters that do not learn at the head's, by the first part of their name."""
        self.hf_class = ""
        """The class of transformers that opens it, if there is one."""
        self.dropout_config_key = ""
        """What config.json calls its dropout."""

    def forward(self, states: Tensor, batch: Batch) -> CRFPotentials:
        """Return what the chains of the batch are judged by: emissions (M, N), a row for each word of the batch."""
        emissions = self.out(self.dropout(states[batch.ragged.word_positions])).float()
        return CRFPotentials(
            emissions, *(self._scores(name, emissions) for name in ("transitions", "start", "end"))
        )

    def _scores(self, name: str, like: Tensor) -> Tensor:
        illegal = getattr(self, f"illegal_{name}")
        scores = self.crf[name].float() if name in self.crf else like.new_zeros(illegal.shape)
        return scores.masked_fill(illegal, float("-inf"))

    def hf_name(self, name: str) -> str:
        """Return the name of a parameter in a saved checkpoint: transformers' own for the linear layer."""
        layer, _, kind = name.partition(".")
        return f"classifier.{kind}" if layer == "out" else f"bertune_head.{name}"
