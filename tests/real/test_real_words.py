"""Words of real Chinese lines by rjieba and jieba: each is one unit wherever tokens allow it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bertune.config.schema import DataConfig
from bertune.tasks.base.masking import MaskOptions, MaskVocabulary, mask_tokens
from bertune.text.load import load_tokenizer
from bertune.text.segment import load_segmenter, word_starts
from bertune.types import Ragged

pytestmark = pytest.mark.real
DATA = Path(os.environ.get("BERTUNE_DATA", "/nowhere")) / "raw-zh"
ENCODERS = [folder for folder in os.environ.get("BERTUNE_ENCODERS", "").split(":") if folder]
"""Folders of encoders with Chinese vocabularies: a WordPiece one, such as m3e-small, and e5-small."""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    files = sorted(DATA.glob("*.txt"))
    if not files:
        pytest.skip("BERTUNE_DATA has no raw-zh")
    return [
        line for file in files for line in file.read_text(encoding="utf-8").split("\n")[:2000] if line.strip()
    ]


@pytest.fixture(scope="module", params=ENCODERS or [""])
def tokenizer(request):
    if not request.param:
        pytest.skip("BERTUNE_ENCODERS names no folder")
    return load_tokenizer(Path(request.param), 512, DataConfig())


def test_every_word_is_one_unit_where_tokens_allow_it(tokenizer, lines):
    segmenter = load_segmenter()
    kept = joined = 0
    for text, starts, (_, spans) in zip(
        lines, word_starts(lines, tokenizer, segmenter), tokenizer.token_spans(lines), strict=True
    ):
        begins = {spans[n][0] for n in np.flatnonzero(starts)}
        inside = {at for start, stop in spans for at in range(start + 1, stop)}
        at = 0
        for word in segmenter.cut(text):
            han = [n for n in range(at, at + len(word)) if "\u4e00" <= text[n] <= "\u9fff"]
            if len(han) == len(word):
                assert not begins & set(range(at + 1, at + len(word)))  # never cut
                kept, joined = kept + (at not in inside), joined + (at in inside)
            at += len(word)
    assert kept > 10 * joined


def test_rjieba_and_jieba_agree(lines):
    pytest.importorskip("jieba")
    fast, slow = load_segmenter("rjieba"), load_segmenter("jieba")
    some = lines[::20]
    assert np.mean([fast.cut(line) == slow.cut(line) for line in some]) > 0.98


def test_the_share_of_hidden_tokens_in_real_rows(tokenizer, lines):
    import torch

    vocabulary = MaskVocabulary.from_tokenizer(tokenizer)
    spans = tokenizer.token_spans(lines)
    ids = torch.tensor([number for numbers, _ in spans for number in numbers])
    starts = torch.from_numpy(np.flatnonzero(np.concatenate(word_starts(lines, tokenizer))))
    for length, tolerance in ((32, 0.02), (128, 0.005), (512, 0.002)):
        count = len(ids) // length
        used = ids[: count * length]
        ragged = Ragged(
            used,
            torch.zeros_like(used),
            torch.arange(count + 1) * length,
            (length,) * count,
            starts[starts < len(used)],
        )
        for ngrams in ((), (0.4, 0.3, 0.2, 0.1)):
            options = MaskOptions(whole_words=True, ngrams=ngrams)
            _, target = mask_tokens(ragged, 0, vocabulary, options)
            share = target.shape[1] / vocabulary.is_ordinary[used.numpy()].sum()
            assert share == pytest.approx(0.15, abs=tolerance), (length, ngrams)


def test_english_words_are_those_of_the_tokenizers_library():
    """The pieces of a word in real English lines, as the Rust tokenizer itself counts words."""
    path = DATA.parent / "raw-en" / "sentence-collector.en.txt"
    if not path.exists():
        pytest.skip("BERTUNE_DATA has no raw-en")
    from bertune.encoders.pretrained import locate_model

    tokenizer = load_tokenizer(locate_model("minilm"), 512, DataConfig())
    lines = path.read_text(encoding="utf-8").split("\n")[:5000]
    pieces = 0
    for result in tokenizer._rust.encode_batch(lines, add_special_tokens=False):
        ids = np.array(result.ids, np.int64)
        begins = np.diff(np.array(result.word_ids, np.int64)) != 0
        assert np.array_equal(tokenizer.word_borders.between(ids), begins)
        pieces += np.count_nonzero(~begins)
    assert pieces > 1000
