"""Reads the rows of one pass over data files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bertune.data.columns import ColumnMapping
from bertune.data.label_settings import LabelFilter
from bertune.types import Example, Row

if TYPE_CHECKING:
    from bertune.tasks.base.task import Task


class RowReader:
    """Reads the rows of one pass over data files: all files of a training run, or those to score or predict.

    `Task.read` looks at one row. What rows must have in common, and what a file shows beyond the meaning of
    its rows, is for a subclass, which the task returns from `new_reader`.

    Args:
        task: says what a row means.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.label_filter = LabelFilter(task.data.drop_labels)
        """Which rows `data.drop_labels` leaves out."""

    def see_columns(self, mapping: ColumnMapping) -> None:
        """Hear which columns of the next file hold which field, before its rows are read."""

    def read(self, row: Row) -> Example:
        """Return what a row means.

        Raises:
            DataError: the row cannot be used, by itself or beside the rows before it.
        """
        return self.task.read(row)

    def fit(self, examples: Sequence[Example], note: Callable[[str], None]) -> None:
        """Let the task learn from the training rows and from what the files have shown; see `Task.fit`."""
        self.task.fit(examples, note)

    def report(self) -> list[str]:
        """Return what a user should know about the files read since the last call."""
        return []
