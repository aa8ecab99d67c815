"""How transformers names and shapes the classification head of each architecture: data, not code.

Source: `modeling_*.py` of transformers 5.23, the classes `*ForSequenceClassification`. A test builds each of them
and compares its logits with ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["tanh", "gelu", "relu"]


@dataclass(frozen=True)
class HeadForm:
    """[dropout ->] dense -> activation -> dropout -> out, on the first token of a row."""

    dense: str
    """Name of the hidden layer in a saved checkpoint."""
    out: str
    """Name of the last layer in a saved checkpoint."""
    activation: Activation
    dropout_first: bool
    """Whether there is dropout before the hidden layer too."""
    dropout_from: tuple[str, ...]
    """Names in config.json that state the dropout, first found wins."""
    saved_class: str
    """The class that opens the saved folder, for `architectures` in config.json."""
    pretrained_pooler: str | None = None
    """Where the encoder keeps a pretrained hidden layer."""


_BERT = ("classifier_dropout", "hidden_dropout_prob")


def _bert_like(prefix: str, name: str) -> HeadForm:
    return HeadForm(f"{prefix}.pooler.dense", "classifier", "tanh", False, _BERT, f"{name}ForSequenceClassification", "pooler.dense")


def _roberta_like(name: str, activation: Activation = "tanh") -> HeadForm:
    return HeadForm("classifier.dense", "classifier.out_proj", activation, True, _BERT, f"{name}ForSequenceClassification")


HEADS: dict[str, HeadForm] = {
    "bert": _bert_like("bert", "Bert"),
    "ernie": _bert_like("ernie", "Ernie"),
    "megatron-bert": _bert_like("bert", "MegatronBert"),
    "albert": HeadForm(
        "albert.pooler", "classifier", "tanh", False, ("classifier_dropout_prob",), "AlbertForSequenceClassification", "pooler"
    ),
    "roberta": _roberta_like("Roberta"),
    "xlm-roberta": _roberta_like("XLMRoberta"),
    "camembert": _roberta_like("Camembert"),
    "mpnet": HeadForm("classifier.dense", "classifier.out_proj", "tanh", True, ("hidden_dropout_prob",), "MPNetForSequenceClassification"),
    "electra": _roberta_like("Electra", "gelu"),
    "distilbert": HeadForm("pre_classifier", "classifier", "relu", False, ("seq_classif_dropout",), "DistilBertForSequenceClassification"),
    "deberta": HeadForm(
        "pooler.dense", "classifier", "gelu", True, ("cls_dropout", "hidden_dropout_prob"), "DebertaForSequenceClassification"
    ),
    "deberta-v2": HeadForm(
        "pooler.dense", "classifier", "gelu", True, ("cls_dropout", "hidden_dropout_prob"), "DebertaV2ForSequenceClassification"
    ),
}

OWN_HEAD = HeadForm("bertune_head.dense", "bertune_head.out", "tanh", False, _BERT, "")
"""The head of any other architecture, and of poolings that transformers does not know: opened by bertune only."""

PACKED = frozenset({"bert", "ernie", "roberta", "xlm-roberta", "camembert", "electra", "albert", "distilbert"})
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
