"""Columns of rows as Arrow arrays, chunk by chunk, for parquet files of any length.

The first chunk with values in a column decides its type. Values of several types, objects and decimals become
JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bertune.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_JSON_METADATA = {b"bertune": b"json"}
"""Metadata of a field whose values are JSON text."""


class ArrowColumns:
    """The columns that have been seen, and their types.

    Attributes:
        fields: by the name of the column, in the order in which columns appeared.
    """

    def __init__(self, fields: Iterable[pa.Field] = ()) -> None:
        self.fields: dict[str, pa.Field] = {
            field.name: _make_field(field.name, field.type, is_json=_is_json(field)) for field in fields
        }

    def to_array(self, name: str, values: list[Any], location_of: Callable[[int], str]) -> pa.Array:
        """Return values in the type of the column; if no chunk has decided that yet, these values do.

        Args:
            name: the column.
            values: one a row, None where the row has none.
            location_of: the location of a row of the chunk, for messages.

        Raises:
            DataError: a value has another type than those of earlier chunks.
        """
        field = self.fields.get(name)
        if field is None or _is_undecided(field.type):
            inferred = _infer(values)
            if field is not None and inferred is not None and not _can_become(field.type, inferred.type):
                inferred = _convert(inferred, field.type)
            array = _to_json_array(values) if inferred is None else inferred
            self.fields[name] = _make_field(name, array.type, is_json=inferred is None)
            return array
        if _is_json(field):
            return _to_json_array(values)
        array = _fit(values, field.type)
        if array is None:
            row = next((n for n, value in enumerate(values) if _fit([value], field.type) is None), 0)
            raise DataError(
                f"{location_of(row)}: the column {name!r} holds {values[row]!r}, and in the rows before it "
                f"{field.type}; give the column values of one kind, or write a .npy file, "
                "which holds only vectors"
            )
        return array

    def cast_column(self, name: str, chunk: pa.Table) -> pa.Array | pa.ChunkedArray:
        """Return the column of an earlier chunk in the type that the column has now."""
        import pyarrow as pa

        field = self.fields[name]
        if name not in chunk.column_names:
            return pa.nulls(len(chunk), field.type)
        column = chunk.column(name)
        if _is_json(field) and not _is_json(chunk.schema.field(name)):
            return _to_json_array(column.to_pylist())
        return column.cast(field.type)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that UTF-8 can encode, lone surrogates too; on one line without `indent`."""
    text = json.dumps(value, ensure_ascii=False, default=str, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str, indent=indent)
    return text


def _make_field(name: str, dtype: pa.DataType, *, is_json: bool) -> pa.Field:
    """Make a field that stays equal when parquet is read back: list items are named as Arrow names them."""
    import pyarrow as pa

    depth, dtype = _innermost(dtype)
    for _ in range(depth):
        dtype = pa.list_(dtype)
    return pa.field(name, dtype, metadata=_JSON_METADATA if is_json else None)


def _is_json(field: pa.Field) -> bool:
    return bool((field.metadata or {}).keys() & _JSON_METADATA.keys())


def _to_json_array(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if value is None else json_text(value) for value in values], pa.string())


def _innermost(dtype: pa.DataType) -> tuple[int, pa.DataType]:
    """Return how deep lists are nested, and the type of their items."""
    import pyarrow as pa

    depth = 0
    while pa.types.is_list(dtype):
        depth, dtype = depth + 1, dtype.value_type
    return depth, dtype


def _is_undecided(dtype: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_null(_innermost(dtype)[1]))


def _can_become(undecided: pa.DataType, decided: pa.DataType) -> bool:
    """Tell whether nulls, or lists without items, may be in a column of the decided type."""
    return _innermost(undecided)[0] <= _innermost(decided)[0]


def _infer(values: list[Any]) -> pa.Array | None:
    """Return values in the type that Arrow infers, or None where that would change them."""
    import pyarrow as pa

    types = {type(value) for value in values if value is not None}
    if len(types) > 1 and not types <= {int, float}:
        return None
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return None
    item = _innermost(array.type)[1]
    return None if pa.types.is_struct(item) or pa.types.is_decimal(item) else array


def _fit(values: list[Any], dtype: pa.DataType) -> pa.Array | None:
    """Return values in a type, or None where that would change one of them."""
    inferred = _infer(values)
    return None if inferred is None else _convert(inferred, dtype)


def _convert(array: pa.Array, dtype: pa.DataType) -> pa.Array | None:
    """Return an array in another type, or None where that would change a value."""
    import pyarrow as pa

    if array.type == dtype:
        return array
    (depth, item), (target_depth, target_item) = _innermost(array.type), _innermost(dtype)
    is_numeric = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (item, target_item))
    is_empty = pa.types.is_null(item) and depth <= target_depth
    if not (is_numeric and depth == target_depth) and not is_empty:
        return None
    try:
        return array.cast(dtype)
    except pa.ArrowException:
        return None
