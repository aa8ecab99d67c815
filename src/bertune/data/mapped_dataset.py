"""An encoded data set in Arrow files, for data larger than memory, with the batches of `EncodedDataset`."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.data.arrow import IntArray, MappedLists, MappedTable, MappedValues
from bertune.data.dataset import EncodedDataset, FlatEncodings, encoding_key
from bertune.data.example_store import ValueCache, digests_to_array, value_from_json, value_to_json
from bertune.data.split import factorize_digests
from bertune.errors import DataError
from bertune.types import EncodedExample, Encoding

_LIST_TYPES = {"types": "uint8", "syllables": "int64", "words": "int32", "windows": "int32"}
"""Columns of a text besides its ids, and their types. They hold token types, pinyin, word positions and
window lengths; each may be null."""

_STORED_FIELDS = {
    "input_ids", "num_truncated", "token_type_ids", "pinyin_ids", "word_positions", "window_lengths"
}  # fmt: skip
_NOT_STORED = tuple(field.name for field in fields(Encoding) if field.name not in _STORED_FIELDS)
"""Fields of an encoding that these files cannot hold: none today."""


class DatasetWriter:
    """Writes encoded rows to `NAME.texts.arrow` and `NAME.rows.arrow`, with arrays beside them.

    Args:
        folder: where.
        name: the split.
        vocab_size: the highest token id plus 1.

    Raises:
        OSError: a file cannot be written.
    """

    def __init__(self, folder: Path, name: str, vocab_size: int) -> None:
        import pyarrow as pa

        self._folder, self._name, self._vocab_size = folder, name, vocab_size
        self._id_type = pa.uint16() if vocab_size <= 1 << 16 else pa.int32()
        lists = {column: pa.list_(pa.type_for_alias(kind)) for column, kind in _LIST_TYPES.items()}
        schemas = {
            "texts": pa.schema({"ids": pa.list_(self._id_type), **lists}),
            "rows": pa.schema({"target": pa.string(), "context": pa.string(), "cut": pa.int32()}),
        }
        self._files = {table: pa.OSFile(str(folder / f"{name}.{table}.arrow"), "wb") for table in schemas}
        self._writers = {
            table: pa.ipc.new_file(self._files[table], schema) for table, schema in schemas.items()
        }
        self._schemas = schemas
        self._num_texts = array("i")  # of each row
        self._is_multi_text = False
        self._text_digests, self._id_digests = bytearray(), bytearray()

    def write(self, rows: Sequence[EncodedExample]) -> None:
        """Write some rows as one record batch.

        Raises:
            DataError: the rows cannot be stored in this form.
        """
        if not self._num_texts:
            self._is_multi_text = len(rows[0].inputs) > 1
        self._num_texts.extend(len(row.inputs) for row in rows)
        encodings = [encoding for row in rows for encoding in row.inputs]
        if any((len(row.inputs) > 1) != self._is_multi_text for row in rows):
            raise DataError(
                f"{self._name}: some rows have one input and others several, which cannot be stored on disk; "
                "set data.cache=off"
            )
        flat = FlatEncodings.from_encodings(encodings)
        if len(flat.input_ids) and not 0 <= flat.input_ids.min() <= flat.input_ids.max() < self._vocab_size:
            raise DataError(
                f"{self._name}: a token id is beyond {self._vocab_size - 1}, the highest of the vocabulary"
            )
        if any(getattr(encoding, field) is not None for field in _NOT_STORED for encoding in encodings):
            raise DataError(
                f"{self._name}: rows have {', '.join(_NOT_STORED)}, which cannot be stored on disk; "
                "set data.cache=off"
            )
        if self._is_multi_text:
            self._add_digests(rows)
        self._write_texts(flat, len(encodings))
        self._write_rows(rows)

    def _write_texts(self, flat: FlatEncodings, num_texts: int) -> None:
        import pyarrow as pa

        offsets = flat.offsets.astype(np.int32)
        input_ids = pa.array(flat.input_ids.astype(self._id_type.to_pandas_dtype()))
        columns = [pa.ListArray.from_arrays(offsets, input_ids)]
        lists: dict[str, tuple[Any, Any] | None] = {
            "types": (offsets, flat.token_type_ids) if flat.token_type_ids.any() else None,
            "syllables": None if flat.pinyin_ids is None else (offsets, flat.pinyin_ids),
        }
        for column, numbers in (("words", flat.word_positions), ("windows", flat.window_lengths)):
            lists[column] = None if numbers is None else (numbers.offsets.astype(np.int32), numbers.values)
        for column, kind in _LIST_TYPES.items():
            arrays = lists[column]
            if arrays is None:
                columns.append(pa.nulls(num_texts, pa.list_(pa.type_for_alias(kind))))
            else:
                columns.append(pa.ListArray.from_arrays(arrays[0], pa.array(arrays[1].astype(kind))))
        self._put("texts", columns)

    def _write_rows(self, rows: Sequence[EncodedExample]) -> None:
        import pyarrow as pa

        columns = [
            [value_to_json(row.target) for row in rows],
            [value_to_json(row.context) for row in rows],
            [sum(encoding.num_truncated for encoding in row.inputs) for row in rows],
        ]
        types = [field.type for field in self._schemas["rows"]]
        self._put("rows", [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)])

    def _put(self, table: str, columns: list[Any]) -> None:
        """Write one record batch of `NAME.TABLE.arrow`."""
        import pyarrow as pa

        self._writers[table].write_batch(pa.record_batch(columns, self._schemas[table]))

    def _add_digests(self, rows: Sequence[EncodedExample]) -> None:
        """Add the digests that tell which texts are equal; passes of one text are texts of their own."""
        for row in rows:
            for side, encoding in enumerate(row.inputs):
                content = encoding_key(encoding)
                salt = bytes([side if row.passes else 0])
                self._id_digests += hashlib.blake2b(content, digest_size=16).digest()
                self._text_digests += hashlib.blake2b(content, digest_size=16, salt=salt).digest()

    def finish(self) -> MappedDataset:
        """Close the files; return all rows."""
        for table, writer in self._writers.items():
            writer.close()
            self._files[table].close()
        if self._is_multi_text:
            numbers = factorize_digests(digests_to_array(self._text_digests))
            firsts = np.unique(numbers, return_index=True)[1]
            text_ids = factorize_digests(digests_to_array(self._id_digests))[firsts]
            num_texts = np.array(self._num_texts)
            places = np.full((len(num_texts), num_texts.max()), -1, numbers.dtype)
            places[np.arange(places.shape[1]) < num_texts[:, None]] = numbers
            arrays = {"places": places, "firsts": firsts, "identities": text_ids}
            for name, numbers in arrays.items():
                np.save(self._folder / f"{self._name}.{name}.npy", numbers)
        counts = MappedDataset(self._folder, self._name).count_ids(self._vocab_size)
        np.save(self._folder / f"{self._name}.counts.npy", counts)
        return MappedDataset(self._folder, self._name)


class _MappedEncodings:
    """Encodings in an Arrow file; see `EncodingStore`."""

    def __init__(self, table: MappedTable, rows: IntArray | None) -> None:
        def lists(column: str) -> MappedLists | None:
            return None if table.null_count(column) else MappedLists(table, column, rows)

        self.input_ids = MappedLists(table, "ids", rows)
        no_types = table.null_count("types") == len(table)  # a batch whose types are all 0 stores null
        self._token_type_ids = None if no_types else MappedLists(table, "types", rows)
        self._pinyin_ids = lists("syllables")
        self.word_positions = lists("words")
        self.window_lengths = lists("windows")

    def get_input_ids(self, text: int) -> npt.NDArray[Any]:
        return self.input_ids[text]

    def get_token_type_ids(self, text: int) -> npt.NDArray[Any]:
        ids = self.input_ids[text]
        types = ids[:0] if self._token_type_ids is None else self._token_type_ids[text]
        return types if len(types) else np.zeros(len(ids), np.uint8)

    def get_pinyin_ids(self, text: int) -> npt.NDArray[Any] | None:
        return None if self._pinyin_ids is None else self._pinyin_ids[text]


class MappedDataset(EncodedDataset):
    """An encoded data set in files that `DatasetWriter` wrote.

    Args:
        folder: the folder of the files.
        name: the split.
    """

    def __init__(self, folder: Path, name: str) -> None:
        texts, rows = (MappedTable(folder / f"{name}.{table}.arrow") for table in ("texts", "rows"))
        self.targets = MappedValues(rows, "target", ValueCache())
        self.contexts = MappedValues(rows, "context", value_from_json)
        self.num_truncated = rows.column("cut").astype(np.int32, copy=False)

        def load(kind: str) -> Any:
            path = folder / f"{name}.{kind}.npy"
            return np.load(path) if path.exists() else None

        self._text_index, self._text_ids = load("places"), load("identities")
        self._stored_counts: IntArray | None = load("counts")
        self._mapped = _MappedEncodings(texts, load("firsts"))
        self._texts = self._mapped
        self.text_lengths = self._mapped.input_ids.lengths
        self.lengths = self._row_lengths()

    def count_ids(self, vocab_size: int) -> IntArray:
        """Return how often each token id occurs (vocab_size,); shared texts count once."""
        return self._mapped.input_ids.bincount(vocab_size)

    def _fraction_of(self, token: int) -> float:
        counts = self._id_counts()
        return float(counts[token] / counts.sum())

    def used_ids(self) -> IntArray:
        """Return every token id that occurs, ascending."""
        return np.flatnonzero(self._id_counts())

    def _id_counts(self) -> IntArray:
        return self.count_ids(1 << 16) if self._stored_counts is None else self._stored_counts
