"""Token ids of texts from the ids of their words; the Rust tokenizer sees each word once.

With BERT's own tokenizer (BertNormalizer, BertPreTokenizer, WordPiece) the tokens of a text are those of its
blank-separated words, one after the other: normalization looks at one letter at a time, accents never combine
over a blank, and no token contains a blank. So a dictionary from words to ids, and numpy for many texts at
once, give the ids of the Rust tokenizer several times as fast; plain ASCII words are split here. The Rust
tokenizer itself encodes everything else: other tokenizers, texts with letters that are blanks to Python and
not to Rust, texts with few blanks such as Chinese ones, and pairs that are too long.
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

from bertune.text.wordpiece import AsciiWordPiece
from bertune.types import Encoding

IntArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.int32]

MAX_CACHED_WORDS = 1 << 17
"""The number of words whose ids are kept, about 160 bytes each; the cache is cleared when there are more."""
CHUNK_TEXTS = 1024
"""The number of texts that numpy handles together: as many as fit into the CPU's cache."""
MAX_LETTERS_PER_WORD = 20
"""A text with more letters per word has too few blanks for the cache."""
WHITESPACE = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace())
"""The characters at which Python's `str.split` splits."""


class TokenArray(Sequence[int]):
    """Ids in a numpy array that behave like a list; Python numbers are made only when they are asked for."""

    __slots__ = ("array",)

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        """Return an id, or a list of ids for a slice."""
        value = self.array[index]
        return value.tolist() if isinstance(index, slice) else int(value)

    def __iter__(self) -> Iterator[int]:
        """Yield the ids."""
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
    """The special tokens before, between and after the texts of an input, and the segments of all tokens."""

    special_ids: tuple[IdArray, ...]
    special_type_ids: tuple[npt.NDArray[np.uint8], ...]
    text_type_ids: tuple[int, ...]
    """The segment of the tokens of each text."""

    @property
    def num_special(self) -> int:
        """Return the number of special tokens."""
        return sum(map(len, self.special_ids))


def get_special_tokens(rust: Any, num_texts: int) -> SpecialTokens | None:
    """Return the special tokens of a single text or of a pair; None where they have another form."""
    result = rust.encode(*("a" for _ in range(num_texts)))
    special_ids: list[list[int]] = [[] for _ in range(num_texts + 1)]
    special_types: list[list[int]] = [[] for _ in range(num_texts + 1)]
    text_types: list[int] = []
    for token, segment, text in zip(result.ids, result.type_ids, result.sequence_ids, strict=True):
        if text is None:
            special_ids[len(text_types)].append(token)
            special_types[len(text_types)].append(segment)
        elif text == len(text_types) < num_texts:
            text_types.append(segment)
        else:
            return None  # the second text comes first, or "a" is more than one token
    if len(text_types) < num_texts:
        return None
    return SpecialTokens(
        tuple(np.array(ids, np.int32) for ids in special_ids),
        tuple(np.array(types, np.uint8) for types in special_types),
        tuple(text_types),
    )


@dataclass(frozen=True)
class PackedEncodings:
    """The encodings of some inputs in a few arrays: input b is `input_ids[offsets[b]:offsets[b + 1]]`."""

    input_ids: IdArray
    token_type_ids: npt.NDArray[np.uint8] | None
    """None where all are 0."""
    offsets: IntArray
    num_truncated: IntArray
    """The number of tokens that truncation removed from each input."""

    def to_list(self) -> list[Encoding]:
        """Return the encodings, which share the arrays."""
        types = self.token_type_ids
        zeros = np.zeros(int(np.diff(self.offsets).max(initial=0)), np.uint8)
        ends = self.offsets.tolist()
        return [
            Encoding(
                TokenArray(self.input_ids[start:stop]),
                TokenArray(zeros[: stop - start] if types is None else types[start:stop]),
                num_truncated,
            )
            for start, stop, num_truncated in zip(
                ends[:-1], ends[1:], self.num_truncated.tolist(), strict=True
            )
        ]


class _WordTable:
    """Words and their ids, all ids in one array."""

    def __init__(self) -> None:
        self.word_index: dict[str, int] = {}
        self._ids = np.empty(1 << 16, np.int32)
        self._starts, self._lengths = np.zeros(1 << 14, np.int64), np.zeros(1 << 14, np.int64)
        self._used = 0

    def look_up(self, words: list[str]) -> IntArray:
        """Return the index of each word; -1 for a new word."""
        return np.fromiter(map(self.word_index.get, words, itertools.repeat(-1)), np.int64, len(words))

    def tokens(self, index: IntArray, word_offsets: IntArray) -> tuple[IdArray, IntArray]:
        """Return the ids of words, one after the other, and the offsets of texts in them.

        Args:
            index: of each word of all texts.
            word_offsets: of the texts, in words.
        """
        lengths = self._lengths[index]
        offsets = _offsets(lengths)
        positions = np.arange(int(offsets[-1])) + np.repeat(self._starts[index] - offsets[:-1], lengths)
        return self._ids[positions], offsets[word_offsets]

    def add(self, words: list[str], ids: IdArray, offsets: IntArray) -> None:
        """Add new words; word n has `ids[offsets[n]:offsets[n + 1]]`."""
        first, last = len(self.word_index), len(self.word_index) + len(words)
        self._ids = _grow(self._ids, self._used + len(ids))
        self._starts, self._lengths = _grow(self._starts, last), _grow(self._lengths, last)
        self._ids[self._used : self._used + len(ids)] = ids
        self._starts[first:last] = offsets[:-1] + self._used
        self._lengths[first:last] = np.diff(offsets)
        self._used += len(ids)
        self.word_index.update(zip(words, range(first, last), strict=True))


class WordCache:
    """Encodes texts whose ids it is sure of; see the module.

    Args:
        rust: the tokenizer, without truncation and padding.
        max_length: the most tokens of an input.
        truncate_left: whether a text that is too long loses its beginning.
    """

    def __init__(self, rust: Any, max_length: int, *, truncate_left: bool = False) -> None:
        self._rust = rust
        self._max_length = max_length
        self._truncate_left = truncate_left
        self._lock = threading.Lock()
        self._special_tokens = {n: get_special_tokens(rust, n) for n in (1, 2)}
        self._other_blanks = _other_blanks(rust)
        self._ascii = AsciiWordPiece.from_tokenizer_json(json.loads(rust.to_str()))
        self._clear()

    @classmethod
    def from_tokenizer(cls, rust: Any, max_length: int, *, truncate_left: bool = False) -> WordCache | None:
        """Return a cache for a tokenizer; None where the ids of a text are not those of its words."""
        return (
            cls(rust, max_length, truncate_left=truncate_left)
            if supports_word_cache(json.loads(rust.to_str()))
            else None
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Start empty in another process."""
        return _new_cache, (self._rust, self._max_length, self._truncate_left)

    def _clear(self) -> None:
        self._table = _WordTable()

    def encode(self, inputs: Sequence[tuple[str, ...]]) -> list[Encoding | None]:
        """Return the encoding of each input; None where the Rust tokenizer is needed."""
        encodings: list[Encoding | None] = [None] * len(inputs)
        for num_texts in (1, 2):
            rows = [n for n, texts in enumerate(inputs) if len(texts) == num_texts]
            for start in range(0, len(rows), CHUNK_TEXTS):
                with self._lock:  # several threads may use one model
                    self._encode_chunk(inputs, rows[start : start + CHUNK_TEXTS], num_texts, encodings)
        return encodings

    def _encode_chunk(
        self,
        inputs: Sequence[tuple[str, ...]],
        rows: list[int],
        num_texts: int,
        encodings: list[Encoding | None],
    ) -> None:
        """Encode some rows of `inputs`, all single texts or all pairs, into `encodings`."""
        special = self._special_tokens[num_texts]
        if special is None:
            return
        rows, words, counts = self._split_rows(inputs, rows)
        index, is_known = self._look_up(words, counts)
        chosen = np.logical_and.reduce(is_known.reshape(-1, num_texts), axis=1)
        offsets = _offsets(counts)
        if not chosen.all():
            by_text = np.repeat(chosen, num_texts)
            index, offsets = index[np.repeat(by_text, counts)], _offsets(counts[by_text])
            rows = list(itertools.compress(rows, chosen.tolist()))
        if not rows:
            return
        tokens, offsets = self._table.tokens(index, offsets)
        max_tokens = self._max_length - special.num_special
        if num_texts == 1:
            packed = self._pack_texts(special, tokens, offsets, max_tokens)
        else:
            fits = np.diff(offsets).reshape(-1, 2).sum(1) <= max_tokens
            rows = list(itertools.compress(rows, fits.tolist()))
            packed = _pack_pairs(special, tokens, offsets, fits)
        for row, encoding in zip(rows, packed.to_list(), strict=True):
            encodings[row] = encoding

    def _split_rows(
        self, inputs: Sequence[tuple[str, ...]], rows: list[int]
    ) -> tuple[list[int], list[str], IntArray]:
        """Return the rows that can be split, the words of their texts, and the number of words per text."""
        chosen: list[int] = []
        words: list[str] = []
        counts: list[int] = []
        for row in rows:
            texts = [self._split(text) for text in inputs[row]]
            if None not in texts:
                chosen.append(row)
                for text_words in texts:
                    words += text_words or []
                    counts.append(len(text_words or []))
        return chosen, words, np.array(counts, np.int64)

    def _split(self, text: str) -> list[str] | None:
        """Return the words of a text; None where the Rust tokenizer is needed."""
        parts = self._ascii.split(text) if self._ascii is not None else None
        if parts is not None:
            return parts  # far fewer different ones than words with signs around them
        words = text.split()
        has_few_blanks = len(text) > MAX_LETTERS_PER_WORD * len(words) + MAX_LETTERS_PER_WORD
        return None if has_few_blanks or self._other_blanks.search(text) else words

    def _look_up(self, words: list[str], counts: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Return the index of each word, and for each text whether all its words are known.

        Where a third of the words are new, only those that occur twice are added. A new word costs three
        times as much as the same word in a text, so the Rust tokenizer is faster for texts whose words never
        occur again.
        """
        index = self._table.look_up(words)
        missing = np.flatnonzero(index < 0)
        if len(missing):
            new_words = [words[position] for position in missing.tolist()]
            if len(self._table.word_index) + len(set(new_words)) > MAX_CACHED_WORDS:
                self._clear()
                new_words, missing = words, np.arange(len(words))
            new = Counter(new_words)
            add_all = len(new) <= len(words) / 3
            self._add([word for word, count in new.items() if add_all or count > 1])
            index[missing] = self._table.look_up(new_words)
        num_unknown = _offsets((index < 0).astype(np.int64))[_offsets(counts)]
        return index, np.diff(num_unknown) == 0

    def _add(self, words: list[str]) -> None:
        """Add words: ASCII ones are tokenized here, all others by the Rust tokenizer."""
        wordpiece = self._ascii
        ids = [wordpiece(word) if wordpiece is not None and word.isascii() else None for word in words]
        rest = [position for position, word_ids in enumerate(ids) if word_ids is None]
        results = self._rust.encode_batch([words[position] for position in rest], add_special_tokens=False)
        for position, result in zip(rest, results, strict=True):
            ids[position] = result.ids
        all_ids = cast(list[list[int]], ids)
        offsets = _offsets(np.array([len(word_ids) for word_ids in all_ids], np.int64))
        self._table.add(words, np.fromiter(itertools.chain.from_iterable(all_ids), np.int32), offsets)

    def _pack_texts(
        self, special: SpecialTokens, tokens: IdArray, text_offsets: IntArray, max_tokens: int
    ) -> PackedEncodings:
        """Put special tokens around single texts, and truncate those that are too long."""
        lengths = np.diff(text_offsets)
        new_lengths = np.minimum(lengths, max_tokens)
        starts = text_offsets[1:] - new_lengths if self._truncate_left else text_offsets[:-1]
        offsets = _offsets(new_lengths + special.num_special)
        ids = np.empty(int(offsets[-1]), np.int32)
        types = np.full(len(ids), special.text_type_ids[0], np.uint8)
        within = _positions_within(new_lengths)
        before = len(special.special_ids[0])
        targets = within + np.repeat(offsets[:-1] + before, new_lengths)
        ids[targets] = tokens[within + np.repeat(starts, new_lengths)]
        _put_special(special, 0, offsets[:-1], ids, types)
        _put_special(special, 1, offsets[1:] - len(special.special_ids[1]), ids, types)
        return PackedEncodings(ids, types if types.any() else None, offsets, lengths - new_lengths)


def _new_cache(rust: Any, max_length: int, truncate_left: bool) -> WordCache:
    return WordCache(rust, max_length, truncate_left=truncate_left)


def _pack_pairs(
    special: SpecialTokens, tokens: IdArray, text_offsets: IntArray, fits: npt.NDArray[np.bool_]
) -> PackedEncodings:
    """Put special tokens around the pairs that are short enough."""
    starts = text_offsets[:-1].reshape(-1, 2)[fits]
    lengths = np.diff(text_offsets).reshape(-1, 2)[fits]
    offsets = _offsets(lengths.sum(1) + special.num_special)
    ids = np.empty(int(offsets[-1]), np.int32)
    types = np.empty(len(ids), np.uint8)
    position = offsets[:-1]
    for text in (0, 1):
        _put_special(special, text, position, ids, types)
        position = position + len(special.special_ids[text])
        text_lengths = lengths[:, text]
        within = _positions_within(text_lengths)
        targets = within + np.repeat(position, text_lengths)
        ids[targets] = tokens[within + np.repeat(starts[:, text], text_lengths)]
        types[targets] = special.text_type_ids[text]
        position = position + text_lengths
    _put_special(special, 2, position, ids, types)
    return PackedEncodings(ids, types if types.any() else None, offsets, np.zeros(len(lengths), np.int64))


def _put_special(
    special: SpecialTokens, part: int, positions: IntArray, ids: IdArray, types: npt.NDArray[np.uint8]
) -> None:
    tokens = zip(special.special_ids[part], special.special_type_ids[part], strict=True)
    for n, (token, segment) in enumerate(tokens):
        ids[positions + n] = token
        types[positions + n] = segment


def _grow(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Return an array of at least `size` values that begins with those of `array`."""
    if size <= len(array):
        return array
    larger = np.zeros(2 * size, array.dtype)
    larger[: len(array)] = array
    return larger


def _offsets(lengths: IntArray) -> IntArray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _positions_within(lengths: IntArray) -> IntArray:
    """Return 0 to n - 1 for each length n, one after the other."""
    offsets = _offsets(lengths)
    return np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)


def supports_word_cache(tokenizer_json: dict[str, Any]) -> bool:
    """Tell whether a tokenizer.json is BERT's, with added tokens that normalization does not change."""
    types = {
        name: (tokenizer_json.get(name) or {}).get("type")
        for name in ("normalizer", "pre_tokenizer", "model", "post_processor")
    }
    bert = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
    if any(types[name] != expected for name, expected in bert.items()):
        return False
    if types["post_processor"] not in {"TemplateProcessing", "BertProcessing"}:
        return False
    added = tokenizer_json.get("added_tokens") or ()
    is_plain = all(re.fullmatch(r"[!-~]+", token["content"]) for token in added)
    return is_plain and tokenizer_json["normalizer"].get("clean_text") is True


def _other_blanks(rust: Any) -> re.Pattern[str]:
    """Return a pattern for blanks of Python that the tokenizer drops instead: control characters."""
    other = "".join(blank for blank in WHITESPACE if rust.normalizer.normalize_str(f"a{blank}a") != "a a")
    return re.compile(f"[{re.escape(other)}]" if other else r"(?!)")
