"""Any other encoder of transformers, ragged in and ragged out; `bertune.encoders.bert` is bertune's own.

Where the architecture allows it, all rows of a batch go through the encoder as one packed row, and bertune's
attention keeps them apart. Elsewhere the batch is padded, here and nowhere else.
Letters: `T` packed tokens, `B` rows, `S` tokens of the longest row, `W` hidden size.
"""

from __future__ import annotations

import inspect
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertune.encoders.active_vocabulary import (
    ActiveVocabulary,
    make_active_vocabulary,
    make_embedding,
    with_full_table,
)
from bertune.encoders.architectures import (
    ONE_LENGTH_AT_A_TIME,
    PACKABLE,
    POSITIONS_AFTER_PADDING,
    SHORTER_BY_PADDING,
    VERIFIED,
)
from bertune.encoders.auto_probe import computes_in
from bertune.encoders.tried import FP32_ALONE, TRIED
from bertune.errors import ConfigError
from bertune.kernels.attention import AttentionPlan, ragged_attention
from bertune.kernels.precision import FP32
from bertune.kernels.ragged_ops import token_row_index
from bertune.types import JSON, EncoderOutput, Numerics, Ragged

_LAYER = re.compile(r"\.(?:layers?|albert_layer_groups|block)\.(\d+)\.")
_ATTENTION_NAME = "bertune_ragged"


def layer_number(name: str) -> int | None:
    """Return the layer of a parameter of transformers' models, from 0; None for parameters outside of layers.

    >>> layer_number("encoder.layer.3.output.dense.weight"), layer_number("embeddings.LayerNorm.bias")
    (3, None)
    """
    match = _LAYER.search(f".{name}")
    return int(match[1]) if match else None


class AutoEncoder(nn.Module):
    """An encoder of transformers behind the Encoder protocol."""

    def __init__(self, hf: Any) -> None:
        super().__init__()
        self.hf = hf
        self.model_type: str = hf.config.model_type
        self.hidden_size: int = getattr(hf.config, "hidden_size", 0)
        self.prefix: str = f"{hf.base_model_prefix}."
        self.hf_class: str = type(hf).__name__
        self.numerics = FP32
        self.kept_weights: dict[str, Tensor] = {}
        self.notes: list[str] = []
        self.code_map: JSON = {}
        self.code_files: list[Path] = []
        self._computed: dict[str, bool] = {}
        self.one_length_at_a_time = self.model_type in ONE_LENGTH_AT_A_TIME
        numbers = (layer_number(name) for name, _ in hf.named_parameters())
        self.num_layers = max((number for number in numbers if number is not None), default=-1) + 1
        parameters = inspect.signature(hf.forward).parameters
        num_segments = getattr(hf.config, "type_vocab_size", 0) or 0
        self._takes_token_types = "token_type_ids" in parameters and num_segments > 1
        self._takes_cache = "use_cache" in parameters
        self._takes_mask = "attention_mask" in parameters
        self._sparse = getattr(hf.config, "attention_type", "") == "block_sparse" and hasattr(
            hf, "set_attention_type"
        )
        self.trial_length = _longest_full_row(hf.config) + 1 if self._sparse else 5
        self._pad_id = pad_id(hf.config)
        self._packed = _is_packable(hf.config)
        self._first_position = first_position(hf.config)

    def use_own_code(self) -> None:
        """Take the model for one that nothing is known of: a folder's own code computes it."""
        self.model_type = f"{self.model_type} by {self.hf_class}"
        self._packed = False

    @property
    def num_vectors(self) -> int:
        """Return how many tokens the word table knows."""
        return len(self.word_embeddings())

    @property
    def max_positions(self) -> int:
        """Return how many tokens a row may have."""
        return get_max_positions(self.hf.config)

    def forward(self, ragged: Ragged, output: EncoderOutput = "last") -> Tensor:
        """Return states: (T, W) of all tokens, or (B, W) of the first tokens; see `EncoderOutput`."""
        with self._autocast(ragged.input_ids.device.type):
            if self._packed:
                states = self._forward_packed(ragged, first_last=output == "first_last")
            elif self.one_length_at_a_time:
                states = self._forward_by_length(ragged, first_last=output == "first_last")
            else:
                states = self._forward_padded(ragged, first_last=output == "first_last")
        return states[ragged.offsets[:-1]] if output == "first_token" else states

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        return (
            nullcontext()
            if self.numerics.precision == "fp32"
            else torch.autocast(device, self.numerics.dtype)
        )

    def set_numerics(self, numerics: Numerics) -> None:
        """Choose the precision; transformers' layers run in it by autocast, in fp32 where they cannot."""
        low = numerics.precision in {"bf16", "fp16"}
        if numerics.precision == "bf16" and self.model_type in (TRIED | VERIFIED) - FP32_ALONE:
            self._computed["bf16"] = True  # a trial needs as much memory as the weights
        if low and numerics.precision not in self._computed:
            self._computed[numerics.precision] = computes_in(self, numerics.precision)
        if low and not self._computed[numerics.precision]:
            numerics = replace(numerics, precision="fp32")
        self.numerics = numerics

    def set_dropout(self, rate: float) -> None:
        """Change the dropout of hidden states and of attention, wherever the encoder has it."""
        for module in self.hf.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, rate)

    def prepare_inference(self) -> None:
        """Do nothing: see `inference`."""

    def inference(self) -> AbstractContextManager[None]:
        """Return a context for calls that change no weight; nothing to prepare here."""
        return nullcontext()

    def _forward_packed(self, ragged: Ragged, *, first_last: bool) -> Tensor:
        device = ragged.input_ids.device
        starts = torch.repeat_interleave(
            ragged.offsets[:-1], ragged.offsets.diff(), output_size=ragged.input_ids.numel()
        )
        positions = torch.arange(ragged.input_ids.numel(), device=device) - starts + self._first_position
        inputs = {"token_type_ids": ragged.token_type_ids[None]} if self._takes_token_types else {}
        out = self.hf(
            input_ids=ragged.input_ids[None],
            position_ids=positions[None],
            bertune_call=(AttentionPlan(ragged.lengths, device), self.numerics.fast_dropout),
            output_hidden_states=first_last,
            **inputs,
        )
        return _states(out, first_last)[0]

    def _forward_by_length(self, ragged: Ragged, *, first_last: bool) -> Tensor:
        """Compute rows of one length together, so that no row is padded."""
        order: list[Tensor] = []
        parts: list[Tensor] = []
        for length in sorted(set(ragged.lengths)):
            rows = [row for row, other in enumerate(ragged.lengths) if other == length]
            tokens = (
                ragged.offsets[rows][:, None] + torch.arange(length, device=ragged.offsets.device)
            ).flatten()
            offsets = torch.arange(0, (len(rows) + 1) * length, length, device=ragged.offsets.device)
            same = Ragged(
                ragged.input_ids[tokens], ragged.token_type_ids[tokens], offsets, (length,) * len(rows)
            )
            order.append(tokens)
            parts.append(self._forward_padded(same, first_last=first_last))
        return torch.cat(parts)[torch.cat(order).argsort()]

    def _forward_padded(self, ragged: Ragged, *, first_last: bool) -> Tensor:
        if self._sparse:  # a short row switches BigBird to full attention for good
            self.hf.set_attention_type("block_sparse")
        shape = (len(ragged.lengths), max(ragged.lengths))  # (B, S)
        row = token_row_index(ragged)
        column = torch.arange(ragged.input_ids.numel(), device=row.device) - ragged.offsets[row]
        ids = ragged.input_ids.new_full(shape, self._pad_id)
        ids[row, column] = ragged.input_ids
        inputs: dict[str, Any] = {}
        if self._takes_mask:
            inputs["attention_mask"] = torch.zeros_like(ids)
            inputs["attention_mask"][row, column] = 1
        if self._takes_token_types:
            inputs["token_type_ids"] = torch.zeros_like(ids)
            inputs["token_type_ids"][row, column] = ragged.token_type_ids
        if self._takes_cache:
            inputs["use_cache"] = False
        try:
            out = self.hf(input_ids=ids, output_hidden_states=first_last, **inputs)
        except (LookupError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
            if self.model_type in VERIFIED:
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ConfigError(
                f"model: transformers' {self.hf_class} cannot compute rows of {shape[1]} tokens: {reason}"
            ) from error
        return _states(out, first_last)[row, column]  # of (B, S, W)

    def layer_index(self, name: str) -> int:
        """Return 0 for embeddings, 1 to num_layers for blocks and whatever follows them."""
        number = layer_number(name)
        if number is not None:
            return number + 1
        return 0 if "embeddings" in name else self.num_layers

    def word_embeddings(self) -> nn.Parameter:
        """Return the table of token vectors that is trained: (V, W), or its active rows."""
        return self.hf.get_input_embeddings().weight  # type: ignore[no-any-return]

    def use_active_vocabulary(self, ids: Tensor) -> ActiveVocabulary | None:
        """Train only the rows `ids` of the word table; None where it is no plain table of torch."""
        self.use_full_vocabulary()
        embedding = self.hf.get_input_embeddings()
        if type(embedding) is not nn.Embedding:
            return None
        if not self._packed:  # rows are padded
            ids = torch.cat([ids, ids.new_tensor([self._pad_id])])
        active = make_active_vocabulary(embedding.weight.detach(), ids)
        if active is None:
            return None
        self.hf.set_input_embeddings(active)
        if self.model_type not in VERIFIED and not computes_in(self, "fp32"):  # CTRL changes vectors in place
            self.use_full_vocabulary()
            return None
        return active

    def use_full_vocabulary(self) -> None:
        """Go back to the whole word table."""
        embedding = self.hf.get_input_embeddings()
        if isinstance(embedding, ActiveVocabulary):
            self.hf.set_input_embeddings(make_embedding(embedding.full_weight()))

    def hf_state_dict(self) -> dict[str, Tensor]:
        """Return every weight under the name that transformers gives it."""
        embedding = self.hf.get_input_embeddings()
        name = next(name for name, module in self.hf.named_modules() if module is embedding)
        return with_full_table(self.hf.state_dict(), name, embedding)

    def load_hf_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what `hf_state_dict` returned.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        embedding = self.hf.get_input_embeddings()
        if isinstance(embedding, ActiveVocabulary):
            self.hf.set_input_embeddings(make_embedding(embedding.pretrained_weight))
        self.hf.load_state_dict({name: state[name] for name in self.hf.state_dict()})

    def hf_config(self) -> JSON:
        """Return config.json of transformers."""
        return self.hf.config.to_dict()  # type: ignore[no-any-return]


def _longest_full_row(config: Any) -> int:
    """Return how long a row of BigBird may be so that it computes full attention all the same."""
    return int((5 + 2 * config.num_random_blocks) * config.block_size)


class WithoutPooler(nn.Module):
    """Stands where transformers has a pooler: some of its models call one without asking for it."""

    def forward(self, states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return what it is given."""
        return states


def _states(out: Any, first_last: bool) -> Tensor:
    """Return the states of the last layer, or the mean of those of the first and the last."""
    last: Tensor = out.last_hidden_state
    if not first_last:
        return last
    hidden = getattr(out, "hidden_states", None)
    if hidden is None or len(hidden) < 2 or hidden[1].shape != last.shape:
        raise ConfigError(
            "options.pooling: first_last_avg needs states of the first layer, which this encoder does not "
            "return; set options.pooling=mean"
        )
    mean: Tensor = (hidden[1] + last) / 2
    return mean


def pad_id(config: Any) -> int:
    """Return the id of padding; 0 where config.json gives none that the encoder knows."""
    number = getattr(config, "pad_token_id", None)
    return number if isinstance(number, int) and number >= 0 else 0


def first_position(config: Any) -> int:
    """Return the position of a row's first token."""
    return pad_id(config) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0


def get_max_positions(config: Any) -> int:
    """Return how many tokens a row may have; 512 where config.json does not say."""
    names = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "seq_length")
    positions = next((getattr(config, name) for name in names if getattr(config, name, None)), None)
    # MPNet's padding_idx is a constant in its code
    padding_idx = 1 if config.model_type == "mpnet" else pad_id(config)
    num_unused = padding_idx + 1 if config.model_type in SHORTER_BY_PADDING else 0
    return int(positions) - num_unused if isinstance(positions, int) and positions > 0 else 512


def _is_packable(config: Any) -> bool:
    """Tell whether bertune's attention computes the same as the model's own; a decoder is causal, say."""
    return config.model_type in PACKABLE and not getattr(config, "is_decoder", False)


def use_ragged_attention(hf: Any) -> Any:
    """Give a model of transformers bertune's attention, where that computes the same; return the model."""
    if _is_packable(hf.config):
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION_NAME, _attend)
        hf.set_attn_implementation(_ATTENTION_NAME)
    return hf


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    bertune_call: tuple[AttentionPlan, bool],
    **_: Any,
) -> tuple[Tensor, None]:
    """Answer transformers' attention call: query, key, value (1, H, T, D) -> (1, T, H, D)."""
    plan, fast_dropout = bertune_call
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    rate = dropout if module.training else 0.0
    return ragged_attention(q, k, v, plan, rate, scaling, fast_dropout)[None], None
