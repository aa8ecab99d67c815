"""The values of a row: texts, labels and numbers as files write them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bertune.data.columns import SpreadValue
from bertune.data.list_text import parse_list_text
from bertune.errors import ConfigError, DataError, LazyDataError, did_you_mean, listed
from bertune.types import Example, Row


def format_label(value: Any) -> str:
    """Return a label as text: integers and whole floats without a point, booleans in lower case.

    >>> [format_label(v) for v in ("good", 3, 2.0, 2.5, True)]
    ['good', '3', '2', '2.5', 'true']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return each label once: by value if all are numbers, else by code point.

    >>> sort_labels(["10", "9", "9"])
    ('9', '10')
    >>> sort_labels(["b", "a", "10"])
    ('10', 'a', 'b')
    """
    unique = set(labels)
    try:
        numbers = {label: float(label) for label in unique}
    except ValueError:
        return tuple(sorted(unique))
    if any(map(math.isnan, numbers.values())):  # NaN has no order
        return tuple(sorted(unique))
    return tuple(sorted(unique, key=lambda label: (numbers[label], label)))


def read_labels(given: list[str] | str | None) -> tuple[str, ...] | None:
    """Return the labels of `data.labels`: a list, or a file with one label a line.

    Raises:
        ConfigError: the file is missing, empty, or names a label twice.
    """
    if given is None:
        return None
    if isinstance(given, list):
        return tuple(given)
    try:
        lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"data.labels: cannot read {given!r}: {error}") from None
    labels = [line.strip() for line in lines if line.strip()]
    if not labels or len(set(labels)) < len(labels):
        raise ConfigError(
            f"data.labels: {given!r} must name every label once, one a line, got {listed(labels)}"
        )
    return tuple(labels)


def is_missing(value: Any) -> bool:
    """Tell whether there is no value: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def get_text(row: Row, field: str) -> str:
    """Return a text of a row; a text that is spread over several columns is joined by blanks.

    Raises:
        DataError: the value is missing, empty, or not text.
    """
    value = row.fields.get(field)
    if isinstance(value, SpreadValue):
        value = _join_texts(value, row, field)
    if is_missing(value):
        raise DataError(f"{row.location}: {field!r} is missing; every row needs it")
    if not isinstance(value, str | int | float):
        raise DataError(f"{row.location}: {field!r} must be text, got {type(value).__name__} {_short(value)}")
    text = str(value)
    if not text.strip():
        raise DataError(f"{row.location}: {field!r} is empty; remove the row, or set data.bad_rows=skip")
    return check_surrogates(text, row, field)


def _join_texts(values: SpreadValue, row: Row, field: str) -> str:
    """Return the texts of several columns, joined by blanks; empty ones are left out."""
    parts = [part for part in values.values() if not is_missing(part) and str(part).strip()]
    wrong = next((part for part in parts if not isinstance(part, str | int | float)), None)
    if wrong is not None:
        raise DataError(f"{row.location}: {field!r} must be text, got {type(wrong).__name__} {_short(wrong)}")
    return " ".join(str(part).strip() for part in parts)


def _short(value: Any) -> str:
    """Return the beginning of a value in brackets, for messages."""
    return f"({str(value)[:40]!r})"


def check_surrogates(text: str, row: Row, field: str) -> str:
    """Return a text that can be written as UTF-8.

    Raises:
        DataError: the text has a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{row.location}: {field!r} has half a character (a lone surrogate, as of an emoji cut in two)"
        ) from None
    return text


def get_label(row: Row, field: str) -> str | None:
    """Return the label of a single-label row, or None where it has none.

    Raises:
        DataError: the value is a list or another container.
    """
    value = row.fields.get(field)
    if is_missing(value):
        return None
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{row.location}: {field!r} must be one label, got {type(value).__name__} {_short(value)}; "
            "for several labels a row set options.problem_type=multi_label"
        )
    return check_surrogates(format_label(value), row, field) or None


def get_label_list(value: Any, delimiter: str | None) -> list[Any] | None:
    """Return the labels of a value that holds several; None for one label, a mapping, or nothing.

    Args:
        value: a list; a text that writes a list, as csv files do; or a text with delimiters.
        delimiter: the character between labels in text.

    >>> get_label_list("['late', 'damaged']", None), get_label_list("late|damaged", "|")
    (['late', 'damaged'], ['late', 'damaged'])
    >>> get_label_list("late", None) is None
    True
    """
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        items = parse_list_text(value)
        if items is not None and not any(isinstance(item, list | tuple | dict) for item in items):
            return items
        return [text for text in value.split(delimiter) if text.strip()] if delimiter else None
    if hasattr(value, "tolist"):  # numpy
        values = value.tolist()
        return values if isinstance(values, list) else None
    return None


def get_labels(row: Row, field: str, delimiter: str | None) -> tuple[str, ...] | None:
    """Return the labels of a multi-label row, each once; an empty list or text means that none applies.

    Args:
        row: the row.
        field: the field with the labels.
        delimiter: the character between labels in text; None takes a text as one label, unless it writes a
            list.

    Raises:
        DataError: the value is neither a list nor text, or a label of the list is missing.
    """
    value = row.fields.get(field)
    if value is None:
        return None
    labels = get_label_list(value, delimiter)
    if labels is None and isinstance(value, str):
        labels = [value] if value.strip() else []
    if labels is None or not all(isinstance(v, str | int | float) and not is_missing(v) for v in labels):
        raise DataError(f"{row.location}: {field!r} must be a list of labels, got {str(value)[:40]!r}")
    return tuple(dict.fromkeys(label for v in labels if (label := format_label(v))))


def get_number(row: Row, field: str) -> float | None:
    """Return a finite number, or None where there is none.

    Raises:
        DataError: the value is not a number, or not finite.
    """
    value = row.fields.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float("_" if "_" in str(value) else value)  # Python reads 1_000 as a number
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{row.location}: {field!r} must be a number, got {str(value)[:40]!r}") from None
    if not math.isfinite(number):
        raise DataError(f"{row.location}: {field!r} must be a finite number, got {value!r}")
    return number


class LabelTypeCheck:
    """Checks that the labels of a file are all text, or all numbers: 1 and "one" in one file is a mistake."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}  # type and location of the first label, by source

    def check(self, row: Row, field: str) -> None:
        """Check the label of one row.

        Raises:
            DataError: its type differs from that of the first label of the same file.
        """
        value = row.fields.get(field)
        if is_missing(value) or isinstance(value, list | dict):
            return
        kind = "text"
        if isinstance(value, bool):
            kind = "a boolean"
        elif isinstance(value, int | float):
            kind = "a number"
        first, location = self._first.setdefault(row.location.source, (kind, str(row.location)))
        if kind != first:
            raise DataError(
                f"{row.location}: the label is {kind} ({value!r}), but {first} at {location}; "
                "write all labels the same way"
            )


def unknown_label_error(
    example: Example, label: str, labels: Sequence[str], location: str | None = None
) -> DataError:
    """Return the error for a label that no training row has.

    Args:
        example: the example with the label.
        label: the label.
        labels: the labels that the task knows.
        location: where the label is, if not at the example's own location.
    """
    where = location or str(example.location)
    return LazyDataError(
        lambda: (
            f"{where}: label {label!r} is not among the {len(labels)} labels learned "
            f"from the training rows ({listed(labels)}){did_you_mean(label, labels)}; "
            "fix the row, or name every label in data.labels"
        )
    )
