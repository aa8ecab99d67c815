"""Labels written as 0 or 1 for each label: a list of numbers, or a column for each label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bertune.errors import DataError, listed
from bertune.types import Row

_FLAGS = {
    "0": False, "0.0": False, "0.": False, "false": False, "no": False,
    "1": True, "1.0": True, "1.": True, "true": True, "yes": True,
}  # fmt: skip
_ALLOWED = "0 or 1 (or false, true, no, yes)"


def parse_flag(value: Any) -> bool | None:
    """Return whether a label applies, of a number, a boolean or a text; None for every other value.

    >>> [parse_flag(v) for v in (1, 0.0, "1", "True", "no", True, 2, "late", None)]
    [True, False, True, True, False, True, None, None, None]
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return None


def all_flags(values: Iterable[Any]) -> bool:
    """Tell whether every value is 0 or 1, in any form of `parse_flag`."""
    return all(parse_flag(value) is not None for value in values)


def is_multi_hot(values: Sequence[Any]) -> bool:
    """Tell whether a list can only be a 0 or 1 for each label: a list of labels names no label twice.

    >>> is_multi_hot([0, 1, 1]), is_multi_hot([1, 1]), is_multi_hot([0, 1]), is_multi_hot([0, 3, 3])
    (True, True, False, False)
    """
    return len(values) > 1 and all_flags(values) and len(set(map(parse_flag, values))) < len(values)


def labels_of_list(row: Row, field: str, values: Sequence[Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that apply, of a list with a 0 or 1 for each label.

    Args:
        row: the row, for messages.
        field: the field with the list.
        values: the list.
        names: the label of each position.

    Raises:
        DataError: the list has another length, or another value.
    """
    if len(values) != len(names) or not all_flags(values):
        raise DataError(
            f"{row.location}: {field!r} must be a list of {len(names)} values 0 or 1, one for each label, "
            f"as in the other rows; got {len(values)}: {str(list(values))[:40]}"
        )
    return tuple(name for name, value in zip(names, values, strict=True) if parse_flag(value))


def labels_of_columns(row: Row, field: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels that apply, of a mapping with a 0 or 1 for each label.

    Raises:
        DataError: a value is missing, or none of 0 and 1.
    """
    for name, value in values.items():
        if parse_flag(value) is None:
            got = "nothing" if value is None or value == "" or value != value else f"{str(value)[:40]!r}"
            raise DataError(
                f"{row.location}: {str(name)!r} must be {_ALLOWED}, since it says whether this label of "
                f"{field!r} applies; got {got}"
            )
    return tuple(str(name) for name, value in values.items() if parse_flag(value))


def unnamed_label_columns(rows: Sequence[Mapping[str, Any]], fields: Mapping[str, str]) -> str:
    """Return advice for a table without a column of labels, but with columns of 0 and 1; else "".

    Args:
        rows: some rows of the table; value by column.
        fields: the columns of fields that are known already.
    """
    columns = [column for column in rows[0] if column not in fields.values()]
    flags = [c for c in columns if all(parse_flag(row.get(c)) is not None for row in rows)]
    texts = [c for c in columns if c not in flags and all(isinstance(row.get(c), str) for row in rows)]
    if len(flags) < 2 or len(rows) < 2 or not (texts or "text" in fields):
        return ""
    longest = max(texts, key=lambda column: sum(len(row[column]) for row in rows), default="")
    named = {"text": longest, **fields}
    mapping = ", ".join(f"{field}: {_quoted(column)}" for field, column in named.items())
    setting = f"data.columns={{{mapping}, label: [{', '.join(map(_quoted, flags))}]}}"
    return f'columns {listed(flags)} hold 0 and 1: for several labels a text set "{setting}"'


def _quoted(name: str) -> str:
    """Return a column name as YAML reads it inside braces."""
    return name if name.replace("_", "").replace(" ", "").isalnum() and name == name.strip() else f"'{name}'"
