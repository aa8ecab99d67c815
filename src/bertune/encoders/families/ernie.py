"""ERNIE: BERT that may have one more table, for the kinds of tasks it was pretrained on."""

from __future__ import annotations

from bertune.encoders.families.family import BERT_DEFAULTS, Family, bert_head, bert_masked_lm
from bertune.types import JSON


def _overrides(settings: JSON) -> JSON:
    return {"task_type_vocab_size": settings["task_type_vocab_size"] if settings["use_task_id"] else 0}


ERNIE = Family(
    "ernie",
    "ErnieModel",
    bert_head("ernie", "Ernie"),
    bert_masked_lm("Ernie"),
    defaults={**BERT_DEFAULTS, "task_type_vocab_size": 3, "use_task_id": False},
    overrides=_overrides,
)
