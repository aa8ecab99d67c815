"""What `bertune cache` shows: the entries of the cache, and which were removed."""

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
    """Remove entries that are older than so many days, and return them.

    Raises:
        ConfigError: something else was asked for, or an entry cannot be removed.
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
        "kind": entry.manifest.get("kind", "unfinished"),
        "task": about.get("task"),
        "model": about.get("model"),
        "train": [train] if isinstance(train, str) else train,
        "rows": about.get("rows", {}),
        "bytes": entry.size,
        "age_s": round(max(0.0, time.time() - dataset_cache.created_at(entry))),
    }


def cache_lines(found: JSON) -> Iterable[str]:
    """Lay entries out for reading."""
    entries: list[JSON] = found["removed"] if "removed" in found else found["entries"]
    rows = [
        [
            " ".join(filter(None, (e["task"], e["model"], *(e["train"] or ())))) or e["name"],
            *(e["kind"], str(sum(e["rows"].values())), f"{e['bytes'] / 1e6:.1f} MB", duration(e["age_s"])),
        ]
        for e in entries
    ]
    if rows:
        yield from aligned(["of", "kind", "rows", "size", "age"], rows)
    total = sum(e["bytes"] for e in entries) / 1e6
    what = "removed from" if "removed" in found else "in"
    yield f"{len(entries)} entries, {total:.1f} MB, {what} {found['folder']}"
