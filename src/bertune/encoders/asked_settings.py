"""What config.json asks for and would not be computed: refused, so that no setting is ignored silently.

A setting is one of four: the encoder reads it; it says nothing of the numbers (`HARMLESS`); it is known, and
the encoder computes one value of it (`ONLY_VALUES`); or nobody here knows it. The last kind is refused
where its name speaks of the computation, and else named in a note. Loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bertune.errors import ConfigError
from bertune.types import JSON

HARMLESS = frozenset(
    """
    _name_or_path name_or_path name model_type model_name architectures transformers_version torch_dtype
    dtype auto_map custom_pipelines id2label label2id num_labels _num_labels label_names problem_type
    finetuning_task task task_name task_specific_params tokenizer_class prefix language languages lang
    license tags return_dict use_return_dict output_attentions output_hidden_states output_past
    output_scores return_dict_in_generate use_cache gradient_checkpointing torchscript use_bfloat16
    tf_legacy_loss xla_device tie_word_embeddings tie_weights_ tie_encoder_decoder
    cross_attention_hidden_size chunk_size_feed_forward bos_token_id eos_token_id pad_token_id sep_token_id
    cls_token_id mask_token_id unk_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
    ignore_index pad_idx max_length min_length do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    initializer_range initializer_factor initializer_cutoff_factor classifier_dropout
    classifier_dropout_prob classifier_activation classifier_pooling classifier_bias cls_dropout
    seq_classif_dropout qa_dropout summary_type summary_use_proj summary_activation summary_last_dropout
    summary_first_dropout summary_proj_to_labels pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooler_type pooler_hidden_size pooler_hidden_act
    pooler_dropout pooler_activation emb_pooler pooling pooling_mode sinusoidal_pos_embds generator_size
    generator_hidden_size attn_implementation _attn_implementation _attn_implementation_autoset
    _attn_implementation_internal use_flash_attn use_flash_attention use_flash_attention_2 use_sdpa
    use_memory_efficient_attention use_xformers fused_dropout_add_ln fused_bias_fc unpad_inputs
    deterministic_flash_attn reference_compile sentence_transformers matryoshka_dimensions max_seq_length
    model_max_length max_len do_lower_case seed lm_head_bias mlm_probability mlm_mask_prob _commit_hash
    n_ctx net_structure_type pre_trained cell structure training onnx_export untie_r max_vocab same_enc_dec
    share_inout_emb bert_model_name mask_token bos_token eos_token pad_token cls_token sep_token unk_token
    clf_pooling sbert_ce_default_activation_function uniem_embedding_strategy
    _experts_implementation
    """.split()  # noqa: SIM905  (a list of strings would take a hundred lines)
)
"""Settings that say nothing of the numbers: of training, of heads, of generation, of other programs."""
ONLY_VALUES: Mapping[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "directionality": ("bidi",),
    "feed_forward_type": ("original",),
    "attention_type": ("original_full", "full", "bidirectional", "softmax"),
    "is_causal": (False,),
    "norm_type": ("layer_norm", "layernorm", "LayerNorm"),
    "layer_norm_type": ("layer_norm", "layernorm", "LayerNorm"),
    "mask_type": ("bidirectional",),
    "down_scale_factor": (1,),
    "attention_mode": ("longformer", "sliding_chunks"),
}
"""Settings of many encoders, and the values with which BERT and its relatives compute what they do."""
_COMPUTING_WORDS = re.compile(
    r"position|rotary|rope|alibi|relative|att(ention|n)|norm|(^|_)act(ivation)?(_|$)|gelu|glu|bias"
    r"|embed[a-z]*_(size|dim|norm|scal|type)|feed_?forward|ffn|(^|_)ff(_|$)"
    r"|mlp|hidden|layer|residual|expert|moe(_|$)|router|window"
    r"|scal(e|ing)|kernel|conv|causal|(^|_)mask|lora|(^|_)rank|factor|quant|sparse|prun|bucket|(^|_)eps|gate"
    r"|adapter|width|depth|dilat|stride|group|mixer|recur|memory|heads|head_(dim|size|scale)|direction"
    r"|decoder|chunk"
)
_OF_TRAINING = re.compile(
    r"drop|init|loss|label|token|learning|epoch|batch|warmup|train|optim|freez|grad|group_by|classif|pool"
    r"|normaliz|mlm|lm_head|seed|strategy|sentence|teacher|student|distil|prompt|query|passage"
)
"""Words of settings of training, of heads and of pooling, whatever else their name says."""
_HAS_PART = re.compile(
    r"bias|^(use|has|add|with)_.*(position|absolute|token_type|segment|norm|residual|scale)"
)
"""Names of switches for parts that BERT has: here it is "off" that would be ignored."""
_WIDTHS = {"embedding_size", "emb_size", "embedding_dim", "embedding_dimension", "hidden_dim", "d_model"}
"""Other names of hidden_size: harmless where they say the same."""
_SHOWN = 60


def check_settings(config: JSON, read: Collection[str], computed: str) -> list[str]:
    """Look for settings that would be ignored.

    Args:
        config: config.json.
        read: the settings that the encoder reads.
        computed: what the encoder is, for the message.

    Returns:
        Notes for the user: unknown settings whose names say nothing of the computation.

    Raises:
        ConfigError: a setting asks for something that would not be computed.
    """
    asked = [name for name, value in config.items() if _is_ignored(name, value, config, read)]
    refused = [name for name in asked if name in ONLY_VALUES or _speaks_of_computing(name)]
    if refused:
        raise ConfigError(
            f"model: config.json asks for {', '.join(_shown(name, config[name]) for name in refused)}, which "
            f"would not be computed: {_instead(refused, computed)}; give another encoder"
            f"{_way_out(refused)}"
        )
    if not asked:
        return []
    return [f"config.json has settings that nobody here knows, and that are not used: {', '.join(asked)}"]


def check_numbers(config: JSON, defaults: Mapping[str, Any]) -> None:
    """Refuse settings of another type than their default: "12" or true where a number must stand.

    Raises:
        ConfigError: a setting has another type.
    """
    for name, default in defaults.items():
        value = config.get(name)
        if value is None or isinstance(default, bool) or not isinstance(default, int | float):
            continue
        wanted = int if isinstance(default, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            kind = "whole number" if wanted is int else "number"
            raise ConfigError(f"model: config.json says {_shown(name, value)}, which must be a {kind}")


def known_settings(sources: Iterable[str]) -> frozenset[str]:
    """Return every word of Python sources: a setting whose name is none of them cannot have been read."""
    return frozenset(word for source in sources for word in re.findall(r"\w+", source))


def _is_ignored(name: str, value: Any, config: JSON, read: Collection[str]) -> bool:
    if name in read or name in HARMLESS or name.startswith("_") or _is_empty(value):
        return False
    if name in ONLY_VALUES:
        return value not in ONLY_VALUES[name]
    if name in {"head_dim", "attention_head_size", "size_per_head"}:
        return bool(_product(value, config.get("num_attention_heads")) != config.get("hidden_size"))
    if name in _WIDTHS:
        return bool(value != config.get("hidden_size"))
    if _is_another_name(name, value, config, read):
        return False
    if _HAS_PART.search(name) and isinstance(value, bool):
        return not value
    return not (value is False or (value == 0 and not isinstance(value, str)))


def _is_another_name(name: str, value: Any, config: JSON, read: Collection[str]) -> bool:
    """Tell whether a setting repeats one that is read: ModernBERT's layer_norm_eps is its norm_eps."""
    return not isinstance(value, bool) and any(
        other in read and config[other] == value and (name.endswith(other) or other.endswith(name))
        for other in config
        if other != name
    )


def _is_empty(value: Any) -> bool:
    """Tell whether a value says nothing: null, "", [], {}, or an object of such values."""
    if isinstance(value, dict):
        return all(_is_empty(inner) for inner in value.values())
    return value is None or value == "" or value == []


def _product(a: Any, b: Any) -> Any:
    return a * b if isinstance(a, int) and isinstance(b, int) else None


def _speaks_of_computing(name: str) -> bool:
    lowered = name.lower()
    if _HAS_PART.search(lowered):
        return True
    return _COMPUTING_WORDS.search(lowered) is not None and _OF_TRAINING.search(lowered) is None


def _shown(name: str, value: Any) -> str:
    text = repr(value)
    return f"{name}={text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


def _instead(names: list[str], computed: str) -> str:
    values = {name: ONLY_VALUES[name][0] for name in names if name in ONLY_VALUES}
    given = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"{computed} would be run" + (f", with {given}" if given else ", which has no such setting")


def _way_out(names: list[str]) -> str:
    unknown = [name for name in names if name not in ONLY_VALUES]
    if not unknown:
        return ""
    return f", or take {', '.join(unknown)} out of config.json if it changes nothing"
