"""Encoded data sets in flat arrays, and how their rows become batches. No padding anywhere.

Tensor letters: `B` rows, `T` packed tokens, `U` texts of a batch, each once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bertune.types import Batch, EncodedExample, Encoding, PairIndex, Ragged

IntArray = npt.NDArray[np.int64]


def _offsets(lengths: Sequence[int] | npt.NDArray[Any]) -> IntArray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class ListColumn(Protocol):
    """A list of numbers for each text, in memory or in a file."""

    def __getitem__(self, text: int) -> npt.NDArray[Any]:
        """Return the numbers of a text."""
        ...


class EncodingStore(Protocol):
    """Encodings of texts, in memory or in a file."""

    @property
    def word_positions(self) -> ListColumn | None:
        """The tokens that stand for words, counted from the text's first token; None for other tasks."""
        ...

    @property
    def window_lengths(self) -> ListColumn | None:
        """The tokens of each window of the text; None for tasks without windows."""
        ...

    def get_input_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the token ids of a text."""
        ...

    def get_token_type_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the segment of each token."""
        ...

    def get_pinyin_ids(self, text: int) -> npt.NDArray[Any] | None:
        """Return the pinyin of each token, or None for encoders without pinyin."""
        ...


@dataclass(frozen=True)
class _FlatLists:
    """A list of numbers for each text, in one array."""

    values: npt.NDArray[np.int32]
    offsets: IntArray

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> _FlatLists:
        values = np.fromiter(itertools.chain.from_iterable(lists), np.int32)
        return cls(values, _offsets([len(numbers) for numbers in lists]))

    def __getitem__(self, text: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[text] : self.offsets[text + 1]]


@dataclass(frozen=True)
class FlatEncodings:
    """Encodings in flat arrays: text n is `input_ids[offsets[n]:offsets[n + 1]]`. See `EncodingStore`."""

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.uint8]
    offsets: IntArray
    word_positions: _FlatLists | None = None
    window_lengths: _FlatLists | None = None
    pinyin_ids: IntArray | None = None

    def _slice(self, text: int) -> slice:
        return slice(self.offsets[text], self.offsets[text + 1])

    def get_input_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the token ids of a text."""
        return self.input_ids[self._slice(text)]

    def get_token_type_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the segment of each token."""
        return self.token_type_ids[self._slice(text)]

    def get_pinyin_ids(self, text: int) -> npt.NDArray[Any] | None:
        """Return the pinyin of each token, or None for encoders without pinyin."""
        return None if self.pinyin_ids is None else self.pinyin_ids[self._slice(text)]

    @classmethod
    def from_encodings(cls, encodings: Sequence[Encoding]) -> FlatEncodings:
        """Copy encodings into flat arrays."""
        offsets = _offsets([len(encoding.input_ids) for encoding in encodings])
        input_ids = np.empty(int(offsets[-1]), np.int32)
        token_type_ids = np.empty(int(offsets[-1]), np.uint8)
        for encoding, start, stop in zip(encodings, offsets[:-1], offsets[1:], strict=True):
            input_ids[start:stop] = encoding.input_ids
            token_type_ids[start:stop] = encoding.token_type_ids
        word_positions = _flat_lists([encoding.word_positions for encoding in encodings])
        window_lengths = _flat_lists([encoding.window_lengths for encoding in encodings])
        pinyin_ids = _flat_pinyin(encodings)
        return cls(input_ids, token_type_ids, offsets, word_positions, window_lengths, pinyin_ids)


def _flat_lists(lists: Sequence[Sequence[int] | None]) -> _FlatLists | None:
    """Return the lists in one array; None if a text lacks its list."""
    complete = [numbers for numbers in lists if numbers is not None]
    return _FlatLists.from_lists(complete) if len(complete) == len(lists) else None


def _flat_pinyin(encodings: Sequence[Encoding]) -> IntArray | None:
    """Return the pinyin of all tokens; None if a text has none."""
    pinyin = [encoding.pinyin_ids for encoding in encodings if encoding.pinyin_ids is not None]
    if not pinyin or len(pinyin) < len(encodings):
        return None
    return np.fromiter(itertools.chain.from_iterable(pinyin), np.int64)


def encoding_key(encoding: Encoding) -> bytes:
    """Return bytes that are equal for equal texts: token ids and pinyin."""
    ids = np.asarray(encoding.input_ids, np.int32).tobytes()
    return ids if encoding.pinyin_ids is None else ids + np.asarray(encoding.pinyin_ids, np.int64).tobytes()


@dataclass(frozen=True)
class TokenCounts:
    """What became of the tokens of some rows; sums of several chunks can be added."""

    rows: int = 0
    truncated_rows: int = 0
    """Rows that were longer than max_length."""
    tokens: int = 0
    truncated_tokens: int = 0
    """Tokens that max_length cut off."""
    unknown_tokens: int = 0
    """Tokens that the vocabulary lacks."""

    def __add__(self, other: TokenCounts) -> TokenCounts:
        """Return the counts of both together."""
        return TokenCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def lines(self, max_length: int) -> list[str]:
        """Return lines about truncated rows, and about many tokens that the vocabulary lacks."""
        return describe_tokens(self, max_length, self.unknown_tokens / max(1, self.tokens))


def describe_tokens(counts: TokenCounts, max_length: int, unknown_fraction: float) -> list[str]:
    """Return lines about truncated rows, and about many tokens that the vocabulary lacks."""
    lines = []
    if counts.truncated_tokens:
        fraction = counts.truncated_tokens / (counts.tokens + counts.truncated_tokens)
        lines.append(
            f"{counts.truncated_rows} of {counts.rows} rows are longer than max_length {max_length} "
            f"and were cut, {fraction:.1%} of all tokens"
        )
    if unknown_fraction > 0.02:
        lines.append(
            f"{unknown_fraction:.1%} of all tokens are unknown to this encoder's vocabulary; "
            "is it made for this language?"
        )
    return lines


class EncodedDataset:
    """An encoded data set in flat arrays, so that millions of rows cost little more than their tokens.

    Rows of several inputs share texts: an equal text is stored once, and encoded once a batch.
    """

    def __init__(self, rows: Sequence[EncodedExample]) -> None:
        self.targets: Sequence[Any] = [row.target for row in rows]
        self.contexts: Sequence[Any] = [row.context for row in rows]
        self.num_truncated: npt.NDArray[np.int32] = np.array(
            [sum(encoding.num_truncated for encoding in row.inputs) for row in rows], np.int32
        )
        """(rows,), tokens that max_length cut from each row."""
        self._text_index: IntArray | None = None  # (rows, sides), the text of each side; -1 for none
        self._text_ids: IntArray | None = None  # (texts,), equal for two passes of one text
        is_single = all(len(row.inputs) == 1 for row in rows)
        flat = FlatEncodings.from_encodings(
            [row.inputs[0] for row in rows] if is_single else self._unique_texts(rows)
        )
        self._texts: EncodingStore = flat
        self._flat_ids = flat.input_ids
        self.text_lengths: npt.NDArray[Any] = np.diff(flat.offsets)
        """(texts,), tokens of each text."""
        self.lengths: npt.NDArray[Any] = self._row_lengths()
        """(rows,), tokens of each row, all its inputs together."""

    def _row_lengths(self) -> npt.NDArray[Any]:
        if self._text_index is None:
            return self.text_lengths
        lengths: npt.NDArray[Any] = self.text_lengths[self._text_index].sum(1, where=self._text_index >= 0)
        return lengths

    def _unique_texts(self, rows: Sequence[EncodedExample]) -> list[Encoding]:
        """Return each text once; set `_text_index` and `_text_ids`."""
        texts: list[Encoding] = []
        numbers: dict[tuple[bytes, int], int] = {}
        ids: dict[bytes, int] = {}
        text_ids: list[int] = []
        self._text_index = np.full((len(rows), max(len(row.inputs) for row in rows)), -1)
        for n, row in enumerate(rows):
            for side, encoding in enumerate(row.inputs):
                content = encoding_key(encoding)
                key = content, side if row.passes else 0  # passes of one text are texts of their own
                if key not in numbers:
                    numbers[key] = len(texts)
                    texts.append(encoding)
                    text_ids.append(ids.setdefault(content, len(ids)))
                self._text_index[n, side] = numbers[key]
        self._text_ids = np.array(text_ids, np.int64)
        return texts

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.targets)

    @property
    def is_multi_text(self) -> bool:
        """Whether a row is several texts that are encoded separately."""
        return self._text_index is not None

    @property
    def max_texts_per_row(self) -> int:
        """The number of texts of the row that has most of them."""
        return 1 if self._text_index is None else self._text_index.shape[1]

    @property
    def num_truncated_rows(self) -> int:
        """The number of rows that were longer than max_length."""
        return int(np.count_nonzero(self.num_truncated))

    def diagnostics(self, unknown_id: int | None, max_length: int) -> list[str]:
        """Return lines about truncated rows, and about many tokens that the vocabulary lacks."""
        total = int(self.lengths.sum())
        truncated = int(self.num_truncated.sum(dtype=np.int64))
        counts = TokenCounts(len(self), self.num_truncated_rows, total, truncated)
        unknown = self._fraction_of(unknown_id) if unknown_id is not None and total else 0.0
        return describe_tokens(counts, max_length, unknown)

    def count_tokens(self, unknown_id: int | None, rows: Sequence[int]) -> TokenCounts:
        """Count the tokens of rows of one text each; a row that is named twice counts twice."""
        index = np.asarray(rows, np.int64)
        is_unknown = self._flat_ids == (-1 if unknown_id is None else unknown_id)
        unknown_before = np.append(0, np.cumsum(is_unknown, dtype=np.int64))
        offsets = _offsets(self.text_lengths)
        num_unknown = unknown_before[offsets[1:]] - unknown_before[offsets[:-1]]
        truncated = self.num_truncated[index]
        return TokenCounts(
            len(index),
            int(np.count_nonzero(truncated)),
            int(self.lengths[index].sum(dtype=np.int64)),
            int(truncated.sum(dtype=np.int64)),
            int(num_unknown[index].sum()),
        )

    def _fraction_of(self, token: int) -> float:
        """Return the fraction of all tokens that are this one; shared texts count once."""
        return float((self._flat_ids == token).mean())

    def used_ids(self) -> IntArray:
        """Return every token id that occurs, ascending."""
        return np.unique(self._flat_ids).astype(np.int64)

    def get_batch(self, rows: Sequence[int], collate: Callable[[list[Any]], Any]) -> Batch:
        """Return rows as a batch.

        Args:
            rows: row numbers.
            collate: turns the targets of the rows into a tensor.
        """
        texts, pair_index = self.index_pairs(rows)
        return self.make_batch(rows, pair_index, collate, self.gather_texts(texts))

    def make_batch(
        self,
        rows: Sequence[int],
        pair_index: PairIndex | None,
        collate: Callable[[list[Any]], Any],
        ragged: Ragged,
    ) -> Batch:
        """Return rows as a batch whose texts were gathered before, or were encoded to vectors already.

        Args:
            rows: row numbers.
            pair_index: the texts of each row, from `index_pairs`.
            collate: turns the targets of the rows into a tensor; not called if a target is missing.
            ragged: the texts; empty where vectors stand for them.
        """
        targets = [self.targets[row] for row in rows]
        target = None if any(value is None for value in targets) else collate(targets)
        return Batch(ragged, target, tuple(rows), tuple(self.contexts[row] for row in rows), pair_index)

    def gather_texts(self, texts: Sequence[int]) -> Ragged:
        """Return texts by number; in a data set of single texts, text n is row n."""
        return _ragged(self._texts, texts)

    def index_pairs(self, rows: Sequence[int]) -> tuple[Sequence[int], PairIndex | None]:
        """Return the texts (U) of some rows, each once, and the texts of each row among them.

        In a data set of single texts, these are the rows themselves and None.
        """
        import torch

        if self._text_index is None or self._text_ids is None:
            return rows, None
        texts, inverse = np.unique(self._text_index[list(rows)], return_inverse=True)
        if len(texts) and texts[0] < 0:  # the places of texts that a row lacks stay -1
            texts, inverse = texts[1:], inverse - 1
        sides = inverse.reshape(len(rows), self._text_index.shape[1]).T
        text_index = tuple(torch.from_numpy(np.ascontiguousarray(side)) for side in sides)
        return texts.tolist(), PairIndex(text_index, torch.from_numpy(self._text_ids[texts]))


def _ragged(store: EncodingStore, texts: Sequence[int]) -> Ragged:
    """Return texts as tensors; a text with windows becomes one row a window."""
    import torch

    id_arrays = [store.get_input_ids(text) for text in texts]
    lengths = tuple(map(len, id_arrays))
    word_positions: torch.Tensor | None = None
    num_words: tuple[int, ...] = ()
    if store.word_positions is not None:
        starts = itertools.accumulate(lengths, initial=0)
        positions = [
            store.word_positions[text].astype(np.int64) + start
            for text, start in zip(texts, starts, strict=False)
        ]
        word_positions = torch.from_numpy(np.concatenate(positions))
        num_words = tuple(map(len, positions))
    if store.window_lengths is not None:
        lengths = tuple(int(tokens) for text in texts for tokens in store.window_lengths[text])
    nothing = np.empty(0, np.uint8)
    input_ids = np.concatenate(id_arrays or [nothing]).astype(np.int64)
    types = [store.get_token_type_ids(text) for text in texts]
    token_type_ids = np.concatenate(types or [nothing]).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    pinyin = [ids for text in texts if (ids := store.get_pinyin_ids(text)) is not None]
    return Ragged(
        torch.from_numpy(input_ids),
        torch.from_numpy(token_type_ids),
        torch.from_numpy(offsets),
        lengths,
        word_positions,
        num_words,
        torch.from_numpy(np.concatenate(pinyin)) if pinyin else None,
    )
