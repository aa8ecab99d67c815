"""BERT, ragged in and ragged out: tokens of all rows lie one after the other, and no row is ever padded.

    tokens -> Embeddings -> Layer -> Layer -> ... -> states
    Layer:  x = norm(x + mix(attention(query(x), key(x), value(x))))
            x = norm(x + shrink(grow(x)))            grow ends in the activation, GELU

RoBERTa, XLM-R, CamemBERT, ERNIE, ELECTRA and DistilBERT are the same block; what differs is in `bertune.encoders.names`.
Letters: `T` packed tokens of a batch, `R` its rows, `W` width, `H` heads, `D` width of a head.

Sources: Devlin et al. 2018, arXiv 1810.04805; Vaswani et al. 2017, arXiv 1706.03762; `modeling_bert.py` of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bertune.encoders.active_vocabulary import ActiveVocabulary, active_part, plain_table, with_whole_table
from bertune.encoders.names import FAMILIES, FOREIGN, POSITIONS_AFTER_PADDING, Family, family_of
from bertune.kernels.attention import AttentionPlan, attend
from bertune.kernels.dropout import drop, drop_add_norm, norm
from bertune.kernels.linear import ACTIVATIONS, Linear, Table, identity_of
from bertune.kernels.precision import FP32
from bertune.types import JSON, Numerics, Ragged, Reads


@dataclass(frozen=True)
class BertConfig:
    """The sizes of an encoder, read from config.json."""

    vocabulary: int
    width: int
    embedding_width: int  # of the tables; ELECTRA's small models widen it afterwards
    layers: int
    heads: int
    inner: int  # width inside a layer's second half
    positions: int
    first_position: int  # RoBERTa counts from padding_idx + 1
    types: int  # kinds of segments, 0 where the architecture has none
    tasks: int  # ERNIE's kinds of tasks, 0 where it has none
    activation: str
    dropout: float
    mix_dropout: float  # after the attention: DistilBERT has none there
    attention_dropout: float
    eps: float
    initializer_range: float

    @classmethod
    def of(cls, config: JSON) -> BertConfig:
        """Read the sizes; what config.json leaves out is what transformers makes of it.

        Raises:
            KeyError: the architecture is not ours.
        """
        kind = config["model_type"]
        family = family_of(kind)
        given = {name: value for name, value in config.items() if value is not None}
        value: JSON = {**family.defaults, **given}
        for name, theirs in family.settings.items():  # DistilBERT's own name first, then BERT's, which it takes too
            value[name] = given.get(theirs, given.get(name, family.defaults[theirs]))
        return cls(
            vocabulary=value["vocab_size"],
            width=value["hidden_size"],
            embedding_width=value["embedding_size"] if kind == "electra" else value["hidden_size"],
            layers=value["num_hidden_layers"],
            heads=value["num_attention_heads"],
            inner=value["intermediate_size"],
            positions=value["max_position_embeddings"],
            first_position=value["pad_token_id"] + 1 if kind in POSITIONS_AFTER_PADDING else 0,
            types=0 if kind == "distilbert" else value["type_vocab_size"],
            tasks=value["task_type_vocab_size"] if kind == "ernie" and value["use_task_id"] else 0,
            activation=value["hidden_act"],
            dropout=value["hidden_dropout_prob"],
            mix_dropout=0.0 if kind == "distilbert" else value["hidden_dropout_prob"],
            attention_dropout=value["attention_probs_dropout_prob"],
            eps=1e-12 if kind == "distilbert" else value["layer_norm_eps"],
            initializer_range=value["initializer_range"],
        )


def is_ours(config: JSON) -> bool:
    """Tell whether `Bert` computes what config.json describes."""
    kind = config.get("model_type")
    if (
        not isinstance(kind, str)
        or kind not in {*FAMILIES, *FOREIGN}
        or any(config.get(name) for name in ("is_decoder", "add_cross_attention", "quantization_config"))
    ):
        return False
    activation = config.get(family_of(kind).settings.get("hidden_act", "hidden_act"), "gelu")
    known = isinstance(activation, str) and activation != "none" and activation in ACTIVATIONS
    return known and (config.get("position_embedding_type") or "absolute") == "absolute"


class Embeddings(nn.Module):
    """A token's first vector: what it is, where it stands, and in which segment."""

    def __init__(self, shape: BertConfig) -> None:
        super().__init__()
        self.shape = shape
        self.words: nn.Module = Table(shape.vocabulary, shape.embedding_width)
        self.positions = Table(shape.positions, shape.embedding_width)
        self.types = Table(shape.types, shape.embedding_width) if shape.types else None
        self.tasks = Table(shape.tasks, shape.embedding_width) if shape.tasks else None
        self.norm = nn.LayerNorm(shape.embedding_width, shape.eps)
        self.project = Linear(shape.embedding_width, shape.width) if shape.embedding_width != shape.width else None

    def forward(self, ragged: Ragged, numerics: Numerics) -> Tensor:
        """Return (T, W)."""
        tokens = ragged.ids.numel()
        starts = torch.repeat_interleave(ragged.offsets[:-1], ragged.offsets.diff(), output_size=tokens)
        places = torch.arange(tokens, device=ragged.ids.device) - starts + self.shape.first_position
        summed = self.tokens(ragged, numerics) + self.positions(places)
        if self.types is not None:  # where all segments are one kind, as in RoBERTa, the tokenizer's numbers say nothing
            summed = summed + (self.types(ragged.types) if self.shape.types > 1 else self.types.weight[0])
        if self.tasks is not None:  # a plain text is task 0
            summed = summed + self.tasks.weight[0]
        x = norm(summed, self.norm.weight, self.norm.bias, self.shape.eps).to(numerics.dtype)
        x = drop(x, self.shape.dropout if self.training else 0.0, numerics.fast_dropout)
        return x if self.project is None else self.project(x)

    def tokens(self, ragged: Ragged, numerics: Numerics) -> Tensor:
        """Return what each token is (T, W), wherever it stands, in fp32."""
        return self.words(ragged.ids)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention between the tokens of a row, then a small network on each token; both add to what came in."""

    in_int8: tuple[object, Callable[..., Tensor]] | None = None
    """What computes the layer in int8, and what tells that the weights are still those it was made from."""

    def __init__(self, shape: BertConfig) -> None:
        super().__init__()
        self.shape = shape
        self.query = Linear(shape.width, shape.width)
        self.key = Linear(shape.width, shape.width)
        self.value = Linear(shape.width, shape.width)
        self.mix = Linear(shape.width, shape.width)
        self.mix_norm = nn.LayerNorm(shape.width, shape.eps)
        self.grow = Linear(shape.width, shape.inner, shape.activation)
        self.shrink = Linear(shape.inner, shape.width)
        self.shrink_norm = nn.LayerNorm(shape.width, shape.eps)

    def forward(self, x: Tensor, plan: AttentionPlan, numerics: Numerics, only: Tensor | None = None) -> Tensor:
        """Return the new states (T, W); or (R, W), those of the first tokens, when their places are given as `only`."""
        if self.in_int8 is not None and not torch.is_grad_enabled() and self.in_int8[0] == identity_of(self.parameters()):
            return self.in_int8[1](x, plan, only)
        asking = x if only is None else x[only]
        mixed = self.mix(self._attend(asking, x, plan, numerics))
        asking = self._add_and_norm(mixed, asking, self.mix_norm, self.shape.mix_dropout, numerics.fast_dropout)
        return self._add_and_norm(self.shrink(self.grow(asking)), asking, self.shrink_norm, self.shape.dropout, numerics.fast_dropout)

    def _attend(self, asking: Tensor, x: Tensor, plan: AttentionPlan, numerics: Numerics) -> Tensor:
        query, key, value = (
            linear(given).unflatten(-1, (self.shape.heads, -1))  # (T, H, D)
            for linear, given in ((self.query, asking), (self.key, x), (self.value, x))
        )
        rate = self.shape.attention_dropout if self.training else 0.0
        return attend(query, key, value, plan, rate, fast_dropout=numerics.fast_dropout).flatten(1)

    def _add_and_norm(self, x: Tensor, residual: Tensor, norm: nn.LayerNorm, rate: float, fast_dropout: bool) -> Tensor:
        return drop_add_norm(x, residual, norm.weight, norm.bias, norm.eps, rate if self.training else 0.0, fast_dropout)


class Bert(nn.Module):
    """The encoder: embeddings, then layers.

    Args:
        config: the values of config.json; see `is_ours`. No weight is drawn: see `initialize` and `load_checkpoint`.
    """

    def __init__(self, config: JSON) -> None:
        super().__init__()
        self.shape = BertConfig.of(config)
        self._config = config
        self.kind: str = config["model_type"]
        self.width = self.shape.width
        self.num_layers = self.shape.layers
        self.prefix = f"{self.family.prefix}."
        self.encoder_class = self.family.encoder_class
        self.numerics = FP32
        self.embeddings = self._new_embeddings()
        self.layers = nn.ModuleList(Layer(self.shape) for _ in range(self.shape.layers))

    def _new_embeddings(self) -> Embeddings:
        return Embeddings(self.shape)

    @property
    def family(self) -> Family:
        """Return names and defaults of the architecture."""
        return family_of(self.kind)

    @property
    def longest(self) -> int:
        """Return how many tokens a row may have."""
        return self.shape.positions - self.shape.first_position

    def forward(self, ragged: Ragged, reads: Reads = "last") -> Tensor:
        """Return states: (T, W) of all tokens, or (R, W) of each row's first; see `bertune.types.Reads`.

        For `first_token` the last layer works for the first tokens alone, since nobody reads the others: the same numbers
        for about a fifth less work in a model of four layers.
        """
        plan = AttentionPlan(ragged.lengths, ragged.ids.device)
        x: Tensor = self.embeddings(ragged, self.numerics)
        first = x
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            only = ragged.offsets[:-1] if reads == "first_token" and number == last else None
            x = layer(x, plan, self.numerics, only)
            first = x if number == 0 else first
        if reads == "first_last":
            return (first + x) / 2
        return x[ragged.offsets[:-1]] if reads == "first_token" and last < 0 else x

    def compute_in(self, numerics: Numerics) -> None:
        """Choose the precision of all work between embeddings and states; parameters stay in fp32."""
        self.numerics = numerics

    def set_dropout(self, rate: float) -> None:
        """Change the dropout of hidden states and of attention, wherever the architecture has any."""
        mix = rate if self.shape.mix_dropout or self.shape.mix_dropout == self.shape.dropout else 0.0
        self.shape = replace(self.shape, dropout=rate, mix_dropout=mix, attention_dropout=rate)
        self.embeddings.shape = self.shape
        for layer in self.layers:
            layer.shape = self.shape  # type: ignore[assignment]

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Cast the weights once, not at every call, while the block runs and nobody changes them."""
        new = [linear for linear in self._linears() if linear.ready is None]
        try:
            for linear in new:
                linear.prepare(self.numerics.dtype)
            yield
        finally:
            for linear in new:
                linear.release()

    def prepare(self) -> None:
        """Do the same for good: the encoder is finished."""
        for linear in self._linears():
            linear.prepare(self.numerics.dtype)

    def _linears(self) -> list[Linear]:
        return [module for module in self.modules() if isinstance(module, Linear)]

    def depth(self, name: str) -> int:
        """Return 0 for embeddings, 1 to num_layers for layers."""
        place, _, rest = name.partition(".")
        return int(rest.split(".")[0]) + 1 if place == "layers" else 0

    def word_embeddings(self) -> nn.Parameter:
        """Return the table of token vectors that is trained: (V, W), or its active rows."""
        words: Any = self.embeddings.words
        return words.weight  # type: ignore[no-any-return]

    def activate(self, ids: Tensor) -> ActiveVocabulary | None:
        """Train only the rows of the word table that `ids` names; see `bertune.encoders.active_vocabulary`."""
        self.deactivate()
        active = active_part(self.word_embeddings().detach(), ids)
        if active is not None:
            self.embeddings.words = active
        return active

    def deactivate(self) -> None:
        """Go back to the whole word table."""
        if isinstance(self.embeddings.words, ActiveVocabulary):
            self.embeddings.words = plain_table(self.embeddings.words.whole())

    def checkpoint(self) -> dict[str, Tensor]:
        """Return every weight under the name that transformers' encoder gives it."""
        return {self.their_name(name): tensor for name, tensor in self.state_of().items()}

    def state_of(self) -> dict[str, Tensor]:
        """Return the state with the whole word table, whichever part of it is being trained."""
        return with_whole_table(self.state_dict(), "embeddings.words", self.embeddings.words)

    def load_checkpoint(self, state: dict[str, Tensor]) -> None:
        """Take back what `checkpoint` gave.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        if isinstance(self.embeddings.words, ActiveVocabulary):
            self.embeddings.words = plain_table(self.embeddings.words.frozen)
        self.load_state_dict({name: state[self.their_name(name)] for name in self.state_dict()})

    def their_name(self, name: str) -> str:
        """Translate the name of a parameter, `layers.0.query.weight`, to `encoder.layer.0.attention.self.query.weight`."""
        place, *parts = name.split(".")
        if place == "embeddings":
            return f"{self.family.embeddings[parts[0]]}.{parts[1]}"
        number, inner, kind = parts
        return f"{self.family.layers}.{number}.{self.family.layer[inner]}.{kind}"

    def config(self) -> JSON:
        """Return what transformers keeps in config.json."""
        return {**self.family.defaults, **self._config}

    def initialize(self, names: list[str]) -> None:
        """Give first values to parameters that a checkpoint lacks, as BERT's authors did."""
        for name in names:
            parameter = self.get_parameter(name)
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=self.shape.initializer_range)
            else:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)
