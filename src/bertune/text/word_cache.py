"""Token ids of texts from the ids of their words, each word given to the Rust tokenizer once, or cut here where it is plain.

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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bertune.types import Encoding

IntArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.int32]

MAX_CACHED_WORDS = 1 << 17
"""Words whose ids are kept, at some 160 bytes each; all are forgotten when there are more."""
CHUNK_TEXTS = 1024
"""Texts that go through numpy together: few enough for the processor's cache, enough to pay for the calls."""
MAX_LETTERS_PER_WORD = 20
"""A text with more letters a word has too few blanks."""
WHITESPACE = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace())
"""Where Python's `str.split` cuts."""


class TokenArray(Sequence[int]):
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
        return (
            isinstance(other, TokenArray | list | tuple)
            and len(self) == len(other)
            and list(self) == list(other)
        )

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the array."""
        return np.array(self.array, dtype) if copy else np.asarray(self.array, dtype)

    def __repr__(self) -> str:
        return repr(self.array.tolist())


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens around and between the texts of an input, and the segment of every token."""

    special_ids: tuple[IdArray, ...]
    """Before, between and after the texts."""
    special_type_ids: tuple[npt.NDArray[np.uint8], ...]
    text_type_ids: tuple[int, ...]
    """The segment of each text's own tokens."""

    @property
    def num_special(self) -> int:
        """Return the number of special tokens."""
        return sum(map(len, self.special_ids))


def get_special_tokens(rust: Any, num_texts: int) -> SpecialTokens | None:
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
    return SpecialTokens(ids, tuple(np.array(s, np.uint8) for s in special_types), tuple(types))


@dataclass(frozen=True)
class PackedEncodings:
    """What became of some inputs: input b is `input_ids[offsets[b]:offsets[b + 1]]`; `token_type_ids` is None where all are 0."""

    input_ids: IdArray
    token_type_ids: npt.NDArray[np.uint8] | None
    offsets: IntArray
    num_truncated: IntArray
    """Tokens of each input that were cut away."""

    def to_list(self) -> list[Encoding]:
        """Return the pieces, which share the arrays."""
        types = self.token_type_ids
        nothing = np.zeros(int(np.diff(self.offsets).max(initial=0)), np.uint8)
        ends = self.offsets.tolist()
        return [
            Encoding(
                TokenArray(self.input_ids[a:b]),
                TokenArray(nothing[: b - a] if types is None else types[a:b]),
                cut,
            )
            for a, b, cut in zip(ends[:-1], ends[1:], self.num_truncated.tolist(), strict=True)
        ]


class _Words:
    """Words and their ids."""

    def __init__(self) -> None:
        self.word_index: dict[str, int] = {}
        self._ids = np.empty(1 << 16, np.int32)
        self._starts, self._lengths = np.zeros(1 << 14, np.int64), np.zeros(1 << 14, np.int64)
        self._used = 0

    def look_up(self, words: list[str]) -> IntArray:
        """Return the number of each word; -1 where there is none."""
        return np.fromiter(map(self.word_index.get, words, itertools.repeat(-1)), np.int64, len(words))

    def tokens(self, numbers: IntArray, ends: IntArray) -> tuple[IdArray, IntArray]:
        """Return the ids (T,) of words, and where those of each text begin and end, whose words do so at `ends`."""
        lengths = self._lengths[numbers]
        cuts = _ends(lengths)
        places = np.arange(int(cuts[-1])) + np.repeat(self._starts[numbers] - cuts[:-1], lengths)
        return self._ids[places], cuts[ends]

    def add(self, words: list[str], ids: IdArray, ends: IntArray) -> None:
        """Take in words that are new."""
        first, last = len(self.word_index), len(self.word_index) + len(words)
        self._ids = _room(self._ids, self._used + len(ids))
        self._starts, self._lengths = _room(self._starts, last), _room(self._lengths, last)
        self._ids[self._used : self._used + len(ids)] = ids
        self._starts[first:last] = ends[:-1] + self._used
        self._lengths[first:last] = np.diff(ends)
        self._used += len(ids)
        self.word_index.update(zip(words, range(first, last), strict=True))


class AsciiWordPiece:
    """BERT's tokenizer for words of printable ASCII in which no added token can be: a few dictionary look-ups.

    Runs of letters and digits and single signs are cut from left to right into the longest pieces that the vocabulary has.

    Source: Wu et al. 2016, arXiv 1609.08144 (WordPiece); tokenizers' BertPreTokenizer and WordPiece for the rest.
    """

    def __init__(self, model: dict[str, Any], *, lower: bool, never: set[str]) -> None:
        self._vocabulary: dict[str, int] = model["vocab"]
        self._prefix: str = model["continuing_subword_prefix"]
        self._longest: int = model["max_input_chars_per_word"]
        self._unknown = [self._vocabulary[model["unk_token"]]]
        self._lower = lower
        self._never = never
        signs = re.escape("".join(never))
        self._odd = re.compile(f"[^\t\n\r -~]|[{signs}]" if never else "[^\t\n\r -~]")
        self._parts = re.compile("[A-Za-z0-9]+|[!-/:-@\\[-`{-~]").findall

    @classmethod
    def from_tokenizer_json(cls, tokenizer_json: dict[str, Any]) -> AsciiWordPiece | None:
        """Return one for a tokenizer.json, or None where an added token may be part of a plain word."""
        added = [token["content"] for token in tokenizer_json.get("added_tokens") or ()]
        if (
            any(token.isalnum() for token in added)
            or tokenizer_json["model"]["unk_token"] not in tokenizer_json["model"]["vocab"]
        ):
            return None
        never = {sign for token in added for sign in token if not sign.isalnum()}
        return cls(
            tokenizer_json["model"], lower=bool(tokenizer_json["normalizer"]["lowercase"]), never=never
        )

    def split(self, text: str) -> list[str] | None:
        """Return the runs and signs of a text, as its vocabulary has them; None where it holds anything but printable ASCII and blanks."""
        plain = (
            text.isascii() and text.isprintable() and not any(sign in text for sign in self._never)
        )  # a fraction of the search below
        if not plain and self._odd.search(text):
            return None
        found: list[str] = self._parts(text.lower() if self._lower else text)
        return found

    def __call__(self, word: str) -> list[int] | None:
        """Return the ids of a word, or None where it is none of these."""
        parts = self.split(word)
        return None if parts is None else [token for part in parts for token in self._pieces(part)]

    def _pieces(self, part: str) -> list[int]:
        if len(part) > self._longest:
            return self._unknown
        found, start, get = [], 0, self._vocabulary.get
        while start < len(part):
            rest = self._prefix + part[start:] if start else part
            for end in range(len(rest), len(rest) - len(part) + start, -1):
                token = get(rest[:end])
                if token is not None:
                    break
            else:
                return self._unknown
            found.append(token)
            start += end - (len(rest) - len(part) + start)
        return found


class WordCache:
    """Encodes what it is sure of; see the head of this file.

    Args:
        rust: the tokenizer, without truncation and padding.
        max_length: most tokens of an input.
        keeps_end: whether a text that is too long loses its beginning.
    """

    def __init__(self, rust: Any, max_length: int, *, truncate_left: bool = False) -> None:
        self._rust = rust
        self._max_length = max_length
        self._keeps_end = truncate_left
        self._lock = threading.Lock()
        self._frames = {n: get_special_tokens(rust, n) for n in (1, 2)}
        self._other_blanks = _other_blanks(rust)
        self._plain = AsciiWordPiece.from_tokenizer_json(json.loads(rust.to_str()))
        self._forget()

    @classmethod
    def from_tokenizer(cls, rust: Any, max_length: int, *, truncate_left: bool = False) -> WordCache | None:
        """Return a cache for a tokenizer, or None where words cannot stand for themselves."""
        return (
            cls(rust, max_length, truncate_left=truncate_left)
            if supports_word_cache(json.loads(rust.to_str()))
            else None
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Begin anew in another process."""
        return _again, (self._rust, self._max_length, self._keeps_end)

    def _forget(self) -> None:
        self._known = _Words()

    def encode(self, inputs: Sequence[tuple[str, ...]]) -> list[Encoding | None]:
        """Return the piece of each input; None where the Rust tokenizer must be asked."""
        found: list[Encoding | None] = [None] * len(inputs)
        for num_texts in (1, 2):
            places = [n for n, texts in enumerate(inputs) if len(texts) == num_texts]
            for start in range(0, len(places), CHUNK_TEXTS):
                with self._lock:  # a model may be asked by several threads
                    self._encode_some(inputs, places[start : start + CHUNK_TEXTS], num_texts, found)
        return found

    def _encode_some(
        self,
        inputs: Sequence[tuple[str, ...]],
        places: list[int],
        num_texts: int,
        found: list[Encoding | None],
    ) -> None:
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
        numbers, known = self._look_up(words, np.array(counts, np.int64))
        fits = np.logical_and.reduce(known.reshape(-1, num_texts), axis=1)
        ends = _ends(np.array(counts, np.int64))
        if not fits.all():
            chosen = np.repeat(fits, num_texts)
            numbers, ends = numbers[np.repeat(chosen, counts)], _ends(np.array(counts, np.int64)[chosen])
            sure = list(itertools.compress(sure, fits.tolist()))
        if not sure:
            return
        tokens, ends = self._known.tokens(numbers, ends)
        room = self._max_length - frame.num_special
        fits = (
            np.ones(len(sure), bool)
            if num_texts == 1
            else np.diff(ends).reshape(-1, num_texts).sum(1) <= room
        )
        pieces = (
            self._framed(frame, tokens, ends, room).to_list()
            if num_texts == 1
            else _paired(frame, tokens, ends, fits).to_list()
        )
        for place, piece in zip(itertools.compress(sure, fits.tolist()), pieces, strict=True):
            found[place] = piece

    def _words(self, text: str) -> list[str] | None:
        parts = self._plain.split(text) if self._plain is not None else None
        if parts is not None:
            return parts  # far fewer different ones than words with signs around them
        words = text.split()
        if len(text) > MAX_LETTERS_PER_WORD * len(words) + MAX_LETTERS_PER_WORD or self._other_blanks.search(
            text
        ):
            return None
        return words

    def _look_up(self, words: list[str], counts: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Return the number of each word, and of which texts all words are known.

        Where a third of the words are new, only those that come twice are learnt: a new word costs three times what it costs as part of a
        text, so texts of words that never come again are better given to the Rust tokenizer whole.
        """
        numbers = self._known.look_up(words)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            unseen = [words[place] for place in missing.tolist()]
            if len(self._known.word_index) + len(set(unseen)) > MAX_CACHED_WORDS:
                self._forget()
                unseen, missing = words, np.arange(len(words))
            new = Counter(unseen)
            self._learn(
                list(new)
                if len(new) <= len(words) / 3
                else [word for word, count in new.items() if count > 1]
            )
            numbers[missing] = self._known.look_up(unseen)
        unknown = _ends((numbers < 0).astype(np.int64))[_ends(counts)]
        return numbers, np.diff(unknown) == 0

    def _learn(self, words: list[str]) -> None:
        """Take in words: plain ones are cut here, all others by the Rust tokenizer."""
        cut = self._plain
        ids = [cut(word) if cut is not None and word.isascii() else None for word in words]
        rest = [place for place, found in enumerate(ids) if found is None]
        for place, encoding in zip(
            rest, self._rust.encode_batch([words[n] for n in rest], add_special_tokens=False), strict=True
        ):
            ids[place] = encoding.ids
        every = cast(list[list[int]], ids)
        ends = _ends(np.array([len(x) for x in every], np.int64))
        self._known.add(words, np.fromiter(itertools.chain.from_iterable(every), np.int32), ends)

    def _framed(self, frame: SpecialTokens, tokens: IdArray, ends: IntArray, room: int) -> PackedEncodings:
        """Put special tokens around single texts, and cut those that are too long."""
        lengths = np.diff(ends)
        kept = np.minimum(lengths, room)
        first = ends[1:] - kept if self._keeps_end else ends[:-1]
        offsets = _ends(kept + frame.num_special)
        ids = np.empty(int(offsets[-1]), np.int32)
        types = np.full(len(ids), frame.text_type_ids[0], np.uint8)
        inner = _ends(kept)
        within = np.arange(int(inner[-1])) - np.repeat(inner[:-1], kept)
        before = len(frame.special_ids[0])
        ids[within + np.repeat(offsets[:-1] + before, kept)] = tokens[within + np.repeat(first, kept)]
        _put_special(frame, 0, offsets[:-1], ids, types)
        _put_special(frame, 1, offsets[1:] - len(frame.special_ids[1]), ids, types)
        return PackedEncodings(ids, types if types.any() else None, offsets, lengths - kept)


def _again(rust: Any, max_length: int, keeps_end: bool) -> WordCache:
    return WordCache(rust, max_length, truncate_left=keeps_end)


def _paired(
    frame: SpecialTokens, tokens: IdArray, ends: IntArray, fits: npt.NDArray[np.bool_]
) -> PackedEncodings:
    """Put special tokens around pairs that are short enough."""
    starts, lengths = ends[:-1].reshape(-1, 2)[fits], np.diff(ends).reshape(-1, 2)[fits]
    offsets = _ends(lengths.sum(1) + frame.num_special)
    ids = np.empty(int(offsets[-1]), np.int32)
    types = np.empty(len(ids), np.uint8)
    place = offsets[:-1]
    for side in (0, 1):
        _put_special(frame, side, place, ids, types)
        place = place + len(frame.special_ids[side])
        count = lengths[:, side]
        inner = _ends(count)
        within = np.arange(int(inner[-1])) - np.repeat(inner[:-1], count)
        there = within + np.repeat(place, count)
        ids[there] = tokens[within + np.repeat(starts[:, side], count)]
        types[there] = frame.text_type_ids[side]
        place = place + count
    _put_special(frame, 2, place, ids, types)
    return PackedEncodings(ids, types if types.any() else None, offsets, np.zeros(len(lengths), np.int64))


def _put_special(
    frame: SpecialTokens, part: int, places: IntArray, ids: IdArray, types: npt.NDArray[np.uint8]
) -> None:
    for n, (token, kind) in enumerate(
        zip(frame.special_ids[part], frame.special_type_ids[part], strict=True)
    ):
        ids[places + n] = token
        types[places + n] = kind


def _room(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Return an array with room for `size` values."""
    if size <= len(array):
        return array
    grown = np.zeros(2 * size, array.dtype)
    grown[: len(array)] = array
    return grown


def _ends(lengths: IntArray) -> IntArray:
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def supports_word_cache(tokenizer_json: dict[str, Any]) -> bool:
    """Tell whether a tokenizer.json is BERT's own kind, whose added tokens hold no blank and nothing that normalisation changes."""
    parts = {
        name: (tokenizer_json.get(name) or {}).get("type")
        for name in ("normalizer", "pre_tokenizer", "model", "post_processor")
    }
    bert = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
    if any(parts[name] != kind for name, kind in bert.items()) or parts["post_processor"] not in {
        "TemplateProcessing",
        "BertProcessing",
    }:
        return False
    plain = all(
        re.fullmatch(r"[!-~]+", token["content"]) for token in tokenizer_json.get("added_tokens") or ()
    )
    return plain and tokenizer_json["normalizer"].get("clean_text") is True


def _other_blanks(rust: Any) -> re.Pattern[str]:
    """Return a pattern for what Python cuts at and the tokenizer does not: control characters, which it drops."""
    other = "".join(blank for blank in WHITESPACE if rust.normalizer.normalize_str(f"a{blank}a") != "a a")
    return re.compile(f"[{re.escape(other)}]" if other else r"(?!)")
