"""Documents to rows of up to `max_length` tokens, for tasks that learn from running text.

A window is a piece of a document with its special tokens. A row is one window or several: they share a row of
the data set, but no window sees another one. Nothing is dropped but windows without an ordinary token.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bertune.text.word_cache import TokenArray
from bertune.types import EncodedExample, Encoding

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """The special tokens around each window.

    Attributes:
        before: ids before the text.
        after: ids after it.
        token_type: segment of all tokens.
        max_length: most tokens of a row, special ones included.
    """

    before: Sequence[int]
    after: Sequence[int]
    token_type: int
    max_length: int

    @property
    def room(self) -> int:
        """Return how many tokens of its text a window has at most."""
        return self.max_length - len(self.before) - len(self.after)


@dataclass(frozen=True)
class Pieces:
    """Tokens of a text, and what belongs to them.

    Attributes:
        ids: (T,).
        word_starts: (T,) whether a token begins a word; None where nobody has looked.
        pinyin_ids: (T,) the pronunciation of each token; None where the encoder reads none.
    """

    ids: Numbers
    word_starts: npt.NDArray[np.bool_] | None = None
    pinyin_ids: Numbers | None = None

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)

    def __getitem__(self, part: slice) -> Pieces:
        """Return some of the tokens."""
        starts, pinyin = self.word_starts, self.pinyin_ids
        return Pieces(
            self.ids[part], None if starts is None else starts[part], None if pinyin is None else pinyin[part]
        )


def join_pieces(pieces: Sequence[Pieces]) -> Pieces:
    """Return the tokens of several texts as those of one."""
    starts = [piece.word_starts for piece in pieces if piece.word_starts is not None]
    pinyin = [piece.pinyin_ids for piece in pieces if piece.pinyin_ids is not None]
    return Pieces(
        np.concatenate([piece.ids for piece in pieces]),
        np.concatenate(starts) if starts else None,
        np.concatenate(pinyin) if pinyin else None,
    )


def split_pieces(text: Pieces, room: int) -> list[Pieces]:
    """Cut a text into windows of `room` tokens, the last one shorter; a text without tokens is one window."""
    return [text[start : start + room] for start in range(0, max(len(text), 1), room)]


def frame_windows(windows: Sequence[Pieces], frame: Frame, texts: Sequence[int] = ()) -> EncodedExample:
    """Return windows with their special tokens as one row.

    Args:
        windows: one or several.
        frame: the special tokens.
        texts: how many windows belong to each text, in their order; the row has it as its context. Without it
            they count as one text.
    """
    before, after = (
        Pieces(np.array(ids, np.int64), np.ones(len(ids), bool), np.zeros(len(ids), np.int64))
        for ids in (frame.before, frame.after)
    )
    whole = join_pieces([part for window in windows for part in (before, _complete(window), after)])
    has_starts = all(window.word_starts is not None for window in windows)
    has_pinyin = all(window.pinyin_ids is not None for window in windows)
    starts, pinyin = whole.word_starts, whole.pinyin_ids
    encoding = Encoding(
        TokenArray(whole.ids),
        TokenArray(np.full(len(whole), frame.token_type)),
        word_positions=TokenArray(np.flatnonzero(starts)) if has_starts and starts is not None else None,
        window_lengths=[len(window) + len(frame.before) + len(frame.after) for window in windows],
        pinyin_ids=TokenArray(pinyin) if has_pinyin and pinyin is not None else None,
    )
    return EncodedExample((encoding,), context=list(texts) or [len(windows)])


def _complete(window: Pieces) -> Pieces:
    """Return a window in which nothing is None, so that it can be joined with special tokens."""
    starts, pinyin, size = window.word_starts, window.pinyin_ids, len(window)
    return Pieces(
        window.ids,
        np.ones(size, bool) if starts is None else starts,
        np.zeros(size, np.int64) if pinyin is None else pinyin,
    )


def unframe(row: EncodedExample, frame: Frame) -> list[Pieces]:
    """Return the windows of a row without their special tokens: the opposite of `frame_windows`."""
    encoding = row.inputs[0]
    ids = np.asarray(encoding.input_ids, np.int64)
    starts = None
    if encoding.word_positions is not None:
        starts = np.zeros(len(ids), bool)
        starts[np.asarray(encoding.word_positions, np.int64)] = True
    pinyin = None if encoding.pinyin_ids is None else np.asarray(encoding.pinyin_ids, np.int64)
    whole, ends = Pieces(ids, starts, pinyin), np.cumsum(encoding.window_lengths or [len(ids)])
    first, last = len(frame.before), len(frame.after)
    begins = [0, *ends[:-1]]
    return [whole[begin + first : end - last] for begin, end in zip(begins, ends, strict=True)]


@dataclass
class _Bins:
    """Rows that are being filled, by the room that is left in them."""

    rows: list[list[int]] = field(default_factory=list)
    _by_room: dict[int, list[int]] = field(default_factory=dict)
    _rooms: list[int] = field(default_factory=list)

    def put(self, number: int, size: int, capacity: int) -> None:
        """Put something into the fullest row that has room for it, else into a new one."""
        place = bisect.bisect_left(self._rooms, size)
        if place == len(self._rooms):
            row, room = len(self.rows), capacity
            self.rows.append([])
        else:
            room = self._rooms[place]
            row = self._by_room[room].pop()
            if not self._by_room[room]:
                del self._by_room[room], self._rooms[place]
        self.rows[row].append(number)
        left = room - size
        if left:
            if left not in self._by_room:
                bisect.insort(self._rooms, left)
                self._by_room[left] = []
            self._by_room[left].append(row)


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute things among as few rows as is easy: the largest first, each where it fits best.

    Args:
        sizes: of the things, none more than `capacity`.
        capacity: of a row.

    Returns:
        The numbers of the things in each row.

    Examples:
        >>> best_fit([3, 9, 6, 1, 1], 10)
        [[1, 4], [2, 0, 3]]
    """
    bins = _Bins()
    for number in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        bins.put(number, sizes[number], capacity)
    return bins.rows


def pack_separate(windows: Sequence[Pieces], frame: Frame) -> list[EncodedExample]:
    """Fill rows with windows, which stay apart."""
    around = len(frame.before) + len(frame.after)
    rows = best_fit([len(window) + around for window in windows], frame.max_length)
    return [frame_windows([windows[number] for number in row], frame) for row in rows]


def pack_joined(documents: Iterable[Sequence[Pieces]], frame: Frame) -> list[EncodedExample]:
    """Write documents one after the other, special tokens between them, and cut the whole into full rows.

    Args:
        documents: the windows of each.
        frame: the special tokens; those after a window also stand between documents.
    """
    between = np.array(frame.after, np.int64)
    separator = Pieces(between, np.ones(len(between), bool), np.zeros(len(between), np.int64))
    parts: list[Pieces] = []
    has_starts = has_pinyin = True
    for document in documents:
        parts += [separator] if parts else []
        for window in document:
            has_starts = has_starts and window.word_starts is not None
            has_pinyin = has_pinyin and window.pinyin_ids is not None
            parts.append(_complete(window))
    if not parts:
        return []
    whole = join_pieces(parts)
    whole = Pieces(
        whole.ids, whole.word_starts if has_starts else None, whole.pinyin_ids if has_pinyin else None
    )
    return [frame_windows([window], frame) for window in split_pieces(whole, frame.room)]
