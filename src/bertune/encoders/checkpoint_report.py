"""What a model folder contains and what it lacks, for `bertune inspect FOLDER`.

No weight is read where the format of the file allows that.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from bertune.encoders.families.registry import get_family
from bertune.encoders.load import check_asked, compare_weights
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import BertuneError, ConfigError
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
_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_COMPARISON_NAMES = {
    "missing": "missing from the encoder",
    "wrong_shapes": "of another shape",
    "unused": "not of the encoder",
}


def make_checkpoint_report(path: Path) -> JSON:
    """Describe the folder of a pretrained or a saved model.

    Returns:
        `folder`, `kind` (the architecture), `read_by`, `settings`, `files` (bytes by name), `notes`,
        `weights` (name, shape, how many layers have it, numbers in all), `encoder` (names that are `missing`
        or `unused`, and `wrong_shapes`; None where transformers reads the folder), `tokenizer`, `pinyin`,
        `pictures`, and `lacks`:
        what keeps the folder from being used as it is. All values are JSON-ready.

    Raises:
        ConfigError: the folder holds no config.json.
    """
    folder = PretrainedFolder(path)
    if not folder.has_file("config.json"):
        raise ConfigError(
            f"{path}: is a folder without config.json; give a data file, or the folder of a model"
        )
    config = folder.config
    lacks: list[str] = []
    report: JSON = {"folder": str(path), "kind": config.get("model_type"), "lacks": lacks}
    report["notes"] = _check_folder(folder, lacks)
    report["read_by"] = "bertune's own BERT" if folder.family is not None else "transformers"
    report["settings"] = {
        name: config[name] for name in (*REPORTED_SETTINGS, "architectures") if config.get(name) is not None
    }
    try:
        files, shapes = folder.weight_files, folder.weight_shapes
        report["notes"] += [folder.renaming.note()] if folder.renaming else []
    except ConfigError as error:
        files, shapes = [], {}
        lacks.append(f"weights: {str(error).removeprefix('model: ')}")
    report["files"] = _file_sizes(
        [*files, *(path / name for name in (*_VOCABULARY_FILES, "bertune.json"))], path
    )
    report["weights"] = _weight_rows(shapes)
    report["encoder"] = _compare(folder, lacks) if folder.family is not None and shapes else None
    report["tokenizer"] = _describe_tokenizer(folder, lacks)
    report["pinyin"], report["pictures"] = None, None
    family = get_family(report["kind"])
    if family is not None:
        family.add_to_report(report, folder)
    return report


def _check_folder(folder: PretrainedFolder, lacks: list[str]) -> list[str]:
    """Say what keeps the encoder from being run, and return notes."""
    try:
        return check_asked(folder)
    except ConfigError as error:
        lacks.append(str(error).removeprefix("model: "))
        return []


def _file_sizes(paths: list[Path], folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths if path.is_file()}


def _weight_rows(shapes: dict[str, tuple[int, ...]]) -> list[JSON]:
    """Return a row per weight; weights that differ only in the number of the layer share a row."""
    rows: dict[tuple[str, tuple[int, ...]], int] = {}
    for name, shape in shapes.items():
        row = (_LAYER_NUMBER.sub("*", name), shape)
        rows[row] = rows.get(row, 0) + 1
    return [
        {"name": name, "shape": list(shape), "times": count, "numbers": count * math.prod(shape)}
        for (name, shape), count in rows.items()
    ]


def _compare(folder: PretrainedFolder, lacks: list[str]) -> JSON:
    try:
        comparison = compare_weights(folder)
    except ConfigError as error:
        lacks.append(str(error).removeprefix("model: "))
        return {}
    missing, wrong = comparison.missing_keys, comparison.mismatched_keys
    lacks += [f"weight {name}" for name in missing]
    lacks += [f"weight {name} of the shape that config.json says" for name in wrong]
    return {"missing": missing, "unused": comparison.unexpected_keys, "wrong_shapes": wrong}


def _describe_tokenizer(folder: PretrainedFolder, lacks: list[str]) -> JSON | None:
    try:
        tokenizer = folder.load_tokenizer()
    except BertuneError as error:
        lacks.append(f"tokenizer: {str(error).removeprefix('model: ')}")
        return None
    except (KeyError, TypeError, ValueError) as error:  # config.json gives no usable sizes
        lacks.append(f"tokenizer: config.json describes no encoder: {error}")
        return None
    num_vectors, num_tokens = folder.config.get("vocab_size"), tokenizer.vocab_size
    if isinstance(num_vectors, int) and tokenizer.max_token_id >= num_vectors:
        lacks.append(
            f"word vectors: the tokenizer knows {num_tokens} tokens with ids up to {tokenizer.max_token_id}, "
            f"config.json says {num_vectors}"
        )
    return {"tokens": num_tokens, "unknown_id": tokenizer.unk_token_id, "max_length": tokenizer.max_length}


def format_checkpoint_report(report: JSON) -> list[str]:
    """Return the lines of a report, for reading."""
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    lines = [
        f"model: {report['folder']}",
        f"kind: {report['kind']}, read by {report['read_by']}",
        f"settings: {settings or 'none'}",
    ]
    lines += [f"note: {note}" for note in report["notes"]]
    lines += ["files:", *(f"  {size / 1e6:>9.2f} MB  {name}" for name, size in report["files"].items())]
    total = sum(row["numbers"] for row in report["weights"])
    lines.append(
        f"weights: {sum(row['times'] for row in report['weights'])} tensors, {total / 1e6:.2f} M numbers"
    )
    for row in report["weights"]:
        shape = " x ".join(map(str, row["shape"])) or "1"
        lines.append(f"  {row['name']}  {shape}" + (f"  ({row['times']} layers)" if row["times"] > 1 else ""))
    if report["encoder"]:
        for key, name in _COMPARISON_NAMES.items():
            lines.append(f"{name}: {', '.join(report['encoder'][key]) or 'none'}")
    tokenizer = report["tokenizer"]
    lines.append(
        f"tokenizer: {tokenizer['tokens']} tokens, unknown is {tokenizer['unknown_id']}"
        if tokenizer
        else "tokenizer: none that can be read"
    )
    family = get_family(report["kind"])
    if family is not None:
        lines += family.format_report(report)
    return [*lines, "lacks: " + ("; ".join(report["lacks"]) or "nothing")]
