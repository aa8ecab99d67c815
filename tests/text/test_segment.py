"""Words of Chinese texts: the tokens that begin them, against the segmenter's own words."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_encoder
from tokenizers import Tokenizer as Rust
from tokenizers import models, pre_tokenizers

from bertune.config.schema import DataConfig
from bertune.errors import ConfigError, MissingExtra
from bertune.text.load import load_tokenizer
from bertune.text.python_tokenizer import PythonTokenizer
from bertune.text.segment import Segmenter, load_segmenter, word_starts
from bertune.text.tokenizer import Tokenizer
from bertune.text.workers import parallel_tokenizer

PACKAGES = ("rjieba", "jieba")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_encoder(tmp_path_factory.mktemp("segment") / "tiny"), 64, DataConfig())


def by_bars(text: str) -> list[str]:
    """A segmenter for tests, which is told where words end."""
    return text.split("|")


def starts_of(tokenizer, bars: str) -> list[str]:
    """The tokens of a text, those of a word joined."""
    text = bars.replace("|", "")
    segmenter = Segmenter("bars", lambda _: by_bars(bars))
    (starts,) = word_starts([text], tokenizer, segmenter)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.token_spans([text])[0][0])
    assert len(tokens) == len(starts) and (not len(starts) or starts[0])
    words: list[list[str]] = []
    for token, start in zip(tokens, starts, strict=True):
        if start:
            words.append([])
        words[-1].append(token)
    return [" ".join(word) for word in words]


@pytest.mark.parametrize(
    ("bars", "words"),
    [
        ("天地|人|大小|。", ["天 地", "人", "大 小", "。"]),
        ("天|dogs| |cats|地", ["天", "dog ##s", "cat ##s", "地"]),
        ("天地|  |人", ["天 地", "人"]),  # blanks are words without tokens
        ("a|b|c| |天", ["[UNK]", "天"]),  # one token in three words
        ("hous|e|s|天地", ["house ##s", "天 地"]),  # the marks of a vocabulary: no word ends within Latin
        ("天3|.|5地", ["天 3", ".", "5 地"]),  # the segmenter's words, where marks say nothing
        ("", []),
        (" | ", []),
        ("ＤＯＧ|天", ["[UNK]", "天"]),
    ],
)
def test_words_by_tokens(tokenizer, bars, words):
    assert starts_of(tokenizer, bars) == words


def test_a_token_in_two_words_joins_them():
    vocabulary = [("<unk>", 0.0), ("▁", -3.0), ("天地", -1.0), ("人", -2.0), ("大", -2.0), ("小天", -1.0)]
    rust = Rust(models.Unigram(vocabulary, unk_id=0))
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram = Tokenizer(rust, {}, 64)
    assert starts_of(unigram, "天地|人|大") == ["▁ 天地", "人", "大"]
    assert starts_of(unigram, "天|地人|大") == ["▁ 天地 人", "大"]
    assert starts_of(unigram, "大小|天地|人")[0].startswith("▁ 大")


def test_a_character_of_several_bytes_is_in_one_word():
    rust = Rust(models.BPE({letter: n for n, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found = starts_of(Tokenizer(rust, {}, 64), "天地|人| |dog")
    assert [len(word.split()) for word in found] == [6, 3, 4]  # three bytes each; the blank goes with dog


texts = st.lists(st.sampled_from([*"天地人大小。， abds3", "dog", "cats "]), max_size=30).map("".join)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_word_of_the_segmenter_is_a_unit_or_within_one(package, tokenizer):
    pytest.importorskip(package)
    segmenter = load_segmenter(package)

    @given(st.lists(texts, max_size=5))
    def check(some):
        all_starts = word_starts(some, tokenizer, segmenter)
        assert len(all_starts) == len(some)
        for text, starts in zip(some, all_starts, strict=True):
            (alone,) = word_starts([text], tokenizer, segmenter)
            assert np.array_equal(alone, starts)
            ids, spans = tokenizer.token_spans([text])[0]
            assert ids == list(tokenizer.encode_whole([text])[0].input_ids)
            ends = np.cumsum([0, *map(len, segmenter.cut(text))])
            number = np.searchsorted(ends, np.array([start for start, _ in spans], int), side="right")
            for index in range(1, len(ids)):
                if starts[index]:
                    assert number[index] > number[index - 1]

    check()


@pytest.mark.parametrize("package", PACKAGES)
def test_segmenters_are_quiet_and_repeat_themselves(package, capfd):
    pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter = load_segmenter(package)
        words = segmenter.cut("我来到北京清华大学，他来到了网易杭研大厦")
    assert words == ["我", "来到", "北京", "清华大学", "，", "他", "来到", "了", "网易", "杭研", "大厦"]
    assert words == load_segmenter(package).cut("".join(words))
    assert segmenter.name.startswith(f"{package} ")
    assert capfd.readouterr() == ("", "")


def test_words_added_by_a_program_do_not_count():
    jieba = pytest.importorskip("jieba")
    jieba.setLogLevel(60)
    jieba.add_word("来到北京清华", freq=10**9)
    assert load_segmenter("jieba").cut("我来到北京清华大学") == ["我", "来到", "北京", "清华大学"]


@pytest.mark.parametrize("name", ["auto", "rjieba", "jieba"])
def test_a_missing_package_is_named(name, monkeypatch):
    for package in PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'bertune\[chinese-words\]'"):
        load_segmenter(name)


def test_either_package_will_do(monkeypatch):
    pytest.importorskip("jieba")
    monkeypatch.setitem(sys.modules, "rjieba", None)
    assert load_segmenter().name.startswith("jieba ")


def test_workers_and_one_process_find_the_same(tokenizer):
    some = ["天地人dogs", "大小，cats", ""] * 5
    segmenter = Segmenter("bars", list)
    with parallel_tokenizer(tokenizer, 2, lambda _: None) as parallel:
        found = word_starts(some, parallel, segmenter)
    for one, other in zip(word_starts(some, tokenizer, segmenter), found, strict=True):
        assert np.array_equal(one, other)


def test_tokenizers_in_python_are_refused(tokenizer):
    class Backend:
        class_name = "MadeUpTokenizer"

        def no_padding(self): ...
        def no_truncation(self): ...
        def get_vocab(self, with_added_tokens=True):
            return {"a": 0}

        def to_str(self):
            return '{"model": {"type": "MadeUpTokenizer"}}'

    with pytest.raises(ConfigError, match="MadeUpTokenizer has no fast form"):
        word_starts(["天"], PythonTokenizer(Backend(), {}, 8), Segmenter("bars", list))


def test_a_segmenter_must_keep_the_text(tokenizer):
    with pytest.raises(ValueError, match="not the whole text"):
        word_starts(["天地"], tokenizer, Segmenter("bad", lambda _: ["天"]))
