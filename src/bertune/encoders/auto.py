"""Any other encoder of transformers, ragged in and ragged out; `bertune.encoders.bert` is bertune's own.

Where the architecture allows it, all rows of a batch go through the encoder as one packed row, and bertune's
attention keeps them apart. Elsewhere the batch is padded, here and nowhere else.
Letters: `T` packed tokens, `B` rows, `S` tokens of the longest row, `W` hidden size.
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    PACKABLE,
    POSITIONS_AFTER_PADDING,
    SHORTER_BY_PADDING,
    get_head_spec,
)
from bertune.errors import ConfigError, listed
from bertune.kernels.attention import AttentionPlan, ragged_attention
from bertune.kernels.precision import FP32
from bertune.kernels.ragged_ops import token_row_index
from bertune.types import JSON, EncoderOutput, Numerics, Ragged

_LAYER = re.compile(r"\.(?:layers?|albert_layer_groups|block)\.(\d+)\.")
_ATTENTION_NAME = "bertune_ragged"


class AutoEncoder(nn.Module):
    """An encoder of transformers behind the Encoder protocol."""

    def __init__(self, hf: Any) -> None:
        super().__init__()
        self.hf = hf
        self.model_type: str = hf.config.model_type
        self.hidden_size: int = hf.config.hidden_size
        self.prefix: str = f"{hf.base_model_prefix}."
        self.hf_class: str = type(hf).__name__
        self.numerics = FP32
        numbers = [int(match[1]) for name, _ in hf.named_parameters() if (match := _LAYER.search(f".{name}"))]
        self.num_layers = max(numbers, default=-1) + 1
        parameters = inspect.signature(hf.forward).parameters
        num_segments = getattr(hf.config, "type_vocab_size", 0) or 0
        self._takes_token_types = "token_type_ids" in parameters and num_segments > 1
        self._packed = _is_packable(hf.config)
        self._first_position = first_position(hf.config)

    @property
    def max_positions(self) -> int:
        """Return how many tokens a row may have."""
        return get_max_positions(self.hf.config)

    def forward(self, ragged: Ragged, output: EncoderOutput = "last") -> Tensor:
        """Return states: (T, W) of all tokens, or (B, W) of the first tokens; see `EncoderOutput`."""
        with self._autocast(ragged.input_ids.device.type):
            forward = self._forward_packed if self._packed else self._forward_padded
            states = forward(ragged, first_last=output == "first_last")
        return states[ragged.offsets[:-1]] if output == "first_token" else states

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        return (
            nullcontext()
            if self.numerics.precision == "fp32"
            else torch.autocast(device, self.numerics.dtype)
        )

    def set_numerics(self, numerics: Numerics) -> None:
        """Choose the precision; transformers' layers run in it by autocast."""
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

    def _forward_padded(self, ragged: Ragged, *, first_last: bool) -> Tensor:
        shape = (len(ragged.lengths), max(ragged.lengths))  # (B, S)
        row = token_row_index(ragged)
        column = torch.arange(ragged.input_ids.numel(), device=row.device) - ragged.offsets[row]
        ids = ragged.input_ids.new_full(shape, self.hf.config.pad_token_id or 0)
        ids[row, column] = ragged.input_ids
        mask = torch.zeros_like(ids)
        mask[row, column] = 1
        inputs = {}
        if self._takes_token_types:
            inputs["token_type_ids"] = torch.zeros_like(ids)
            inputs["token_type_ids"][row, column] = ragged.token_type_ids
        out = self.hf(input_ids=ids, attention_mask=mask, output_hidden_states=first_last, **inputs)
        return _states(out, first_last)[row, column]  # of (B, S, W)

    def layer_index(self, name: str) -> int:
        """Return 0 for embeddings, 1 to num_layers for blocks and whatever follows them."""
        match = _LAYER.search(f".{name}")
        if match:
            return int(match[1]) + 1
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
            ids = torch.cat([ids, ids.new_tensor([self.hf.config.pad_token_id or 0])])
        active = make_active_vocabulary(embedding.weight.detach(), ids)
        if active is not None:
            self.hf.set_input_embeddings(active)
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


def _states(out: Any, first_last: bool) -> Tensor:
    """Return the states of the last layer, or the mean of those of the first and the last."""
    last: Tensor = out.last_hidden_state
    return (out.hidden_states[1] + last) / 2 if first_last else last


def first_position(config: Any) -> int:
    """Return the position of a row's first token."""
    return (config.pad_token_id or 0) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0


def get_max_positions(config: Any) -> int:
    """Return how many tokens a row may have; 512 where config.json does not say."""
    positions = getattr(config, "max_position_embeddings", None)
    # MPNet's padding_idx is a constant in its code
    padding_idx = 1 if config.model_type == "mpnet" else config.pad_token_id or 0
    num_unused = padding_idx + 1 if config.model_type in SHORTER_BY_PADDING else 0
    return int(positions) - num_unused if positions and positions > 0 else 512


def load_auto_encoder(folder: Path) -> tuple[AutoEncoder, list[str], list[str], dict[str, Tensor]]:
    """Read a pretrained encoder through transformers, weights in fp32.

    Returns:
        The encoder, weights that the checkpoint lacks, weights of it that are not used, and the pooler.

    Raises:
        ConfigError: the folder's architecture or its weights cannot be read.
    """
    with _quiet():
        from transformers import AutoModel

        config = load_hf_config(folder)
        try:
            hf, info = AutoModel.from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ConfigError(
                f"model: cannot read the weights in {str(folder)!r}: {_first_line(error)}"
            ) from None
    missing = sorted(info["missing_keys"])
    if len(missing) == len(hf.state_dict()):
        raise ConfigError(
            f"model: {str(folder)!r} holds no weight of a {config.model_type} encoder; is config.json "
            "its own?"
        )
    if info["mismatched_keys"]:
        raise ConfigError(
            f"model: weights in {str(folder)!r} have other shapes than its config.json says: "
            f"{listed(map(str, info['mismatched_keys']), 3)}"
        )
    pooler = _take_pooler(hf)
    if any(name.startswith("pooler") for name in missing):
        pooler = {}
    missing = [name for name in missing if not name.startswith("pooler")]
    return AutoEncoder(_with_ragged_attention(hf)), missing, sorted(info["unexpected_keys"]), pooler


def build_auto_encoder(folder: Path) -> AutoEncoder:
    """Build an encoder without weights, to be filled from a saved model in `folder`.

    Raises:
        ConfigError: the folder's architecture cannot be read.
    """
    with _quiet():
        from transformers import AutoModel

        config = load_hf_config(folder)
        try:
            hf = AutoModel.from_config(config, dtype=torch.float32)
        except (ValueError, RuntimeError, KeyError) as error:
            raise ConfigError(
                f"model: config.json in {str(folder)!r} describes no encoder: {_first_line(error)}"
            ) from None
    _take_pooler(hf)
    return AutoEncoder(_with_ragged_attention(hf))


def load_hf_config(folder: Path) -> Any:
    """Read the config.json of a model folder.

    Raises:
        ConfigError: transformers does not know what it describes.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers' checks raise errors of several libraries
        raise ConfigError(
            f"model: config.json in {str(folder)!r} is not one that transformers knows: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _take_pooler(hf: Any) -> dict[str, Tensor]:
    """Remove the encoder's pooler, since the head has its own, and return its weights."""
    spec = get_head_spec(hf.config.model_type)
    weights: dict[str, Tensor] = {}
    if getattr(hf, "pooler", None) is not None:
        if spec is not None and spec.pretrained_pooler:
            layer = hf.get_submodule(spec.pretrained_pooler)
            weights = {"weight": layer.weight.detach().clone(), "bias": layer.bias.detach().clone()}
        hf.pooler = None
    return weights


def _is_packable(config: Any) -> bool:
    """Tell whether bertune's attention computes the same as the model's own; a decoder is causal, say."""
    return config.model_type in PACKABLE and not getattr(config, "is_decoder", False)


def _with_ragged_attention(hf: Any) -> Any:
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep load reports and progress bars of transformers off the screen: bertune reports the same."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
