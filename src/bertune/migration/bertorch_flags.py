"""Every flag of bertorch's scripts, and what it is here."""

from __future__ import annotations

from bertune.migration.flag import Flag, command, missing, needless, setting

SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
LAUNCHED = command("local_rank", -1, "torchrun", "the launcher sets it; with torch 2 bertorch refuses it")


def _common(epochs: int) -> tuple[Flag, ...]:
    return (
        LAUNCHED,
        setting("pretrained_model_name_or_path", "bert-base-chinese", "model", "a folder or a Hub id"),
        setting(
            "init_from_ckpt", None, "model",
            "the folder of the earlier run, whose encoder and layers are taken over; a file that is missing "
            "is an error, and was ignored there",
        ),
        setting(
            "train_data_file", None, ("data.train", "data.columns"),
            "files have no header, so the columns are named; a line with another number of columns is an "
            "error with file and line, and was skipped there",
            required=True,
        ),
        setting(
            "dev_data_file", None, ("data.dev", "data.dev_fraction"),
            "without it dev_fraction is 0, since bertorch trains on all rows then",
        ),
        setting(
            "batch_size", 32, "train.batch_size",
            "x processes: rows of one GPU there, of all processes together here",
        ),
        setting(
            "scheduler", "linear", "train.schedule", "the same six", choices=SCHEDULES
        ),
        setting(
            "learning_rate", 5e-5, ("train.learning_rate", "train.head_learning_rate"),
            "encoder and head have one rate there",
        ),
        setting("warmup_proportion", 0.0, "train.warmup_ratio", "the same fraction of all steps"),
        setting("seed", 1000, "seed", "also decides the order of rows, which it did not with several GPUs"),
        setting(
            "save_steps", 100, "train.eval_every",
            "the dev set is scored after so many steps, and at the end, which bertorch leaves out: a run of "
            "less than 100 steps saves nothing there",
        ),
        setting(
            "logging_steps", 20, "log.every",
            "the loss is the mean since the line before, there that of one batch",
        ),
        setting("weight_decay", 0.0, "train.weight_decay", "not for biases and norms, in both"),
        setting("epochs", epochs, "train.epochs", ""),
        setting("max_seq_length", 128, "data.max_length", "at most 512 there"),
        setting(
            "saved_dir", "./checkpoint", "out",
            "a folder that opens by itself: labels, tokenizer and settings are inside",
        ),
        setting("max_grad_norm", 1.0, "train.max_grad_norm", ""),
        needless("save_best_model", False, "OUT is always the best model, OUT/last the last one"),
    )  # fmt: skip


POOLING = setting(
    "pooling_mode", "linear", "options.pooling", "linear is pooler here", choices=("linear", "cls", "mean")
)
WIDTH = setting(
    "output_emb_size", None, "options.embedding_dim", "with mean it is applied after the mean, which is "
    "the same",
    kind="int",
)  # fmt: skip
_LABEL_FILE = setting(
    "label_file", None, "data.labels", "one label a line, in the order of ids", required=True
)

CLASSIFIER = (
    *_common(3),
    _LABEL_FILE,
    setting("is_text_pair", False, "data.columns", "[text, text_b, label] instead of [text, label]"),
)
SENTENCEBERT = (
    *_common(3),
    setting(
        "label_file", None, "data.labels",
        "with --is_nli; without it classes are the labels of the training rows, there as here",
    ),
    setting("is_nli", False, "data.labels", "labels are words of --label_file"),
    POOLING,
    setting("concat_multiply", False, "options.concat_product", ""),
    WIDTH,
)  # fmt: skip
SIMCSE = (
    *_common(1),
    setting("margin", 0.2, "options.margin", ""),
    setting("scale", 20, "options.scale", "whole numbers only there"),
    setting("dropout", 0.1, "train.dropout", "of hidden states and attention"),
    POOLING,
    WIDTH,
)
BATCHNEG = (
    *_common(3),
    setting("margin", 0.2, "options.margin", ""),
    setting("scale", 20, "options.scale", "whole numbers only there"),
    POOLING,
    WIDTH,
    setting("mean_loss", False, "options.symmetric", ""),
)
NER = (
    *_common(3),
    _LABEL_FILE,
    setting("tag", "bios", "options.scheme", "files may have any scheme here", choices=("bios", "bio")),
    setting(
        "crf_learning_rate", 5e-5, ("options.crf_learning_rate", "train.head_learning_rate"),
        "with --use_crf, for the CRF and the layer before it; the default here is far higher, since the "
        "scores of a CRF begin at 0",
    ),
    setting("use_crf", False, "options.decoder", "crf instead of linear"),
)  # fmt: skip
PREDICT = (
    missing(
        "pretrained_model_name_or_path", "bert-base-chinese",
        "the folder of the model has its encoder and tokenizer; to predict with an encoder alone, give its "
        "folder as MODEL of `bertune predict` or `bertune embed`",
    ),
    command("input_file", None, "FILE", "lines of two columns, and no header", required=True),
    command("output_file", None, "-o FILE --format csv", "with every column of the input", required=True),
    command("init_from_ckpt", None, "MODEL", "the folder of the run", required=True),
    needless("batch_size", 32, "the number of tokens of a batch decides"),
    needless("max_seq_length", 128, "the folder of the model says it"),
    needless("pooling_mode", "linear", "the folder of the model says it", choices=("linear", "cls", "mean")),
    needless("output_emb_size", None, "the folder of the model says it", kind="int"),
)  # fmt: skip
FLAGS = {
    "run_classifier.py": CLASSIFIER,
    "run_sentencebert.py": SENTENCEBERT,
    "run_simcse.py": SIMCSE,
    "run_batchneg.py": BATCHNEG,
    "run_ner.py": NER,
    "predict.py": PREDICT,
}
