"""Which tokens of a batch are hidden from the model, and what stands in their place.

Of each row a share of the tokens is chosen; 80 % of those become the mask token, 10 % another token, and
10 % stay as they are, so that the model cannot know which ones it is asked for. Nothing is decided once for a
data set: another seed hides other tokens.

Sources: Devlin et al. 2019 (BERT), arXiv 1810.04805; whole words: Cui et al. 2019, arXiv 1906.08101; n-grams:
Cui et al. 2020 (MacBERT), arXiv 2004.13922, and Joshi et al. 2020 (SpanBERT), arXiv 1907.10529.

Letters: `B` rows, `T` tokens, `M` hidden ones, `V` ids, `U` units (words or tokens) that can be hidden.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from bertune.data.row_random import places_in_rows, row_keys, uniform
from bertune.errors import ConfigError, did_you_mean
from bertune.text.pinyin_tokenizer import PinyinTokenizer
from bertune.text.tokenizer import Tokenizer as TextTokenizer
from bertune.types import Ragged, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
MACBERT_NGRAMS = (0.4, 0.3, 0.2, 0.1)
"""MacBERT's shares of spans of one, two, three and four words."""
_PRIORITY_BITS = 32
"""Bits of the random number by which units are put in order."""
_UNUSED = re.compile(r"[\[<]unused[-_ ]?\d+[\]>]", re.IGNORECASE)


class _Stream(IntEnum):
    """What the random numbers of a row are for."""

    BUDGET = 0
    SPAN_LENGTH = 1
    ORDER = 2
    FATE = 3
    REPLACEMENT = 4


@dataclass(frozen=True)
class MaskOptions:
    """How much is hidden, and how.

    Attributes:
        fraction: share of the tokens of a row that are hidden, above 0 and at most 1.
        replace_by_mask: share of the hidden tokens that become the mask token.
        replace_by_random: share that become any other token; the rest stay as they are.
        whole_words: whether all tokens of a word are hidden together.
        ngrams: weights of spans of 1, 2, 3, ... words (or tokens, without `whole_words`); empty for no spans.

    Raises:
        ConfigError: a number is impossible.
    """

    fraction: float = 0.15
    replace_by_mask: float = 0.8
    replace_by_random: float = 0.1
    whole_words: bool = False
    ngrams: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"options.fraction: {self.fraction} is no share above 0 and at most 1")
        shares = (self.replace_by_mask, self.replace_by_random)
        if not (all(share >= 0 for share in shares) and sum(shares) <= 1 + 1e-9):
            raise ConfigError(
                f"options.replace_by_mask {shares[0]} and options.replace_by_random {shares[1]} must be "
                "shares from 0 to 1, together at most 1"
            )
        weights = self.ngrams
        if weights and not (all(0 <= w < math.inf for w in weights) and sum(weights) > 0):
            raise ConfigError(
                f"options.ngrams: {list(weights)} must be weights of spans of 1, 2, 3, ... words: numbers "
                "from 0 on, one of them above 0, such as [0.4, 0.3, 0.2, 0.1]"
            )


@dataclass(frozen=True)
class MaskVocabulary:
    """What masking must know of a vocabulary.

    Attributes:
        mask_id: the token that stands for a hidden one.
        is_ordinary: (V,) whether a token may be hidden and may replace another: neither a special token nor
            the unknown one, nor one that no text has, such as [unused1].
        continues_word: (V,) whether a token goes on with the word of the token before it.
        ends_word: (V,) whether the next token begins a word, whatever it is.
    """

    mask_id: int
    is_ordinary: BoolArray
    continues_word: BoolArray
    ends_word: BoolArray

    @cached_property
    def ordinary_ids(self) -> IntArray:
        """Return the ids of all ordinary tokens, ascending."""
        return np.flatnonzero(self.is_ordinary)

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, mask_token: str | None = None) -> MaskVocabulary:
        """Return the masking vocabulary of a tokenizer.

        Args:
            tokenizer: of any kind.
            mask_token: `options.mask_token`: the token that hides, where the tokenizer names none.

        Raises:
            ConfigError: there is no mask token, or `mask_token` is not in the vocabulary, or has another
                use.
        """
        own = cast(TextTokenizer, tokenizer)
        vocabulary, special = own.vocabulary, own.special_ids()
        mask_id = _find_mask_id(own.mask_token, mask_token, vocabulary, special)
        is_ordinary = np.zeros(max(vocabulary.values()) + 1, bool)
        is_ordinary[list(vocabulary.values())] = True
        unused = [number for token, number in vocabulary.items() if _UNUSED.fullmatch(token)]
        is_ordinary[[*special, *unused, mask_id]] = False
        borders = own.word_borders
        return cls(mask_id, is_ordinary, borders.continues, borders.ends)


def _find_mask_id(own: str | None, asked: str | None, vocabulary: dict[str, int], special: set[int]) -> int:
    if asked is None:
        if own is not None:
            return vocabulary[own]
        unused = next((token for token in vocabulary if _UNUSED.fullmatch(token)), None)
        example = f", such as options.mask_token='{unused}'" if unused else ""
        raise ConfigError(
            "model: its tokenizer has no mask token, which masked language models need; options.mask_token: "
            f"name a token of its vocabulary that no text has{example}"
        )
    if asked not in vocabulary:
        raise ConfigError(
            f"options.mask_token: {asked!r} is no token of this vocabulary{did_you_mean(asked, vocabulary)}"
        )
    if asked != own and vocabulary[asked] in special:
        advice = f"leave it out: this tokenizer has {own}" if own else "name one that no text has"
        raise ConfigError(f"options.mask_token: {asked!r} is a special token that has another use; {advice}")
    return vocabulary[asked]


def default_pinyin(tokenizer: Tokenizer) -> IntArray | None:
    """Return the reading (V,) of each token outside of any text, for ChineseBERT; None for other tokenizers.

    A token of one character has its first reading, as a text of that character alone; others have none: 0.
    """
    if not isinstance(tokenizer, PinyinTokenizer):
        return None
    vocabulary = tokenizer.vocabulary
    readings = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, number in vocabulary.items():
        character = token.removeprefix("##")
        if len(character) == 1:
            readings[number] = tokenizer.pinyin.convert(character)[0]
    return readings


def mask_tokens(
    ragged: Ragged,
    seed: int,
    vocabulary: MaskVocabulary,
    options: MaskOptions,
    default_pinyin: IntArray | None = None,
) -> tuple[Ragged, Tensor]:
    """Hide tokens of a batch; return the batch, and which tokens were hidden.

    **How many.** A row with n ordinary tokens has a budget of `fraction` n, rounded up or down at random so
    that the mean is exact, but at least 1. Words (or tokens) are taken in random order. The first is always
    taken, each further one where it fits into the budget; so only a first word can go beyond it. A span that
    does not fit is cut to the words that do. So the share is `fraction` for rows that are long beside their
    words (within a hundredth of it from 64 tokens on), and more for rows of a few words, where one word is
    more than the share.

    **Which.** What is drawn depends on `seed` and on the row's ids alone: not on other rows, processes or the
    order of calls.

    Args:
        ragged: a batch on the CPU; it is not changed. Where it has `word_positions` and `whole_words` is set,
            those begin the words; else the vocabulary says it. Tokens that are not ordinary end a word.
        seed: of the run and the step; any integer.
        vocabulary: of the tokenizer that made the ids.
        options: how much and how.
        default_pinyin: (V,), from the function of that name; needed where the batch has `pinyin_ids`.

    Returns:
        The batch with other `input_ids`, and `pinyin_ids` that fit them; and an int64 tensor (2, M): places
        of the hidden tokens in the batch, ascending, and the ids that stood there.

    Raises:
        ValueError: the batch has pinyin and `default_pinyin` is None.
    """
    import torch

    if ragged.pinyin_ids is not None and default_pinyin is None:
        raise ValueError("default_pinyin is needed: the batch has pinyin_ids")
    ids = ragged.input_ids.numpy()
    rows = _Rows.of(ragged, seed)
    hidden = _choose(ragged, ids, rows, vocabulary, options)
    keys, places = rows.keys[rows.row[hidden]], rows.place[hidden]
    fate = uniform(keys, places, _Stream.FATE)
    ordinary = vocabulary.ordinary_ids
    drawn = ordinary[(uniform(keys, places, _Stream.REPLACEMENT) * len(ordinary)).astype(np.int64)]
    is_masked = fate < options.replace_by_mask
    is_random = ~is_masked & (fate < options.replace_by_mask + options.replace_by_random)
    new_ids = ids.copy()
    new_ids[hidden[is_masked]] = vocabulary.mask_id
    new_ids[hidden[is_random]] = drawn[is_random]
    masked = replace(ragged, input_ids=torch.from_numpy(new_ids))
    if ragged.pinyin_ids is not None and default_pinyin is not None:
        pinyin = ragged.pinyin_ids.numpy().copy()
        pinyin[hidden[is_masked]] = 0  # as the tokenizer gives special tokens
        pinyin[hidden[is_random]] = default_pinyin[drawn[is_random]]
        masked = replace(masked, pinyin_ids=torch.from_numpy(pinyin))
    return masked, torch.from_numpy(np.stack([hidden, ids[hidden]]))


def hidden_word_begins(
    ragged: Ragged, target: npt.NDArray[np.int64], vocabulary: MaskVocabulary
) -> BoolArray:
    """Tell of each hidden token (M,) whether it is the first hidden one of its word.

    Hidden tokens side by side that belong to one word go together, whatever `mask_tokens` was asked to hide.

    Args:
        ragged: the batch that `mask_tokens` returned, on any device.
        target: (2, M), as `mask_tokens` returned it.
        vocabulary: that was masked with.
    """
    places, ids = target
    begins = np.ones(len(places), bool)
    if ragged.word_positions is None:
        begins[1:] = vocabulary.ends_word[ids[:-1]] | ~vocabulary.continues_word[ids[1:]]
    else:
        begins = np.isin(places, ragged.word_positions.cpu().numpy())
    begins[1:] |= np.diff(places) != 1
    begins[:1] = True
    row_starts = np.append(0, np.cumsum(ragged.lengths))
    return begins | np.isin(places, row_starts)


@dataclass(frozen=True)
class _Rows:
    """The rows of a batch: a key for each (B,), and for each token (T,) its row and its place in it."""

    keys: npt.NDArray[np.uint64]
    row: IntArray
    place: IntArray

    @classmethod
    def of(cls, ragged: Ragged, seed: int) -> _Rows:
        lengths = np.asarray(ragged.lengths, np.int64)
        row = np.repeat(np.arange(len(lengths)), lengths)
        return cls(row_keys(ragged, seed), row, places_in_rows(lengths))


def _choose(
    ragged: Ragged, ids: IntArray, rows: _Rows, vocabulary: MaskVocabulary, options: MaskOptions
) -> IntArray:
    """Return the places (M,) of the tokens to hide, ascending."""
    tokens = np.flatnonzero(vocabulary.is_ordinary[ids])
    begins = _unit_begins(ragged, ids, tokens, rows.place, vocabulary, options)
    unit_of_token = np.cumsum(begins) - 1
    first = tokens[begins]  # of each unit (U,)
    row, sizes = rows.row[first], np.bincount(unit_of_token, minlength=len(first))
    order = _random_order(row, rows.place[first], rows.keys, options.ngrams)
    counts = np.bincount(rows.row[tokens], minlength=len(rows.keys))
    rounding = uniform(rows.keys, 0, _Stream.BUDGET)
    budgets = np.maximum(np.floor(options.fraction * counts + rounding), 1).astype(np.int64)
    is_taken = np.zeros(len(first), bool)
    is_taken[order] = _fill_budgets(row[order], sizes[order], budgets)
    hidden: IntArray = tokens[is_taken[unit_of_token]]
    return hidden


def _unit_begins(
    ragged: Ragged,
    ids: IntArray,
    tokens: IntArray,
    place: IntArray,
    vocabulary: MaskVocabulary,
    options: MaskOptions,
) -> BoolArray:
    """Tell of each ordinary token whether a unit begins with it."""
    if not options.whole_words:
        return np.ones(len(tokens), bool)
    if ragged.word_positions is not None:
        begins = np.zeros(len(ids), bool)
        begins[ragged.word_positions.numpy()] = True
    else:
        begins = ~vocabulary.continues_word[ids]
        begins[1:] |= vocabulary.ends_word[ids[:-1]]
    begins[1:] |= ~vocabulary.is_ordinary[ids[:-1]]
    begins |= place == 0
    return begins[tokens]


def _random_order(
    row: IntArray, place: IntArray, keys: npt.NDArray[np.uint64], ngrams: tuple[float, ...]
) -> IntArray:
    """Return the units of each row in random order, those of a span one after the other.

    Args:
        row: (U,), ascending.
        place: (U,) of the unit's first token in its row.
        keys: (B,).
        ngrams: weights of spans of 1, 2, 3, ... units.
    """
    priority = uniform(keys[row], place, _Stream.ORDER)
    if len(ngrams) > 1:
        begins = _span_begins(row, uniform(keys[row], place, _Stream.SPAN_LENGTH), ngrams)
        priority = priority[begins][np.cumsum(begins) - 1]
    return _sort(row, (priority * (1 << _PRIORITY_BITS)).astype(np.int64), place)


def _sort(row: IntArray, priority: IntArray, place: IntArray) -> IntArray:
    """Return the order of units by row, priority, and place in the row, which tells all units of a row apart.

    A number that holds all three is sorted ten times as fast as three keys.
    """
    row_bits, place_bits = (int(values.max(initial=0)).bit_length() for values in (row, place))
    if row_bits + _PRIORITY_BITS + place_bits > 63:
        return np.lexsort((place, priority, row))
    return np.argsort((((row << _PRIORITY_BITS) | priority) << place_bits) | place)


def _span_begins(row: IntArray, random: npt.NDArray[np.float64], ngrams: tuple[float, ...]) -> BoolArray:
    """Cut the units of each row into spans, one after the other; tell of each unit whether a span begins.

    Args:
        row: (U,), ascending.
        random: (U,), the numbers that decide the lengths of the row's first, second, ... span.
        ngrams: weights of spans of 1, 2, 3, ... units.
    """
    borders = np.cumsum(ngrams) / np.sum(ngrams)
    lengths = np.minimum(np.searchsorted(borders, random, side="right"), len(ngrams) - 1) + 1
    starts = _sums_before(row, lengths)
    begins_row = _begins_row(row)
    first_unit = np.flatnonzero(begins_row)[np.cumsum(begins_row) - 1]
    num_units = np.bincount(row)[row]
    begins = np.zeros(len(row), bool)
    inside = starts < num_units
    begins[(first_unit + starts)[inside]] = True
    return begins


def _fill_budgets(row: IntArray, sizes: IntArray, budgets: IntArray) -> BoolArray:
    """Take units in their order: the first of each row, and each one that still fits into the row's budget.

    All rows at once, in a few rounds: each takes, in every row, the units up to the first that does not fit.

    Args:
        row: (U,), ascending.
        sizes: (U,), tokens of each unit.
        budgets: (B,), tokens.
    """
    is_taken = _begins_row(row)
    left = budgets.copy()
    left[row[is_taken]] -= sizes[is_taken]
    waiting = np.flatnonzero(~is_taken & (sizes <= left[row]))
    while len(waiting):
        its_row, its_size = row[waiting], sizes[waiting]
        fits = _sums_before(its_row, its_size) + its_size <= left[its_row]
        is_taken[waiting[fits]] = True
        np.subtract.at(left, its_row[fits], its_size[fits])
        waiting = waiting[~fits & (its_size <= left[its_row])]
    return is_taken


def _begins_row(row: IntArray) -> BoolArray:
    begins = np.ones(len(row), bool)
    begins[1:] = row[1:] != row[:-1]
    return begins


def _sums_before(row: IntArray, values: IntArray) -> IntArray:
    """Return for each place the sum of the values before it in its row; rows are ascending."""
    before = np.cumsum(values) - values
    begins = _begins_row(row)
    sums: IntArray = before - before[begins][np.cumsum(begins) - 1]
    return sums
