"""Labels and numbers as files write them, and label <-> id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bertune.errors import ConfigError, DataError, did_you_mean, listed
from bertune.types import Example, Row


def format_label(value: Any) -> str:
    """Write one label as text: integers and whole floats without a point, booleans in lower case.

    >>> [format_label(v) for v in ("good", 3, 2.0, 2.5, True)]
    ['good', '3', '2', '2.5', 'true']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return each label once: numbers by value, everything else by code point.

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
    if any(map(math.isnan, numbers.values())):  # nothing is less or more than NaN
        return tuple(sorted(unique))
    return tuple(sorted(unique, key=lambda label: (numbers[label], label)))


def read_labels(given: list[str] | str | None) -> tuple[str, ...] | None:
    """Return the labels that `data.labels` states, from the list itself or a file with one a line.

    Raises:
        ConfigError: the file is missing, empty, or names a label twice.
    """
    if given is None or isinstance(given, list):
        return tuple(given) if given is not None else None
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


def get_text(row: Row, part: str) -> str:
    """Return a text of a row.

    Raises:
        DataError: it is missing, no text, or empty.
    """
    value = row.fields.get(part)
    if is_missing(value):
        raise DataError(f"{row.location}: {part!r} is missing; every row needs it")
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{row.location}: {part!r} must be text, got {type(value).__name__} ({str(value)[:40]!r})"
        )
    text = str(value)
    if not text.strip():
        raise DataError(f"{row.location}: {part!r} is empty; remove the row, or set data.bad_rows=skip")
    return check_surrogates(text, row, part)


def check_surrogates(text: str, row: Row, part: str) -> str:
    """Return a text that UTF-8 can write.

    Raises:
        DataError: it holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{row.location}: {part!r} holds half of a letter (a lone surrogate, as of an emoji cut in two)"
        ) from None
    return text


def get_label(row: Row, part: str) -> str | None:
    """Return a single label, or None where there is none.

    Raises:
        DataError: the value is a list or another container.
    """
    value = row.fields.get(part)
    if is_missing(value):
        return None
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{row.location}: {part!r} must be one label, got {type(value).__name__} ({str(value)[:40]!r}); "
            "for several labels a row set options.problem_type=multi_label"
        )
    return check_surrogates(format_label(value), row, part) or None


def get_labels(row: Row, part: str, delimiter: str | None) -> tuple[str, ...] | None:
    """Return the labels of a multi-label row, each once; an empty list or text means none of them applies.

    Raises:
        DataError: the value is neither a list nor text.
    """
    value = row.fields.get(part)
    if value is None:
        return None
    if isinstance(value, str):
        value = (
            [piece for piece in value.split(delimiter) if piece.strip()]
            if delimiter
            else [value]
            if value.strip()
            else []
        )
    if not isinstance(value, list) or not all(isinstance(v, str | int | float) for v in value):
        raise DataError(
            f"{row.location}: {part!r} must be a list of labels, got {str(row.fields.get(part))[:40]!r}"
        )
    return tuple(dict.fromkeys(label for v in value if (label := format_label(v))))


def get_number(row: Row, part: str) -> float | None:
    """Return a finite number, or None where there is none.

    Raises:
        DataError: the value is not a number, or not finite.
    """
    value = row.fields.get(part)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float("_" if "_" in str(value) else value)  # Python takes 1_000
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{row.location}: {part!r} must be a number, got {str(value)[:40]!r}") from None
    if not math.isfinite(number):
        raise DataError(f"{row.location}: {part!r} must be a finite number, got {value!r}")
    return number


class LabelTypeCheck:
    """Sees to it that the labels of a file are all text, or all numbers: a mix is a slip, and 1 is not "one"."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}  # file -> kind, and where it was seen first

    def check(self, row: Row, part: str) -> None:
        """Take in one row.

        Raises:
            DataError: its label is of another kind than those before it in the same file.
        """
        value = row.fields.get(part)
        if is_missing(value) or isinstance(value, list | dict):
            return
        kind = (
            "a boolean"
            if isinstance(value, bool)
            else "a number"
            if isinstance(value, int | float)
            else "text"
        )
        first, place = self._first.setdefault(row.location.source, (kind, str(row.location)))
        if kind != first:
            raise DataError(
                f"{row.location}: the label is {kind} ({value!r}), but {first} at {place}; write all labels the same way"
            )


def unknown_label_error(
    example: Example, label: str, labels: Sequence[str], location: str | None = None
) -> DataError:
    """Return the error for a label that training rows do not have, at the example or at a `location` in it."""
    return DataError(
        f"{location or str(example.location)}: label {label!r} is not among the {len(labels)} labels learned from the training rows "
        f"({listed(labels)}){did_you_mean(label, labels)}; mend the row, or name every label in data.labels"
    )
