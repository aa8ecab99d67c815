"""Readings of Chinese characters for ChineseBERT: a syllable of at most 8 symbols per character.

    的 -> "de5" -> 9 10 5 0 0 0 0 0        0 nothing, 1 to 5 the tones, 6 to 31 the letters a to z; v is ü

A reading depends on the words around a character: 长 is zhang3 in 成长 and chang2 in 长江. So a text is first
split by a dictionary of phrases: forward, the longest prefix of a phrase. The dictionaries are those of
pypinyin, in the version whose readings ChineseBERT was trained with. The readings are those of
`pypinyin.pinyin(text, style=TONE3, heteronym=True)`, the first of each, about fifteen times as fast; tests
compare the two.

Sources: Sun et al. 2021 (ChineseBERT), arXiv 2106.16038; `bert_dataset.py` of ShannonAI/ChineseBert;
`seg/mmseg.py` and `converter.py` of pypinyin 0.38.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import ModuleType

from bertune.errors import ConfigError, MissingExtra
from bertune.types import JSON

SYLLABLE_LENGTH = 8
"""The number of symbols of a syllable."""
SYMBOL_BITS = 5
"""The bits of a symbol in a packed syllable; the first symbol has the lowest bits."""
NUM_SYMBOLS = 1 << SYMBOL_BITS
SYMBOLS: dict[str, int] = {s: n for n, s in enumerate("12345abcdefghijklmnopqrstuvwxyz", 1)}
"""The id of each symbol; 0 is no symbol. Derived from published samples; tests compare it with them."""
PYPINYIN_VERSION = "0.38.1"
"""The version of pypinyin that ChineseBERT's authors name. Later versions read some characters differently:
of the characters of 3,000 titles 0.39 changes 0.08 %, 0.44 0.2 % (among them 那 from nei4 to na4), and 0.55
0.64 %, which is one title in ten."""

PINYIN_MAP_FILE, PINYIN_TENSOR_FILE = "config/pinyin_map.json", "config/pinyin2tensor.json"
"""Where ShannonAI's release of ChineseBERT keeps the numbers of letters and of syllables."""

_HAN = re.compile(
    "[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0002a6df\U0002a703-\U0002b81d\U0002f80a-\U0002fa1f]+"
)
"""Runs of characters that may have a reading."""


def pack_syllable(symbol_ids: Sequence[int]) -> int:
    """Put up to 8 symbol ids from 0 to 31 into one number.

    >>> pack_syllable([9, 10, 5])
    5449
    """
    return sum(symbol << SYMBOL_BITS * index for index, symbol in enumerate(symbol_ids))


def unpack_syllable(syllable: int) -> list[int]:
    """Return the 8 symbol ids of a packed syllable.

    >>> unpack_syllable(5449)
    [9, 10, 5, 0, 0, 0, 0, 0]
    """
    return [syllable >> SYMBOL_BITS * index & NUM_SYMBOLS - 1 for index in range(SYLLABLE_LENGTH)]


@dataclass(frozen=True)
class PinyinVocab:
    """How a reading becomes symbol ids.

    Attributes:
        symbol_ids: the id of each letter and tone.
        pinyin_ids: packed syllables by reading, where a checkpoint has its own list. The list wins over
            `symbol_ids`, and readings that are not in it get no neutral tone.
    """

    symbol_ids: Mapping[str, int] = field(default_factory=lambda: SYMBOLS)
    pinyin_ids: Mapping[str, int] | None = None

    def encode(self, reading: str) -> int:
        """Return the packed syllable of a reading such as zhang3; 0 where a letter has no id, such as ê.

        >>> vocab = PinyinVocab()
        >>> unpack_syllable(vocab.encode("lv4")), vocab.encode("de") == vocab.encode("de5")
        ([17, 27, 4, 0, 0, 0, 0, 0], True)
        """
        if self.pinyin_ids is not None and reading in self.pinyin_ids:
            return self.pinyin_ids[reading]
        if self.pinyin_ids is None and not reading[-1:].isdigit():
            reading += "5"
        ids = [self.symbol_ids.get(letter, 0) for letter in reading]
        return pack_syllable(ids) if all(ids) and len(ids) <= SYLLABLE_LENGTH else 0

    def to_json(self) -> JSON:
        """Return the entries of junnyu's tokenizer_config.json; nothing for the built-in rule."""
        if self == PinyinVocab():
            return {}
        letters = {symbol_id: letter for letter, symbol_id in self.symbol_ids.items()}
        entries: JSON = {
            "pinyin_map": {
                "idx2char": [letters.get(n, "_") for n in range(NUM_SYMBOLS)],
                "char2idx": dict(self.symbol_ids),
            },
        }
        if self.pinyin_ids is not None:
            entries["pinyin2tensor"] = {
                reading: unpack_syllable(syllable) for reading, syllable in self.pinyin_ids.items()
            }
        return entries


def parse_pinyin_vocab(pinyin_map: JSON | None, pinyin2tensor: JSON | None, source: str) -> PinyinVocab:
    """Parse the pinyin lists of a checkpoint.

    Args:
        pinyin_map: `{"idx2char": [...], "char2idx": {letter: id}}`, or None where there is none.
        pinyin2tensor: `{reading: [8 ids]}`, or None.
        source: the file, for the error message.

    Raises:
        ConfigError: an id is no number from 0 to 31, or a syllable does not have 8 ids.
    """
    try:
        symbols, syllables = SYMBOLS, None
        if pinyin_map is not None:
            symbols = {str(letter): _check_symbol(value) for letter, value in pinyin_map["char2idx"].items()}
        if pinyin2tensor is not None:
            syllables = {
                reading: pack_syllable([_check_symbol(value) for value in _check_length(values)])
                for reading, values in pinyin2tensor.items()
            }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{source}: no lists of pinyin: {type(error).__name__}: {error}; needed are char2idx "
            f"{{letter: 0 to {NUM_SYMBOLS - 1}}} and pinyin2tensor "
            f"{{reading: {SYLLABLE_LENGTH} such numbers}}"
        ) from None
    return PinyinVocab(symbols, syllables)


def _check_symbol(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < NUM_SYMBOLS:
        raise ValueError(f"{value!r} is no number from 0 to {NUM_SYMBOLS - 1}")
    return value


def _check_length(values: Sequence[int]) -> Sequence[int]:
    if len(values) != SYLLABLE_LENGTH:
        raise ValueError(f"{values!r} has {len(values)} numbers")
    return values


class PinyinConverter:
    """Gives each character of a text its packed syllable.

    Args:
        vocab: how readings become ids; the built-in rule unless a checkpoint has its own lists.
    """

    def __init__(self, vocab: PinyinVocab | None = None) -> None:
        self.vocab = vocab or PinyinVocab()
        self._readings, self._prefixes = _dictionaries()
        # by character and phrase; never more than the dictionaries have
        self._cache: dict[str, list[int]] = {}

    def convert(self, text: str) -> list[int]:
        """Return a packed syllable for each character; 0 for letters, digits, signs and rare characters.

        >>> pinyin = PinyinConverter()
        >>> [pinyin.convert(text) == [pinyin.vocab.encode(reading) for reading in readings.split()]
        ...  for text, readings in (
        ...      ("成长", "cheng2 zhang3"), ("长江", "chang2 jiang1"), ("绿的", "lv4 de5"))]
        [True, True, True]
        """
        syllables = [0] * len(text)
        for run in _HAN.finditer(text):
            start, stop = run.span()
            syllables[start:stop] = self._convert_run(run[0])
        return syllables

    def _convert_run(self, run: str) -> list[int]:
        syllables: list[int] = []
        cached, prefixes, length, start = self._cache, self._prefixes, len(run), 0
        while start < length:
            stop = start + 1
            while stop < length and run[start : stop + 1] in prefixes:
                stop += 1
            segment = run[start:stop]
            if stop - start > 1 and segment not in self._readings:
                if stop == length:  # pypinyin does not try a shorter phrase at the end of a run
                    for character in segment:
                        syllables += cached.get(character) or self._look_up(character)
                    break
                segment, stop = segment[0], start + 1
            syllables += cached.get(segment) or self._look_up(segment)
            start = stop
        return syllables

    def _look_up(self, segment: str) -> list[int]:
        """Return the syllables of a character or a phrase, and keep them."""
        readings = self._readings.get(segment) or [""] * len(segment)
        syllables = [self.vocab.encode(reading) if reading else 0 for reading in readings]
        self._cache[segment] = syllables
        return syllables


@lru_cache(maxsize=1)
def _dictionaries() -> tuple[dict[str, list[str]], set[str]]:
    """Return the first readings of phrases and characters, and all prefixes of phrases (two letters on).

    They come from pypinyin's own modules, without phrases that a program has added with `load_phrases_dict`.
    """
    _import_pypinyin()
    from pypinyin.constants import Style
    from pypinyin.phrases_dict import phrases_dict
    from pypinyin.pinyin_dict import pinyin_dict
    from pypinyin.style import convert

    @cache
    def to_tone3(marked: str) -> str:
        return str(convert(marked, Style.TONE3, strict=True, default=marked))

    readings = {chr(code): [to_tone3(marked.split(",", 1)[0])] for code, marked in pinyin_dict.items()}
    readings |= {phrase: [to_tone3(marked[0]) for marked in words] for phrase, words in phrases_dict.items()}
    prefixes = {phrase[:stop] for phrase in phrases_dict for stop in range(2, len(phrase) + 1)}
    return readings, prefixes


def _import_pypinyin() -> ModuleType:
    """Import pypinyin.

    Raises:
        MissingExtra: it is not installed.
        ConfigError: it is another version, which reads some characters differently from the model's training.
    """
    try:
        import pypinyin
    except ImportError:
        raise MissingExtra(f"pypinyin=={PYPINYIN_VERSION}", "chinese", "ChineseBERT") from None
    if pypinyin.__version__ != PYPINYIN_VERSION:
        raise ConfigError(
            f"pypinyin {pypinyin.__version__} reads some characters otherwise than {PYPINYIN_VERSION}, which "
            f"ChineseBERT was trained with; install that one: pip install pypinyin=={PYPINYIN_VERSION}"
        )
    return pypinyin
