"""Files of earlier formats, translated when they are read.

| format | written by | what differs |
|---|---|---|
| 1 | 0.1 | settings, weights inside checkpoints and fields of the training progress have other names |

Weights of saved folders need no translation: they have the names of transformers in every format.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bertune.types import JSON

PARAMETERS = {
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
"""Parts of parameter names inside a model, of format 1 and today's."""

PROGRESS = {
    "position": "batches_done",
    "since_log": "loss_since_log",
    "since_epoch": "loss_since_epoch",
    "best": "best_score",
    "stale": "evals_without_gain",
    "reference": "reference_score",
    "told": "last_logged_step",
    "settled": "last_completed_step",
    "cuts": "oom_splits",
    "skipped": "nonfinite_steps",
}
"""Fields of `bertune.training.state.Progress`, of format 1 and today's."""


def upgrade_training_state(tensors: dict[str, Tensor], values: JSON) -> tuple[dict[str, Tensor], JSON]:
    """Return the tensors and values of a checkpoint's state under today's names; a state of today's format stays as it is."""
    if "settled" not in values["progress"]:
        return tensors, values
    progress: dict[str, Any] = {PROGRESS.get(name, name): value for name, value in values["progress"].items()}
    return {_parameter(name): tensor for name, tensor in tensors.items()}, {**values, "progress": progress}


def _parameter(name: str) -> str:
    for old, new in PARAMETERS.items():
        name = name.replace(old, new)
    return name
