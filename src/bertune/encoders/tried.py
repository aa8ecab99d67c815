"""Types of transformers' models that run; `scripts/encoder_table.py --write` wrote this."""

from __future__ import annotations

TRIED: frozenset[str] = frozenset({
    "afmoe", "albert", "apertus", "arcee", "aria_text", "axk2", "bailing_hybrid", "beam", "bert",
    "bert-generation", "big_bird", "biogpt", "bitnet", "bloom", "camembert", "clip_text_model",
    "codegen", "cohere", "cohere2", "cohere2_moe", "convbert", "cpmant", "ctrl", "cwm", "data2vec-text",
    "deberta", "deberta-v2", "deepseek_v2", "deepseek_v3", "deepseek_v4", "diffllama", "distilbert",
    "doge", "dots3_note_text", "electra", "embedding_gemma2_text", "ernie", "ernie4_5", "ernie4_5_moe",
    "esm", "esmc", "eurobert", "exaone4", "exaone_moe", "falcon", "falcon_h1", "falcon_mamba",
    "flaubert", "flex_olmo", "flint", "fnet", "funnel", "gemma", "gemma2", "gemma3_text",
    "gemma4_unified_text", "glm", "glm4", "glm4_moe", "glm4_moe_lite", "glm5_next_text", "gpt-sw3",
    "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gpt_oss", "gptj", "granite",
    "granite_docling_text", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoeshared", "gte",
    "helium", "hrm_text", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "hy_v4", "hyperclovax",
    "ibert", "imagegpt", "inkling2_text", "inkling_text", "internlm3", "iquestcoder", "jais2", "jamba",
    "jetmoe", "jina_embeddings_v3", "kimi_linear", "kolibri1", "laguna", "layoutlm", "layoutlmv3",
    "lfm2", "lfm3", "lilt", "llama", "llama4_text", "longformer", "luke", "mamba", "mamba2", "markuplm",
    "megatron-bert", "mellum", "minicpm3", "minimax", "minimax_m2", "minimax_m3_vl_text", "ministral",
    "ministral3", "mistral", "mistral4", "mistral_large4_text", "mixtral", "mobilebert", "modernbert",
    "modernbert-decoder", "molmo2_text", "moshi", "mpnet", "mpt", "mra", "muse_glimmer_text",
    "muse_spark_text", "nanochat", "nemotron", "nemotron_h", "nomic_bert", "nystromformer", "olmo",
    "olmo2", "olmo3", "olmo_hybrid", "olmoe", "openai-gpt", "openai_privacy_filter", "opt", "persimmon",
    "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_moe_text", "qwen3_5_text",
    "qwen3_moe", "qwen3_next", "qwen3_vl_moe_text", "qwen3_vl_text", "qwen4_exp_text",
    "recurrent_gemma", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "rwkv",
    "seed_oss", "smollm3", "solar_open", "splinter", "squeezebert", "stablelm", "starcoder2", "tapas",
    "tipsv2_text_model", "ultrabert", "vaultgemma", "visual_bert", "xglm", "xlm", "xlm-roberta",
    "xlm-roberta-xl", "xlnet", "xlstm", "xmod", "yoso", "youtu",
})  # fmt: skip
"""Loaded, compared with transformers, trained and saved by that script, with random weights."""

FP32_ALONE: frozenset[str] = frozenset({
    "big_bird", "deberta", "xmod",
})  # fmt: skip
"""Those of them that transformers cannot compute in bf16."""
