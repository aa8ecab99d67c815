"""One YAML file is one run: read it, apply overrides, check everything at once, write it back resolved."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from bertune.config.schema import RunConfig, Section, is_section
from bertune.config.yaml import _Dumper, parse_yaml
from bertune.errors import ConfigError, did_you_mean


def read_config(source: str | Path | dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a run file, or take a task's name or settings as they are, and lay `section.name=value` over it.

    Raises:
        ConfigError: the file is missing or broken, or an override has no "=".
    """
    raw: Any
    if isinstance(source, dict):
        raw = copy.deepcopy(source)
    elif Path(source).suffix in {".yaml", ".yml"}:
        path = Path(source)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"{source}: cannot read this run file: {reason}") from None
        raw = parse_yaml(text, str(source))
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            raise ConfigError(f"{source}: a run file is a mapping such as 'task: classify', got {type(raw).__name__}")
    else:
        raw = {"task": str(source)}
    for override in overrides:
        apply_override(raw, override)
    return dict(raw)


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Lay one `section.name=value` over nested settings, in place.

    Raises:
        ConfigError: it has no "=", or a section on its way is a value.
    """
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{override!r} is not a setting; write section.name=value, such as train.epochs=3")
    place = raw
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        if not isinstance(place[key], dict):
            raise ConfigError(f"{override!r}: {key!r} is a value, not a section")
        place = place[key]
    value = parse_yaml(text, override)
    # A lone "|" or "#" is YAML for nothing, but a delimiter to whoever writes it here.
    place[keys[-1]] = text.strip() if value in (None, "") and text.strip() in {"|", ">", "#"} else value


def resolve_config(raw: dict[str, Any], options: type[Section]) -> tuple[RunConfig, Any]:
    """Check a whole run, the task's own options included.

    Returns:
        The run, with the options filled in, and the options as an object of `options`.

    Raises:
        ConfigError: names every fault at once.
    """
    faults: list[str] = []
    sections = ("data", "options", "train", "log")
    raw = {name: value for name, value in raw.items() if value is not None or name not in sections}  # "log:" alone is empty
    given = raw.get("options", {})
    chosen: Any = None
    try:
        chosen = options.model_validate(given)
    except ValidationError as error:
        faults += _faults(error, options, ("options",))
    run: RunConfig | None = None
    try:
        run = RunConfig.model_validate({**raw, "options": chosen.model_dump() if chosen else {}})
    except ValidationError as error:
        faults = _faults(error, RunConfig, ()) + faults
    if faults or run is None:
        raise ConfigError(faults[0] if len(faults) == 1 else "\n".join([f"{len(faults)} settings are wrong:", *faults]))
    return run, chosen


def _faults(error: ValidationError, model: type[BaseModel], above: tuple[str, ...]) -> list[str]:
    seen: dict[str, str] = {}
    for fault in error.errors():
        path = _names(fault["loc"], model)
        name = ".".join((*above, *path))
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            text = f"{name}: no such setting{did_you_mean(path[-1], known)}; allowed here: {', '.join(sorted(known))}"
        elif fault["type"] == "missing":
            text = f"{name}: must be given"
        else:
            reason = fault["msg"].removeprefix("Value error, ")
            where = f"{name}: " if name else ""
            got = "" if isinstance(fault["input"], dict | BaseModel) else f" (got {fault['input']!r})"
            text = f"{where}{reason[0].lower()}{reason[1:]}{got}"
        # A union reports one fault for each of its members: one line a setting is enough.
        seen[name] = f"{seen[name]}, or {text.split(': ', 1)[-1]}" if name in seen else text
    return list(seen.values())


def _names(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Drop what pydantic adds to a location to tell members of a union apart."""
    names: list[str] = []
    at: Any = model
    for part in loc:
        names.append(str(part))
        field = at.model_fields.get(str(part))
        if field is None or not is_section(field.annotation):
            break
        at = field.annotation
    return names


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    at: Any = model
    for name in path:
        at = at.model_fields[name].annotation
    return list(at.model_fields)


def idle_settings(run: RunConfig) -> list[str]:
    """Name the settings that were given but change nothing in this run."""
    train, data = run.train, run.data
    constant = train.schedule == "constant"
    rules: list[tuple[Section, str, bool, str]] = [
        (data, "dev_share", data.dev is not None, "data.dev is given"),
        (data, "quoting", data.format in {"json", "jsonl", "parquet"}, f"data.format is {data.format}"),
        (data, "delimiter", data.format in {"json", "jsonl", "parquet"}, f"data.format is {data.format}"),
        (data, "workers", data.cache == "off", "data.cache is off"),
        (train, "epochs", train.max_steps is not None, "train.max_steps is given"),
        (train, "warmup_ratio", train.warmup_steps is not None, "train.warmup_steps is given"),
        (train, "warmup_ratio", constant, "train.schedule is constant"),
        (train, "warmup_steps", constant, "train.schedule is constant"),
        (train, "schedule_cycles", train.schedule != "cosine_with_restarts", f"train.schedule is {train.schedule}"),
        (train, "schedule_power", train.schedule != "polynomial", f"train.schedule is {train.schedule}"),
        (train, "min_gain", train.patience is None, "train.patience is not given"),
    ]
    idle = []
    for section, name, without_effect, because in rules:
        default = type(section).model_fields[name].default
        if without_effect and name in section.model_fields_set and getattr(section, name) != default:
            room = "data" if section is data else "train"
            idle.append(f"{room}.{name}={getattr(section, name)} has no effect, since {because}")
    return idle


def dump_config(run: RunConfig) -> str:
    """Write a resolved run as YAML. `out` is left out, so that `bertune train OUT/run.yaml` repeats the run elsewhere."""
    return yaml.dump(run.model_dump(exclude={"out"}), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
