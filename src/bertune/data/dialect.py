"""How a csv or tsv file is divided: its delimiter and quoted fields, from its name and its first lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bertune.data.records import ReadOptions
from bertune.errors import DataError

_HEAD_LINES = 200
"""Most lines that decide how a file is divided."""
_HEAD_CHARACTERS = 1 << 20
"""Characters after which no more lines are looked at."""
_DELIMITERS = {
    ",": "commas", "\t": "tabs", ";": "semicolons", "|": "pipes", "^": "'^'", "~": "'~'", "\x01": "bytes 1",
    ":": "colons", "，": "'，'", "；": "'；'",
}  # fmt: skip
"""Delimiters that are recognised, and how a message calls them."""
_SETTING = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe", " ": "blank"}
_LONG_DELIMITERS = ("||", "::", ";;", "@@", "##", "$$", "~~", "<>", " - ")
_LONGEST_LABEL = 30
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


class _Tables(dict[str, Cells]):
    """The cells of some lines by delimiter, divided when they are asked for."""

    def __init__(self, divide: Callable[[str], Cells]) -> None:
        super().__init__()
        self._divide = divide

    def __missing__(self, delimiter: str) -> Cells:
        """Divide the lines by a delimiter."""
        self[delimiter] = self._divide(delimiter)
        return self[delimiter]


def delimiter_name(delimiter: str) -> str:
    """Return how a message calls a delimiter.

    >>> delimiter_name(";"), delimiter_name("x")
    ('semicolons', "'x'")
    """
    return _DELIMITERS.get(delimiter, "blanks" if delimiter == " " else repr(delimiter))


def read_head_lines(text: Iterator[str]) -> list[str]:
    """Return the first lines, which decide how a file is divided."""
    head: list[str] = []
    length = 0
    while len(head) < _HEAD_LINES and length < _HEAD_CHARACTERS:
        line = next(text, None)
        if line is None:
            break
        head.append(line)
        length += len(line)
    return head


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
    tables = _Tables(lambda each: _divide(head, each, _is_quoted(options, kind, head, each)))
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
    elif best == usual and tables[usual]:
        _refuse_long_delimiter(options, tables[usual][0])
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


def _refuse_long_delimiter(options: ReadOptions, header: Sequence[str]) -> None:
    """Refuse a delimiter of several characters.

    Raises:
        DataError: what divides the header, and how to change it.
    """
    if len(header) > 1 or isinstance(options.settings.columns, list) or _names_columns(options, header):
        return
    for delimiter in _LONG_DELIMITERS:
        cells = header[0].split(delimiter)
        if len(cells) > 1 and _names_columns(options, cells):
            raise DataError(
                f"{options.source}: columns are divided by {delimiter!r}, and a delimiter is one character; "
                f"replace it, as in: sed 's/{delimiter}/\\t/g' {options.source!r} > new.tsv"
            )


def _wraps_fields(rows: Cells, marks: str) -> bool:
    """Tell whether a column has every value between two marks: its name too, or values as short as labels."""

    def is_wrapped(value: str) -> bool:
        return len(value) > 1 and value[0] == marks[0] and value[-1] == marks[1]

    full = [[cell.strip() for cell in row] for row in rows if len(row) == len(rows[0])]
    for first, *values in zip(*full, strict=True):
        is_short = all(len(value) <= _LONGEST_LABEL for value in values)
        if len(values) > 1 and all(map(is_wrapped, values)) and (is_short or is_wrapped(first)):
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


def _choose_delimiter(options: ReadOptions, tables: _Tables, usual: str) -> str:
    """Return the delimiter whose cells fit what the task needs; `usual` where it fits too."""
    if isinstance(options.settings.columns, list):
        return _choose_for_names(options, options.settings.columns, tables, usual)
    return _choose_for_header(options, tables, usual)


def _choose_for_names(options: ReadOptions, names: Sequence[str], tables: _Tables, usual: str) -> str:
    """Choose for a file without header: by how many lines have as many cells as there are names."""
    if len(names) < 2:
        return usual
    widths = {len(names)} if options.require_target else {len(names), len(names) - 1} - {1}
    usual_fit = _share(tables[usual], widths)
    if usual_fit >= 0.5 and _repeats_values(tables[usual]):
        return usual
    fit = {d: _share(tables[d], widths) for d in _DELIMITERS if d != usual}
    others = [d for d in fit if fit[d] >= 0.9]
    if (
        usual_fit >= 0.5
    ):  # both may fit, as where each text has one comma: labels repeat, parts of texts do not
        others = [d for d in others if fit[d] > usual_fit + 0.1 or _repeats_values(tables[d])]
    return others[0] if len(others) == 1 else usual


def _choose_for_header(options: ReadOptions, tables: _Tables, usual: str) -> str:
    """Choose by the column names in the first line, and by lines that have as many cells."""
    if not tables[usual] or _names_columns(options, tables[usual][0]):
        return usual
    others = {d: tables[d] for d in _DELIMITERS if d != usual and tables[d] and _are_names(tables[d][0])}
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
