"""Where a run is written, and how a run that was stopped goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from bertune.artifact.artifact import RECORDED_PACKAGES, package_version
from bertune.config.auto_rates import take_settled
from bertune.config.load import read_config
from bertune.config.renames import upgrade_settings
from bertune.config.schema import RunConfig
from bertune.distributed import broadcast_object, num_processes
from bertune.errors import ConfigError
from bertune.files import PART, expand_user, read_json_object
from bertune.training.checkpoint import FOLDER, Checkpoint, Checkpoints
from bertune.training.new_encoder import was_made_here
from bertune.types import JSON, Scores

FREE = {
    "out",
    "log",
    "data.cache",
    "data.workers",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_nonfinite_steps",
}
"""Settings and sections that may change: they do not change what is learnt."""
ROUNDING = {"device", "train.micro_batches", "train.micro_batch_tokens"}
"""Settings that may change, though numbers are rounded in another way then."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class RunDir:
    """The folder of a run, and what an earlier start of the run left in it.

    Attributes:
        path: the folder.
        checkpoint: the checkpoint to go on from.
        damaged: checkpoints that were skipped.
        finished: whether the run is done.
        command: what resumes the run, where it is not `bertune train`.
    """

    path: Path
    checkpoint: Checkpoint | None = None
    damaged: frozenset[Path] = frozenset()
    finished: bool = False
    command: str = ""

    def settle(self, run: RunConfig) -> RunConfig:
        """Put the values with which the run began in the place of `auto`, whatever the rule is today."""
        before = None if self.checkpoint is None else _settings_before(self.checkpoint.description["run"])
        return run if before is None else _settled(run, before)


def is_run_dir(source: str | Path | dict[str, Any]) -> bool:
    """Tell whether a folder is given instead of the settings of a run."""
    return not isinstance(source, dict) and Path(source).is_dir()


def settings_to_resume(source: str | Path | dict[str, Any]) -> str | Path | dict[str, Any]:
    """Return the settings of a run whose folder is given instead of its run file; anything else as it is.

    Raises:
        ConfigError: the folder holds no run.
    """
    if isinstance(source, dict):
        return source
    folder = Path(expand_user(source))
    if not folder.is_dir():
        return source
    file = folder / "run.yaml"
    if not file.is_file():
        raise ConfigError(f"{source}: holds no run.yaml, so there is no run to resume")
    settings = upgrade_settings(read_config(file))
    if "task" not in settings:
        raise ConfigError(f"{file}: names no task, so it was not written by a run; start a new run (out=...)")
    return {**settings, "out": str(folder)}


def choose_run_dir(
    run: RunConfig, *, resume: bool, note: Note, option_defaults: JSON | None = None
) -> RunDir:
    """Return where a run is written. The first process looks, and all processes use its answer.

    Args:
        run: the settings.
        resume: whether the folder holds this run already.
        note: called with each line that a user should see.
        option_defaults: the defaults of the task's options.

    Raises:
        ConfigError: see `new_run_dir` and `run_dir_to_resume`.
    """
    found = run_dir_to_resume(run, note, option_defaults or {}) if resume else new_run_dir(run)
    return broadcast_object(found)


def new_run_dir(run: RunConfig) -> RunDir:
    """Return a folder that holds nothing yet.

    Raises:
        ConfigError: `out` names one that does.
    """
    if run.out is not None:
        out = Path(run.out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            is_finished = (out / "scores.json").is_file()
            is_stopped = (out / FOLDER).is_dir() or (
                out.is_dir() and not is_finished and any(map(was_made_here, out.iterdir()))
            )
            hint = "; if it is this run that was stopped, go on with --resume" if is_stopped else ""
            raise ConfigError(
                f"out: {run.out!r} is not empty and may hold another run; give a new folder, or remove it "
                f"first{hint}"
            )
        return RunDir(out)
    name = Path(run.task).stem
    return RunDir(next(path for n in range(1, 10**6) if not (path := Path("runs") / f"{name}-{n}").exists()))


def run_dir_to_resume(run: RunConfig, note: Note, option_defaults: JSON) -> RunDir:
    """Find what there is of a run that was stopped; if there is nothing yet, the run begins.

    Raises:
        ConfigError: the folder holds another run, or no run; or settings have changed that matter.
    """
    if run.out is None:
        raise ConfigError("--resume: say which run: its folder (bertune train OUT --resume), or out=OUT")
    out = Path(run.out)
    has_files = out.is_dir() and any(
        path.suffix != PART and not was_made_here(path) for path in out.iterdir()
    )  # a killed process may leave *.part, and the encoder that it has made
    if not out.exists() or (out.is_dir() and not has_files):
        note(f"nothing to resume in {str(out)!r} yet, so the run begins")
        return RunDir(out)
    if not (out / "run.yaml").is_file():
        raise ConfigError(
            f"out: {run.out!r} is not empty and holds no run.yaml, so it is no run of bertune; give another "
            "folder"
        )
    if "ensemble" in read_json_object(out / "bertune.json"):
        raise ConfigError(
            f"out: {run.out!r} is an ensemble of finished models, and no run; give another folder"
        )
    checkpoints = Checkpoints(out, 1, {}, "")
    checkpoint = checkpoints.find(note)
    before = upgrade_settings(
        checkpoint.description["run"] if checkpoint is not None else read_config(out / "run.yaml")
    )
    known = _settings_before(before)
    if known is not None:  # settings that are newer than the checkpoint have their defaults in it
        before = known.model_dump(mode="json")
        before["options"] = {**option_defaults, **before["options"]}
        run = _settled(run, known)
    check_settings(before, run.model_dump(mode="json"), note)
    if checkpoint is not None:
        note(f"goes on from {checkpoint.folder}, step {checkpoint.step}")
        _note_rounding(checkpoint.description["machine"], note)
        return RunDir(out, checkpoint, frozenset(checkpoints.damaged))
    if (out / "scores.json").is_file():
        checkpoints.clear()  # a process may have been killed while it did so
        return RunDir(out, finished=True)
    note(f"{str(out)!r} holds no complete checkpoint, so the run starts again in it")
    return RunDir(out)


def _settings_before(settings: JSON) -> RunConfig | None:
    """Return the settings with which a run began; None where they cannot be read any more."""
    try:
        return RunConfig.model_validate(upgrade_settings(settings))
    except ValidationError:
        return None


def _settled(run: RunConfig, before: RunConfig) -> RunConfig:
    return run.model_copy(update={"train": take_settled(run.train, before.train)})


def finished_scores(out: Path) -> dict[str, Scores]:
    """Return the scores that a finished run has written, by split."""
    content = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    return {split: Scores.from_json(scores) for split, scores in content.items() if split != "run"}


def checkpoints_of(run_dir: RunDir, run: RunConfig, data: JSON) -> Checkpoints:
    """Return the checkpoints of a run.

    Args:
        run_dir: its folder.
        run: its settings.
        data: rows and a hash of each split, which tell its data from other data.

    Raises:
        ConfigError: the run goes on from a checkpoint that was made with other data.
    """
    if run_dir.checkpoint is not None:
        before = run_dir.checkpoint.description["data"]
        changed = [split for split in before.keys() | data.keys() if before.get(split) != data.get(split)]
        if changed:
            rows = ", ".join(
                f"{s}: {before.get(s, {}).get('rows', 0)} rows then, {data.get(s, {}).get('rows', 0)} now"
                for s in sorted(changed)
            )
            raise ConfigError(
                f"--resume: the data has changed since the run began ({rows}); a run goes on with the same "
                "rows only"
            )
    description = {"run": run.model_dump(mode="json"), "data": data, "machine": rounding_environment()}
    out, keep = run_dir.path, run.train.keep_checkpoints
    command = run_dir.command or resume_command(out)
    checkpoints = Checkpoints(out, keep, description, command, run_dir.damaged)
    checkpoints.newest = run_dir.checkpoint.folder if run_dir.checkpoint else None
    return checkpoints


def resume_command(out: Path) -> str:
    """Return the command that resumes a run."""
    return f"bertune train {shlex.quote(str(out))} --resume"


def rounding_environment() -> JSON:
    """Return what decides how numbers are rounded, besides settings.

    Processes, threads, processor, GPU, versions.
    """
    return {
        "processes": num_processes(),
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **{package: package_version(package) for package in RECORDED_PACKAGES},
    }


def check_settings(before: JSON, now: JSON, note: Note) -> None:
    """Refuse changed settings that matter; name those that do not.

    Raises:
        ConfigError: settings that matter have changed.
    """
    refused: list[str] = []
    rounding: list[str] = []
    free: list[str] = []
    for name, (old, new) in _differences(before, now).items():
        group = free if _is_in(name, FREE) else rounding if _is_in(name, ROUNDING) else refused
        group.append(f"{name} was {old!r}, is {new!r}")
    if refused:
        raise ConfigError(
            f"--resume: settings that matter have changed: {'; '.join(refused)}. Restore them, or start a "
            "new run (out=...)"
        )
    changed = [text for text in free if not text.startswith("out ")]
    if changed:
        note(f"changed, without effect on what is learnt: {'; '.join(changed)}")
    if rounding:
        note(f"changed, so numbers are rounded in another way from here on: {'; '.join(rounding)}")


def _is_in(name: str, group: set[str]) -> bool:
    return name in group or name.split(".")[0] in group


def _differences(before: JSON, now: JSON, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    differences: dict[str, tuple[Any, Any]] = {}
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            differences |= _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            differences[prefix + name] = (old, new)
    return differences


def _note_rounding(before: JSON, note: Note) -> None:
    now = rounding_environment()
    changed = [
        f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]
    ]
    if changed:
        note(f"equal up to rounding but not bit for bit, since the machine has changed: {'; '.join(changed)}")
