"""Texts to token ids, with the `tokenizers` library (Rust) underneath."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Rust

from bertune.text.windows import assign_words, split_windows
from bertune.text.word_cache import WordCache
from bertune.types import JSON, Encoding

MAX_CACHED_WORDS = 1 << 20
"""Words whose ids are kept."""
MIN_TEXTS_FOR_CACHE = 32
"""Texts too few for the cache of words to be made."""
LOCAL_SETTINGS = {"is_local", "local_files_only", "name_or_path"}
PLAIN_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»「」『』", '"'),
        **dict.fromkeys("‘’‚‛", "'"),
        **dict.fromkeys("—–―‐‑−", "-"),
        "…": "...",
        "～": "~",
    }
)
"""Typographic signs and their plain forms, tried where the vocabulary lacks the former."""


class Tokenizer:
    """Turns texts and pairs into ids; knows what it cut."""

    def __init__(
        self, rust: Rust, settings: JSON, max_length: int, truncation: str = "longest_first"
    ) -> None:
        self.max_length = max_length
        self.truncation = truncation
        self._settings = settings  # what transformers keeps in tokenizer_config.json
        rust.no_padding()
        rust.no_truncation()
        self._whole = rust
        self._cutters: dict[str, Rust] = {}
        self._word_ids: dict[str, tuple[int, ...]] = {}

    @cached_property
    def unk_token_id(self) -> int | None:
        """Return the id of the unknown token."""
        model = json.loads(self._whole.to_str())["model"]
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        token = model.get("unk_token")
        return None if token is None else self._whole.token_to_id(token)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Turn texts (1-tuples) or pairs (2-tuples) into pieces of at most `max_length` tokens.

        A pair of which the text that may not be cut alone is too long is cut from the longer end instead.
        """
        if self._words is None or len(texts) < MIN_TEXTS_FOR_CACHE:
            return self._encode(texts)
        found = self._words.encode(texts)
        missing = iter(self._encode([t for t, piece in zip(texts, found, strict=True) if piece is None]))
        return [next(missing) if piece is None else piece for piece in found]

    @cached_property
    def _words(self) -> WordCache | None:
        return WordCache.from_tokenizer(
            self._whole, self.max_length, truncate_left=self._settings.get("truncation_side") == "left"
        )

    def clear_word_cache(self) -> None:
        """Let go of the words whose ids are kept, when many texts were encoded and no more are to come."""
        self.__dict__.pop("_words", None)

    def _encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Do the same with the Rust tokenizer alone."""
        items: list[Any] = [t[0] if len(t) == 1 else t for t in texts]
        pieces = []
        for item, whole in zip(items, self._whole.encode_batch(items), strict=True):
            length = len(whole.ids)
            if length <= self.max_length:
                pieces.append(self._piece(item, whole, 0))
                continue
            kept = self._cutter(self._strategy(item, whole)).encode(
                *(item if isinstance(item, tuple) else (item,))
            )
            pieces.append(self._piece(item, kept, length - len(kept.ids)))
        return pieces

    @property
    def truncation_settings(self) -> tuple[str, str]:
        """Return how texts that are too long are cut: which of a pair, and at which end."""
        return self.truncation, self._settings.get("truncation_side", "right")

    def _piece(self, item: str | tuple[str, ...], found: Any, cut: int) -> Encoding:
        """Turn what the tokenizer found in a text or a pair into a piece."""
        return Encoding(found.ids, found.type_ids, cut)

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Turn texts that are cut into words into ids: the one place where words meet tokens, in training and prediction alike.

        Each word goes through the tokenizer's normalisation by itself, so its tokens never depend on its neighbours. A word stands at
        the first of its tokens. One that is nothing to the tokenizer, such as a blank, has none.

        Args:
            texts: each a text, and start and end of its words in it.
            overlap: tokens that two windows of a long text share; see `bertune.text.windows`.

        Returns:
            For each text its piece, with `word_positions` and `window_lengths`, and the places of those words that have tokens.
        """
        self._learn_words(texts)
        return [
            self._piece_of_words(
                [self._word_ids[self._spelt(text, *word)] for word in words], overlap, self._frame
            )
            for text, words in texts
        ]

    def _spelt(self, text: str, start: int, end: int) -> str:
        """Return a word as the tokenizer is to see it: with the blank before it where that is part of its first token."""
        blank = self._blank_belongs_to_word and start > 0 and text[start - 1].isspace()
        return f" {text[start:end]}" if blank else text[start:end]

    def _learn_words(self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]]) -> None:
        """Tokenize every word that was not seen before, each once."""
        if len(self._word_ids) > MAX_CACHED_WORDS:
            self._forget_words()
        new = {
            w: None
            for text, words in texts
            for start, end in words
            if (w := self._spelt(text, start, end)) not in self._word_ids
        }
        unknown = []
        for word, found in zip(
            new, self._whole.encode_batch(list(new), add_special_tokens=False), strict=True
        ):
            self._remember(word, word, found)
            if self._unknown in found.ids:
                unknown.append(word)
        for word in unknown:
            known = next(self._known_forms(word), None)
            if known is not None:
                self._remember(word, *known)

    def _forget_words(self) -> None:
        self._word_ids.clear()

    def _remember(self, word: str, form: str, found: Any) -> None:
        """Keep what the tokenizer found in a form of a word."""
        self._word_ids[word] = tuple(found.ids)

    def _known_forms(self, word: str) -> Iterator[tuple[str, Any]]:
        """Yield forms of a word that hold no unknown token: half width, lower case, plain quotation marks and dashes."""
        folded = unicodedata.normalize("NFKC", word)
        for form in dict.fromkeys(
            (folded, word.lower(), folded.lower(), folded.lower().translate(PLAIN_PUNCTUATION))
        ):
            found = self._whole.encode(form, add_special_tokens=False)
            if found.ids and self._unknown not in found.ids:
                yield form, found

    def _piece_of_words(
        self, ids: list[tuple[int, ...]], overlap: int, frame: tuple[list[int], list[int], int]
    ) -> tuple[Encoding, list[int]]:
        before, after, types = frame
        room = self.max_length - len(before) - len(after)
        present = [place for place, word in enumerate(ids) if word]
        cut = sum(len(ids[place]) - room for place in present if len(ids[place]) > room)
        shown = [ids[place][:room] for place in present]
        windows = split_windows([len(word) for word in shown], room, min(overlap, room - 1))
        speaks = assign_words(windows, len(shown))
        tokens: list[int] = []
        words: list[int] = []
        lengths: list[int] = []
        for number, (start, stop) in enumerate(windows):
            begun = len(tokens)
            tokens += before
            for place in range(start, stop):
                if speaks[place] == number:
                    words.append(len(tokens))
                tokens += shown[place]
            tokens += after
            lengths.append(len(tokens) - begun)
        return Encoding(tokens, [types] * len(tokens), cut, words, lengths), present

    @cached_property
    def _frame(self) -> tuple[list[int], list[int], int]:
        """Return the special tokens before and after a text, and the segment of a text's tokens."""
        found = self._whole.encode("a")
        inside = [place for place, special in enumerate(found.special_tokens_mask) if not special]
        return found.ids[: inside[0]], found.ids[inside[-1] + 1 :], found.type_ids[inside[0]]

    @cached_property
    def _unknown(self) -> int:
        unknown = self.unk_token_id
        return -1 if unknown is None else unknown

    @cached_property
    def _blank_belongs_to_word(self) -> bool:
        """Tell whether a blank changes the tokens of the word after it, as in RoBERTa's byte-level vocabulary."""
        plain, spaced = (self._whole.encode(text, add_special_tokens=False).ids for text in ("a", " a"))
        return bool(plain != spaced)

    def _strategy(self, item: Any, whole: Any) -> str:
        if self.truncation == "longest_first" or not isinstance(item, tuple):
            return "longest_first"
        kept_side = 1 if self.truncation == "only_first" else 0
        fixed = sum(
            side != 1 - kept_side for side in whole.sequence_ids
        )  # the other text and the special tokens
        return self.truncation if fixed < self.max_length else "longest_first"

    def _cutter(self, strategy: str) -> Rust:
        if strategy not in self._cutters:
            cutter = Rust.from_str(self._whole.to_str())
            cutter.enable_truncation(
                self.max_length, strategy=strategy, direction=self._settings.get("truncation_side", "right")
            )
            self._cutters[strategy] = cutter
        return self._cutters[strategy]

    @property
    def starts_with_special_token(self) -> bool:
        """Tell whether a special token, [CLS] or <s>, stands before every text."""
        return bool(self._whole.encode("a").special_tokens_mask[:1] == [1])

    @property
    def vocab_size(self) -> int:
        """Return the number of ids, special and added tokens included."""
        return int(self._whole.get_vocab_size(with_added_tokens=True))

    @property
    def max_token_id(self) -> int:
        """Return the highest id; a vocabulary may have gaps."""
        return int(max(self._whole.get_vocab(with_added_tokens=True).values()))

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the word piece of each id."""
        return [self._whole.id_to_token(int(i)) or "?" for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Return readable text, special tokens included."""
        return str(self._whole.decode([int(i) for i in ids], skip_special_tokens=False))

    def fingerprint(self) -> str:
        """Return what decides the ids, as text."""
        return str(self._whole.to_str())

    def save(self, folder: Path) -> None:
        """Write the two files that transformers' AutoTokenizer reads."""
        (folder / "tokenizer.json").write_text(self._whole.to_str(), encoding="utf-8")
        settings = {**self._settings, "model_max_length": self.max_length}
        text = json.dumps(settings, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
