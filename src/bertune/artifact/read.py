"""Read a saved folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from bertune.artifact.artifact import (
    FORMAT_VERSION,
    READABLE_FORMATS,
    WEIGHTS,
    Artifact,
    sha256_of_tensors,
)
from bertune.artifact.sentence_modules import SentenceModules
from bertune.artifact.sentence_transformers import is_sentence_transformers_folder, read_modules
from bertune.config.load import read_config
from bertune.config.renames import upgrade_settings
from bertune.config.schema import DataConfig, RunConfig
from bertune.encoders.load import build_encoder, check_token_ids, load_encoder
from bertune.encoders.model_code import SET_TRUST, TRUST_SAVED
from bertune.encoders.pretrained import PACKAGED_MODELS, PretrainedFolder, locate_model
from bertune.errors import ArtifactError, ConfigError, listed
from bertune.heads.model import Model
from bertune.heads.sentence import SentenceHead
from bertune.inference.pipeline import Pipeline
from bertune.tasks import load_task
from bertune.tasks.base.task import Task
from bertune.types import JSON


def read_weights(folder: Path, *, verify: bool = False) -> dict[str, torch.Tensor]:
    """Read model.safetensors.

    Args:
        folder: a saved folder.
        verify: also compare the weights with the hash in the file's metadata; folders of format 1 have none.

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


def read_artifact(folder: str | Path, task_file: str | None = None, model_code: str = "never") -> Artifact:
    """Read a saved folder.

    Args:
        folder: what `write_artifact` wrote, a folder of sentence-transformers, or "minilm" (a package).
        task_file: the Python file of a task of your own; a folder never says which code to run.
        model_code: "trusted" runs the Python code that the folder brings for its encoder.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
        ConfigError: `model_code` is neither never nor trusted.
    """
    if model_code not in {"never", "trusted"}:
        raise ConfigError(f"model_code: {model_code!r} is neither 'never' nor 'trusted'")
    trusts_code = model_code == "trusted"
    path = Path(folder)
    if str(folder) in PACKAGED_MODELS and not path.is_dir():
        path = locate_model(str(folder))
    if not (path / "bertune.json").is_file() and is_sentence_transformers_folder(path):
        return _read_sentence_folder(path, trusts_code)
    metadata = _read_metadata(path)
    run = _read_run(path)
    task = _build_task(path, metadata, run, task_file)
    pretrained = PretrainedFolder(path, trusts_code=trusts_code)
    try:
        encoder = build_encoder(pretrained)
    except ConfigError as error:
        raise ArtifactError(_of_saved_folder(error)) from None
    model = Model(encoder, task.head(encoder, {}))
    try:
        model.load_hf_state_dict(read_weights(path))
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"{path / WEIGHTS}: does not fit config.json: {str(error).splitlines()[0]}"
        ) from None
    data = DataConfig(max_length=metadata["max_length"], truncation=run.data.truncation)
    tokenizer = pretrained.load_tokenizer(data, encoder.max_positions)
    try:
        check_token_ids(tokenizer, encoder, path)
    except ConfigError as error:
        raise ArtifactError(str(error).removeprefix("model: ")) from None
    return Artifact(model.eval(), task, tokenizer, run, metadata)


def _of_saved_folder(error: ConfigError) -> str:
    """Return the message about a pretrained folder as one about a saved folder."""
    return str(error).removeprefix("model: ").replace(SET_TRUST, TRUST_SAVED)


def _build_task(folder: Path, metadata: JSON, run: RunConfig, task_file: str | None) -> Task:
    name = str(metadata["task"])
    if name.endswith(".py") and task_file is None:
        raise ArtifactError(
            f"{folder}: was made with the task file {name!r}; name that file: --task FILE, "
            "or load(..., task=FILE)"
        )
    task_class = load_task(task_file or name)
    try:
        task = task_class(task_class.Options.model_validate(run.options), run.data)
        task.load_state(metadata["state"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder}: task {task_file or name!r} does not fit this folder: {str(error).splitlines()[0]}"
        ) from None
    return task


def _read_sentence_folder(folder: Path, trusts_code: bool) -> Artifact:
    """Read a folder of sentence-transformers as a model of task embed."""
    modules = read_modules(folder)
    if modules.prompts and not modules.include_prompt:
        raise ArtifactError(
            f"{folder / '1_Pooling'}: include_prompt is false, "
            "and bertune pools over the tokens of a prompt too"
        )
    options = {"pooling": modules.pooling, "normalize": modules.normalize}
    run = RunConfig(task="embed", model=str(folder), options=options)
    task_class = load_task("embed")
    task = task_class(task_class.Options.model_validate(options), run.data)
    task.load_state(
        {
            "texts_per_row": 2,
            "do_lower_case": modules.do_lower_case,
            "prompt": modules.prompts.get(modules.default_prompt_name or "", ""),
            "truncate_dim": modules.truncate_dim,
        }
    )
    encoder_folder = folder / modules.transformer_path
    try:
        pretrained = PretrainedFolder(encoder_folder, trusts_code=trusts_code)
        encoder, report = load_encoder(pretrained)
        data = DataConfig(
            max_length=min(modules.max_length, encoder.max_positions) if modules.max_length else None
        )
        tokenizer = pretrained.load_tokenizer(data, encoder.max_positions)
        check_token_ids(tokenizer, encoder, encoder_folder)
    except ConfigError as error:
        raise ArtifactError(_of_saved_folder(error)) from None
    if report.missing_keys:
        raise ArtifactError(f"{encoder_folder}: lacks the weights {listed(report.missing_keys, 3)}")
    metadata = {
        "max_length": tokenizer.max_length,
        "prompts": modules.prompts,
        "default_prompt_name": modules.default_prompt_name,
        "truncate_dim": modules.truncate_dim,
    }
    model = Model(encoder, _build_sentence_head(modules, encoder.hidden_size))
    return Artifact(model.eval(), task, tokenizer, run, metadata)


def _build_sentence_head(modules: SentenceModules, hidden_size: int) -> SentenceHead:
    dense = [
        (len(layer.weight), "none" if layer.activation == "identity" else layer.activation)
        for layer in modules.dense
    ]
    head = SentenceHead(hidden_size, cast(Any, modules.pooling), dense, normalize=modules.normalize)
    with torch.no_grad():
        for target, layer in zip(head.dense, modules.dense, strict=True):
            bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
            target.get_parameter("weight").copy_(layer.weight)
            target.get_parameter("bias").copy_(bias)
    return head


def _read_metadata(folder: Path) -> JSON:
    path = folder / "bertune.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        reason = "holds no bertune.json" if folder.is_dir() else "no such folder"
        raise ArtifactError(f"{folder}: {reason}; give a folder that `bertune train` has written") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: damaged: {error}") from None
    if not isinstance(metadata, dict):
        raise ArtifactError(f"{path}: damaged: not an object")
    if metadata.get("format") not in READABLE_FORMATS:
        raise ArtifactError(
            f"{folder}: has format {metadata.get('format')!r}, this bertune reads format {FORMAT_VERSION}; "
            "install a newer bertune"
        )
    if not {"task", "state", "max_length"} <= metadata.keys():
        raise ArtifactError(f"{path}: damaged: lacks what bertune writes")
    return dict(metadata)


def _read_run(folder: Path) -> RunConfig:
    path = folder / "run.yaml"
    try:
        return RunConfig.model_validate(upgrade_settings(read_config(str(path))))
    except (ConfigError, ValidationError) as error:
        raise ArtifactError(f"{path}: damaged: {str(error).splitlines()[0]}") from None


def load(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    task: str | None = None,
    model_code: str = "never",
) -> Pipeline:
    """Open a saved folder, ready to predict.

    Args:
        folder: what `train` has written, a folder of sentence-transformers, or "minilm".
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        task: the Python file of a task of your own.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
    """
    return read_artifact(folder, task, model_code).pipeline(device, precision)
