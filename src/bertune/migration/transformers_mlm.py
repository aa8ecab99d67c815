"""Commands of transformers' run_mlm.py as runs: pretraining, continued or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertune.config.new_encoder import NEW
from bertune.errors import ConfigError
from bertune.migration.job import Job
from bertune.migration.transformers_scripts import put_metric, put_start, put_training_arguments, trains
from bertune.types import JSON

SIZES = {
    "num_hidden_layers": "layers", "hidden_size": "hidden_size", "num_attention_heads": "heads",
    "intermediate_size": "intermediate_size", "max_position_embeddings": "max_positions",
    "vocab_size": "vocab_size",
}  # fmt: skip
"""Sizes in config.json, and their names in options.new."""
DEFAULT_SIZES = {
    "layers": 12, "hidden_size": 768, "heads": 12, "intermediate_size": 3072, "max_positions": 512,
    "vocab_size": 30522,
}  # fmt: skip
"""Those of `BertConfig()`."""
LIKE_BERT = ("roberta", "xlm-roberta", "camembert")
"""Types that compute what BERT does."""
METRICS = {"loss": "perplexity", "perplexity": "perplexity", "accuracy": "accuracy"}


def run_mlm(job: Job) -> None:
    """`run_mlm.py`: a pretrained encoder goes on, or one begins from nothing."""
    values, sheet = job.values, job.sheet
    if values["do_predict"]:
        sheet.note("--do_predict: without effect, since run_mlm.py predicts nothing; `bertune fill` does")
        job.silent.add("do_predict")
    if trains(job):
        sheet.put("task", "pretrain")
        put_start(job)
        if values["model_name_or_path"] is None:
            _put_new_encoder(job)
        elif values["config_overrides"]:
            raise ConfigError(
                "run_mlm.py: --config_overrides is for a model from nothing; leave out either it or "
                "--model_name_or_path"
            )
        _put_files(job)
        job.copy("max_seq_length")
        job.copy("mlm_probability")
        sheet.put("options.packing", "none" if values["line_by_line"] else "joined")
        put_metric(job, METRICS)
        put_training_arguments(job)
        _add_differences(job)
    _add_commands(job)


def _put_new_encoder(job: Job) -> None:
    values, sheet = job.values, job.sheet
    kind = values["model_type"]
    if kind is None:
        raise ConfigError(
            "run_mlm.py: --model_name_or_path must be given, or --model_type bert for a model from nothing"
        )
    if kind not in {"bert", *LIKE_BERT}:
        raise ConfigError(
            f"run_mlm.py: --model_type {kind}: only a bert can begin from nothing here; give --model_type "
            "bert"
        )
    if kind != "bert":
        sheet.note(f"--model_type {kind}: a bert is made, which computes the same under other names")
    sheet.put("model", NEW, "a tokenizer is trained on the training rows, and the weights are drawn")
    overrides = values["config_overrides"]
    sizes = {**DEFAULT_SIZES, **(_read_overrides(job, overrides) if overrides else {})}
    longest = values["max_seq_length"]
    if longest is not None and longest > sizes["max_positions"]:
        raise ConfigError(
            f"run_mlm.py: --max_seq_length {longest} is more than the {sizes['max_positions']} positions of "
            f"the new model; add --config_overrides max_position_embeddings={longest}"
        )
    sheet.put("options.new", sizes)


def _read_overrides(job: Job, text: str) -> JSON:
    """Return sizes from text such as `num_hidden_layers=4,hidden_size=256`."""
    sizes: JSON = {}
    for part in filter(None, (part.strip() for part in str(text).split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise ConfigError(f"--config_overrides: {part!r} is no NAME=VALUE, such as num_hidden_layers=4")
        if name not in SIZES:
            job.sheet.note(
                f"--config_overrides {name}: not available; options.new has {', '.join(SIZES.values())}"
            )
            continue
        if not value.isdecimal():
            raise ConfigError(f"--config_overrides: {name} must be a whole number, got {value!r}")
        sizes[SIZES[name]] = int(value)
    return sizes


def _put_files(job: Job) -> None:
    values, sheet = job.values, job.sheet
    fraction = values["validation_split_percentage"] / 100
    file = values["train_file"]
    if values["dataset_name"] and file is None:
        name = "/".join(filter(None, ("hub:" + values["dataset_name"], values["dataset_config_name"])))
        sheet.put("data.train", f"{name}:train")
        remark = f"without such a split: leave this out, and write dev_fraction: {fraction}"
        sheet.put("data.dev", f"{name}:validation", remark)
    elif file is None:
        raise ConfigError(f"{job.launch.script}: --dataset_name or --train_file must be given")
    elif values["dataset_config_name"] or values["dataset_name"]:
        sheet.note("--dataset_name and --dataset_config_name: without effect, since --train_file is given")
    job.copy("train_file")
    job.copy("validation_file")
    if file is not None and Path(file).suffix == ".txt":
        sheet.put("data.format", "lines", "a text a line")
    if "data.dev" not in sheet.values:
        sheet.put("data.dev_fraction", fraction)
    elif values.has("validation_split_percentage") and not values["dataset_name"]:
        sheet.note("--validation_split_percentage: without effect, since --validation_file is given")


def _add_differences(job: Job) -> None:
    if job.values["line_by_line"]:
        job.differences.append("A line that is too long is read in several pieces; there it is cut.")
    else:
        job.differences += [
            "Texts are joined with the token that ends a text between them, and nothing is dropped; there",
            "each line also begins with one; what fills no row at the end of a thousand lines is left out.",
        ]
    job.differences.append("Dev rows are masked in the same way in every evaluation.")


def _add_commands(job: Job) -> None:
    values: Any = job.values
    if values["do_train"]:
        job.train_command(*["--resume"] * bool(values["resume_from_checkpoint"]))
        job.silent.add("load_best_model_at_end")
    elif values["do_eval"]:
        model, file = values["model_name_or_path"], values["validation_file"]
        if model is None or file is None:
            raise ConfigError(
                "run_mlm.py: --model_name_or_path and --validation_file must be given to evaluate a model"
            )
        job.commands.append(f"{job.launch.prefix} evaluate {model} {file}")
