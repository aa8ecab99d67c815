"""How a csv or tsv file is divided: its delimiter and quoted fields, from its name and its first lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bertune.data.records import ReadOptions
from bertune.errors import DataError

HEAD_LINES = 200
"""Lines that decide how a file is divided."""
_DELIMITERS = {
    ",": "commas", "\t": "tabs", ";": "semicolons", "|": "pipes", "^": "'^'", "~": "'~'", "\x01": "bytes 1",
}  # fmt: skip
"""Delimiters that are recognised, and how a message calls them."""
_SETTING = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe", " ": "blank"}
_MIN_ROWS = 4
"""Rows from which repeated values in a column mean something."""

Cells = list[list[str]]


@dataclass(frozen=True)
class Dialect:
    """How the lines of a file are divided."""

    delimiter: str
    quoted: bool
    """Whether a field in double quotes may hold delimiters and newlines."""
    skips_blanks: bool = False
    """Whether blanks after a delimiter are no part of the next field."""
    num_skipped: int = 0
    """Lines before the header."""


def delimiter_name(delimiter: str) -> str:
    """Return how a message calls a delimiter.

    >>> delimiter_name(";"), delimiter_name("x")
    ('semicolons', "'x'")
    """
    return _DELIMITERS.get(delimiter, "blanks" if delimiter == " " else repr(delimiter))


def choose_dialect(options: ReadOptions, kind: str, head: Sequence[str]) -> tuple[Dialect, Cells]:
    """Return how a file is divided, and the cells of its first lines, blank lines left out.

    Args:
        options: how to read the file; its delimiter and quoting count first.
        kind: "csv" or "tsv": a comma or a tab, unless the lines say otherwise.
        head: the first lines.

    Raises:
        DataError: the delimiter that the user gave divides nothing, where another one would.
    """
    settings, source = options.settings, options.source
    separator = re.fullmatch('"?sep=(.)"?', head[0].rstrip("\r\n"), re.IGNORECASE) if head else None
    num_skipped = 1 if separator else 0
    head = head[num_skipped:]
    usual = _usual(kind)
    delimiter = settings.delimiter or (separator[1] if separator else usual)
    tables = {
        each: _divide(head, each, _is_quoted(options, kind, head, each))
        for each in dict.fromkeys([delimiter, *_DELIMITERS])
    }
    best = (
        delimiter if separator and not settings.delimiter else _choose_delimiter(options, tables, delimiter)
    )
    if settings.delimiter is None and best != delimiter:
        options.note(
            f"{source}: columns are divided by {delimiter_name(best)}, not by {delimiter_name(usual)} as in "
            f"other {kind} files, and are read so (set data.delimiter to read it otherwise)"
        )
        delimiter = best
    elif best != delimiter and all(len(row) == 1 for row in tables[delimiter]):
        raise DataError(
            f"{source}: no line is divided by {delimiter_name(delimiter)} (data.delimiter), but by "
            f"{delimiter_name(best)}; set data.delimiter={_SETTING.get(best, best)}"
        )
    if separator:
        options.note(f"{source}: the first line, sep={separator[1]}, names the delimiter, as for Excel")
    quoted = _is_quoted(options, kind, head, delimiter)
    if not quoted and settings.quoting == "auto" and _wraps_fields(tables[delimiter], '""'):
        quoted = _parses(head, delimiter)
    if quoted and kind == "tsv" and settings.quoting == "auto" and any('"' in line for line in head):
        options.note(
            f"{source}: quotation marks around fields are no part of them "
            "(set data.quoting=none to keep them)"
        )
    skips_blanks = quoted and _has_blanks_before_quotes(head, delimiter)
    if skips_blanks:
        options.note(f"{source}: blanks before quoted fields are no part of the fields")
    rows = _divide(head, delimiter, quoted, skips_blanks)
    for marks in ("''", "``", "\u2018\u2019", "\u201c\u201d"):
        if _wraps_fields(rows, marks):
            options.note(
                f"{source}: fields begin with {marks[0]} and end with {marks[1]}, and are read with these "
                'marks; only double quotation marks (") quote a field'
            )
    return Dialect(delimiter, quoted, skips_blanks, num_skipped), rows


def _wraps_fields(rows: Cells, marks: str) -> bool:
    """Tell whether a column has every value below its first between two marks."""
    width = len(rows[0]) if rows else 0
    for column in zip(*(row for row in rows[1:] if len(row) == width), strict=True):
        values = [value.strip() for value in column]
        if len(values) > 1 and all(len(v) > 1 and v[0] == marks[0] and v[-1] == marks[1] for v in values):
            return True
    return False


def _has_blanks_before_quotes(head: Sequence[str], delimiter: str) -> bool:
    """Tell whether fields are quoted behind blanks: `a, "b"`, not `a, "b" and more`."""
    rows = _divide(head, delimiter, True)
    return any(re.match(' +"', cell) for row in rows for cell in row) and _parses(head, delimiter)


def _parses(head: Iterable[str], delimiter: str) -> bool:
    """Tell whether the quotation marks of some lines are sound; the last field may be cut."""
    csv.field_size_limit(2**31 - 1)
    try:
        return any(list(csv.reader(head, delimiter=delimiter, skipinitialspace=True, strict=True)))
    except csv.Error as error:
        return "unexpected end of data" in str(error)


def _usual(kind: str) -> str:
    return "," if kind == "csv" else "\t"


def _is_quoted(options: ReadOptions, kind: str, head: Iterable[str], delimiter: str) -> bool:
    """Tell whether fields may be quoted; under another delimiter than the usual one, the lines decide."""
    if options.settings.quoting != "auto":
        return options.settings.quoting == "standard"
    if options.settings.delimiter or delimiter == _usual(kind):
        return kind == "csv"
    return _parses(head, delimiter)


def _divide(head: Iterable[str], delimiter: str, quoted: bool, skips_blanks: bool = False) -> Cells:
    """Return the cells of some lines, without blank lines."""
    if not quoted:
        contents = [line.rstrip("\r\n") for line in head]
        return [content.split(delimiter) for content in contents if content]
    csv.field_size_limit(2**31 - 1)
    try:
        return [row for row in csv.reader(head, delimiter=delimiter, skipinitialspace=skips_blanks) if row]
    except csv.Error:
        return []


def _choose_delimiter(options: ReadOptions, tables: dict[str, Cells], usual: str) -> str:
    """Return the delimiter whose cells fit what the task needs; `usual` where it fits too."""
    if isinstance(options.settings.columns, list):
        return _choose_for_names(options, options.settings.columns, tables, usual)
    return _choose_for_header(options, tables, usual)


def _choose_for_names(
    options: ReadOptions, names: Sequence[str], tables: dict[str, Cells], usual: str
) -> str:
    """Choose for a file without header: by how many lines have as many cells as there are names."""
    if len(names) < 2:
        return usual
    widths = {len(names)} if options.require_target else {len(names), len(names) - 1} - {1}
    fit = {delimiter: _share(rows, widths) for delimiter, rows in tables.items()}
    clear = fit[usual] >= 0.5 and not _repeats_values(tables[usual])
    others = [delimiter for delimiter in tables if delimiter != usual and fit[delimiter] >= 0.9]
    if clear:  # both may fit, as where each text has one comma: labels repeat, parts of texts do not
        others = [d for d in others if fit[d] > fit[usual] + 0.1 or _repeats_values(tables[d])]
    elif fit[usual] >= 0.5:
        return usual
    return others[0] if len(others) == 1 else usual


def _choose_for_header(options: ReadOptions, tables: dict[str, Cells], usual: str) -> str:
    """Choose by the column names in the first line, and by lines that have as many cells."""
    if not tables[usual] or _names_columns(options, tables[usual][0]):
        return usual
    others = {d: rows for d, rows in tables.items() if d != usual and rows and _are_names(rows[0])}
    fit = {d: _share(rows[1:], {len(rows[0])}) for d, rows in others.items()}
    known = [d for d, rows in others.items() if _names_columns(options, rows[0])]
    undivided = len(tables[usual][0]) == 1
    if undivided and options.require_target:  # one column cannot do
        enough, candidates = (0.0, known) if known else (0.9, list(others))
    else:
        enough, candidates = 0.9, known
    candidates = [d for d in candidates if fit[d] >= enough]
    return max(candidates, key=lambda d: fit[d], default=usual)


def _names_columns(options: ReadOptions, header: Sequence[str]) -> bool:
    return options.has_columns([name.strip() for name in header])


def _are_names(cells: Sequence[str]) -> bool:
    """Tell whether some cells look like names of columns: several, short, none empty, none twice."""
    short = all(cell.strip() and len(cell) <= 40 and len(cell.split()) <= 4 for cell in cells)
    return len(cells) > 1 and short and len(set(cells)) == len(cells)


def _share(rows: Cells, widths: set[int]) -> float:
    """Return which part of some rows has one of these numbers of cells."""
    return sum(len(row) in widths for row in rows) / len(rows) if rows else 0.0


def _repeats_values(rows: Cells) -> bool:
    """Tell whether some column has few values, as labels are."""
    width = max(map(len, rows), default=0)
    columns = [[row[n].strip() for row in rows if len(row) == width] for n in range(width)]
    return any(has_few_values(column) for column in columns)


def has_few_values(column: Sequence[str]) -> bool:
    """Tell whether most values of a column stand in other rows too."""
    return len(column) >= _MIN_ROWS and len(set(column)) * 2 <= len(column)
