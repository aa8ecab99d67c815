"""Vocabularies of BERT and of a published model, cut."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.real.test_real import data
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import bertune
from bertune.text.trim_vocabulary import Vocabulary

pytestmark = pytest.mark.real

NAMES = ("bert-base-chinese", "bert-base-cased", "bert-base-uncased")
CORPORA = (
    "raw-zh/wiki.zh-cn.txt",
    "raw-en/sentence-collector.en.txt",
    "raw-zh/CLUECorpusSmall_bert_sampled.txt",
)


@functools.cache
def made(name: str) -> Tokenizer:
    tokens = Path(data(f"vocab/{name}/vocab.txt")).read_text(encoding="utf-8").splitlines()
    model = models.WordPiece({token: n for n, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase="cased" not in name.replace("uncased", ""))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@functools.cache
def cut(name: str, keep: int) -> tuple[Tokenizer, frozenset[int]]:
    """The vocabulary with only the base, and every `keep`-th other piece."""
    content = json.loads(made(name).to_str())
    counts = np.zeros(made(name).get_vocab_size(), np.int64)
    if keep:
        counts[::keep] = 1
    trimmed = Vocabulary(content).trim(counts)
    return Tokenizer.from_str(json.dumps(trimmed.content)), frozenset(trimmed.old_ids.tolist())


def check(name: str, keep: int, texts: list[str]) -> None:
    old, (new, kept) = made(name), cut(name, keep)
    for text, before, after in zip(texts, old.encode_batch(texts), new.encode_batch(texts), strict=True):
        unknown = [
            [span for span, token in zip(encoding.offsets, encoding.tokens, strict=True) if token == "[UNK]"]
            for encoding in (before, after)
        ]
        assert unknown[0] == unknown[1], text
        if set(before.ids) <= kept:
            assert before.tokens == after.tokens, text


@pytest.mark.parametrize("keep", [0, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_words_are_unknown_in_real_texts(name, keep):
    for corpus in CORPORA:
        check(name, keep, Path(data(corpus)).read_text(encoding="utf-8").splitlines()[:5000])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=300)
@given(text=st.text() | st.text("abcdeéß中文字ーカな가㐀豈「-_.,1²ﬁ\u0301"), keep=st.sampled_from([0, 2, 3]))
def test_the_same_words_are_unknown_in_any_text(name, text, keep):
    check(name, keep, [text])


def test_minilm_with_half_its_tokens_keeps_its_figure(tmp_path):
    """STS-B test, Spearman: .8203 with all 30,522 tokens."""
    rows = Path(data("glue/STS-B/original/sts-test.tsv")).read_text(encoding="utf-8").splitlines()
    cells = [row.split("\t") for row in rows]
    file = tmp_path / "test.tsv"
    file.write_text("".join(f"{c[5]}\t{c[6]}\t{c[4]}\n" for c in cells), encoding="utf-8")
    result = bertune.trim("minilm", data("raw-en/sentence-collector.en.txt"), tmp_path / "out", keep=15_000)
    assert result.after.tokens == 15_000
    assert result.effect.tokens.unknown_after == result.effect.tokens.unknown_before
    evaluation = bertune.evaluate(tmp_path / "out", file, ["data.columns=[text,text_b,label]"])
    assert evaluation.scores.values["spearman"] == pytest.approx(0.8203, abs=0.01)
