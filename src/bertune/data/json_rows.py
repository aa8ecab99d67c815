"""JSON files to records: an object a line, an array, or a document that holds the rows."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bertune.data.json_shapes import (
    Found,
    JsonError,
    decode,
    decode_line,
    find_rows,
    is_text_pair,
    may_hold_rows,
    read_elements,
    skip_blanks,
)
from bertune.data.records import ReadOptions, Record
from bertune.errors import DataError

Line = tuple[int, str]
_LONGEST_PIECE = 6
"""Characters of an escape, the longest piece of JSON besides strings that may be cut."""


def read_json(options: ReadOptions, text: Iterator[str]) -> Iterator[Record]:
    """Yield the records of a JSON file. A document is read whole; lines are not.

    Raises:
        DataError: a document is broken, or its rows are in several places.
    """
    lines: Iterator[Line] = enumerate(text, 1)
    first = next((line for line in lines if line[1].strip()), None)
    if first is None:
        return
    number, content = first
    following = list(_to_next_full(lines)) if _may_be_document(content) else []
    rest = itertools.chain([first], following, lines)
    if _is_document(content, any(line.strip() for _, line in following)):
        document = _Document(options, "".join(line for _, line in rest), number)
        if document.is_sound():
            yield from document.read()
        else:  # its first line is broken, so each line is read by itself
            yield from _read_lines(options, document.lines(), num_blank=number - 1)
        return
    yield from _read_lines(options, rest, num_blank=number - 1)


def _to_next_full(lines: Iterator[Line]) -> Iterator[Line]:
    """Yield lines up to the next that is not blank."""
    for line in lines:
        yield line
        if line[1].strip():
            return


def _may_be_document(content: str) -> bool:
    """Tell whether a first line may begin a document, so that the next line must be seen."""
    if content.lstrip().startswith("["):
        return True
    return content.lstrip().startswith("{") and (_goes_on(content) or _is_nested(content))


def _is_document(content: str, more: bool) -> bool:
    """Tell whether a document begins with this line; `more` says whether more lines are full."""
    if not _may_be_document(content):
        return False
    if content.lstrip().startswith("["):
        return not (more and _is_list_row(content))
    return _goes_on(content) or not more


def _goes_on(content: str) -> bool:
    """Tell whether a value of JSON has no end in this line."""
    try:
        decode_line(content)
    except json.JSONDecodeError as error:
        return error.pos >= len(content.rstrip())
    return False


def _is_nested(content: str) -> bool:
    try:
        value = decode_line(content)
    except json.JSONDecodeError:
        return False
    return isinstance(value, dict) and may_hold_rows(value)


def _is_list_row(content: str) -> bool:
    """Tell whether a line is a list of values which are one row: it begins with no object and no list."""
    try:
        value = decode_line(content)
    except json.JSONDecodeError:
        return False
    return bool(value) and not isinstance(value[0], dict | list)


def looks_like_json(text: str, *, is_cut: bool = False) -> bool:
    """Tell whether a file that begins so holds JSON: objects, or an array of objects or arrays.

    Args:
        text: the beginning, or the whole file.
        is_cut: whether more follows, so that the last value may be incomplete.
    """
    start = skip_blanks(text, 0)
    try:
        if re.match(r"\[\s*[\[{]", text[start : start + 100]):
            return len(list(itertools.islice(read_elements(text, start), 2))) > 0
        if text[start : start + 1] != "{":
            return False
        value, end = decode(text, start)
    except JsonError as error:
        in_string = error.problem.startswith("Unterminated string")  # which has no newline
        return is_cut and (in_string or error.offset >= len(text.rstrip()) - _LONGEST_PIECE)
    return bool(value) and text[end:].lstrip(" ,\r")[:1] in {"", "\n", "{"}


class _Document:
    """A file that is one value of JSON, or several values which take many lines.

    Args:
        options: how to read the file.
        text: the file from its first full line on.
        first_line: the number of this line.
    """

    def __init__(self, options: ReadOptions, text: str, first_line: int) -> None:
        self._options, self._text, self._first_line = options, text, first_line
        self._start = skip_blanks(text, 0)
        self._counted = (0, first_line)  # an offset, and its line

    def is_sound(self) -> bool:
        """Tell whether it can be read as a document; a broken array tells its fault when it is read."""
        if self._text[self._start] == "[":
            return True
        try:
            decode(self._text, self._start)
        except JsonError:
            return False
        return True

    def lines(self) -> Iterator[Line]:
        """Yield the lines."""
        return enumerate(self._text.removesuffix("\n").split("\n"), self._first_line)

    def read(self) -> Iterator[Record]:
        """Yield the records.

        Raises:
            DataError: the document is broken, or an element is no row.
        """
        source = self._options.source
        rows = _Rows(self._options, self._raise)
        try:
            found = self._find()
            if found.how:
                self._options.note(f"{source}: {found.how}")
            for count, (offset, value) in enumerate(found.values, 1):
                record = rows.read(count if offset < 0 else self._line(offset), value)
                if record is not None:
                    yield record
        except JsonError as error:
            column = error.offset - self._text.rfind("\n", 0, error.offset)
            line = self._first_line + self._text.count("\n", 0, error.offset)
            raise DataError(f"{source}:{line}: broken JSON: {error.problem} at column {column}") from None

    def _find(self) -> Found:
        if self._text[self._start] == "[":
            return Found(read_elements(self._text, self._start))
        value, end = decode(self._text, self._start)
        if skip_blanks(self._text, end) < len(self._text):
            return Found(self._successive(), "objects that follow each other, each over several lines")
        return find_rows(self._options, self._text, self._start, value)

    def _successive(self) -> Iterator[tuple[int, Any]]:
        offset = self._start
        while offset < len(self._text):
            if self._text[offset] == ",":
                raise JsonError(offset, "a comma between objects that are in no array: remove it")
            value, end = decode(self._text, offset)
            yield offset, value
            offset = skip_blanks(self._text, end)

    def _line(self, offset: int) -> int:
        """Return the line of an offset; quick if offsets ascend."""
        last, line = self._counted
        line += self._text.count("\n", last, offset)
        self._counted = offset, line
        return line

    def _raise(self, message: str) -> None:
        raise DataError(message)


class _Rows:
    """Turns values of JSON into records; notes once what is unusual about them.

    Args:
        options: how to read the file.
        on_bad: called with the message about a value that is no row.
    """

    def __init__(self, options: ReadOptions, on_bad: Callable[[str], None]) -> None:
        self._options, self._on_bad = options, on_bad
        self._noted: set[str] = set()
        self._names = options.settings.columns if isinstance(options.settings.columns, list) else None
        self._header: list[str] | None = None

    def read(self, line: int, value: Any) -> Record | None:
        """Return the record of a value, or None where it is a header or no row."""
        if isinstance(value, dict):
            if self._names is not None:
                self._note(
                    "has names of its own, so the list in data.columns, which is for files without header, "
                    "is not used"
                )
            return Record(line, value)
        if is_text_pair(value):
            self._note("rows are a text and an object about it, as for spaCy: the text is column 'text'")
            return Record(line, {"text": value[0], **value[1]})
        if isinstance(value, list):
            return self._read_list(line, value)
        if isinstance(value, str) and not self._options.require_target:
            self._note("the array holds texts alone")
            return Record(line, {"text": value})
        self._on_bad(self._no_row(line, value))
        return None

    def _read_list(self, line: int, values: list[Any]) -> Record | None:
        """Return the record of a list of values, which data.columns or a list before it names."""
        is_first = not self._noted
        names = self._header or self._names
        if names is not None and len(names) == len(values):
            self._note(
                "rows are lists of values in the order of " + ("data.columns" if self._names else "the first")
            )
            named = zip(names, values, strict=True)
            return Record(line, {name: value for name, value in named if name != "_"})
        if is_first and names is None and self._is_header(values):
            self._header = values
            return None
        hint = "; name the values of a list, as in data.columns=[text,label]" if len(values) > 1 else ""
        self._on_bad(self._no_row(line, values) + hint)
        return None

    def _is_header(self, values: list[Any]) -> bool:
        return all(isinstance(value, str) for value in values) and self._options.has_columns(values)

    def _no_row(self, line: int, value: Any) -> str:
        found = type(value).__name__
        return f'{self._options.source}:{line}: expected a JSON object such as {{"text": ...}}, got {found}'

    def _note(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._options.note(f"{self._options.source}: {message}")


def _read_lines(options: ReadOptions, lines: Iterable[Line], num_blank: int) -> Iterator[Record]:
    """Yield the records of lines of JSON."""
    rows = _Rows(options, options.bad_rows)
    is_first = True
    for line, content in lines:
        if not content.strip():
            num_blank += 1
            continue
        try:
            values = (decode_line(content),)
        except json.JSONDecodeError as error:
            values = _split_objects(content)
            if not values:
                options.bad_rows(f"{options.source}:{line}: {_fault(content, error, is_first=is_first)}")
        is_first = False
        for value in values:
            record = rows.read(line, value)
            if record is not None:
                yield record
    if num_blank:
        options.note(f"{options.source}: {num_blank} blank lines skipped")


def read_json_line(options: ReadOptions, line: int, content: str) -> Iterator[Record]:
    """Yield the records of one line of JSON; a broken one goes to `options.bad_rows`."""
    return _read_lines(options, [(line, content)], num_blank=0)


def _split_objects(content: str) -> tuple[Any, ...]:
    """Return the objects of a line that has several behind each other; none if it is broken."""
    values = []
    offset = skip_blanks(content, 0)
    while offset < len(content):
        try:
            value, offset = decode(content, offset)
        except JsonError:
            return ()
        values.append(value)
        offset = skip_blanks(content, offset)
    return tuple(values) if all(isinstance(value, dict) for value in values) else ()


def _fault(content: str, error: json.JSONDecodeError, *, is_first: bool) -> str:
    """Return what is wrong with a line."""
    message = f"broken JSON: {error.msg} at column {error.colno}; "
    if error.msg == "Extra data" and content[error.pos :].strip() == ",":
        return message + "a comma follows the object: remove it, or put all objects into one array"
    if is_first and content.lstrip()[:1] not in "{[":
        return message + "if the file holds no JSON, set data.format to csv, tsv, lines or what it is"
    return message + "each line must be one object"
