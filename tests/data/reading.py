"""Files read to their end, with everything that is said about them."""

from __future__ import annotations

import pytest

from bertune.config.schema import DataConfig
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import RowReader, open_rows
from bertune.errors import DataError
from bertune.types import Columns

PARTS = Columns(("text",), ("text_b",), "label")
"""What tasks with labels read."""
TEXTS = Columns(("text",), ("text_b", "negative"), "label", target_required=False)
"""What is read where texts are enough."""


class Read:
    """A file read to its end."""

    def __init__(
        self, source: str, *, need_target: bool = True, columns_of_task: Columns = PARTS, **data: object
    ) -> None:
        self.faults, self.notes = BadRows(), list[str]()
        options = ReadOptions(
            source,
            DataConfig(**data),
            columns_of_task,
            self.faults,
            self.notes.append,
            need_target and columns_of_task.target_required,
        )
        self.table: RowReader = open_rows(options)
        self.rows = list(self.table)
        self.fields = [row.fields for row in self.rows]
        self.lines = [row.location.line for row in self.rows]
        self.values = [tuple(row.fields.values()) for row in self.rows]


def refused(source: str, **how: object) -> str:
    """The message of the DataError with which a file is refused; arguments are those of `Read`."""
    with pytest.raises(DataError) as caught:
        Read(source, **how)
    return str(caught.value)
