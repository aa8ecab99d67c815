"""BERT, and the families that differ from it in names and defaults alone."""

from __future__ import annotations

from bertune.encoders.families.family import (
    BERT_DEFAULTS,
    Family,
    bert_head,
    bert_masked_lm,
    roberta_head,
    roberta_masked_lm,
)

BERT = Family("bert", "BertModel", bert_head("bert", "Bert"), bert_masked_lm("Bert"))
ROBERTA = Family(
    "roberta",
    "RobertaModel",
    roberta_head("Roberta"),
    roberta_masked_lm("Roberta"),
    defaults={**BERT_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1},
    positions_after_padding=True,
)
XLM_ROBERTA = Family(
    "roberta",
    "XLMRobertaModel",
    roberta_head("XLMRoberta"),
    roberta_masked_lm("XLMRoberta"),
    defaults={**BERT_DEFAULTS, "pad_token_id": 1},
    positions_after_padding=True,
)
CAMEMBERT = Family(
    "roberta",
    "CamembertModel",
    roberta_head("Camembert"),
    roberta_masked_lm("Camembert"),
    defaults={**BERT_DEFAULTS, "pad_token_id": 1},
    positions_after_padding=True,
)
