"""A head that predicts masked tokens: a hidden layer, and the encoder's word table as the decoder.

Letters: `T` packed tokens of a batch, `M` masked ones, `W` width of the encoder, `V` vocabulary, `E` width of
the word table.

Source: Devlin et al. 2018, arXiv 1810.04805; names and layers as in `modeling_*.py` of transformers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from bertune.encoders.architectures import get_masked_lm_spec
from bertune.encoders.families.family import MaskedLMSpec
from bertune.errors import ConfigError, listed
from bertune.heads.head import Head
from bertune.kernels.dropout import layer_norm
from bertune.kernels.linear import ACTIVATIONS, Linear
from bertune.kernels.linear_cross_entropy import token_losses
from bertune.types import JSON, Batch, Encoder


@dataclass
class MaskedLMOutput:
    """What the scores of all tokens are computed from, for the masked positions alone.

    A loss need not hold all scores at once, so they are not computed here.
    """

    features: Tensor
    """(M, E), in the precision of the encoder."""
    word_table: Tensor
    """(V, E), in fp32."""
    bias: Tensor
    """(V,), in fp32."""
    _scored: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def logits(self) -> Tensor:
        """Return the scores of all tokens (M, V), in fp32; the product has the features' precision."""
        products = F.linear(self.features, self.word_table.to(self.features.dtype))
        return products.float() + self.bias

    def token_losses(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of each position (M,), and whether its most probable token is right (M,).

        They are computed once: an evaluation asks for the loss and for predictions. There is no gradient.

        Args:
            target: (2, M), of the batch: positions, and the right tokens.
        """
        if self._scored is None or self._scored[0] is not target:
            self._scored = target, token_losses(self.features, self.word_table, self.bias, target[1])
        return self._scored[1]


class MaskedLMHead(Head):
    """dense -> activation -> layer norm -> word table and bias, for masked tokens alone.

    The decoder is the encoder's word table, which is no parameter of the head: whoever calls hands it over,
    and the loss has a gradient for it.

    Args:
        hidden_size: W.
        table_shape: V and E.
        form: names in a saved folder.
        activation: of the hidden layer; a key of `ACTIVATIONS`.
        norm_eps: of the layer norm.
        without_bias: those of `dense`, `norm` and `decoder` that have no bias.
        initializer_range: standard deviation of the first weights.
    """

    reads_word_table = True

    def __init__(
        self, hidden_size: int, table_shape: tuple[int, int], form: MaskedLMSpec, *, activation: str = "gelu",
        norm_eps: float = 1e-12, without_bias: Collection[str] = (), initializer_range: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        vocab_size, width = table_shape
        self.form = form
        self.dense = Linear(hidden_size, width, activation)
        self.norm = nn.LayerNorm(width, norm_eps)
        self.bias = nn.Parameter(self.dense.weight.new_zeros(vocab_size))
        nn.init.normal_(self.dense.weight, std=initializer_range)
        nn.init.zeros_(self.dense.bias)
        owners: dict[str, nn.Module] = {"dense": self.dense, "norm": self.norm, "decoder": self}
        for name in without_bias:  # zeros that are neither trained nor saved
            owner = owners[name]
            bias = owner.get_parameter("bias").detach()
            del owner.bias
            owner.register_buffer("bias", bias, persistent=False)

    def forward(  # type: ignore[override]
        self, states: Tensor, batch: Batch, word_table: Tensor
    ) -> MaskedLMOutput:
        """Return the features of the masked tokens, with what decodes them.

        Args:
            states: (T, W), in the precision of the encoder.
            batch: `target[0]` has the positions of the masked tokens, (M,); without a target there are none.
            word_table: (V, E), in fp32.
        """
        positions = batch.ragged.offsets[:0] if batch.target is None else batch.target[0]
        hidden = self.dense(states[positions])
        features = layer_norm(hidden, self.norm.weight, self.norm.bias, self.norm.eps)
        return MaskedLMOutput(features, word_table, self.bias)

    def hf_name(self, name: str) -> str:
        """Return the name of a parameter in a saved folder: the one that transformers gives it."""
        if name == "bias":
            return self.form.bias
        layer, _, parameter = name.partition(".")
        return f"{self.form.dense if layer == 'dense' else self.form.norm}.{parameter}"

    @property
    def hf_class(self) -> str:
        """Return the class that opens the saved folder; "" where only bertune does."""
        return self.form.hf_class

    def hf_config(self) -> JSON:
        """Return the head's part of config.json."""
        return {
            "architectures": [self.form.hf_class] if self.form.hf_class else None,
            "tie_word_embeddings": True,
        }

    def hf_incompatibility(self) -> str:
        """Say why no class of transformers opens the head; "" where one does."""
        return (
            "" if self.form.hf_class else "the head for masked tokens of this architecture is bertune's own"
        )

    @property
    def keeps_pooler(self) -> bool:
        """Tell whether the class that opens the saved folder has the encoder's pooler too."""
        return self.form.has_pooler


def masked_lm_head(encoder: Encoder) -> MaskedLMHead:
    """Return the head for masked tokens of an encoder, with first weights as its authors drew them.

    It has the layers and names of the encoder's own library where these are known, else bertune's own.

    Raises:
        ConfigError: config.json asks for an activation that bertune does not compute.
    """
    form = get_masked_lm_spec(encoder.model_type)
    config = encoder.hf_config()

    def setting(name: str, default: Any) -> Any:
        value = config.get(name)
        return default if value is None else value

    activation = form.activation or setting(form.activation_key, "gelu")
    if activation not in ACTIVATIONS:
        raise ConfigError(
            f"model: the head for masked tokens of this encoder has the activation {activation!r} "
            f"({form.activation_key} in config.json), which bertune does not compute; it knows "
            f"{listed(ACTIVATIONS, len(ACTIVATIONS))}"
        )
    vocab_size, width = encoder.word_embeddings().shape
    return MaskedLMHead(
        encoder.hidden_size,
        (vocab_size, width),
        form,
        activation=activation,
        norm_eps=setting(form.norm_eps_key, 1e-12),
        without_bias=[layer for layer, key in form.bias_keys.items() if config.get(key) is False],
        initializer_range=setting("initializer_range", 0.02),
    )
