"""Where the rows of a JSON document are: in an array, under a key, by columns, or as pandas writes tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bertune.data.columns import match_text_columns, normalize_name
from bertune.data.records import ReadOptions
from bertune.errors import DataError, listed

_BLANKS = " \t\r\n"
_SELF_DESCRIPTION = {"title", "message", "comment", "content", "query", "body"}
"""Names of texts that may describe a document which holds the rows."""
_MAX_DEPTH = 3
"""Objects in objects in which rows are looked for."""

_decoder = json.JSONDecoder()


class JsonError(Exception):
    """A document is not JSON.

    Attributes:
        offset: where.
        problem: what is wrong.
    """

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(problem)
        self.offset, self.problem = offset, problem


class Found(NamedTuple):
    """Rows of a document, some values yet without names."""

    values: Iterator[tuple[int, Any]]
    """Each row, with its offset in the text; or -1 where a row has no place of its own."""
    how: str = ""
    """What a user should know about where they are."""


def skip_blanks(text: str, offset: int) -> int:
    """Return the offset of the next character that is no blank."""
    while offset < len(text) and text[offset] in _BLANKS:
        offset += 1
    return offset


def decode(text: str, offset: int) -> tuple[Any, int]:
    """Return the value that begins at an offset, and the offset behind it.

    Raises:
        JsonError: there is none.
    """
    try:
        return _decoder.raw_decode(text, offset)
    except json.JSONDecodeError as error:
        raise JsonError(error.pos, error.msg) from None
    except RecursionError:
        raise JsonError(offset, "values nested too deeply") from None


def decode_line(content: str) -> Any:
    """Return the value of a line of JSON.

    Raises:
        JSONDecodeError: the line is broken, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise json.JSONDecodeError("values nested too deeply", content, 0) from None


def read_elements(text: str, offset: int) -> Iterator[tuple[int, Any]]:
    """Yield the elements of the array that begins at an offset, each with its offset.

    Raises:
        JsonError: the array is broken, or more than blanks follows an array which the text begins with.
    """
    is_document = skip_blanks(text, 0) == offset
    opening = "["  # what must stand before the next element
    while True:
        offset = skip_blanks(text, offset)
        character = text[offset : offset + 1]
        if character == "]" and opening == ",":
            break
        if character != opening:
            raise JsonError(offset, "expected ',' or ']'")
        offset = skip_blanks(text, offset + 1)
        if opening == "[" and text[offset : offset + 1] == "]":
            break
        value, end = decode(text, offset)
        yield offset, value
        offset, opening = end, ","
    after = skip_blanks(text, offset + 1)
    if is_document and after < len(text):
        raise JsonError(after, "the array has ended, but more follows")


def _member_offsets(text: str, offset: int) -> dict[str, int]:
    """Return the offset of each value of a sound object that begins at an offset."""
    offsets: dict[str, int] = {}
    offset = skip_blanks(text, offset + 1)
    while text[offset] != "}":
        key, offset = decode(text, offset)
        offset = skip_blanks(text, skip_blanks(text, offset) + 1)  # behind the colon
        offsets[key] = offset
        offset = skip_blanks(text, decode(text, offset)[1])
        if text[offset] == ",":
            offset = skip_blanks(text, offset + 1)
    return offsets


def may_hold_rows(value: dict[str, Any]) -> bool:
    """Tell whether an object may be a document with rows, rather than a row."""
    return any(isinstance(member, dict | list) for member in value.values())


def find_rows(
    options: ReadOptions, text: str, offset: int, value: dict[str, Any], *, depth: int = 1
) -> Found:
    """Find the rows of a document that is one object.

    Args:
        options: which fields the task needs, which tells rows from other objects.
        text: the document.
        offset: where the object begins.
        value: the object.
        depth: how many objects it is in, itself among them.

    Raises:
        DataError: there are several places where rows may be.
    """
    text_column = _text_column(options, value)
    is_row = isinstance(value.get(text_column), str)
    if (is_row and normalize_name(text_column) not in _SELF_DESCRIPTION) or _is_annotated_row(value):
        return Found(iter([(offset, value)]))
    found = _find_table(options, text, offset, value) or _find_columns(options, text, offset, value)
    if found:
        return found
    paths = list(_paths_of_rows(value))
    if is_row or len(paths) > 1:
        paths = [path for path in paths if options.has_columns(_first_keys(_at(value, path)))]
        paths = [] if is_row and options.has_columns(list(value)) else paths
    if len(paths) > 1:
        places = listed(".".join(path) for path in paths)
        raise DataError(
            f"{options.source}: the object holds rows in {len(paths)} places: {places}; "
            "put each into a file of its own"
        )
    if not paths:
        inside = _find_inside(options, text, offset, value, depth + 1) if depth < _MAX_DEPTH else None
        return inside or Found(iter([(offset, value)]))
    for key in paths[0]:
        offset = _member_offsets(text, offset)[key]
    return Found(read_elements(text, offset), f"the rows are under {'.'.join(paths[0])!r}")


def _find_inside(
    options: ReadOptions, text: str, offset: int, value: dict[str, Any], depth: int
) -> Found | None:
    """Find the rows of an object whose only inner object is a table or holds columns."""
    inner = [key for key, member in value.items() if isinstance(member, dict | list)]
    if len(inner) != 1 or not isinstance(value[inner[0]], dict):
        return None
    start = _member_offsets(text, offset)[inner[0]]
    found = find_rows(options, text, start, value[inner[0]], depth=depth)
    return found._replace(how=f"under {inner[0]!r}: {found.how}") if found.how else None


def _is_annotated_row(value: dict[str, Any]) -> bool:
    """Tell whether an object is one row with words, or one of an annotation tool."""
    is_task = "annotations" in value and isinstance(value.get("data"), dict)
    return is_task or any(_are_all(value.get(name), str) for name in ("tokens", "words"))


def _find_table(options: ReadOptions, text: str, offset: int, value: dict[str, Any]) -> Found | None:
    """Find the rows in the forms in which data frames and the viewer of the Hub are written."""
    columns, data, rows = (value.get(key, []) for key in ("columns", "data", "rows"))
    if _are_all(columns, str) and _are_all(data, list):
        start = _member_offsets(text, offset)["data"]
        named = ((at, _zip(options, columns, row)) for at, row in read_elements(text, start))
        return Found(named, "column names are under 'columns', rows under 'data' (pandas: orient='split')")
    if isinstance(value.get("schema"), dict) and _are_all(data, dict):
        start = _member_offsets(text, offset)["data"]
        return Found(read_elements(text, start), "the rows are under 'data' (pandas: orient='table')")
    if "features" in value and _are_all(rows, dict) and all(isinstance(row.get("row"), dict) for row in rows):
        start = _member_offsets(text, offset)["rows"]
        inner = ((at, row["row"]) for at, row in read_elements(text, start))
        return Found(inner, "the rows are under 'rows', each under 'row' (the viewer of the Hub)")
    return None


def _zip(options: ReadOptions, columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    if len(columns) != len(row):
        raise DataError(
            f"{options.source}: a row under 'data' has {len(row)} values for {len(columns)} columns"
        )
    return dict(zip(columns, row, strict=True))


def _find_columns(options: ReadOptions, text: str, offset: int, value: dict[str, Any]) -> Found | None:
    """Find the rows of an object with an array or an object for each column, or an object for each row."""
    members = list(value.values())
    if _are_all(members, list):
        rows = _zip_arrays(options, value)
        if rows is not None:
            return Found(
                ((-1, row) for row in rows), "each column is an array; messages count rows, not lines"
            )
    if not (
        _are_all(members, dict) and len({tuple(sorted(member)) for member in members}) == 1 and members[0]
    ):
        return None
    inner = list(members[0])
    if options.has_columns(inner) or (not options.has_columns(list(value)) and _are_numbers(value)):
        start = _member_offsets(text, offset)
        rows_by_name = ((start[key], row) for key, row in value.items())
        return Found(rows_by_name, "each row is an object under a name of its own (pandas: orient='index')")
    if options.has_columns(list(value)) or _are_numbers(inner):
        rows = [{column: member[key] for column, member in value.items()} for key in inner]
        how = "each column is an object (pandas: orient='columns'); messages count rows, not lines"
        return Found(((-1, row) for row in rows), how)
    return None


def _zip_arrays(options: ReadOptions, value: dict[str, list[Any]]) -> list[dict[str, Any]] | None:
    """Return the rows of an object with an array for each column, or None where it is something else."""
    text_column = _text_column(options, value)
    if not text_column and any(map(_are_rows, value.values())):
        return None
    element = list if options.columns.is_word_level else str | int | float | None
    texts = value[text_column or next(iter(value))]
    if not texts or not all(isinstance(text, element) for text in texts):
        return None
    lengths = {name: len(member) for name, member in value.items()}
    if len(set(lengths.values())) > 1:
        found = listed([f"{name}: {length}" for name, length in lengths.items()], most=5)
        raise DataError(f"{options.source}: arrays of different lengths are no columns: {found}")
    return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]


def _are_all(values: Any, kind: type) -> bool:
    """Tell whether there is a list with some values, all of a kind."""
    return isinstance(values, list) and bool(values) and all(isinstance(value, kind) for value in values)


def _are_numbers(names: Any) -> bool:
    return all(name.isdigit() for name in names)


def _paths_of_rows(value: dict[str, Any], depth: int = 1) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to each list of rows."""
    for key, member in value.items():
        if _are_rows(member):
            yield (key,)
        elif isinstance(member, dict) and depth < _MAX_DEPTH:
            yield from ((key, *path) for path in _paths_of_rows(member, depth + 1))


def _are_rows(value: Any) -> bool:
    return _are_all(value, dict) or (_are_all(value, list) and all(map(is_text_pair, value)))


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value[key]
    return value


def _first_keys(rows: list[Any]) -> list[str]:
    return list(rows[0]) if isinstance(rows[0], dict) else ["text", *rows[0][1]]


def is_text_pair(value: Any) -> bool:
    """Tell whether a value is a text with an object about it, as spaCy has in training data."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], dict)
    )


def _text_column(options: ReadOptions, value: dict[str, Any]) -> str:
    """Return the key of a text, or "" where no key has the name of one."""
    mapping = options.settings.columns
    given = mapping.get("text") if isinstance(mapping, dict) else None
    if isinstance(given, str) and given in value:
        return given
    pair = "text_b" in (*options.columns.required, *options.columns.optional)
    name = match_text_columns(list(value), options.columns, pair=pair).get("text", "")
    return name if isinstance(name, str) else ""
