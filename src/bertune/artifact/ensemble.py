"""Writes an ensemble: a folder of several models of one task, which predicts their mean."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from bertune.artifact.artifact import ENSEMBLE_FORMAT_VERSION, RECORDED_PACKAGES, Artifact, package_version
from bertune.artifact.ensemble_card import EnsembleCard
from bertune.artifact.members import MEMBERS, MIN_MEMBERS, Member
from bertune.artifact.read import read_artifact
from bertune.artifact.write import write_artifact, write_scores
from bertune.config.load import dump_config
from bertune.errors import ArtifactError, ConfigError
from bertune.files import PART, expand_user, unique_part_of, write_json, write_text
from bertune.tasks.base.ensembling import ensemble_state
from bertune.tasks.base.task import Task
from bertune.types import JSON, Scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

_OF_A_RUN = {"last", "checkpoints"}
"""What the folder of a member leaves behind: further models, which nothing reads."""
_FILES = ("members", "run.yaml", "scores.json", "README.md", "bertune.json")
"""What an ensemble consists of. bertune.json comes last: without it a folder is no model."""


class EnsembleWriter:
    """Writes an ensemble a member at a time, so that its caller holds one model in memory.

    ```python
    with EnsembleWriter(out) as writer:
        for fold in folds:
            writer.add(train(fold))  # an Artifact
        writer.finish()
    ```

    Nothing is at `folder` before `finish`; a block that ends without it leaves nothing behind.

    Args:
        folder: where it is written. A folder that exists must not hold a model.
        task_file: the Python file of a task of your own, for members that are folders.
        model_code: "trusted" runs the Python code that such folders bring for their encoders.
        note: called with each line that a user should see.

    Raises:
        ConfigError: the folder holds a model, or is a file.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        task_file: str | None = None,
        model_code: str = "never",
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = Path(expand_user(folder))
        self.members: list[Member] = []
        self._task_file, self._model_code, self._note = task_file, model_code, note
        taken = [name for name in _FILES if (self.folder / name).exists()]
        if taken or (self.folder.exists() and not self.folder.is_dir()):
            what = f"holds {taken[0]} already" if taken else "is a file"
            raise ConfigError(f"{folder}: {what}; give a new folder for the ensemble")
        self._part = unique_part_of(self.folder)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is not finished."""
        self.discard()

    def add(self, artifact: Artifact, name: str | None = None) -> Path:
        """Write a model as the next member; return its folder, which moves with the ensemble in the end.

        Args:
            artifact: the model; it is not kept.
            name: what messages call it.

        Raises:
            ArtifactError: it does not fit the members before it, or cannot be written.
        """
        member = Member.of(artifact, name or f"member {len(self.members) + 1}")
        return self._place(member, lambda folder: write_artifact(artifact, folder))

    def add_folder(self, folder: str | Path, *, member: Member | None = None, move: bool = False) -> Path:
        """Copy a saved folder as the next member; return the copy.

        Models of its checkpoints and of its last step are left out. A folder of sentence-transformers, or the
        id of a model, is read and written anew.

        Args:
            folder: the saved folder.
            member: what is known about it, so that it is not read again.
            move: take the folder away instead of copying it.

        Raises:
            ArtifactError: it cannot be read, does not fit the members before it, or cannot be written.
        """
        path = Path(expand_user(folder))
        if not (path / "bertune.json").is_file():
            return self.add(self._read(folder), str(folder))
        member = member or Member.of(self._read(folder), str(folder))
        return self._place(member, lambda target: _copy(path, target, move=move))

    def _read(self, folder: str | Path) -> Artifact:
        return read_artifact(folder, self._task_file, self._model_code, self._note)

    def _place(self, member: Member, write: Callable[[Path], None]) -> Path:
        faults = member.faults() or (member.faults_beside(self.members[0]) if self.members else [])
        if faults:
            raise ArtifactError("; ".join(faults))
        folder = self._part / MEMBERS / f"member-{len(self.members) + 1}"
        with self._writing():
            folder.parent.mkdir(parents=True, exist_ok=True)
            write(folder)
        self.members.append(member)
        return folder

    def finish(
        self,
        *,
        state: JSON | None = None,
        scores: Mapping[str, Scores] | None = None,
        summary: JSON | None = None,
        origin: str = "",
    ) -> Path:
        """Write what belongs to the whole, and give the folder its name; return it.

        Args:
            state: the state of the task (`Task.state`) that has learnt from the mean, such as thresholds.
                Without it: that of the first member, with the mean of the members' thresholds.
            scores: scores of the mean by split.
            summary: further values of scores.json.
            origin: a sentence of the model card about where the members come from.

        Raises:
            ConfigError: there are fewer than two members.
            ArtifactError: the folder cannot be written.
        """
        if len(self.members) < MIN_MEMBERS:
            raise ConfigError(f"{self.folder}: an ensemble has two or more models, got {len(self.members)}")
        if state is None:
            state, notes = ensemble_state([member.state for member in self.members])
            for line in notes:
                self._note(line.replace(" OUT ", f" {self.folder} "))
        first, names = self.members[0], [f"member-{n + 1}" for n in range(len(self.members))]
        metadata = {
            "format": ENSEMBLE_FORMAT_VERSION,
            "task": first.run.task,
            "state": state,
            "ensemble": names,
            "max_length": first.max_length,
            "versions": {name: package_version(name) for name in RECORDED_PACKAGES},
        }
        scores = dict(scores or {})
        card = EnsembleCard(self.folder.name, _with_state(first, state), self.members, scores, origin)
        with self._writing():
            write_text(self._part / "run.yaml", dump_config(first.run))
            if scores or summary:
                write_scores(self._part, scores, summary or {})
            write_text(self._part / "README.md", card.text())
            write_json(self._part / "bertune.json", metadata)
            _move_into(self._part, self.folder)
        return self.folder

    def discard(self) -> None:
        """Remove what is not finished."""
        shutil.rmtree(self._part, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactError(
                f"{self.folder}: cannot be written: {getattr(error, 'strerror', None) or error}"
            ) from None


def write_ensemble(
    folder: str | Path, members: Iterable[Artifact | str | Path], *, state: JSON | None = None
) -> Path:
    """Write an ensemble of models in memory or saved folders, which may come one by one; see EnsembleWriter.

    Raises:
        ConfigError: there are fewer than two members, or the folder holds a model.
        ArtifactError: a member cannot be read, or they do not fit; the folder cannot be written.
    """
    with EnsembleWriter(folder) as writer:
        for member in members:
            if isinstance(member, Artifact):
                writer.add(member)
            else:
                writer.add_folder(member)
        return writer.finish(state=state)


def _copy(source: Path, target: Path, *, move: bool) -> None:
    if move:
        shutil.move(source, target)
        for name in _OF_A_RUN:
            shutil.rmtree(target / name, ignore_errors=True)
        return

    def left_out(folder: str, names: list[str]) -> set[str]:
        is_top = Path(folder) == source
        return {name for name in names if PART in name or (is_top and name in _OF_A_RUN)}

    shutil.copytree(source, target, ignore=left_out)


def _with_state(member: Member, state: JSON) -> Task:
    """Return the task of a member as it is with another state."""
    task = copy.deepcopy(member.task)
    task.load_state(state)
    return task


def _move_into(part: Path, folder: Path) -> None:
    """Give a finished folder its name; in a folder with other files bertune.json comes last."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if not folder.exists():
        part.replace(folder)
        return
    for name in _FILES:
        if (part / name).exists():
            (part / name).replace(folder / name)
    part.rmdir()
