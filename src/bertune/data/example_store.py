"""Examples in Arrow files, for data sets larger than memory."""

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
"""Most examples of a record batch."""
_CHARACTERS_PER_BATCH = 1 << 24
"""A record batch ends when its texts have this many characters."""


def value_to_json(value: Any) -> str | None:
    """Return a value as JSON that `value_from_json` turns back into an equal one: tuples and spans too.

    >>> value_to_json(("a", 1.0))
    '{"t":["a",1.0]}'

    Raises:
        DataError: the value is of a type that JSON and this function do not cover.
    """
    return None if value is None else json.dumps(_pack(value), ensure_ascii=False, separators=(",", ":"))


def _pack(value: Any) -> Any:
    """Wrap what JSON does not distinguish: spans {"s": ...}, tuples {"t": ...}, mappings {"d": ...}."""
    if isinstance(value, Span):
        return {"s": list(value)}
    if isinstance(value, tuple):
        return {"t": [_pack(v) for v in value]}
    if isinstance(value, list):
        return [_pack(v) for v in value]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"d": {key: _pack(v) for key, v in value.items()}}
    if value is None or type(value) in {str, int, float, bool}:
        return value
    raise DataError(
        f"a value of type {type(value).__name__} ({str(value)[:40]!r}) cannot be stored on disk; "
        "set data.cache=off"
    )


def value_from_json(text: str | None) -> Any:
    """Return the value that `value_to_json` wrote."""
    return None if text is None else _unpack(json.loads(text))


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(v) for v in value]
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        if kind == "s":
            return Span(*inner)
        if kind == "t":
            return tuple(_unpack(v) for v in inner)
        return {key: _unpack(v) for key, v in inner.items()}
    return value


class ValueCache:
    """Parses values from JSON and returns equal ones as one object: most targets are a few labels."""

    def __init__(self) -> None:
        self._values: dict[str | None, Any] = {}

    def __call__(self, text: str | None) -> Any:
        """Return the value of a JSON text, or None for None."""
        value = self._values.get(text)
        if value is None:
            value = value_from_json(text)
            if len(self._values) < 10_000 and not isinstance(value, list | dict):
                self._values[text] = value
        return value


def text_digest(texts: Iterable[str]) -> bytes:
    """Return a 128-bit hash of the texts of a row."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def digests_to_array(digests: bytes | bytearray) -> npt.NDArray[np.uint64]:
    """Return concatenated digests as numbers (rows, 2)."""
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def example_digests(examples: Sequence[Example]) -> npt.NDArray[np.uint64]:
    """Return the digest of the texts of each example: (rows, 2)."""
    stored = examples.digests if isinstance(examples, ExampleStore) else None
    if stored is not None:
        return stored
    return digests_to_array(b"".join(text_digest(example.texts) for example in examples))


def take(items: Sequence[T], indices: IntArray) -> Sequence[T]:
    """Return the items at `indices`, ascending: an `ExampleStore` from an `ExampleStore`, else a list."""
    if isinstance(items, ExampleStore):
        return items.take(indices)  # type: ignore[return-value]
    return [items[n] for n in indices.tolist()]


class ExampleSink(Protocol):
    """A container that examples are added to, in memory or on disk."""

    def append(self, example: Example, /) -> None:
        """Add an example."""
        ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...


class ExampleWriter:
    """Writes examples to an Arrow file.

    Args:
        path: the file.
        on_progress: called now and then with the number of examples written so far.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, on_progress: Callable[[int], None] | None = None) -> None:
        import pyarrow as pa

        self._path = path
        self._on_progress = on_progress or (lambda _: None)
        self._digests = bytearray()
        self._pending: list[Example] = []
        self._characters = self._count = 0
        self._schema = pa.schema(
            {
                "texts": pa.list_(pa.string()),
                "target": pa.string(),
                "source": pa.string(),
                "line": pa.int64(),
                "words": pa.list_(pa.int32()),
                "stride": pa.int32(),
                "positives": pa.int32(),
            }
        )
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)

    def __len__(self) -> int:
        """Return the number of examples so far."""
        return self._count

    def append(self, example: Example, /) -> None:
        """Add an example."""
        self._pending.append(example)
        self._digests += text_digest(example.texts)
        self._count += 1
        self._characters += sum(map(len, example.texts))
        if len(self._pending) == ROWS_PER_BATCH or self._characters >= _CHARACTERS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        examples, self._pending, self._characters = self._pending, [], 0
        words = [None if e.words is None else [n for word in e.words for n in word] for e in examples]
        columns = [
            [list(example.texts) for example in examples],
            [value_to_json(example.target) for example in examples],
            [example.location.source for example in examples],
            [example.location.line for example in examples],
            words,
            [example.location.stride for example in examples],
            [example.num_positives for example in examples],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, self._schema))
        self._on_progress(self._count)

    def finish(self) -> ExampleStore:
        """Write the pending examples and close the file; return all examples."""
        if self._pending:
            self._flush()
        self._writer.close()
        self._file.close()
        store = ExampleStore(MappedTable(self._path))
        store.digests = digests_to_array(self._digests)
        return store


class ExampleStore(Sequence[Example]):
    """The examples of an Arrow file, or some of them; each is read when it is asked for."""

    def __init__(self, table: MappedTable, indices: IntArray | None = None) -> None:
        self._table = table
        self.indices = indices
        """The rows of the file that belong to the store, ascending; None for all."""
        self.digests: npt.NDArray[np.uint64] | None = None
        """(rows, 2), the digest of the texts of each; set while a data set is read."""
        self._parse = ValueCache()

    def take(self, indices: IntArray) -> ExampleStore:
        """Return the examples at `indices`, ascending."""
        taken = ExampleStore(self._table, indices if self.indices is None else self.indices[indices])
        taken.digests = None if self.digests is None else self.digests[indices]
        return taken

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._table) if self.indices is None else len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        """Return an example, or a list for a slice."""
        if isinstance(index, slice):
            rows = range(*index.indices(len(self)))
            return list(self._read(np.array(rows, np.int64))) if rows.step > 0 else [self[n] for n in rows]
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return next(self._read(np.array([index % len(self)])))

    def __iter__(self) -> Iterator[Example]:
        """Yield the examples one by one, from the file."""
        return self._read(np.arange(len(self)))

    def _read(self, indices: IntArray) -> Iterator[Example]:
        rows = indices if self.indices is None else self.indices[indices]
        for batch, batch_rows in self._table.iter_batches(rows):
            yield from self._parse_batch(
                batch if len(batch_rows) == batch.num_rows else batch.take(batch_rows)
            )

    def _parse_batch(self, batch: Any) -> Iterator[Example]:
        text_lists, target_column, source_column, line_column, word_column, stride_column, positives = (
            batch.columns
        )
        texts = _strings(text_lists.flatten())
        offsets = (text_lists.offsets.to_numpy() - text_lists.offsets[0].as_py()).tolist()
        targets = map(self._parse, _strings(target_column))
        locations = map(Location, _strings(source_column), line_column.to_pylist(), stride_column.to_pylist())
        no_words = word_column.null_count == batch.num_rows
        word_lists = [None] * batch.num_rows if no_words else word_column.to_pylist()
        starts, ends = offsets[:-1], offsets[1:]
        for start, end, target, location, flat, num_positives in zip(
            starts, ends, targets, locations, word_lists, positives.to_pylist(), strict=True
        ):
            words = None if flat is None else tuple(zip(flat[::2], flat[1::2], strict=True))
            yield Example(tuple(texts[start:end]), target, location, words, num_positives)


def _strings(column: Any) -> list[Any]:
    """Return a column of strings as a list."""
    strings: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    return strings


def iter_chunks(
    examples: Sequence[Example], size: int = ROWS_PER_BATCH, on_progress: Callable[[int], None] | None = None
) -> Iterator[list[Example]]:
    """Yield examples in lists of `size`; call `on_progress` with the number of examples yielded so far."""
    for start in range(0, len(examples), size):
        yield list(examples[start : start + size])
        if on_progress is not None:
            on_progress(min(start + size, len(examples)))
