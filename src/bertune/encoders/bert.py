"""BERT, ragged in and ragged out: the tokens of all rows lie one after the other, and no row is padded.

    tokens -> Embeddings -> Layer -> Layer -> ... -> states
    Layer:  x = attention_norm(x + attention_output(attention(query(x), key(x), value(x))))
            x = output_norm(x + output(intermediate(x)))    intermediate ends in the activation, GELU

RoBERTa, XLM-R, CamemBERT, ERNIE, ELECTRA and DistilBERT are the same block; `bertune.encoders.families` has
what differs.
Letters: `T` packed tokens of a batch, `R` its rows, `W` hidden size, `H` heads, `D` size of a head.

Sources: Devlin et al. 2018, arXiv 1810.04805; Vaswani et al. 2017, arXiv 1706.03762; `modeling_bert.py` of
transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bertune.encoders.active_vocabulary import (
    ActiveVocabulary,
    make_active_vocabulary,
    make_embedding,
    with_full_table,
)
from bertune.encoders.families.family import Family
from bertune.kernels.attention import AttentionPlan, ragged_attention
from bertune.kernels.dropout import apply_dropout, dropout_add_layer_norm, layer_norm
from bertune.kernels.linear import Embedding, Linear, weights_version
from bertune.kernels.precision import FP32
from bertune.types import JSON, EncoderOutput, Numerics, Ragged


@dataclass(frozen=True)
class BertConfig:
    """The sizes of an encoder, read from config.json."""

    vocab_size: int
    hidden_size: int
    embedding_size: int  # width of the tables; ELECTRA's small models project it to hidden_size
    num_layers: int
    num_heads: int
    intermediate_size: int  # width inside the feed-forward network
    max_position_embeddings: int
    first_position: int  # RoBERTa counts from padding_idx + 1
    type_vocab_size: int  # number of segments; 0 where the architecture has none
    task_type_vocab_size: int  # number of ERNIE's task types; 0 where it has none
    activation: str
    hidden_dropout: float
    attention_output_dropout: float  # after the attention; DistilBERT has none there
    attention_dropout: float
    layer_norm_eps: float
    initializer_range: float

    @classmethod
    def from_hf_config(cls, config: JSON, family: Family) -> BertConfig:
        """Read the sizes; a setting that config.json leaves out has the family's default.

        Args:
            config: config.json of transformers.
            family: the names and defaults of its architecture.
        """
        given = {name: value for name, value in config.items() if value is not None}
        settings: JSON = {**family.defaults, **given}
        for name, own_name in family.attribute_map.items():  # the family's own name wins over BERT's
            settings[name] = given.get(own_name, given.get(name, family.defaults[own_name]))
        first_position = settings["pad_token_id"] + 1 if family.positions_after_padding else 0
        overrides = family.overrides(settings)

        def pick(field: str, setting: str) -> Any:
            return overrides[field] if field in overrides else settings[setting]

        return cls(
            vocab_size=settings["vocab_size"],
            hidden_size=settings["hidden_size"],
            embedding_size=pick("embedding_size", "hidden_size"),
            num_layers=settings["num_hidden_layers"],
            num_heads=settings["num_attention_heads"],
            intermediate_size=settings["intermediate_size"],
            max_position_embeddings=settings["max_position_embeddings"],
            first_position=first_position,
            type_vocab_size=pick("type_vocab_size", "type_vocab_size"),
            task_type_vocab_size=overrides.get("task_type_vocab_size", 0),
            activation=settings["hidden_act"],
            hidden_dropout=settings["hidden_dropout_prob"],
            attention_output_dropout=pick("attention_output_dropout", "hidden_dropout_prob"),
            attention_dropout=settings["attention_probs_dropout_prob"],
            layer_norm_eps=pick("layer_norm_eps", "layer_norm_eps"),
            initializer_range=settings["initializer_range"],
        )

    @property
    def max_positions(self) -> int:
        """Return how many tokens a row may have."""
        return self.max_position_embeddings - self.first_position


class Embeddings(nn.Module):
    """The first vector of a token: the sum of its word, position and segment, normalized."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings: nn.Module = Embedding(config.vocab_size, config.embedding_size)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.embedding_size)
        self.token_type_embeddings = (
            Embedding(config.type_vocab_size, config.embedding_size) if config.type_vocab_size else None
        )
        self.task_type_embeddings = (
            Embedding(config.task_type_vocab_size, config.embedding_size)
            if config.task_type_vocab_size
            else None
        )
        self.norm = nn.LayerNorm(config.embedding_size, config.layer_norm_eps)
        self.projection = (
            Linear(config.embedding_size, config.hidden_size)
            if config.embedding_size != config.hidden_size
            else None
        )

    def forward(self, ragged: Ragged, numerics: Numerics) -> Tensor:
        """Return (T, W)."""
        tokens = ragged.input_ids.numel()
        starts = torch.repeat_interleave(ragged.offsets[:-1], ragged.offsets.diff(), output_size=tokens)
        positions = torch.arange(tokens, device=ragged.input_ids.device) - starts + self.config.first_position
        summed = self.embed_tokens(ragged, numerics) + self.position_embeddings(positions)
        if self.token_type_embeddings is not None:
            # With a single segment, as in RoBERTa, the segments that the tokenizer gives have no meaning.
            summed = summed + (
                self.token_type_embeddings(ragged.token_type_ids)
                if self.config.type_vocab_size > 1
                else self.token_type_embeddings.weight[0]
            )
        if self.task_type_embeddings is not None:  # a text without a task is task 0
            summed = summed + self.task_type_embeddings.weight[0]
        x = layer_norm(summed, self.norm.weight, self.norm.bias, self.config.layer_norm_eps).to(
            numerics.dtype
        )
        x = apply_dropout(x, self.config.hidden_dropout if self.training else 0.0, numerics.fast_dropout)
        return x if self.projection is None else self.projection(x)

    def embed_tokens(self, ragged: Ragged, numerics: Numerics) -> Tensor:
        """Return the part of the first vectors that does not depend on the position: (T, W), in fp32."""
        return self.word_embeddings(ragged.input_ids)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention between the tokens of a row, then a feed-forward network on each token; both are residual."""

    int8_forward: tuple[object, Callable[..., Tensor]] | None = None
    """The version of the weights and a function that computes the layer in int8, made from these weights."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)
        self.attention_output = Linear(config.hidden_size, config.hidden_size)
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.intermediate = Linear(config.hidden_size, config.intermediate_size, config.activation)
        self.output = Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: not the layer in int8, which belongs to this process."""
        return {name: value for name, value in self.__dict__.items() if name != "int8_forward"}

    def forward(
        self, x: Tensor, plan: AttentionPlan, numerics: Numerics, query_positions: Tensor | None = None
    ) -> Tensor:
        """Return the new states (T, W), or (R, W) where `query_positions` names R tokens."""
        if (
            self.int8_forward is not None
            and not torch.is_grad_enabled()
            and self.int8_forward[0] == weights_version(self.parameters())
        ):
            return self.int8_forward[1](x, plan, query_positions)
        queries = x if query_positions is None else x[query_positions]
        attended = self.attention_output(self._attend(queries, x, plan, numerics))
        queries = self._add_and_norm(
            attended,
            queries,
            self.attention_norm,
            self.config.attention_output_dropout,
            numerics.fast_dropout,
        )
        return self._add_and_norm(
            self.output(self.intermediate(queries)),
            queries,
            self.output_norm,
            self.config.hidden_dropout,
            numerics.fast_dropout,
        )

    def _attend(self, queries: Tensor, x: Tensor, plan: AttentionPlan, numerics: Numerics) -> Tensor:
        query, key, value = (
            linear(states).unflatten(-1, (self.config.num_heads, -1))  # (T, H, D)
            for linear, states in ((self.query, queries), (self.key, x), (self.value, x))
        )
        rate = self.config.attention_dropout if self.training else 0.0
        return ragged_attention(query, key, value, plan, rate, fast_dropout=numerics.fast_dropout).flatten(1)

    def _add_and_norm(
        self, x: Tensor, residual: Tensor, norm: nn.LayerNorm, rate: float, fast_dropout: bool
    ) -> Tensor:
        return dropout_add_layer_norm(
            x, residual, norm.weight, norm.bias, norm.eps, rate if self.training else 0.0, fast_dropout
        )


class Bert(nn.Module):
    """The encoder: embeddings, then layers.

    Args:
        hf_config: config.json of transformers. No weight is initialized: see `init_weights` and
            `load_hf_state_dict`.
        family: the names, defaults and hooks of its architecture.
    """

    def __init__(self, hf_config: JSON, family: Family) -> None:
        super().__init__()
        self.config = BertConfig.from_hf_config(hf_config, family)
        self.family = family
        self._hf_config = hf_config
        self.model_type: str = hf_config["model_type"]
        self.hidden_size = self.config.hidden_size
        self.num_layers = self.config.num_layers
        self.prefix = f"{family.base_model_prefix}."
        self.hf_class = family.hf_class
        self.numerics = FP32
        self.kept_weights: dict[str, Tensor] = {}
        self.embeddings = self._new_embeddings()
        self.layers = nn.ModuleList(Layer(self.config) for _ in range(self.config.num_layers))

    def _new_embeddings(self) -> Embeddings:
        return Embeddings(self.config)

    @property
    def max_positions(self) -> int:
        """Return how many tokens a row may have."""
        return self.config.max_positions

    def forward(self, ragged: Ragged, output: EncoderOutput = "last") -> Tensor:
        """Return states: (T, W) of all tokens, or (R, W) of the first tokens; see `EncoderOutput`.

        For `first_token` the last layer computes only the first tokens. The numbers are the same, for about a
        fifth less work in a model of four layers.
        """
        plan = AttentionPlan(ragged.lengths, ragged.input_ids.device)
        x: Tensor = self.embeddings(ragged, self.numerics)
        first = x
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            query_positions = ragged.offsets[:-1] if output == "first_token" and number == last else None
            x = layer(x, plan, self.numerics, query_positions)
            first = x if number == 0 else first
        if output == "first_last":
            return (first + x) / 2
        return x[ragged.offsets[:-1]] if output == "first_token" and last < 0 else x

    def set_numerics(self, numerics: Numerics) -> None:
        """Choose the precision of the layers; parameters stay in fp32."""
        self.numerics = numerics

    def set_dropout(self, rate: float) -> None:
        """Change the dropout of hidden states and of attention, wherever the architecture has any."""
        before = self.config
        has_output_dropout = before.attention_output_dropout or before.hidden_dropout == 0
        self.config = replace(
            before,
            hidden_dropout=rate,
            attention_output_dropout=rate if has_output_dropout else 0.0,
            attention_dropout=rate,
        )
        self.embeddings.config = self.config
        for layer in self.layers:
            layer.config = self.config  # type: ignore[assignment]

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Cast the weights once, not at every call, while the block runs and nobody changes them."""
        unprepared = [linear for linear in self._linears() if linear.prepared is None]
        try:
            for linear in unprepared:
                linear.prepare_inference(self.numerics.dtype)
            yield
        finally:
            for linear in unprepared:
                linear.end_inference()

    def prepare_inference(self) -> None:
        """Cast the weights once for good, since training is over."""
        for linear in self._linears():
            linear.prepare_inference(self.numerics.dtype)

    def _linears(self) -> list[Linear]:
        return [module for module in self.modules() if isinstance(module, Linear)]

    def layer_index(self, name: str) -> int:
        """Return 0 for embeddings, 1 to num_layers for layers."""
        first, _, rest = name.partition(".")
        return int(rest.split(".")[0]) + 1 if first == "layers" else 0

    def word_embeddings(self) -> nn.Parameter:
        """Return the table of token vectors that is trained: (V, W), or its active rows."""
        table: Any = self.embeddings.word_embeddings
        return table.weight  # type: ignore[no-any-return]

    def use_active_vocabulary(self, ids: Tensor) -> ActiveVocabulary | None:
        """Train only the rows `ids` of the word table; see `bertune.encoders.active_vocabulary`."""
        self.use_full_vocabulary()
        active = make_active_vocabulary(self.word_embeddings().detach(), ids)
        if active is not None:
            self.embeddings.word_embeddings = active
        return active

    def use_full_vocabulary(self) -> None:
        """Go back to the whole word table."""
        if isinstance(self.embeddings.word_embeddings, ActiveVocabulary):
            self.embeddings.word_embeddings = make_embedding(self.embeddings.word_embeddings.full_weight())

    def hf_state_dict(self) -> dict[str, Tensor]:
        """Return every weight under the name that transformers' encoder gives it."""
        return {self.hf_name(name): tensor for name, tensor in self.full_state_dict().items()}

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return the state with the whole word table, also where only a part of it is trained."""
        return with_full_table(
            self.state_dict(), "embeddings.word_embeddings", self.embeddings.word_embeddings
        )

    def load_hf_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what `hf_state_dict` returned.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        if isinstance(self.embeddings.word_embeddings, ActiveVocabulary):
            self.embeddings.word_embeddings = make_embedding(
                self.embeddings.word_embeddings.pretrained_weight
            )
        self.load_state_dict({name: state[self.hf_name(name)] for name in self.state_dict()})

    def hf_name(self, name: str) -> str:
        """Translate the name of a parameter to that of transformers.

        `layers.0.query.weight` of a BERT is `encoder.layer.0.attention.self.query.weight` there.
        """
        first, *parts = name.split(".")
        if first == "embeddings":
            return f"{self.family.embedding_names[parts[0]]}.{parts[1]}"
        number, module, parameter = parts
        return f"{self.family.layers_name}.{number}.{self.family.layer_names[module]}.{parameter}"

    def hf_config(self) -> JSON:
        """Return config.json of transformers, defaults included."""
        return {**self.family.defaults, **self._hf_config}

    def init_weights(self, names: list[str]) -> None:
        """Initialize parameters that a checkpoint lacks, as BERT's authors did."""
        for name in names:
            parameter = self.get_parameter(name)
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=self.config.initializer_range)
            else:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)
