"""How transformers names what it keeps: weights of encoders, settings, classification heads. Data, not code.

Source: `modeling_*.py` and `configuration_*.py` of transformers 5.23. Tests build each architecture and compare names,
defaults, states and logits with ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Activation = Literal["tanh", "gelu", "relu"]


@dataclass(frozen=True)
class HeadSpec:
    """[dropout ->] dense -> activation -> dropout -> out, on the first token of a row."""

    dense: str
    """Name of the hidden layer in a saved checkpoint."""
    out: str
    """Name of the last layer in a saved checkpoint."""
    activation: Activation
    dropout_before_dense: bool
    """Whether there is dropout before the hidden layer too."""
    dropout_keys: tuple[str, ...]
    """Names in config.json that state the dropout, first found wins."""
    hf_class: str
    """The class that opens the saved folder, for `architectures` in config.json."""
    pretrained_pooler: str | None = None
    """Where the encoder keeps a pretrained hidden layer."""


_BERT = ("classifier_dropout", "hidden_dropout_prob")


def _bert_like(prefix: str, name: str) -> HeadSpec:
    return HeadSpec(
        f"{prefix}.pooler.dense",
        "classifier",
        "tanh",
        False,
        _BERT,
        f"{name}ForSequenceClassification",
        "pooler.dense",
    )


def _roberta_like(name: str, activation: Activation = "tanh") -> HeadSpec:
    return HeadSpec(
        "classifier.dense", "classifier.out_proj", activation, True, _BERT, f"{name}ForSequenceClassification"
    )


HEADS: dict[str, HeadSpec] = {
    "bert": _bert_like("bert", "Bert"),
    "ernie": _bert_like("ernie", "Ernie"),
    "megatron-bert": _bert_like("bert", "MegatronBert"),
    "albert": HeadSpec(
        "albert.pooler",
        "classifier",
        "tanh",
        False,
        ("classifier_dropout_prob",),
        "AlbertForSequenceClassification",
        "pooler",
    ),
    "roberta": _roberta_like("Roberta"),
    "xlm-roberta": _roberta_like("XLMRoberta"),
    "camembert": _roberta_like("Camembert"),
    "mpnet": HeadSpec(
        "classifier.dense",
        "classifier.out_proj",
        "tanh",
        True,
        ("hidden_dropout_prob",),
        "MPNetForSequenceClassification",
    ),
    "electra": _roberta_like("Electra", "gelu"),
    "distilbert": HeadSpec(
        "pre_classifier",
        "classifier",
        "relu",
        False,
        ("seq_classif_dropout",),
        "DistilBertForSequenceClassification",
    ),
    "deberta": HeadSpec(
        "pooler.dense",
        "classifier",
        "gelu",
        True,
        ("cls_dropout", "hidden_dropout_prob"),
        "DebertaForSequenceClassification",
    ),
    "deberta-v2": HeadSpec(
        "pooler.dense",
        "classifier",
        "gelu",
        True,
        ("cls_dropout", "hidden_dropout_prob"),
        "DebertaV2ForSequenceClassification",
    ),
}

TOKEN_DROPOUT_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*HEADS, "chinesebert"), _BERT),
    "albert": ("classifier_dropout_prob",),
    "distilbert": ("dropout",),
    **dict.fromkeys(("mpnet", "deberta", "deberta-v2"), ("hidden_dropout_prob",)),
}
"""Where config.json states the dropout of a head for tokens: for all of these, dropout and a linear layer called `classifier`."""


DEFAULT_HEAD = HeadSpec("bertune_head.dense", "bertune_head.out", "tanh", False, _BERT, "")
"""The head of any other architecture, and of poolings that transformers does not know: opened by bertune only."""

PACKABLE = frozenset(
    {"bert", "ernie", "roberta", "xlm-roberta", "camembert", "electra", "albert", "distilbert"}
)
"""Architectures of transformers whose attention can be replaced by ours without changing what they compute."""

POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert"})
"""Architectures whose first position is padding_idx + 1 instead of 0."""

SHORTER_BY_PADDING = POSITIONS_AFTER_PADDING | {
    "mpnet",
    "longformer",
    "data2vec-text",
    "xlm-roberta-xl",
    "xmod",
    "esm",
    "ibert",
    "roberta-prelayernorm",
}
"""Architectures whose position table loses padding_idx + 1 rows in that way."""


_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "intermediate": "ffn.lin1",
    "output": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
_EMBEDDINGS = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "token_type_embeddings": "embeddings.token_type_embeddings",
    "task_type_embeddings": "embeddings.task_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "projection": "embeddings_project",
}
_BERT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512,
    "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
_DISTILBERT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "activation": "gelu", "dropout": 0.1,
    "attention_dropout": 0.1, "max_position_embeddings": 512, "initializer_range": 0.02, "pad_token_id": 0, "seq_classif_dropout": 0.2,
}  # fmt: skip
_DISTILBERT_SETTINGS = {
    "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim",
    "hidden_act": "activation", "hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """An architecture that is BERT's block under names and settings of its own."""

    base_model_prefix: str
    """What comes before the encoder's names in a checkpoint with a head."""
    hf_class: str
    """The class that opens the encoder alone."""
    defaults: Mapping[str, Any] = field(default_factory=lambda: _BERT_DEFAULTS)
    """What a setting is that config.json leaves out."""
    attribute_map: Mapping[str, str] = field(default_factory=dict)
    """The names of settings that are called otherwise than BERT's."""
    embedding_names: Mapping[str, str] = field(default_factory=lambda: _EMBEDDINGS)
    """Our names of what comes before the layers, and theirs."""
    layers_name: str = "encoder.layer"
    """Their name of the list of layers."""
    layer_names: Mapping[str, str] = field(default_factory=lambda: _BERT_LAYER)
    """Our names inside a layer, and theirs."""


FAMILIES: dict[str, Family] = {
    "bert": Family("bert", "BertModel"),
    "ernie": Family(
        "ernie", "ErnieModel", {**_BERT_DEFAULTS, "task_type_vocab_size": 3, "use_task_id": False}
    ),
    "roberta": Family("roberta", "RobertaModel", {**_BERT_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1}),
    "xlm-roberta": Family("roberta", "XLMRobertaModel", {**_BERT_DEFAULTS, "pad_token_id": 1}),
    "camembert": Family("roberta", "CamembertModel", {**_BERT_DEFAULTS, "pad_token_id": 1}),
    "electra": Family(
        "electra",
        "ElectraModel",
        {
            **_BERT_DEFAULTS,
            "embedding_size": 128,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
        },
    ),
    "distilbert": Family(
        "distilbert",
        "DistilBertModel",
        _DISTILBERT_DEFAULTS,
        _DISTILBERT_SETTINGS,
        layers_name="transformer.layer",
        layer_names=_DISTILBERT_LAYER,
    ),
}
"""Architectures that our own BERT computes."""


@dataclass(frozen=True)
class FamilyOutsideTransformers:
    """An architecture that is BERT's block too, and that transformers does not have."""

    family: Family
    """Names and defaults; `hf_class` is the authors' own."""
    head: HeadSpec
    """The authors' head for one label a row."""
    reason: str
    """Why no other tool opens a saved folder."""


NOT_IN_TRANSFORMERS: dict[str, FamilyOutsideTransformers] = {
    "chinesebert": FamilyOutsideTransformers(
        Family(
            "bert",
            "ChineseBertModel",
            {**_BERT_DEFAULTS, "vocab_size": 23236, "glyph_embedding_dim": 1728, "pinyin_map_len": 32},
            embedding_names={
                **_EMBEDDINGS,
                "pinyin_embeddings": "embeddings.pinyin_embeddings.embedding",
                "pinyin_conv": "embeddings.pinyin_embeddings.conv",
                "glyph_embeddings": "embeddings.glyph_embeddings.embedding",
                "glyph_map": "embeddings.glyph_map",
                "fusion": "embeddings.map_fc",
            },
        ),
        _bert_like("bert", "ChineseBert"),
        "transformers has no ChineseBERT, and this folder holds no code; weights have the names of the authors' release",
    )
}
"""Architectures that our own BERT computes beside those."""


def get_family(model_type: str) -> Family:
    """Return names and defaults of an architecture that our own BERT computes.

    Raises:
        KeyError: it is none.
    """
    return (
        NOT_IN_TRANSFORMERS[model_type].family if model_type in NOT_IN_TRANSFORMERS else FAMILIES[model_type]
    )


def get_head_spec(model_type: str) -> HeadSpec | None:
    """Return the head that an architecture has where it comes from, if it is known."""
    return (
        NOT_IN_TRANSFORMERS[model_type].head if model_type in NOT_IN_TRANSFORMERS else HEADS.get(model_type)
    )


def token_classification_class(model_type: str) -> str | None:
    """Return the class that gives each token a label, if it has the head that ours is.

    >>> token_classification_class("xlm-roberta"), token_classification_class("mamba")
    ('XLMRobertaForTokenClassification', None)
    """
    form = get_head_spec(model_type)
    return form.hf_class.replace("ForSequence", "ForToken") if form is not None else None
