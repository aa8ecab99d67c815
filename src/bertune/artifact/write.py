"""Writes a saved folder: data only; code goes there only with an encoder of `model_code=trusted`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import Tensor

from bertune.artifact.artifact import (
    FORMAT_VERSION,
    RECORDED_PACKAGES,
    Artifact,
    opens_in_sentence_transformers,
    package_version,
    sha256_of_tensors,
)
from bertune.artifact.file_hashes import WEIGHTS, hash_files
from bertune.artifact.read import read_metadata
from bertune.artifact.sentence_modules import Dense, SentenceModules
from bertune.artifact.sentence_transformers_write import write_modules
from bertune.config.load import dump_config
from bertune.encoders.model_code import copy_code
from bertune.errors import ArtifactError
from bertune.files import write_json, write_text
from bertune.heads.model import Model
from bertune.tasks.base.pooled import CROSS_ENCODER_SETTINGS
from bertune.tasks.base.sentence import SentenceTask
from bertune.tensor_file import write_tensors
from bertune.types import JSON, Encoder, Scores


def write_artifact(artifact: Artifact, folder: Path) -> None:
    """Write a model without its scores and its card. Every file replaces an older one atomically.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config = _hf_config(artifact)
        _write_weights(artifact.model, folder, _kept_weights(artifact, config))
        write_json(folder / "config.json", config)
        copy_code(code_files(artifact.model.encoder), folder)
        artifact.tokenizer.save(folder)
        if opens_in_sentence_transformers(artifact):
            write_modules(folder, _sentence_modules(artifact), artifact.model.encoder.hidden_size)
        write_text(folder / "run.yaml", dump_config(artifact.run_config))
        write_metadata(artifact, folder)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None


def _sentence_modules(artifact: Artifact) -> SentenceModules:
    """Return the head as modules of sentence-transformers."""
    head: Any = artifact.model.head
    options = cast(SentenceTask, artifact.task).options
    dense = tuple(
        Dense(
            layer.weight.detach().cpu(),
            layer.bias.detach().cpu(),
            "identity" if activation == "none" else activation,
        )
        for layer, activation in zip(head.dense, head.activations, strict=True)
    )
    return SentenceModules(
        max_length=artifact.tokenizer.max_length,
        do_lower_case=options.do_lower_case,
        pooling=head.pooling,
        dense=dense,
        normalize=head.normalize,
        truncate_dim=options.truncate_dim,
        prompts=options.prompts,
        default_prompt_name=options.default_prompt_name,
        similarity_fn_name=options.similarity,
    )


def write_metadata(artifact: Artifact, folder: Path) -> None:
    """Write bertune.json: what `read_artifact` needs besides config, weights and tokenizer."""
    metadata = {
        "format": FORMAT_VERSION,
        "task": artifact.run_config.task,
        "state": artifact.task.state(),
        "encoder": artifact.model.encoder.model_type,
        **({"model_code": "trusted"} if code_files(artifact.model.encoder) else {}),
        "versions": {name: package_version(name) for name in RECORDED_PACKAGES},
        **artifact.metadata,
        "files": hash_files(folder),
    }
    write_json(folder / "bertune.json", metadata)


def write_calibration(folder: Path, calibration: JSON | None) -> None:
    """Change in bertune.json what calibration has learnt, and nothing else.

    Args:
        folder: a saved folder of any format.
        calibration: what the task's state has under this name; None takes it away.

    Raises:
        ArtifactError: the folder cannot be read or written.
    """
    metadata = read_metadata(folder)
    state = {name: value for name, value in metadata["state"].items() if name != "calibration"}
    metadata["state"] = state if calibration is None else {**state, "calibration": calibration}
    try:
        write_json(folder / "bertune.json", metadata)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _kept_weights(artifact: Artifact, config: JSON) -> dict[str, Tensor]:
    """Return the pretrained pooler by its full names, where the class that opens the folder has one.

    Without it other tools draw a new one, and warn. Most classes with a head for tokens have none, and would
    warn of one too many.
    """
    encoder = artifact.model.encoder
    if config["architectures"] != [encoder.hf_class] and not getattr(
        artifact.model.head, "keeps_pooler", False
    ):
        return {}
    return {encoder.prefix + name: tensor for name, tensor in encoder.kept_weights.items()}


def _write_weights(model: Model, folder: Path, kept: dict[str, Tensor]) -> None:
    """Write model.safetensors as checkpoints are written: hashed, and on the disk before it gets its name."""
    state = {**kept, **model.hf_state_dict()}
    tensors = {name: tensor.contiguous().cpu() for name, tensor in state.items()}
    metadata = {"format": "pt", "sha256": sha256_of_tensors(tensors)}
    write_tensors(folder / WEIGHTS, tensors, metadata, durable=True)


def _hf_config(artifact: Artifact) -> JSON:
    head, encoder = artifact.model.head, artifact.model.encoder
    base = {name: value for name, value in encoder.hf_config().items() if name not in CROSS_ENCODER_SETTINGS}
    config = {**base, **artifact.task.hf_config(head), "dtype": "float32"}
    if config.get("architectures") is None:
        config["architectures"] = [encoder.hf_class]  # or transformers would add a head of random weights
    for name in ("_name_or_path", "torch_dtype", "num_labels", "auto_map"):
        config.pop(name, None)
    if code_files(encoder):
        config["auto_map"] = getattr(encoder, "code_map")  # noqa: B009  (of encoders with code alone)
    return config


def code_files(encoder: Encoder) -> list[Path]:
    """Return the Python files that compute an encoder, where the user trusts those of its folder."""
    return list(getattr(encoder, "code_files", ()))


def write_scores(folder: Path, scores: dict[str, Scores], extra: JSON) -> None:
    """Write scores.json: the scores of each split, and the summary of the run."""
    write_json(folder / "scores.json", {**{split: s.to_json() for split, s in scores.items()}, **extra})
