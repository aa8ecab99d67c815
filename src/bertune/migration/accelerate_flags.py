"""Every flag of run_base.py (NLPer-Arsenal) and of tnews.py (ChineseBert_pytorch)."""

from __future__ import annotations

from bertune.migration.bertorch_flags import SCHEDULES
from bertune.migration.flag import command, missing, needless, setting

_RATES = ("train.learning_rate", "train.head_learning_rate")
_PADDING = needless("pad_to_max_length", False, "batches have no padding here")
_SCHEDULE = setting("lr_scheduler_type", "linear", "train.schedule", "the same six", choices=SCHEDULES)
_STEPS = setting("max_train_steps", None, "train.max_steps", "instead of the epochs, in both", kind="int")
_ACCUMULATION = setting(
    "gradient_accumulation_steps", 1, ("train.batch_size", "train.micro_batches"),
    "multiplies the batch there; here the batch is given whole, and cut",
)  # fmt: skip
_WARMUP = setting("num_warmup_steps", 0, "train.warmup_steps", "")
_EVAL_BATCH = "the number of tokens of a batch decides"

RUN_BASE = (
    command("do_train", False, "bertune train", "at least one of both, there"),
    command(
        "do_predict", False, "bertune predict", "after training with the best model, there with the last",
    ),
    setting("train_file", None, "data.train", "csv and JSON lines there; more formats here"),
    setting(
        "validation_file", None, ("data.dev", "data.dev_fraction"),
        "without it there: an error; here a tenth of the training rows",
    ),
    command("test_file", None, "bertune predict OUT FILE", "with labels also `bertune evaluate OUT FILE`"),
    setting(
        "sentence1_key", None, "data.columns",
        "{text: NAME}; sequence1, sentence1 and other names are recognised; run_base takes the first two "
        "columns that are not the label, an id too",
    ),
    setting("sentence2_key", None, "data.columns", "{text_b: NAME}"),
    setting("label_key", "label", "data.columns", "{label: NAME}"),
    setting(
        "num_labels", None, "task",
        "1: the task is regress. Otherwise not needed: the saved folder knows its labels", kind="int",
    ),
    needless(
        "cache_dir", "../../data/cache_dir", "files are read as they are; large ones: `bertune cache list`",
    ),
    setting("max_length", 128, "data.max_length", ""),
    _PADDING,
    setting("model_name_or_path", None, "model", "to train; predictions need the folder of the run alone"),
    missing("use_slow_tokenizer", False, "tokenizers are the fast ones, with the same ids"),
    setting("per_device_train_batch_size", 8, "train.batch_size", "x processes x accumulation"),
    needless("per_device_eval_batch_size", 8, _EVAL_BATCH),
    setting("learning_rate", 5e-5, _RATES, "encoder and head have one rate there"),
    setting("weight_decay", 0.0, "train.weight_decay", "not for biases and norms, in both"),
    setting("num_train_epochs", 3, "train.epochs", ""),
    _STEPS,
    _ACCUMULATION,
    _SCHEDULE,
    _WARMUP,
    setting("output_dir", "../../data/outputs/clf", "out", "OUT is the folder of the model itself"),
    setting("model_checkpoint", None, "out", "the folder of the model inside output_dir"),
    setting("seed", None, "seed", "without it every run differs there", kind="int"),
    setting(
        "checkpointing_steps", None, ("train.checkpoint_every", "train.keep_checkpoints"),
        "epoch or a number of steps; run_base refuses numbers, and keeps all checkpoints; here the newest "
        "are kept until the run ends",
        default_text="never",
    ),
    command("resume_from_checkpoint", None, "--resume", "the newest complete checkpoint of OUT, bit for bit"),
    setting("with_tracking", False, "log.trackers", ""),
    setting(
        "report_to", "tensorboard", "log.trackers", "with --with_tracking",
        choices=("tensorboard", "wandb", "comet_ml", "all"),
    ),
    needless("ignore_mismatched_sizes", False, "a head of another form begins anew, and that is said"),
)  # fmt: skip

TNEWS = (
    setting("task_name", "tnews", ("data.train", "data.dev"), "the only one", choices=("tnews",)),
    setting("train_file", None, "data.train", "tnews.py ignores it, since --task_name has a default"),
    setting("validation_file", None, "data.dev", "tnews.py ignores it, since --task_name has a default"),
    setting("max_length", 128, "data.max_length", ""),
    _PADDING,
    setting("model_name_or_path", "junnyu/ChineseBERT-base", "model", "or a folder of ChineseBERT"),
    setting("per_device_train_batch_size", 32, "train.batch_size", "x processes x accumulation"),
    needless("per_device_eval_batch_size", 32, _EVAL_BATCH),
    setting("learning_rate", 3e-5, _RATES, "encoder and head have one rate there"),
    setting("weight_decay", 0.02, "train.weight_decay", "not for biases and norms, in both"),
    setting("num_train_epochs", 3, "train.epochs", ""),
    _STEPS,
    _ACCUMULATION,
    _SCHEDULE,
    _WARMUP,
    setting("output_dir", None, "out", "without it nothing is saved there"),
    setting("seed", 42, "seed", ""),
)
