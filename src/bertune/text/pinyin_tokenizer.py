"""ChineseBERT's tokenizer: BERT's, with the reading of each token that is one character of the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Rust

from bertune.errors import ConfigError
from bertune.text.pinyin import (
    PINYIN_MAP_FILE,
    PINYIN_TENSOR_FILE,
    PYPINYIN_VERSION,
    PinyinConverter,
    PinyinVocab,
    parse_pinyin_vocab,
)
from bertune.text.tokenizer import Tokenizer
from bertune.text.tokenizer_files import (
    LOCAL_SETTINGS,
    SPECIAL_TOKENS,
    bert_tokenizer_parts,
    load_rust_tokenizer,
)
from bertune.types import JSON, Encoding

_LISTS = ("pinyin_map", "pinyin2tensor")
_DROPPED = (*_LISTS, "id2pinyin")  # the releases have id2pinyin, but nothing reads it
_NO_CHARACTER = -1


class PinyinTokenizer(Tokenizer):
    """Turns texts and pairs into ids and syllables.

    A token has the reading of a character if it is exactly that character of the text, whether the vocabulary
    knows it or not. Special tokens, word pieces of several characters, letters, digits and signs have no
    reading: syllable 0. Readings come from the whole text, before it is truncated or split into words or
    windows.
    """

    def __init__(
        self, rust: Rust, settings: JSON, max_length: int, truncation: str, vocab: PinyinVocab
    ) -> None:
        plain = {name: value for name, value in settings.items() if name not in _DROPPED}
        super().__init__(rust, {**plain, **vocab.to_json()}, max_length, truncation)
        self.pinyin = PinyinConverter(vocab)
        # by word: for each of its tokens, the index of the character that the token is
        self._word_characters: dict[str, tuple[int, ...]] = {}

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Turn texts or pairs into encodings; see `Tokenizer.encode`.

        There is no word cache, since a reading depends on the whole text.
        """
        return self._encode(texts)

    def _make_encoding(self, item: str | tuple[str, ...], result: Any, num_truncated: int) -> Encoding:
        if isinstance(item, str):
            syllables = self.pinyin.convert(item)
            pinyin_ids = [syllables[start] if stop - start == 1 else 0 for start, stop in result.offsets]
        else:
            by_text = [self.pinyin.convert(text) for text in item]
            pinyin_ids = [
                by_text[number][start] if number is not None and stop - start == 1 else 0
                for number, (start, stop) in zip(result.sequence_ids, result.offsets, strict=True)
            ]
        return Encoding(result.ids, result.type_ids, num_truncated, pinyin_ids=pinyin_ids)

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Turn texts of words into ids and syllables; see `Tokenizer.encode_words`."""
        before, after, _ = self.special_tokens
        no_syllables = [0] * len(before), [0] * len(after), 0
        encodings = []
        for (text, words), (encoding, present) in zip(
            texts, super().encode_words(texts, overlap), strict=True
        ):
            syllables = self.pinyin.convert(text)
            by_word = []
            for start, stop in words:
                form = self._word_form(text, start, stop)
                first = stop - len(form)  # before `start` where a blank belongs to the word
                characters = self._word_characters[form]
                by_word.append(tuple(0 if c == _NO_CHARACTER else syllables[first + c] for c in characters))
            windows, _ = self._encode_one(by_word, overlap, no_syllables)  # in the order of the ids
            encodings.append((replace(encoding, pinyin_ids=windows.input_ids), present))
        return encodings

    def _add_word(self, word: str, form: str, result: Any) -> None:
        super()._add_word(word, form, result)
        is_aligned = len(form) == len(word)
        self._word_characters[word] = (
            tuple(start if stop - start == 1 else _NO_CHARACTER for start, stop in result.offsets)
            if is_aligned
            else (_NO_CHARACTER,) * len(result.ids)
        )

    def _clear_words(self) -> None:
        super()._clear_words()
        self._word_characters.clear()

    def fingerprint(self) -> str:
        """Return everything that determines ids and syllables, as text."""
        return super().fingerprint() + json.dumps(
            [PYPINYIN_VERSION, self.pinyin.vocab.to_json()], sort_keys=True
        )


def load_pinyin_tokenizer(folder: Path) -> tuple[Rust, JSON, PinyinVocab]:
    """Read vocabulary, settings and pinyin lists of a ChineseBERT.

    The folder is ShannonAI's release, junnyu's, or written by bertune.

    Raises:
        ArtifactError: bertune wrote the folder, and a file is missing or damaged.
        ConfigError: a file is missing or damaged.
    """
    if (folder / "bertune.json").is_file():
        rust, settings = load_rust_tokenizer(folder)
        return rust, settings, _read_pinyin_vocab(folder, settings)
    settings = _read_json(folder / "tokenizer_config.json") or {}
    vocab = _read_pinyin_vocab(folder, settings)
    # transformers does not have the class that the folder names; its rules are BERT's.
    settings = {
        "tokenizer_class": "BertTokenizer",
        **{n: v for n, v in settings.items() if n not in {*LOCAL_SETTINGS, "tokenizer_class"}},
    }
    if (folder / "vocab.txt").is_file():
        return _build_bert_tokenizer(folder / "vocab.txt", settings), settings, vocab
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        json.loads(text)["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (
            "it holds neither vocab.txt nor tokenizer.json"
            if isinstance(error, FileNotFoundError)
            else f"tokenizer.json: {error}"
        )
        raise ConfigError(f"model: no tokenizer can be read from {str(folder)!r}: {reason}") from None
    return Rust.from_str(text), settings, vocab


def _read_pinyin_vocab(folder: Path, settings: JSON) -> PinyinVocab:
    lists = [settings.get(name) for name in _LISTS]
    source = f"{folder / 'tokenizer_config.json'}"
    if lists == [None, None]:
        lists = [_read_json(folder / name) for name in (PINYIN_MAP_FILE, PINYIN_TENSOR_FILE)]
        source = f"{folder / 'config'}"
    return PinyinVocab() if lists == [None, None] else parse_pinyin_vocab(lists[0], lists[1], source)


def _read_json(path: Path) -> JSON | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, got {type(values).__name__}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return values


def _build_bert_tokenizer(path: Path, settings: JSON) -> Rust:
    """Build BERT's tokenizer from a vocabulary, one token per line.

    Raises:
        ConfigError: it is not UTF-8, or a special token is missing.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    vocabulary = {
        line.rstrip("\r"): number for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines)
    }
    special = {name: str(settings.get(f"{name.lower()}_token") or f"[{name}]") for name in SPECIAL_TOKENS}
    lacking = [token for token in special.values() if token not in vocabulary]
    if lacking:
        raise ConfigError(
            f"{path}: lacks the special tokens {', '.join(lacking)}; is it the vocabulary of this encoder?"
        )
    parts = bert_tokenizer_parts(settings, special, vocabulary)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    parts["model"]["vocab"] = vocabulary
    parts["added_tokens"] = [
        {"id": vocabulary[token], "content": token, **flags}
        for token in sorted(special.values(), key=vocabulary.__getitem__)
    ]
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    return Rust.from_str(
        json.dumps({"version": "1.0", "truncation": None, "padding": None, "decoder": decoder, **parts})
    )
