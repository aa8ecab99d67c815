"""ELECTRA: generator and discriminator. The small ones have narrow tables, which a linear layer widens.

A discriminator has no head for masked tokens: its own says which tokens were replaced.
"""

from __future__ import annotations

from bertune.encoders.families.family import BERT_DEFAULTS, Family, MaskedLMSpec, roberta_head
from bertune.types import JSON


def _overrides(settings: JSON) -> JSON:
    return {"embedding_size": settings["embedding_size"]}


ELECTRA = Family(
    "electra",
    "ElectraModel",
    roberta_head("Electra", "gelu"),
    MaskedLMSpec(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head.bias",
        "generator_lm_head",
        "ElectraForMaskedLM",
        activation="gelu",
    ),
    defaults={
        **BERT_DEFAULTS,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    overrides=_overrides,
)
