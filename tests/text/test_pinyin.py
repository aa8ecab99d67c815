"""Readings of characters: published samples, pypinyin itself, the lists that checkpoints bring."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pypinyin
import pytest
from hypothesis import given as each
from hypothesis import strategies as some
from pypinyin.constants import RE_HANS
from pypinyin.phrases_dict import phrases_dict

import bertune
from bertune.text import pinyin
from bertune.text.pinyin import (
    SYMBOLS,
    PinyinConverter,
    PinyinVocab,
    pack_syllable,
    parse_pinyin_vocab,
    unpack_syllable,
)

PUBLISHED = {
    "弗洛伊德的悲剧凸显了在美国和世界范围": (
        "fu2 luo4 yi1 de2 de5 bei1 ju4 tu1 xian3 le5 zai4 mei3 guo2 he2 shi4 jie4 fan4 wei2"
    ),
    "紧迫性和重要性，国际社会必须立": "jin3 po4 xing4 he2 zhong4 yao4 xing4 - guo2 ji4 she4 hui4 bi4 xu1 li4",
    "那些存在严重种族主义、种族歧视": (
        "nei4 xie1 cun2 zai4 yan2 zhong4 zhong3 zu2 zhu3 yi4 - zhong3 zu2 qi2 shi4"
    ),
    "中方对巴基斯坦开普省发": "zhong1 fang1 dui4 ba1 ji1 si1 tan3 kai1 pu3 sheng3 fa1",
    "欢迎使用飞桨！": "huan1 ying2 shi3 yong4 fei1 jiang3 -",
}
"""Readings by the authors' own code, from JunnYu/ChineseBert_pytorch and PaddleNLP (README and tests)."""
WORDS = sorted(phrase for phrase in phrases_dict if RE_HANS.match(phrase))[::97]


def slow(text: str) -> list[str]:
    """The authors' call, word for word."""
    found = pypinyin.pinyin(
        text, style=pypinyin.Style.TONE3, heteronym=True, errors=lambda x: [["not chinese"] for _ in x]
    )
    return ["" if item[0] == "not chinese" else item[0] for item in found]


def packed(readings: list[str]) -> list[int]:
    return [PinyinVocab().encode(reading) if reading else 0 for reading in readings]


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_readings(text):
    letters = {number: letter for letter, number in SYMBOLS.items()}
    found = [
        "".join(letters[n] for n in unpack_syllable(s) if n) or "-" for s in PinyinConverter().convert(text)
    ]
    assert found == PUBLISHED[text].split()


def test_symbols():
    assert (
        SYMBOLS["1"] == 1
        and SYMBOLS["5"] == 5
        and SYMBOLS["a"] == 6
        and SYMBOLS["v"] == 27
        and SYMBOLS["z"] == 31
    )
    assert len(SYMBOLS) == 31
    assert (
        unpack_syllable(PinyinVocab().encode("de"))
        == unpack_syllable(PinyinVocab().encode("de5"))
        == [9, 10, 5, 0, 0, 0, 0, 0]
    )  # the neutral tone is written as 5
    pinyin = PinyinConverter()
    assert pinyin.convert("绿略女") == packed(["lv4", "lve4", "nv3"])  # ü is written as v
    assert (
        len(json.dumps({"idx2char": ["_", *SYMBOLS], "char2idx": {"_": 0, **SYMBOLS}})) == 466
    )  # the size of the authors' file


def test_every_reading_fits_and_only_few_have_no_symbols():
    readings, _ = pinyin._dictionaries()
    different = {r for found in readings.values() for r in found}
    assert max(map(len, different)) <= 7  # and a 5
    without = {r for r in different if not PinyinVocab().encode(r)}
    assert all(not re.fullmatch("[a-z]+[1-4]?", r) for r in without)
    assert all(
        pack_syllable(unpack_syllable(PinyinVocab().encode(r))) == PinyinVocab().encode(r) for r in different
    )


def test_a_reading_depends_on_the_words_around():
    pinyin = PinyinConverter()
    assert [
        pinyin.convert(text)[place] for text, place in (("银行", 1), ("行走", 0), ("成长", 1), ("长江", 0))
    ] == packed(["hang2", "xing2", "zhang3", "chang2"])


def test_han_characters_are_those_of_pypinyin():
    differ = [
        chr(n)
        for n in range(sys.maxunicode + 1)
        if bool(pinyin._HAN.fullmatch(chr(n))) != bool(RE_HANS.match(chr(n)))
    ]
    assert differ == []


def test_single_characters_are_read_as_pypinyin_reads_them():
    pinyin = PinyinConverter()
    for start, stop in (
        (0x3000, 0x3010),
        (0x3400, 0x3600),
        (0x4E00, 0xA000),
        (0xF900, 0xFB00),
        (0x20000, 0x20100),
        (0x2F800, 0x2FA20),
    ):
        for n in range(start, stop):
            assert pinyin.convert(chr(n)) == packed(slow(chr(n))), hex(n)


@each(
    some.lists(
        some.one_of(
            some.sampled_from(WORDS),
            some.sampled_from(WORDS).map(lambda word: word[:-1]),
            some.sampled_from("那长行了重着的得地不一和乐发a1，。 〇豈"),
            some.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
            some.text(max_size=3),
        ),
        max_size=12,
    )
)
def test_any_text_is_read_as_pypinyin_reads_it(parts):
    text = "".join(parts)
    assert SHARED.convert(text) == packed(slow(text))
    assert PinyinConverter().convert(text) == SHARED.convert(text)  # what was read before changes nothing


SHARED = PinyinConverter()


def test_what_a_program_adds_to_pypinyin_changes_nothing():
    code = (
        "import pypinyin; pypinyin.load_phrases_dict({'狗房': [['x\u012b'], ['x\u012b']]}); "
        "pypinyin.load_single_dict({ord('狗'): 'x\u012b'}); "
        "from bertune.text.pinyin import PinyinConverter; print(PinyinConverter().convert('狗房'))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == packed(["gou3", "fang2"])


def test_fast():
    pinyin, text = PinyinConverter(), "商赢环球股份有限公司关于延期回复上海证券交易所"
    began = time.perf_counter()
    for _ in range(2000):
        pinyin.convert(text)
    assert 2000 / (time.perf_counter() - began) > 10_000  # some 80,000 on a quiet machine


def test_lists_of_a_checkpoint_go_before_the_rule():
    numbers = {**SYMBOLS, "a": 31, "z": 6}
    own = parse_pinyin_vocab({"char2idx": numbers}, {"de": [1, 2, 3, 4, 5, 6, 7, 8]}, "here")
    assert unpack_syllable(own.encode("de")) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert unpack_syllable(own.encode("za1")) == [6, 31, 1, 0, 0, 0, 0, 0]
    assert unpack_syllable(own.encode("le")) == [
        17,
        10,
        0,
        0,
        0,
        0,
        0,
        0,
    ]  # as the authors' code: no tone is added to what their list lacks
    assert PinyinConverter(own).convert("的")[0] == own.encode("de")
    again = own.to_json()
    assert parse_pinyin_vocab(again["pinyin_map"], again["pinyin2tensor"], "there") == own
    letters_alone = parse_pinyin_vocab({"char2idx": SYMBOLS}, None, "here")
    assert letters_alone == PinyinVocab()
    assert letters_alone.to_json() == {}
    assert PinyinVocab().encode("ê1") == 0
    assert unpack_syllable(PinyinVocab().encode("chuangg1"))[-1] == 1
    assert PinyinVocab().encode("chuanggg1") == 0  # nine symbols


@pytest.mark.parametrize(
    ("pinyin_map", "lists"),
    [
        ({"char2idx": {"a": 32}}, None),
        ({"char2idx": {"a": "x"}}, None),
        ({}, None),
        ([], None),
        (None, {"de": [1, 2]}),
        (None, {"de": [1] * 7 + [99]}),
        (None, {"de": 5}),
        (None, [1]),
    ],
)
def test_broken_lists_are_refused_in_one_line(pinyin_map, lists):
    with pytest.raises(bertune.ConfigError, match=r"^here: no lists of pinyin: ") as caught:
        parse_pinyin_vocab(pinyin_map, lists, "here")
    assert "\n" not in str(caught.value)


def test_another_version_of_pypinyin_is_refused(monkeypatch):
    monkeypatch.setattr(pypinyin, "__version__", "0.55.0")
    pinyin._dictionaries.cache_clear()
    try:
        with pytest.raises(
            bertune.ConfigError, match=r"pypinyin 0\.55\.0 reads .* pip install pypinyin==0\.38\.1$"
        ):
            PinyinConverter()
    finally:
        pinyin._dictionaries.cache_clear()


def test_pypinyin_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypinyin", None)
    pinyin._dictionaries.cache_clear()
    try:
        with pytest.raises(
            bertune.MissingExtra,
            match=r"ChineseBERT needs .*pypinyin==0\.38\.1.* pip install 'bertune\[chinese\]'",
        ):
            PinyinConverter()
    finally:
        pinyin._dictionaries.cache_clear()
