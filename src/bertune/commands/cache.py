"""`bertune cache`: lists the entries of the cache of large data, and removes them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from bertune.console import aligned, duration
from bertune.data import dataset_cache
from bertune.errors import ConfigError
from bertune.types import JSON

SECONDS_PER_DAY = 86400.0


def list_cache() -> JSON:
    """Return what the cache holds."""
    return {
        "folder": str(dataset_cache.cache_dir()),
        "entries": [_entry(entry) for entry in dataset_cache.list_entries()],
    }


def clear_cache(action: str, older_than_days: float) -> JSON:
    """Remove the entries that are older than `older_than_days`, and return them.

    Raises:
        ConfigError: `action` is not "clear", or an entry cannot be removed.
    """
    if action != "clear":
        raise ConfigError(f"cache: {action!r} is none of list, clear")
    return {
        "folder": str(dataset_cache.cache_dir()),
        "removed": [
            _entry(entry) for entry in dataset_cache.remove_entries(older_than_days * SECONDS_PER_DAY)
        ],
    }


def _entry(entry: dataset_cache.CacheEntry) -> JSON:
    about = entry.manifest.get("about", {})
    train = about.get("train")
    return {
        "name": entry.path.name,
        "kind": entry.kind,
        "task": about.get("task"),
        "model": about.get("model"),
        "train": [train] if isinstance(train, str) else train,
        "rows": about.get("rows", {}),
        "bytes": entry.size,
        "age_s": round(max(0.0, time.time() - dataset_cache.created_at(entry))),
    }


def cache_lines(report: JSON) -> Iterable[str]:
    """Format what `list_cache` or `clear_cache` returned as a table."""
    is_removed = "removed" in report
    entries: list[JSON] = report["removed"] if is_removed else report["entries"]
    rows = [
        [
            " ".join(filter(None, (e["task"], e["model"], *(e["train"] or ())))) or e["name"],
            *(e["kind"], str(sum(e["rows"].values())), f"{e['bytes'] / 1e6:.1f} MB", duration(e["age_s"])),
        ]
        for e in entries
    ]
    if rows:
        yield from aligned(["run", "kind", "rows", "size", "age"], rows)
    total = sum(e["bytes"] for e in entries) / 1e6
    preposition = "removed from" if is_removed else "in"
    yield f"{len(entries)} entries, {total:.1f} MB, {preposition} {report['folder']}"
