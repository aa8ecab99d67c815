"""Readings of Chinese characters as ChineseBERT sees them: a syllable of at most eight symbols for each character of a text.

    的 -> "de5" -> 9 10 5 0 0 0 0 0        0 nothing, 1 to 5 the tones, 6 to 31 the letters a to z; v stands for ü

A reading depends on the words around a character, 长 is zhang3 in 成长 and chang2 in 长江, so a text is cut by a dictionary of
phrases first: forward, the longest prefix of a phrase. The dictionaries are those of pypinyin, in the one version whose readings
ChineseBERT was trained with. What follows is what `pypinyin.pinyin(text, style=TONE3, heteronym=True)` gives, first reading of
each, some fifteen times as fast; tests hold the two against each other.

Sources: Sun et al. 2021 (ChineseBERT), arXiv 2106.16038; `bert_dataset.py` of ShannonAI/ChineseBert; `seg/mmseg.py` and
`converter.py` of pypinyin 0.38.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType

from bertune.errors import ConfigError, MissingExtra
from bertune.types import JSON

SYLLABLE_LENGTH = 8
"""Symbols of a syllable."""
SYMBOL_BITS = 5
"""Bits of a symbol in a packed syllable: the first symbol in the lowest ones."""
NUM_SYMBOLS = 1 << SYMBOL_BITS
SYMBOLS: dict[str, int] = {s: n for n, s in enumerate("12345abcdefghijklmnopqrstuvwxyz", 1)}
"""Number of each symbol; 0 stands for none. Derived from published samples: tests hold it against them."""
PYPINYIN_VERSION = "0.38.1"
"""The version of pypinyin that ChineseBERT's authors name. Every later one gives some characters other readings: of 3,000 titles
0.39 changes .08 % of the characters, 0.44 .2 % (那 from nei4 to na4 among them), 0.55 .64 %, one title in ten."""

_HAN = re.compile(
    "[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a703-\U0002b81d\U0002f80a-\U0002fa1f]+"
)
"""Runs of characters that may have a reading."""


def pack_syllable(symbol_ids: Sequence[int]) -> int:
    """Put up to eight numbers from 0 to 31 into one.

    >>> pack_syllable([9, 10, 5])
    5449
    """
    return sum(symbol << SYMBOL_BITS * place for place, symbol in enumerate(symbol_ids))


def unpack_syllable(syllable: int) -> list[int]:
    """Return the eight symbols of a packed syllable.

    >>> unpack_syllable(5449)
    [9, 10, 5, 0, 0, 0, 0, 0]
    """
    return [syllable >> SYMBOL_BITS * place & NUM_SYMBOLS - 1 for place in range(SYLLABLE_LENGTH)]


@dataclass(frozen=True)
class PinyinVocab:
    """How a reading is written in symbols.

    Attributes:
        symbols: number of each letter and tone.
        syllables: packed syllables by reading, where a checkpoint brings its own list; it goes before `symbols`, and then no
            neutral tone is added to readings outside of it.
    """

    symbol_ids: Mapping[str, int] = field(default_factory=lambda: SYMBOLS)
    pinyin_ids: Mapping[str, int] | None = None

    def encode(self, reading: str) -> int:
        """Return the packed syllable of a reading such as zhang3, or 0 where it has a letter without a number, such as ê.

        >>> unpack_syllable(PinyinVocab().of("lv4")), PinyinVocab().of("de") == PinyinVocab().of("de5")
        ([17, 27, 4, 0, 0, 0, 0, 0], True)
        """
        if self.pinyin_ids is not None and reading in self.pinyin_ids:
            return self.pinyin_ids[reading]
        if self.pinyin_ids is None and not reading[-1:].isdigit():
            reading += "5"
        numbers = [self.symbol_ids.get(letter, 0) for letter in reading]
        return pack_syllable(numbers) if all(numbers) and len(numbers) <= SYLLABLE_LENGTH else 0

    def to_json(self) -> JSON:
        """Return it as junnyu's tokenizer_config.json holds it; nothing for the built-in one."""
        if self == PinyinVocab():
            return {}
        letters = {number: letter for letter, number in self.symbol_ids.items()}
        own: JSON = {
            "pinyin_map": {
                "idx2char": [letters.get(n, "_") for n in range(NUM_SYMBOLS)],
                "char2idx": dict(self.symbol_ids),
            },
        }
        if self.pinyin_ids is not None:
            own["pinyin2tensor"] = {
                reading: unpack_syllable(syllable) for reading, syllable in self.pinyin_ids.items()
            }
        return own


def parse_pinyin_vocab(pinyin_map: JSON | None, pinyin2tensor: JSON | None, source: str) -> PinyinVocab:
    """Read the lists that a checkpoint brings along.

    Args:
        pinyin_map: `{"idx2char": [...], "char2idx": {letter: number}}`, or None where there is none.
        pinyin2tensor: `{reading: [eight numbers]}`, or None.
        source: stands in the message when they are broken.

    Raises:
        ConfigError: something in them is no number from 0 to 31, or a syllable is longer than eight.
    """
    try:
        symbols = (
            SYMBOLS if pinyin_map is None else {str(k): _symbol(v) for k, v in pinyin_map["char2idx"].items()}
        )
        syllables = None
        if pinyin2tensor is not None:
            syllables = {
                reading: pack_syllable([_symbol(n) for n in _eight(numbers)])
                for reading, numbers in pinyin2tensor.items()
            }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{source}: no lists of pinyin: {type(error).__name__}: {error}; needed are char2idx {{letter: 0 to {NUM_SYMBOLS - 1}}} "
            f"and pinyin2tensor {{reading: {SYLLABLE_LENGTH} such numbers}}"
        ) from None
    return PinyinVocab(symbols, syllables)


def _symbol(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < NUM_SYMBOLS:
        raise ValueError(f"{value!r} is no number from 0 to {NUM_SYMBOLS - 1}")
    return value


def _eight(numbers: Sequence[int]) -> Sequence[int]:
    if len(numbers) != SYLLABLE_LENGTH:
        raise ValueError(f"{numbers!r} has {len(numbers)} numbers")
    return numbers


class PinyinConverter:
    """Gives each character of a text its packed syllable.

    Args:
        spelling: how readings are written; the built-in rule unless a checkpoint brings its own.
    """

    def __init__(self, vocab: PinyinVocab | None = None) -> None:
        self.vocab = vocab or PinyinVocab()
        self._readings, self._prefixes = _dictionaries()
        self._known: dict[
            str, list[int]
        ] = {}  # of characters and phrases met before: at most as many as the dictionaries have

    def convert(self, text: str) -> list[int]:
        """Return a packed syllable for each character, 0 for those without a reading: letters, digits, signs, rare characters.

        >>> pinyin = PinyinConverter()
        >>> [pinyin.convert(text) == [pinyin.vocab.encode(reading) for reading in readings.split()]
        ...  for text, readings in (("成长", "cheng2 zhang3"), ("长江", "chang2 jiang1"), ("绿的", "lv4 de5"))]
        [True, True, True]
        """
        found = [0] * len(text)
        for run in _HAN.finditer(text):
            start, stop = run.span()
            found[start:stop] = self._of_run(run[0])
        return found

    def _of_run(self, run: str) -> list[int]:
        found: list[int] = []
        known, prefixes, length, start = self._known, self._prefixes, len(run), 0
        while start < length:
            stop = start + 1
            while stop < length and run[start : stop + 1] in prefixes:
                stop += 1
            segment = run[start:stop]
            if stop - start > 1 and segment not in self._readings:
                if stop == length:  # pypinyin looks for no shorter phrase at the end of a run
                    for character in segment:
                        found += known.get(character) or self._learn(character)
                    break
                segment, stop = segment[0], start + 1
            found += known.get(segment) or self._learn(segment)
            start = stop
        return found

    def _learn(self, segment: str) -> list[int]:
        """Return the syllables of a character or a phrase, and keep them."""
        readings = self._readings.get(segment) or [""] * len(segment)
        self._known[segment] = found = [self.vocab.encode(reading) if reading else 0 for reading in readings]
        return found


@lru_cache(maxsize=1)
def _dictionaries() -> tuple[dict[str, list[str]], set[str]]:
    """Return the first reading of each character of each phrase and single character, and the beginnings of phrases of two and more.

    Read from pypinyin's own modules, not from what a program may have added to them with `load_phrases_dict`.
    """
    _checked()
    from pypinyin.constants import Style
    from pypinyin.phrases_dict import phrases_dict
    from pypinyin.pinyin_dict import pinyin_dict
    from pypinyin.style import convert

    written: dict[str, str] = {}

    def plain(marked: str) -> str:
        if marked not in written:
            written[marked] = convert(marked, Style.TONE3, strict=True, default=marked)
        return written[marked]

    readings = {chr(number): [plain(marked.split(",", 1)[0])] for number, marked in pinyin_dict.items()}
    readings |= {phrase: [plain(each[0]) for each in marked] for phrase, marked in phrases_dict.items()}
    prefixes = {phrase[:stop] for phrase in phrases_dict for stop in range(2, len(phrase) + 1)}
    return readings, prefixes


def _checked() -> ModuleType:
    """Return pypinyin.

    Raises:
        MissingExtra: it is not installed.
        ConfigError: it is another version, which would read some characters otherwise than the model has learnt them.
    """
    try:
        import pypinyin
    except ImportError:
        raise MissingExtra(f"pypinyin=={PYPINYIN_VERSION}", "chinese", "ChineseBERT") from None
    if pypinyin.__version__ != PYPINYIN_VERSION:
        raise ConfigError(
            f"pypinyin {pypinyin.__version__} reads some characters otherwise than {PYPINYIN_VERSION}, which ChineseBERT was trained with; "
            f"install that one: pip install pypinyin=={PYPINYIN_VERSION}"
        )
    return pypinyin
