"""Words to tokens: ids are those of transformers, a word is at its first token, long texts keep all words."""

from __future__ import annotations

import json
import shutil
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import VOCABULARY

from bertune.config.schema import DataConfig
from bertune.text.load import load_tokenizer
from bertune.text.tokenizer import Tokenizer

KNOWN = [
    "dog",
    "dogs",
    "The",
    "GOOD",
    "greater",
    "天",
    "天好",
    "dog!",
    "a",
    "x",
    "...",
    "é",
    "big-small",
    "[SEP]",
    "7",
]
BLANK = ["", " ", "\t", "\u200b", "\u3000", "\u0000"]
CLS, SEP = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")


def laid_out(words, between=" "):
    """A text and where its words are in it."""
    places, text = [], ""
    for word in words:
        text += between if text else ""
        places.append((len(text), len(text) + len(word)))
        text += word
    return text, tuple(places)


def encoded(tokenizer, words, overlap=4):
    ((piece, present),) = tokenizer.encode_words([laid_out(words)], overlap)
    return piece, present


def spelt(tokenizer, word):
    """The pieces of one word."""
    piece, _ = encoded(tokenizer, [word])
    return tokenizer.convert_ids_to_tokens(piece.input_ids)[1:-1]


@pytest.fixture(scope="module")
def ours(tiny):
    return load_tokenizer(tiny, 64, DataConfig())


@pytest.fixture(scope="module")
def theirs(tiny):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny))


@pytest.fixture(scope="module")
def cased(tiny, tmp_path_factory):
    folder = shutil.copytree(tiny, tmp_path_factory.mktemp("cased") / "e")
    file = folder / "tokenizer_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), "do_lower_case": False}), encoding="utf-8"
    )
    return load_tokenizer(folder, 64, DataConfig())


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(KNOWN + BLANK), max_size=15))
def test_ids_are_those_of_transformers(ours, theirs, words):
    piece, present = encoded(ours, words)
    expected = theirs(words, is_split_into_words=True)
    assert list(piece.input_ids) == expected["input_ids"]
    assert list(piece.token_type_ids) == expected["token_type_ids"]
    assert ours.unk_token_id not in piece.input_ids
    of_token = expected.word_ids()
    first = {word: place for place, word in reversed(list(enumerate(of_token))) if word is not None}
    assert present == sorted(first)
    assert list(piece.word_positions) == [first[word] for word in present]
    assert list(piece.window_lengths) == [len(piece.input_ids)]
    assert piece.num_truncated == 0


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4))
def test_any_letters(ours, theirs, words):
    """What transformers knows is read as there; the rest gets fewer unknown pieces, or the same ones."""
    piece, present = encoded(ours, words)
    begins = dict(zip(present, piece.word_positions, strict=True))
    for n, word in enumerate(words):
        expected = theirs([word], is_split_into_words=True)["input_ids"][1:-1]
        assert (n in begins) == bool(expected)
        if expected and (
            ours.unk_token_id not in expected
            or ours.unk_token_id in piece.input_ids[begins[n] : begins[n] + len(expected)]
        ):
            assert list(piece.input_ids[begins[n] : begins[n] + len(expected)]) == expected


def test_blank_words_have_no_tokens(ours):
    piece, present = encoded(ours, ["", "dog", " ", "\u200b", "good", "\t"])
    assert ours.convert_ids_to_tokens(piece.input_ids) == ["[CLS]", "dog", "good", "[SEP]"]
    assert (present, list(piece.word_positions)) == ([1, 4], [1, 2])
    for nothing in ([], [" ", ""]):
        piece, present = encoded(ours, nothing)
        assert (list(piece.input_ids), present, list(piece.word_positions), list(piece.window_lengths)) == (
            [CLS, SEP],
            [],
            [],
            [2],
        )


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("DOG", ["dog"]),
        ("DOGS", ["dog", "##s"]),
        ("ＤＯＧ", ["dog"]),
        ("ｄｏｇ", ["dog"]),
        ("７", ["7"]),
        ("“dog”", ['"', "dog", '"']),
        ("‘", ["'"]),
        ("—", ["-"]),
        ("…", [".", ".", "."]),
        ("「", ['"']),
        ("。", ["。"]),
        ("龘", ["[UNK]"]),
        ("dog龘", ["dog", "[UNK]"]),
        ("dogdog", ["[UNK]"]),
    ],
)
@pytest.mark.parametrize("which", ["ours", "cased"])
def test_forms_of_a_word(which, word, pieces, request):
    tokenizer = request.getfixturevalue(which)
    assert spelt(tokenizer, word) == pieces
    assert spelt(tokenizer, word) == pieces  # once learnt, the same


def test_a_cased_vocabulary_keeps_what_it_knows(cased, tiny, tmp_path):
    assert spelt(cased, "The") == ["the"]  # unknown as it is written
    assert cased.unk_token_id in cased.encode([("DOG",)])[0].input_ids
    file = shutil.copytree(tiny, tmp_path / "e") / "tokenizer.json"
    rust = json.loads(file.read_text(encoding="utf-8"))
    rust["model"]["vocab"]["DOG"] = rust["model"]["vocab"].pop("tree")
    file.write_text(json.dumps(rust), encoding="utf-8")
    settings_file = file.with_name("tokenizer_config.json")
    settings_file.write_text(json.dumps({**json.loads(settings_file.read_text()), "do_lower_case": False}))
    assert spelt(load_tokenizer(file.parent, 64, DataConfig()), "DOG") == ["DOG"]


@pytest.mark.parametrize("overlap", [0, 1, 5, 1000])
def test_a_word_longer_than_a_window_is_cut(tiny, overlap):
    tokenizer = load_tokenizer(tiny, 64, DataConfig(max_length=10))
    piece, present = encoded(tokenizer, ["a", "!" * 11, "dog", "?" * 8, "-" * 30], overlap)
    assert piece.num_truncated == 3 + 22
    assert present == [0, 1, 2, 3, 4]
    assert [tokenizer.convert_ids_to_tokens(piece.input_ids)[at] for at in piece.word_positions] == [
        "a",
        "!",
        "dog",
        "?",
        "-",
    ]
    assert max(piece.window_lengths) == 10
    assert sum(piece.window_lengths) == len(piece.input_ids)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([*KNOWN, *BLANK[:2], "!" * 5, "龘", "?" * 40]), max_size=60),
    st.integers(4, 20),
    st.integers(0, 30),
)
def test_long_texts_lose_no_word(tiny, ours, words, length, overlap):
    tokenizer = load_at(tiny, length)
    piece, present = encoded(tokenizer, words, overlap)
    shown = [encoded(ours, [word])[0].input_ids[1:-1] for word in words]
    assert present == [n for n, ids in enumerate(shown) if ids]
    assert piece.num_truncated == sum(max(0, len(ids) - (length - 2)) for ids in shown)
    assert sum(piece.window_lengths) == len(piece.input_ids) == len(piece.token_type_ids)
    assert max(piece.window_lengths) <= length
    assert (len(piece.window_lengths) == 1) == (sum(min(len(ids), length - 2) for ids in shown) <= length - 2)
    edges = []
    for tokens in piece.window_lengths:
        edges.append((edges[-1][1] if edges else 0, (edges[-1][1] if edges else 0) + tokens))
        assert (piece.input_ids[edges[-1][0]], piece.input_ids[edges[-1][1] - 1]) == (CLS, SEP)
    assert list(piece.word_positions) == sorted(set(piece.word_positions))
    for n, at in zip(present, piece.word_positions, strict=True):
        own = shown[n][: length - 2]
        assert list(piece.input_ids[at : at + len(own)]) == list(own)
        assert any(start < at and at + len(own) < stop for start, stop in edges)  # all of it in one window


@cache
def load_at(folder, length):
    return load_tokenizer(folder, 64, DataConfig(max_length=length))


def test_texts_do_not_depend_on_each_other(tiny):
    texts = [laid_out(words) for words in (["dog", "DOG"], [], ["龘", "good"], ["dog"] * 100)]
    together = load_tokenizer(tiny, 64, DataConfig()).encode_words(texts, 8)
    assert together == [load_tokenizer(tiny, 64, DataConfig()).encode_words([text], 8)[0] for text in texts]
    again = load_tokenizer(tiny, 64, DataConfig())
    assert [again.encode_words([text], 8)[0] for text in texts[::-1]] == together[::-1]


def test_memory_of_words_is_bounded(tiny, monkeypatch):
    monkeypatch.setattr("bertune.text.tokenizer.MAX_CACHED_WORDS", 3)
    tokenizer = load_tokenizer(tiny, 64, DataConfig())
    for word in "abcdefgh":
        assert spelt(tokenizer, word) == [word]
        assert len(tokenizer._word_ids) <= 4


@pytest.fixture(scope="module")
def bytes_of():
    """A byte-level vocabulary like RoBERTa's, in which a blank is part of the token after it."""
    from tokenizers import Tokenizer as Rust
    from tokenizers import decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("d", "o"), ("do", "g"), ("Ġ", "dog"), ("Ġ", "a")]
    vocabulary = ["<s>", "</s>", *letters, *(a + b for a, b in merges)]
    rust = Rust(models.BPE({token: n for n, token in enumerate(vocabulary)}, merges))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.post_processor = processors.RobertaProcessing(
        ("</s>", 1), ("<s>", 0), trim_offsets=False, add_prefix_space=False
    )
    return Tokenizer(rust, {}, 32)


def test_a_byte_level_vocabulary_gets_the_blank_before_a_word(bytes_of):
    text = "dog dog,dog a天"
    words = ((0, 3), (4, 7), (7, 8), (8, 11), (12, 13), (13, 14))
    ((piece, present),) = bytes_of.encode_words([(text, words)], 8)
    assert bytes_of.convert_ids_to_tokens(piece.input_ids) == [
        "<s>",
        "dog",
        "Ġdog",
        ",",
        "dog",
        "Ġa",
        *bytes_of.convert_ids_to_tokens(piece.input_ids)[6:9],
        "</s>",
    ]
    assert list(piece.input_ids) == list(bytes_of.encode([(text,)])[0].input_ids)
    assert (present, list(piece.word_positions)) == ([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6])
    assert bytes_of.unk_token_id is None


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["dog", "a", "天", "go", "é", "Dog"]), min_size=1, max_size=8))
def test_byte_level_words_between_blanks_are_the_whole_text(bytes_of, words):
    text, places = laid_out(words)
    ((piece, present),) = bytes_of.encode_words([(text, places)], 8)
    assert present == list(range(len(words)))
    if len(piece.window_lengths) == 1:
        assert list(piece.input_ids) == list(bytes_of.encode([(text,)])[0].input_ids)
    assert bytes_of.convert_ids_to_tokens([piece.input_ids[piece.word_positions[0]]])[0][0] != "Ġ"
    assert all(
        bytes_of.convert_ids_to_tokens([piece.input_ids[at]])[0][0] == "Ġ" for at in piece.word_positions[1:]
    )
