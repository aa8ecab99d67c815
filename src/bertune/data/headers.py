"""The first line of a csv or tsv file: names of columns, or a row; and lines that repeat it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bertune.data.columns import (
    PAIR_ALIASES,
    TARGET_ALIASES,
    TEXT_ALIASES,
    match_columns,
    match_text_columns,
    normalize_name,
)
from bertune.data.dialect import Cells, has_few_values
from bertune.data.records import ReadOptions
from bertune.errors import DataError, listed

_KNOWN_NAMES = {
    *TEXT_ALIASES,
    *TARGET_ALIASES,
    *(name for pair in PAIR_ALIASES for name in pair),
    "id",
    "index",
}
_MISSING_VALUES = {"na", "n/a", "nan", "none", "null", "nil", "unknown"}
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Header(NamedTuple):
    """The names of the columns, and whether the first line is itself a row."""

    names: list[str]
    is_row: bool


def ignores_further(columns: object) -> bool:
    """Tell whether `data.columns` says that lines may have more columns than it names.

    >>> ignores_further(["text", "label", "..."]), ignores_further(["text", "label"])
    (True, False)
    """
    return isinstance(columns, list) and len(columns) > 1 and columns[-1] == "..."


def read_header(options: ReadOptions, line: int, values: list[str], rows: Cells) -> Header:
    """Return the names of the columns.

    Args:
        options: how to read the file.
        line: the number of the first line that is not blank.
        values: its cells.
        rows: the cells of the first lines, this one among them, to compare it with.

    Raises:
        DataError: the header names a column twice, or those of data.columns in another order.
    """
    columns = options.settings.columns
    if isinstance(columns, list):
        if ignores_further(columns):
            columns = columns[:-1]
            values, rows = values[: len(columns)], [cells[: len(columns)] for cells in rows]
        return _listed_header(options, columns, line, values, rows)
    source = options.source
    if _is_text_per_line(options, values):
        options.note(
            f"{source}: one column, and the first line is no column name: "
            "read as one text a line, without header"
        )
        return Header(["text"], True)
    names = [value.strip() or f"column_{number}" for number, value in enumerate(values, 1)]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise DataError(
            f"{source}:{line}: the header names {listed(repeated)} twice; names found: {listed(names)}"
        )
    is_plain = columns is None and ".txt" in Path(source.lower()).suffixes
    if len(names) == 1 and is_plain and options.has_columns(names):
        options.note(
            f"{source}:{line}: the first line, {names[0]!r}, is taken as the name of the column; "
            "if it is a text, set data.columns=[text]"
        )
    return Header(names, False)


def _listed_header(
    options: ReadOptions, columns: list[str], line: int, values: list[str], rows: Cells
) -> Header:
    """Return the names that data.columns lists, unless the first line is a header of its own."""
    # The list may name "_" several times: ignored columns, told apart by their number.
    names = [f"column_{number}" if name == "_" else name for number, name in enumerate(columns, 1)]
    if _same_names(values, columns):
        options.note(
            f"{options.source}: the first line repeats the names of data.columns, so it is taken as a header"
        )
        return Header(names, False)
    _refuse_other_order(options, columns, line, values)
    if len(values) == len(names) and _is_header(options, columns, line, values, rows[1:]):
        return Header(names, False)
    fewer = f"{options.source}: has {len(values)} columns where data.columns names {len(names)}"
    target = None
    if not options.require_target and len(values) == len(names) - 1:
        mapping = match_columns(names, None, options.columns, options.source, require_target=False)
        target = mapping.get(options.columns.target)
    if target is not None:
        options.note(f"{fewer}: taken as rows without {target!r}")
        is_row = not _is_short_header(
            options, [name for name in columns if name != target], line, values, rows[1:]
        )
        return Header([name for name in names if name != target], is_row)
    if not options.columns.target_required and len(values) < len(names):
        names = names[: len(values)]
        options.note(f"{fewer}: taken as {listed(names)}")
    return Header(names, True)


def _refuse_other_order(options: ReadOptions, columns: list[str], line: int, values: list[str]) -> None:
    """Refuse a header with the names of data.columns in another order.

    Raises:
        DataError: both orders.
    """
    if len(columns) > 1 and sorted(map(normalize_name, values)) == sorted(map(normalize_name, columns)):
        raise DataError(
            f"{options.source}:{line}: the first line names the columns in the order {listed(values)}, "
            f"data.columns in the order {listed(columns)}; leave data.columns out, and the first line counts"
        )


def _is_short_header(
    options: ReadOptions, columns: list[str], line: int, first: list[str], rows: Cells
) -> bool:
    """Tell whether the first line is a header without the label; note what it may be."""
    if _same_names(first, columns) or _is_header(options, columns, line, first, rows):
        return True
    if "text" in columns and normalize_name(first[columns.index("text")]) in _KNOWN_NAMES:
        options.note(
            f"{options.source}:{line}: the first line ({listed(first)}) is read as a row, but may be a "
            "header; if it is one, remove it"
        )
    return False


def _is_header(options: ReadOptions, columns: list[str], line: int, first: list[str], rows: Cells) -> bool:
    """Tell whether the first line is a header though data.columns names the columns; note what it may be.

    It is one where its cells are well-known names of columns, or words above numbers, and none of them
    stands in the rows below.
    """
    used = [n for n, name in enumerate(columns) if name != "_"]
    below = {n: [row[n].strip() for row in rows if len(row) == len(columns)] for n in used}
    cells = {n: first[n].strip() for n in used}
    if not any(below.values()) or not all(_may_be_name(cell) for cell in cells.values()):
        return False
    if any(cells[n] in below[n] for n in used):
        return False
    known = [n for n in used if normalize_name(cells[n]) in {*_KNOWN_NAMES, normalize_name(columns[n])}]
    numbers = [n for n in used if len(below[n]) > 1 and all(map(_is_number, below[n]))]
    labels = [n for n in used if has_few_values(below[n])]
    place = f"{options.source}:{line}: the first line ({listed(cells.values())})"
    if len(used) > 1 and (numbers or len(known) == len(used) or (known and labels)):
        why = "names columns" if known else "has words where the rows have numbers"
        options.note(f"{place} {why}, so it is taken as a header; if it is a row, move it down")
        return True
    fields = match_columns(columns, None, options.columns, options.source, require_target=False)
    cell_of = {field: first[columns.index(name)] for field, name in fields.items() if isinstance(name, str)}
    label = cell_of.get(options.columns.target, "")
    if label in [first[n] for n in labels]:
        mapping = ", ".join(f"{field}: {cell}" for field, cell in cell_of.items())
        options.note(
            f"{place} is read as a row, but may be a header: none of the next {len(rows)} rows has "
            f"{label!r}; if it is one, set data.columns={{{mapping}}}"
        )
    return False


def _may_be_name(cell: str) -> bool:
    """Tell whether a cell may be the name of a column: short, without the marks of sentences, no number."""
    longest = 8 if _CJK.search(cell) else 30
    if cell.lower() in _MISSING_VALUES:
        return False
    short = 0 < len(cell) <= longest and len(cell.split()) <= 3
    return short and any(map(str.isalpha, cell)) and not re.search("[.,:;!?。，！？：；]", cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _same_names(values: Sequence[str], names: Sequence[str]) -> bool:
    return [normalize_name(value) for value in values] == [normalize_name(name) for name in names]


def _is_text_per_line(options: ReadOptions, first: list[str]) -> bool:
    """Tell whether a file is plain text, for tasks that learn from texts alone."""
    if len(first) != 1 or options.columns.target_required:
        return False
    mapping = options.settings.columns
    mapped = isinstance(mapping, dict) and first[0].strip() in mapping.values()
    return not mapped and "text" not in match_text_columns(first, options.columns)


class RepeatedHeaders:
    """Finds lines that repeat the header, as files have that were joined, and counts them.

    Args:
        options: where to note them.
        header: the cells of the header, or the names that stand for them.
    """

    def __init__(self, options: ReadOptions, header: Sequence[str]) -> None:
        self._options = options
        self._header = [normalize_name(cell) for cell in header]
        self._longest = len(header[0]) + 8  # so that most rows need one comparison only
        self._lines: list[int] = []

    def match(self, line: int, values: Sequence[str]) -> bool:
        """Tell whether a line is the header again. With one column it may be a text, so it stays a row."""
        if len(values[0]) > self._longest or len(values) != len(self._header):
            return False
        if normalize_name(values[0]) != self._header[0] or list(map(normalize_name, values)) != self._header:
            return False
        self._lines.append(line)
        return len(values) > 1

    def finish(self) -> None:
        """Note the lines that were found."""
        if not self._lines:
            return
        lines = ", ".join(map(str, self._lines[:5])) + (", ..." if len(self._lines) > 5 else "")
        place = f"{self._options.source}:{self._lines[0]}: "
        if len(self._header) > 1:
            message = (
                f"the header again, as of joined files: {len(self._lines)} such lines left out ({lines})"
            )
        else:
            message = f"the name of the column again, read as a text ({lines}); remove it if it is none"
        self._options.note(place + message)
