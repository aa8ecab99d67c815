"""A head with one label a word."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bertune.encoders.architectures import reason_for_own_token_head
from bertune.heads.crf import CRFPotentials
from bertune.heads.head import OUTPUT_AXES, Head
from bertune.types import Batch


class TokenHead(Head):
    """A label for each word: dropout, then a linear layer on the word's first token, as in transformers.

    With `crf` the head learns scores of label pairs, first labels and last labels, and a chain of labels is
    scored as a whole. Without it these scores are 0. Either way illegal pairs, first and last labels score
    -inf, so that only legal chains are predicted.

    Args:
        hidden_size: width of the encoder's states.
        legal: which pairs (N, N), first labels (N,) and last labels (N,) are legal, as bool.
        crf: whether to learn a CRF.
        dropout: dropout before the linear layer.
        crf_learning_rate: learning rate of the CRF's scores; None for the head's.
        hf_class: the class of transformers that opens the head; "" where there is none.
        dropout_config_key: the name of the head's dropout in config.json; "" where it has none.
        model_type: the architecture of the encoder.
    """

    label_axes = {**OUTPUT_AXES, "crf.transitions": (0, 1), "crf.start": (0,), "crf.end": (0,)}

    def __init__(
        self, hidden_size: int, legal: tuple[Tensor, Tensor, Tensor], *, crf: bool, dropout: float,
        crf_learning_rate: float | None = None, hf_class: str = "", dropout_config_key: str = "",
        model_type: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        pairs, first, last = legal
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
        if crf_learning_rate is not None:
            self.learning_rates = {"crf": crf_learning_rate}
        self.hf_class = hf_class
        self.dropout_config_key = dropout_config_key
        self.model_type = model_type

    def forward(self, states: Tensor, batch: Batch) -> CRFPotentials:
        """Return the scores of the batch's chains; the emissions are (M, N), a row for each word."""
        emissions = self.out(self.dropout(states[batch.ragged.word_positions])).float()
        return CRFPotentials(
            emissions, *(self._scores(name, emissions) for name in ("transitions", "start", "end"))
        )

    def _scores(self, name: str, like: Tensor) -> Tensor:
        illegal = self.get_buffer(f"illegal_{name}")
        scores = self.crf[name].float() if name in self.crf else like.new_zeros(illegal.shape)
        return scores.masked_fill(illegal, float("-inf"))

    def hf_incompatibility(self) -> str:
        """Say why no class of transformers opens the head; "" where one does."""
        return "" if self.hf_class else reason_for_own_token_head(self.model_type)

    def hf_name(self, name: str) -> str:
        """Return the name of a parameter in a saved folder: transformers' own for the linear layer."""
        layer, _, parameter = name.partition(".")
        return f"classifier.{parameter}" if layer == "out" else super().hf_name(name)
