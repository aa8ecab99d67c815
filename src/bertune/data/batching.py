"""Encoded rows in flat arrays, and which of them come together in a batch. No padding anywhere.

Tensor letters: `B` rows, `T` packed tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.types import Batch, Encoded, Ragged

Ints = npt.NDArray[np.int64]


def _offsets(lengths: Sequence[int]) -> Ints:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(frozen=True)
class _Lists:
    """A list of numbers a row, in one array."""

    values: npt.NDArray[np.int32]
    offsets: Ints

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> _Lists:
        return cls(np.fromiter(itertools.chain.from_iterable(lists), np.int32), _offsets([len(x) for x in lists]))

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class _Column:
    """One input of every row: row b is `ids[offsets[b]:offsets[b + 1]]`."""

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.uint8]
    offsets: Ints
    words: _Lists | None = None  # where the task looks at words: their tokens, counted from the row's first one
    windows: _Lists | None = None  # and the tokens of each window of the row


class EncodedRows:
    """A data set as integers: flat arrays, so that millions of rows cost little more than their tokens."""

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self.targets: list[Any] = [row.target for row in rows]
        self.contexts: list[Any] = [row.context for row in rows]
        self.cut: list[int] = [sum(piece.cut for piece in row.inputs) for row in rows]
        self._columns = [self._column(rows, n) for n in range(len(rows[0].inputs) if rows else 1)]
        self.lengths: Ints = sum((np.diff(c.offsets) for c in self._columns), start=np.zeros(len(rows), np.int64))
        """Tokens of each row, all its inputs together."""

    @staticmethod
    def _column(rows: Sequence[Encoded], n: int) -> _Column:
        offsets = _offsets([len(row.inputs[n].ids) for row in rows])
        ids = np.empty(int(offsets[-1]), np.int32)
        types = np.empty(int(offsets[-1]), np.uint8)
        for row, start, stop in zip(rows, offsets[:-1], offsets[1:], strict=True):
            ids[start:stop] = row.inputs[n].ids
            types[start:stop] = row.inputs[n].types
        words, windows = ([getattr(row.inputs[n], name) for row in rows] for name in ("words", "windows"))
        lists = [None if any(x is None for x in found) else _Lists.of(found) for found in (words, windows)]
        return _Column(ids, types, offsets, *lists)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.targets)

    @property
    def num_cut(self) -> int:
        """Return how many rows were longer than max_length."""
        return sum(tokens > 0 for tokens in self.cut)

    def findings(self, unknown_id: int | None, max_length: int) -> list[str]:
        """Say how many rows were cut, and whether the tokenizer knows the language of the texts."""
        found = []
        cut = [tokens for tokens in self.cut if tokens]
        total = int(self.lengths.sum())
        if cut:
            share = sum(cut) / (total + sum(cut))
            found.append(f"{len(cut)} of {len(self)} rows are longer than max_length {max_length} and were cut, {share:.1%} of all tokens")
        if unknown_id is not None and total:
            unknown = sum(int((column.ids == unknown_id).sum()) for column in self._columns) / total
            if unknown > 0.02:
                found.append(f"{unknown:.1%} of all tokens are unknown to this encoder's vocabulary; is it made for this language?")
        return found

    def used_ids(self) -> Ints:
        """Return every token id that occurs, once."""
        used = [np.unique(column.ids) for column in self._columns]
        return np.unique(np.concatenate(used)).astype(np.int64)

    def batch(self, rows: Sequence[int], collate: Callable[[list[Any]], Any]) -> Batch:
        """Gather rows into tensors; `collate` turns their targets into one."""
        targets = [self.targets[r] for r in rows]
        target = None if any(t is None for t in targets) else collate(targets)
        return Batch(tuple(_ragged(c, rows) for c in self._columns), target, tuple(rows), tuple(self.contexts[r] for r in rows))


def _ragged(column: _Column, rows: Sequence[int]) -> Ragged:
    import torch

    spans = [(column.offsets[r], column.offsets[r + 1]) for r in rows]
    lengths = tuple(int(stop - start) for start, stop in spans)
    words: torch.Tensor | None = None
    num_words: tuple[int, ...] = ()
    if column.words is not None:
        begins = itertools.accumulate(lengths, initial=0)
        places = [column.words[r].astype(np.int64) + begin for r, begin in zip(rows, begins, strict=False)]
        words, num_words = torch.from_numpy(np.concatenate(places)), tuple(len(p) for p in places)
    if column.windows is not None:  # the encoder sees every window as a row of its own
        lengths = tuple(int(tokens) for r in rows for tokens in column.windows[r])
    ids = np.concatenate([column.ids[start:stop] for start, stop in spans]).astype(np.int64)
    types = np.concatenate([column.types[start:stop] for start, stop in spans]).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Ragged(torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(offsets), lengths, words, num_words)


def epoch_order(num_rows: int, seed: int, epoch: int) -> Ints:
    """Return the order of rows in an epoch: a function of seed and epoch, so a position in it is a whole state."""
    return np.random.default_rng((seed, epoch)).permutation(num_rows)


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return how many batches hold every row once; the last may be short, none is dropped.

    >>> num_batches(10, 4)
    3
    """
    return -(-num_rows // batch_size)


def micro_batches(rows: Sequence[int], lengths: Ints, parts: int, max_tokens: int | None) -> list[list[int]]:
    """Cut the rows of one batch, in their order, into micro-batches.

    Args:
        rows: places in the data set.
        lengths: tokens of every row of the data set.
        parts: into how many micro-batches at least, as even as rows allow.
        max_tokens: a part with more tokens than this is cut further; a row is never cut.

    >>> micro_batches([0, 1, 2, 3], np.array([5, 5, 5, 5]), 2, None)
    [[0, 1], [2, 3]]
    >>> micro_batches([0, 1, 2], np.array([5, 5, 5]), 1, 11)
    [[0, 1], [2]]
    """
    result: list[list[int]] = []
    for part in np.array_split(np.asarray(rows), min(parts, len(rows))):
        held: list[int] = []
        tokens = 0
        for row in part.tolist():
            if held and max_tokens is not None and tokens + int(lengths[row]) > max_tokens:
                result.append(held)
                held, tokens = [], 0
            held.append(row)
            tokens += int(lengths[row])
        result.append(held)
    return result


def by_length(lengths: Ints, max_tokens: int, max_rows: int = 256) -> Iterator[list[int]]:
    """Yield every row once in batches of similar length, the longest first, for work whose order does not matter."""
    order = np.argsort(-lengths, kind="stable").tolist()
    held: list[int] = []
    tokens = 0
    for row in order:
        if held and (tokens + int(lengths[row]) > max_tokens or len(held) == max_rows):
            yield held
            held, tokens = [], 0
        held.append(row)
        tokens += int(lengths[row])
    if held:
        yield held
