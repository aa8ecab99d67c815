"""Columns of rows as Arrow arrays, chunk by chunk, without a look at the whole: for parquet files of any length.

The first chunk that has values in a column decides its type. Values of several kinds, objects and decimals become JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bertune.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_MARK = {b"bertune": b"json"}
"""What a field says of itself where each of its values is JSON text."""


class ArrowColumns:
    """What the columns are, as far as is known.

    Attributes:
        fields: by the name of the column, in the order in which they came.
    """

    def __init__(self, fields: Iterable[pa.Field] = ()) -> None:
        self.fields: dict[str, pa.Field] = {
            field.name: _field(field.name, field.type, of_json=_is_json(field)) for field in fields
        }

    def to_array(self, name: str, values: list[Any], location_of: Callable[[int], str]) -> pa.Array:
        """Return values as what the column is; if nothing has decided that yet, these do.

        Args:
            name: the column.
            values: one for each row, None where it has none.
            location_of: says for a message where a value stands.

        Raises:
            DataError: a value is of another kind than those of earlier chunks.
        """
        field = self.fields.get(name)
        if field is None or _is_undecided(field.type):
            found = _inferred(values)
            if field is not None and found is not None and not _can_become(field.type, found.type):
                found = _converted(found, field.type)
            array = _json_text(values) if found is None else found
            self.fields[name] = _field(name, array.type, of_json=found is None)
            return array
        if _is_json(field):
            return _json_text(values)
        array = _fitted(values, field.type)
        if array is None:
            place = next((n for n, value in enumerate(values) if _fitted([value], field.type) is None), 0)
            raise DataError(
                f"{location_of(place)}: the column {name!r} holds {values[place]!r}, and in the rows before it {field.type}; "
                "give the column values of one kind, or write a .npy file, which holds vectors alone"
            )
        return array

    def cast_column(self, name: str, chunk: pa.Table) -> pa.Array | pa.ChunkedArray:
        """Return the column of an earlier chunk as what the column has become."""
        import pyarrow as pa

        field = self.fields[name]
        if name not in chunk.column_names:
            return pa.nulls(len(chunk), field.type)
        column = chunk.column(name)
        if _is_json(field) and not _is_json(chunk.schema.field(name)):
            return _json_text(column.to_pylist())
        return column.cast(field.type)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that UTF-8 can hold, half of an emoji included; on one line unless it is indented."""
    text = json.dumps(value, ensure_ascii=False, default=str, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str, indent=indent)
    return text


def _field(name: str, of_type: pa.DataType, *, of_json: bool) -> pa.Field:
    """Make a field; lists are named as Arrow names them, not as parquet does, so that a field is the same after it was read back."""
    import pyarrow as pa

    depth, of_type = _innermost(of_type)
    for _ in range(depth):
        of_type = pa.list_(of_type)
    return pa.field(name, of_type, metadata=_MARK if of_json else None)


def _is_json(field: pa.Field) -> bool:
    return bool((field.metadata or {}).keys() & _MARK.keys())


def _json_text(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if value is None else json_text(value) for value in values], pa.string())


def _innermost(found: pa.DataType) -> tuple[int, pa.DataType]:
    """Return how deep lists are nested, and what stands in them."""
    import pyarrow as pa

    depth = 0
    while pa.types.is_list(found):
        depth, found = depth + 1, found.value_type
    return depth, found


def _is_undecided(found: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_null(_innermost(found)[1]))


def _can_become(undecided: pa.DataType, decided: pa.DataType) -> bool:
    """Return whether lists without values, or no values at all, may stand in a column of another type."""
    return _innermost(undecided)[0] <= _innermost(decided)[0]


def _inferred(values: list[Any]) -> pa.Array | None:
    """Return values as Arrow takes them, or None where it would not keep them as they are."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and not kinds <= {int, float}:
        return None
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return None
    inner = _innermost(array.type)[1]
    return None if pa.types.is_struct(inner) or pa.types.is_decimal(inner) else array


def _fitted(values: list[Any], wanted: pa.DataType) -> pa.Array | None:
    """Return values as the wanted type, or None where one of them would not stay what it is."""
    found = _inferred(values)
    return None if found is None else _converted(found, wanted)


def _converted(found: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    import pyarrow as pa

    if found.type == wanted:
        return found
    (depth, here), (wanted_depth, there) = _innermost(found.type), _innermost(wanted)
    numbers = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (here, there))
    if not (numbers and depth == wanted_depth) and not (pa.types.is_null(here) and depth <= wanted_depth):
        return None
    try:
        return found.cast(wanted)
    except pa.ArrowException:
        return None
