"""A copy of a model's folder with fewer tokens: the rows of tokens that go leave the word table.

It works on files: pretrained folders, those that bertune has trained, and those of sentence-transformers all
have config.json, weights by transformers' names and a tokenizer. No other weight changes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from bertune.artifact.artifact import sha256_of_tensors
from bertune.artifact.file_hashes import WEIGHTS
from bertune.artifact.sentence_transformers import is_sentence_transformers_folder
from bertune.data.dataset_cache import MANIFEST
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ConfigError, listed
from bertune.files import folder_size, read_json_object, write_json, write_text
from bertune.tensor_file import write_tensors
from bertune.text.trim_vocabulary import TrimmedVocabulary, trim_settings
from bertune.types import JSON

WORD_TABLES = (
    "word_embeddings.weight", "word_embedding.weight", "embed_tokens.weight", "tok_embeddings.weight",
    "wte.weight", "shared.weight",
)  # fmt: skip
"""How names of word tables end, in the architectures of transformers."""
_OF_VOCABULARY = re.compile(
    r"(^|\.)(predictions|lm_head|lm_predictions|lm_loss|vocab_projector|generator_lm_head|bertune_head)\."
    r"((decoder|lm_head)\.)?(weight|bias)$"
)
"""Names of weights besides the word table that have a row, or a number, for each token."""
_COPIED = {".json", ".jsonl", ".md", ".txt", ".yaml", ".yml"}
_OF_TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "unigram.json",
                 "merges.txt", "added_tokens.json", "bpe.codes", "dict.txt"}  # fmt: skip
"""Files of a tokenizer with the whole vocabulary, or with old ids."""
_LEFT_OUT = {*_OF_TOKENIZER, MANIFEST}
"""The manifest is that of a folder in bertune's cache."""
_CARD_TITLE = "## Trimmed vocabulary"


@dataclass(frozen=True)
class FolderSize:
    """How large a model is."""

    tokens: int
    """Rows of the word table."""
    parameters: int
    size_bytes: int
    """Of its files."""


def check_source(folder: PretrainedFolder) -> None:
    """Refuse folders that cannot be cut.

    Raises:
        ConfigError: the encoder is ChineseBERT, or Python code of the folder computes it.
    """
    folder.check_config()
    if folder.names_code:
        raise ConfigError(
            f"model: Python code computes the encoder in {str(folder.path)!r}, and only that code knows "
            "which weights belong to the vocabulary; give an encoder that transformers or bertune computes"
        )
    family = folder.family
    if family is not None and family.tokenizer_kind != "plain":
        raise ConfigError(
            f"model: {str(folder.path)!r} is a {folder.config['model_type']}: its pictures and syllables are "
            "tables of the whole vocabulary, which trim does not cut; give another encoder"
        )


def write_trimmed(
    folder: PretrainedFolder, vocabulary: TrimmedVocabulary, settings: JSON, out: Path
) -> tuple[FolderSize, FolderSize]:
    """Write a copy of a model that knows fewer tokens.

    Args:
        folder: the model.
        vocabulary: the tokens that stay.
        settings: tokenizer_config.json of the model.
        out: a folder that does not exist.

    Returns:
        The sizes before and after.

    Raises:
        ConfigError: the word table cannot be told, or a token that positions are counted from would move.
        OSError: the folder cannot be written.
    """
    config = _trim_config(folder, vocabulary)
    weights = folder.weights
    num_rows, cut = _cut_weights(folder, weights, vocabulary)
    inside = folder.path.relative_to(folder.root)
    encoder_out = out / inside
    encoder_out.mkdir(parents=True)
    _copy_files(folder, out)
    write_json(encoder_out / "config.json", config)
    _write_tokenizer(folder.path, vocabulary, settings, encoder_out)
    write_tensors(encoder_out / WEIGHTS, cut, _metadata(folder, cut), durable=True)
    before = FolderSize(num_rows, _num_parameters(weights.values()), _size_of(folder))
    after = FolderSize(
        len(vocabulary.old_ids), _num_parameters(cut.values()), folder_size(out) + _size_inside(out, inside)
    )
    _record(out, str(folder.root), before, after)
    return before, after


def _trim_config(folder: PretrainedFolder, vocabulary: TrimmedVocabulary) -> JSON:
    """Return config.json with the new size and the new ids of special tokens."""
    config = read_json_object(folder.path / "config.json")
    new_ids = vocabulary.new_ids()

    def moved(value: object) -> object:
        if isinstance(value, list):
            return [moved(part) for part in value]
        return new_ids.get(value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    trimmed = {name: moved(value) if name.endswith("_token_id") else value for name, value in config.items()}
    family = folder.family
    counts_from_padding = family is None or family.positions_after_padding
    if counts_from_padding and trimmed.get("pad_token_id") != config.get("pad_token_id"):
        raise ConfigError(
            f"model: positions of {str(folder.path)!r} are counted from the id of the padding token, "
            f"{config['pad_token_id']}, and in {len(vocabulary.old_ids)} tokens it would be "
            f"{trimmed['pad_token_id']}; give a higher keep"
        )
    return {**trimmed, "vocab_size": len(vocabulary.old_ids)}


def _cut_weights(
    folder: PretrainedFolder, weights: dict[str, Tensor], vocabulary: TrimmedVocabulary
) -> tuple[int, dict[str, Tensor]]:
    """Return the rows of the word table, and all weights without those of tokens that go."""
    tables = _word_tables(folder, weights)
    num_rows = len(weights[tables[0]])
    highest = int(vocabulary.old_ids.max())
    if highest >= num_rows:
        raise ConfigError(
            f"model: the tokenizer in {str(folder.path)!r} has the id {highest}, its encoder only {num_rows} "
            "word vectors; they do not belong together"
        )
    index = torch.from_numpy(vocabulary.old_ids)
    storage = {weights[name].untyped_storage().data_ptr() for name in tables}
    cut: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in tables:
            cut[name] = tensor.index_select(0, index)
        elif tensor.ndim and len(tensor) == num_rows and _OF_VOCABULARY.search(name):
            # a decoder that is the table itself: transformers ties it again when it opens the folder
            if tensor.ndim == 1 or tensor.untyped_storage().data_ptr() not in storage:
                cut[name] = tensor.index_select(0, index)
        else:
            cut[name] = tensor.clone()
    return num_rows, cut


def _word_tables(folder: PretrainedFolder, weights: dict[str, Tensor]) -> list[str]:
    """Return the names of the word table; ELECTRA's checkpoints may have one for each of two encoders."""
    endings = WORD_TABLES if folder.family is None else (folder.family.word_table,)
    found = [name for name in weights if any(f".{name}".endswith(f".{ending}") for ending in endings)]
    if not found or len({tuple(weights[name].shape) for name in found}) > 1:
        raise ConfigError(
            f"model: which weight in {str(folder.path)!r} is the word table cannot be told: "
            f"{listed(found) if found else 'none has a name that ends in ' + listed(endings)}"
        )
    return found


def _copy_files(folder: PretrainedFolder, out: Path) -> None:
    """Copy what is neither encoder nor tokenizer: settings, scores, licence, modules of other tools."""
    inside = folder.path.relative_to(folder.root)
    for place in dict.fromkeys((Path(), inside)):
        for file in sorted((folder.root / place).iterdir()):
            is_text = file.suffix in _COPIED or file.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))
            is_other = file.name in _LEFT_OUT or file.name.endswith(".index.json")
            if file.is_file() and is_text and not is_other:
                shutil.copyfile(file, out / place / file.name)
    if is_sentence_transformers_folder(folder.root):
        modules = json.loads((folder.root / "modules.json").read_text(encoding="utf-8"))
        for path in (Path(module["path"]) for module in modules):
            if path != inside and path != Path() and (folder.root / path).is_dir():
                shutil.copytree(folder.root / path, out / path)


def _write_tokenizer(source: Path, vocabulary: TrimmedVocabulary, settings: JSON, out: Path) -> None:
    text = json.dumps(vocabulary.content, ensure_ascii=False)
    write_text(out / "tokenizer.json", text)
    write_json(out / "tokenizer_config.json", trim_settings(settings, vocabulary.new_ids()))
    if (source / "vocab.txt").is_file() and isinstance(vocabulary.content["model"]["vocab"], dict):
        write_text(out / "vocab.txt", "".join(f"{token}\n" for token in vocabulary.tokens()))


def _metadata(folder: PretrainedFolder, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Return the texts of the header of the weights, with a new hash where bertune had written one."""
    metadata = {"format": "pt"}
    path = folder.path / WEIGHTS
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            metadata |= file.metadata() or {}
    if "sha256" in metadata:
        metadata["sha256"] = sha256_of_tensors(tensors)
    return metadata


def _record(out: Path, source: str, before: FolderSize, after: FolderSize) -> None:
    """Write into bertune.json and README.md that the vocabulary was trimmed."""
    values = read_json_object(out / "bertune.json")
    if values:
        trimmed = {"from": source, "tokens_before": before.tokens, "tokens": after.tokens}
        write_json(out / "bertune.json", {**values, "trimmed": trimmed})
    card = out / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace").rstrip("\n")
        section = (
            f"{_CARD_TITLE}\n\n- {after.tokens} of {before.tokens} tokens were kept by `bertune trim`: "
            "those that some texts use, and all single characters. Figures in this card were measured before."
        )
        write_text(card, f"{text}\n\n{section}\n")


def _num_parameters(tensors: Iterable[Tensor]) -> int:
    """Return how many numbers there are, without those that only count positions, and tied ones once."""
    places = {(t.untyped_storage().data_ptr(), t.storage_offset()): t for t in tensors}
    return sum(t.numel() for t in places.values() if t.is_floating_point())


def _size_of(folder: PretrainedFolder) -> int:
    """Return the bytes of the files that make up a model, weights in one format only."""
    weights = {file.name for file in folder.weight_files}
    others = {".bin", ".safetensors", ".h5", ".msgpack", ".ot", ".onnx", ".pt", ".part"}
    return sum(
        file.stat().st_size
        for file in folder.path.iterdir()
        if file.is_file() and (file.name in weights or file.suffix not in others)
    )


def _size_inside(out: Path, inside: Path) -> int:
    return folder_size(out / inside) if inside != Path() else 0
