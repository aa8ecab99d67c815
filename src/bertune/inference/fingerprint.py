"""A hash of a model, so that vectors of two models are never compared or mixed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
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


def model_fingerprint(model: Model, settings: list[Any], tokenizer: str) -> str:
    """Return the SHA-256 of a model's weights and settings, as hex digits.

    Args:
        model: encoder and head. Of bertune's own encoders the sizes, activation and epsilons count too.
        settings: whatever else decides the vectors, JSON-ready.
        tokenizer: the fingerprint of the tokenizer.
    """
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weight.detach().cpu().numpy()).data)
    config = getattr(model.encoder, "config", None)
    sizes = asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}
    sizes = {name: value for name, value in sizes.items() if "dropout" not in name}
    digest.update(json.dumps([settings, sizes], sort_keys=True, default=str).encode())
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
