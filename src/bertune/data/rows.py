"""Files to rows: records with their columns mapped to the parts that a task reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from bertune.data.columns import match_columns
from bertune.data.formats import ReadOptions, Record, read_records
from bertune.errors import DataError, listed
from bertune.types import Location, Row


class RowReader:
    """One data file, opened: its columns, and its rows one by one."""

    def __init__(self, reading: ReadOptions, header: list[str], records: Iterable[Record]) -> None:
        self.source = reading.source
        self.header = header
        self._reading = reading
        self._records = records
        self._mappings: dict[tuple[str, ...], dict[str, str]] = {}
        self.mapping = self._mapping_of(header)

    def _mapping_of(self, header: Iterable[str]) -> dict[str, str]:
        key = tuple(header)
        if key not in self._mappings:
            r = self._reading
            given = r.settings.columns if isinstance(r.settings.columns, dict) else None
            self._mappings[key] = match_columns(
                key, given, r.columns, r.source, require_target=r.require_target
            )
        return self._mappings[key]

    def __iter__(self) -> Iterator[Row]:
        """Give each row once. Rows of JSON may differ in their keys: one with other parts than the first is a fault."""
        expected = set(self.mapping)
        for line, record, stride in self._records:
            mapping = self.mapping
            if record.keys() != set(self.header):
                known = [
                    c for c in self.mapping.values() if c not in record
                ]  # missing ones are the task's to judge
                mapping = self._mapping_of([*record, *known])
                if set(mapping) != expected:
                    other = ", ".join(sorted(set(mapping) ^ expected))
                    self._reading.bad_rows(
                        f"{self.source}:{line}: has other parts than the first row ({other}); give every row the same keys"
                    )
                    continue
            yield Row(
                {part: record.get(column) for part, column in mapping.items()},
                Location(self.source, line, stride),
                record,
            )

    def describe(self) -> str:
        """Say which column plays which part."""
        used = ", ".join(f"{part} = column {column!r}" for part, column in self.mapping.items())
        ignored = [c for c in self.header if c not in self.mapping.values()]
        return f"{self.source}: {used}" + (f"; not used: {listed(ignored)}" if ignored else "")


def open_rows(reading: ReadOptions) -> RowReader:
    """Open a data file.

    Raises:
        DataError: the file is missing, empty, of another encoding, or lacks a column.
    """
    source = reading.source
    found = read_records(reading)
    first = next(found, None)
    if first is None:
        for line in reading.bad_rows.finish():
            reading.note(line)
        raise DataError(f"{source}: holds no rows")
    header = list(first.values)
    return RowReader(reading, header, itertools.chain([first], found))


def resolve_files(given: str | list[str] | None, split: str) -> list[str]:
    """Return the files of a split as a list; a Hub data set without split gets the usual one.

    >>> resolve_files("a.csv", "dev")
    ['a.csv']
    >>> resolve_files("hub:glue/cola", "dev")
    ['hub:glue/cola:validation']
    """
    files = [given] if isinstance(given, str) else list(given or [])
    usual = {"train": "train", "dev": "validation", "test": "test"}[split]
    return [
        f"{f}:{usual}" if f.startswith("hub:") and ":" not in f.removeprefix("hub:") else f for f in files
    ]
