"""Every flag of transformers' run_glue.py, run_ner.py and run_mlm.py beside TrainingArguments."""

from __future__ import annotations

from bertune.migration.flag import Flag, command, missing, needless, setting
from bertune.migration.training_arguments import FIELDS

_MODEL: tuple[Flag, ...] = (
    setting("model_name_or_path", None, "model", "a folder or a Hub id", required=True),
    missing("config_name", None, "the folder of the model has its configuration"),
    missing("tokenizer_name", None, "the folder of the model has its tokenizer"),
    needless("cache_dir", None, "HF_HOME, as in huggingface_hub"),
    missing("model_revision", "main", "download the revision, and give its folder"),
    needless("token", None, "HF_TOKEN, as in huggingface_hub"),
    needless("use_auth_token", None, "HF_TOKEN, as in huggingface_hub", kind="bool", version="v4"),
    setting("trust_remote_code", False, "model_code", "trusted", kind="bool"),
    needless(
        "ignore_mismatched_sizes", False, "a head of another form begins anew, and that is said", kind="bool"
    ),
)
_DATA: tuple[Flag, ...] = (
    setting("dataset_name", None, "data.train", "hub:NAME"),
    setting("dataset_config_name", None, "data.train", "hub:NAME/CONFIG"),
    setting("train_file", None, "data.train", "csv and JSON lines there; more formats here"),
    setting(
        "validation_file", None, ("data.dev", "data.dev_fraction"), "without it dev_fraction is 0, as there"
    ),
    command("test_file", None, "bertune predict OUT FILE", "with --do_predict"),
    needless("overwrite_cache", False, "a cache is used only for the same files and settings", kind="bool"),
    needless("preprocessing_num_workers", None, "data.workers=auto: one for each core", kind="int"),
    setting(
        "max_train_samples", None, "data.limit", "drawn by label and seed; there the first rows", kind="int"
    ),
    missing("max_eval_samples", None, "all dev rows are scored; give a shorter file", kind="int"),
    missing("max_predict_samples", None, "all rows are predicted; give a shorter file", kind="int"),
)

GLUE: tuple[Flag, ...] = (
    *_MODEL,
    needless("use_fast_tokenizer", True, "tokenizers are the fast ones", kind="bool"),
    setting(
        "task_name", None, ("task", "data.train", "data.dev", "data.labels", "options.metric"),
        "the set glue:NAME: `bertune train glue:NAME` reads the same",
        choices=("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli", "mnli-mm"),
    ),
    *_DATA,
    setting("max_seq_length", 128, "data.max_length", ""),
    needless(
        "pad_to_max_length", True,
        "batches have no padding here; there every row costs 128 tokens", kind="bool",
    ),
    *FIELDS,
)  # fmt: skip
NER: tuple[Flag, ...] = (
    *_MODEL,
    setting(
        "task_name", "ner", "data.columns", "the column of tags is NAME_tags", choices=("ner", "pos", "chunk")
    ),
    *_DATA,
    setting("text_column_name", None, "data.columns", "{text: NAME}; tokens and words are recognised"),
    setting(
        "label_column_name", None, "data.columns", "{label: NAME}; tags, ner_tags and labels are recognised"
    ),
    setting(
        "max_seq_length", None, "data.max_length", "longer texts are read in windows, there cut", kind="int"
    ),
    needless("pad_to_max_length", False, "batches have no padding here", kind="bool"),
    missing("label_all_tokens", False, "a word has one tag, at its first token", kind="bool"),
    needless("return_entity_level_metrics", False, "scores.json has each type", kind="bool"),
    *FIELDS,
)
MLM: tuple[Flag, ...] = (
    setting("model_name_or_path", None, "model", "a folder or a Hub id; without it model: new"),
    setting(
        "model_type", None, ("model", "options.new"),
        "of a model from nothing: bert, and roberta, xlm-roberta and camembert as a bert",
    ),
    setting(
        "config_overrides", None, "options.new",
        "num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, max_position_embeddings, "
        "vocab_size",
    ),
    missing("config_name", None, "options.new has the sizes of a new encoder; a pretrained folder its own"),
    missing(
        "tokenizer_name", None,
        "a pretrained folder has its tokenizer; for model: new one is trained on the training rows",
    ),
    needless("cache_dir", None, "HF_HOME, as in huggingface_hub"),
    needless("use_fast_tokenizer", True, "tokenizers are the fast ones", kind="bool"),
    missing("model_revision", "main", "download the revision, and give its folder"),
    needless("token", None, "HF_TOKEN, as in huggingface_hub"),
    needless("use_auth_token", None, "HF_TOKEN, as in huggingface_hub", kind="bool", version="v4"),
    setting("trust_remote_code", False, "model_code", "trusted", kind="bool"),
    missing("dtype", None, "weights are fp32; train.precision says what is computed in bf16"),
    missing("torch_dtype", None, "now dtype", version="v4"),
    needless("low_cpu_mem_usage", False, "weights are read once, mapped", kind="bool", version="v4"),
    setting("dataset_name", None, ("data.train", "data.dev"), "hub:NAME"),
    setting("dataset_config_name", None, ("data.train", "data.dev"), "hub:NAME/CONFIG"),
    setting("train_file", None, ("data.train", "data.format"), "txt, a text a line; csv and JSON; more here"),
    setting("validation_file", None, "data.dev"),
    setting(
        "validation_split_percentage", 5, "data.dev_fraction",
        "a fraction, where there is no validation file; drawn by the seed, there the first rows",
    ),
    needless("overwrite_cache", False, "a cache is used only for the same files and settings", kind="bool"),
    needless("preprocessing_num_workers", None, "data.workers=auto: one for each core", kind="int"),
    setting(
        "max_seq_length", None, "data.max_length",
        "without it the encoder's limit, at most 512; there that of the tokenizer, at most 1024", kind="int",
    ),
    setting("mlm_probability", 0.15, "options.fraction"),
    setting(
        "line_by_line", False, "options.packing",
        "none; without it joined: rows of full length go on from one text to the next, as there", kind="bool",
    ),
    needless("pad_to_max_length", False, "batches have no padding here", kind="bool"),
    needless("streaming", False, "large data are read once, and mapped from disk (data.cache)", kind="bool"),
    setting(
        "max_train_samples", None, "data.limit", "texts, drawn by the seed; there the first full rows",
        kind="int",
    ),
    missing("max_eval_samples", None, "all dev rows are scored; give a shorter file", kind="int"),
)  # fmt: skip

TASK_TO_KEYS = {
    "cola": ("sentence",), "mnli": ("premise", "hypothesis"), "mnli-mm": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"), "qnli": ("question", "sentence"), "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"), "sst2": ("sentence",), "stsb": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}  # fmt: skip
"""The columns of texts of GLUE on the Hub, as run_glue.py names them."""
