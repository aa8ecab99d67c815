"""Arrow files mapped into memory: tables of record batches whose pages go back to the system after use."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

RELEASE_THRESHOLD = 1 << 21
"""Bytes to read before pages go back to the system."""
_MIN_READ = 1 << 16
"""Bytes that any read brings into memory: the system maps the pages around the one it needs."""


class MappedTable:
    """A mapped Arrow file (IPC). What was read does not stay in memory, so any number of rows can be read.

    `madvise` gives pages back. Without it (Windows) the system takes them back when it needs memory.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map)))
        self.schema: Any = reader.schema
        self.batches: list[Any] = [reader.get_batch(n) for n in range(reader.num_record_batches)]
        self.batch_starts: list[int] = np.cumsum([0, *(batch.num_rows for batch in self.batches)]).tolist()
        """The first row of each batch, and at the end the number of rows."""
        self.release_pages()

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.batch_starts[-1]

    def locate(self, row: int) -> tuple[int, int]:
        """Return the batch of a row, and its index in the batch."""
        batch = bisect_right(self.batch_starts, row) - 1
        return batch, row - self.batch_starts[batch]

    def track_read(self, count: int) -> None:
        """Count bytes that were read; give pages back after every `RELEASE_THRESHOLD` of them."""
        self._bytes_read += max(count, _MIN_READ)
        if self._bytes_read >= RELEASE_THRESHOLD:
            self.release_pages()

    def release_pages(self) -> None:
        """Give the pages of this file back to the system."""
        self._bytes_read = 0
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a copy of a column of numbers."""
        parts = []
        for batch in self.batches:
            part = batch.column(name)
            parts.append(part.to_numpy(zero_copy_only=False).copy())
            self.track_read(part.nbytes)
        return np.concatenate(parts) if parts else np.empty(0)

    def null_count(self, name: str) -> int:
        """Return how many rows have null in a column."""
        return sum(batch.column(name).null_count for batch in self.batches)

    def iter_batches(self, rows: IntArray) -> Iterator[tuple[Any, IntArray]]:
        """Yield each batch that has some of the rows, with their indices in the batch.

        Args:
            rows: row numbers of the file, ascending.
        """
        cuts = np.searchsorted(rows, self.batch_starts)
        for n, (start, stop) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
            if start < stop:
                yield self.batches[n], rows[start:stop] - self.batch_starts[n]
                self.track_read(min(self.batches[n].nbytes, (stop - start) * _MIN_READ))


class MappedLists:
    """A column of lists of numbers. Null reads as an empty list.

    Args:
        table: the file.
        name: the column.
        rows: the rows of the file that belong to this object, all without it.
    """

    def __init__(self, table: MappedTable, name: str, rows: IntArray | None = None) -> None:
        self._table = table
        self._rows = rows
        self._values: list[npt.NDArray[Any]] = []  # the numbers of each batch
        self._value_starts: list[int] = [0]  # how many numbers come before each batch
        self._offsets = np.zeros(len(table) + 1, np.int64)
        for batch, first in zip(table.batches, table.batch_starts[:-1], strict=True):
            column = batch.column(name)
            offsets = column.offsets.to_numpy()
            start, stop = int(offsets[0]), int(offsets[-1])
            shift = self._value_starts[-1] - start
            self._offsets[first + 1 : first + len(offsets)] = offsets[1:].astype(np.int64) + shift
            self._values.append(column.values.to_numpy()[start:stop])
            self._value_starts.append(stop + shift)
            table.track_read(4 * batch.num_rows)
        table.release_pages()

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Return how many numbers each row has."""
        lengths = np.empty(len(self._offsets) - 1, np.int32)
        np.subtract(self._offsets[1:], self._offsets[:-1], out=lengths, casting="unsafe")
        return lengths if self._rows is None else lengths[self._rows]

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return the numbers of a row."""
        file_row = row if self._rows is None else int(self._rows[row])
        start, stop = int(self._offsets[file_row]), int(self._offsets[file_row + 1])
        if start == stop:
            return np.empty(0, np.uint8)
        batch = bisect_right(self._value_starts, start) - 1
        self._table.track_read((stop - start) * self._values[batch].itemsize)
        first = self._value_starts[batch]
        return self._values[batch][start - first : stop - first]

    def bincount(self, minlength: int) -> IntArray:
        """Return how often each number from 0 to `minlength` - 1 occurs in the rows of this object."""
        counts = np.zeros(minlength, np.int64)
        lengths = np.diff(self._offsets)
        is_used = np.ones(len(lengths), bool)
        if self._rows is not None:
            is_used[:] = False
            is_used[self._rows] = True
        for n, values in enumerate(self._values):
            rows = slice(self._table.batch_starts[n], self._table.batch_starts[n + 1])
            used = is_used[rows]
            chosen = values if used.all() else values[np.repeat(used, lengths[rows])]
            counts += np.bincount(chosen, minlength=minlength)
            self._table.track_read(values.nbytes)
        return counts


class MappedValues(Sequence[Any]):
    """A column of values in JSON; each is parsed when it is asked for.

    Args:
        table: the file.
        name: the column.
        parse: turns JSON, or None for null, into a value.
    """

    def __init__(self, table: MappedTable, name: str, parse: Callable[[str | None], Any]) -> None:
        self._table, self._parse = table, parse
        self._columns = [batch.column(name) for batch in table.batches]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._table)

    def __getitem__(self, row: Any) -> Any:
        """Return the value of a row, or a list for a slice."""
        if isinstance(row, slice):
            return [self[n] for n in range(*row.indices(len(self)))]
        if row < 0:
            row += len(self)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        batch, index = self._table.locate(row)
        text = self._columns[batch][index].as_py()
        self._table.track_read(len(text or ""))
        return self._parse(text)
