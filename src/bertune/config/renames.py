"""Settings that had other names in earlier versions.

A user's run file with an old name is refused with the new name. A file that bertune has written itself
(run.yaml in a saved folder, settings in a checkpoint) is translated instead; see `upgrade_settings`.
"""

from __future__ import annotations

from typing import Any

RENAMED = {
    "data.dev_share": "data.dev_fraction",
    "options.label_learning_rate": "options.classifier_learning_rate",
    "options.mask_repeats": "options.mask_false_negatives",
    "options.overlap": "options.window_overlap",
    "options.problem": "options.problem_type",
    "options.product": "options.concat_product",
    "options.size": "options.embedding_dim",
    "train.accumulate": "train.micro_batches",
    "train.max_tokens": "train.micro_batch_tokens",
    "train.min_gain": "train.min_delta",
    "train.shard": "train.fsdp",
    "train.skip_nonfinite": "train.max_nonfinite_steps",
}
"""Old name and new name of each renamed setting."""


def new_name_of(setting: str) -> str | None:
    """Return today's name of a setting that was renamed, or None.

    >>> new_name_of("train.shard")
    'train.fsdp'
    """
    return RENAMED.get(setting)


def upgrade_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings of an earlier version under today's names; others stay as they are.

    >>> upgrade_settings({"task": "tag", "train": {"accumulate": 2, "epochs": 1}})
    {'task': 'tag', 'train': {'epochs': 1, 'micro_batches': 2}}
    """
    upgraded = {name: dict(value) if isinstance(value, dict) else value for name, value in settings.items()}
    for old, new in RENAMED.items():
        section, _, old_leaf = old.partition(".")
        values = upgraded.get(section)
        if isinstance(values, dict) and old_leaf in values:
            values.setdefault(new.partition(".")[2], values.pop(old_leaf))
    return upgraded
