"""Read a saved folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from bertune.artifact.artifact import FORMAT_VERSION, READABLE, WEIGHTS, Artifact, sha256_of_tensors
from bertune.artifact.sentence_transformers import (
    is_sentence_transformers_folder,
    read_modules,
)
from bertune.config.load import read_config
from bertune.config.renames import upgrade_settings
from bertune.config.schema import DataConfig, RunConfig
from bertune.encoders.load import build_encoder, load_encoder
from bertune.encoders.locate import PACKAGED_MODELS, locate_model
from bertune.errors import ArtifactError, ConfigError, listed
from bertune.heads.model import Model
from bertune.heads.sentence import SentenceHead
from bertune.inference.pipeline import Pipeline
from bertune.tasks import load_task
from bertune.tasks.base.sentence import SentenceTask
from bertune.text.load import load_tokenizer
from bertune.types import JSON


def read_weights(folder: Path, *, verify: bool = False) -> dict[str, torch.Tensor]:
    """Read model.safetensors.

    Args:
        folder: a saved folder.
        verify: also compare the weights with the hash that was written with them. Folders of format 1 have none.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get("sha256")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: missing or damaged: {str(error).splitlines()[0]}") from None
    if verify and expected is not None and expected != sha256_of_tensors(weights):
        raise ArtifactError(f"{path}: damaged: the weights are not those that were written")
    return weights


def read_artifact(folder: str | Path, task_file: str | None = None) -> Artifact:
    """Read a saved folder.

    Args:
        folder: what `write` wrote, or a folder of sentence-transformers; or minilm, which comes as a package.
        task_file: the Python file of a task of your own; a folder never says which code to run.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
    """
    place = Path(folder)
    if str(folder) in PACKAGED_MODELS and not place.is_dir():
        place = locate_model(str(folder))
    if not (place / "bertune.json").is_file() and is_sentence_transformers_folder(place):
        return _read_sentence_folder(place)
    meta = _read_meta(place)
    name = str(meta["task"])
    if name.endswith(".py") and task_file is None:
        raise ArtifactError(
            f"{place}: was made with the task file {name!r}; name that file: --task FILE, or load(..., task=FILE)"
        )
    task_class = load_task(task_file or name)
    run = _read_run(place)
    try:
        task = task_class(task_class.Options.model_validate(run.options), run.data)
        task.load_state(meta["state"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{place}: task {task_file or name!r} does not fit this folder: {str(error).splitlines()[0]}"
        ) from None
    try:
        encoder = build_encoder(place)
    except ConfigError as error:
        raise ArtifactError(str(error).removeprefix("model: ")) from None
    model = Model(encoder, task.head(encoder, {}))
    try:
        model.load_hf_state_dict(read_weights(place))
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"{place / 'model.safetensors'}: does not fit config.json: {str(error).splitlines()[0]}"
        ) from None
    tokenizer = load_tokenizer(
        place,
        encoder.max_positions,
        DataConfig(max_length=meta["max_length"], truncation=run.data.truncation),
    )
    return Artifact(model.eval(), task, tokenizer, run, meta)


def _read_sentence_folder(place: Path) -> Artifact:
    """Read a folder of sentence-transformers as a model of task embed."""
    modules = read_modules(place)
    if modules.prompts and not modules.include_prompt:
        raise ArtifactError(
            f"{place / '1_Pooling'}: include_prompt is false, and bertune pools over the tokens of a prompt too"
        )
    inside = place / modules.transformer_path
    options = {"pooling": modules.pooling, "normalize": modules.normalize}
    run = RunConfig(task="embed", model=str(place), options=options)
    task_class = load_task("embed")
    task = task_class(task_class.Options.model_validate(options), run.data)
    task.load_state({"form": 2, "lower": modules.do_lower_case})
    sentences = cast(SentenceTask, task)
    sentences.prompt = modules.prompts.get(modules.default_prompt_name or "", "")
    sentences.truncate_dim = modules.truncate_dim
    try:
        encoder, report = load_encoder(inside)
        data = DataConfig(
            max_length=min(modules.max_length, encoder.max_positions) if modules.max_length else None
        )
        tokenizer = load_tokenizer(inside, encoder.max_positions, data)
    except ConfigError as error:
        raise ArtifactError(str(error).removeprefix("model: ")) from None
    if report.missing_keys:
        raise ArtifactError(f"{inside}: lacks the weights {listed(report.missing_keys, 3)}")
    dense = [(len(d.weight), "none" if d.activation == "identity" else d.activation) for d in modules.dense]
    head = SentenceHead(encoder.hidden_size, cast(Any, modules.pooling), dense, normalize=modules.normalize)
    with torch.no_grad():
        for layer, given in zip(head.dense, modules.dense, strict=True):
            layer.get_parameter("weight").copy_(given.weight)
            layer.get_parameter("bias").copy_(
                torch.zeros(len(given.weight)) if given.bias is None else given.bias
            )
    meta = {
        "prompts": modules.prompts,
        "default_prompt_name": modules.default_prompt_name,
        "truncate_dim": modules.truncate_dim,
    }
    return Artifact(
        Model(encoder, head).eval(), task, tokenizer, run, {"max_length": tokenizer.max_length, **meta}
    )


def _read_meta(place: Path) -> JSON:
    try:
        meta = json.loads((place / "bertune.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        reason = "holds no bertune.json" if place.is_dir() else "no such folder"
        raise ArtifactError(f"{place}: {reason}; give a folder that `bertune train` has written") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{place / 'bertune.json'}: damaged: {error}") from None
    if not isinstance(meta, dict):
        raise ArtifactError(f"{place / 'bertune.json'}: damaged: not an object")
    if meta.get("format") not in READABLE:
        raise ArtifactError(
            f"{place}: has format {meta.get('format')!r}, this bertune reads format {FORMAT_VERSION}; install a newer bertune"
        )
    if not {"task", "state", "max_length"} <= meta.keys():
        raise ArtifactError(f"{place / 'bertune.json'}: damaged: lacks what bertune writes")
    return dict(meta)


def _read_run(place: Path) -> RunConfig:
    from pydantic import ValidationError

    try:
        return RunConfig.model_validate(upgrade_settings(read_config(str(place / "run.yaml"))))
    except (ConfigError, ValidationError) as error:
        raise ArtifactError(f"{place / 'run.yaml'}: damaged: {str(error).splitlines()[0]}") from None


def load(
    folder: str | Path, *, device: str = "auto", precision: str = "auto", task: str | None = None
) -> Pipeline:
    """Open a saved folder, ready to predict.

    Args:
        folder: what `train` has written.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors that have units for it.
        task: the Python file of a task of your own.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
    """
    return read_artifact(folder, task).pipeline(device, precision)
