"""Which tokens begin the words of Chinese texts, where a segmenter finds the words.

Chinese is written without blanks, so neither characters nor vocabularies show where a word ends. jieba finds
words by a dictionary, and new ones by a hidden Markov model; rjieba is the same in Rust, many times as fast.

    我来到北京清华大学 -> 我 | 来到 | 北京 | 清华大学
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from bertune.errors import MissingExtra
from bertune.text.tokenizer import Tokenizer as TextTokenizer
from bertune.types import Tokenizer

BoolArray = npt.NDArray[np.bool_]
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
IntArray = npt.NDArray[np.int64]
SegmenterName = Literal["auto", "rjieba", "jieba"]


@dataclass(frozen=True)
class Segmenter:
    """Cuts texts into words.

    Attributes:
        name: package and version, which determine the words.
        cut: a text to its words, which are the whole text, one after the other.
    """

    name: str
    cut: Callable[[str], list[str]]


def load_segmenter(name: SegmenterName = "auto") -> Segmenter:
    """Load a segmenter for Chinese. Words that a program has added to its dictionary do not count.

    Args:
        name: the package; `auto` is rjieba where it is installed, else jieba.

    Raises:
        MissingExtra: it is not installed.
    """
    full_name = segmenter_name(name)
    if full_name is None:
        package = "rjieba" if name == "auto" else name
        raise MissingExtra(package, "chinese-words", "finding the words of Chinese texts")
    return Segmenter(full_name, _load_rjieba() if full_name.startswith("rjieba") else _load_jieba())


def segmenter_name(name: SegmenterName = "auto") -> str | None:
    """Return package and version of the segmenter that would be loaded; None if it is not installed."""
    packages = ("rjieba", "jieba") if name == "auto" else (name,)
    found = next((package for package in packages if importlib.util.find_spec(package) is not None), None)
    return None if found is None else f"{found} {version(found)}"


def _load_rjieba() -> Callable[[str], list[str]]:
    import rjieba

    jieba = rjieba.Jieba() if hasattr(rjieba, "Jieba") else rjieba
    return lambda text: jieba.cut(text, True)


def _load_jieba() -> Callable[[str], list[str]]:
    """Load jieba without what it prints and warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba

        jieba.setLogLevel(logging.ERROR)
        tokenizer = jieba.Tokenizer()
        tokenizer.initialize()
    return lambda text: list(tokenizer.cut(text, HMM=True))


def chinese_share(texts: Iterable[str]) -> float:
    """Return the share of Chinese characters among all that are no blanks.

    >>> chinese_share(["我 see"])
    0.25
    """
    counts = [(len(_HAN.findall(text)), len("".join(text.split()))) for text in texts]
    return sum(han for han, _ in counts) / max(1, sum(length for _, length in counts))


def word_starts(
    texts: Sequence[str], tokenizer: Tokenizer, segmenter: Segmenter | None = None
) -> list[BoolArray]:
    """Tell for each text which of its tokens begin a word, in its encoding without special tokens.

    Words are the segmenter's, and words between blanks: jieba cuts only Chinese and English well, so within a
    word of another script the marks of the vocabulary count. A token that stands in two words makes them one.

    Args:
        texts: whole texts; nothing is truncated.
        tokenizer: its tokens.
        segmenter: from `load_segmenter`; without it the one that is installed.

    Returns:
        For each text (tokens,), as `Tokenizer.encode_whole` gives them. The first token begins a word.

    Raises:
        ConfigError: the tokenizer does not know the characters of its tokens.
        MissingExtra: no segmenter is installed.
    """
    cut = (segmenter or load_segmenter()).cut
    if not texts:
        return []
    words = [cut(text) for text in texts]
    own = cast(TextTokenizer, tokenizer)
    spans = own.token_spans(texts)
    num_tokens = np.array([len(ids) for ids, _ in spans], np.int64)
    ids = _flat([ids for ids, _ in spans])
    starts, stops = _flat(itertools.chain.from_iterable(each for _, each in spans)).reshape(-1, 2).T
    base = np.repeat(_before(np.array([len(text) for text in texts], np.int64)), num_tokens)
    begins = _begins(_word_of_characters(texts, words), starts + base, stops + base)
    begins[1:] &= own.word_borders.between(ids)
    firsts = _before(num_tokens)
    begins[firsts[num_tokens > 0]] = True
    return np.split(begins, firsts[1:])


def _word_of_characters(texts: Sequence[str], words: Sequence[Sequence[str]]) -> IntArray:
    """Return the number of the word of each character of all texts, one after the other."""
    for text, its_words in zip(texts, words, strict=True):
        if sum(map(len, its_words)) != len(text):
            raise ValueError(f"the segmenter's words {its_words!r} are not the whole text {text!r}")
    lengths = _flat(map(len, its_words) for its_words in words)
    return np.repeat(np.arange(len(lengths)), lengths)


def _begins(word_of: IntArray, starts: IntArray, stops: IntArray) -> BoolArray:
    """Tell of each token whether it begins in a word in which no earlier token is."""
    begins = np.ones(len(starts), bool)
    if len(word_of):
        first = word_of[np.minimum(starts, len(word_of) - 1)]
        last = np.maximum.accumulate(word_of[np.maximum(stops - 1, 0)])
        begins[1:] = first[1:] > last[:-1]
    return begins


def _flat(lists: Iterable[Iterable[int]]) -> IntArray:
    return np.fromiter(itertools.chain.from_iterable(lists), np.int64)


def _before(lengths: IntArray) -> IntArray:
    before: IntArray = np.cumsum(lengths) - lengths
    return before
