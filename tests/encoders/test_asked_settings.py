"""A config.json that asks for something that would not be computed is refused; all usual ones are read."""

from __future__ import annotations

import json
import shutil

import pytest

from bertune.encoders.asked_settings import HARMLESS, check_settings
from bertune.encoders.auto_load import settings_read_by
from bertune.encoders.families.registry import FAMILIES
from bertune.encoders.load import load_encoder
from bertune.errors import ConfigError

OLD_TRANSFORMERS = {
    "_name_or_path": "x", "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None, "directionality": "bidi", "gradient_checkpointing": False,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 32, "initializer_range": 0.02,
    "intermediate_size": 64, "layer_norm_eps": 1e-12, "max_position_embeddings": 64, "model_type": "bert",
    "num_attention_heads": 4, "num_hidden_layers": 2, "output_past": True, "pad_token_id": 0,
    "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128, "pooler_type": "first_token_transform", "position_embedding_type": "absolute",
    "transformers_version": "4.18.0", "torch_dtype": "float32", "type_vocab_size": 2, "use_cache": True,
    "vocab_size": 100, "bos_token_id": 0, "eos_token_id": 2, "pruned_heads": {}, "is_decoder": False,
    "add_cross_attention": False, "chunk_size_feed_forward": 0, "num_beams": 1, "no_repeat_ngram_size": 0,
    "finetuning_task": "sst-2", "task_specific_params": {"a": 1}, "id2label": {"0": "a"}, "attention_type": "original_full",
    "sentence_transformers": {"version": "4.1", "activation_fn": "torch.nn.modules.linear.Identity"},
    "adapters": {"adapters": {}, "config_map": {}, "fusions": {}}, "embedding_size": 32, "head_dim": 8,
    "uniem_embedding_strategy": "last_mean", "use_flash_attn": True, "num_experts": 0, "relative_attention": False, "qkv_bias": True,
}  # fmt: skip
"""Settings of real checkpoints of many years, together."""
DISTILBERT = {
    "activation": "gelu", "attention_dropout": 0.1, "dim": 768, "dropout": 0.1, "hidden_dim": 3072,
    "initializer_range": 0.02, "max_position_embeddings": 512, "model_type": "distilbert", "n_heads": 12,
    "n_layers": 6, "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False,
    "tie_weights_": True, "vocab_size": 30522, "hidden_size": 768, "layer_norm_eps": 1e-12,
}  # fmt: skip
ELECTRA = {
    "embedding_size": 128, "hidden_size": 256, "model_type": "electra", "summary_activation": "gelu",
    "summary_last_dropout": 0.1, "summary_type": "first", "summary_use_proj": True, "generator_size": "0.25",
}  # fmt: skip


def check(config):
    family = FAMILIES[config["model_type"]]
    return check_settings(config, family.setting_names, f"bertune's own {config['model_type']}")


@pytest.mark.parametrize(
    "config", [OLD_TRANSFORMERS, DISTILBERT, ELECTRA], ids=["bert", "distilbert", "electra"]
)
def test_settings_of_usual_checkpoints_are_known(config):
    assert check(config) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position_embedding_type", "alibi"),
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "rotary"),
        ("feed_forward_type", "geglu"),
        ("alibi_starting_size", 512),
        ("rotary_emb_fraction", 1.0),
        ("rope_theta", 10000.0),
        ("prenorm", True),
        ("norm_type", "rms_norm"),
        ("qkv_proj_bias", False),
        ("use_token_type_embeddings", False),
        ("head_dim", 16),
        ("embedding_size", 16),
        ("num_experts", 8),
        ("local_attention_window", 128),
        ("lora_adaptations", ["retrieval"]),
        ("pruned_heads", {"0": [1]}),
        ("is_causal", True),
        ("directionality", "uni"),
        ("layer_scale", 0.1),
    ],
)
def test_what_is_asked_and_not_computed_is_refused(name, value):
    with pytest.raises(ConfigError, match=rf"asks for {name}=.* would not be computed: bertune's own bert"):
        check({**OLD_TRANSFORMERS, name: value})


@pytest.mark.parametrize(
    "name",
    ["embedding_strategy", "sentence_embedding_dimension", "teacher_num_layers", "max_grad_norm", "loss_scale",
     "normalize_embeddings", "num_layers_to_freeze", "head_dropout", "mask_token", "query_prefix"],
)  # fmt: skip
def test_settings_of_training_and_pooling_are_noted_alone(name):
    (note,) = [*check({**OLD_TRANSFORMERS, name: 3}), *([name] if name in HARMLESS else [])]
    assert name in note


def test_unknown_settings_that_speak_of_nothing_are_noted():
    assert check({**OLD_TRANSFORMERS, "my_project": "x", "created": 2020}) == [
        "config.json has settings that nobody here knows, and that are not used: my_project, created"
    ]
    assert check({**OLD_TRANSFORMERS, "my_project": None, "notes": [], "flag": False}) == []


def changed(tiny, folder, **settings):
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


@pytest.mark.parametrize("position", ["relative_key", "relative_key_query", "alibi"])
def test_relative_positions_are_not_trained_as_absolute_ones(tiny, tmp_path, position):
    """transformers 5 has dropped them from BERT, and reads such a folder as if it asked for absolute ones."""
    folder = changed(tiny, tmp_path / "m", position_embedding_type=position)
    with pytest.raises(ConfigError, match=rf"asks for position_embedding_type='{position}'.*'absolute'"):
        load_encoder(folder)


@pytest.mark.parametrize("kind", ["albert", "mpnet", "deberta-v2"])
def test_the_same_for_encoders_of_transformers(encoder_of, tmp_path, kind):
    folder = changed(encoder_of(kind), tmp_path / "m", position_embedding_type="alibi")
    with pytest.raises(ConfigError, match=f"asks for position_embedding_type='alibi'.*transformers' {kind}"):
        load_encoder(folder)
    folder = changed(encoder_of(kind), tmp_path / "n", ffn_gating="swiglu")
    with pytest.raises(ConfigError, match="asks for ffn_gating='swiglu'"):
        load_encoder(folder)
    folder = changed(encoder_of(kind), tmp_path / "o", position_embedding_type="absolute", my_project="x")
    assert load_encoder(folder)[1].notes == [
        "config.json has settings that nobody here knows, and that are not used: my_project"
    ]


@pytest.mark.parametrize("activation", ["geglu", "Gelu", "gelu-new", 3, {"name": "gelu"}])
def test_an_activation_that_nobody_computes(tiny, tmp_path, activation):
    with pytest.raises(
        ConfigError, match=r"hidden_act=.*, an activation that nobody here computes; known: .*gelu_new"
    ):
        load_encoder(changed(tiny, tmp_path / "m", hidden_act=activation))


def test_an_activation_of_transformers_is_computed_by_transformers(tiny, tmp_path):
    encoder, _ = load_encoder(changed(tiny, tmp_path / "m", hidden_act="quick_gelu"))
    assert type(encoder).__name__ == "AutoEncoder"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer_norm_eps", "1e-12"),
        ("num_hidden_layers", True),
        ("hidden_size", 32.5),
        ("hidden_dropout_prob", [0.1]),
    ],
)
def test_a_setting_of_another_type(tiny, tmp_path, name, value):
    with pytest.raises(ConfigError, match=rf"config\.json says {name}=.*, which must be a (whole )?number"):
        load_encoder(changed(tiny, tmp_path / "m", **{name: value}))


def test_quantized_weights(tiny, tmp_path):
    with pytest.raises(ConfigError, match="its weights are quantized"):
        load_encoder(changed(tiny, tmp_path / "m", quantization_config={"quant_method": "bitsandbytes"}))


MODERNBERT = {
    "model_type": "modernbert", "position_embedding_type": "absolute", "attention_bias": False,
    "classifier_pooling": "mean", "decoder_bias": True, "deterministic_flash_attn": False,
    "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "hidden_activation": "gelu",
    "initializer_cutoff_factor": 2.0, "layer_norm_eps": 1e-5, "local_attention": 128, "mlp_bias": False,
    "local_rope_theta": 10000.0, "norm_bias": False, "norm_eps": 1e-5, "repad_logits_with_grad": False,
    "sparse_pred_ignore_index": -100, "sparse_prediction": False, "reference_compile": True,
}  # fmt: skip
ALBERT = {
    "model_type": "albert", "classifier_dropout_prob": 0.1, "down_scale_factor": 1, "embedding_size": 128,
    "gap_size": 0, "hidden_act": "gelu_new", "inner_group_num": 1, "layers_to_keep": [], "net_structure_type": 0,
    "num_hidden_groups": 1, "num_memory_blocks": 0, "position_embedding_type": "absolute",
}  # fmt: skip
DEBERTA = {
    "model_type": "deberta-v2", "relative_attention": True, "position_buckets": 256, "pooler_dropout": 0,
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p", "pooler_hidden_act": "gelu",
    "max_relative_positions": -1, "position_biased_input": False, "conv_kernel_size": 3, "conv_act": "gelu",
}  # fmt: skip
LONGFORMER = {
    "model_type": "longformer", "attention_mode": "longformer", "attention_window": [64, 64],
    "num_hidden_layers": 2, "ignore_attention_mask": False, "onnx_export": False, "sep_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize("config", [MODERNBERT, ALBERT, DEBERTA, LONGFORMER], ids=lambda c: c["model_type"])
def test_settings_of_usual_checkpoints_of_transformers_are_known(config):
    from transformers import AutoConfig

    read = settings_read_by(AutoConfig.for_model(**config))
    assert check_settings(config, read, "transformers'") == []
    with pytest.raises(ConfigError, match="num_experts_here=8"):
        check_settings({**config, "num_experts_here": 8}, read, "transformers'")
