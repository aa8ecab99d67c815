"""States of tasks that earlier versions wrote."""

from __future__ import annotations

from collections.abc import Mapping

from bertune.types import JSON


def rename_keys(state: JSON, renamed: Mapping[str, str]) -> JSON:
    """Return a task's state with today's keys.

    Args:
        state: the state, perhaps of an earlier version.
        renamed: today's key by earlier key.

    >>> rename_keys({"multi": True, "labels": []}, {"multi": "is_multi_label"})
    {'is_multi_label': True, 'labels': []}
    """
    return {renamed.get(key, key): value for key, value in state.items()}
