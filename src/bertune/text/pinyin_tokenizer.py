"""ChineseBERT's tokenizer: BERT's, and for each token that is one character of the text how it is read there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Rust

from bertune.encoders.checkpoint_files import PINYIN_MAP_FILE, PINYIN_TENSOR_FILE
from bertune.errors import ConfigError
from bertune.text.load import bert_tokenizer_parts, load_rust_tokenizer
from bertune.text.pinyin import PYPINYIN_VERSION, PinyinConverter, PinyinVocab, parse_pinyin_vocab
from bertune.text.tokenizer import LOCAL_SETTINGS, Tokenizer
from bertune.types import JSON, Encoding

_LISTS = ("pinyin_map", "pinyin2tensor")
_DROPPED = (*_LISTS, "id2pinyin")  # the last one is in the releases, and nothing reads it
_NOWHERE = -1


class PinyinTokenizer(Tokenizer):
    """Turns texts and pairs into ids and syllables.

    A token has the reading of a character if it stands for just that character of the text, known to the vocabulary or not. Special
    tokens, word pieces of several characters, letters, digits and signs have none: syllable 0. The reading is that of the whole text,
    before anything is cut off or cut into words or windows.
    """

    def __init__(
        self, rust: Rust, settings: JSON, max_length: int, truncation: str, vocab: PinyinVocab
    ) -> None:
        kept = {name: value for name, value in settings.items() if name not in _DROPPED}
        super().__init__(rust, {**kept, **vocab.to_json()}, max_length, truncation)
        self.pinyin = PinyinConverter(vocab)
        self._word_places: dict[
            str, tuple[int, ...]
        ] = {}  # of each token of a word, the character it stands for

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Turn texts or pairs into pieces; see `Tokenizer.encode`. No cache of words: a reading is that of the whole text."""
        return self._encode(texts)

    def _piece(self, item: str | tuple[str, ...], found: Any, cut: int) -> Encoding:
        if isinstance(item, str):
            heard = self.pinyin.convert(item)
            syllables = [heard[start] if stop - start == 1 else 0 for start, stop in found.offsets]
        else:
            sides = [self.pinyin.convert(text) for text in item]
            syllables = [
                sides[side][start] if side is not None and stop - start == 1 else 0
                for side, (start, stop) in zip(found.sequence_ids, found.offsets, strict=True)
            ]
        return Encoding(found.ids, found.type_ids, cut, pinyin_ids=syllables)

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Turn texts that are cut into words into ids and syllables; see `Tokenizer.encode_words`."""
        before, after, _ = self._frame
        silent = [0] * len(before), [0] * len(after), 0
        pieces = []
        for (text, words), (piece, present) in zip(texts, super().encode_words(texts, overlap), strict=True):
            heard = self.pinyin.convert(text)
            of_words = []
            for start, stop in words:
                spelt = self._spelt(text, start, stop)
                first = stop - len(spelt)  # before `start` where a blank belongs to the word
                of_words.append(
                    _heard(
                        heard, (_NOWHERE if p == _NOWHERE else first + p for p in self._word_places[spelt])
                    )
                )
            laid, _ = self._piece_of_words(of_words, overlap, silent)  # they come to lie as the ids do
            pieces.append((replace(piece, pinyin_ids=laid.input_ids), present))
        return pieces

    def _remember(self, word: str, form: str, found: Any) -> None:
        super()._remember(word, form, found)
        aligned = len(form) == len(word)
        self._word_places[word] = tuple(_places(found.offsets)) if aligned else (_NOWHERE,) * len(found.ids)

    def _forget_words(self) -> None:
        super()._forget_words()
        self._word_places.clear()

    def fingerprint(self) -> str:
        """Return what decides ids and syllables, as text."""
        return super().fingerprint() + json.dumps(
            [PYPINYIN_VERSION, self.pinyin.vocab.to_json()], sort_keys=True
        )


def _places(offsets: Iterable[tuple[int, int]]) -> list[int]:
    """Return the character that each token stands for, if it is just one."""
    return [start if stop - start == 1 else _NOWHERE for start, stop in offsets]


def _heard(syllables: Sequence[int], places: Iterable[int]) -> tuple[int, ...]:
    return tuple(0 if place == _NOWHERE else syllables[place] for place in places)


def load_pinyin_tokenizer(folder: Path) -> tuple[Rust, JSON, PinyinVocab]:
    """Read vocabulary, settings and pinyin lists of a ChineseBERT: ShannonAI's release, junnyu's, or a folder that bertune wrote.

    Raises:
        ArtifactError, ConfigError: something is missing or damaged.
    """
    if (folder / "bertune.json").is_file():
        rust, settings = load_rust_tokenizer(folder)
        return rust, settings, _spelling(folder, settings)
    settings = _read_json(folder / "tokenizer_config.json") or {}
    spelling = _spelling(folder, settings)
    # Its class is none of transformers', so AutoTokenizer cannot be asked; the rules are BERT's.
    own = {
        "tokenizer_class": "BertTokenizer",
        **{n: v for n, v in settings.items() if n not in {*LOCAL_SETTINGS, "tokenizer_class"}},
    }
    if (folder / "vocab.txt").is_file():
        return _from_vocabulary(folder / "vocab.txt", own), own, spelling
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
    return Rust.from_str(text), own, spelling


def _spelling(folder: Path, settings: JSON) -> PinyinVocab:
    lists = [settings.get(name) for name in _LISTS]
    where = f"{folder / 'tokenizer_config.json'}"
    if lists == [None, None]:
        lists = [_read_json(folder / name) for name in (PINYIN_MAP_FILE, PINYIN_TENSOR_FILE)]
        where = f"{folder / 'config'}"
    return PinyinVocab() if lists == [None, None] else parse_pinyin_vocab(lists[0], lists[1], where)


def _read_json(path: Path) -> JSON | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return found


def _from_vocabulary(path: Path, settings: JSON) -> Rust:
    """Make BERT's tokenizer of a vocabulary, a token a line.

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
    special = {
        name: str(settings.get(f"{name.lower()}_token") or f"[{name}]")
        for name in ("UNK", "SEP", "PAD", "CLS", "MASK")
    }
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
