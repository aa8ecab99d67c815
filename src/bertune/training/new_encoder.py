"""`model: new`: the encoder that a run makes of its own training rows, in OUT/encoder, once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bertune.config.new_encoder import NEW, NewEncoder
from bertune.config.schema import RunConfig
from bertune.console import Console, prefixed
from bertune.distributed import main_process_first, rank
from bertune.encoders.new import ORIGIN, make_encoder_folder
from bertune.errors import BertuneError, ConfigError
from bertune.files import PART, read_json_object, remove_folder
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.task import Task
from bertune.training.checkpoint import FOLDER as CHECKPOINTS
from bertune.types import JSON, Example

FOLDER = "encoder"
"""The folder in OUT that holds the encoder before its first step."""


def new_encoder_of(run: RunConfig, task: Task) -> NewEncoder | None:
    """Return what a run makes, if it begins from nothing."""
    return task.own_encoder() if run.model == NEW else None


def was_made_here(path: Path) -> bool:
    """Tell whether a path in a run's folder is what `begin_from_nothing` has made, whole or in part."""
    is_part = path.name.startswith(f"{FOLDER}.") and path.suffix == PART
    return is_part or (path.name == FOLDER and (path / ORIGIN).is_file())


@contextmanager
def begin_from_nothing(
    run: RunConfig, task: Task, splits: Splits, out: Path, console: Console
) -> Iterator[RunConfig]:
    """Yield the settings with a folder as `model`. A run that begins from nothing makes it first.

    A folder that an earlier start of the same run has made is used again. The first process makes it, and the
    others find it. If the block fails, what was made goes again, so that nothing is left of a run that could
    not begin.

    Raises:
        DataError: no tokenizer can be trained on the rows.
        ConfigError: the folder cannot be written, or this process does not see it.
    """
    options = new_encoder_of(run, task)
    if options is None:
        yield run
        return
    folder, is_made = out / FOLDER, False
    origin = {
        "options": options.model_dump(mode="json"),
        "seed": run.seed,
        "rows": splits.fingerprint.get("train"),
    }
    with main_process_first():
        if rank() == 0:
            is_made = _make(folder, splits.train, options, run.seed, origin, console)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"out: this process does not see {str(folder)!r}, which the first one has made; give a folder "
            "that all of them see"
        )
    try:
        yield run.model_copy(update={"model": str(folder)})
    except BertuneError:
        if is_made:
            remove_folder(folder)
            with contextlib.suppress(OSError):
                out.rmdir()  # unless it holds more
        raise


def _make(
    folder: Path, rows: Sequence[Example], options: NewEncoder, seed: int, origin: JSON, console: Console
) -> bool:
    """Make the folder, unless it is there, of these rows and settings, or a checkpoint needs it as it is."""
    note = prefixed(console, "new")
    if folder.is_dir():
        before = read_json_object(folder / ORIGIN)
        if before == origin or any(folder.parent.glob(f"{CHECKPOINTS}/*")):
            note(f"tokenizer and first weights are those of {folder}")
            return False
        if not before:
            raise ConfigError(f"out: {str(folder)!r} is no encoder that a run has made; give another folder")
        note(f"{folder} was made of other rows or settings, and is made again")
    for left in folder.parent.glob(f"{FOLDER}.*{PART}"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
    texts = (text for example in rows for text in example.texts)
    make_encoder_folder(folder, texts, options, seed, note, origin)
    note(f"{options.describe()}, drawn by seed {seed}; before its first step it is in {folder}")
    return True
