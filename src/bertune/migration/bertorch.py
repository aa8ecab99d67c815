"""Commands of bertorch as runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from bertune.errors import ConfigError
from bertune.migration.job import Job, quoted

SINGLE, PAIR, TEXTS = ["text", "label"], ["text", "text_b", "label"], ["text", "text_b", "label"]
_POOLING = {"linear": "pooler"}


def classifier(job: Job) -> None:
    """`run_classifier.py`: one text or two, and a label."""
    job.sheet.put("task", "classify")
    _common(job, PAIR if job.values["is_text_pair"] else SINGLE)
    job.copy("label_file")
    job.sheet.put("options.pooling", "pooler")
    job.sheet.put("options.dropout", 0.0, "bertorch has no dropout before the head")


def sentencebert(job: Job) -> None:
    """`run_sentencebert.py`: a label of two texts, each read by itself."""
    job.sheet.put("task", "match")
    _common(job, PAIR)
    job.sheet.put("options.loss", "softmax", "labels from [u; v; |u - v|]")
    if job.values["is_nli"]:
        if job.values["label_file"] is None:
            raise ConfigError("run_sentencebert.py: --is_nli needs --label_file, a file with a label a line")
        job.copy("label_file")
    elif job.values["label_file"] is not None:
        job.sheet.note("--label_file: bertorch reads it with --is_nli only; the labels of the rows count")
    _pooling(job)
    if job.values["concat_multiply"]:
        job.copy("concat_multiply")
    rate = job.values["learning_rate"]
    job.sheet.put("options.classifier_learning_rate", rate, "as there; the default here, 1e-3, learns sooner")
    if job.values["weight_decay"]:
        job.differences.append("The layer that predicts labels has no weight decay here.")


def simcse(job: Job) -> None:
    """`run_simcse.py`: texts, each with itself."""
    job.sheet.put("task", "embed")
    _common(job, TEXTS)
    job.sheet.remarks["data.columns"] = "training rows have the first, dev rows all three"
    _in_batch(job)
    job.copy("dropout")


def batchneg(job: Job) -> None:
    """`run_batchneg.py`: pairs that belong together."""
    job.sheet.put("task", "embed")
    _common(job, TEXTS)
    job.sheet.remarks["data.columns"] = "training rows have the first two, dev rows all three"
    _in_batch(job)
    job.sheet.put("options.symmetric", job.values["mean_loss"])


def ner(job: Job) -> None:
    """`run_ner.py`: entities."""
    values, sheet = job.values, job.sheet
    sheet.put("task", "tag")
    _common(job, None)
    job.copy("label_file")
    sheet.put("options.decoder", "crf" if values["use_crf"] else "linear")
    sheet.put("options.scheme", values["tag"].upper())
    sheet.put("options.dropout", 0.0, "bertorch has no dropout before the head")
    if values["use_crf"]:
        rate = values["crf_learning_rate"]
        sheet.put("options.crf_learning_rate", rate, "as there; the default here, 1e-2, learns sooner")
        job.put_rates(values["learning_rate"], rate)
        job.differences.append("The loss of a CRF is divided by words, there by sentences.")
    elif values.has("crf_learning_rate"):
        sheet.note("--crf_learning_rate: without effect, since --use_crf is not given")
    job.differences += [
        "Texts longer than max_length are read in windows; bertorch cuts them, and does not count entities",
        "that it cut. Only legal chains of tags are predicted. A lone B- is an entity.",
    ]


def predict(job: Job) -> None:
    """`predict.py`: the cosine of pairs."""
    values = job.values
    columns = ["data.format=tsv"] * (_is_not_tsv(values["input_file"]))
    job.predict_command(
        _folder(values["init_from_ckpt"]),
        values["input_file"],
        values["output_file"],
        quoted("data.columns=[text,text_b]"),
        *columns,
        *([] if values["output_file"].endswith((".csv", ".jsonl")) else ["--format csv"]),
    )


def _common(job: Job, columns: list[str] | None) -> None:
    """Put down what all scripts for training share, in the order of a run file."""
    values, sheet = job.values, job.sheet
    _put_model(job)
    job.copy("seed")
    job.copy("train_data_file")
    if values["dev_data_file"] is None:
        sheet.put("data.dev_fraction", 0.0, "no dev file: bertorch trains on all rows, and scores none")
    else:
        job.copy("dev_data_file")
    if columns is not None:
        sheet.put("data.columns", columns, "the files have no header")
        if _is_not_tsv(values["train_data_file"]):
            sheet.put("data.format", "tsv", "bertorch reads tabs, whatever the name")
    job.copy("max_seq_length")
    job.copy("epochs")
    if values["dev_data_file"] is None:
        eval_every: str | int = "end"
    else:
        eval_every = values["save_steps"]
    _put_batch(job)
    job.put_rates(values["learning_rate"])
    job.copy("scheduler")
    job.copy("warmup_proportion")
    job.copy("weight_decay")
    sheet.put("train.adam_epsilon", 1e-6)
    job.copy("max_grad_norm")
    sheet.put("train.precision", "fp32", "as there; auto is faster on most GPUs")
    sheet.put("train.eval_every", eval_every, "" if eval_every == "end" else "bertorch's --save_steps")
    job.copy("logging_steps")
    if not values["save_best_model"] and values["dev_data_file"] is not None:
        job.differences.append(
            "Without --save_best_model bertorch keeps the last model: here that is OUT/last."
        )
    job.train_command()


def _put_model(job: Job) -> None:
    """Put down encoder and folder: a second stage begins with the folder of the first, and has its own."""
    start, out = job.values["init_from_ckpt"], job.values["saved_dir"]
    if start is None:
        job.copy("pretrained_model_name_or_path")
        job.sheet.put("out", out)
        return
    folder = _folder(start)
    job.sheet.put("model", folder, "the folder of the run that the checkpoint is from")
    if PurePosixPath(folder) == PurePosixPath(out):
        job.sheet.put("out", f"{out.rstrip('/')}-2", "bertorch overwrites the folder that it began with")
    else:
        job.sheet.put("out", out)
    if job.values.has("pretrained_model_name_or_path"):
        job.sheet.note(
            "--pretrained_model_name_or_path: not needed beside --init_from_ckpt: the folder of the earlier "
            "run has its encoder and tokenizer"
        )
    job.sheet.note(
        f"--init_from_ckpt: model is {folder!r}, a folder that bertune has written; bertorch's own file "
        "needs the config.json of its encoder beside it, and then its encoder alone is read"
    )


def _put_batch(job: Job) -> None:
    if job.launch.processes == 1 and job.launch.visible_gpus > 1 and not job.launch.is_launched:
        job.sheet.note(
            f"started by python alone with {job.launch.visible_gpus} GPUs, bertorch divides its batch among "
            "them (DataParallel); here one GPU computes it; torchrun starts several processes"
        )
    job.put_batch(job.values["batch_size"], what="a GPU")


def _pooling(job: Job) -> None:
    job.copy("pooling_mode", _POOLING)
    job.copy("output_emb_size")
    if job.values["pooling_mode"] != "linear" and job.values["output_emb_size"] is None:
        job.sheet.drop("train.head_learning_rate")  # no layer after pooling learns at it


def _in_batch(job: Job) -> None:
    """Put down the options of losses over a batch."""
    job.copy("margin")
    job.copy("scale")
    _pooling(job)
    job.sheet.put(
        "options.mask_false_negatives", False, "as there; true, the default here, leaves out repeated texts"
    )
    if job.launch.processes > 1:
        rows = job.sheet.values["train.batch_size"]
        job.differences.append(
            f"The negatives are all {rows} rows of a batch; bertorch has those of one GPU."
        )


def _folder(checkpoint: str) -> str:
    """Return the folder of a file of weights.

    >>> _folder("./checkpoint/pytorch_model.bin"), _folder("pytorch_model.bin"), _folder("run")
    ('./checkpoint', '.', 'run')
    """
    if PurePosixPath(checkpoint).suffix not in {".bin", ".pt", ".pth", ".safetensors"}:
        return checkpoint
    return checkpoint.rpartition("/")[0] or "."


def _is_not_tsv(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() not in {".tsv", ".txt"}


CONVERT: dict[str, Callable[[Job], None]] = {
    "run_classifier.py": classifier,
    "run_sentencebert.py": sentencebert,
    "run_simcse.py": simcse,
    "run_batchneg.py": batchneg,
    "run_ner.py": ner,
    "predict.py": predict,
}
