"""Where words begin, as the marks of a vocabulary tell it: `##`, the blank of SentencePiece, `@@`, `</w>`.

Scripts that are written without blanks (Chinese, Japanese, Thai) have no marks within a clause. There each
token is a word of its own: a clause is no word. `bertune.text.segment` finds real words of Chinese texts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.types import JSON

BoolArray = npt.NDArray[np.bool_]

_BLANKLESS = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"  # Han, kana, bopomofo
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]"  # Thai, Lao, Tibetan, Burmese, Khmer
)
_BLANK_MARKS = ("\u2581", "\u0120")
"""A blank in SentencePiece and in byte-level vocabularies."""


_Marking = Callable[[str], tuple[bool, bool]]
"""A token to whether it goes on with a word, and whether a word ends with it."""


@dataclass(frozen=True)
class WordBorders:
    """What the tokens of a vocabulary say of words; a word begins where either of two neighbours says so.

    Attributes:
        continues: (V,) whether a token goes on with the word of the token before it.
        ends: (V,) whether the next token begins a word, whatever it is.
    """

    continues: BoolArray
    ends: BoolArray

    def between(self, ids: npt.NDArray[np.int64]) -> BoolArray:
        """Tell of each id (N,) but the first whether a word begins with it, (N - 1,)."""
        begins: BoolArray = self.ends[ids[:-1]] | ~self.continues[ids[1:]]
        return begins


def find_word_borders(parts: JSON, vocabulary: dict[str, int]) -> WordBorders:
    """Return the borders of words for all ids of a tokenizer.

    Signs and tokens of scripts without blanks are words of their own, as in BERT's tokenizer. A character
    that a byte-level vocabulary cuts into several tokens is one word.

    Args:
        parts: tokenizer.json, without its vocabulary.
        vocabulary: the id of each token.
    """
    marking = _find_marking(parts, vocabulary)
    continues, ends = (np.zeros(max(vocabulary.values()) + 1, bool) for _ in range(2))
    for token, number in vocabulary.items():
        continues[number], ends[number] = marking(token)
    return WordBorders(continues, ends)


def _borders(text: str, *, begins: bool = False, ends: bool = False) -> tuple[bool, bool]:
    """Return what a token without its mark says, where the mark says that a word begins or ends with it."""
    is_sign = bool(text) and not text.isalnum() and all(map(_is_sign, text))
    begins = begins or is_sign or bool(_BLANKLESS.match(text[:1]))
    return not begins, ends or is_sign or bool(_BLANKLESS.match(text[-1:]))


@lru_cache(maxsize=1 << 16)
def _is_sign(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "PS" or letter.isspace()


def _find_marking(parts: JSON, vocabulary: dict[str, int]) -> _Marking:
    model = parts["model"]
    kind = model["type"]
    if kind in ("WordPiece", "BPE") and model.get("continuing_subword_prefix"):
        return _prefix_marking(model["continuing_subword_prefix"])
    if kind == "BPE" and model.get("end_of_word_suffix"):
        return _suffix_marking(model["end_of_word_suffix"], says_end=True)
    if kind in ("BPE", "Unigram"):
        steps = [parts.get(name) for name in ("pre_tokenizer", "decoder", "normalizer")]
        if _has_type(steps, "ByteLevel"):
            return _byte_marking
        if kind == "Unigram" or _BLANK_MARKS[0] in json.dumps(steps, ensure_ascii=False):
            return _blank_marking
        return _no_marking
    if kind in ("WordPiece", "WordLevel"):
        return _no_marking
    return _marking_of_tokens(vocabulary)


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, list):
        return any(_has_type(item, name) for item in value)
    if isinstance(value, dict):
        return value.get("type") == name or _has_type(list(value.values()), name)
    return False


def _marking_of_tokens(vocabulary: dict[str, int]) -> _Marking:
    """Guess the marks of a tokenizer in Python, which does not name them, by what most tokens have."""
    counts: Counter[str] = Counter()
    for token in vocabulary:
        counts["##"] += token.startswith("##")
        counts["@@"] += token.endswith("@@")
        counts["</w>"] += token.endswith("</w>")
        counts[_BLANK_MARKS[0]] += token.startswith(_BLANK_MARKS[0])
    mark, count = counts.most_common(1)[0]
    if count < 0.02 * len(vocabulary):
        return _no_marking
    if mark == "##":
        return _prefix_marking(mark)
    if mark == _BLANK_MARKS[0]:
        return _blank_marking
    return _suffix_marking(mark, says_end=mark == "</w>")


def _no_marking(_token: str) -> tuple[bool, bool]:
    return False, True


def _prefix_marking(prefix: str) -> _Marking:
    return lambda token: _borders(token.removeprefix(prefix), begins=not token.startswith(prefix))


def _suffix_marking(suffix: str, *, says_end: bool) -> _Marking:
    """Return the marking of `word</w>`, or of `begin@@ ning`, where the mark says that a word goes on."""
    return lambda token: _borders(token.removesuffix(suffix), ends=token.endswith(suffix) == says_end)


def _blank_marking(token: str) -> tuple[bool, bool]:
    return _borders(token.lstrip(_BLANK_MARKS[0]), begins=token.startswith(_BLANK_MARKS[0]))


def _byte_marking(token: str) -> tuple[bool, bool]:
    """Return the borders of a token of bytes, which may begin and end within a character."""
    alphabet = _byte_alphabet()
    letters = token.lstrip(_BLANK_MARKS[1])
    values = bytes(alphabet[letter] for letter in letters if letter in alphabet)
    text = values.decode("utf-8", "ignore")
    continues, ends = _borders(text, begins=token != letters)
    if values and values[0] & 0xC0 == 0x80:  # the rest of a character
        continues = True
    elif not text and values:  # the beginning of one: from U+3000 to U+9FFF, or from U+F000 to U+FFFF
        continues = continues and not (0xE3 <= values[0] <= 0xE9 or values[0] == 0xEF)
    return continues, ends and values.endswith(text[-1:].encode())


@cache
def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}
