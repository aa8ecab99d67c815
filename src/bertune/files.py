"""Files that are whole or are not there: atomic writes, locks, fsync, SHA-256, removal. Loads no torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bertune.errors import ConfigError
from bertune.types import JSON

REMOTE_PREFIXES = ("hub:", "modelscope:")
"""How names of data sets begin that are no files: of the Hub, of ModelScope."""
PART = ".part"
"""The suffix of what is not finished: nobody reads such a name."""


def expand_user(path: str | os.PathLike[str]) -> str:
    """Return a path as text whose leading "~" is the home folder, where the shell has left it as it is.

    A shell expands `~/a.csv`, but not `data.train=~/a.csv`, nor what a run file or Python says.

    >>> expand_user("a.csv")
    'a.csv'
    """
    # Not Path.expanduser, which raises for the name of a user that does not exist, such as "~backup.csv".
    return os.path.expanduser(path)  # noqa: PTH111


def is_remote(source: str) -> bool:
    """Tell whether a source of rows is a data set of the Hub or of ModelScope, not a file.

    >>> is_remote("hub:nyu-mll/glue/cola"), is_remote("hub.csv")
    (True, False)
    """
    return source.startswith(REMOTE_PREFIXES)


def split_remote(source: str) -> tuple[str, str]:
    """Return the name of such a data set with its prefix, and its split; the split is empty where none is.

    >>> split_remote("hub:glue/cola:test"), split_remote("modelscope:clue/afqmc")
    (('hub:glue/cola', 'test'), ('modelscope:clue/afqmc', ''))
    """
    prefix, _, rest = source.partition(":")
    name, _, split = rest.partition(":")
    return f"{prefix}:{name}", split


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text file that is either whole or as it was before.

    Args:
        path: the file.
        text: what it holds.
        durable: wait until the bytes are on the disk before the file gets its name, so that a power cut keeps
            this too.

    Raises:
        OSError: it cannot be written.
    """
    part = part_of(path)
    part.write_text(text, encoding="utf-8")
    if durable:
        fsync(part)
    part.replace(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is either whole or as it was before; several processes may write it at once.

    Raises:
        OSError: it cannot be written.
    """
    part = unique_part_of(path)
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; see `write_text`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json_object(path: Path) -> JSON:
    """Return the object of a JSON file; empty where there is no such file, or nothing that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def part_of(path: Path) -> Path:
    """Return the name under which a file or folder is written before it gets its own.

    >>> part_of(Path("out/run.yaml")).name
    'run.yaml.part'
    """
    return path.with_name(path.name + PART)


def unique_part_of(path: Path) -> Path:
    """Return an unfinished name that no other call gets, for folders that several processes write at once."""
    suffix = f"{os.getpid()}-{uuid.uuid4().hex[:8]}{PART}"
    return path.with_name(f"{path.name.removesuffix(PART)}.{suffix}")


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Let one process or thread at a time write an output: hold its lock while the block runs.

    The lock is a file beside the output, and goes with the block. The system frees the lock of a process that
    was killed, so a lock file that stays behind holds nobody up.

    Args:
        path: the file that is written; its folder must exist.
        on_wait: called with a description of who holds the lock, before waiting for it. Without it a held
            lock is an error.

    Raises:
        ConfigError: another process writes this file, or the lock cannot be made in its folder.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    lock_path, owner_path = (path.with_name(f"{path.name}{PART}.{kind}") for kind in ("lock", "owner"))
    lock = FileLock(lock_path)
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # or the lock would make it
        with warnings.catch_warnings():  # of file systems without such locks; another kind is used there
            warnings.simplefilter("ignore")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                owner = _read_owner(owner_path)
                if on_wait is None:
                    raise ConfigError(
                        f"-o {path}: is being written by {owner}; wait until that has ended, "
                        "or give another name"
                    ) from None
                on_wait(owner)
                lock.acquire()
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror or error}") from None
    try:
        with contextlib.suppress(OSError):
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            owner_path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        yield
    finally:
        try:
            owner_path.unlink(missing_ok=True)
            if os.name == "posix" and not isinstance(lock, SoftFileLock):
                lock_path.unlink(missing_ok=True)  # while it is held: who waits sees that this file has gone
        finally:
            lock.release()


def _read_owner(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text(encoding="utf-8") or "another process"
    return "another process"


def fsync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk.

    Windows opens no folders, so there a folder is left to the system.

    Raises:
        OSError: the disk cannot take them.
    """
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of what an open file still has to give."""
    digest = hashlib.sha256()
    buffer = bytearray(1 << 20)
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def sha256_of_json(value: JSON) -> str:
    """Return the SHA-256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def remove_folder(folder: Path, *, shared: bool = False) -> None:
    """Remove a folder. It loses its name first, so nobody takes a half-removed folder for a whole one.

    Args:
        folder: the folder; nothing happens if it does not exist.
        shared: whether other processes may remove it, or one of the same name, at the same time.

    Raises:
        OSError: it cannot be renamed.
    """
    doomed = unique_part_of(folder) if shared else doomed_name(folder)
    shutil.rmtree(doomed, ignore_errors=True)
    if folder.is_dir():
        folder.replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def doomed_name(folder: Path) -> Path:
    """Return the name that `remove_folder` gives a folder before it removes it."""
    return folder.with_name(f"{folder.name}.gone{PART}")


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder, without those in folders inside it.

    0 where it cannot be read.
    """
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return 0
