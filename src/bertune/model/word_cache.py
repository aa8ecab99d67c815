"""Token ids of texts from the ids of their words, each word given to the Rust tokenizer once.

For BERT's own tokenizer (BertNormalizer, BertPreTokenizer, WordPiece) the tokens of a text are those of its blank-separated words, one
after the other: normalisation looks at one letter at a time, accents are never carried over a blank, and no token holds a blank. So a
dictionary from words to ids, and numpy for many texts at once, give what the Rust tokenizer gives, several times as fast. Whatever is not
sure to be the same is left to the Rust tokenizer: other tokenizers, texts with letters that Python takes for blanks and Rust does not,
texts with few blanks such as Chinese ones, and pairs that are to be cut.

Letters: `W` words, `T` tokens, all texts of a call one after the other.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.types import Piece

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]

MOST_WORDS = 1 << 17
"""Words whose ids are kept, at some 200 bytes each; all are forgotten when there are more."""
TEXTS_AT_ONCE = 1024
"""Texts that go through numpy together: few enough for the processor's cache, enough to pay for the calls."""
LETTERS_A_WORD = 20
"""A text with more letters a word has too few blanks."""
BLANKS = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace())
"""Where Python's `str.split` cuts."""


class Tokens(Sequence[int]):
    """Ids in a numpy array that compare and print as a list does, without a Python number for each until somebody asks."""

    __slots__ = ("array",)

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.array)

    def __getitem__(self, place: Any) -> Any:
        """Return an id, or the list of some."""
        found = self.array[place]
        return found.tolist() if isinstance(place, slice) else int(found)

    def __iter__(self) -> Iterator[int]:
        """Give the ids one by one."""
        return iter(self.array.tolist())

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of numbers."""
        return isinstance(other, Tokens | list | tuple) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the array."""
        return np.array(self.array, dtype) if copy else np.asarray(self.array, dtype)

    def __repr__(self) -> str:
        return repr(self.array.tolist())


@dataclass(frozen=True)
class Frame:
    """The special tokens around and between the texts of an input, and the segment of every token."""

    special: tuple[Ids, ...]
    """Before, between and after the texts."""
    special_types: tuple[npt.NDArray[np.uint8], ...]
    types: tuple[int, ...]
    """The segment of each text's own tokens."""

    @property
    def size(self) -> int:
        """Return the number of special tokens."""
        return sum(map(len, self.special))


def frame_of(rust: Any, num_texts: int) -> Frame | None:
    """Return the frame of a single text or of a pair; None where it is of another form."""
    found = rust.encode(*("a" for _ in range(num_texts)))
    sides = found.sequence_ids
    special: list[list[int]] = [[] for _ in range(num_texts + 1)]
    special_types: list[list[int]] = [[] for _ in range(num_texts + 1)]
    types: list[int] = []
    for token, kind, side in zip(found.ids, found.type_ids, sides, strict=True):
        if side is None:
            special[len(types)].append(token)
            special_types[len(types)].append(kind)
        elif side == len(types) < num_texts:
            types.append(kind)
        else:
            return None  # the second text comes first, or a text is more than its one token
    if len(types) < num_texts:
        return None
    ids = tuple(np.array(s, np.int32) for s in special)
    return Frame(ids, tuple(np.array(s, np.uint8) for s in special_types), tuple(types))


@dataclass(frozen=True)
class Encodings:
    """What became of some inputs: input b is `ids[offsets[b]:offsets[b + 1]]`; `types` is None where all are 0."""

    ids: Ids
    types: npt.NDArray[np.uint8] | None
    offsets: Ints
    cut: Ints
    """Tokens of each input that were cut away."""

    def pieces(self) -> list[Piece]:
        """Return the pieces, which share the arrays."""
        types = self.types
        nothing = np.zeros(int(np.diff(self.offsets).max(initial=0)), np.uint8)
        ends = self.offsets.tolist()
        return [
            Piece(Tokens(self.ids[a:b]), Tokens(nothing[: b - a] if types is None else types[a:b]), cut)
            for a, b, cut in zip(ends[:-1], ends[1:], self.cut.tolist(), strict=True)
        ]


class WordCache:
    """Encodes what it is sure of; see the head of this file.

    Args:
        rust: the tokenizer, without truncation and padding.
        max_length: most tokens of an input.
        keeps_end: whether a text that is too long loses its beginning.
    """

    def __init__(self, rust: Any, max_length: int, *, keeps_end: bool = False) -> None:
        self._rust = rust
        self._max_length = max_length
        self._keeps_end = keeps_end
        self._lock = threading.Lock()
        self._frames = {n: frame_of(rust, n) for n in (1, 2)}
        self._other_blanks = _other_blanks(rust)
        self._forget()

    @classmethod
    def of(cls, rust: Any, max_length: int, *, keeps_end: bool = False) -> WordCache | None:
        """Return a cache for a tokenizer, or None where words cannot stand for themselves."""
        return cls(rust, max_length, keeps_end=keeps_end) if is_wordwise(json.loads(rust.to_str())) else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Begin anew in another process."""
        return _again, (self._rust, self._max_length, self._keeps_end)

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        self._ids = np.empty(1 << 16, np.int32)
        self._used = 0
        self._starts = np.zeros(MOST_WORDS, np.int64)
        self._lengths = np.zeros(MOST_WORDS, np.int64)

    def encode(self, inputs: Sequence[tuple[str, ...]]) -> list[Piece | None]:
        """Return the piece of each input; None where the Rust tokenizer must be asked."""
        found: list[Piece | None] = [None] * len(inputs)
        for num_texts in (1, 2):
            places = [n for n, texts in enumerate(inputs) if len(texts) == num_texts]
            for start in range(0, len(places), TEXTS_AT_ONCE):
                with self._lock:  # a model may be asked by several threads
                    self._encode_some(inputs, places[start : start + TEXTS_AT_ONCE], num_texts, found)
        return found

    def _encode_some(self, inputs: Sequence[tuple[str, ...]], places: list[int], num_texts: int, found: list[Piece | None]) -> None:
        frame = self._frames[num_texts]
        if frame is None:
            return
        sure: list[int] = []
        words: list[str] = []
        counts: list[int] = []
        for place in places:
            cut_up = [self._words(text) for text in inputs[place]]
            if None not in cut_up:
                sure.append(place)
                for some in cut_up:
                    words += some or []
                    counts.append(len(some or []))
        if not sure:
            return
        tokens, ends = self._tokens(words, counts)
        lengths = np.diff(ends).reshape(-1, num_texts)
        room = self._max_length - frame.size
        fits = np.ones(len(sure), bool) if num_texts == 1 else lengths.sum(1) <= room
        pieces = self._framed(frame, tokens, ends, room).pieces() if num_texts == 1 else _paired(frame, tokens, ends, fits).pieces()
        for place, piece in zip(itertools.compress(sure, fits.tolist()), pieces, strict=True):
            found[place] = piece

    def _words(self, text: str) -> list[str] | None:
        words = text.split()
        if len(text) > LETTERS_A_WORD * len(words) + LETTERS_A_WORD or self._other_blanks.search(text):
            return None
        return words

    def _tokens(self, words: list[str], counts: list[int]) -> tuple[Ids, Ints]:
        """Return the ids (T,) of all words, and where those of each text begin and end."""
        numbers = np.fromiter(map(self._numbers.get, words, itertools.repeat(-1)), np.int64, len(words))
        if len(words) and numbers.min() < 0:
            self._learn([words[place] for place in np.flatnonzero(numbers < 0).tolist()], words)
            numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        lengths = self._lengths[numbers]
        ends = _ends(lengths)
        places = np.arange(int(ends[-1])) + np.repeat(self._starts[numbers] - ends[:-1], lengths)
        return self._ids[places], ends[_ends(np.array(counts, np.int64))]

    def _learn(self, new: list[str], words: list[str]) -> None:
        """Tokenize words that were not seen before, each once."""
        different = list(dict.fromkeys(new))
        if len(self._numbers) + len(different) > MOST_WORDS:
            self._forget()
            different = list(dict.fromkeys(words))
            grown = max(MOST_WORDS, len(different))  # the words of one call must find room
            self._starts, self._lengths = np.zeros(grown, np.int64), np.zeros(grown, np.int64)
        ids = [found.ids for found in self._rust.encode_batch(different, add_special_tokens=False)]
        lengths = np.array([len(x) for x in ids], np.int64)
        ends = _ends(lengths) + self._used
        if ends[-1] > len(self._ids):
            self._ids = np.concatenate([self._ids[: self._used], np.empty(2 * int(ends[-1]) - self._used, np.int32)])
        self._ids[self._used : int(ends[-1])] = np.fromiter(itertools.chain.from_iterable(ids), np.int32)
        first = len(self._numbers)
        self._starts[first : first + len(ids)] = ends[:-1]
        self._lengths[first : first + len(ids)] = lengths
        self._used = int(ends[-1])
        self._numbers.update(zip(different, range(first, first + len(ids)), strict=True))

    def _framed(self, frame: Frame, tokens: Ids, ends: Ints, room: int) -> Encodings:
        """Put special tokens around single texts, and cut those that are too long."""
        lengths = np.diff(ends)
        kept = np.minimum(lengths, room)
        first = ends[1:] - kept if self._keeps_end else ends[:-1]
        offsets = _ends(kept + frame.size)
        ids = np.empty(int(offsets[-1]), np.int32)
        types = np.full(len(ids), frame.types[0], np.uint8)
        inner = _ends(kept)
        within = np.arange(int(inner[-1])) - np.repeat(inner[:-1], kept)
        before = len(frame.special[0])
        ids[within + np.repeat(offsets[:-1] + before, kept)] = tokens[within + np.repeat(first, kept)]
        _put_special(frame, 0, offsets[:-1], ids, types)
        _put_special(frame, 1, offsets[1:] - len(frame.special[1]), ids, types)
        return Encodings(ids, types if types.any() else None, offsets, lengths - kept)


def _again(rust: Any, max_length: int, keeps_end: bool) -> WordCache:
    return WordCache(rust, max_length, keeps_end=keeps_end)


def _paired(frame: Frame, tokens: Ids, ends: Ints, fits: npt.NDArray[np.bool_]) -> Encodings:
    """Put special tokens around pairs that are short enough."""
    starts, lengths = ends[:-1].reshape(-1, 2)[fits], np.diff(ends).reshape(-1, 2)[fits]
    offsets = _ends(lengths.sum(1) + frame.size)
    ids = np.empty(int(offsets[-1]), np.int32)
    types = np.empty(len(ids), np.uint8)
    place = offsets[:-1]
    for side in (0, 1):
        _put_special(frame, side, place, ids, types)
        place = place + len(frame.special[side])
        count = lengths[:, side]
        inner = _ends(count)
        within = np.arange(int(inner[-1])) - np.repeat(inner[:-1], count)
        there = within + np.repeat(place, count)
        ids[there] = tokens[within + np.repeat(starts[:, side], count)]
        types[there] = frame.types[side]
        place = place + count
    _put_special(frame, 2, place, ids, types)
    return Encodings(ids, types if types.any() else None, offsets, np.zeros(len(lengths), np.int64))


def _put_special(frame: Frame, part: int, places: Ints, ids: Ids, types: npt.NDArray[np.uint8]) -> None:
    for n, (token, kind) in enumerate(zip(frame.special[part], frame.special_types[part], strict=True)):
        ids[places + n] = token
        types[places + n] = kind


def _ends(lengths: Ints) -> Ints:
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def is_wordwise(made: dict[str, Any]) -> bool:
    """Tell whether a tokenizer.json is BERT's own kind, whose added tokens hold no blank and nothing that normalisation changes."""
    parts = {name: (made.get(name) or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model", "post_processor")}
    bert = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
    if any(parts[name] != kind for name, kind in bert.items()) or parts["post_processor"] not in {"TemplateProcessing", "BertProcessing"}:
        return False
    plain = all(re.fullmatch(r"[!-~]+", token["content"]) for token in made.get("added_tokens") or ())
    return plain and made["normalizer"].get("clean_text") is True


def _other_blanks(rust: Any) -> re.Pattern[str]:
    """Return a pattern for what Python cuts at and the tokenizer does not: control characters, which it drops."""
    other = "".join(blank for blank in BLANKS if rust.normalizer.normalize_str(f"a{blank}a") != "a a")
    return re.compile(f"[{re.escape(other)}]" if other else r"(?!)")
