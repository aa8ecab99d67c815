"""Every family that bertune's own encoder computes, by `model_type`. Importing this loads no torch."""

from __future__ import annotations

from bertune.encoders.families.bert_like import BERT, CAMEMBERT, ROBERTA, XLM_ROBERTA
from bertune.encoders.families.chinesebert import CHINESEBERT
from bertune.encoders.families.distilbert import DISTILBERT
from bertune.encoders.families.electra import ELECTRA
from bertune.encoders.families.ernie import ERNIE
from bertune.encoders.families.family import Family
from bertune.types import JSON

FAMILIES: dict[str, Family] = {
    "bert": BERT,
    "ernie": ERNIE,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "electra": ELECTRA,
    "distilbert": DISTILBERT,
    "chinesebert": CHINESEBERT,
}

_NOT_COMPUTED = ("is_decoder", "add_cross_attention", "quantization_config")


def get_family(model_type: object) -> Family | None:
    """Return the family of this `model_type`, whatever the other settings are; None where there is none."""
    return FAMILIES.get(model_type) if isinstance(model_type, str) else None


def find_native_family(config: JSON) -> Family | None:
    """Return the family whose encoder computes what config.json describes; None where transformers is needed.

    bertune's own encoder has absolute positions, a known activation, and is no decoder.
    """
    family = get_family(config.get("model_type"))
    if family is None or any(config.get(name) for name in _NOT_COMPUTED):
        return None
    from bertune.kernels.linear import ACTIVATIONS

    activation = config.get(family.attribute_map.get("hidden_act", "hidden_act"), "gelu")
    is_known = isinstance(activation, str) and activation != "none" and activation in ACTIVATIONS
    is_absolute = (config.get("position_embedding_type") or "absolute") == "absolute"
    return family if is_known and is_absolute else None


def is_native(config: JSON) -> bool:
    """Tell whether bertune's own encoder computes what config.json describes."""
    return find_native_family(config) is not None
