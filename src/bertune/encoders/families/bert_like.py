"""BERT, and the families that differ from it in names and defaults alone."""

from __future__ import annotations

from bertune.encoders.families.family import BERT_DEFAULTS, Family, bert_head, roberta_head

BERT = Family("bert", "BertModel", bert_head("bert", "Bert"))
ROBERTA = Family(
    "roberta",
    "RobertaModel",
    roberta_head("Roberta"),
    defaults={**BERT_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1},
    positions_after_padding=True,
)
XLM_ROBERTA = Family(
    "roberta",
    "XLMRobertaModel",
    roberta_head("XLMRoberta"),
    defaults={**BERT_DEFAULTS, "pad_token_id": 1},
    positions_after_padding=True,
)
CAMEMBERT = Family(
    "roberta",
    "CamembertModel",
    roberta_head("Camembert"),
    defaults={**BERT_DEFAULTS, "pad_token_id": 1},
    positions_after_padding=True,
)
