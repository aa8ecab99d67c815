"""Tokenizers trained on texts: WordPiece and Unigram."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import ENGLISH

from bertune.config.new_encoder import SPECIAL_TOKENS, NewEncoder
from bertune.errors import DataError
from bertune.text.train_tokenizer import tokenizer_settings, train_tokenizer
from bertune.text.unigram import _Lattice, learn_pieces

KINDS = ("wordpiece", "unigram")
TEXTS = [
    "The dog was in the green house, and the cat was not.",
    "A big dog barked at two small cats in the house!",
    "北京是中国的首都。",
    "中国的首都是北京，上海不是首都。",
    "Houses, dogs and cats: 3 houses, 20 dogs.",
    *ENGLISH.split(),
]


def trained(kind: str, texts=TEXTS, **options):
    notes: list[str] = []
    return train_tokenizer(iter(texts), NewEncoder(tokenizer=kind, **options), notes.append), notes


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_come_first_and_stand_around_texts(kind):
    tokenizer, _ = trained(kind, vocab_size=150)
    assert [tokenizer.id_to_token(i) for i in range(5)] == list(SPECIAL_TOKENS)
    one, pair = tokenizer.encode("the dog"), tokenizer.encode("the dog", "the cat")
    assert (one.tokens[0], one.tokens[-1]) == ("[CLS]", "[SEP]")
    assert pair.tokens.count("[SEP]") == 2
    assert pair.type_ids == sorted(pair.type_ids) and set(pair.type_ids) == {0, 1}
    assert tokenizer.token_to_id("[MASK]") in tokenizer.encode("the [MASK] dog").ids


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(texts=st.lists(st.text(alphabet="abcé 中国北。,!\n", min_size=1), min_size=1, max_size=8))
def test_texts_that_it_was_trained_on_have_no_unknown_token(kind, texts):
    texts = [*texts, "a letter"]
    tokenizer, _ = trained(kind, texts, vocab_size=200)
    assert tokenizer.get_vocab_size() <= 200
    for text in texts:
        assert tokenizer.token_to_id("[UNK]") not in tokenizer.encode(text).ids


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(text=st.text(alphabet="abcdehogsu中国的首都是北京", min_size=1))
def test_pieces_of_a_word_are_the_word(kind, text):
    tokenizer, _ = trained(kind, vocab_size=300, min_frequency=1)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if tokenizer.token_to_id("[UNK]") not in encoding.ids:
        tokens = encoding.tokens
        assert "".join(token.removeprefix("##").replace("▁", "") for token in tokens) == text


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_bytes_in_any_order_and_process(kind):
    """The hash tables of Rust and of Python are seeded anew in each process."""
    program = (
        "import sys, json, hashlib\n"
        "from bertune.config.new_encoder import NewEncoder\n"
        "from bertune.text.train_tokenizer import train_tokenizer\n"
        "texts = json.load(sys.stdin)\n"
        f"options = NewEncoder(tokenizer={kind!r}, vocab_size=180)\n"
        "print(hashlib.sha256(train_tokenizer(texts, options, print).to_str().encode()).hexdigest())\n"
    )
    found = set()
    for number, threads in enumerate("114"):
        texts = [*TEXTS[number:], *TEXTS[:number]] * 3
        done = subprocess.run(
            [sys.executable, "-c", program], input=json.dumps(texts), capture_output=True, text=True, check=True,
            env={**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true",
                 "PYTHONHASHSEED": str(number)},
        )  # fmt: skip
        found.add(done.stdout.splitlines()[-1])
    assert len(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_texts_give_fewer_pieces_and_that_is_said(kind):
    tokenizer, notes = trained(kind, ["a dog"], vocab_size=8000)
    assert tokenizer.get_vocab_size() < 30
    assert "fewer than options.new.vocab_size=8000" in notes[0]
    _, notes = trained(kind, TEXTS * 5, vocab_size=80)
    assert "fewer" not in notes[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], ["  ", "\n"], ["...", "!? 。"], ["😀"]])
def test_texts_without_letters_are_refused(kind, texts):
    with pytest.raises(DataError, match=r"neither a letter nor a digit.*data\.train"):
        trained(kind, texts)


@pytest.mark.parametrize("kind", KINDS)
def test_rare_characters_are_left_out_where_they_would_fill_the_vocabulary(kind):
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 60)))
    texts = ["the dog was in the green house"] * 20_000 + [rare]
    tokenizer, notes = trained(kind, texts, vocab_size=64)
    assert tokenizer.get_vocab_size() <= 64
    assert any("rare characters are not in the vocabulary" in note for note in notes)
    unknown = tokenizer.token_to_id("[UNK]")
    assert unknown not in tokenizer.encode("the dog").ids
    assert unknown in tokenizer.encode(rare).ids


def test_letters_and_accents_of_wordpiece_are_as_options_say():
    lower, _ = trained("wordpiece", ["Café CAFÉ café"] * 3, vocab_size=64)
    cased, _ = trained("wordpiece", ["Café CAFÉ café"] * 3, vocab_size=64, lowercase=False)
    assert lower.encode("CAFÉ").tokens == ["[CLS]", "cafe", "[SEP]"]
    assert cased.encode("CAFÉ").tokens == ["[CLS]", "CAFÉ", "[SEP]"]


def test_unigram_normalizes_by_nfkc_and_knows_blanks_behind_a_mask():
    tokenizer, _ = trained("unigram", ["abc ABC"] * 5, vocab_size=64)
    assert tokenizer.encode("ＡＢＣ").tokens == tokenizer.encode("  abc ").tokens
    tight, wide = tokenizer.encode("[MASK]abc").tokens, tokenizer.encode("[MASK] abc").tokens
    assert (tight[2][0], wide[2][0]) == ("a", "▁")


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_it_with_the_same_ids(kind, tmp_path):
    from transformers import AutoTokenizer

    tokenizer, _ = trained(kind, vocab_size=250)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    options = NewEncoder(tokenizer=kind)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings(options)), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.pad_token_id, theirs.unk_token_id, theirs.mask_token_id) == (0, 1, 4)
    for text in (*TEXTS, "Ａ ﬁ \t x", "café 😀 [MASK] 是[MASK]国"):
        assert theirs(text).input_ids == tokenizer.encode(text).ids
    assert theirs("the", "dog").token_type_ids == tokenizer.encode("the", "dog").type_ids


ways = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


def divisions(word: str, pieces: set[str]):
    """All ways to divide a word."""
    if not word:
        yield ()
    for end in range(1, len(word) + 1):
        if word[:end] in pieces:
            for rest in divisions(word[end:], pieces):
                yield (word[:end], *rest)


@settings(max_examples=40)
@given(more=ways, words=ways, seed=st.integers(0, 99))
def test_expected_pieces_and_best_ways_are_those_of_all_ways(more, words, seed):
    pieces = list(dict.fromkeys(["a", "b", *more]))
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(len(pieces))))
    by_piece = dict(zip(pieces, scores.tolist(), strict=True))
    weights = np.arange(1.0, len(words) + 1)
    expected, best = Counter(), []
    for word, weight in zip(words, weights, strict=True):
        found = list(divisions(word, set(pieces)))
        chances = [math.exp(sum(by_piece[p] for p in way)) for way in found]
        best.append(max(sum(by_piece[p] for p in way) for way in found))
        for way, chance in zip(found, chances, strict=True):
            for piece in way:
                expected[piece] += weight * chance / sum(chances)
    lattice = _Lattice.build(words, pieces)
    found = lattice.expect(scores, weights, len(pieces))
    np.testing.assert_allclose(found, [expected[p] for p in pieces], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(lattice.best(scores), best, rtol=1e-12)


def test_unigram_keeps_the_pieces_that_explain_most():
    counts = {"thedog": 50, "thecat": 50, "dog": 30, "cat": 30, "the": 40, "xy": 1}
    seeds = ["the", "dog", "cat", "thed", "eca", "xy", "he"]
    kept = [piece for piece, _ in learn_pieces(counts, sorted(set("thedogcatxy")), seeds, 13)]
    assert {"the", "dog", "cat"} <= set(kept)
    assert len(kept) == 13 and set("thedogcatxy") <= set(kept)
