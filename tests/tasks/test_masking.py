"""Masked tokens: how many, which, what stands in their place, and that rows do not see each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare
from tests.chinesebert_folder import write_folder
from tests.conftest import make_encoder

from bertune.config.schema import DataConfig
from bertune.errors import ConfigError
from bertune.tasks.base.masking import (
    MACBERT_NGRAMS,
    MaskOptions,
    MaskVocabulary,
    _sort,
    default_pinyin,
    mask_tokens,
)
from bertune.text.load import load_tokenizer
from bertune.types import Ragged

CLS, SEP, UNK, MASK, VOCABULARY_SIZE = 0, 1, 2, 3, 100
FIRST, FIRST_PIECE = 4, 70  # ordinary tokens from 4 on; those from 70 on go on with a word
SPECIAL = {CLS, SEP, UNK, MASK}


def small_vocabulary() -> MaskVocabulary:
    ids = np.arange(VOCABULARY_SIZE)
    return MaskVocabulary(MASK, ids >= FIRST, ids >= FIRST_PIECE, np.zeros(VOCABULARY_SIZE, bool))


def ragged_of(rows: Sequence[Sequence[int]], word_starts: Sequence[Sequence[int]] | None = None) -> Ragged:
    lengths = tuple(map(len, rows))
    offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
    ids = torch.tensor([number for row in rows for number in row], dtype=torch.long)
    words = None
    if word_starts is not None:
        pairs = zip(word_starts, offsets[:-1], strict=True)
        words = torch.tensor([start + int(at) for starts, at in pairs for start in starts], dtype=torch.long)
    return Ragged(ids, torch.zeros_like(ids), torch.from_numpy(offsets), lengths, words)


def random_rows(count: int, length: int, seed: int = 0, pieces: float = 0.3) -> list[list[int]]:
    """Rows of [CLS], words of one token and more, and [SEP]."""
    rng = np.random.default_rng(seed)
    words = rng.integers(FIRST, FIRST_PIECE, (count, length))
    parts = rng.integers(FIRST_PIECE, VOCABULARY_SIZE, (count, length))
    body = np.where(rng.random((count, length)) < pieces, parts, words)
    return [[CLS, *row, SEP] for row in body.tolist()]


def by_row(ragged: Ragged, masked: Ragged, target: torch.Tensor) -> list[tuple[list[int], dict[int, int]]]:
    """The new ids of each row, and the hidden ids by place in the row."""
    ends = ragged.offsets.tolist()
    hidden = dict(zip(*target.tolist(), strict=True))
    return [
        (
            masked.input_ids[a:b].tolist(),
            {place - a: hidden[place] for place in range(a, b) if place in hidden},
        )
        for a, b in itertools.pairwise(ends)
    ]


def within(count: int, total: int, share: float) -> bool:
    """Whether a count is no surprise: its probability is above one in a million."""
    return bool(binom.ppf(5e-7, total, share) <= count <= binom.ppf(1 - 5e-7, total, share))


OPTIONS = {
    "tokens": MaskOptions(),
    "words": MaskOptions(whole_words=True),
    "spans": MaskOptions(ngrams=MACBERT_NGRAMS),
    "word spans": MaskOptions(whole_words=True, ngrams=MACBERT_NGRAMS),
    "much": MaskOptions(fraction=0.6, replace_by_mask=0.5, replace_by_random=0.5, whole_words=True),
    "all": MaskOptions(fraction=1.0, replace_by_mask=1.0, replace_by_random=0.0),
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@every_option
def test_the_target_is_what_stood_there_and_all_else_stays(options):
    ragged = ragged_of(random_rows(50, 40))
    before = ragged.input_ids.clone()
    masked, target = mask_tokens(ragged, 1, small_vocabulary(), options)
    places, ids = target
    assert torch.equal(ragged.input_ids, before)
    assert target.dtype == torch.int64 and (places.diff() > 0).all()
    assert torch.equal(before[places], ids)
    assert not SPECIAL & set(ids.tolist())
    is_hidden = torch.zeros_like(before, dtype=torch.bool)
    is_hidden[places] = True
    assert torch.equal(masked.input_ids[~is_hidden], before[~is_hidden])
    drawn = masked.input_ids[is_hidden & (masked.input_ids != before) & (masked.input_ids != MASK)]
    assert not SPECIAL & set(drawn.tolist())
    assert masked.lengths == ragged.lengths and masked.token_type_ids is ragged.token_type_ids


@pytest.mark.parametrize(
    "options", [MaskOptions(), MaskOptions(fraction=0.3, replace_by_mask=0.5, replace_by_random=0.25)]
)
def test_distributions(options):
    vocabulary = small_vocabulary()
    rows = random_rows(3000, 33)
    ragged = ragged_of(rows)
    masked, (places, ids) = mask_tokens(ragged, 5, vocabulary, options)
    new = masked.input_ids[places]
    total = 3000 * 33
    # stochastic rounding keeps the count much nearer to its mean than 33 independent draws a row
    assert abs(len(places) - options.fraction * total) < 4 * math.sqrt(3000 * 0.25)
    num_ordinary = VOCABULARY_SIZE - FIRST
    assert within(int((new == MASK).sum()), len(ids), options.replace_by_mask)
    changed = new[(new != MASK) & (new != ids)]
    assert within(len(changed), len(ids), options.replace_by_random * (1 - 1 / num_ordinary))
    counts = np.bincount(changed, minlength=VOCABULARY_SIZE)[FIRST:]
    assert chisquare(counts).pvalue > 1e-4
    in_row = places % 35 - 1  # each place of a row is hidden equally often
    assert chisquare(np.bincount(in_row, minlength=33)).pvalue > 1e-4


@pytest.mark.parametrize("name", ["words", "word spans", "spans"])
@pytest.mark.parametrize("length", [20, 64, 126, 510])
def test_the_share_stays_near_the_fraction_with_words_and_spans(name, length):
    ragged = ragged_of(random_rows(max(200, 60_000 // length), length, pieces=0.4))
    _, target = mask_tokens(ragged, 0, small_vocabulary(), OPTIONS[name])
    share = target.shape[1] / (len(ragged.lengths) * length)
    assert share == pytest.approx(0.15, abs=0.01)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 50), st.floats(0.05, 0.9))
def test_never_beyond_the_budget_but_for_the_first_word(sizes, seed, fraction):
    words = [[FIRST + n % 60, *[FIRST_PIECE] * (size - 1)] for n, size in enumerate(sizes)]
    row = [token for word in words for token in word]
    options = MaskOptions(fraction=fraction, whole_words=True)
    _, target = mask_tokens(ragged_of([row]), seed, small_vocabulary(), options)
    budget = max(1, math.ceil(fraction * len(row)))
    starts = np.append(0, np.cumsum(sizes))
    taken = np.unique(np.searchsorted(starts, target[0].numpy(), side="right") - 1)
    assert target.shape[1] == sum(sizes[word] for word in taken)  # whole words
    assert len(taken) >= 1 and (target.shape[1] <= budget or len(taken) == 1)
    left = max(1, math.floor(fraction * len(row))) - target.shape[1]
    rest = [size for word, size in enumerate(sizes) if word not in taken]
    assert not rest or left < min(rest)  # nothing that fits was left out


def test_every_word_of_a_short_row_is_as_likely_as_the_others():
    """One-token words would win if the first word had to fit into the budget of one token."""
    rows = [
        [FIRST + a, FIRST + 20, FIRST_PIECE, FIRST_PIECE + 1, FIRST + b] for a in range(60) for b in range(60)
    ]
    _, target = mask_tokens(ragged_of(rows), 0, small_vocabulary(), MaskOptions(whole_words=True))
    counts = np.bincount(target[0].numpy() % 5, minlength=5)[[0, 1, 4]]
    assert counts.sum() >= len(rows) and chisquare(counts).pvalue > 1e-4


def test_spans_are_neighbours_and_their_lengths_have_the_weights():
    weights = (0.4, 0.3, 0.2, 0.1)
    options = MaskOptions(fraction=0.01, ngrams=weights)  # so few that two spans seldom touch
    rows = random_rows(60, 3000, pieces=0.0)
    ragged = ragged_of(rows)
    _, target = mask_tokens(ragged, 0, small_vocabulary(), options)
    cuts = np.flatnonzero(np.diff(target[0].numpy()) > 1)
    lengths = np.diff(np.concatenate([[-1], cuts, [target.shape[1] - 1]]))
    shares = np.bincount(np.minimum(lengths, 5), minlength=6)[1:] / len(lengths)
    assert shares == pytest.approx([*weights, 0.0], abs=0.05)


def test_word_spans_hide_whole_words():
    ragged = ragged_of(random_rows(30, 60))
    vocabulary, options = small_vocabulary(), OPTIONS["word spans"]
    _, target = mask_tokens(ragged, 0, vocabulary, options)
    hidden = set(target[0].tolist())
    ids = ragged.input_ids.tolist()
    for place in range(1, len(ids)):
        if vocabulary.continues_word[ids[place]] and vocabulary.is_ordinary[ids[place - 1]]:
            assert (place in hidden) == (place - 1 in hidden)


def test_given_word_positions_are_the_words():
    """Ids say that each token is a word; the segmenter says that pairs are."""
    rng = np.random.default_rng(0)
    rows = [[CLS, *rng.integers(FIRST, FIRST_PIECE, 40).tolist(), SEP] for _ in range(20)]
    ragged = ragged_of(rows, [list(range(1, 41, 2))] * 20)
    _, target = mask_tokens(ragged, 0, small_vocabulary(), MaskOptions(whole_words=True))
    places = target[0] % 42
    assert torch.equal(places[0::2] + 1, places[1::2]) and (places[0::2] % 2 == 1).all()
    single, _ = mask_tokens(ragged, 0, small_vocabulary(), MaskOptions())
    plain, _ = mask_tokens(ragged_of(rows), 0, small_vocabulary(), MaskOptions())
    assert torch.equal(single.input_ids, plain.input_ids)  # without whole_words they do not count


def test_unknown_and_special_tokens_break_words():
    row = [FIRST, UNK, FIRST_PIECE, SEP, FIRST_PIECE, FIRST_PIECE + 1]
    found = set()
    for seed in range(60):
        _, target = mask_tokens(
            ragged_of([row]), seed, small_vocabulary(), MaskOptions(0.1, whole_words=True)
        )
        found.add(tuple(target[0].tolist()))
    assert found == {(0,), (2,), (4, 5)}


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=20), min_size=1, max_size=10),
    st.integers(0, 2**63),
    st.sampled_from(sorted(OPTIONS)),
    st.randoms(use_true_random=False),
)
def test_the_other_rows_change_nothing(rows, seed, name, random):
    def masks(some: list[list[int]]) -> list[tuple[list[int], dict[int, int]]]:
        ragged = ragged_of(some)
        return by_row(ragged, *mask_tokens(ragged, seed, small_vocabulary(), OPTIONS[name]))

    together = masks(rows)
    order = random.sample(range(len(rows)), len(rows))
    cut = random.randrange(len(rows) + 1)
    parts = [[rows[n] for n in part] for part in (order[:cut], order[cut:])]
    apart = [mask for part in parts if part for mask in masks(part)]
    assert [together[n] for n in order] == apart


def test_another_seed_gives_other_masks():
    ragged = ragged_of(random_rows(20, 60))
    seen = {
        tuple(mask_tokens(ragged, seed, small_vocabulary(), MaskOptions())[1][0].tolist())
        for seed in range(40)
    }
    assert len(seen) == 40


@pytest.mark.parametrize("rows", [[], [[CLS, SEP]], [[CLS, UNK, SEP], [SEP]], [[]]])
@every_option
def test_without_ordinary_tokens_nothing_is_hidden(rows, options):
    ragged = ragged_of(rows)
    masked, target = mask_tokens(ragged, 0, small_vocabulary(), options)
    assert target.shape == (2, 0) and target.dtype == torch.int64
    assert torch.equal(masked.input_ids, ragged.input_ids)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fraction": 0}, "options.fraction"),
        ({"fraction": 1.5}, "options.fraction"),
        ({"fraction": float("nan")}, "options.fraction"),
        ({"replace_by_mask": 0.95, "replace_by_random": 0.1}, "together at most 1"),
        ({"replace_by_random": -0.1}, "options.replace_by_random"),
        ({"ngrams": (0.0, 0.0)}, "options.ngrams"),
        ({"ngrams": (0.5, -0.1)}, "options.ngrams"),
        ({"ngrams": (float("inf"),)}, "options.ngrams"),
    ],
)
def test_impossible_options(settings, words):
    with pytest.raises(ConfigError, match=words):
        MaskOptions(**settings)


# --- vocabularies -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = make_encoder(tmp_path_factory.mktemp("masking") / "tiny")
    return load_tokenizer(folder, 64, DataConfig())


def test_wordpiece_vocabulary(tokenizer):
    found = MaskVocabulary.from_tokenizer(tokenizer)
    tokens = {number: token for token, number in tokenizer.vocabulary.items()}
    assert tokens[found.mask_id] == "[MASK]"
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    gap = {None}  # two ids of one word leave one without a word
    assert {tokens.get(n) for n in np.flatnonzero(~found.is_ordinary).tolist()} - gap == special
    assert {tokens[n] for n in np.flatnonzero(found.continues_word)} == {"##s", "##er"}


def test_an_asked_mask_token(tokenizer):
    found = MaskVocabulary.from_tokenizer(tokenizer, "z")
    assert found.mask_id == tokenizer.vocabulary["z"] and not found.is_ordinary[found.mask_id]
    with pytest.raises(ConfigError, match=r"options.mask_token: '\[MASQ\]' .*did you mean '\[MASK\]'"):
        MaskVocabulary.from_tokenizer(tokenizer, "[MASQ]")
    with pytest.raises(ConfigError, match="another use"):
        MaskVocabulary.from_tokenizer(tokenizer, "[SEP]")


def test_no_mask_token(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    from bertune.text.tokenizer import Tokenizer as Ours

    rust = Tokenizer(models.WordPiece({"[UNK]": 0, "[unused1]": 1, "a": 2}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    ours = Ours(rust, {}, 8)
    with pytest.raises(ConfigError, match=r"options.mask_token.*such as options.mask_token=.\[unused1\]"):
        MaskVocabulary.from_tokenizer(ours)
    found = MaskVocabulary.from_tokenizer(ours, "[unused1]")
    assert found.mask_id == 1 and found.is_ordinary.tolist() == [False, False, True]


# --- ChineseBERT ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pinyin_tokenizer(tmp_path_factory):
    return load_tokenizer(write_folder(tmp_path_factory.mktemp("chinesebert")), 64, DataConfig(), "pinyin")


def test_pinyin_of_hidden_tokens_is_hidden_too(pinyin_tokenizer):
    vocabulary, readings = MaskVocabulary.from_tokenizer(pinyin_tokenizer), default_pinyin(pinyin_tokenizer)
    encodings = pinyin_tokenizer.encode([("长江的长大了 good dog",), ("银行行不行，成长",), ("天地人",)] * 3)
    ragged = ragged_of_encodings(encodings)
    before = ragged.pinyin_ids.clone()
    options = MaskOptions(0.6, 0.4, 0.4)
    kinds = set()
    for seed in range(20):
        masked, (places, ids) = mask_tokens(ragged, seed, vocabulary, options, readings)
        assert torch.equal(ragged.pinyin_ids, before)
        for place, token in enumerate(masked.input_ids.tolist()):
            syllable, old = int(masked.pinyin_ids[place]), int(ragged.input_ids[place])
            if token == vocabulary.mask_id:
                assert syllable == 0
            elif token == old:  # kept, or replaced by itself with its first reading
                assert syllable in {int(before[place]), int(readings[token])}
            else:
                character = pinyin_tokenizer.convert_ids_to_tokens([token])[0].removeprefix("##")
                alone = pinyin_tokenizer.encode([(character,)])[0]
                assert syllable == (list(alone.pinyin_ids)[1] if len(character) == 1 else 0)
            kinds.add((token == vocabulary.mask_id, token == old, syllable != 0))
        assert set(places.tolist()) >= set(torch.nonzero(masked.pinyin_ids != before).flatten().tolist())
        assert torch.equal(ragged.input_ids[places], ids)
    assert {(True, False, False), (False, True, True), (False, False, True)} <= kinds


def test_special_tokens_have_no_reading_in_the_tokenizer(pinyin_tokenizer):
    """So a token that becomes [MASK] gets what the tokenizer gives a [MASK] in a text: 0."""
    encoding = pinyin_tokenizer.encode([("天[MASK]人",)])[0]
    assert pinyin_tokenizer.vocabulary["[MASK]"] in list(encoding.input_ids)
    assert [bool(syllable) for syllable in encoding.pinyin_ids] == [False, True, False, True, False]


def test_pinyin_needs_its_table(pinyin_tokenizer, tokenizer):
    ragged = ragged_of_encodings(pinyin_tokenizer.encode([("天地人",)]))
    with pytest.raises(ValueError, match="default_pinyin"):
        mask_tokens(ragged, 0, MaskVocabulary.from_tokenizer(pinyin_tokenizer), MaskOptions())
    assert default_pinyin(tokenizer) is None


def ragged_of_encodings(encodings):
    """Encodings as a batch."""
    from bertune.data.dataset import EncodedDataset
    from bertune.types import EncodedExample

    dataset = EncodedDataset([EncodedExample((encoding,)) for encoding in encodings])
    return dataset.gather_texts(range(len(encodings)))


def test_both_ways_to_sort_agree():
    rng = np.random.default_rng(0)
    row = np.sort(rng.integers(0, 20, 500))
    priority, place = rng.integers(0, 4, 500), rng.permutation(500)
    expected = sorted(range(500), key=lambda n: (row[n], priority[n], place[n]))
    assert _sort(row, priority, place).tolist() == expected
    assert _sort(row << 40, priority, place).tolist() == expected  # too large for one number
    assert _sort(row[:0], priority[:0], place[:0]).tolist() == []
