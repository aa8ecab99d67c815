"""Hashes of the files beside bertune.json, so that a change by another tool is noticed.

bertune.json says how vectors are made, and so do the files of sentence-transformers. When that package saves
a model over the folder, or somebody edits its prompts, only the latter are new.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from bertune.types import JSON

WEIGHTS = "model.safetensors"
USAGE_FILES = ("config_sentence_transformers.json", "sentence_bert_config.json")
"""Files that say how a model is used: prompts, similarity, the longest text. Others say what it computes."""


def hash_files(folder: Path) -> dict[str, str]:
    """Return a hash of each JSON file of sentence-transformers by its name, and who wrote the weights."""
    names = [*USAGE_FILES, "modules.json"]
    names += sorted(path.relative_to(folder).as_posix() for path in folder.glob("[0-9]_*/config.json"))
    hashes = {name: _hash_json(folder / name) for name in names if (folder / name).is_file()}
    return {WEIGHTS: _writer_of_weights(folder / WEIGHTS), **hashes}


def changed_files(folder: Path, metadata: JSON) -> list[str]:
    """Return the files that are new, gone or others since bertune wrote the folder; none where it is old.

    Args:
        folder: the folder.
        metadata: its bertune.json.
    """
    before = metadata.get("files")
    if not isinstance(before, dict):
        return [USAGE_FILES[0]] if _has_prompts(folder / USAGE_FILES[0]) else []
    now = hash_files(folder)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _has_prompts(file: Path) -> bool:
    """Tell whether a file has what earlier versions of bertune never wrote into it."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return any(values.get(name) for name in ("prompts", "default_prompt_name", "truncate_dim"))
    except (OSError, ValueError, AttributeError):
        return False


def _hash_json(file: Path) -> str:
    """Return the SHA-256 of a JSON file's values; blanks and line ends do not matter."""
    try:
        content = json.dumps(json.loads(file.read_text(encoding="utf-8")), sort_keys=True)
    except (OSError, ValueError):
        return "damaged"
    return hashlib.sha256(content.encode()).hexdigest()


def _writer_of_weights(file: Path) -> str:
    """Return "bertune", which writes a hash into it. The contents may be newer, of a run that goes on."""
    try:
        with safe_open(file, framework="pt") as weights:
            return "bertune" if "sha256" in (weights.metadata() or {}) else "another tool"
    except (OSError, SafetensorError):
        return "bertune"  # reading the weights says more
