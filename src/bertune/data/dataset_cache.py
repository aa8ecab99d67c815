"""The cache on disk: folders that are whole or not there, named by what they were made from.

An entry is written into a folder of its own, flushed, and renamed into place with a manifest that holds size and SHA-256 of every file.
So a run that is killed leaves nothing that is taken for an entry; two runs that make the same entry each make their own, and the first to
finish gives its name to it. What is in place is never changed, only replaced or removed as a whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertune.errors import ConfigError
from bertune.types import JSON

FORMAT_VERSION = 1
"""Raised whenever what is written, or how it is made, changes."""
MANIFEST = "manifest.json"
_PART = ".part"


@dataclass(frozen=True)
class CacheEntry:
    """A folder of the cache."""

    path: Path
    manifest: JSON

    @property
    def meta(self) -> JSON:
        """Return what its maker noted in it."""
        return dict(self.manifest["meta"])

    @property
    def size(self) -> int:
        """Return its bytes."""
        return sum(size for size, _ in self.manifest.get("files", {}).values()) or _size(self.path)


def cache_dir() -> Path:
    """Return where the cache lies: BERTUNE_CACHE, or `bertune` in the system's folder for caches."""
    given = os.environ.get("BERTUNE_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "bertune" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "bertune"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertune"


def cache_key(parts: JSON) -> str:
    """Return the name of what is made from `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def file_sha256(file: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with Path(file).open("rb") as opened:
        return _sha256(opened)


def _sha256(file: Any) -> str:
    found = hashlib.sha256()
    part = bytearray(1 << 20)
    while count := file.readinto(part):
        found.update(memoryview(part)[:count])
    return found.hexdigest()


def find_entry(kind: str, key: str, say: Callable[[str], None]) -> CacheEntry | None:
    """Return an entry, after a look at every byte of it; one that is damaged is said and removed."""
    path = cache_dir() / f"{kind}-{key}"
    if not path.exists():
        return None
    manifest, why = _read(path)
    if not why:
        return CacheEntry(path, manifest)
    say(f"cache: {path} is damaged ({why}); it is made anew")
    with explain_write_errors():
        _remove(path)
    return None


def _read(path: Path) -> tuple[JSON, str]:
    """Return the manifest of an entry, and what is wrong with the entry."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return manifest, _damage(path, manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{MANIFEST}: {error}"


def _damage(path: Path, manifest: JSON) -> str:
    if manifest["format"] != FORMAT_VERSION:
        return f"format {manifest['format']}, expected {FORMAT_VERSION}"
    for name, (size, checksum) in manifest["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size or file_sha256(file) != checksum:
            return f"{name} is not as it was written"
    return "" if isinstance(manifest["meta"], dict) else "no meta"


@contextlib.contextmanager
def create_entry(kind: str, key: str) -> Iterator[Path]:
    """Give a new folder to write an entry into; what is not given its name by `commit_entry` is removed.

    Raises:
        ConfigError: the cache cannot be written.
    """
    part = cache_dir() / f"{kind}-{key}.{os.getpid()}-{uuid.uuid4().hex[:8]}{_PART}"
    with explain_write_errors():
        part.mkdir(parents=True)
    try:
        with explain_write_errors():
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def explain_write_errors() -> Iterator[None]:
    """Turn errors of writing into one line that says what to do.

    Raises:
        ConfigError: something in the cache's folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        elsewhere = error.filename is not None and cache_dir() not in (
            Path(str(error.filename)),
            *Path(str(error.filename)).parents,
        )
        if elsewhere or error.errno is None:
            raise
        raise ConfigError(
            f"data.cache: {str(cache_dir())!r} cannot be written: {os.strerror(error.errno)}; "
            "set data.cache=off, or the environment variable BERTUNE_CACHE to a folder with room"
        ) from None


def commit_entry(part: Path, kind: str, key: str, about: JSON, meta: JSON) -> CacheEntry:
    """Flush what was written and give it its name; where another run was first, its entry is returned.

    Args:
        part: the folder that `create_entry` gave; nothing in it may be open.
        kind: rows or tokens.
        key: what `cache_key` gave.
        about: what `bertune cache list` shows.
        meta: what the entry's reader needs.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    files = {}
    for path in sorted(part.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            files[path.name] = [path.stat().st_size, _sha256(file)]
    manifest = {
        "format": FORMAT_VERSION,
        "kind": kind,
        "made": time.time(),
        "about": about,
        "files": files,
        "meta": meta,
    }
    with (part / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    place = cache_dir() / f"{kind}-{key}"
    try:
        part.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        found, why = _read(place)
        if not why:
            return CacheEntry(place, found)
        _remove(place)
        part.rename(place)
    _sync_folder(place.parent)
    return CacheEntry(place, manifest)


def _sync_folder(path: Path) -> None:
    """Bring a renaming to disk, where a folder can be flushed (not on Windows)."""
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _remove(path: Path) -> None:
    """Remove an entry: first its name, so that nobody finds half of it."""
    gone = path.with_name(f"{path.name.removesuffix(_PART)}.{uuid.uuid4().hex[:8]}{_PART}")
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def list_entries() -> list[CacheEntry]:
    """Return what the cache holds, the newest first; what a killed run has left has no manifest."""
    found = []
    for path in cache_dir().iterdir() if cache_dir().is_dir() else ():
        if not path.is_dir() or not path.name.startswith(("rows-", "tokens-")):
            continue
        manifest: JSON = {}
        with contextlib.suppress(OSError, ValueError):
            manifest = (
                {} if path.suffix == _PART else json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            )
        found.append(CacheEntry(path, manifest))
    return sorted(found, key=lambda entry: (-created_at(entry), entry.path.name))


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
        older_than: seconds; younger ones stay.
        unfinished: seconds; an unfinished one that was written to since then may belong to a run, and stays.

    Raises:
        ConfigError: one cannot be removed.
    """
    removed = []
    for entry in list_entries():
        age = time.time() - created_at(entry)
        if age < older_than or (not entry.manifest and age < unfinished):
            continue
        with explain_write_errors():
            known = CacheEntry(entry.path, {**entry.manifest, "files": {"all": [entry.size, ""]}})
            _remove(entry.path)
        removed.append(known)
    return removed


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(p.stat().st_size for p in path.iterdir())
    return 0


def total_file_size(groups: Sequence[Sequence[str]]) -> int:
    """Return the bytes of all files, those that are none (Hub data sets) left out."""
    sizes = 0
    for file in (f for group in groups for f in group):
        with contextlib.suppress(OSError):
            sizes += Path(file).stat().st_size
    return sizes
