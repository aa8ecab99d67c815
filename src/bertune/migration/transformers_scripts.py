"""Commands of transformers' run_glue.py and run_ner.py as runs; what they share with run_mlm.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from bertune.catalog.sets import find_set, set_settings
from bertune.errors import ConfigError
from bertune.migration.bertorch_flags import SCHEDULES
from bertune.migration.job import Job
from bertune.migration.transformers_flags import TASK_TO_KEYS

METRICS = {
    "accuracy": "accuracy", "f1": "f1", "matthews_correlation": "mcc", "pearson": "pearson",
    "spearmanr": "spearman", "mse": "mse", "overall_f1": "f1",
}  # fmt: skip
"""Names of metrics there and here."""
_ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw_torch_xla")


def run_glue(job: Job) -> None:
    """`run_glue.py`: a task of GLUE, a data set of the Hub, or files."""
    values, sheet = job.values, job.sheet
    if trains(job):
        sheet.put("task", "classify")
        put_start(job)
        if values["task_name"]:
            _put_named_set(job, values["task_name"])
        else:
            _put_files(job)
            sheet.note(
                "task: classify; run_glue.py takes labels with a decimal point for numbers: if yours are, "
                "write task: regress"
            )
        job.copy("max_seq_length")
        put_metric(job, METRICS)
        put_training_arguments(job)
    _add_commands(job)


def run_ner(job: Job) -> None:
    """`run_ner.py`: entities, or another tag of each word."""
    values, sheet = job.values, job.sheet
    if trains(job):
        sheet.put("task", "tag")
        put_start(job)
        _put_files(job)
        tags = values["label_column_name"] or (values.has("task_name") and f"{values['task_name']}_tags")
        if values["text_column_name"] or tags:
            columns = {"text": values["text_column_name"] or "tokens", "label": tags or "ner_tags"}
            sheet.put("data.columns", columns)
        job.copy("max_seq_length")
        if values["task_name"] != "ner":
            sheet.put("options.scheme", "none", "one tag a word")
        put_metric(job, METRICS)
        put_training_arguments(job)
        job.differences.append(
            "Texts longer than max_length are read in windows, and only legal chains of tags are predicted."
        )
    _add_commands(job)


def trains(job: Job) -> bool:
    """Tell whether a command trains; one that neither trains nor evaluates nor predicts is refused."""
    values = job.values
    if not (values["do_train"] or values["do_eval"] or values["do_predict"]):
        script = job.launch.script
        raise ConfigError(
            f"{script}: --do_train, --do_eval or --do_predict must be given; without it {script} does nothing"
        )
    return bool(values["do_train"])


def put_start(job: Job) -> None:
    """Put down model, folder, seed and device."""
    values, sheet = job.values, job.sheet
    job.copy("model_name_or_path")
    job.copy("output_dir")
    job.copy("seed")
    for flag, device in (("use_cpu", "cpu"), ("no_cuda", "cpu"), ("use_mps_device", "mps")):
        if values[flag]:
            sheet.put("device", device)
    if values["trust_remote_code"]:
        sheet.put("model_code", "trusted", "runs Python code of the model's folder: read it first")


def _put_named_set(job: Job, task_name: str) -> None:
    """Put down what a task of GLUE is; the columns are those of the Hub."""
    named_set = find_set(f"glue:{task_name}")
    settings = set_settings(named_set, None, lambda _: None)
    settings["data"]["columns"] = {
        **dict(zip(("text", "text_b"), TASK_TO_KEYS[task_name], strict=False)), "label": "label",
    }  # fmt: skip
    job.sheet.put("task", settings["task"])
    for section in ("data", "options"):
        for name, value in settings[section].items():
            job.sheet.put(f"{section}.{name}", value)
    job.differences.append(
        f"The same data by name, or from a folder: bertune train {named_set.full_name} data.root=DIR"
    )


def _put_files(job: Job) -> None:
    values, sheet = job.values, job.sheet
    if values["dataset_name"]:
        name = "/".join(filter(None, ("hub:" + values["dataset_name"], values["dataset_config_name"])))
        sheet.put("data.train", f"{name}:train")
        sheet.put("data.dev", f"{name}:validation")
    elif values["train_file"] is None:
        raise ConfigError(f"{job.launch.script}: --dataset_name, --train_file, or --task_name must be given")
    elif values["dataset_config_name"]:
        sheet.note("--dataset_config_name: without effect, since --dataset_name is not given")
    for flag in ("train_file", "validation_file"):
        job.copy(flag)
    if "data.dev" not in sheet.values:
        sheet.put("data.dev_fraction", 0.0, "no validation file: it trains on all rows, and scores none")


def put_metric(job: Job, metrics: Mapping[str, str]) -> None:
    """Put down which metric decides, or that it is not available.

    Args:
        job: the command.
        metrics: the script's name of each metric to the one here.
    """
    name = job.values["metric_for_best_model"]
    if name is None:
        return
    known = metrics.get(name.removeprefix("eval_"))
    if known is None:
        job.sheet.note(f"--metric_for_best_model {name}: not available; options.metric names what decides")
    else:
        job.sheet.put("options.metric", known)


def put_training_arguments(job: Job) -> None:
    """Put down what TrainingArguments say about the training."""
    values, sheet = job.values, job.sheet
    job.copy("max_train_samples")
    epochs = values["num_train_epochs"]
    sheet.put("train.epochs", int(epochs) if epochs == int(epochs) else epochs)
    if values["max_steps"] > 0:
        job.copy("max_steps")
    _put_batch(job)
    job.put_rates(values["learning_rate"])
    _put_schedule(job)
    for name in ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"):
        if values.has(name) or name in {"weight_decay", "max_grad_norm"}:
            job.copy(name)
    launched = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}.get(job.launch.mixed_precision, "fp32")
    precision = "bf16" if values["bf16"] else "fp16" if values["fp16"] else launched
    sheet.put("train.precision", precision, "needs a CUDA GPU" if precision == "fp16" else "")
    if values["label_smoothing_factor"] and sheet.values["task"] == "classify":
        job.copy("label_smoothing_factor")
    elif values["label_smoothing_factor"]:
        sheet.note(f"--label_smoothing_factor: not available: task {sheet.values['task']} has no smoothing")
    if values["fsdp"]:
        sheet.put("train.fsdp", True)
    _put_cadence(job)
    _note_optimizer(job)


def _put_batch(job: Job) -> None:
    values = job.values
    launch = job.launch
    rows = values["per_gpu_train_batch_size"] or values["per_device_train_batch_size"]
    what = "a process"
    if not launch.is_launched and launch.visible_gpus > 1:
        rows, what = rows * launch.visible_gpus, f"on {launch.visible_gpus} GPUs"
        job.sheet.note(
            f"started by python alone with {launch.visible_gpus} GPUs, Trainer uses all of them "
            f"(DataParallel): "
            f"{rows} rows a step; here python alone uses one, and torchrun --nproc-per-node "
            f"{launch.visible_gpus} "
            "-m bertune uses all, with the same rows"
        )
    job.put_batch(rows, values["gradient_accumulation_steps"], what)


def _put_schedule(job: Job) -> None:
    values, sheet = job.values, job.sheet
    schedule, warmup = values["lr_scheduler_type"], values["warmup_steps"]
    if schedule in SCHEDULES:
        job.copy("lr_scheduler_type")
    else:
        sheet.note(
            f"--lr_scheduler_type {schedule}: not available; choose train.schedule: {', '.join(SCHEDULES)}"
        )
    if 0 < warmup < 1 or (values["warmup_ratio"] and not warmup):
        sheet.put("train.warmup_ratio", warmup or values["warmup_ratio"])
    else:
        sheet.put("train.warmup_steps", int(warmup))
    more = values["lr_scheduler_kwargs"]
    try:
        more = json.loads(more) if isinstance(more, str) else more or {}
    except ValueError:
        raise ConfigError(
            f"--lr_scheduler_kwargs: {more!r} is not JSON, such as '{{\"num_cycles\": 2}}'"
        ) from None
    for name, path in (("num_cycles", "train.schedule_cycles"), ("power", "train.schedule_power")):
        if name in more:
            sheet.put(path, more[name])


def _put_cadence(job: Job) -> None:
    """Put down when dev rows are scored, checkpoints written and lines printed."""
    values, sheet = job.values, job.sheet
    strategy = values["evaluation_strategy"] if values.has("evaluation_strategy") else values["eval_strategy"]
    if values["evaluate_during_training"]:
        strategy = "steps"
    if strategy == "no" and values.has("eval_steps"):
        sheet.note("--eval_steps: without effect, since --eval_strategy is not steps")
    logging = _steps(job, "logging_steps") if values["logging_strategy"] == "steps" else None
    has_dev_rows = "data.dev" in sheet.values or bool(sheet.values.get("data.dev_fraction"))
    if strategy != "no" and not has_dev_rows:
        sheet.note(f"--eval_strategy {strategy}: without effect, since there is no validation file")
        strategy = "no"
    every = {"no": "end", "epoch": "epoch"}.get(strategy) or _steps(job, "eval_steps") or logging or 500
    sheet.put("train.eval_every", every)
    saves = values["save_strategy"]
    if saves == "best":
        sheet.note(
            "--save_strategy best: OUT is always the best model; checkpoints are written every save_steps"
        )
    sheet.put(
        "train.checkpoint_every", {"no": "never", "epoch": "epoch"}.get(saves) or _steps(job, "save_steps")
    )
    if values["save_total_limit"]:
        job.copy("save_total_limit")
    if logging:
        sheet.put("log.every", logging)
    trackers = (
        [name for name in values["report_to"] if name not in {"none", "all"}]
        if values.has("report_to")
        else []
    )
    if trackers:
        sheet.put("log.trackers", trackers)
    if not has_dev_rows:
        return
    if every == "end":
        job.differences.append("The dev rows choose nothing, and the last model is kept, as there.")
    elif not values["load_best_model_at_end"]:
        job.differences.append(
            "Without --load_best_model_at_end the last model is kept there: here OUT/last."
        )


def _steps(job: Job, flag: str) -> int | None:
    """Return a number of steps; a fraction of all steps is not available."""
    number = job.values[flag]
    if number is not None and number < 1:
        job.sheet.note(
            f"--{flag} {number}: a fraction of all steps is not available; every 500 steps instead"
        )
        return 500
    return None if number is None else int(number)


def _note_optimizer(job: Job) -> None:
    """Take AdamW by any name; say so where it is another optimizer."""
    if job.values["optim"] in _ADAMW:
        job.silent.add("optim")


def _add_commands(job: Job) -> None:
    values = job.values
    out = values["output_dir"] or "OUT"
    if values["do_train"]:
        job.train_command(*["--resume"] * bool(values["resume_from_checkpoint"]))
        job.silent.add("load_best_model_at_end")
    if values["do_eval"] and not values["do_train"]:
        file = values["validation_file"] or _split(job, "validation")
        job.commands.append(f"{job.launch.prefix} evaluate {values['model_name_or_path']} {file}")
    if values["do_predict"]:
        _predict(job, out)


def _predict(job: Job, out: str) -> None:
    values = job.values
    file = values["test_file"] or _split(job, "test")
    model = out if values["do_train"] else values["model_name_or_path"]
    job.predict_command(model, file, f"{out.rstrip('/')}/predictions.jsonl")


def _split(job: Job, split: str) -> str:
    """Return the name of a part of a data set of the Hub."""
    values: Any = job.values
    if values["dataset_name"]:
        return (
            "/".join(filter(None, ("hub:" + values["dataset_name"], values["dataset_config_name"])))
            + f":{split}"
        )
    if values.get("task_name") in TASK_TO_KEYS:
        return f"glue:{values['task_name']}:{'test' if split == 'test' else 'dev'}"
    raise ConfigError(f"{job.launch.script}: --{split}_file must be given")


CONVERT: dict[str, Callable[[Job], None]] = {
    "run_glue.py": run_glue,
    "run_ner.py": run_ner,
}
