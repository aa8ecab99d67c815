"""What is known of an architecture by its `model_type`: heads, dropout, positions. Data; loads no torch.

What bertune's own encoder computes is in `bertune.encoders.families`. The architectures here run through
`bertune.encoders.auto` only. Source: `modeling_*.py` and `configuration_*.py` of transformers 5.23.
"""

from __future__ import annotations

from bertune.encoders.families.family import (
    BERT_DROPOUT_KEYS,
    HeadSpec,
    MaskedLMSpec,
    bert_head,
    bert_masked_lm,
    roberta_masked_lm,
)
from bertune.encoders.families.registry import FAMILIES, get_family

DEFAULT_HEAD = HeadSpec("bertune_head.dense", "bertune_head.out", "tanh", False, BERT_DROPOUT_KEYS, "")
"""The head of all other architectures, and of poolings that transformers lacks. Only bertune opens it."""

DEFAULT_MASKED_LM = MaskedLMSpec(
    "bertune_head.dense", "bertune_head.norm", "bertune_head.bias", "", "", activation="gelu"
)
"""The head for masked tokens of all other architectures. Only bertune opens it."""

_ALBERT_DROPOUT_KEYS = ("classifier_dropout_prob",)
_DEBERTA_DROPOUT_KEYS = ("cls_dropout", "hidden_dropout_prob")


def _deberta_head(class_prefix: str) -> HeadSpec:
    hf_class = f"{class_prefix}ForSequenceClassification"
    return HeadSpec("pooler.dense", "classifier", "gelu", True, _DEBERTA_DROPOUT_KEYS, hf_class)


_AUTO_HEADS: dict[str, HeadSpec] = {
    "megatron-bert": bert_head("bert", "MegatronBert"),
    "albert": HeadSpec(
        "albert.pooler",
        "classifier",
        "tanh",
        False,
        _ALBERT_DROPOUT_KEYS,
        "AlbertForSequenceClassification",
        "pooler",
    ),
    "mpnet": HeadSpec(
        "classifier.dense",
        "classifier.out_proj",
        "tanh",
        True,
        ("hidden_dropout_prob",),
        "MPNetForSequenceClassification",
    ),
    "deberta": _deberta_head("Deberta"),
    "deberta-v2": _deberta_head("DebertaV2"),
}
_AUTO_TOKEN_DROPOUT_KEYS: dict[str, tuple[str, ...]] = {
    "megatron-bert": BERT_DROPOUT_KEYS,
    "albert": _ALBERT_DROPOUT_KEYS,
    **dict.fromkeys(("mpnet", "deberta", "deberta-v2"), ("hidden_dropout_prob",)),
}

_AUTO_MASKED_LM: dict[str, MaskedLMSpec] = {
    "megatron-bert": bert_masked_lm("MegatronBert"),
    "albert": MaskedLMSpec(
        "predictions.dense",
        "predictions.LayerNorm",
        "predictions.bias",
        "predictions.decoder",
        "AlbertForMaskedLM",
    ),
    "mpnet": roberta_masked_lm("MPNet"),
    "deberta": bert_masked_lm("Deberta"),
    "deberta-v2": bert_masked_lm("DebertaV2"),
    "modernbert": MaskedLMSpec(
        "head.dense",
        "head.norm",
        "decoder.bias",
        "decoder",
        "ModernBertForMaskedLM",
        activation_key="classifier_activation",
        norm_eps_key="norm_eps",
        bias_keys={"dense": "classifier_bias", "norm": "norm_bias", "decoder": "decoder_bias"},
    ),
    "convbert": MaskedLMSpec(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head.bias",
        "generator_lm_head",
        "ConvBertForMaskedLM",
        activation="gelu",
    ),
    "big_bird": bert_masked_lm("BigBird", has_pooler=True),
    "fnet": bert_masked_lm("FNet", has_pooler=True),
    "mra": bert_masked_lm("Mra"),
    "nystromformer": bert_masked_lm("Nystromformer"),
    "roformer": bert_masked_lm("RoFormer"),
    "yoso": bert_masked_lm("Yoso"),
    "data2vec-text": roberta_masked_lm("Data2VecText"),
    "longformer": roberta_masked_lm("Longformer"),
    "roberta-prelayernorm": roberta_masked_lm("RobertaPreLayerNorm"),
    "xlm-roberta-xl": roberta_masked_lm("XLMRobertaXL"),
}

_TRANSFORMERS_FAMILIES = {name: family for name, family in FAMILIES.items() if not family.bertune_only_reason}

HEADS: dict[str, HeadSpec] = {
    **{name: family.head for name, family in _TRANSFORMERS_FAMILIES.items()},
    **_AUTO_HEADS,
}
"""The heads of the architectures of transformers, by `model_type`."""
PACKABLE = frozenset({"albert", *(n for n, family in _TRANSFORMERS_FAMILIES.items() if family.is_packable)})
"""Architectures of transformers in which bertune's attention computes the same as their own."""
VERIFIED = frozenset({*_TRANSFORMERS_FAMILIES, *_AUTO_HEADS})
"""Architectures of transformers whose states tests compare row by row; the others get a trial when opened."""
ONE_LENGTH_AT_A_TIME = frozenset(
    {"big_bird", "convbert", "cpmant", "fnet", "funnel", "mobilebert", "nystromformer", "yoso"}
)
"""Architectures in which a row depends on the padding beside it, for long rows at least."""
POSITIONS_AFTER_PADDING = frozenset(n for n, family in FAMILIES.items() if family.positions_after_padding)
"""Architectures whose first position is padding_idx + 1 instead of 0."""
SHORTER_BY_PADDING = POSITIONS_AFTER_PADDING | {
    "mpnet",
    "longformer",
    "data2vec-text",
    "xlm-roberta-xl",
    "xmod",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "luke",
    "markuplm",
    "roberta-prelayernorm",
}
"""Architectures whose table of positions has padding_idx + 1 rows that no token uses."""


def get_head_spec(model_type: str) -> HeadSpec | None:
    """Return the head of an architecture in the library it comes from, if it is known."""
    family = get_family(model_type)
    return family.head if family is not None else _AUTO_HEADS.get(model_type)


def get_masked_lm_spec(model_type: str) -> MaskedLMSpec:
    """Return the head for masked tokens of an architecture in the library it comes from, else bertune's own.

    >>> get_masked_lm_spec("albert").bias, get_masked_lm_spec("ibert").bias
    ('predictions.bias', 'bertune_head.bias')
    """
    family = get_family(model_type)
    spec = family.masked_lm if family is not None else _AUTO_MASKED_LM.get(model_type)
    return spec or DEFAULT_MASKED_LM


def token_dropout_keys(model_type: str) -> tuple[str, ...]:
    """Return the names in config.json that state the dropout of the head for tokens; the first one wins.

    All these heads are dropout and a linear layer called `classifier`. Empty for an architecture without one.
    """
    family = get_family(model_type)
    return family.token_dropout_keys if family is not None else _AUTO_TOKEN_DROPOUT_KEYS.get(model_type, ())


def token_classification_class(model_type: str) -> str | None:
    """Return the class of transformers that gives each token a label, if its head is the same as bertune's.

    >>> token_classification_class("xlm-roberta"), token_classification_class("mamba")
    ('XLMRobertaForTokenClassification', None)
    """
    spec = get_head_spec(model_type)
    return spec.hf_class.replace("ForSequence", "ForToken") if spec is not None else None


def reason_for_own_token_head(model_type: str) -> str:
    """Say why transformers cannot open the head for tokens that bertune saves; transformers itself is asked.

    >>> reason_for_own_token_head("modernbert")
    "the head for tokens is bertune's own: transformers' ModernBertForTokenClassification has other layers"
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES as NAMES

    name = NAMES.get(model_type)
    if name is None:
        return f"transformers has no head for tokens of {model_type} encoders"
    return f"the head for tokens is bertune's own: transformers' {name} has other layers"


def bertune_only_reason(model_type: str) -> str:
    """Return why no other tool opens a folder of this architecture; empty where transformers has it."""
    family = get_family(model_type)
    return family.bertune_only_reason if family is not None else ""
