"""Examples in Arrow files, so that a data set may be larger than memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from bertune.data.arrow import IntArray, MappedTable
from bertune.errors import DataError
from bertune.types import Example, Location, Span

T = TypeVar("T")
ROWS_PER_BATCH = 4096
"""Rows of a record batch, at most."""
_BYTES = 1 << 24
"""Bytes of text of a record batch, about."""


def value_to_json(value: Any) -> str | None:
    """Write a value as JSON that `value_from_json` reads back as it was: tuples and spans too.

    >>> value_to_json(("a", 1.0))
    '{"t":["a",1.0]}'

    Raises:
        DataError: the value is of another kind.
    """
    return None if value is None else json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Span):
        return {"s": list(value)}
    if isinstance(value, tuple):
        return {"t": [_plain(v) for v in value]}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"d": {key: _plain(v) for key, v in value.items()}}
    if value is None or type(value) in {str, int, float, bool}:
        return value
    raise DataError(
        f"a value of type {type(value).__name__} ({str(value)[:40]!r}) cannot be kept on disk; set data.cache=off"
    )


def value_from_json(text: str | None) -> Any:
    """Read back what `value_to_json` wrote."""
    return None if text is None else _full(json.loads(text))


def _full(value: Any) -> Any:
    if isinstance(value, list):
        return [_full(v) for v in value]
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        if kind == "s":
            return Span(*inner)
        return tuple(_full(v) for v in inner) if kind == "t" else {key: _full(v) for key, v in inner.items()}
    return value


class ValueCache:
    """Reads values back, equal ones as one object: most targets are a few labels."""

    def __init__(self) -> None:
        self._known: dict[str | None, Any] = {}

    def __call__(self, text: str | None) -> Any:
        found = self._known.get(text)
        if found is None:
            found = value_from_json(text)
            if len(self._known) < 10_000 and not isinstance(found, list | dict):
                self._known[text] = found
        return found


def text_digest(texts: Iterable[str]) -> bytes:
    """Return 128 bits that tell the texts of a row from others."""
    found = hashlib.blake2b(digest_size=16)
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        found.update(len(content).to_bytes(8, "little"))
        found.update(content)
    return found.digest()


def digests_to_array(digests: bytes | bytearray) -> npt.NDArray[np.uint64]:
    """Return digests, one after the other, as (rows, 2) numbers."""
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def example_digests(examples: Sequence[Example]) -> npt.NDArray[np.uint64]:
    """Return the digest of the texts of each example (rows, 2)."""
    known = getattr(examples, "digests", None)
    return digests_to_array(b"".join(text_digest(e.texts) for e in examples)) if known is None else known


def take(items: Sequence[T], indices: IntArray) -> Sequence[T]:
    """Return the items at some places, ascending, in a container of the same kind."""
    return items.take(indices) if isinstance(items, ExampleStore) else [items[n] for n in indices.tolist()]  # type: ignore[return-value]


class ExampleSink(Protocol):
    """Takes examples one by one."""

    def append(self, example: Example, /) -> None:
        """Take one."""
        ...

    def __len__(self) -> int:
        """Return how many were taken."""
        ...


class ExampleWriter:
    """Writes examples to an Arrow file.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, on_progress: Callable[[int], None] | None = None) -> None:
        import pyarrow as pa

        self._path = path
        self._hear = on_progress or (lambda _: None)
        self._digests = bytearray()
        self._held: list[Example] = []
        self._bytes = self._count = 0
        number = pa.list_(pa.int32())
        self._schema = pa.schema(
            {
                "texts": pa.list_(pa.string()),
                "target": pa.string(),
                "source": pa.string(),
                "line": pa.int64(),
                "words": number,
                "stride": pa.int32(),
            }
        )
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)

    def __len__(self) -> int:
        """Return how many examples were taken."""
        return self._count

    def append(self, example: Example, /) -> None:
        """Take an example."""
        self._held.append(example)
        self._digests += text_digest(example.texts)
        self._count += 1
        self._bytes += sum(map(len, example.texts))
        if len(self._held) == ROWS_PER_BATCH or self._bytes >= _BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        held, self._held, self._bytes = self._held, [], 0
        places = [None if e.words is None else [n for word in e.words for n in word] for e in held]
        columns = [
            [list(e.texts) for e in held], [value_to_json(e.target) for e in held], [e.location.source for e in held], [e.location.line for e in held], places,
            [e.location.stride for e in held],
        ]  # fmt: skip
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, self._schema))
        self._hear(self._count)

    def finish(self) -> ExampleStore:
        """Write the rest; return all examples."""
        if self._held:
            self._flush()
        self._writer.close()
        self._file.close()
        store = ExampleStore(MappedTable(self._path))
        store.digests = digests_to_array(self._digests)
        return store


class ExampleStore(Sequence[Example]):
    """Examples in an Arrow file, or some of them."""

    def __init__(self, table: MappedTable, indices: IntArray | None = None) -> None:
        self._table = table
        self.indices = indices
        """Which rows of the file they are, ascending; None for all."""
        self.digests: npt.NDArray[np.uint64] | None = None
        """(rows, 2), of the texts of each, while a data set is read."""
        self._value = ValueCache()

    def take(self, indices: IntArray) -> ExampleStore:
        """Return some of them, by ascending places."""
        found = ExampleStore(self._table, indices if self.indices is None else self.indices[indices])
        found.digests = None if self.digests is None else self.digests[indices]
        return found

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._table) if self.indices is None else len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        """Return an example, or a list of several."""
        if isinstance(place, slice):
            rows = range(*place.indices(len(self)))
            return list(self._at(np.array(rows, np.int64))) if rows.step > 0 else [self[n] for n in rows]
        if not -len(self) <= place < len(self):
            raise IndexError(f"example {place} of {len(self)}")
        return next(self._at(np.array([place % len(self)])))

    def __iter__(self) -> Iterator[Example]:
        """Give the examples one by one, from the file."""
        return self._at(np.arange(len(self)))

    def _at(self, places: IntArray) -> Iterator[Example]:
        for batch, rows in self._table.iter_batches(places if self.indices is None else self.indices[places]):
            yield from self._read(batch if len(rows) == batch.num_rows else batch.take(rows))

    def _read(self, batch: Any) -> Iterator[Example]:
        lists, targets, sources, lines, words, strides = batch.columns
        flat = _strings(lists.flatten())
        ends = lists.offsets.to_numpy() - lists.offsets[0].as_py()
        cuts = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        values = map(self._value, _strings(targets))
        places = [None] * batch.num_rows if words.null_count == batch.num_rows else words.to_pylist()
        numbers = zip(lines.to_pylist(), strides.to_pylist(), strict=True)
        for (a, b), value, source, (line, stride), word in zip(
            cuts, values, _strings(sources), numbers, places, strict=True
        ):
            pairs = None if word is None else tuple(zip(word[::2], word[1::2], strict=True))
            yield Example(tuple(flat[a:b]), value, Location(source, line, stride), pairs)


def _strings(column: Any) -> list[Any]:
    """Return a column of strings as a list."""
    found: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    return found


def iter_chunks(
    examples: Sequence[Example], size: int = ROWS_PER_BATCH, on_progress: Callable[[int], None] | None = None
) -> Iterator[list[Example]]:
    """Yield examples in lists of `size`; `on_progress` is told how many are done."""
    for start in range(0, len(examples), size):
        yield list(examples[start : start + size])
        if on_progress is not None:
            on_progress(min(start + size, len(examples)))
