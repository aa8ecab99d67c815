"""One YAML file is one run: read it, apply overrides, check everything at once, write it back resolved."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bertune.config.renames import new_name_of
from bertune.config.schema import RunConfig, Section, section_of
from bertune.config.yaml import dump_yaml, parse_yaml
from bertune.errors import ConfigError, did_you_mean
from bertune.files import expand_user

LABEL_SETTINGS = (
    ("data", "labels"),
    ("data", "drop_labels"),
    ("data", "columns"),
    ("data", "columns", "text"),
    ("data", "columns", "text_b"),
    ("data", "columns", "negative"),
    ("data", "columns", "label"),
    ("options", "positive_label"),
    ("options", "class_weights"),
)
"""Settings that name labels or columns: 02 stays "02" there, as the data writes it."""


def read_config(source: str | Path | dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a run file, or accept the name of a task or a dictionary of settings, and apply overrides.

    Raises:
        ConfigError: the file is missing or broken, or an override has no "=".
    """
    raw: Any
    if isinstance(source, dict):
        raw = copy.deepcopy(source)
    elif Path(source).suffix in {".yaml", ".yml"}:
        path = Path(expand_user(source))
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"{source}: cannot read this run file: {reason}") from None
        raw = parse_yaml(text, str(source), LABEL_SETTINGS)
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            raise ConfigError(
                f"{source}: a run file is a mapping such as 'task: classify', got {type(raw).__name__}"
            )
    else:
        raw = {"task": str(source)}
    for override in overrides:
        apply_override(raw, override)
    return dict(raw)


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Apply one `section.name=value` to nested settings, in place.

    Raises:
        ConfigError: it has no "=", or a section on its path is a value.
    """
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{override!r} is not a setting; write section.name=value, such as train.epochs=3")
    section = raw
    for key in keys[:-1]:
        if section.get(key) is None:
            section[key] = {}
        if not isinstance(section[key], dict):
            raise ConfigError(f"{override!r}: {key!r} is a value, not a section")
        section = section[key]
    paths = [path[len(keys) :] for path in LABEL_SETTINGS if list(path[: len(keys)]) == keys]
    value = parse_yaml(text, override, paths)
    # YAML reads a lone "|" or "#" as nothing; here it is a delimiter.
    section[keys[-1]] = text.strip() if value in (None, "") and text.strip() in {"|", ">", "#"} else value


def resolve_config(raw: dict[str, Any], options: type[Section]) -> tuple[RunConfig, Any]:
    """Check a whole run, with the task's own options.

    Returns:
        The run, with the options filled in, and the options as an object of `options`.

    Raises:
        ConfigError: names every error at once.
    """
    errors: list[str] = []
    sections = ("data", "options", "train", "log")
    raw = {
        name: value for name, value in raw.items() if value is not None or name not in sections
    }  # "log:" alone is empty
    given = raw.get("options", {})
    chosen: Any = None
    try:
        chosen = options.model_validate(given)
    except ValidationError as error:
        errors += validation_messages(error, options, ("options",))
    run: RunConfig | None = None
    try:
        run = RunConfig.model_validate({**raw, "options": chosen.model_dump() if chosen else {}})
    except ValidationError as error:
        errors = validation_messages(error, RunConfig, ()) + errors
    if errors or run is None:
        raise ConfigError(
            errors[0] if len(errors) == 1 else "\n".join([f"{len(errors)} settings are wrong:", *errors])
        )
    return run, chosen


def validation_messages(
    error: ValidationError, model: type[BaseModel], parents: tuple[str, ...]
) -> list[str]:
    """Return a line for each setting that is wrong.

    Args:
        error: what pydantic found.
        model: the section that was checked.
        parents: the names of the sections around it.
    """
    seen: dict[str, str] = {}
    for entry in error.errors():
        path = _names(entry["loc"], model)
        name = ".".join((*parents, *path))
        if entry["type"] == "extra_forbidden" and (renamed := new_name_of(name)):
            text = f"{name}: renamed to {renamed}"
        elif entry["type"] == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            allowed = ", ".join(sorted(known))
            text = f"{name}: no such setting{did_you_mean(path[-1], known)}; allowed here: {allowed}"
        elif entry["type"] == "missing":
            text = f"{name}: must be given"
        else:
            reason = entry["msg"].removeprefix("Value error, ")
            where = f"{name}: " if name else ""
            got = "" if isinstance(entry["input"], dict | BaseModel) else f" (got {entry['input']!r})"
            text = f"{where}{reason[0].lower()}{reason[1:]}{got}"
        # A union reports one error for each of its members: one line a setting is enough.
        seen[name] = f"{seen[name]}, or {text.split(': ', 1)[-1]}" if name in seen else text
    return list(seen.values())


def _names(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Drop the parts that pydantic adds to a location for the members of a union."""
    names: list[str] = []
    at: Any = model
    for part in loc:
        names.append(str(part))
        field = at.model_fields.get(str(part))
        section = None if field is None else section_of(field.annotation)
        if section is None:
            break
        at = section
    return names


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    at: Any = model
    for name in path:
        at = section_of(at.model_fields[name].annotation)
    return list(at.model_fields)


def idle_settings(run: RunConfig) -> list[str]:
    """Name the settings that were given but change nothing in this run."""
    train, data = run.train, run.data
    constant = train.schedule == "constant"
    rules: list[tuple[Section, str, bool, str]] = [
        (data, "dev_fraction", data.dev is not None, "data.dev is given"),
        (data, "quoting", data.format in {"json", "jsonl", "parquet"}, f"data.format is {data.format}"),
        (data, "delimiter", data.format in {"json", "jsonl", "parquet"}, f"data.format is {data.format}"),
        (data, "workers", data.cache == "off", "data.cache is off"),
        (train, "epochs", train.max_steps is not None, "train.max_steps is given"),
        (train, "warmup_ratio", train.warmup_steps is not None, "train.warmup_steps is given"),
        (train, "warmup_ratio", constant, "train.schedule is constant"),
        (train, "warmup_steps", constant, "train.schedule is constant"),
        (
            train,
            "schedule_cycles",
            train.schedule != "cosine_with_restarts",
            f"train.schedule is {train.schedule}",
        ),
        (train, "schedule_power", train.schedule != "polynomial", f"train.schedule is {train.schedule}"),
        (train, "min_delta", train.patience is None, "train.patience is not given"),
        (train, "patience", train.eval_every == "end", "train.eval_every is end"),
        (train, "patience", data.dev is None and not data.dev_fraction, "there are no dev rows"),
    ]
    idle = []
    for section, name, without_effect, because in rules:
        default = type(section).model_fields[name].default
        if without_effect and name in section.model_fields_set and getattr(section, name) != default:
            prefix = "data" if section is data else "train"
            idle.append(f"{prefix}.{name}={getattr(section, name)} has no effect, since {because}")
    return idle


def dump_config(run: RunConfig) -> str:
    """Write a resolved run as YAML.

    `out` is left out, so that `bertune train OUT/run.yaml` repeats the run elsewhere.
    """
    return dump_yaml(run.model_dump(exclude={"out"}))
