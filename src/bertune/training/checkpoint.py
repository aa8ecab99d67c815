"""Checkpoints: folders that are whole or are none.

    OUT/checkpoints/step-00000120/state.safetensors    all that training changes
    OUT/checkpoints/step-00000120/checkpoint.json      step, sizes and hashes of the files, what the run is

A checkpoint is written under a name that no one reads, brought to the disk, and renamed. What a killed process leaves is never taken
for one: such a folder has another name, and a damaged one does not have the hashes that it should have.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bertune.data.dataset_cache import content_of
from bertune.distributed import rank
from bertune.errors import TrainingError
from bertune.training.state import STATE, TrainState
from bertune.types import JSON

FORMAT = 1
FOLDER = "checkpoints"
"""The folder of checkpoints inside OUT."""
ABOUT = "checkpoint.json"
_NAME = re.compile(r"step-(\d{8,})(-unsettled)?")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    step: int
    about: JSON
    """What the run was, as given to `Checkpoints`."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        out: the folder of the run.
        keep: how many of the newest stay; the best model is not among them, it is OUT itself.
        about: what the run is, to be compared when it goes on.
        command: how a user goes on with it, for messages.
    """

    def __init__(self, out: Path, keep: int, about: JSON, command: str) -> None:
        self.out, self.folder, self.keep, self.about, self.command = out, out / FOLDER, keep, about, command
        self.newest: Path | None = None
        """The last one that was written or read."""
        self.damaged: set[Path] = set()
        """Those that `find` has passed over; they do not count as kept."""

    def write(self, state: TrainState) -> None:
        """Write the state as it is; remove what is older than the newest ones. Called by all processes.

        Raises:
            TrainingError: it cannot be written; the last complete one is as it was.
        """
        progress = state.progress
        unsettled = "" if progress.settled == progress.step else "-unsettled"
        target = self.folder / f"step-{progress.step:08d}{unsettled}"
        part = target.with_name(target.name + ".part")
        if self.newest == target:  # nothing has happened since
            return
        try:
            if rank() == 0:
                if not self.out.is_dir():
                    raise FileNotFoundError(f"the folder {str(self.out)!r} has vanished")
                self.folder.mkdir(exist_ok=True)
                shutil.rmtree(part, ignore_errors=True)
            state.write(part)
            if rank() == 0:
                self._finish(part, target, progress.step)
        except OSError as error:
            why = f"{target}: the checkpoint cannot be written: {error.strerror or error}"
            if not self.out.is_dir():
                raise TrainingError(f"{why}; the checkpoints are gone with it, so the run must begin anew") from None
            shutil.rmtree(part, ignore_errors=True)
            last = f"the last complete one is {self.newest}" if self.newest else "there is none before it"
            raise TrainingError(f"{why}; {last}. Make room, then go on with: {self.command}") from None
        self.newest = target
        if rank() == 0:
            self._retire()

    def _finish(self, part: Path, target: Path, step: int) -> None:
        """Add what tells a whole folder from a damaged one, bring all to the disk, and give it its name."""
        files = {STATE: {"bytes": (part / STATE).stat().st_size, "sha256": content_of(part / STATE)}}
        about = {"format": FORMAT, "step": step, "files": files, "about": self.about}
        text = json.dumps({**about, "sha256": _digest_of(about)}, ensure_ascii=False, indent=2)
        (part / ABOUT).write_text(text + "\n", encoding="utf-8")
        for name in (STATE, ABOUT):
            _to_disk(part / name)
        _to_disk(part)
        if target.exists():
            _remove(target)  # the same step of a run that began anew
        part.replace(target)
        _to_disk(self.folder)

    def _retire(self) -> None:
        whole = [folder for folder in self._folders() if folder not in self.damaged]
        for old in whole[self.keep :]:
            if old != self.newest:
                with suppress(OSError):  # it is in the way of nothing
                    _remove(old)

    def find(self, note: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest complete checkpoint; name those that are damaged.

        Args:
            note: hears of each.
        """
        for folder in self._folders():
            try:
                found = _read(folder)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                note(f"{folder}: damaged, so it is passed over: {error}")
                self.damaged.add(folder)
                continue
            self.newest = folder
            return found
        return None

    def _folders(self) -> list[Path]:
        """Return the folders that have the name of a checkpoint, the newest first."""
        if not self.folder.is_dir():
            return []
        found = [(match, path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()]
        # After a step's evaluation the state is newer than before it.
        return [path for match, path in sorted(found, key=lambda x: (int(x[0][1]), x[0][2] is None), reverse=True)]

    def clear(self) -> None:
        """Remove all: the run is done."""
        if rank() == 0:
            with suppress(OSError):  # a result is a result with them, too
                _remove(self.folder)
                shutil.rmtree(_grave(self.folder), ignore_errors=True)  # a process may have been killed here before


def _read(folder: Path) -> Checkpoint:
    """Read and check what stands beside a state.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: the checkpoint is not whole.
    """
    about: JSON = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if about["format"] != FORMAT:
        raise ValueError(f"it has format {about['format']!r}, this bertune reads {FORMAT}")
    if about.pop("sha256") != _digest_of(about):
        raise ValueError(f"{ABOUT} has other content than was written")
    for name, known in about["files"].items():
        size = (folder / name).stat().st_size
        if size != known["bytes"]:
            raise ValueError(f"{name} has {size} bytes, not {known['bytes']}")
        if content_of(folder / name) != known["sha256"]:
            raise ValueError(f"{name} has other bytes than were written")
    if STATE not in about["files"]:
        raise ValueError(f"{ABOUT} does not name {STATE}")
    name = _NAME.fullmatch(folder.name)
    if name is None or int(name[1]) != about["step"]:
        raise ValueError(f"{ABOUT} is of step {about['step']}")
    return Checkpoint(folder, about["step"], about["about"])


def _digest_of(about: JSON) -> str:
    return hashlib.sha256(json.dumps(about, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a folder; under a name that no one reads first, so that a half-removed one is not taken for a whole."""
    if folder.is_dir():
        grave = _grave(folder)
        shutil.rmtree(grave, ignore_errors=True)
        folder.replace(grave)
        shutil.rmtree(grave, ignore_errors=True)


def _grave(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.gone.part")
