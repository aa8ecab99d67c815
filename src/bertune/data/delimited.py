"""csv and tsv files to records: cells, header, and lines with the wrong number of cells."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence

from bertune.data.columns import match_columns, match_text_columns, normalize_name
from bertune.data.records import ReadOptions, Record
from bertune.errors import DataError, listed


def read_delimited(options: ReadOptions, kind: str, text: Iterator[str], *, quoted: bool) -> Iterator[Record]:
    """Yield the records of a csv or tsv file.

    Args:
        options: how to read the file.
        kind: "csv" or "tsv"; it decides the default delimiter.
        text: the lines.
        quoted: whether a field in double quotes may hold delimiters and newlines.

    Raises:
        DataError: a quotation is broken, or the header names a column twice.
    """
    source = options.source
    delimiter = options.settings.delimiter or ("," if kind == "csv" else "\t")
    cells = _quoted_cells(source, text, delimiter) if quoted else _literal_cells(text, delimiter)
    header: list[str] | None = None
    num_blank = 0
    for line, values in cells:
        if not values:
            num_blank += 1
            continue
        if header is None:
            header, is_data = _header(options, line, values)
            if not is_data:
                continue
        if len(values) != len(header):
            message = _wrong_count_message(f"{source}:{line}", values, header, delimiter, quoted=quoted)
            hint = "; if it is a header, set data.columns=null" if line == 1 else ""
            options.bad_rows(message + hint)
            continue
        yield Record(line, dict(zip(header, values, strict=True)))
    if num_blank:
        options.note(f"{source}: {num_blank} blank lines skipped")


def _literal_cells(text: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells; quotation marks are text."""
    for line, content in enumerate(text, 1):
        content = content.removesuffix("\n").removesuffix("\r")
        yield line, content.split(delimiter) if content else []


def _quoted_cells(source: str, text: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells; a field in double quotes may hold delimiters and newlines."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 1
    try:
        for values in reader:
            yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{source}:{line}: broken quotation: {error}; a quotation mark inside a quoted field must be "
            "doubled; if quotation marks are plain text in this file, set data.quoting=none"
        ) from None


def _header(options: ReadOptions, line: int, values: list[str]) -> tuple[list[str], bool]:
    """Return the column names, and whether the first line is itself a row of data."""
    columns = options.settings.columns
    if isinstance(columns, list):
        return _listed_header(options, columns, values)
    if _is_text_per_line(options, values):
        options.note(
            f"{options.source}: one column, and the first line is no column name: "
            "read as one text a line, without header"
        )
        return ["text"], True
    names = [value.strip() or f"column_{number}" for number, value in enumerate(values, 1)]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise DataError(
            f"{options.source}:{line}: the header names {listed(repeated)} twice; "
            f"names found: {listed(names)}"
        )
    return names, False


def _listed_header(options: ReadOptions, columns: list[str], values: list[str]) -> tuple[list[str], bool]:
    """Return the names that data.columns lists, and whether the first line is a row of data."""
    # The list may name "_" several times: ignored columns, told apart by their number.
    names = [f"column_{number}" if name == "_" else name for number, name in enumerate(columns, 1)]
    if [normalize_name(value) for value in values] == [normalize_name(name) for name in columns]:
        options.note(
            f"{options.source}: the first line repeats the names of data.columns, so it is taken as a header"
        )
        return names, False
    fewer = f"{options.source}: has {len(values)} columns where data.columns names {len(names)}"
    if not options.require_target and len(values) == len(names) - 1:
        mapping = match_columns(names, None, options.columns, options.source, require_target=False)
        target = mapping.get(options.columns.target)
        if target is not None:
            options.note(f"{fewer}: taken as rows without {target!r}")
            return [name for name in names if name != target], True
    if not options.columns.target_required and len(values) < len(names):
        names = names[: len(values)]
        options.note(f"{fewer}: taken as {listed(names)}")
    return names, True


def _is_text_per_line(options: ReadOptions, first: list[str]) -> bool:
    """Tell whether a file is plain text, for tasks that learn from texts alone."""
    if len(first) != 1 or options.columns.target_required:
        return False
    mapping = options.settings.columns
    mapped = isinstance(mapping, dict) and first[0].strip() in mapping.values()
    return not mapped and "text" not in match_text_columns(first, options.columns)


def _wrong_count_message(
    location: str, values: Sequence[str], header: Sequence[str], delimiter: str, *, quoted: bool
) -> str:
    """Return the message for a line with the wrong number of cells, with the likely cause."""
    message = f"{location}: {len(values)} columns where {len(header)} are expected ({', '.join(header)})"
    cells = "".join(values)
    if len(values) == 1 and delimiter == "," and "\t" in cells:
        return f"{message}; the line holds tabs: set data.delimiter=tab"
    if len(values) == 1 and ";" in cells and delimiter == ",":
        return f"{message}; the line holds semicolons: set data.delimiter=semicolon"
    if not quoted and any(value.startswith('"') for value in values):
        return (
            f"{message}; a field begins with a quotation mark: if fields are quoted in this file, "
            "set data.quoting=standard"
        )
    return f"{message}; fix the row, or set data.bad_rows=skip"
