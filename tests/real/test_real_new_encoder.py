"""Tokenizers trained on real texts, beside those that the trainers of `tokenizers` make."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.real.test_real import data

from bertune.config.new_encoder import SPECIAL_TOKENS, NewEncoder
from bertune.text.train_tokenizer import train_tokenizer

pytestmark = pytest.mark.real
FILES = {"en": "raw-en/sentence-collector.en.txt", "zh": "raw-zh/wiki.zh-cn.txt"}


def reference(kind: str, texts: list[str], size: int):
    """A tokenizer of the same kind, as `tokenizers` trains it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    special = list(SPECIAL_TOKENS)
    if kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]
        )
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token=special[1], show_progress=False
        )
    else:
        made = Tokenizer(models.WordPiece(unk_token=special[1]))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=special, limit_alphabet=10_000, show_progress=False
        )
    made.train_from_iterator(texts, trainer)
    return made


@pytest.mark.parametrize("language", FILES)
@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_texts_take_about_as_many_tokens_as_with_the_trainers_of_tokenizers(kind, language):
    texts = Path(data(FILES[language])).read_text(encoding="utf-8").splitlines()[:20_000]
    ours = train_tokenizer(texts, NewEncoder(tokenizer=kind, vocab_size=6000), lambda _: None)
    theirs = reference(kind, texts, 6000)

    def count(tokenizer) -> tuple[int, float]:
        ids = [i for e in tokenizer.encode_batch(texts, add_special_tokens=False) for i in e.ids]
        return len(ids), ids.count(tokenizer.token_to_id("[UNK]")) / len(ids)

    (number, unknown), (expected, _) = count(ours), count(theirs)
    assert number < 1.02 * expected
    assert unknown < 0.002
