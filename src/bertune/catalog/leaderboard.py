"""Files for the leaderboards of GLUE, CLUE and CLUENER.

Sources: nyu-mll/GLUE-baselines, src/main.py (header, one line a row, numbers with three decimals); CLUE's
note on submissions of 2021-09-04 (names of files, a JSON object a line, in the order of the test file).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bertune.catalog.named_set import Layout, Leaderboard, NamedSet
from bertune.errors import ConfigError, DataError, listed
from bertune.files import write_text
from bertune.types import Entity, Prediction, Row

_SCORES = (0.0, 5.0)
"""The range of the scores of STS-B."""


def leaderboard_of(named_set: NamedSet) -> Leaderboard:
    """Return what the leaderboard of a set takes.

    Raises:
        ConfigError: the set has no leaderboard.
    """
    if named_set.leaderboard is None:
        raise ConfigError(f"{named_set.full_name}: has no leaderboard that takes files; write .csv or .jsonl")
    return named_set.leaderboard


def submission_name(named_set: NamedSet, source: str) -> str:
    """Return the official name of the file. CLUE has two for sets whose test file changed.

    Args:
        named_set: the set.
        source: the test file that was predicted, such as test1.0.json.
    """
    board = leaderboard_of(named_set)
    return board.old_name if board.old_name and "1.0" in Path(source).name else board.file_name


def write_submission(
    named_set: NamedSet, results: Iterable[tuple[Row, Prediction]], output: str | Path, source: str
) -> Path:
    """Write the predictions of all test rows as the leaderboard of a set takes them; return the file.

    Args:
        named_set: the set.
        results: the rows of its test file in their order, with their predictions.
        output: the file; or a folder, in which it gets its official name. What has no suffix is a folder,
            which is made.
        source: the test file.

    Raises:
        ConfigError: the set has no leaderboard, a prediction is not one of its labels, or the file cannot be
            written.
        DataError: there are more or fewer rows than in the official test set. Nothing is written then.
    """
    board = leaderboard_of(named_set)
    lines = ["index\tprediction"] if board.form == "glue" else []
    labels = _official_labels(named_set, board)
    count = 0
    for count, (row, prediction) in enumerate(results, 1):
        lines.append(_line(named_set, board, labels, count - 1, row, prediction))
    if count not in board.rows:
        rows = " or ".join(f"{number:,}" for number in board.rows)
        raise DataError(
            f"{source}: gives {count:,} predictions, and the official test set of {named_set.full_name} has "
            f"{rows} rows; a leaderboard takes whole test sets only"
        )
    path = Path(output)
    is_folder = path.is_dir() or not path.suffix
    path = path / submission_name(named_set, source) if is_folder else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror or error}") from None
    return path


def _official_labels(named_set: NamedSet, board: Leaderboard) -> dict[str, int]:
    """Return the number of each label, under all the names that it has in forms of the set."""
    numbers: dict[str, int] = {}
    forms: list[Layout | None] = [*named_set.layouts, named_set.hub, named_set.modelscope]
    names = [form.data["labels"] for form in forms if form is not None and "labels" in form.data]
    for labels in (board.labels, named_set.labels, *names):
        for number, label in enumerate(labels):
            numbers.setdefault(str(label), number)
    return numbers


def _line(
    named_set: NamedSet,
    board: Leaderboard,
    labels: dict[str, int],
    index: int,
    row: Row,
    prediction: Prediction,
) -> str:
    if board.form == "cluener":
        return _to_json(_row_id(row, index), {"text": row.fields["text"], "label": _entities(prediction)})
    value = prediction.value
    if not board.labels:
        return f"{index}\t{_clipped(named_set, value):.3f}"
    if str(value) not in labels:
        raise ConfigError(
            f"{named_set.full_name}: the model predicts {value!r}, which is no label of this set; "
            f"its labels: {listed(labels)}"
        )
    number = labels[str(value)]
    if board.form == "glue":
        return f"{index}\t{board.labels[number]}"
    named = {"label_desc": board.descriptions[number]} if board.descriptions else {}
    return _to_json(_row_id(row, index), {"label": board.labels[number], **named})


def _clipped(named_set: NamedSet, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{named_set.full_name}: needs a model that predicts numbers, and got {value!r}")
    return min(max(float(value), _SCORES[0]), _SCORES[1])


def _row_id(row: Row, index: int) -> Any:
    """Return the id of a row of CLUE, which is its number where the row has none."""
    return row.raw.get("id", index)


def _to_json(row_id: Any, values: dict[str, Any]) -> str:
    return json.dumps({"id": row_id, **values}, ensure_ascii=False)


def _entities(prediction: Prediction) -> dict[str, dict[str, list[list[int]]]]:
    """Return entities as CLUENER has them: the places of each text of each type, to its last character."""
    found: dict[str, dict[str, list[list[int]]]] = {}
    entities = prediction.value if isinstance(prediction.value, tuple) else ()
    for entity in entities:
        if isinstance(entity, Entity):
            places = found.setdefault(entity.label, {}).setdefault(entity.text, [])
            places.append([entity.start, entity.end - 1])
    return found
