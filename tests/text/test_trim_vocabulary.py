"""A vocabulary that is cut: nothing becomes unknown, and texts whose pieces are kept keep their tokens."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.small_tokenizers import BERT_SPECIAL, SENTENCES, XLM_SPECIAL, unigram, wordpiece
from tokenizers import Tokenizer, models, pre_tokenizers

from bertune.errors import ConfigError
from bertune.text.trim_vocabulary import (
    TrimmedVocabulary,
    Vocabulary,
    check_trimmable,
    special_names,
    trim_settings,
)

KINDS = {"wordpiece": wordpiece, "unigram": unigram}
LETTERS = sorted({*"".join(SENTENCES), *"XŻ é東🀄"})
TEXTS = st.lists(
    st.one_of(st.sampled_from(" ".join(SENTENCES).split()), st.text(LETTERS, min_size=1, max_size=9)),
    max_size=8,
).map(" ".join)


@functools.cache
def made(kind: str) -> Tokenizer:
    return KINDS[kind]()


def content_of(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())


def rebuilt(trimmed: TrimmedVocabulary) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(trimmed.content))


def counts_of(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    ids = [number for text in texts for number in tokenizer.encode(text).ids]
    return np.bincount(np.array(ids, np.int64), minlength=tokenizer.get_vocab_size())


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_nothing_becomes_unknown_and_kept_pieces_stand_where_they_stood(kind, data):
    old = made(kind)
    counts = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=old.get_vocab_size(), max_size=old.get_vocab_size()))
    )
    vocabulary = Vocabulary(content_of(old))
    room = data.draw(st.none() | st.integers(0, 60))
    trimmed = vocabulary.trim(counts, None if room is None else vocabulary.num_required + room)
    new = rebuilt(trimmed)
    assert new.get_vocab_size() == len(trimmed.old_ids) == len(trimmed.tokens())
    assert [new.id_to_token(n) for n in range(new.get_vocab_size())] == trimmed.tokens()
    assert trimmed.tokens() == [old.id_to_token(int(n)) for n in trimmed.old_ids]
    unknown = "[UNK]" if kind == "wordpiece" else "<unk>"
    kept = set(trimmed.old_ids.tolist())
    for text in data.draw(st.lists(TEXTS, min_size=1, max_size=5)):
        before, after = old.encode(text), new.encode(text)
        assert after.tokens.count(unknown) == before.tokens.count(unknown)
        assert "".join(after.tokens).replace("##", "") == "".join(before.tokens).replace("##", "")
        if set(before.ids) <= kept:
            assert after.tokens == before.tokens
            assert trimmed.old_ids[after.ids].tolist() == before.ids
            assert after.offsets == before.offsets


@pytest.mark.parametrize(("kind", "special"), [("wordpiece", BERT_SPECIAL), ("unigram", XLM_SPECIAL)])
def test_special_tokens_keep_their_ids_and_others_their_order(kind, special):
    old = made(kind)
    trimmed = Vocabulary(content_of(old)).trim(counts_of(old, SENTENCES[:1]))
    new = rebuilt(trimmed)
    assert new.get_vocab_size() < old.get_vocab_size()
    for token in special:
        if "unused" in token:
            assert new.token_to_id(token) is None
        elif old.token_to_id(token) < new.get_vocab_size():
            assert new.token_to_id(token) == old.token_to_id(token)
        else:
            assert new.token_to_id(token) == new.get_vocab_size() - 1
    others = [
        n for n, token in zip(trimmed.old_ids.tolist(), trimmed.tokens(), strict=True) if token not in special
    ]
    assert others == sorted(others)
    pair = new.encode("the fox", "the dog")
    assert pair.tokens == old.encode("the fox", "the dog").tokens
    assert pair.type_ids == old.encode("the fox", "the dog").type_ids
    added = {t["content"]: t for t in content_of(old)["added_tokens"]}
    assert {
        t["content"]: {**t, "id": added[t["content"]]["id"]} for t in content_of(new)["added_tokens"]
    } == added


def test_the_most_used_stay_and_of_equals_the_lower_id():
    old = made("unigram")
    vocabulary = Vocabulary(content_of(old))
    required = set(vocabulary.trim(np.zeros(old.get_vocab_size(), np.int64)).old_ids.tolist())
    assert len(required) == vocabulary.num_required
    free = [n for n in range(old.get_vocab_size()) if n not in required]
    counts = np.zeros(old.get_vocab_size(), np.int64)
    counts[free] = 5
    counts[free[-1]], counts[free[0]] = 9, 1
    trimmed = vocabulary.trim(counts, vocabulary.num_required + 3)
    assert set(trimmed.old_ids.tolist()) - required == {free[-1], free[1], free[2]}
    assert (trimmed.num_used, trimmed.num_dropped_used) == (3, len(free) - 3)
    wanted = vocabulary.trim(counts, vocabulary.num_required + 1, wanted=[free[0]])
    assert set(wanted.old_ids.tolist()) - required == {free[0]}
    assert len(vocabulary.trim(counts, 10**6).old_ids) == old.get_vocab_size()
    counts[free[:-2]] = 0
    filled = vocabulary.trim(counts, vocabulary.num_required + 4)
    assert set(filled.old_ids.tolist()) - required == {free[-1], free[-2], free[0], free[1]}
    assert (filled.num_used, filled.num_filled, filled.num_dropped_used) == (2, 2, 0)
    with pytest.raises(
        ConfigError, match=rf"keep: 3 is less than the {vocabulary.num_required} tokens that must"
    ):
        vocabulary.trim(counts, 3)


def test_tokens_beside_the_model_come_last_and_keep_their_meaning():
    old = wordpiece()
    old.add_tokens(["<url>", "[CLS2]"])
    trimmed = Vocabulary(content_of(old)).trim(counts_of(old, ["the dog"]))
    new = rebuilt(trimmed)
    assert trimmed.tokens()[-2:] == ["<url>", "[CLS2]"]
    assert new.encode("the <url> dog").tokens == old.encode("the <url> dog").tokens
    assert trimmed.old_ids[new.encode("the <url> dog").ids].tolist() == old.encode("the <url> dog").ids


def test_pieces_that_single_characters_cannot_spell_stay():
    """Such vocabularies are written by hand: here nothing but "##s" continues a word."""
    vocab = {
        token: n for n, token in enumerate(["[UNK]", "d", "o", "g", "s", "dog", "##s", "gs", "##ogs", "s##"])
    }
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trimmed = Vocabulary(content_of(tokenizer)).trim(np.zeros(len(vocab), np.int64))
    assert trimmed.tokens() == ["[UNK]", "d", "o", "g", "s", "dog", "##s", "##ogs", "s##"]  # "gs" is g, ##s


def test_chinese_characters_inside_words_go_only_where_no_word_has_them():
    old = made("wordpiece")
    content = content_of(old)
    content["model"]["vocab"]["##中"] = len(content["model"]["vocab"])
    counts = np.zeros(len(content["model"]["vocab"]), np.int64)
    for keep in (None, 10**6):
        assert "##中" not in Vocabulary(content).trim(counts, keep).tokens()
    assert "[unused1]" not in Vocabulary(content).trim(counts, 10**6).tokens()
    content["normalizer"]["handle_chinese_chars"] = False
    assert "##中" in Vocabulary(content).trim(counts).tokens()


def test_bytes_stay_where_unknown_characters_become_bytes():
    vocab = [
        ("<unk>", 0.0),
        *((f"<0x{n:02X}>", -9.0) for n in range(256)),
        ("a", -1.0),
        ("ab", -1.5),
        ("b", -2.0),
    ]
    content = content_of(Tokenizer(models.Unigram(vocab, 0, byte_fallback=True)))
    trimmed = Vocabulary(content).trim(np.zeros(len(vocab), np.int64))
    assert len(trimmed.old_ids) == len(vocab) - 1
    assert rebuilt(trimmed).encode("abé").tokens == ["a", "b", "<0xC3>", "<0xA9>"]


def test_bytes_pair_encodings_and_whole_words_are_refused_with_the_reason():
    bpe = content_of(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])))
    with pytest.raises(ConfigError, match=r"'x' is BPE: its pieces are made by merges"):
        check_trimmable(bpe, "x")
    words = content_of(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ConfigError, match=r"'x' is WordLevel: .*each that goes becomes unknown"):
        check_trimmable(words, "x")


def test_settings_of_the_tokenizer_name_special_tokens_under_new_ids():
    settings = {
        "cls_token": "<s>",
        "mask_token": {"content": "<mask>", "lstrip": True},
        "pad_token": None,
        "additional_special_tokens": ["<a>", {"content": "<b>"}],
        "added_tokens_decoder": {"7": {"content": "<c>"}, "9": {"content": "<d>"}},
        "do_lower_case": True,
    }
    assert special_names(settings) == {"<s>", "<mask>", "<a>", "<b>", "<c>", "<d>"}
    assert trim_settings(settings, {7: 2, 9: 3})["added_tokens_decoder"] == {
        "2": {"content": "<c>"},
        "3": {"content": "<d>"},
    }
    assert trim_settings({"a": 1}, {}) == {"a": 1}
