"""An encoded data set in Arrow files: what `EncodedDataset` is in memory, and it gives the same batches."""

from __future__ import annotations

import hashlib
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

_LISTS = {"types": "uint8", "syllables": "int64", "words": "int32", "windows": "int32"}
"""Further lists of numbers of a text, and what they are stored as; a text may lack them."""

_NOT_KEPT = tuple(
    field.name
    for field in fields(Encoding)
    if field.name
    not in {"input_ids", "num_truncated", "token_type_ids", "pinyin_ids", "word_positions", "window_lengths"}
)
"""What a text may have besides: nothing today."""


class DatasetWriter:
    """Writes encoded rows to Arrow files, `NAME.texts.arrow` and `NAME.rows.arrow`, and arrays beside them.

    Args:
        folder: where.
        name: of the split.
        vocabulary: the highest token id and 1.

    Raises:
        OSError: a file cannot be written.
    """

    def __init__(self, folder: Path, name: str, vocab_size: int) -> None:
        import pyarrow as pa

        self._folder, self._name, self._vocabulary = folder, name, vocab_size
        self._ids = pa.uint16() if vocab_size <= 1 << 16 else pa.int32()
        lists = {name: pa.list_(pa.type_for_alias(kind)) for name, kind in _LISTS.items()}
        schemas = {
            "texts": pa.schema({"ids": pa.list_(self._ids), **lists}),
            "rows": pa.schema({"target": pa.string(), "context": pa.string(), "cut": pa.int32()}),
        }
        self._files = {kind: pa.OSFile(str(folder / f"{name}.{kind}.arrow"), "wb") for kind in schemas}
        self._writers = {kind: pa.ipc.new_file(self._files[kind], schema) for kind, schema in schemas.items()}
        self._schemas = schemas
        self._sides = 1
        self._digests, self._identities = bytearray(), bytearray()
        self._count = 0

    def write(self, rows: Sequence[EncodedExample]) -> None:
        """Write some rows; every call but the last should give as many."""
        import pyarrow as pa

        if not self._count:
            self._sides = len(rows[0].inputs)
        self._count += len(rows)
        pieces = [piece for row in rows for piece in row.inputs]
        if len(pieces) != self._sides * len(rows):
            raise DataError(
                f"{self._name}: rows have different numbers of inputs, which cannot be kept on disk; set data.cache=off"
            )
        flat = FlatEncodings.of(pieces)
        if len(flat.input_ids) and not 0 <= flat.input_ids.min() <= flat.input_ids.max() < self._vocabulary:
            raise DataError(
                f"{self._name}: a token id is beyond {self._vocabulary - 1}, the highest of the vocabulary"
            )
        if any(getattr(piece, name) is not None for name in _NOT_KEPT for piece in pieces):
            raise DataError(
                f"{self._name}: rows have {', '.join(_NOT_KEPT)}, which cannot be kept on disk; set data.cache=off"
            )
        if self._sides > 1:
            self._share(rows)
        offsets = flat.offsets.astype(np.int32)
        columns = [
            pa.ListArray.from_arrays(offsets, pa.array(flat.input_ids.astype(self._ids.to_pandas_dtype())))
        ]
        lists: dict[str, tuple[Any, Any]] = {
            "types": (offsets, flat.token_type_ids) if flat.token_type_ids.any() else (None, None)
        }
        lists["syllables"] = (None, None) if flat.pinyin_ids is None else (offsets, flat.pinyin_ids)
        for name, held in (("words", flat.word_positions), ("windows", flat.window_lengths)):
            lists[name] = (None, None) if held is None else (held.offsets.astype(np.int32), held.values)
        for name, kind in _LISTS.items():
            ends, values = lists[name]
            nothing = pa.nulls(len(pieces), pa.list_(pa.type_for_alias(kind)))
            columns.append(
                nothing if values is None else pa.ListArray.from_arrays(ends, pa.array(values.astype(kind)))
            )
        self._put("texts", columns)
        cut = [sum(piece.num_truncated for piece in row.inputs) for row in rows]
        values = [
            [value_to_json(row.target) for row in rows],
            [value_to_json(row.context) for row in rows],
            cut,
        ]
        self._put(
            "rows", [pa.array(v, field.type) for v, field in zip(values, self._schemas["rows"], strict=True)]
        )

    def _put(self, kind: str, columns: list[Any]) -> None:
        import pyarrow as pa

        self._writers[kind].write_batch(pa.record_batch(columns, self._schemas[kind]))

    def _share(self, rows: Sequence[EncodedExample]) -> None:
        """Note which texts are equal; as passes of one text, those of another side are others."""
        for row in rows:
            for side, piece in enumerate(row.inputs):
                content = encoding_key(piece)
                self._identities += hashlib.blake2b(content, digest_size=16).digest()
                self._digests += hashlib.blake2b(
                    content, digest_size=16, salt=bytes([side if row.passes else 0])
                ).digest()

    def finish(self) -> MappedDataset:
        """Close the files; return all rows."""
        for kind, writer in self._writers.items():
            writer.close()
            self._files[kind].close()
        if self._sides > 1:
            numbers = factorize_digests(digests_to_array(self._digests))
            firsts = np.unique(numbers, return_index=True)[1]
            identities = factorize_digests(digests_to_array(self._identities))[firsts]
            shared = {"places": numbers.reshape(-1, self._sides), "firsts": firsts, "identities": identities}
            for kind, array in shared.items():
                np.save(self._folder / f"{self._name}.{kind}.npy", array)
        rows = MappedDataset(self._folder, self._name)
        np.save(self._folder / f"{self._name}.counts.npy", rows.count_ids(self._vocabulary))
        return MappedDataset(self._folder, self._name)


class _MappedTexts:
    """Texts as integers in an Arrow file."""

    def __init__(self, table: MappedTable, rows: IntArray | None) -> None:
        self.input_ids = MappedLists(table, "ids", rows)
        self._types = None if table.null_count("types") == len(table) else MappedLists(table, "types", rows)
        self._syllables = None if table.null_count("syllables") else MappedLists(table, "syllables", rows)
        self.word_positions = None if table.null_count("words") else MappedLists(table, "words", rows)
        self.window_lengths = None if table.null_count("windows") else MappedLists(table, "windows", rows)

    def get_input_ids(self, text: int) -> npt.NDArray[Any]:
        return self.input_ids[text]

    def get_token_type_ids(self, text: int) -> npt.NDArray[Any]:
        ids = self.input_ids[text]
        types = ids[:0] if self._types is None else self._types[text]
        return types if len(types) else np.zeros(len(ids), np.uint8)

    def get_pinyin_ids(self, text: int) -> npt.NDArray[Any] | None:
        return None if self._syllables is None else self._syllables[text]


class MappedDataset(EncodedDataset):
    """A data set as integers, in files."""

    def __init__(self, folder: Path, name: str) -> None:
        texts, rows = (MappedTable(folder / f"{name}.{kind}.arrow") for kind in ("texts", "rows"))
        self.targets = MappedValues(rows, "target", ValueCache())
        self.contexts = MappedValues(rows, "context", value_from_json)
        self.num_truncated = rows.column("cut").astype(np.int32, copy=False)

        def array(kind: str) -> Any:
            path = folder / f"{name}.{kind}.npy"
            return np.load(path) if path.exists() else None

        self._places, self._identities = array("places"), array("identities")
        self._counts: IntArray | None = array("counts")
        self._stored = _MappedTexts(texts, array("firsts"))
        self._texts = self._stored
        self.text_lengths = self._stored.input_ids.lengths
        self.lengths = self.text_lengths if self._places is None else self.text_lengths[self._places].sum(1)

    def count_ids(self, vocab_size: int) -> IntArray:
        """Count each token id, in every text once."""
        return self._stored.input_ids.bincount(vocab_size)

    def _share_of(self, token: int) -> float:
        counts = self._known_counts()
        return float(counts[token] / counts.sum())

    def used_ids(self) -> IntArray:
        """Return every token id that occurs, once."""
        return np.flatnonzero(self._known_counts())

    def _known_counts(self) -> IntArray:
        return self.count_ids(1 << 16) if self._counts is None else self._counts
