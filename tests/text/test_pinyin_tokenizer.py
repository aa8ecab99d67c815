"""ChineseBERT's tokenizer: which token is read how, in texts, pairs, words and windows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as some
from tests.chinesebert_folder import HAN, VOCABULARY, write_folder

import bertune
from bertune.config.schema import DataConfig
from bertune.data.dataset import EncodedDataset
from bertune.encoders.pretrained import PretrainedFolder
from bertune.text.pinyin import PinyinConverter, PinyinVocab, unpack_syllable
from bertune.text.pinyin_tokenizer import PinyinTokenizer
from bertune.types import EncodedExample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("tokenizer") / "m")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return PretrainedFolder(folder).load_tokenizer(DataConfig(), 64)


def heard(tokenizer, piece) -> list[str]:
    letters = {n: s for s, n in tokenizer.pinyin.vocab.symbol_ids.items()}
    assert len(piece.pinyin_ids) == len(piece.input_ids)
    return ["".join(letters[n] for n in unpack_syllable(s) if n) for s in piece.pinyin_ids]


def test_texts(tokenizer):
    (piece,) = tokenizer.encode([("我的银行 goods，大!",)])
    assert tokenizer.convert_ids_to_tokens(piece.input_ids) == [
        "[CLS]",
        "我",
        "的",
        "[UNK]" if "银" not in HAN else "银",
        "行",
        "good",
        "##s",
        "，",
        "大",
        "!",
        "[SEP]",
    ]
    assert heard(tokenizer, piece) == ["", "wo3", "de5", "yin2", "hang2", "", "", "", "da4", "", ""]


def test_a_character_outside_the_vocabulary_is_heard_all_the_same(tokenizer):
    (piece,) = tokenizer.encode([("鱼大 x",)])
    assert tokenizer.convert_ids_to_tokens(piece.input_ids) == ["[CLS]", "[UNK]", "大", "x", "[SEP]"]
    assert heard(tokenizer, piece) == ["", "yu2", "da4", "", ""]


def test_pieces_of_several_characters_and_words_glued_to_han(tokenizer):
    (piece,) = tokenizer.encode([("[SEP] 大[MASK]a好b",)])
    assert tokenizer.convert_ids_to_tokens(piece.input_ids) == [
        "[CLS]",
        "[SEP]",
        "大",
        "[MASK]",
        "a",
        "好",
        "b",
        "[SEP]",
    ]
    assert heard(tokenizer, piece) == ["", "", "da4", "", "", "hao3", "", ""]


@pytest.mark.parametrize("before", ["", "\x00", "e\u0301 ", "É", "　", "\ufffd大", "😀", "İ"])
def test_places_are_those_of_the_text_as_it_was(tokenizer, before):
    """What normalisation removes, splits or joins moves no reading to a neighbour."""
    (piece,) = tokenizer.encode([(f"{before}银行长大",)])
    assert heard(tokenizer, piece)[-5:-1] == ["yin2", "hang2", "zhang3", "da4"]


def test_compatibility_characters_are_looked_up_as_they_stand(tokenizer):
    """Normalization turns them into usual ones, whose token they get; pypinyin has readings of some only."""
    (piece,) = tokenizer.encode([("\uf9fc\u8c48大",)])
    assert heard(tokenizer, piece) == ["", "", "qi3", "da4", ""]


def test_pairs_are_read_each_for_itself(tokenizer):
    (piece,) = tokenizer.encode([("大银", "行不行")])
    assert heard(tokenizer, piece) == [
        "",
        "da4",
        "yin2",
        "",
        "xing2",
        "bu4",
        "xing2",
        "",
    ]  # not yin2 hang2 across the border
    assert list(piece.token_type_ids) == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
def test_what_is_cut_off_still_decides_readings(folder, truncation):
    tokenizer = PretrainedFolder(folder).load_tokenizer(DataConfig(max_length=6, truncation=truncation), 64)
    (text,) = tokenizer.encode([("大小人长江",)])
    assert text.num_truncated == 1
    assert heard(tokenizer, text) == [
        "",
        "da4",
        "xiao3",
        "ren2",
        "chang2",
        "",
    ]  # 江 is cut off, 长 is still that of 长江
    (pair,) = tokenizer.encode([("银行大小", "长大成人")])
    assert len(pair.input_ids) == 6 and pair.num_truncated == 5
    expected = {
        "银": "yin2",
        "行": "hang2",
        "大": "da4",
        "小": "xiao3",
        "长": "zhang3",
        "成": "cheng2",
        "人": "ren2",
    }
    assert heard(tokenizer, pair) == [
        expected.get(token, "") for token in tokenizer.convert_ids_to_tokens(pair.input_ids)
    ]


def test_cut_on_the_left(tmp_path):
    folder = write_folder(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    tokenizer = PretrainedFolder(folder).load_tokenizer(DataConfig(max_length=4), 64)
    (piece,) = tokenizer.encode([("大银行走",)])
    assert heard(tokenizer, piece) == [
        "",
        "hang2" if tokenizer.pinyin.convert("大银行走")[2] == PinyinVocab().encode("hang2") else "xing2",
        "zou3",
        "",
    ]


def test_words_are_read_in_their_text(tokenizer):
    text = "大银行 good长江"
    words = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 8), (8, 10)]
    ((piece, present),) = tokenizer.encode_words([(text, words)], 0)
    assert present == [0, 1, 2, 4, 5]  # a blank has no token
    assert heard(tokenizer, piece) == ["", "da4", "yin2", "hang2", "", "chang2", "jiang1", ""]
    ((apart, _),) = tokenizer.encode_words([("大银 行", [(0, 1), (1, 2), (3, 4)])], 0)
    assert heard(tokenizer, apart) == ["", "da4", "yin2", "xing2", ""]


def test_words_give_the_syllables_of_the_text(tokenizer):
    text = "我的银行，很大的长江！"
    (whole,) = tokenizer.encode([(text,)])
    ((piece, _),) = tokenizer.encode_words([(text, [(n, n + 1) for n in range(len(text))])], 0)
    assert list(piece.input_ids) == list(whole.input_ids)
    assert list(piece.pinyin_ids) == list(whole.pinyin_ids)


def test_windows_are_read_in_the_whole_text(folder):
    tokenizer = PretrainedFolder(folder).load_tokenizer(DataConfig(max_length=8), 64)
    text = "银行长江" * 4
    words = [(n, n + 1) for n in range(len(text))]
    ((piece, _),) = tokenizer.encode_words([(text, words)], 3)
    assert len(piece.window_lengths) > 2 and sum(piece.window_lengths) == len(piece.input_ids)
    whole = heard(tokenizer, piece)
    known = dict(zip("银行长江", ["yin2", "hang2", "chang2", "jiang1"], strict=True))
    assert whole == [known.get(token, "") for token in tokenizer.convert_ids_to_tokens(piece.input_ids)]
    ragged = EncodedDataset([EncodedExample((piece,))]).gather_texts([0])
    assert ragged.pinyin_ids.tolist() == list(piece.pinyin_ids)
    assert len(ragged.lengths) == len(piece.window_lengths)


def test_other_forms_of_words_keep_places_where_they_are_as_long(tokenizer):
    text = "ＡＢ大㈱"  # full width letters; one sign for (株)
    ((piece, _),) = tokenizer.encode_words([(text, [(0, 2), (2, 3), (3, 4)])], 0)
    found = dict(zip(tokenizer.convert_ids_to_tokens(piece.input_ids), heard(tokenizer, piece), strict=True))
    assert found["大"] == "da4"
    assert all(not reading for token, reading in found.items() if token != "大")


def test_words_can_be_forgotten(tokenizer, monkeypatch):
    from bertune.text import tokenizer as module

    before = tokenizer.encode_words([("银行", [(0, 2)])], 0)
    monkeypatch.setattr(module, "MAX_CACHED_WORDS", 0)
    assert tokenizer.encode_words([("银行", [(0, 2)])], 0) == before
    assert list(tokenizer._word_characters) == list(tokenizer._word_ids) == ["银行"]


def test_texts_that_are_read_otherwise_are_other_texts(tokenizer):
    """The same ids with other syllables must not share a vector."""
    (one,) = tokenizer.encode([("银行",)])
    from dataclasses import replace

    other = replace(one, pinyin_ids=[0, PinyinVocab().encode("yin2"), PinyinVocab().encode("xing2"), 0])
    rows = EncodedDataset([EncodedExample((one, other)), EncodedExample((one, one))])
    assert len(rows.text_lengths) == 2
    texts, sides = rows.index_pairs([0, 1])
    assert sides.text_ids.tolist() == [0, 1]
    assert [place.tolist() for place in sides.text_index] == [[0, 0], [1, 0]]
    ragged = rows.gather_texts(texts)
    assert ragged.pinyin_ids[:4].tolist() == list(one.pinyin_ids)
    assert ragged.slice_rows(1, 2).pinyin_ids.tolist() == other.pinyin_ids
    assert ragged.to(ragged.input_ids.device).pinyin_ids.tolist() == ragged.pinyin_ids.tolist()


@each(
    some.text(
        alphabet=some.one_of(some.sampled_from(HAN + "abc ，"), some.characters(exclude_categories=["Cs"])),
        max_size=12,
    )
)
@settings(max_examples=200)
def test_any_text_by_the_rule(text):
    """A token that stands for one character has its reading, any other none: said by the offsets alone."""
    tokenizer = SHARED["tokenizer"]
    (piece,) = tokenizer.encode([(text or "a",)])
    found = tokenizer._rust.encode(text or "a")
    readings = PinyinConverter(tokenizer.pinyin.vocab).convert(text or "a")
    assert list(piece.input_ids) == found.ids
    assert list(piece.pinyin_ids) == [readings[a] if b - a == 1 else 0 for a, b in found.offsets]


SHARED: dict[str, PinyinTokenizer] = {}


@pytest.fixture(autouse=True)
def _shared(tokenizer):
    SHARED["tokenizer"] = tokenizer


@pytest.mark.parametrize("layout", ["junnyu", "shannonai", "vocabulary alone"])
def test_it_is_written_and_read_back(layout, tmp_path, folder):
    place = write_folder(tmp_path / "m", "junnyu" if layout == "junnyu" else "shannonai")
    if layout == "vocabulary alone":
        for name in ("pinyin_map", "pinyin2tensor"):
            (place / "config" / f"{name}.json").unlink()
    tokenizer = PretrainedFolder(place).load_tokenizer(DataConfig(), 64)
    assert (tokenizer.pinyin.vocab.pinyin_ids is None) == (layout == "vocabulary alone")
    saved = tmp_path / "saved"
    saved.mkdir()
    tokenizer.save(saved)
    (saved / "bertune.json").write_text("{}")
    (saved / "config.json").write_text(json.dumps({"model_type": "chinesebert"}))
    again = PretrainedFolder(saved).load_tokenizer(DataConfig(), 64)
    assert again.pinyin.vocab == tokenizer.pinyin.vocab
    assert again.fingerprint() == tokenizer.fingerprint()
    texts = [("我的银行", "了！"), ("good 么",)]
    assert again.encode(texts) == tokenizer.encode(texts)
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    assert "id2pinyin" not in settings and ("pinyin2tensor" in settings) == (layout != "vocabulary alone")
    assert settings["tokenizer_class"] == "BertTokenizer"


def test_ids_are_those_of_transformers(folder, tokenizer):
    from transformers import BertTokenizer

    theirs = BertTokenizer.from_pretrained(str(folder))
    texts = [
        "我的银行 Goods，大!",
        "ÉtÉ\u0301 大[MASK]小",
        "x" * 120 + " 好",
        "么\t么\u200b\n12",
        "[UNK] 鱼",
        "",
    ]
    assert [list(p.input_ids) for p in tokenizer.encode([(t,) for t in texts])] == [
        theirs(t)["input_ids"] for t in texts
    ]


def test_a_tokenizer_json_will_do(tmp_path, tokenizer):
    folder = write_folder(tmp_path / "m")
    (folder / "tokenizer.json").write_text(tokenizer._rust.to_str())
    (folder / "vocab.txt").unlink()
    assert PretrainedFolder(folder).load_tokenizer(DataConfig(), 64).encode(
        [("我的银行",)]
    ) == tokenizer.encode([("我的银行",)])


def test_faults_are_one_line(tmp_path):
    folder = write_folder(tmp_path / "m")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY[5:]))
    with pytest.raises(bertune.ConfigError, match=r"vocab\.txt: lacks the special tokens \[UNK\], "):
        PretrainedFolder(folder).load_tokenizer(DataConfig(), 64)
    (folder / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(bertune.ConfigError, match=r"vocab\.txt: cannot be read"):
        PretrainedFolder(folder).load_tokenizer(DataConfig(), 64)
    (folder / "vocab.txt").unlink()
    with pytest.raises(bertune.ConfigError, match=r"it holds neither vocab\.txt nor tokenizer\.json"):
        PretrainedFolder(folder).load_tokenizer(DataConfig(), 64)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(bertune.ConfigError, match=r"tokenizer\.json: "):
        PretrainedFolder(folder).load_tokenizer(DataConfig(), 64)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(
        bertune.ConfigError, match=r"tokenizer_config\.json: cannot be read: expected an object, got list"
    ):
        PretrainedFolder(folder).load_tokenizer(DataConfig(), 64)
