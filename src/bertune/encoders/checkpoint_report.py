"""What a model folder contains, and what it lacks: for `bertune inspect FOLDER`. No weight is read where the format allows that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from bertune.config.schema import DataConfig
from bertune.encoders.bert import is_native
from bertune.encoders.checkpoint_files import (
    PINYIN_MAP_FILE,
    PINYIN_TENSOR_FILE,
    find_weight_files,
    read_model_config,
    read_weight_shapes,
)
from bertune.encoders.families.glyphs import find_glyph_files
from bertune.encoders.load import compare_weights, read_max_positions
from bertune.errors import BertuneError, ConfigError
from bertune.text.load import load_tokenizer
from bertune.types import JSON

REPORTED_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_VOCABULARY_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)
_GLYPHS = "bert.embeddings.glyph_embeddings.embedding.weight"
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def make_checkpoint_report(folder: Path) -> JSON:
    """Describe the folder of a pretrained or a saved model.

    Returns:
        `folder`, `kind` (the architecture), `read_by`, `settings`, `files` (bytes by name), `weights` (name, shape, how many layers
        have it, numbers in all), `encoder` (names that are `missing` or `unused`, and `wrong_shapes`; None where transformers reads
        it), `tokenizer`, `pinyin`, `pictures`, and `lacks`: what keeps it from being used as it is. All JSON-ready.

    Raises:
        ConfigError: the folder holds no config.json.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder}: is a folder without config.json; give a data file, or the folder of a model"
        )
    config = read_model_config(folder)
    lacks: list[str] = []
    report: JSON = {"folder": str(folder), "kind": config.get("model_type"), "lacks": lacks}
    if not config:
        lacks.append("config.json that can be read")
    ours = is_native(config)
    report["read_by"] = "bertune's own BERT" if ours else "transformers"
    report["settings"] = {
        name: config[name] for name in (*REPORTED_SETTINGS, "architectures") if config.get(name) is not None
    }
    try:
        files, shapes = find_weight_files(folder), read_weight_shapes(folder)
    except ConfigError as error:
        files, shapes = [], {}
        lacks.append(f"weights: {str(error).removeprefix('model: ')}")
    report["files"] = _sizes(
        [*files, *(folder / name for name in (*_VOCABULARY_FILES, "bertune.json"))], folder
    )
    report["weights"] = _rows(shapes)
    report["encoder"] = _compared(folder, config, shapes, lacks) if ours and shapes else None
    report["tokenizer"] = _tokenizer(folder, config, lacks)
    report["pinyin"], report["pictures"] = None, None
    if report["kind"] == "chinesebert":
        report["pinyin"] = _pinyin(folder)
        report["pictures"] = [path.name for path in find_glyph_files(folder)]
        if report["pictures"]:  # they stand in for the table
            lacks[:] = [line for line in lacks if not line.endswith(f" {_GLYPHS}")]
    return report


def _sizes(paths: list[Path], folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths if path.is_file()}


def _rows(shapes: dict[str, tuple[int, ...]]) -> list[JSON]:
    """Lay weights out: those that differ in the number of a layer alone are one row."""
    rows: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for name, shape in shapes.items():
        rows.setdefault((_NUMBER.sub("*", name), shape), []).append(_product(shape))
    return [
        {"name": name, "shape": list(shape), "times": len(n), "numbers": sum(n)}
        for (name, shape), n in rows.items()
    ]


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _compared(folder: Path, config: JSON, shapes: dict[str, tuple[int, ...]], lacks: list[str]) -> JSON:
    try:
        with torch.device("meta"):
            missing, unused, wrong = compare_weights(config, shapes, folder)
    except ConfigError as error:
        lacks.append(str(error).removeprefix("model: "))
        return {}
    lacks += [f"weight {name}" for name in missing]
    lacks += [f"weight {name} of the shape that config.json says" for name in wrong]
    return {"missing": missing, "unused": unused, "wrong_shapes": wrong}


def _tokenizer(folder: Path, config: JSON, lacks: list[str]) -> JSON | None:
    try:
        tokenizer = load_tokenizer(folder, read_max_positions(folder), DataConfig())
    except BertuneError as error:
        lacks.append(f"tokenizer: {str(error).removeprefix('model: ')}")
        return None
    except (KeyError, TypeError, ValueError) as error:  # settings that say nothing of a size
        lacks.append(f"tokenizer: config.json describes no encoder: {error}")
        return None
    rows, tokens = config.get("vocab_size"), tokenizer.vocab_size
    if isinstance(rows, int) and tokens > rows:
        lacks.append(f"word vectors: the tokenizer knows {tokens} tokens, config.json says {rows}")
    return {"tokens": tokens, "unknown_id": tokenizer.unk_token_id, "max_length": tokenizer.max_length}


def _pinyin(folder: Path) -> str:
    try:
        settings: Any = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    inside = [
        name for name in ("pinyin_map", "pinyin2tensor") if isinstance(settings, dict) and settings.get(name)
    ]
    if inside:
        return f"{' and '.join(inside)} in tokenizer_config.json"
    files = [name for name in (PINYIN_MAP_FILE, PINYIN_TENSOR_FILE) if (folder / name).is_file()]
    return (
        " and ".join(files)
        if files
        else "none in the folder: the built-in rule, which is the same as far as published samples show"
    )


def format_checkpoint_report(report: JSON) -> list[str]:
    """Lay a report out for reading."""
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    lines = [
        f"model: {report['folder']}",
        f"kind: {report['kind']}, read by {report['read_by']}",
        f"settings: {settings or 'none'}",
    ]
    lines += ["files:", *(f"  {size / 1e6:>9.2f} MB  {name}" for name, size in report["files"].items())]
    total = sum(row["numbers"] for row in report["weights"])
    lines.append(
        f"weights: {sum(row['times'] for row in report['weights'])} tensors, {total / 1e6:.2f} M numbers"
    )
    for row in report["weights"]:
        shape = " x ".join(map(str, row["shape"])) or "1"
        lines.append(f"  {row['name']}  {shape}" + (f"  ({row['times']} layers)" if row["times"] > 1 else ""))
    if report["encoder"]:
        for what, name in (
            ("missing", "missing from the encoder"),
            ("wrong_shapes", "of another shape"),
            ("unused", "not of the encoder"),
        ):
            lines.append(f"{name}: {', '.join(report['encoder'][what]) or 'none'}")
    found = report["tokenizer"]
    lines.append(
        f"tokenizer: {found['tokens']} tokens, unknown is {found['unknown_id']}"
        if found
        else "tokenizer: none that can be read"
    )
    if report["pinyin"] is not None:
        lines.append(f"pinyin: {report['pinyin']}")
        lines.append(f"pictures of characters: {', '.join(report['pictures']) or 'no .npy'}")
    return [*lines, "lacks: " + ("; ".join(report["lacks"]) or "nothing")]
