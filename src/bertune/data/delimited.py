"""csv and tsv files to records: cells by column, and lines with the wrong number of cells."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from bertune.data.dialect import Dialect, choose_dialect, delimiter_name, read_head_lines
from bertune.data.headers import RepeatedHeaders, ignores_further, read_header
from bertune.data.records import ReadOptions, Record
from bertune.errors import DataError

_MIN_SWALLOWED = 3
"""Lines inside a quoted field that look like rows from which they are noted."""


def read_delimited(options: ReadOptions, kind: str, text: Iterator[str]) -> Iterator[Record]:
    """Yield the records of a csv or tsv file.

    Args:
        options: how to read the file.
        kind: "csv" or "tsv"; it decides the usual delimiter and quoting.
        text: the lines.

    Raises:
        DataError: a quotation is broken, the header names a column twice, or the delimiter that the user
            gave divides nothing.
    """
    source = options.source
    head = read_head_lines(text)
    dialect, rows = choose_dialect(options, kind, head)
    lines = itertools.islice(itertools.chain(head, text), dialect.num_skipped, None)
    quoted = _QuotedFields(options, dialect)
    cells = quoted.read(lines) if dialect.quoted else _literal_cells(lines, dialect)
    names: list[str] | None = None
    num_blank = 0
    ignores_more = ignores_further(options.settings.columns)
    for line, values in cells:
        if not values:
            num_blank += 1
            continue
        if names is None:
            names, is_row = read_header(options, line, values, rows)
            repeated = RepeatedHeaders(options, names if is_row else values)
            quoted.num_columns = len(names)
            if not is_row:
                continue
        if ignores_more:
            values = values[: len(names)]
        if repeated.match(line, values):
            continue
        if len(values) != len(names):
            message = _wrong_count_message(f"{source}:{line}", values, names, dialect)
            hint = "; if it is a header, set data.columns=null" if line == 1 else ""
            options.bad_rows(message + hint)
            continue
        yield Record(line, dict(zip(names, values, strict=True)))
    if names is not None:
        repeated.finish()
    quoted.finish()
    if num_blank:
        options.note(f"{source}: {num_blank} blank lines skipped")


def _literal_cells(text: Iterable[str], dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells; quotation marks are text."""
    for line, content in enumerate(text, 1 + dialect.num_skipped):
        content = content.removesuffix("\n").rstrip("\r")
        yield line, content.split(dialect.delimiter) if content else []


class _QuotedFields:
    """Reads cells where a field in double quotes may hold delimiters and newlines; notes odd quotation marks.

    Args:
        options: where to note them.
        dialect: how the file is divided.
    """

    def __init__(self, options: ReadOptions, dialect: Dialect) -> None:
        self._options, self._dialect = options, dialect
        self.num_columns = 0
        """Columns of the file, as soon as they are known."""
        self._separator = re.compile(re.escape(dialect.delimiter) + ("" if dialect.skips_blanks else "(?! )"))
        self._num_unquoted = 0
        self._swallowed: list[str] = []

    def read(self, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield line and cells.

        Raises:
            DataError: a quotation is broken.
        """
        csv.field_size_limit(2**31 - 1)
        delimiter, skipped = self._dialect.delimiter, self._dialect.num_skipped
        reader = csv.reader(
            text, delimiter=delimiter, strict=True, skipinitialspace=self._dialect.skips_blanks
        )
        line = 1 + skipped
        try:
            for values in reader:
                end = reader.line_num + skipped
                if end - line > _MIN_SWALLOWED:
                    self._note_swallowed(line, end, values)
                yield line, self._unquote(values)
                line = end + 1
        except csv.Error as error:
            behind = "not even a blank may stand behind a closing mark; " if "after" in str(error) else ""
            raise DataError(
                f"{self._options.source}:{line}: broken quotation: {error}; {behind}a quotation mark inside "
                "a quoted field must be doubled; if quotation marks are plain text in this file, set "
                "data.quoting=none"
            ) from None

    def _unquote(self, values: list[str]) -> list[str]:
        """Return the cells; one whose quotation marks stand behind a blank loses blank and marks."""
        for n, value in enumerate(values):
            if value[:1] == " " and re.fullmatch(' +"([^"]|"")*" *', value):
                values[n] = value.strip(" ")[1:-1].replace('""', '"')
                self._num_unquoted += 1
        return values

    def _note_swallowed(self, first: int, last: int, values: Sequence[str]) -> None:
        """Remember a field whose lines look like rows: as many delimiters, without the blank of prose."""
        most = max(len(values), self.num_columns) - 1
        for value in values:
            inner = value.split("\n")[1:-1]
            alike = sum(len(self._separator.findall(line)) == most for line in inner)
            if most and alike >= _MIN_SWALLOWED and alike >= 0.9 * len(inner):
                self._swallowed.append(
                    f"{self._options.source}:{first}-{last}: one quoted field spans {last - first + 1} "
                    f"lines, and they look like rows ({inner[0][:40]!r} ...)"
                )

    def finish(self) -> None:
        """Note what was found."""
        if self._swallowed:
            more = len(self._swallowed) - 1
            self._options.note(
                self._swallowed[0]
                + (f"; {more} more fields are so" if more else "")
                + "; a quotation mark may be missing or too many; if quotation marks are plain text in this "
                "file, set data.quoting=none"
            )
        if self._num_unquoted:
            self._options.note(
                f"{self._options.source}: {self._num_unquoted} fields have a blank before their quotation "
                "marks: read without both"
            )


def _wrong_count_message(
    location: str, values: Sequence[str], header: Sequence[str], dialect: Dialect
) -> str:
    """Return the message for a line with the wrong number of cells, with the likely cause."""
    message = f"{location}: {len(values)} columns where {len(header)} are expected ({', '.join(header)})"
    cells = "".join(values)
    if "\r" in cells.strip("\r"):
        return f"{message}; CR stands inside the line: give all lines the same end, LF"
    if not dialect.quoted and any(value.startswith('"') for value in values):
        return (
            f"{message}; a field begins with a quotation mark: if fields are quoted in this file, "
            "set data.quoting=standard"
        )
    if len(header) == 1:
        other = "pipe" if dialect.delimiter == "\t" else "tab"
        name = delimiter_name(dialect.delimiter)
        return f"{message}; if {name} are part of the texts, set data.delimiter={other}, or fix the row"
    others = [d for d in "\t;," if d != dialect.delimiter and cells.count(d) == len(header) - 1]
    if len(values) == 1 and others:
        return (
            f"{message}; this line is divided by {delimiter_name(others[0])}, the file by "
            f"{delimiter_name(dialect.delimiter)}: fix the row, or set data.bad_rows=skip"
        )
    return f"{message}; fix the row, or set data.bad_rows=skip"
