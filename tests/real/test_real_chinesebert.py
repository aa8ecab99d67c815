"""ChineseBERT on real texts: logs of the authors' code (folder BERTUNE_GOLDEN), all titles of TNEWS."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pypinyin
import pytest
from tests.chinesebert_folder import write_folder

from bertune.config.schema import DataConfig
from bertune.data.dataset import EncodedDataset
from bertune.encoders.pretrained import PretrainedFolder
from bertune.text.pinyin import SYMBOLS, PinyinConverter, PinyinVocab, unpack_syllable
from bertune.text.tokenizer import Tokenizer
from bertune.types import EncodedExample

pytestmark = pytest.mark.real
DATA = Path(os.environ.get("BERTUNE_DATA", "/nowhere"))
GOLDEN = Path(os.environ.get("BERTUNE_GOLDEN", "/nowhere"))


def lines_of(name: str) -> list[str]:
    if not (DATA / name).exists():
        pytest.skip(f"BERTUNE_DATA has no {name}")
    return (
        (DATA / name).read_text(encoding="utf-8").rstrip("\n").split("\n")
    )  # one token is a line separator of Unicode


def golden(name: str):
    if not (GOLDEN / name).exists():
        pytest.skip(f"BERTUNE_GOLDEN has no {name}")
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    """The release's vocabulary as far as it is known: BERT's, and two quotation marks far behind it."""
    known = lines_of("vocab/bert-base-chinese/vocab.txt")
    vocabulary = [*known, *(f"[unknown{n}]" for n in range(len(known), 23236))]
    vocabulary[22591], vocabulary[22973] = "“", "”"
    folder = write_folder(tmp_path_factory.mktemp("golden") / "m", "shannonai")
    for name in ("pinyin_map", "pinyin2tensor"):
        (folder / "config" / f"{name}.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return PretrainedFolder(folder).load_tokenizer(DataConfig(), 512)


def samples() -> list[dict]:
    return [*golden("chinesebert_golden.json"), *golden("chinesebert_golden_extra.json")["samples"]]


def test_logged_samples(tokenizer):
    found = samples()
    assert len(found) == 8
    for sample in found:
        (piece,) = tokenizer.encode([(sample["text"],)])
        assert list(piece.input_ids) == sample["input_ids"], sample["text"]
        assert tokenizer.convert_ids_to_tokens(piece.input_ids) == sample["tokens"]
        assert [n for s in piece.pinyin_ids for n in unpack_syllable(s)] == sample["pinyin_ids"], sample[
            "text"
        ]
        if "token_type_ids" in sample:
            assert list(piece.token_type_ids) == sample["token_type_ids"]


def test_symbols_that_the_samples_prove():
    extra = golden("chinesebert_golden_extra.json")
    assert extra["char2idx"] == SYMBOLS
    letters = {n: s for s, n in SYMBOLS.items()}
    seen = set()
    for sample in samples():
        for place, reading in enumerate(sample["pinyin"]):
            numbers = [n for n in sample["pinyin_ids"][8 * place : 8 * place + 8] if n]
            assert "".join(letters[n] for n in numbers) == reading
            seen |= set(reading)
    assert len(seen) == 30 and set(SYMBOLS) - seen == {"v"}


def test_padded_batch(tokenizer):
    batch = golden("chinesebert_golden_extra.json")["batch"]
    rows = EncodedDataset(
        [EncodedExample((piece,)) for piece in tokenizer.encode([(t,) for t in batch["texts"]])]
    )
    ragged = rows.gather_texts(range(len(rows)))
    longest = max(ragged.lengths)
    for row, (start, stop) in enumerate(
        zip(ragged.offsets[:-1].tolist(), ragged.offsets[1:].tolist(), strict=True)
    ):
        padding = longest - (stop - start)
        assert ragged.input_ids[start:stop].tolist() + [0] * padding == batch["input_ids"][row]
        assert ragged.token_type_ids[start:stop].tolist() + [0] * padding == batch["token_type_ids"][row]
        assert [1] * (stop - start) + [0] * padding == batch["attention_mask"][row]
        numbers = [n for s in ragged.pinyin_ids[start:stop].tolist() for n in unpack_syllable(s)]
        assert numbers + [0] * 8 * padding == batch["pinyin_ids"][row]


def readings_of_pypinyin(text: str) -> list[int]:
    found = pypinyin.pinyin(
        text, style=pypinyin.Style.TONE3, heteronym=True, errors=lambda x: [["not chinese"] for _ in x]
    )
    return [0 if item[0] == "not chinese" else PinyinVocab().encode(item[0]) for item in found]


@pytest.mark.parametrize(
    "name",
    ["tnews/train.tsv", "tnews/dev.tsv", "raw-zh/wiki.zh-cn.txt", "raw-zh/CLUECorpusSmall_bert_sampled.txt"],
)
def test_every_text_is_read_as_pypinyin_reads_it(name):
    texts = [line.split("\t")[0] for line in lines_of(name)]
    pinyin = PinyinConverter()
    different = [text for text in texts if pinyin.convert(text) != readings_of_pypinyin(text)]
    assert different == []
    assert len(texts) > 1000


def test_titles_a_second(tokenizer, capsys):
    texts = [(line.split("\t")[0],) for line in lines_of("tnews/train.tsv")]
    pinyin = PinyinConverter()
    began = time.perf_counter()
    for (text,) in texts:
        pinyin.convert(text)
    alone = len(texts) / (time.perf_counter() - began)
    began = time.perf_counter()
    tokenizer.encode(texts)
    whole = len(texts) / (time.perf_counter() - began)
    with capsys.disabled():
        print(f"\npinyin {alone:.0f} titles/s, tokenizer with pinyin {whole:.0f} titles/s")
    assert alone > 20_000
