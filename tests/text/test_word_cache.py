"""Ids from the ids of words are those of the Rust tokenizer, whatever the text."""

from __future__ import annotations

import json
import os
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Rust

from bertune.config.schema import DataConfig
from bertune.text import word_cache
from bertune.text.load import load_tokenizer
from bertune.text.tokenizer import Tokenizer
from bertune.text.word_cache import WHITESPACE, WordCache, supports_word_cache

ODD = [
    *WHITESPACE, "\x00", "�", "\u200b", "\u180e", "\ufeff", "[SEP]", "[CLS]", "[MASK]", "x[SEP]y",
    "[sep]", "a" * 101, "a" * 100, "好", "好吗", "é", "e\u0301",
    "\u0301", "İ", "ß", "ﬁ", "Σς", "한국어", "ｆｕｌｌ", "🙂", "\u0e33", "##s", "dogs", "Dogs'", "big_dog",
    "x-y", "goodest", "<x>", "good", "bad.", "the", "a", " ", " ", " ", "\U000e0001", "\ue000",
    "\u1e9b\u0323",
]  # fmt: skip
TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(ODD), max_size=30).map("".join),
    st.lists(st.text(max_size=8), max_size=20).map(" ".join),
)


def same(tokenizer: Tokenizer, texts: list[tuple[str, ...]]) -> int:
    """Compare with the Rust tokenizer; return how many texts it was not asked for."""
    expected = tokenizer._encode(texts)
    found = tokenizer._word_cache.encode(texts)
    sure = [(f, e, t) for f, e, t in zip(found, expected, texts, strict=True) if f is not None]
    plain = tokenizer._word_cache._ascii
    for word in (
        {word for text in texts for part in text for word in part.split() if word.isascii()} if plain else ()
    ):
        ids = plain(word)
        assert ids is None or ids == tokenizer._rust.encode(word, add_special_tokens=False).ids, word
    for piece, right, text in sure:
        assert (piece.input_ids, piece.token_type_ids, piece.num_truncated) == (
            right.input_ids,
            right.token_type_ids,
            right.num_truncated,
        ), text
    return len(sure)


@pytest.fixture(scope="module", params=["plain", "lower", "accents", "no Chinese", "left", "short", "added"])
def tokenizer(request, tiny):
    data = DataConfig(max_length=9 if request.param == "short" else 16)
    loaded = load_tokenizer(tiny, 64, data)
    made = json.loads(loaded.fingerprint())
    settings = dict(loaded._settings)
    if request.param == "lower":
        made["normalizer"]["lowercase"] = False
    if request.param == "accents":
        made["normalizer"]["strip_accents"] = False
    if request.param == "no Chinese":
        made["normalizer"]["handle_chinese_chars"] = False
    if request.param == "left":
        settings["truncation_side"] = "left"
    rust = Rust.from_str(json.dumps(made))
    if request.param == "added":
        rust.add_tokens(
            [
                AddedToken("good", single_word=True),
                AddedToken("dog", normalized=True),
                AddedToken("<x>", lstrip=True, rstrip=True),
            ]
        )
    found = Tokenizer(rust, settings, data.max_length)
    assert found._word_cache is not None
    return found


@given(st.lists(st.tuples(TEXT), max_size=5), st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_any_text_gives_what_rust_gives(tokenizer, singles, pairs):
    same(tokenizer, [*singles, *pairs] * 4)


@pytest.mark.parametrize("blank", WHITESPACE, ids=ascii)
def test_every_blank_of_python(tokenizer, blank):
    text = f"good{blank}bad the{blank}{blank}dog{blank}"
    assert same(tokenizer, [(text,), (text, text)] * 9) in (
        {0} if blank in "\x0b\x0c\x1c\x1d\x1e\x1f\x85" else {9, 18}
    )


def test_plain_texts_are_not_given_to_rust(tokenizer):
    texts = [(f"The dog, the cat and {n} good books! (not bad)",) for n in range(3000)]
    assert same(tokenizer, texts) == 3000
    assert same(tokenizer, [("good dog", "a cat")] * 40) == 40
    assert any(piece.num_truncated for piece in tokenizer._word_cache.encode(texts))


def test_few_blanks_and_long_pairs_are_given_to_rust(tokenizer):
    assert tokenizer._word_cache.encode([("好" * 60,)]) == [None]
    assert tokenizer._word_cache.encode([("good " * 40, "bad " * 40)]) == [None]
    texts = [("好" * 60,), ("good dog",), ("good " * 40, "bad " * 40), ("",)] * 10
    assert [
        (list(p.input_ids), list(p.token_type_ids), p.num_truncated) for p in tokenizer.encode(texts)
    ] == [(list(p.input_ids), list(p.token_type_ids), p.num_truncated) for p in tokenizer._encode(texts)]


def test_words_are_forgotten_when_there_are_too_many(tokenizer, monkeypatch):
    monkeypatch.setattr(word_cache, "MAX_CACHED_WORDS", 50)
    tokenizer._word_cache._clear()
    for round in range(4):
        assert (
            same(
                tokenizer,
                [
                    (f"dog {n} {n}a {n * round}b the dog is good and the cat is bad",)
                    for n in range(200 if round == 2 else 20)
                ],
            )
            > 0
        )
    monkeypatch.undo()
    tokenizer._word_cache._clear()


def test_words_that_never_come_again_are_not_learnt(tokenizer):
    tokenizer._word_cache._clear()
    texts = [(f"word{n} x{n}y the dog",) for n in range(500)]
    assert same(tokenizer, texts) == 0
    assert set(tokenizer._word_cache._table.word_index) == {"the", "dog"}
    assert same(tokenizer, [("the dog",)] * 3) == 3


def test_tokens_behave_as_a_list(tokenizer):
    piece = tokenizer._word_cache.encode([("good dog",)] * 9)[0]
    ids = tokenizer._encode([("good dog",)])[0].input_ids
    assert piece.input_ids == ids
    assert ids == piece.input_ids
    assert piece.input_ids != ids[:-1]
    assert (
        list(piece.input_ids),
        piece.input_ids[1:],
        piece.input_ids[0],
        repr(piece.input_ids),
        len(piece.input_ids),
    ) == (
        ids,
        ids[1:],
        ids[0],
        repr(ids),
        len(ids),
    )
    assert type(piece.input_ids[0]) is int


def test_other_tokenizers_have_no_such_cache(tokenizer):
    made = json.loads(tokenizer.fingerprint())
    assert supports_word_cache(made)
    for part, value in (
        ("normalizer", None), ("normalizer", {"type": "Sequence", "normalizers": []}), ("pre_tokenizer",
        {"type": "Whitespace"}), ("post_processor", None),
        ("model", {"type": "BPE"}), ("normalizer", {**made["normalizer"], "clean_text": False}),
        ("added_tokens", [{"content": "New York"}]),
        ("added_tokens", [{"content": "好"}]),
    ):  # fmt: skip
        assert not supports_word_cache({**made, part: value}), (part, value)


def test_threads_and_processes(tokenizer, monkeypatch):
    monkeypatch.setattr(word_cache, "MAX_CACHED_WORDS", 300)
    tokenizer._word_cache._clear()
    texts = [(f"dog {n % 500} {n % 500}a the dog is good and the cat",) for n in range(2000)]
    right = [p.input_ids for p in tokenizer._encode(texts)]
    found: list[bool] = []
    work = [
        threading.Thread(target=lambda: found.append([p.input_ids for p in tokenizer.encode(texts)] == right))
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert found == [True] * 4
    again = pickle.loads(pickle.dumps(tokenizer._word_cache))
    assert [p.input_ids for p in again.encode(texts)] == right


@pytest.mark.real
def test_real_texts(tiny):
    import csv
    from pathlib import Path

    root = Path(os.environ["BERTUNE_DATA"])
    files = [
        p
        for p in sorted(root.rglob("*"))
        if p.suffix in {".csv", ".tsv", ".txt", ".json", ".jsonl"} and p.stat().st_size < 40e6
    ]
    assert files
    csv.field_size_limit(1 << 30)
    from bertune.encoders.pretrained import locate_model

    models = [tiny, locate_model("minilm")]
    for model in models:
        tokenizer = load_tokenizer(model, 128, DataConfig())
        asked = total = 0
        for file in files:
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")[:3000]
            texts = [(line,) for line in lines] + list(zip(lines[::7], lines[1::7], strict=False))
            asked += same(tokenizer, texts)
            total += len(texts)
        print(model.name, f"{asked} of {total} texts without Rust")


def test_wordcache_of_knows_bert(tiny):
    assert isinstance(WordCache.from_tokenizer(load_tokenizer(tiny, 64, DataConfig())._rust, 64), WordCache)
