"""The group of each row, from a column that no field reads, such as a patient or an author."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertune.config.schema import DataConfig, label_to_text
from bertune.data.example_store import text_digest
from bertune.data.formats import detect_format
from bertune.data.records import BadRows
from bertune.data.split import IntArray, factorize
from bertune.errors import ConfigError, DataError, did_you_mean, listed
from bertune.tasks.base.reading import iter_examples
from bertune.tasks.base.task import Task
from bertune.types import Example, Row

Key = tuple[str, int, bytes]
"""File, line and texts of a row; rows that share all three share their group too, see `_Groups.add`."""


def read_groups(
    files: Sequence[str], task: Task, data: DataConfig, column: str, examples: Sequence[Example]
) -> IntArray:
    """Return the number of the group of each example, from a second pass over its files.

    Examples keep no columns, and may come from the cache; so rows are found again by file, line and texts.

    Args:
        files: the files that the examples were read from.
        task: a task of the same settings that has learned nothing yet.
        data: how the files were read.
        column: the column with the group.
        examples: the rows that are asked for.

    Returns:
        (rows,) numbers; rows of one group share one.

    Raises:
        ConfigError: a file has no such column, or its rows have no columns.
        DataError: a row has no group.
    """
    if "-" in files:
        raise ConfigError("--group: standard input can be read only once; save the rows in a file")
    wanted = {_key(example) for example in examples}
    groups = _Groups(column)
    bad_rows = BadRows(skip=True)  # the first pass has said what it thinks of them
    missing = BadRows()
    reader = copy.deepcopy(task).new_reader()
    for source in files:
        if detect_format(source, data, task.columns) == "conll":
            raise ConfigError(
                f"--group: {source} is in CoNLL columns, of which none holds for a whole sentence; give rows "
                "as JSON lines or csv, with a column for the group"
            )
        is_first = True
        for row, example in iter_examples(
            source, task, data, bad_rows, lambda _: None, require_target=True, reader=reader
        ):
            if is_first:
                _check_column(row, column)
                is_first = False
            key = _key(example)
            if key not in wanted:
                continue
            try:
                groups.add(key, _group_of(row, column))
            except DataError as error:
                missing(error)
    missing.finish()
    return np.array(factorize(groups.number(_key(example)) for example in examples))


def _key(example: Example) -> Key:
    return example.location.source, example.location.line, text_digest(example.texts)


class _Groups:
    """The groups by row. Rows of one key have equal texts, so their groups are one.

    Args:
        column: for messages.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._numbers: dict[str, int] = {}
        self._by_key: dict[Key, int] = {}
        self._joined: dict[int, int] = {}

    def add(self, key: Key, name: str) -> None:
        """Say which group a row has."""
        number = self._numbers.setdefault(name, len(self._numbers))
        first = self._by_key.setdefault(key, number)
        a, b = self._root(first), self._root(number)
        if a != b:
            self._joined[b] = a

    def _root(self, number: int) -> int:
        while number in self._joined:
            number = self._joined[number]
        return number

    def number(self, key: Key) -> int:
        """Return the number of the group of a row.

        Raises:
            DataError: the row was not found again.
        """
        if key not in self._by_key:
            raise DataError(
                f"{key[0]}:{key[1]}: the file has changed since it was read, so this row's group "
                f"({self._column!r}) is not known; start again"
            )
        return self._root(self._by_key[key])


def _check_column(row: Row, column: str) -> None:
    """Check that the first row of a file has the column.

    Raises:
        ConfigError: it has not; the message names what it has.
    """
    source, names = row.location.source, list(row.word_records[0] if row.word_records else row.raw)
    if column not in names:
        raise ConfigError(
            f"--group: {source} has no column {column!r}{did_you_mean(column, names)}; columns: "
            f"{listed(names)}"
        )


def _group_of(row: Row, column: str) -> str:
    """Return the group of a row as text.

    Raises:
        DataError: it has none, or several.
    """
    values = [record.get(column) for record in row.word_records] or [row.raw.get(column)]
    names = {_as_text(value) for value in values}
    if len(names) > 1:
        raise DataError(
            f"{row.location}: the words of this sentence have different groups in column {column!r}: "
            f"{listed(sorted(map(str, names)), most=3)}"
        )
    name = names.pop()
    if not name:
        raise DataError(f"{row.location}: column {column!r} (--group) is empty; every row needs a group")
    return name


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(label_to_text(value)).strip()
