"""The cache: folders that are complete or absent, named by a hash of what they were made from.

It holds data sets (kinds rows and tokens), and encoders that a package carries in another form (encoder).

An entry is written to a folder of its own, flushed, and renamed to its name, with a manifest of the size and
SHA-256 of every file. So a killed run leaves nothing that looks like an entry. Two runs that make the same
entry each write their own, and the first to finish gives it its name. An entry never changes; it is replaced
or removed as a whole.

`FORMAT_VERSION` is part of the name's hash. Entries of an older format are never used: a run writes new ones
beside them. `bertune cache list` shows them as outdated, and `bertune cache clear` removes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertune import files
from bertune.errors import ConfigError
from bertune.types import JSON

FORMAT_VERSION = 4
"""Raised whenever the files of an entry change. 2: what a task learned is stored under its new names. 3: rows
may have different numbers of texts."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CacheEntry:
    """A folder of the cache; without a manifest it is unfinished."""

    path: Path
    manifest: JSON

    @property
    def kind(self) -> str:
        """Return rows, tokens or encoder; "outdated" for another format; "unfinished" after a killed run."""
        if "kind" not in self.manifest:
            return "unfinished"
        return str(self.manifest["kind"]) if _is_current(self.manifest) else "outdated"

    @property
    def meta(self) -> JSON:
        """Return what the reader of the entry needs."""
        return dict(self.manifest["meta"])

    @property
    def size(self) -> int:
        """Return its bytes."""
        listed_sizes = (size for size, _ in self.manifest.get("files", {}).values())
        return sum(listed_sizes) or files.folder_size(self.path)


def _is_current(manifest: JSON) -> bool:
    return manifest.get("format") == FORMAT_VERSION


def cache_dir() -> Path:
    """Return the folder of the cache: BERTUNE_CACHE, or `bertune` in the system's folder for caches."""
    given = os.environ.get("BERTUNE_CACHE")
    if given:
        return Path(files.expand_user(given))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "bertune" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "bertune"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertune"


def cache_key(parts: JSON) -> str:
    """Return the name of what is made from `parts`: 32 hex digits of their SHA-256."""
    return files.sha256_of_json(parts)[:32]


def _entry_path(kind: str, key: str) -> Path:
    return cache_dir() / f"{kind}-{key}"


def find_entry(
    kind: str, key: str, note: Callable[[str], None], *, every_byte: bool = True
) -> CacheEntry | None:
    """Return an entry, or None. It is checked; a damaged entry is reported to `note` and removed.

    Args:
        kind: rows, tokens or encoder.
        key: from `cache_key`.
        note: called with a line about a damaged entry.
        every_byte: whether the content of its files is checked too, or their sizes alone.

    Raises:
        ConfigError: a damaged entry cannot be removed.
    """
    path = _entry_path(kind, key)
    if not path.exists():
        return None
    manifest, problem = _check(path, every_byte)
    if not problem:
        return CacheEntry(path, manifest)
    note(f"cache: {path} is damaged ({problem}); it is removed and written again")
    with explain_write_errors(kind):
        files.remove_folder(path, shared=True)
    return None


def _check(path: Path, every_byte: bool = True) -> tuple[JSON, str]:
    """Return the manifest of an entry, and what is wrong with the entry."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return manifest, _find_damage(path, manifest, every_byte)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{MANIFEST}: {error}"


def _find_damage(path: Path, manifest: JSON, every_byte: bool) -> str:
    if not _is_current(manifest):
        return f"format {manifest['format']}, expected {FORMAT_VERSION}"
    for name, (size, checksum) in manifest["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size or (every_byte and files.sha256(file) != checksum):
            return f"{name} has changed"
    return "" if isinstance(manifest["meta"], dict) else "no meta"


@contextlib.contextmanager
def create_entry(kind: str, key: str) -> Iterator[Path]:
    """Give a new folder to write an entry into. It is removed at the end, unless `commit_entry` renamed it.

    Raises:
        ConfigError: the cache cannot be written.
    """
    part = files.unique_part_of(_entry_path(kind, key))
    with explain_write_errors(kind):
        part.mkdir(parents=True)
    try:
        with explain_write_errors(kind):
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def explain_write_errors(kind: str = "rows") -> Iterator[None]:
    """Turn write errors in the cache's folder into one line that says what to do.

    Args:
        kind: what is written; data sets can do without the cache.

    Raises:
        ConfigError: something in the cache's folder cannot be written.
        OSError: an error elsewhere, unchanged.
    """
    try:
        yield
    except OSError as error:
        folder = cache_dir()
        path = None if error.filename is None else Path(str(error.filename))
        if error.errno is None or (path is not None and folder not in (path, *path.parents)):
            raise
        setting, way_out = ("model", "set") if kind == "encoder" else ("data.cache", "set data.cache=off, or")
        raise ConfigError(
            f"{setting}: {str(folder)!r} cannot be written: {os.strerror(error.errno)}; "
            f"{way_out} the environment variable BERTUNE_CACHE to a folder with room"
        ) from None


def commit_entry(part: Path, kind: str, key: str, about: JSON, meta: JSON) -> CacheEntry:
    """Flush a new entry and give it its name. If another run was first, return that run's entry.

    Args:
        part: the folder from `create_entry`; its files must be closed.
        kind: rows, tokens or encoder.
        key: from `cache_key`.
        about: what `bertune cache list` shows.
        meta: what the entry's reader needs.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    sizes: dict[str, list[Any]] = {}  # size and SHA-256 of each file
    for path in sorted(path for path in part.rglob("*") if path.is_file()):
        files.fsync(path)
        sizes[path.relative_to(part).as_posix()] = [path.stat().st_size, files.sha256(path)]
    manifest: JSON = {
        "format": FORMAT_VERSION,
        "kind": kind,
        "made": time.time(),
        "about": about,
        "files": sizes,
        "meta": meta,
    }
    files.write_json(part / MANIFEST, manifest)
    files.fsync(part / MANIFEST)
    target = _entry_path(kind, key)
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        other, problem = _check(target)
        if not problem:
            return CacheEntry(target, other)
        files.remove_folder(target, shared=True)
        part.rename(target)
    with contextlib.suppress(OSError):  # not every file system can flush a folder
        files.fsync(target.parent)
    return CacheEntry(target, manifest)


def list_entries() -> list[CacheEntry]:
    """Return the folders of the cache, the newest first, with those that are unfinished or outdated."""
    entries = []
    for path in cache_dir().iterdir() if cache_dir().is_dir() else ():
        if not path.is_dir() or not path.name.startswith(("rows-", "tokens-", "encoder-")):
            continue
        manifest: JSON = {}
        if path.suffix != files.PART:
            with contextlib.suppress(OSError, ValueError):
                value = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
                manifest = value if isinstance(value, dict) else {}
        entries.append(CacheEntry(path, manifest))
    return sorted(entries, key=lambda entry: (-created_at(entry), entry.path.name))


def created_at(entry: CacheEntry) -> float:
    """Return when an entry was made, or an unfinished one last written to, in seconds since 1970."""
    if "made" in entry.manifest:
        return float(entry.manifest["made"])
    with contextlib.suppress(OSError):
        return max(p.stat().st_mtime for p in (entry.path, *entry.path.iterdir()))
    return 0.0


def remove_entries(older_than: float = 0.0, unfinished: float = 3600.0) -> list[CacheEntry]:
    """Remove entries, and return them.

    Args:
        older_than: seconds; younger entries stay.
        unfinished: seconds; an unfinished entry written to since then may belong to a run, and stays.

    Raises:
        ConfigError: an entry cannot be removed.
    """
    removed = []
    for entry in list_entries():
        age = time.time() - created_at(entry)
        if age < older_than or (not entry.manifest and age < unfinished):
            continue
        size = entry.size  # the files are gone when the caller asks for it
        with explain_write_errors():
            files.remove_folder(entry.path, shared=True)
        removed.append(CacheEntry(entry.path, {**entry.manifest, "files": {"all": [size, ""]}}))
    return removed


def total_file_size(groups: Sequence[Sequence[str]]) -> int:
    """Return the bytes of all files; names that are no files (Hub data sets) count as 0."""
    total = 0
    for name in (name for group in groups for name in group):
        with contextlib.suppress(OSError):
            total += Path(name).stat().st_size
    return total
