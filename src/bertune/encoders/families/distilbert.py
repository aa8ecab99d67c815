"""DistilBERT: no segments, no dropout after the attention, and names of its own throughout."""

from __future__ import annotations

from bertune.encoders.families.family import Family, HeadSpec, MaskedLMSpec
from bertune.types import JSON


def _overrides(settings: JSON) -> JSON:  # noqa: ARG001  (written into its code, whatever config.json says)
    return {"type_vocab_size": 0, "attention_output_dropout": 0.0, "layer_norm_eps": 1e-12}


DISTILBERT = Family(
    "distilbert",
    "DistilBertModel",
    HeadSpec(
        "pre_classifier",
        "classifier",
        "relu",
        False,
        ("seq_classif_dropout",),
        "DistilBertForSequenceClassification",
    ),
    MaskedLMSpec(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector.bias",
        "vocab_projector",
        "DistilBertForMaskedLM",
        activation_key="activation",
        norm_eps_key="",
    ),
    token_dropout_keys=("dropout",),
    defaults={
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "max_position_embeddings": 512,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "seq_classif_dropout": 0.2,
    },
    attribute_map={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    overrides=_overrides,
    constants=("layer_norm_eps", "type_vocab_size"),
    layers_name="transformer.layer",
    layer_names={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "intermediate": "ffn.lin1",
        "output": "ffn.lin2",
        "output_norm": "output_layer_norm",
    },
)
