"""Checkpoints: folders that are whole or do not exist.

    OUT/checkpoints/step-00000120/state.safetensors    all that training changes
    OUT/checkpoints/step-00000120/checkpoint.json      step, hashes of the files, description of the run

A checkpoint is written under a name that nobody reads, flushed to the disk, and renamed. What a killed
process leaves is never taken for a checkpoint: its folder has another name. A damaged checkpoint is
recognised by its hashes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bertune.distributed import rank
from bertune.errors import TrainingError
from bertune.files import doomed_name, fsync, part_of, remove_folder, sha256, sha256_of_json
from bertune.training.state import STATE, TrainState
from bertune.types import JSON

FORMAT = 2
"""Format 1 has other names of weights and of progress; `bertune.artifact.upgrade` translates them."""
READABLE = {1, FORMAT}
FOLDER = "checkpoints"
"""The folder of checkpoints inside OUT."""
DESCRIPTION = "checkpoint.json"
_NAME = re.compile(r"step-(\d{8,})(-before-eval|-unsettled)?")  # the last one is of format 1


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    step: int
    description: JSON
    """The description of the run, as given to `Checkpoints`."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        out: the folder of the run.
        keep: how many of the newest stay. The best model is not among them: it lies in `out` itself.
        description: settings, data and machine of the run, to compare when it goes on.
        resume_command: how a user resumes the run, for messages.
    """

    def __init__(
        self,
        out: Path,
        keep: int,
        description: JSON,
        resume_command: str,
        damaged: frozenset[Path] = frozenset(),
    ) -> None:
        self.out, self.folder, self.keep = out, out / FOLDER, keep
        self.description, self.resume_command = description, resume_command
        self.newest: Path | None = None
        """The last checkpoint that was written or found."""
        self.damaged = set(damaged)
        """Checkpoints that `find` has skipped; they do not count as kept."""

    def write(self, state: TrainState) -> None:
        """Write the present state, and remove older checkpoints. All processes call it.

        Raises:
            TrainingError: it cannot be written; the last complete checkpoint is unchanged.
        """
        progress = state.progress
        suffix = "" if progress.last_completed_step == progress.step else "-before-eval"
        target = self.folder / f"step-{progress.step:08d}{suffix}"
        part = part_of(target)
        if self.newest == target:  # nothing has changed since
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
                raise TrainingError(
                    f"{why}; the checkpoints are gone with it, so the run must start again"
                ) from None
            shutil.rmtree(part, ignore_errors=True)
            last = f"the last complete one is {self.newest}" if self.newest else "there is none before it"
            raise TrainingError(f"{why}; {last}. Make room, then go on with: {self.resume_command}") from None
        self.newest = target
        if rank() == 0:
            self._remove_old()

    def _finish(self, part: Path, target: Path, step: int) -> None:
        """Add sizes and hashes, flush everything to the disk, and give the folder its name."""
        files = {STATE: {"bytes": (part / STATE).stat().st_size, "sha256": sha256(part / STATE)}}
        content = {"format": FORMAT, "step": step, "files": files, "about": self.description}
        text = json.dumps({**content, "sha256": sha256_of_json(content)}, ensure_ascii=False, indent=2)
        (part / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        for name in (STATE, DESCRIPTION):
            fsync(part / name)
        fsync(part)
        if target.exists():
            remove_folder(target)  # the same step of a run that started again
        part.replace(target)
        fsync(self.folder)

    def _remove_old(self) -> None:
        whole = [folder for folder in self._folders() if folder not in self.damaged]
        for old in whole[self.keep :]:
            if old != self.newest:
                with suppress(OSError):  # it does no harm if it stays
                    remove_folder(old)

    def find(self, note: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest complete checkpoint.

        Args:
            note: hears of each damaged one, which is skipped.
        """
        for folder in self._folders():
            try:
                found = _read(folder)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                note(f"{folder}: damaged, so it is skipped: {error}")
                self.damaged.add(folder)
                continue
            self.newest = folder
            return found
        return None

    def _folders(self) -> list[Path]:
        """Return the folders with the name of a checkpoint, the newest first."""
        if not self.folder.is_dir():
            return []
        found = [
            (match, path)
            for path in self.folder.iterdir()
            if (match := _NAME.fullmatch(path.name)) and path.is_dir()
        ]
        # After a step's evaluation the state is newer than before it.
        return [
            path for match, path in sorted(found, key=lambda x: (int(x[0][1]), x[0][2] is None), reverse=True)
        ]

    def clear(self) -> None:
        """Remove all checkpoints: the run is done."""
        if rank() == 0:
            with suppress(OSError):  # the result is complete with them, too
                remove_folder(self.folder)
                shutil.rmtree(
                    doomed_name(self.folder), ignore_errors=True
                )  # a process may have been killed here before


def _read(folder: Path) -> Checkpoint:
    """Read and check the description of a checkpoint.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: the checkpoint is not whole.
    """
    content: JSON = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if content["format"] not in READABLE:
        raise ValueError(f"it has format {content['format']!r}, this bertune reads {FORMAT}")
    if content.pop("sha256") != sha256_of_json(content):
        raise ValueError(f"{DESCRIPTION} has other content than was written")
    for name, known in content["files"].items():
        size = (folder / name).stat().st_size
        if size != known["bytes"]:
            raise ValueError(f"{name} has {size} bytes, not {known['bytes']}")
        if sha256(folder / name) != known["sha256"]:
            raise ValueError(f"{name} has other bytes than were written")
    if STATE not in content["files"]:
        raise ValueError(f"{DESCRIPTION} does not name {STATE}")
    name = _NAME.fullmatch(folder.name)
    if name is None or int(name[1]) != content["step"]:
        raise ValueError(f"{DESCRIPTION} is of step {content['step']}")
    return Checkpoint(folder, content["step"], content["about"])
