"""Read a saved folder."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from bertune.artifact.artifact import (
    FORMAT_VERSION,
    READABLE_FORMATS,
    Artifact,
    sha256_of_tensors,
)
from bertune.artifact.file_hashes import USAGE_FILES, WEIGHTS, changed_files
from bertune.artifact.members import is_ensemble, join_members
from bertune.artifact.sentence_head import copy_dense, sentence_options
from bertune.artifact.sentence_transformers import is_sentence_transformers_folder, read_modules
from bertune.config.load import read_config
from bertune.config.renames import upgrade_settings
from bertune.config.schema import DataConfig, RunConfig
from bertune.encoders.load import build_encoder, check_token_ids, load_encoder
from bertune.encoders.model_code import SET_TRUST, TRUST_SAVED
from bertune.encoders.model_hubs import MODELSCOPE
from bertune.encoders.packaged import PACKAGED_MODELS
from bertune.encoders.pretrained import PretrainedFolder, locate_model
from bertune.errors import ArtifactError, ConfigError, listed
from bertune.files import expand_user
from bertune.heads.masked_lm import MaskedLMHead, masked_lm_head
from bertune.heads.masked_lm_weights import has_masked_lm_head, load_masked_lm_head
from bertune.heads.model import Model
from bertune.heads.sentence import SentenceHead
from bertune.inference.pipeline import Pipeline
from bertune.tasks import load_task
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.types import JSON

Note = Callable[[str], None]


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


def read_artifact(
    folder: str | Path,
    task_file: str | None = None,
    model_code: str = "never",
    note: Note | None = None,
) -> Artifact:
    """Read a saved folder.

    Args:
        folder: what `write_artifact` wrote, a folder of sentence-transformers, one of transformers with a
            head for masked tokens, the Hub id of any of these, or "minilm" or "e5-small" (packages).
        task_file: the Python file of a task of your own; a folder never says which code to run.
        model_code: "trusted" runs the Python code that the folder brings for its encoder.
        note: called with each line that a user should see; without it they are warnings.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
        ConfigError: `model_code` is neither never nor trusted.
    """
    trusts_code = _trusts(model_code)
    path = _locate(folder, with_code=trusts_code)
    if not (path / "bertune.json").is_file():
        if is_sentence_transformers_folder(path):
            return _read_sentence_folder(path, trusts_code)
        if has_masked_lm_head(pretrained := PretrainedFolder(path, trusts_code=trusts_code)):
            return _read_masked_lm_folder(pretrained)
    metadata = read_metadata(path)
    run = read_run(path)
    task = build_task(path, metadata, run, task_file)
    if is_ensemble(metadata):
        read_member = functools.partial(read_artifact, task_file=task_file, model_code=model_code, note=note)
        return join_members(path, metadata, run, task, read_member)
    if changed := changed_files(path, metadata):
        note = note or (lambda line: warnings.warn(line, stacklevel=4))
        if replacement := _read_changed(path, task, changed, trusts_code, note):
            return replacement
    max_length = metadata["max_length"]
    if isinstance(task, SentenceTask) and changed and set(changed) <= set(USAGE_FILES):
        max_length = _use_newer_settings(path, task, max_length)
    pretrained = PretrainedFolder(path, trusts_code=trusts_code)
    return _read_own(pretrained, {**metadata, "max_length": max_length}, run, task)


def _trusts(model_code: str) -> bool:
    if model_code not in {"never", "trusted"}:
        raise ConfigError(f"model_code: {model_code!r} is neither 'never' nor 'trusted'")
    return model_code == "trusted"


def _read_own(pretrained: PretrainedFolder, metadata: JSON, run: RunConfig, task: Task) -> Artifact:
    path = pretrained.path
    try:
        encoder = build_encoder(pretrained)
    except ConfigError as error:
        raise ArtifactError(_of_saved_folder(error)) from None
    model = Model(encoder, task.head(encoder, {}))
    try:
        model.load_hf_state_dict(read_weights(path))
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"{path / WEIGHTS}: does not fit config.json: {str(error).splitlines()[0]}; "
            "if another tool has saved a model over this folder, remove bertune.json"
        ) from None
    max_length = min(metadata["max_length"], encoder.max_positions)
    data = DataConfig(max_length=max_length, truncation=run.data.truncation)
    tokenizer = pretrained.load_tokenizer(data, encoder.max_positions)
    try:
        check_token_ids(tokenizer, encoder, path)
    except ConfigError as error:
        raise ArtifactError(str(error).removeprefix("model: ")) from None
    task.see_tokenizer(tokenizer)
    return Artifact(model.eval(), task, tokenizer, run, metadata)


def _read_changed(
    folder: Path, task: Task, changed: list[str], trusts_code: bool, note: Note
) -> Artifact | None:
    """Read a folder whose files another tool has changed since; None where bertune.json still fits them.

    Raises:
        ArtifactError: another model of sentence-transformers is there, and the layer of labels is gone.
    """
    names = f"{folder}: {listed(changed, 3)} changed since bertune wrote this folder"
    if not isinstance(task, SentenceTask):
        note(f"{names}; labels and settings are still those of bertune.json")
        return None
    if set(changed) <= set(USAGE_FILES):
        note(f"{names}; prompts, similarity and lengths are those of the changed files")
        return None
    if not is_sentence_transformers_folder(folder):
        return None
    if getattr(task, "labels", ()):
        raise ArtifactError(
            f"{names}, and with them the layer that predicts labels; remove bertune.json to open the vectors "
            "alone, or train again"
        )
    note(f"{names}; it is read as sentence-transformers reads it, without bertune.json")
    return _read_sentence_folder(folder, trusts_code)


def _use_newer_settings(folder: Path, task: SentenceTask, max_length: int) -> int:
    """Give a task the prompts and settings that stand in the files of sentence-transformers.

    Returns:
        The longest text.
    """
    modules = read_modules(folder)
    newer = sentence_options(modules, folder)
    kept = {name: newer[name] for name in newer if name not in {"pooling", "dense", "normalize"}}
    task.options = type(task.options).model_validate({**task.options.model_dump(), **kept})
    return modules.max_length or max_length


def _locate(folder: str | Path, *, with_code: bool) -> Path:
    """Return the folder of a saved model by its path, its id on a hub, or the name of a package.

    Raises:
        ArtifactError: there is no such folder, and the hub does not give it.
    """
    name, path = str(folder), Path(expand_user(folder))
    if name in PACKAGED_MODELS and not path.is_dir():
        return locate_model(name)
    if name.startswith(MODELSCOPE) and isinstance(folder, str):
        try:
            return locate_model(name, with_code=with_code)
        except ConfigError as error:
            raise ArtifactError(str(error).removeprefix("model: ")) from None
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None and isinstance(folder, str)
    if path.exists() or not is_hub_id or ("/" in name and path.parent.is_dir()):
        return path
    try:
        return locate_model(name, with_code=with_code)
    except ConfigError as error:
        reason = (str(error).partition("from the Hub: ")[2] or str(error)).rstrip(".")
        raise ArtifactError(
            f"{folder}: no such folder; nor can it be had from the Hub: {reason}; give a folder that "
            "`bertune train` or sentence-transformers has written, the Hub id of one, minilm or e5-small"
        ) from None


def _of_saved_folder(error: ConfigError) -> str:
    """Return the message about a pretrained folder as one about a saved folder."""
    return str(error).removeprefix("model: ").replace(SET_TRUST, TRUST_SAVED)


def build_task(folder: Path, metadata: JSON, run: RunConfig, task_file: str | None = None) -> Task:
    """Return the task of a saved folder, with what it has learned.

    Args:
        folder: for messages.
        metadata: bertune.json.
        run: run.yaml.
        task_file: the Python file of a task of your own.

    Raises:
        ArtifactError: the task is another one than that of the folder, or needs its file.
    """
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
    task_class = load_task("embed")
    options = task_class.Options.model_validate(sentence_options(modules, folder))
    run = RunConfig(task="embed", model=str(folder), options=options.model_dump())
    task = task_class(options, run.data)
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
    head = cast(SentenceHead, task.head(encoder, {}))
    copy_dense(head, modules.dense)
    model = Model(encoder, head)
    return Artifact(model.eval(), task, tokenizer, run, {"max_length": tokenizer.max_length})


def read_masked_lm(
    folder: str | Path,
    task_file: str | None = None,
    model_code: str = "never",
    note: Note | None = None,
) -> Artifact:
    """Read a model that predicts masked tokens; see `read_artifact`.

    Raises:
        ArtifactError: the folder has no head for that, or cannot be read.
    """
    trusts_code = _trusts(model_code)
    path = _locate(folder, with_code=trusts_code)
    if not (path / "bertune.json").is_file() and (path / "config.json").is_file():
        pretrained = PretrainedFolder(path, trusts_code=trusts_code)
        if not has_masked_lm_head(pretrained):
            raise _no_masked_lm_head(folder)
        return _read_masked_lm_folder(pretrained)
    artifact = read_artifact(folder, task_file, model_code, note)
    if len(artifact.model.members) > 1 or not isinstance(artifact.model.head, MaskedLMHead):
        raise _no_masked_lm_head(folder, f": it is a model of task {artifact.run_config.task}")
    return artifact


def _no_masked_lm_head(folder: str | Path, reason: str = "") -> ArtifactError:
    return ArtifactError(
        f"{folder}: has no head for masked tokens{reason}; pretrain it first: "
        f"bertune train pretrain model={folder} data.train=FILE"
    )


def _read_masked_lm_folder(pretrained: PretrainedFolder) -> Artifact:
    """Read a folder of transformers with a head for masked tokens as a model of task pretrain."""
    path = pretrained.path
    task_class = load_task("pretrain")
    run = RunConfig(task="pretrain", model=str(path))
    task = task_class(task_class.Options(), run.data)
    try:
        encoder, report = load_encoder(pretrained)
        tokenizer = pretrained.load_tokenizer(max_positions=encoder.max_positions)
        check_token_ids(tokenizer, encoder, path)
        task.see_tokenizer(tokenizer)
        head = masked_lm_head(encoder)
        loaded = load_masked_lm_head(head, pretrained, encoder.word_embeddings())
    except ConfigError as error:
        raise ArtifactError(_of_saved_folder(error)) from None
    names = {name for name, _ in head.named_parameters()}
    missing = [*report.missing_keys, *(head.hf_name(name) for name in sorted(names - loaded.parameters))]
    if missing:
        raise ArtifactError(f"{path}: lacks the weights {listed(missing, 3)}")
    return Artifact(Model(encoder, head).eval(), task, tokenizer, run, {"max_length": tokenizer.max_length})


def read_metadata(folder: Path) -> JSON:
    """Read bertune.json.

    Raises:
        ArtifactError: it is missing or damaged, or of a format that is not known.
    """
    path = folder / "bertune.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        reason = "is a file" if folder.exists() else "no such folder"
        reason = "holds no bertune.json" if folder.is_dir() else reason
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


def read_run(folder: Path) -> RunConfig:
    """Read the settings of the run that made a folder.

    Raises:
        ArtifactError: run.yaml is damaged.
    """
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
        folder: what `train` or `ensemble` has written, a folder of sentence-transformers, one of transformers
            with a head for masked tokens, the Hub id of any of these, "minilm" or "e5-small".
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        task: the Python file of a task of your own.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
    """
    return read_artifact(folder, task, model_code).pipeline(device, precision)
