"""Named sets where settings or files are given: what a user writes, to what the rest of the code knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertune.catalog.named_set import Note
from bertune.catalog.sets import is_set_name, refuse_unknown_suite, rows_settings, set_settings, split_name
from bertune.config.load import apply_override, read_config
from bertune.config.reading import READING_SETTINGS
from bertune.config.schema import DataConfig
from bertune.errors import ConfigError
from bertune.files import expand_user, is_remote

_ROOT = "data.root="
_TASK = "task="
_SECTIONS = ("data", "options", "train", "log")


def read_settings(
    source: str | Path | dict[str, Any], overrides: Sequence[str], note: Note
) -> dict[str, Any]:
    """Read settings as `read_config` does; where a named set stands for the task, its settings come first.

    What a run file says counts more than the set, and overrides count most.

    Raises:
        ConfigError: the settings cannot be read, or the set is not there.
    """
    given = read_config(source)
    tasks = [o.removeprefix(_TASK) for o in overrides if o.startswith(_TASK)]
    name = next((task for task in reversed(tasks) if is_set_name(task)), str(given.get("task")))
    if not is_set_name(name):
        refuse_unknown_suite(name)
        return read_config(source, overrides)
    named_set, split = split_name(name)
    if split:
        raise ConfigError(f"{name}: a run needs the whole set; write {named_set.full_name}")
    overrides = [o for o in overrides if not (o.startswith(_TASK) and is_set_name(o.removeprefix(_TASK)))]
    data = given.get("data")
    root, overrides = take_root(overrides, data.pop("root", None) if isinstance(data, dict) else None)
    settings = set_settings(named_set, root, note)
    merged = _merge(settings, {key: value for key, value in given.items() if key != "task"})
    for override in overrides:
        apply_override(merged, override)
    return merged


def take_root(overrides: Sequence[str], root: Any = None) -> tuple[str | None, list[str]]:
    """Return the value of `data.root`, the last one of the overrides, and the other overrides.

    Raises:
        ConfigError: it is empty.
    """
    roots = [override.removeprefix(_ROOT) for override in overrides if override.startswith(_ROOT)]
    root = roots[-1] if roots else root
    if root is not None and not str(root).strip():
        raise ConfigError("data.root: is empty; give a folder, hub or modelscope")
    rest = [override for override in overrides if not override.startswith(_ROOT)]
    return (None if root is None else expand_user(str(root))), rest


def _merge(settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return settings with others put over them, setting by setting."""
    merged = {**settings}
    for key, value in given.items():
        both = key in _SECTIONS and isinstance(value, dict) and isinstance(merged.get(key), dict)
        if value is not None or key not in _SECTIONS:
            merged[key] = {**merged[key], **value} if both else value
    return merged


def named_rows(
    file: str, overrides: Sequence[str], split: str, note: Note, *, scored: bool = False, labels: bool = False
) -> tuple[str, list[str]]:
    """Return a file and the overrides that read it; a named set, such as glue:cola, becomes one of its files.

    Args:
        file: a file, or the name of a set, with or without a split.
        overrides: `data.name=value`; what the user gives counts more than what the set says.
        split: the split to take where none is named.
        note: called with each line that a user should see.
        scored: whether the rows need targets.
        labels: whether the labels of the set are wanted too, where no model brings its own.

    Raises:
        ConfigError: the set has no such rows.
    """
    root, rest = take_root(overrides)
    if not is_set_name(file):
        is_name = root is not None and file != "-" and not is_remote(file)
        return (str(Path(str(root)) / file) if is_name else file), rest
    named_set, named_split = split_name(file)
    path, reading = rows_settings(named_set, named_split or split, root, scored=scored)
    note(f"{named_set.full_name}: {named_split or split} rows of {path}")
    if labels and "labels" in reading:
        rest = [f"data.labels={json.dumps(reading['labels'], ensure_ascii=False)}", *rest]
    return path, [*reading_overrides(reading), *rest]


def named_files(
    files: Sequence[str], overrides: Sequence[str], split: str, note: Note, *, scored: bool = False
) -> tuple[list[str], list[str]]:
    """Return files and the overrides that read them, as `named_rows` does for one.

    Raises:
        ConfigError: a named set stands beside other files, which are not read as it is.
    """
    named = [file for file in files if is_set_name(file)]
    if named and len(files) > 1:
        raise ConfigError(f"{named[0]}: a named set is read alone, since its columns are its own")
    read = [named_rows(file, overrides, split, note, scored=scored) for file in files]
    return [file for file, _ in read], read[0][1] if read else list(overrides)


def reading_overrides(reading: dict[str, Any]) -> list[str]:
    """Return settings of `data` as overrides; what they leave open is as by default, not as in training."""
    known = {name: reading.get(name, DataConfig.model_fields[name].default) for name in READING_SETTINGS}
    kept = ("bad_rows", "cache", "workers")  # say nothing about the form of a file
    known = {name: value for name, value in known.items() if name not in kept or name in reading}
    return [f"data.{name}={json.dumps(value, ensure_ascii=False)}" for name, value in known.items()]
