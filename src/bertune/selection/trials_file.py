"""trials.jsonl: a line of JSON for each trial; beside it study.json, what the trials have in common."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bertune.errors import ConfigError, DataError, listed
from bertune.files import write_bytes
from bertune.selection.trial_text import STATES
from bertune.selection.trials import Study, Trial
from bertune.types import JSON

TRIALS = "trials.jsonl"
STUDY = "study.json"
_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int,),
    "settings": (dict,),
    "state": (str,),
    "score": (int, float, type(None)),
    "values": (dict,),
    "evaluations": (list,),
    "seconds": (int, float),
    "steps": (int,),
    "reason": (str,),
}


def write_trials(path: Path, study: Study) -> None:
    """Write the trials, and study.json beside them; several processes may do so at the same time.

    A number that is not finite is written as null: JSON has none.

    Args:
        path: the file, such as OUT/trials.jsonl.
        study: the trials so far.

    Raises:
        ConfigError: a file cannot be written; the one before is as it was.
    """
    lines = [json.dumps(_valid(trial.to_json()), ensure_ascii=False) + "\n" for trial in study.trials]
    about = {
        "metric": study.metric,
        "higher_is_better": study.higher_is_better,
        "train_rows": study.num_rows[0],
        "scored_rows": study.num_rows[1],
        "planned": study.planned,
    }
    _write(path, "".join(lines))
    _write(path.with_name(STUDY), json.dumps(about, ensure_ascii=False, indent=2) + "\n")


def read_trials(path: Path) -> Study:
    """Read what `write_trials` wrote.

    Args:
        path: trials.jsonl, or its folder.

    Raises:
        DataError: a file is missing or damaged; names file and line.
    """
    path = path / TRIALS if path.is_dir() else path
    about_path = path.with_name(STUDY)
    about = _object(_read(about_path), str(about_path))
    trials = [
        _trial(line, f"{path}:{i}") for i, line in enumerate(_read(path).split("\n"), 1) if line.strip()
    ]
    numbers = [trial.number for trial in trials]
    if len(set(numbers)) < len(numbers):
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        raise DataError(f"{path}: has more than one line for trial {listed(twice)}")
    try:
        rows = int(about["train_rows"]), int(about["scored_rows"])
        higher = bool(about["higher_is_better"])
        return Study(tuple(trials), str(about["metric"]), higher, rows, int(about["planned"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{about_path}: is not what bertune tune wrote: {error!r}") from None


def _write(path: Path, text: str) -> None:
    try:
        write_bytes(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ConfigError(f"out: {str(path)!r} cannot be written: {error.strerror or error}") from None


def _valid(value: Any) -> Any:
    """Return a value with null for each number that is not finite."""
    if isinstance(value, dict):
        return {key: _valid(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_valid(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise DataError(f"{path}: is not UTF-8") from None


def _object(text: str, where: str) -> JSON:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: must be an object of JSON, got {type(value).__name__}")
    return value


def _trial(line: str, where: str) -> Trial:
    found = _object(line, where)
    for name, types in _TYPES.items():
        value = found.get(name)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            allowed = " or ".join(kind.__name__.replace("NoneType", "null") for kind in types)
            got = "nothing" if name not in found else repr(value)
            raise DataError(f"{where}: {name} must be {allowed}, got {got}")
    if found["state"] not in STATES:
        raise DataError(f"{where}: state must be one of {listed(STATES)}, got {found['state']!r}")
    given = {name: found[name] for name in _TYPES}
    return Trial(
        **{
            **given,
            "values": {str(name): _number(value, where) for name, value in found["values"].items()},
            "evaluations": tuple(_number(value, where) for value in found["evaluations"]),
        }
    )


def _number(value: Any, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: a score must be a number or null, got {value!r}")
    return value
