"""Files to rows: records whose columns are mapped to the fields that a task reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from bertune.data.columns import (
    ColumnMapping,
    MissingColumn,
    columns_of,
    describe_mapping,
    field_value,
    match_columns,
    match_text_columns,
    unread_pair,
)
from bertune.data.exports import convert_exports, text_column
from bertune.data.formats import detect_format, read_records
from bertune.data.multi_hot import unnamed_label_columns
from bertune.data.records import ReadOptions, Record
from bertune.data.word_rows import WordTable, group_words, word_columns
from bertune.errors import DataError, listed
from bertune.files import is_remote, split_remote
from bertune.types import Location, Row


class RowReader:
    """An open data file: its columns, and its rows one by one.

    Args:
        options: how to read the file.
        header: the column names of its first record.
        records: its records.
        recognised: column name by field, as the form of the file shows; `data.columns` counts more.
        grouping: columns that hold no field, but say which words are a sentence.
    """

    def __init__(
        self,
        options: ReadOptions,
        header: list[str],
        records: Iterable[Record],
        recognised: dict[str, str] | None = None,
        grouping: Sequence[str] = (),
    ) -> None:
        self.source = options.source
        self.header = header
        self._options = options
        self._recognised = recognised or {}
        self._grouping = grouping
        self._records = records
        self._mappings: dict[tuple[str, ...], ColumnMapping] = {}
        self.mapping = self._match(header)
        """Column by field, or a tuple of columns."""

    def _match(self, header: Iterable[str]) -> ColumnMapping:
        """Return column by field, for a record with these columns."""
        key = tuple(header)
        if key not in self._mappings:
            columns = self._options.settings.columns
            given = {**self._recognised, **(columns if isinstance(columns, dict) else {})}
            self._mappings[key] = match_columns(
                key,
                given,
                self._options.columns,
                self.source,
                require_target=self._options.require_target,
            )
        return self._mappings[key]

    def __iter__(self) -> Iterator[Row]:
        """Yield each row once.

        JSON objects may differ in their keys. One with other fields than the first row is a bad row.
        """
        expected = set(self.mapping)
        for line, record, stride, word_records in self._records:
            mapping = self.mapping
            if record.keys() != set(self.header):
                missing = [column for column in columns_of(self.mapping) if column not in record]
                mapping = self._match([*record, *missing])  # the task decides about missing values
                varying = set(self._options.columns.varying)
                if set(mapping) - varying != expected - varying:
                    different = ", ".join(sorted(set(mapping) ^ expected))
                    self._options.bad_rows(
                        f"{self.source}:{line}: has other fields than the first row ({different}); "
                        "give every row the same keys"
                    )
                    continue
            fields = {field: field_value(record, names) for field, names in mapping.items()}
            yield Row(fields, Location(self.source, line, stride), record, word_records)

    def describe(self) -> str:
        """Return a line that says which column holds which field, and which columns are not used."""
        used = [*columns_of(self.mapping), *self._grouping]
        unused = [column for column in self.header if column not in used]
        line = f"{self.source}: {describe_mapping(self.mapping)}"
        return line + (f"; not used: {listed(unused)}" if unused else "") + self._pair_advice()

    def _pair_advice(self) -> str:
        """Return what to type where a second text may have been left out."""
        pair = unread_pair(self.header, self.mapping, self._options.columns)
        if pair is None or self._options.settings.columns is not None:
            return ""
        target = self.mapping.get(self._options.columns.target)
        label = f", {self._options.columns.target}: {target}" if isinstance(target, str) else ""
        return f" (data.columns={{text: {pair[0]}, text_b: {pair[1]}{label}}} reads both texts)"


def open_rows(options: ReadOptions) -> RowReader:
    """Open a data file.

    Raises:
        DataError: the file is missing, empty, of another encoding, or lacks a column.
    """
    records = read_records(options)
    table: WordTable | None = None
    if options.columns.is_word_level:
        records, table = group_words(convert_exports(records, options), options)
    first = next(records, None)
    is_conll = detect_format(options.source, options.settings, options.columns) == "conll"
    if first and options.settings.sentence_ends and not is_conll and not first.word_records:
        options.note(
            f"{options.source}: data.sentence_ends has no effect, since each row is a whole text already"
        )
    if first is None:
        for line in options.bad_rows.finish():
            options.note(line)
        raise DataError(f"{options.source}: holds no rows")
    header = list(first.values)
    recognised: dict[str, str] = {}
    if table is not None:
        recognised = table.mapping(options.columns.target)
    elif options.columns.is_word_level:
        recognised = {**word_columns(header, options.columns), **text_column(first)}
    grouping = table.grouping if table is not None else ()
    try:
        return RowReader(options, header, itertools.chain([first], records), recognised, grouping)
    except MissingColumn as error:
        advice = _label_columns_advice(options, error, [first, *itertools.islice(records, 100)])
        if not advice:
            raise
        raise DataError(f"{error}{advice}") from None


def _label_columns_advice(options: ReadOptions, error: MissingColumn, records: list[Record]) -> str:
    """Return how to name columns of 0 and 1 as labels, where the file has no other column of labels."""
    columns, given = options.columns, options.settings.columns
    if columns.target not in error.fields or columns.target not in columns.spreadable:
        return ""
    if isinstance(given, list):
        return ""
    rows = [record.values for record in records]
    texts = match_text_columns(list(rows[0]), columns) | (given or {})
    advice = unnamed_label_columns(rows, {f: c for f, c in texts.items() if isinstance(c, str)})
    return advice and f"; {advice}"


def resolve_files(given: str | list[str] | None, split: str) -> list[str]:
    """Return the files of a split as a list; a data set of a hub without split gets the usual one.

    >>> resolve_files("a.csv", "dev")
    ['a.csv']
    >>> resolve_files("hub:glue/cola", "dev")
    ['hub:glue/cola:validation']
    """
    files = [given] if isinstance(given, str) else list(given or [])
    hub_split = {"train": "train", "dev": "validation", "test": "test"}[split]
    return [
        f"{file}:{hub_split}" if is_remote(file) and not split_remote(file)[1] else file for file in files
    ]
