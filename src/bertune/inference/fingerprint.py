"""A hash of all that decides the vectors of a model, so that no index is searched with another model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from bertune.heads.model import Model

FORMAT_1_PARAMETERS = {
    ".embeddings.words.": ".embeddings.word_embeddings.",
    ".embeddings.positions.": ".embeddings.position_embeddings.",
    ".embeddings.types.": ".embeddings.token_type_embeddings.",
    ".embeddings.tasks.": ".embeddings.task_type_embeddings.",
    ".embeddings.project.": ".embeddings.projection.",
    ".embeddings.letters.": ".embeddings.pinyin_embeddings.",
    ".embeddings.conv.": ".embeddings.pinyin_conv.",
    ".embeddings.glyphs.": ".embeddings.glyph_embeddings.",
    ".embeddings.fuse.": ".embeddings.fusion.",
    ".mix.": ".attention_output.",
    ".mix_norm.": ".attention_norm.",
    ".grow.": ".intermediate.",
    ".shrink.": ".output.",
    ".shrink_norm.": ".output_norm.",
}
"""Parts of parameter names inside a model: in format 1, and today."""

_OWN_MODULES = ("encoder.embeddings.", "encoder.layers.")
"""Where bertune's own encoders have their parameters; other encoders have transformers' names, as before."""


def model_fingerprint(model: Model, settings: list[Any], tokenizer: str) -> str:
    """Return the SHA-256 of a model's weights and settings, as hex digits.

    Parameters are hashed under their names of format 1, so that an index of that format still fits its model.

    Args:
        model: encoder and head.
        settings: whatever else decides the vectors, JSON-ready.
        tokenizer: the fingerprint of the tokenizer.
    """
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(_hashed_name(name).encode())
        digest.update(np.ascontiguousarray(weight.detach().cpu().numpy()).data)
    digest.update(json.dumps(settings).encode())
    digest.update(tokenizer.encode())
    return digest.hexdigest()


def rename_parameter(name: str, names: Mapping[str, str]) -> str:
    """Return a parameter's name with each part that `names` has replaced.

    >>> rename_parameter("encoder.layers.0.mix.weight", FORMAT_1_PARAMETERS)
    'encoder.layers.0.attention_output.weight'
    """
    for before, after in names.items():
        name = name.replace(before, after)
    return name


_HASHED_PARAMETERS = {today: format_1 for format_1, today in FORMAT_1_PARAMETERS.items()}


def _hashed_name(name: str) -> str:
    return rename_parameter(name, _HASHED_PARAMETERS) if name.startswith(_OWN_MODULES) else name
