"""Arrow files that are looked at where they lie: tables of record batches in memory that the system takes back."""

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
"""Bytes that may be looked at before their pages are given back."""
_AT_LEAST = 1 << 16
"""Bytes that a look brings into memory: the system maps the pages around the one asked for."""


class MappedTable:
    """An Arrow file (IPC), mapped. What was looked at does not stay in memory, so millions of rows may be read in any order.

    Pages are given back by `madvise`; where there is none (Windows), the system takes them back when it needs memory.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map)))
        self.schema: Any = reader.schema
        self.batches: list[Any] = [reader.get_batch(n) for n in range(reader.num_record_batches)]
        self.batch_starts: list[int] = np.cumsum([0, *(batch.num_rows for batch in self.batches)]).tolist()
        """The first row of each batch, and the number of rows."""
        self.release_pages()

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.batch_starts[-1]

    def locate(self, row: int) -> tuple[int, int]:
        """Return the batch of a row, and its place there."""
        batch = bisect_right(self.batch_starts, row) - 1
        return batch, row - self.batch_starts[batch]

    def track_read(self, count: int) -> None:
        """Hear that some bytes were looked at; give pages back from time to time."""
        self._touched += max(count, _AT_LEAST)
        if self._touched >= RELEASE_THRESHOLD:
            self.release_pages()

    def release_pages(self) -> None:
        """Give back the pages of what was looked at."""
        self._touched = 0
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a column of numbers as an array of its own."""
        parts = []
        for batch in self.batches:
            part = batch.column(name)
            parts.append(part.to_numpy(zero_copy_only=False).copy())
            self.track_read(part.nbytes)
        return np.concatenate(parts) if parts else np.empty(0)

    def null_count(self, name: str) -> int:
        """Return how many rows have nothing in a column."""
        return sum(batch.column(name).null_count for batch in self.batches)

    def iter_batches(self, rows: IntArray) -> Iterator[tuple[Any, IntArray]]:
        """Yield batches with the places in them of some rows, which are ascending."""
        cuts = np.searchsorted(rows, self.batch_starts)
        for n, (start, stop) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
            if start < stop:
                yield self.batches[n], rows[start:stop] - self.batch_starts[n]
                self.track_read(min(self.batches[n].nbytes, (stop - start) * _AT_LEAST))


class MappedLists:
    """A column of lists of numbers. A row that has none (null) is taken as an empty one.

    Args:
        table: the file.
        name: its column.
        rows: which rows of the file stand here, all without it.
    """

    def __init__(self, table: MappedTable, name: str, rows: IntArray | None = None) -> None:
        self._table = table
        self._rows = rows
        self._values: list[npt.NDArray[Any]] = []
        self._begins: list[int] = [0]
        self._offsets = np.zeros(len(table) + 1, np.int64)
        for batch, first in zip(table.batches, table.batch_starts[:-1], strict=True):
            column = batch.column(name)
            offsets = column.offsets.to_numpy()
            self._offsets[first + 1 : first + len(offsets)] = offsets[1:].astype(np.int64) + (
                self._begins[-1] - int(offsets[0])
            )
            self._values.append(column.values.to_numpy()[int(offsets[0]) : int(offsets[-1])])
            self._begins.append(self._begins[-1] + int(offsets[-1]) - int(offsets[0]))
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
        place = row if self._rows is None else int(self._rows[row])
        start, stop = int(self._offsets[place]), int(self._offsets[place + 1])
        if start == stop:
            return np.empty(0, np.uint8)
        batch = bisect_right(self._begins, start) - 1
        self._table.track_read((stop - start) * self._values[batch].itemsize)
        return self._values[batch][start - self._begins[batch] : stop - self._begins[batch]]

    def bincount(self, minlength: int) -> IntArray:
        """Return how often each number below `minlength` occurs, in the rows that stand here."""
        found = np.zeros(minlength, np.int64)
        lengths = np.diff(self._offsets)
        here = np.ones(len(lengths), bool)
        if self._rows is not None:
            here[:] = False
            here[self._rows] = True
        for n, values in enumerate(self._values):
            part = slice(self._table.batch_starts[n], self._table.batch_starts[n + 1])
            chosen = values if here[part].all() else values[np.repeat(here[part], lengths[part])]
            found += np.bincount(chosen, minlength=minlength)
            self._table.track_read(values.nbytes)
        return found


class MappedValues(Sequence[Any]):
    """A column of values in JSON, read one by one."""

    def __init__(self, table: MappedTable, name: str, read: Callable[[str | None], Any]) -> None:
        self._table, self._name, self._read = table, name, read
        self._columns = [batch.column(name) for batch in table.batches]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._table)

    def __getitem__(self, row: Any) -> Any:
        """Return the value of a row, or those of several."""
        if isinstance(row, slice):
            return [self[n] for n in range(*row.indices(len(self)))]
        if row < 0:
            row += len(self)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        batch, place = self._table.locate(row)
        text = self._columns[batch][place].as_py()
        self._table.track_read(len(text or ""))
        return self._read(text)
