"""Predictions of rows by models that have not seen them, as files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bertune.errors import DataError
from bertune.files import part_of
from bertune.inference.writers import prediction_to_json
from bertune.selection.spread import without_nan
from bertune.types import JSON, Entity, Example, Location, Prediction, Span

OUT_OF_FOLD = "out_of_fold.jsonl"


class OutOfFold(NamedTuple):
    """A row, and its prediction by a model that was not trained on it."""

    example: Example
    """Texts, target and location; `words` are not kept."""
    prediction: Prediction
    fold: int
    """The fold of the row, from 1; or the seed of the model."""


def write_predictions(path: Path, rows: Iterable[OutOfFold], part: str) -> None:
    """Write a row a line, atomically.

    Args:
        path: the file.
        rows: in the order in which they are written.
        part: the name of the column of `fold`: fold or seed.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = part_of(path)
    with unfinished.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(without_nan(_to_json(row, part)), ensure_ascii=False) + "\n")
    unfinished.replace(path)


def _to_json(row: OutOfFold, part: str) -> JSON:
    example, prediction, number = row
    return {
        "file": example.location.source,
        "line": example.location.line,
        part: number,
        "texts": list(example.texts),
        "label": _target_to_json(example.target),
        **prediction_to_json(prediction),
    }


def _target_to_json(target: Any) -> Any:
    if isinstance(target, Span):
        return target._asdict()
    return [_target_to_json(each) for each in target] if isinstance(target, list | tuple) else target


def read_out_of_fold(path: str | Path) -> list[OutOfFold]:
    """Return the rows of a file that `bertune crossval` has written, in its order.

    Args:
        path: out_of_fold.jsonl, or the folder in which it is.

    Raises:
        DataError: there is no such file, or a line of it is something else.
    """
    file = Path(path).expanduser()
    file = file / OUT_OF_FOLD if file.is_dir() else file
    try:
        return list(_read(file))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not UTF-8 text, so bertune crossval has not written it") from None


def _read(file: Path) -> Iterator[OutOfFold]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _from_json(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{file}:{number}: is no row of out_of_fold.jsonl, as bertune crossval writes them "
                    f"({type(error).__name__}: {error})"
                ) from None


def _from_json(values: JSON) -> OutOfFold:
    example = Example(
        tuple(values["texts"]),
        _target_from_json(values["label"]),
        Location(values["file"], values["line"]),
    )
    prediction = Prediction(
        _value_from_json(values["prediction"]), values.get("confidence"), values.get("probabilities")
    )
    return OutOfFold(example, prediction, values["fold"] if "fold" in values else values["seed"])


def _target_from_json(target: Any) -> Any:
    if not isinstance(target, list):
        return target
    return tuple(Span(**each) if isinstance(each, dict) else each for each in target)


def _value_from_json(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(Entity(**each) if isinstance(each, dict) else each for each in value)
