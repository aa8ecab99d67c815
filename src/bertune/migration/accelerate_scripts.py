"""Commands of run_base.py and tnews.py, which train in a loop of their own with accelerate, as runs."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from bertune.errors import ConfigError
from bertune.files import expand_user
from bertune.migration.job import Job

_PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16", "fp8": "bf16"}
_PEEKED_ROWS = 1000


def run_base(job: Job) -> None:
    """`run_base.py`: train, predict, or both."""
    values = job.values
    if not (values["do_train"] or values["do_predict"]):
        raise ConfigError("run_base.py: --do_train or --do_predict must be given, as run_base.py asks for it")
    if values["do_predict"] and values["test_file"] is None:
        raise ConfigError("run_base.py: --do_predict needs --test_file")
    if values["do_train"]:
        _train_classifier(job)
        job.train_command(*["--resume"] * values.has("resume_from_checkpoint"))
    if values["do_predict"]:
        output = f"{values['output_dir'].rstrip('/')}/predictions.json"
        job.predict_command(_model_folder(job), values["test_file"], output)
        job.sheet.note(
            "predictions.json: JSON lines with every column, the label and its probabilities; there a list "
            "of labels; where the file has labels, `bertune evaluate` scores them"
        )
    if values.has("num_labels") and values["num_labels"] != 1:
        job.sheet.note("--num_labels: not needed: the folder of the model knows its labels")


def _train_classifier(job: Job) -> None:
    values, sheet = job.values, job.sheet
    absent = [f"--{name}" for name in ("train_file", "model_name_or_path") if values[name] is None]
    if absent:
        raise ConfigError(f"run_base.py: {', '.join(absent)} must be given with --do_train")
    columns = _columns(job)
    sheet.put("task", _task(job, columns))
    job.copy("model_name_or_path")
    sheet.put("out", _model_folder(job))
    if values["seed"] is None:
        sheet.note("no --seed: every run differs there; here the seed is 42")
    job.copy("seed")
    job.copy("train_file")
    job.copy("validation_file")
    if columns:
        sheet.put("data.columns", columns)
    job.copy("max_length")
    put_training(job)
    _put_checkpoints(job)
    if values["with_tracking"]:
        names = (
            ["tensorboard", "wandb", "comet_ml"] if values["report_to"] == "all" else [values["report_to"]]
        )
        sheet.put("log.trackers", names)
    elif values.has("report_to"):
        sheet.note("--report_to: without effect, since --with_tracking is not given")
    if values.has("resume_from_checkpoint"):
        sheet.note(
            "--resume_from_checkpoint: --resume continues from the newest checkpoint of out, if bertune has "
            "written one there, and begins otherwise; a checkpoint of run_base.py cannot be read"
        )
    job.differences += [
        "run_base.py keeps the last epoch, bertune the best one, and the last in OUT/last;",
        "train.eval_every=end keeps the last one as the result.",
    ]


def put_training(job: Job) -> None:
    """Put down what scripts without Trainer share: steps, rates, AdamW, no clipping."""
    values, sheet = job.values, job.sheet
    job.copy("num_train_epochs")
    job.copy("max_train_steps")
    job.put_batch(values["per_device_train_batch_size"], values["gradient_accumulation_steps"])
    job.put_rates(values["learning_rate"])
    job.copy("lr_scheduler_type")
    job.copy("num_warmup_steps")
    job.copy("weight_decay")
    sheet.put("train.max_grad_norm", 0.0, "nothing is clipped there; 1.0 is the default here")
    precision = _PRECISIONS.get(job.launch.mixed_precision)
    if precision is None:
        allowed = ", ".join(_PRECISIONS)
        raise ConfigError(f"--mixed_precision: {job.launch.mixed_precision!r} is none of {allowed}")
    sheet.put("train.precision", precision, "needs a CUDA GPU" if precision == "fp16" else "")
    if job.launch.mixed_precision == "fp8":
        sheet.note("--mixed_precision fp8: not available; bf16 is computed")
    sheet.put("train.eval_every", "epoch")


def _put_checkpoints(job: Job) -> None:
    every = job.values["checkpointing_steps"]
    if every is not None and every != "epoch" and not str(every).isdigit():
        raise ConfigError(f"--checkpointing_steps: {every!r} is neither epoch nor a number of steps")
    written = "never" if every is None else every if every == "epoch" else int(every)
    job.sheet.put("train.checkpoint_every", written)


def _model_folder(job: Job) -> str:
    folder, inside = job.values["output_dir"], job.values["model_checkpoint"]
    return folder if inside is None else f"{folder.rstrip('/')}/{inside}"


def _columns(job: Job) -> dict[str, str]:
    """Return the columns of the fields; empty where their names are recognised."""
    values = job.values
    first, second, label = values["sentence1_key"], values["sentence2_key"], values["label_key"]
    if first is None and second is None and label == "label":
        return {}
    if first is None:
        texts = [
            name for row in _peek(values["train_file"])[:1] for name in row if name not in {label, second}
        ]
        if not texts:
            raise ConfigError(
                "run_base.py: add --sentence1_key NAME, and --sentence2_key NAME for pairs: beside "
                f"--label_key {label} the columns of the texts must be named, and "
                f"{values['train_file']} is not here to look"
            )
        first, second = texts[0], second or (texts[1] if len(texts) > 1 else None)
    return {"text": first, **({"text_b": second} if second else {}), "label": label}


def _task(job: Job, columns: dict[str, str]) -> str:
    """Return classify or regress, as run_base.py tells from the type of the labels."""
    values = job.values
    if values["num_labels"] == 1:
        return "regress"
    rows = _peek(values["train_file"])
    if not rows:
        job.sheet.note(
            "task: classify; run_base.py takes labels with a decimal point for numbers: if yours are, write "
            "task: regress"
        )
        return "classify"
    label = columns.get("label", "label")
    return "regress" if any(_is_decimal(row.get(label)) for row in rows) else "classify"


def _is_decimal(value: Any) -> bool:
    if isinstance(value, str):
        try:
            return not value.lstrip("+-").isdigit() and float(value) == float(value)
        except ValueError:
            return False
    return isinstance(value, float)


def _peek(file: str) -> list[dict[str, Any]]:
    """Return the first rows of a csv or JSON file; none where it is not here or is neither."""
    path = Path(expand_user(file))
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix.lower() == ".csv":
                return list(itertools.islice(csv.DictReader(lines), _PEEKED_ROWS))
            rows = [json.loads(line) for line in itertools.islice(lines, _PEEKED_ROWS) if line.strip()]
            return [row for row in rows if isinstance(row, dict)]
    except (OSError, ValueError, csv.Error):
        return []


def tnews(job: Job) -> None:
    """`tnews.py`: ChineseBERT on TNEWS."""
    values, sheet = job.values, job.sheet
    sheet.put("task", "classify")
    job.copy("model_name_or_path")
    job.copy("output_dir")
    job.copy("seed")
    files = [name for name in ("train_file", "validation_file") if values.has(name)]
    sheet.put("data.train", values["train_file"] or "hub:clue/tnews:train")
    if values["validation_file"] or not files:
        sheet.put("data.dev", values["validation_file"] or "hub:clue/tnews:validation")
    if files:
        sheet.note(
            f"--{', --'.join(files)}: tnews.py ignores it, since --task_name has a default; here it is read"
        )
    if not files or any(PurePosixPath(values[name]).suffix == ".json" for name in files):
        sheet.put("data.columns", {"text": "sentence", "label": "label"})
    job.copy("max_length")
    put_training(job)
    sheet.put("train.adam_epsilon", 1e-6, "transformers.AdamW, which it uses")
    sheet.put("train.glyphs", "trained", "as there; frozen saves the moments of 40 million pixels")
    job.differences.append("tnews.py keeps the last epoch, bertune the best one, and the last in OUT/last.")
    job.train_command()


CONVERT: dict[str, Callable[[Job], None]] = {"run_base.py": run_base, "tnews.py": tnews}
