"""`bertune ensemble`: several saved models as one folder that predicts their mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bertune.artifact.ensemble import EnsembleWriter
from bertune.artifact.members import MIN_MEMBERS, Member, check_members
from bertune.artifact.read import read_artifact
from bertune.console import Console
from bertune.errors import BertuneError, ConfigError
from bertune.files import expand_user


def ensemble(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    task: str | None = None,
    model_code: str = "never",
    console: Console | None = None,
) -> Path:
    """Join saved models of one task, such as those of several seeds, to a folder that predicts their mean.

    `load`, `predict`, `evaluate`, embedding and search open it as they open one model. The models are copied;
    those of checkpoints and of the last step are left out.

    Args:
        folders: two or more of what `train` has written; of sentence vectors also folders of
            sentence-transformers.
        out: the folder to write; it must not exist, or be empty.
        task: the Python file of a task of your own.
        model_code: "trusted" runs the Python code that a folder brings for its encoder; read it first.
        console: shows notes; without it nothing is shown.

    Returns:
        The folder.

    Raises:
        ConfigError: models are missing or damaged, or differ in task, labels, tokenizer or length, or the
            folder exists; all of it is named, and nothing is written.
        ArtifactError: the folder cannot be written.
    """
    console = console or Console(quiet=True)

    def note(line: str) -> None:
        console.info(f"note: {line}")

    if isinstance(folders, str | Path):
        raise ConfigError(f"folders: a list of two or more models is needed, got {str(folders)!r}")
    names, out = [expand_user(folder) for folder in folders], Path(expand_user(out))
    faults = _check_out(out)
    if len(names) < MIN_MEMBERS:
        faults.append(f"an ensemble has two or more models, got {len(names)}")
    members: list[Member] = []
    for name in names:
        try:
            members.append(Member.of(read_artifact(name, task, model_code, note), name))
        except BertuneError as error:
            faults.append(str(error))
    faults += check_members(members)
    if faults:
        text = faults[0] if len(faults) == 1 else f"{len(faults)} faults:"
        raise ConfigError("\n".join(["ensemble: " + text, *(faults if len(faults) > 1 else [])]))
    for name in dict.fromkeys(n for n in names if names.count(n) > 1):
        note(f"{name} is given {names.count(name)} times, and counts as often")
    with EnsembleWriter(out, task_file=task, model_code=model_code, note=note) as writer:
        for name, member in zip(names, members, strict=True):
            writer.add_folder(name, member=member)
        return writer.finish()


def _check_out(out: Path) -> list[str]:
    if out.is_dir() and not any(out.iterdir()):
        return []
    return [f"{out}: exists already; give a new folder"] if out.exists() else []
