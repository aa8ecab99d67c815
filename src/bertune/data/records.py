"""What the readers of all formats share: a record, how to read a file, and the rows that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bertune.config.schema import DataConfig
from bertune.data.columns import match_columns
from bertune.errors import ConfigError, DataError
from bertune.types import Columns


class Record(NamedTuple):
    """One record of a file."""

    line: int
    """The line on which it begins; for parquet and the Hub, the number of the row."""
    values: dict[str, Any]
    """Value by column name."""
    stride: int = 0
    """Lines from one word to the next, for files with one word a line; else 0."""
    word_records: tuple[dict[str, Any], ...] = ()
    """The records of the words of a sentence, for tables with a word a row."""


@dataclass
class BadRows:
    """Collects the rows that cannot be used, so that one message names several."""

    skip: bool = False
    """Whether to leave bad rows out instead of raising."""
    first_messages: list[str] = field(default_factory=list)
    """At most five."""
    count: int = 0

    def __call__(self, message: str | DataError) -> None:
        """Add a bad row; its message begins with `file:line: `. Few messages are shown, so few are made."""
        self.count += 1
        if len(self.first_messages) < 5:
            self.first_messages.append(str(message))

    def finish(self) -> list[str]:
        """Return a line that says how many rows were left out, or nothing when none was bad.

        Raises:
            DataError: there are bad rows and `skip` is false; the first message in full, the next ones as
                locations.
        """
        if not self.count:
            return []
        if self.skip:
            first = "; ".join(self.first_messages[:3])
            return [f"{self.count} rows left out as unusable (data.bad_rows=skip); the first: {first}"]
        more = self.count - 1
        locations = ", ".join(message.split(": ")[0] for message in self.first_messages[1:])
        ellipsis = ", ..." if more > 4 else ""
        rest = f" (and {more} more bad row{'s' * (more > 1)}: {locations}{ellipsis})" if more else ""
        raise DataError(f"{self.first_messages[0]}{rest}")


@dataclass(frozen=True)
class ReadOptions:
    """How to read one file."""

    source: str
    """A path, `hub:NAME`, `modelscope:NAME`, or "-" for standard input."""
    settings: DataConfig
    columns: Columns
    """The fields that the task reads."""
    bad_rows: BadRows
    """Collects records that are broken; the reader leaves them out."""
    note: Callable[[str], None]
    """Called with each line that a user should see about the file."""
    require_target: bool = True
    """Whether the file must have the target's column."""

    def has_columns(self, names: Sequence[str]) -> bool:
        """Tell whether columns of these names have all fields that are needed."""
        given = self.settings.columns if isinstance(self.settings.columns, dict) else None
        try:
            match_columns(names, given, self.columns, self.source, require_target=self.require_target)
        except (DataError, ConfigError):
            return False
        return True
