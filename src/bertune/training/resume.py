"""Where a run is written, and how one that was stopped goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from bertune.artifact.artifact import PACKAGES, version
from bertune.config.load import read_config
from bertune.config.schema import RunConfig
from bertune.distributed import broadcast_object, num_processes
from bertune.errors import ConfigError
from bertune.training.checkpoint import FOLDER, Checkpoint, Checkpoints
from bertune.types import JSON, Scores

HARMLESS = {"out", "log", "data.cache", "data.workers", "train.checkpoint_every", "train.keep_checkpoints", "train.skip_nonfinite"}
"""Settings that change nothing of what is learnt."""
ROUNDING = {"device", "train.accumulate", "train.max_tokens"}
"""Settings that change how numbers are rounded."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class RunDir:
    """The folder of a run, and what is in it of an earlier start of the same run."""

    out: Path
    checkpoint: Checkpoint | None = None
    damaged: frozenset[Path] = frozenset()
    """Checkpoints that were passed over."""
    finished: bool = False


def settings_of(source: str | Path | dict[str, Any]) -> str | Path | dict[str, Any]:
    """Return the settings of a run whose folder is named instead of its run file.

    Raises:
        ConfigError: the folder holds no run.
    """
    if isinstance(source, dict) or not Path(source).is_dir():
        return source
    file = Path(source) / "run.yaml"
    if not file.is_file():
        raise ConfigError(f"{source}: holds no run.yaml, so there is no run here to go on with")
    found = read_config(file)
    if "task" not in found:
        raise ConfigError(f"{file}: names no task, so it is not what a run has written; begin a new run (out=...)")
    return {**found, "out": str(source)}


def new_run_dir(run: RunConfig) -> RunDir:
    """Return a folder that holds nothing yet.

    Raises:
        ConfigError: `out` names one that does.
    """
    if run.out is not None:
        out = Path(run.out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            again = "; if it is this run that was stopped, go on with --resume" if (out / FOLDER).is_dir() else ""
            raise ConfigError(f"out: {run.out!r} is not empty and may hold another run; give a new folder, or remove it first{again}")
        return RunDir(out)
    name = Path(run.task).stem
    return RunDir(next(path for n in range(1, 10**6) if not (path := Path("runs") / f"{name}-{n}").exists()))


def run_dir_to_resume(run: RunConfig, note: Note) -> RunDir:
    """Find what there is of a run that was stopped; where there is nothing yet, it begins.

    Raises:
        ConfigError: the folder holds another run, or none; or settings have changed that matter.
    """
    if run.out is None:
        raise ConfigError("--resume: say which run: its folder (bertune train OUT --resume), or out=OUT")
    out = Path(run.out)
    begun = out.is_dir() and any(path.suffix != ".part" for path in out.iterdir())  # such files are what a killed process has left
    if not out.exists() or (out.is_dir() and not begun):
        note(f"nothing to go on with in {str(out)!r} yet, so the run begins")
        return RunDir(out)
    if not (out / "run.yaml").is_file():
        raise ConfigError(f"out: {run.out!r} is not empty and holds no run.yaml, so it is no run of bertune's; give another folder")
    there = Checkpoints(out, 1, {}, "")
    checkpoint = there.find(note)
    before = checkpoint.about["run"] if checkpoint is not None else read_config(out / "run.yaml")
    with suppress(ValidationError):  # settings that are newer than the checkpoint have their defaults in it
        before = RunConfig.model_validate(before).model_dump(mode="json")
    _check_settings(before, run.model_dump(mode="json"), note)
    if checkpoint is not None:
        note(f"goes on from {checkpoint.folder}, step {checkpoint.step}")
        _tell_rounding(checkpoint.about["machine"], note)
        return RunDir(out, checkpoint, frozenset(there.damaged))
    if (out / "scores.json").is_file():
        there.clear()  # a process may have been killed while it did so
        return RunDir(out, finished=True)
    note(f"{str(out)!r} holds no complete checkpoint, so the run begins anew in it")
    return RunDir(out)


def finished_scores(out: Path) -> dict[str, Scores]:
    """Return the scores that a finished run has written."""
    found = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    return {split: Scores.of_json(scores) for split, scores in found.items() if split != "run"}


def checkpoints_of(place: RunDir, run: RunConfig, data: JSON) -> Checkpoints:
    """Return where checkpoints of a run are written.

    Args:
        place: its folder.
        run: its settings.
        data: what tells its data from other data.

    Raises:
        ConfigError: the run goes on from a checkpoint that was made with other data.
    """
    about = {"run": run.model_dump(mode="json"), "data": data, "machine": machine()}
    if place.checkpoint is not None:
        known = place.checkpoint.about["data"]
        changed = [split for split in known.keys() | data.keys() if known.get(split) != data.get(split)]
        if changed:
            rows = ", ".join(
                f"{s}: {known.get(s, {}).get('rows', 0)} rows then, {data.get(s, {}).get('rows', 0)} now" for s in sorted(changed)
            )
            raise ConfigError(f"--resume: the data is not what the run began with ({rows}); a run goes on with the same rows only")
    checkpoints = Checkpoints(place.out, run.train.keep_checkpoints, about, resume_command(place.out))
    checkpoints.newest = place.checkpoint.folder if place.checkpoint else None
    checkpoints.damaged = set(place.damaged)
    return checkpoints


def resume_command(out: Path) -> str:
    """Return what goes on with a run, to be typed."""
    return f"bertune train {shlex.quote(str(out))} --resume"


def machine() -> JSON:
    """Return what decides how numbers are rounded, besides settings."""
    return {
        "processes": num_processes(),
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **{package: version(package) for package in PACKAGES},
    }


def _check_settings(before: JSON, now: JSON, note: Note) -> None:
    """Refuse changed settings that matter; say those that do not."""
    changed = _differences(before, now)
    refused: list[str] = []
    rounding: list[str] = []
    harmless: list[str] = []
    for name, (old, new) in changed.items():
        text = f"{name} was {old!r}, is {new!r}"
        group = harmless if _named(name, HARMLESS) else rounding if _named(name, ROUNDING) else refused
        group.append(text)
    if refused:
        raise ConfigError(f"--resume: settings that matter have changed: {'; '.join(refused)}. Put them back, or begin a new run (out=...)")
    told = [text for text in harmless if not text.startswith("out ")]
    if told:
        note(f"changed, and of no consequence for what is learnt: {'; '.join(told)}")
    if rounding:
        note(f"changed, so numbers are rounded otherwise from here on: {'; '.join(rounding)}")


def _named(name: str, group: set[str]) -> bool:
    return name in group or name.split(".")[0] in group


def _differences(before: JSON, now: JSON, above: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= _differences(old, new, f"{above}{name}.")
        elif old != new:
            found[above + name] = (old, new)
    return found


def _tell_rounding(before: JSON, note: Note) -> None:
    now = machine()
    changed = [f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]]
    if changed:
        note(f"not bit for bit as the run would have gone on, but the same up to rounding: {'; '.join(changed)}")


def choose_run_dir(run: RunConfig, *, resume: bool, note: Note) -> RunDir:
    """Return where a run is written: the first process looks, all of them go there."""
    return broadcast_object(run_dir_to_resume(run, note) if resume else new_run_dir(run))
