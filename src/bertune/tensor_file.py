"""Safetensors files that are whole or are not there, the same bytes for the same tensors."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bertune.files import fsync, part_of


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], *, durable: bool = False
) -> None:
    """Write a safetensors file that is either whole or as it was before.

    safetensors itself writes under a random name beside the file, and leaves that behind where the process is
    killed; and since 0.8 it lets nobody but the owner read the file. So it writes into a folder of our own,
    which the next call clears away, and the file gets the permissions of any new file.

    Args:
        path: the file; its folder must exist.
        tensors: what it holds. They are written contiguous, from the processor's memory.
        metadata: texts in its header.
        durable: wait until the bytes are on the disk before the file gets its name.

    Raises:
        OSError: it cannot be written.
    """
    aside = part_of(path)
    _remove(aside)
    aside.mkdir()
    part = aside / path.name
    part.touch()
    permissions = stat.S_IMODE(part.stat().st_mode)
    try:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, part, metadata=metadata
        )
    except SafetensorError as error:  # it hides the errno of the OSError beneath
        raise OSError(str(error)) from None
    part.chmod(permissions)
    _sort_metadata(part)
    if durable:
        fsync(part)
    part.replace(path)
    _remove(aside)
    if durable:
        fsync(path.parent)


def _remove(aside: Path) -> None:
    """Remove what a killed process has left: a folder, or the file that earlier versions wrote."""
    if aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, which safetensors writes in random order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        file.seek(8)
        file.write(content.ljust(size))  # the same length: the characters are only reordered
