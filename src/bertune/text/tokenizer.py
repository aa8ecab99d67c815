"""Texts to token ids, with the `tokenizers` library (Rust) underneath."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Rust

from bertune.text.windows import assign_words, split_windows
from bertune.text.word_borders import WordBorders, find_word_borders
from bertune.text.word_cache import WordCache
from bertune.types import JSON, Encoding

MAX_CACHED_WORDS = 1 << 20
"""The number of words whose ids `encode_words` keeps."""
MIN_TEXTS_FOR_CACHE = 32
"""The number of texts from which on a word cache pays."""
PLAIN_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»「」『』", '"'),
        **dict.fromkeys("‘’‚‛", "'"),
        **dict.fromkeys("—–―‐‑−", "-"),
        "…": "...",
        "～": "~",
    }
)
"""Typographic signs to plain ones, which are tried where the vocabulary lacks the former."""


class Tokenizer:
    """Turns texts and pairs into ids, and counts the tokens that truncation removes.

    Args:
        rust: the tokenizer of the `tokenizers` library, or one with its methods; padding and truncation are
            switched off.
        settings: tokenizer_config.json.
        max_length: the most tokens of an input, special tokens included.
        truncation: which text of a pair is truncated: longest_first, only_first or only_second.
    """

    def __init__(
        self, rust: Rust, settings: JSON, max_length: int, truncation: str = "longest_first"
    ) -> None:
        self.max_length = max_length
        self.truncation = truncation
        self._settings = settings
        rust.no_padding()
        rust.no_truncation()
        self._rust = rust
        self._truncating: dict[str, Rust] = {}
        self._word_ids: dict[str, tuple[int, ...]] = {}

    @cached_property
    def unk_token_id(self) -> int | None:
        """Return the id of the unknown token."""
        model = self.parts["model"]
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        token = model.get("unk_token")
        return None if token is None else self._rust.token_to_id(token)

    @cached_property
    def parts(self) -> JSON:
        """Return how texts become ids: tokenizer.json without the words of its vocabulary."""
        parts: JSON = json.loads(self._rust.to_str())
        for words in ("vocab", "merges"):
            parts["model"].pop(words, None)
        return parts

    @property
    def vocabulary(self) -> dict[str, int]:
        """Return the id of each token, special and added tokens included."""
        return dict(self._rust.get_vocab(with_added_tokens=True))

    @property
    def mask_token(self) -> str | None:
        """Return the token that stands for a hidden one, where the tokenizer names it and has it."""
        candidates = (self._named_tokens().get("mask_token"), "[MASK]", "<mask>")
        has_id = (token for token in candidates if token and self._rust.token_to_id(token) is not None)
        return next(has_id, None)

    @property
    def pad_token_id(self) -> int | None:
        """Return the id of the token that fills short rows elsewhere, where the tokenizer names one."""
        token = self._named_tokens().get("pad_token")
        return None if token is None else self._rust.token_to_id(token)

    def special_ids(self) -> set[int]:
        """Return the ids of tokens that stand for no word, the unknown token among them."""
        added = self._rust.get_added_tokens_decoder()
        ids = {int(number) for number, token in added.items() if token.special}
        before, after, _ = self.special_tokens
        named = {self._rust.token_to_id(token) for token in self._named_tokens().values()}
        return {
            *ids,
            *before,
            *after,
            *(number for number in (*named, self.unk_token_id) if number is not None),
        }

    @cached_property
    def word_borders(self) -> WordBorders:
        """Return which tokens begin and end words, as their marks tell it."""
        return find_word_borders(self.parts, self.vocabulary)

    def token_spans(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Return the ids of whole texts without special tokens, and the characters that each stands for.

        Raises:
            ConfigError: the tokenizer does not know the characters of its tokens.
        """
        results = self._rust.encode_batch(list(texts), add_special_tokens=False)
        return [(result.ids, result.offsets) for result in results]

    def _named_tokens(self) -> dict[str, str]:
        """Return the tokens that tokenizer_config.json names, such as mask_token."""
        named = {name: value for name, value in self._settings.items() if name.endswith("_token")}
        contents = {name: v.get("content") if isinstance(v, dict) else v for name, v in named.items()}
        return {name: token for name, token in contents.items() if isinstance(token, str)}

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Turn texts (1-tuples) or pairs (2-tuples) into encodings of at most `max_length` tokens.

        Where `only_first` or `only_second` cannot make a pair short enough, the longer text is truncated.
        """
        if self._word_cache is None or len(texts) < MIN_TEXTS_FOR_CACHE:
            return self._encode(texts)
        cached = self._word_cache.encode(texts)
        others = iter(
            self._encode([t for t, encoding in zip(texts, cached, strict=True) if encoding is None])
        )
        return [next(others) if encoding is None else encoding for encoding in cached]

    @cached_property
    def _word_cache(self) -> WordCache | None:
        return WordCache.from_tokenizer(
            self._rust, self.max_length, truncate_left=self._settings.get("truncation_side") == "left"
        )

    def set_max_length(self, max_length: int) -> None:
        """Change the most tokens of an input, special tokens included."""
        self.max_length = max_length
        self._truncating.clear()
        self.clear_word_cache()

    def keep_whole(self, token: str) -> None:
        """Take a token of the vocabulary for itself wherever a text has it, as special tokens are."""
        self._rust.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        self._truncating.clear()
        self.clear_word_cache()

    def use_mask_token(self, token: str) -> None:
        """Let a token of the vocabulary stand for hidden ones, also in the folder that `save` writes."""
        self.keep_whole(token)
        self._settings = {**self._settings, "mask_token": token}

    def clear_word_cache(self) -> None:
        """Free the memory of the word cache, after many texts."""
        self.__dict__.pop("_word_cache", None)

    def _encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Encode with the Rust tokenizer alone."""
        items: list[Any] = [t[0] if len(t) == 1 else t for t in texts]
        encodings = []
        for item, whole in zip(items, self._rust.encode_batch(items), strict=True):
            length = len(whole.ids)
            if length <= self.max_length:
                encodings.append(self._make_encoding(item, whole, 0))
                continue
            rust = self._truncating_rust(self._truncation_of(item, whole))
            truncated = rust.encode(*(item if isinstance(item, tuple) else (item,)))
            encodings.append(self._make_encoding(item, truncated, length - len(truncated.ids)))
        return encodings

    @property
    def settings(self) -> JSON:
        """Return tokenizer_config.json."""
        return dict(self._settings)

    @property
    def truncation_settings(self) -> tuple[str, str]:
        """Return which text of a pair is truncated, and on which side."""
        return self.truncation, self._settings.get("truncation_side", "right")

    def _make_encoding(self, item: str | tuple[str, ...], result: Any, num_truncated: int) -> Encoding:
        """Turn the Rust tokenizer's result for a text or a pair into an encoding."""
        return Encoding(result.ids, result.type_ids, num_truncated)

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Turn texts of words into ids; the only place where words become tokens, in training and prediction.

        Each word is tokenized by itself, so its tokens never depend on its neighbours. The first token of a
        word represents it. A word that the tokenizer drops, such as a blank, has no token.

        Args:
            texts: each a text, and start and end of its words in it.
            overlap: tokens that two windows of a long text share; see `bertune.text.windows`.

        Returns:
            For each text its encoding, with `word_positions` and `window_lengths`, and the indices of the
            words that have tokens.
        """
        self._cache_words(texts)
        return [
            self._encode_one(
                [self._word_ids[self._word_form(text, *word)] for word in words],
                overlap,
                self.special_tokens,
            )
            for text, words in texts
        ]

    def encode_whole(self, texts: Sequence[str]) -> list[Encoding]:
        """Turn texts into the ids of all their tokens, however many, without special tokens."""
        results = self._rust.encode_batch(list(texts), add_special_tokens=False)
        return [self._make_encoding(text, result, 0) for text, result in zip(texts, results, strict=True)]

    def _word_form(self, text: str, start: int, end: int) -> str:
        """Return a word as it is tokenized: with the blank before it where that is part of the token."""
        blank = self._blank_belongs_to_word and start > 0 and text[start - 1].isspace()
        return f" {text[start:end]}" if blank else text[start:end]

    def _cache_words(self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]]) -> None:
        """Tokenize every new word once."""
        if len(self._word_ids) > MAX_CACHED_WORDS:
            self._clear_words()
        new = {
            w: None
            for text, words in texts
            for start, end in words
            if (w := self._word_form(text, start, end)) not in self._word_ids
        }
        unknown = []
        results = self._rust.encode_batch(list(new), add_special_tokens=False)
        for word, result in zip(new, results, strict=True):
            self._add_word(word, word, result)
            if self._unk_id in result.ids:
                unknown.append(word)
        for word in unknown:
            known = next(self._known_forms(word), None)
            if known is not None:
                self._add_word(word, *known)

    def _clear_words(self) -> None:
        self._word_ids.clear()

    def _add_word(self, word: str, form: str, result: Any) -> None:
        """Keep the Rust tokenizer's result for a form of a word."""
        self._word_ids[word] = tuple(result.ids)

    def _known_forms(self, word: str) -> Iterator[tuple[str, Any]]:
        """Yield forms of a word without unknown tokens: half width, lower case, plain punctuation."""
        folded = unicodedata.normalize("NFKC", word)
        for form in dict.fromkeys(
            (folded, word.lower(), folded.lower(), folded.lower().translate(PLAIN_PUNCTUATION))
        ):
            result = self._rust.encode(form, add_special_tokens=False)
            if result.ids and self._unk_id not in result.ids:
                yield form, result

    def _encode_one(
        self, word_ids: list[tuple[int, ...]], overlap: int, special: tuple[list[int], list[int], int]
    ) -> tuple[Encoding, list[int]]:
        """Return the encoding of a text from the ids of its words, and the indices of words with ids."""
        before, after, token_type = special
        room = self.max_length - len(before) - len(after)
        present = [index for index, word in enumerate(word_ids) if word]
        num_truncated = sum(len(word_ids[index]) - room for index in present if len(word_ids[index]) > room)
        words = [word_ids[index][:room] for index in present]
        windows = split_windows([len(word) for word in words], room, min(overlap, room - 1))
        window_of_word = assign_words(windows, len(words))
        tokens: list[int] = []
        word_positions: list[int] = []
        window_lengths: list[int] = []
        for number, (start, stop) in enumerate(windows):
            first = len(tokens)
            tokens += before
            for index in range(start, stop):
                if window_of_word[index] == number:
                    word_positions.append(len(tokens))
                tokens += words[index]
            tokens += after
            window_lengths.append(len(tokens) - first)
        types = [token_type] * len(tokens)
        return Encoding(tokens, types, num_truncated, word_positions, window_lengths), present

    @cached_property
    def special_tokens(self) -> tuple[list[int], list[int], int]:
        """Return the special tokens before and after a text, and the segment of the text's own tokens."""
        result = self._rust.encode("a")
        inside = [index for index, special in enumerate(result.special_tokens_mask) if not special]
        return result.ids[: inside[0]], result.ids[inside[-1] + 1 :], result.type_ids[inside[0]]

    @cached_property
    def _unk_id(self) -> int:
        return -1 if self.unk_token_id is None else self.unk_token_id

    @cached_property
    def _blank_belongs_to_word(self) -> bool:
        """Tell whether a blank changes the tokens of the next word, as in RoBERTa's byte-level vocabulary."""
        plain, spaced = (self._rust.encode(text, add_special_tokens=False).ids for text in ("a", " a"))
        return bool(plain != spaced)

    def _truncation_of(self, item: Any, whole: Any) -> str:
        """Return how to truncate a text or a pair whose whole result is too long."""
        if self.truncation == "longest_first" or not isinstance(item, tuple):
            return "longest_first"
        truncated_text = 0 if self.truncation == "only_first" else 1
        # the tokens of the other text, and the special tokens
        num_fixed = sum(text != truncated_text for text in whole.sequence_ids)
        return self.truncation if num_fixed < self.max_length else "longest_first"

    def _truncating_rust(self, truncation: str) -> Rust:
        """Return a copy of the Rust tokenizer that truncates."""
        if truncation not in self._truncating:
            rust = self._copy_rust()
            direction = self._settings.get("truncation_side", "right")
            rust.enable_truncation(self.max_length, strategy=truncation, direction=direction)
            self._truncating[truncation] = rust
        return self._truncating[truncation]

    def _copy_rust(self) -> Any:
        return Rust.from_str(self._rust.to_str())

    @property
    def notes(self) -> list[str]:
        """Return what a user should know of the tokenizer."""
        return []

    @property
    def starts_with_special_token(self) -> bool:
        """Tell whether a special token, [CLS] or <s>, comes before every text."""
        return bool(self._rust.encode("a").special_tokens_mask[:1] == [1])

    @property
    def vocab_size(self) -> int:
        """Return the number of ids, special and added tokens included."""
        return int(self._rust.get_vocab_size(with_added_tokens=True))

    @property
    def max_token_id(self) -> int:
        """Return the highest id; a vocabulary may have gaps."""
        return int(max(self._rust.get_vocab(with_added_tokens=True).values()))

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the word piece of each id."""
        return [self._rust.id_to_token(int(i)) or "?" for i in ids]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return readable text, with special tokens or without."""
        return str(self._rust.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens))

    def fingerprint(self) -> str:
        """Return everything that determines the ids, as text."""
        return str(self._rust.to_str())

    def save(self, folder: Path) -> None:
        """Write the two files that transformers' AutoTokenizer reads."""
        (folder / "tokenizer.json").write_text(self._rust.to_str(), encoding="utf-8")
        settings = {**self._settings, "model_max_length": self.max_length}
        text = json.dumps(settings, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
