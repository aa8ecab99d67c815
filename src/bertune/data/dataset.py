"""Encoded rows in flat arrays, and which of them come together in a batch. No padding anywhere.

Tensor letters: `B` rows, `T` packed tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bertune.types import Batch, EncodedExample, Encoding, PairIndex, Ragged

IntArray = npt.NDArray[np.int64]


def _offsets(lengths: Sequence[int]) -> IntArray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(frozen=True)
class _Lists:
    """A list of numbers a row, in one array."""

    values: npt.NDArray[np.int32]
    offsets: IntArray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> _Lists:
        return cls(
            np.fromiter(itertools.chain.from_iterable(lists), np.int32), _offsets([len(x) for x in lists])
        )

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class ListColumn(Protocol):
    """A list of numbers a row, in memory or in a file."""

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return the numbers of a row."""
        ...


class EncodingStore(Protocol):
    """Texts as integers, in memory or in a file."""

    @property
    def word_positions(self) -> ListColumn | None:
        """Where the task looks at words: their tokens, counted from the row's first one."""
        ...

    @property
    def window_lengths(self) -> ListColumn | None:
        """And the tokens of each window of the row."""
        ...

    def get_input_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the ids of a text."""
        ...

    def get_token_type_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the segment of each of its tokens."""
        ...

    def get_pinyin_ids(self, text: int) -> npt.NDArray[Any] | None:
        """Return how each of its tokens is read, where the encoder hears that."""
        ...


@dataclass(frozen=True)
class FlatEncodings:
    """Texts as integers: text b is `ids[offsets[b]:offsets[b + 1]]`."""

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.uint8]
    offsets: IntArray
    word_positions: _Lists | None = (
        None  # where the task looks at words: their tokens, counted from the row's first one
    )
    window_lengths: _Lists | None = None  # and the tokens of each window of the row
    pinyin_ids: IntArray | None = None  # where the encoder hears how tokens are read

    def get_input_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the ids of a text."""
        return self.input_ids[self.offsets[text] : self.offsets[text + 1]]

    def get_token_type_ids(self, text: int) -> npt.NDArray[Any]:
        """Return the segment of each of its tokens."""
        return self.token_type_ids[self.offsets[text] : self.offsets[text + 1]]

    def get_pinyin_ids(self, text: int) -> npt.NDArray[Any] | None:
        """Return how each of its tokens is read, where the encoder hears that."""
        return (
            None if self.pinyin_ids is None else self.pinyin_ids[self.offsets[text] : self.offsets[text + 1]]
        )

    @classmethod
    def of(cls, pieces: Sequence[Encoding]) -> FlatEncodings:
        """Lay pieces out in arrays."""
        offsets = _offsets([len(piece.input_ids) for piece in pieces])
        ids = np.empty(int(offsets[-1]), np.int32)
        types = np.empty(int(offsets[-1]), np.uint8)
        for piece, start, stop in zip(pieces, offsets[:-1], offsets[1:], strict=True):
            ids[start:stop] = piece.input_ids
            types[start:stop] = piece.token_type_ids
        words, windows = (
            [getattr(piece, name) for piece in pieces] for name in ("word_positions", "window_lengths")
        )
        lists = [None if any(x is None for x in found) else _Lists.of(found) for found in (words, windows)]
        return cls(ids, types, offsets, lists[0], lists[1], _syllables(pieces))


def encoding_key(piece: Encoding) -> bytes:
    """Return what tells a text from others: its tokens, and how they are read, since with other readings it is another text."""
    ids = np.asarray(piece.input_ids, np.int32).tobytes()
    return ids if piece.pinyin_ids is None else ids + np.asarray(piece.pinyin_ids, np.int64).tobytes()


def _syllables(pieces: Sequence[Encoding]) -> IntArray | None:
    found = [piece.pinyin_ids for piece in pieces if piece.pinyin_ids is not None]
    return (
        np.fromiter(itertools.chain.from_iterable(found), np.int64)
        if found and len(found) == len(pieces)
        else None
    )


class EncodedDataset:
    """A data set as integers: flat arrays, so that millions of rows cost little more than their tokens.

    Rows of several inputs share their texts: each is held once, and encoded once a batch, wherever it stands.
    """

    def __init__(self, rows: Sequence[EncodedExample]) -> None:
        self.targets: Sequence[Any] = [row.target for row in rows]
        self.contexts: Sequence[Any] = [row.context for row in rows]
        self.num_truncated: npt.NDArray[np.int32] = np.array(
            [sum(piece.num_truncated for piece in row.inputs) for row in rows], np.int32
        )
        self._places: IntArray | None = None  # (rows, sides), which text stands where
        self._identities: IntArray | None = None  # (texts,), equal for passes of one text
        pieces = (
            [row.inputs[0] for row in rows]
            if all(len(row.inputs) == 1 for row in rows)
            else self._share(rows)
        )
        flat = FlatEncodings.of(pieces)
        self._texts: EncodingStore = flat
        self._flat_ids = flat.input_ids
        self.text_lengths: npt.NDArray[Any] = np.diff(flat.offsets)
        """Tokens of each text."""
        self.lengths: npt.NDArray[Any] = (
            self.text_lengths if self._places is None else self.text_lengths[self._places].sum(1)
        )
        """Tokens of each row, all its inputs together."""

    def _share(self, rows: Sequence[EncodedExample]) -> list[Encoding]:
        """Return each text once, and keep where it stands."""
        pieces: list[Encoding] = []
        numbers: dict[tuple[bytes, int], int] = {}
        identities: dict[bytes, int] = {}
        held: list[int] = []
        self._places = np.empty((len(rows), len(rows[0].inputs)), np.int64)
        for place, row in enumerate(rows):
            for side, piece in enumerate(row.inputs):
                text = encoding_key(piece)
                key = text, side if row.passes else 0
                if key not in numbers:
                    numbers[key] = len(pieces)
                    pieces.append(piece)
                    held.append(identities.setdefault(text, len(identities)))
                self._places[place, side] = numbers[key]
        self._identities = np.array(held, np.int64)
        return pieces

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.targets)

    @property
    def is_multi_text(self) -> bool:
        """Tell whether rows are several texts, each encoded for itself."""
        return self._places is not None

    @property
    def num_truncated_rows(self) -> int:
        """Return how many rows were longer than max_length."""
        return int(np.count_nonzero(self.num_truncated))

    def diagnostics(self, unknown_id: int | None, max_length: int) -> list[str]:
        """Say how many rows were cut, and whether the tokenizer knows the language of the texts."""
        found = []
        cut = int(self.num_truncated.sum(dtype=np.int64))
        total = int(self.lengths.sum())
        if cut:
            share = cut / (total + cut)
            found.append(
                f"{self.num_truncated_rows} of {len(self)} rows are longer than max_length {max_length} and were cut, {share:.1%} of all tokens"
            )
        if unknown_id is not None and total:
            unknown = self._share_of(unknown_id)
            if unknown > 0.02:
                found.append(
                    f"{unknown:.1%} of all tokens are unknown to this encoder's vocabulary; is it made for this language?"
                )
        return found

    def _share_of(self, token: int) -> float:
        """Return which share of all tokens, those of shared texts once, is this one."""
        return float((self._flat_ids == token).mean())

    def used_ids(self) -> IntArray:
        """Return every token id that occurs, once."""
        return np.unique(self._flat_ids).astype(np.int64)

    def get_batch(self, rows: Sequence[int], collate: Callable[[list[Any]], Any]) -> Batch:
        """Gather rows into tensors; `collate` turns their targets into one."""
        texts, sides = self.index_pairs(rows)
        return self.make_batch(rows, sides, collate, self.gather_texts(texts))

    def make_batch(
        self,
        rows: Sequence[int],
        pair_index: PairIndex | None,
        collate: Callable[[list[Any]], Any],
        ragged: Ragged,
    ) -> Batch:
        """Gather rows whose texts are at hand as `ragged`, or, when it holds none, as vectors."""
        targets = [self.targets[r] for r in rows]
        target = None if any(t is None for t in targets) else collate(targets)
        return Batch(ragged, target, tuple(rows), tuple(self.contexts[r] for r in rows), pair_index)

    def gather_texts(self, numbers: Sequence[int]) -> Ragged:
        """Gather texts by number: those of the rows in their order, unless rows share them."""
        return _ragged(self._texts, numbers)

    def index_pairs(self, rows: Sequence[int]) -> tuple[Sequence[int], PairIndex | None]:
        """Return the texts of some rows, each once, and which stands where; without sides, a row is its own text."""
        import torch

        if self._places is None or self._identities is None:
            return rows, None
        texts, places = np.unique(self._places[list(rows)], return_inverse=True)
        columns = places.reshape(len(rows), self._places.shape[1]).T
        identities = torch.from_numpy(self._identities[texts])
        return texts.tolist(), PairIndex(
            tuple(torch.from_numpy(np.ascontiguousarray(c)) for c in columns), identities
        )


def _ragged(texts: EncodingStore, rows: Sequence[int]) -> Ragged:
    import torch

    found = [texts.get_input_ids(r) for r in rows]
    lengths = tuple(map(len, found))
    words: torch.Tensor | None = None
    num_words: tuple[int, ...] = ()
    if texts.word_positions is not None:
        begins = itertools.accumulate(lengths, initial=0)
        places = [
            texts.word_positions[r].astype(np.int64) + begin for r, begin in zip(rows, begins, strict=False)
        ]
        words, num_words = torch.from_numpy(np.concatenate(places)), tuple(len(p) for p in places)
    if texts.window_lengths is not None:  # the encoder sees every window as a row of its own
        lengths = tuple(int(tokens) for r in rows for tokens in texts.window_lengths[r])
    nothing = np.empty(0, np.uint8)
    ids = np.concatenate(found or [nothing]).astype(np.int64)
    types = np.concatenate([texts.get_token_type_ids(r) for r in rows] or [nothing]).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    syllables: torch.Tensor | None = None
    heard = [of_text for r in rows if (of_text := texts.get_pinyin_ids(r)) is not None]
    if heard:
        syllables = torch.from_numpy(np.concatenate(heard))
    return Ragged(
        torch.from_numpy(ids),
        torch.from_numpy(types),
        torch.from_numpy(offsets),
        lengths,
        words,
        num_words,
        syllables,
    )
