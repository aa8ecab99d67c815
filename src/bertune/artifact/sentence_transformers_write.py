"""Writes the folders of sentence-transformers as plain data; see `bertune.artifact.sentence_transformers`."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bertune.artifact.sentence_modules import (
    ACTIVATIONS,
    POOLINGS,
    Dense,
    SentenceModules,
    check_dense,
    check_path,
    check_pooling,
    check_positive,
    check_usage,
)
from bertune.errors import ArtifactError
from bertune.files import write_json
from bertune.tensor_file import write_tensors
from bertune.types import JSON

_LAYOUT = "3.0.0"
"""The layout that is written: the first with a similarity, and with a Dense in model.safetensors."""
_PACKAGE = "sentence_transformers.models"


def write_modules(folder: str | Path, modules: SentenceModules, hidden_size: int) -> None:
    """Write a folder of sentence-transformers except its encoder and tokenizer, in the legacy layout.

    modules.json comes last. Older versions ignore what they do not know: 5.1 reads no `truncate_dim` from a
    folder, and 2.7 finds no weights of a dense layer.

    Args:
        folder: made if missing; each file replaces an older one atomically.
        modules: what to write.
        hidden_size: width of a token vector.

    Raises:
        ArtifactError: the folder cannot be written, or `modules` could not be read back.
    """
    folder = Path(folder)
    usage = folder / "config_sentence_transformers.json"
    check_path(modules.transformer_path, folder / "modules.json")
    check_pooling(modules.pooling, folder / "1_Pooling" / "config.json")
    check_dense(modules.dense, hidden_size, folder / "modules.json")
    check_usage(modules.prompts, modules.default_prompt_name, modules.similarity_fn_name, usage)
    for name, value in (("max_length", modules.max_length), ("truncate_dim", modules.truncate_dim)):
        check_positive(name, value, folder)
    entries = [("Transformer", modules.transformer_path), ("Pooling", "1_Pooling")]
    entries += [("Dense", f"{number}_Dense") for number in range(2, 2 + len(modules.dense))]
    entries += [("Normalize", f"{len(entries)}_Normalize")] if modules.normalize else []
    encoder_settings = {"max_seq_length": modules.max_length, "do_lower_case": modules.do_lower_case}
    try:
        _write_json(folder / modules.transformer_path / "sentence_bert_config.json", encoder_settings)
        _write_json(folder / "1_Pooling" / "config.json", _pooling_config(modules, hidden_size))
        for number, layer in enumerate(modules.dense, 2):
            _write_dense(folder / f"{number}_Dense", layer)
        _write_json(usage, _usage_config(modules))
        listing = [
            {"idx": n, "name": str(n), "path": path, "type": f"{_PACKAGE}.{kind}"}
            for n, (kind, path) in enumerate(entries)
        ]
        _write_json(folder / "modules.json", listing)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None


def _pooling_config(modules: SentenceModules, hidden_size: int) -> JSON:
    flags = {flag: mode == modules.pooling for mode, flag in POOLINGS.items()}
    return {"word_embedding_dimension": hidden_size, **flags, "include_prompt": modules.include_prompt}


def _usage_config(modules: SentenceModules) -> JSON:
    versions = {
        name: importlib.metadata.version(package)
        for name, package in (("transformers", "transformers"), ("pytorch", "torch"))
    }
    config: JSON = {
        "__version__": {"sentence_transformers": _LAYOUT, **versions},
        "prompts": modules.prompts,
        "default_prompt_name": modules.default_prompt_name,
        "similarity_fn_name": modules.similarity_fn_name,
    }
    return config if modules.truncate_dim is None else {**config, "truncate_dim": modules.truncate_dim}


def _write_dense(folder: Path, layer: Dense) -> None:
    out_features, in_features = layer.weight.shape
    config = {"in_features": in_features, "out_features": out_features, "bias": layer.bias is not None}
    _write_json(folder / "config.json", {**config, "activation_function": ACTIVATIONS[layer.activation]})
    tensors = {"linear.weight": layer.weight.detach().float()}
    if layer.bias is not None:
        tensors["linear.bias"] = layer.bias.detach().float()
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})


def _write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, value)
