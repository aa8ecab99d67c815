"""Where words begin by the marks of vocabularies: against the words between blanks, signs and CJK characters."""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_encoder
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from bertune.config.schema import DataConfig
from bertune.text.load import load_tokenizer
from bertune.text.python_tokenizer import PythonTokenizer
from bertune.text.tokenizer import Tokenizer

TEXTS = [
    "the quick brown foxes were jumping over lazier dogs, unbelievably (quickly)!",
    "un café naïve, 3.14 and e-mails; it isn't",
    "我爱北京天安门，Python编程很好。ありがとう",
    "привет, новый мир",
]
CORPUS = TEXTS * 20
SPECIAL = ["[UNK]", "[MASK]"]


def train_wordpiece() -> Rust:
    rust = Rust(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=False)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece()
    return learn(rust, trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False))


def train_wordpiece_without_split_characters() -> Rust:
    rust = Rust(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return learn(rust, trainers.WordPieceTrainer(vocab_size=180, special_tokens=SPECIAL, show_progress=False))


def train_unigram() -> Rust:
    rust = Rust(models.Unigram())
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    return learn(
        rust,
        trainers.UnigramTrainer(
            vocab_size=140, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
        ),
    )


def train_metaspace_bpe() -> Rust:
    rust = Rust(models.BPE(unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    return learn(rust, trainers.BpeTrainer(vocab_size=170, special_tokens=SPECIAL, show_progress=False))


def train_bytes(size: int = 340) -> Rust:
    rust = Rust(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    return learn(rust, trainer)


def train_end_of_word() -> Rust:
    rust = Rust(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    return learn(rust, trainer)


def learn(rust: Rust, trainer: object) -> Rust:
    rust.train_from_iterator(CORPUS, trainer)
    return rust


KINDS = {
    "wordpiece": train_wordpiece,
    "wordpiece without split characters": train_wordpiece_without_split_characters,
    "unigram": train_unigram,
    "bpe with blanks": train_metaspace_bpe,
    "bytes": train_bytes,
    "single bytes": lambda: train_bytes(258),
    "end of word": train_end_of_word,
}


def units(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """The stretches of a text that the vocabulary takes for words, without blanks around them."""
    ids, spans = tokenizer.token_spans([text])[0]
    begins = [True, *tokenizer.word_borders.between(np.array(ids))]
    found: list[tuple[int, int]] = []
    for (start, stop), begin in zip(spans, begins, strict=True):
        if begin:
            found.append((start, stop))
        else:
            found[-1] = min(found[-1][0], start), max(found[-1][1], stop)
    trimmed = []
    for start, stop in found:
        piece = text[start:stop]
        trimmed.append((stop - len(piece.lstrip()), start + len(piece.rstrip())))
    return [(start, stop) for start, stop in trimmed if start < stop]


def real_words(text: str) -> list[tuple[int, int]]:
    """BERT's words: between blanks and signs; Chinese characters, and kana too, one by one."""
    spaced = "".join(f" {c} " if "\u3040" <= c <= "\u9fff" else c for c in text)
    words = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(spaced)]
    at, found = 0, []
    for word in words:
        at = text.index(word, at)
        found.append((at, at + len(word)))
        at += len(word)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_units_are_words_where_tokens_allow_it(kind, text):
    """A token may hold several words (such as two characters), never may a unit cut a word or a clause go on."""
    tokenizer = Tokenizer(KINDS[kind](), {}, 512)
    tokens = tokenizer.token_spans([text])[0][1]
    found = units(tokenizer, text)
    words = real_words(text)
    for start, stop in words:
        if any(a < start < b or a < stop < b for a, b in tokens if text[a:b].strip() == text[a:b]):
            continue  # a token straddles the word
        assert any(a <= start and stop <= b for a, b in found), (text[start:stop], found)
    for start, stop in found:
        inside = [word for word in words if start <= word[0] and word[1] <= stop]
        joined = any(sum(a < stop and start < b for start, stop in inside) > 1 for a, b in tokens)
        # a byte-level pre-tokenizer keeps 't together; a byte cannot tell whether a sign ends with it
        after_a_byte = "byte" in kind and len(inside) == 2 and ord(text[start]) > 0x3000
        assert len(inside) <= 1 or joined or after_a_byte or "'" in text[start:stop], text[start:stop]


def test_vocabularies_without_marks_have_words_of_one_token():
    rust = Rust(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    borders = Tokenizer(rust, {}, 8).word_borders
    assert not borders.continues.any() and borders.ends.all()


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "begins"),
    [
        (["to@@", "kyo", "is", "big", "."], "to@@ kyo is big .", [1, 0, 1, 1, 1]),
        (["to", "kyo</w>", "is</w>", ".</w>"], "to kyo</w> is</w> .</w>", [1, 0, 1, 1]),
        (["東", "##京", "は", "##で"], "東 ##京 は ##で", [1, 1, 1, 1]),
        (["東", "to", "##kyo"], "東 to ##kyo", [1, 1, 0]),
        (["▁to", "kyo", "▁is"], "▁to kyo ▁is", [1, 0, 1]),
        (["a", "b"], "a b a", [1, 1, 1]),
    ],
)
def test_tokenizers_in_python_are_judged_by_their_tokens(vocabulary, tokens, begins):
    from bertune.text.word_borders import find_word_borders

    ids = {token: number for number, token in enumerate(vocabulary)}
    borders = find_word_borders({"model": {"type": "PhobertTokenizer"}}, ids)
    row = np.array([ids[token] for token in tokens.split()])
    assert [1, *borders.between(row).astype(int)] == begins


def test_a_tokenizer_in_python_knows_its_special_tokens(tmp_path):
    """PhoBERT's class, with a made-up vocabulary."""
    from transformers import PhobertTokenizer

    (tmp_path / "vocab.txt").write_text("to@@ 9\nkyo 9\nis 9\nt 9\no@@ 9\n", encoding="utf-8")
    (tmp_path / "bpe.codes").write_text("t o 9\nk y 8\nky o</w> 7\ni s</w> 6\n", encoding="utf-8")
    PhobertTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes")).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    tokenizer = load_tokenizer(tmp_path, 64, DataConfig())
    assert isinstance(tokenizer, PythonTokenizer)
    assert tokenizer.mask_token == "<mask>"
    special = {tokenizer.convert_ids_to_tokens([n])[0] for n in tokenizer.special_ids()}
    assert special == {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
    from bertune.tasks.base.masking import MaskVocabulary

    found = MaskVocabulary.from_tokenizer(tokenizer)
    names = np.array(tokenizer.convert_ids_to_tokens(range(len(found.is_ordinary))))
    assert set(names[found.is_ordinary]) == {"to@@", "kyo", "is", "t", "o@@"}
    row = np.array([tokenizer.vocabulary[token] for token in ("to@@", "kyo", "is")])
    asked = load_tokenizer(tmp_path, 64, DataConfig())
    asked.use_mask_token("is")
    assert asked.mask_token == pickle.loads(pickle.dumps(asked)).mask_token == "is"
    assert asked.vocabulary == tokenizer.vocabulary
    assert tokenizer.word_borders.between(row).tolist() == [False, True]


def test_special_tokens_by_every_way_of_naming_them(tmp_path):
    tokenizer = load_tokenizer(make_encoder(tmp_path / "tiny"), 64, DataConfig())
    names = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert {tokenizer.convert_ids_to_tokens([n])[0] for n in tokenizer.special_ids()} == names
    rust = Rust(models.WordPiece({"[UNK]": 0, "<gap>": 1, "<pad>": 2, "a": 3, "<x>": 4}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.add_special_tokens(["<x>"])
    rust.add_tokens(["newword"])
    own = Tokenizer(rust, {"mask_token": {"content": "<gap>"}, "pad_token": "<pad>", "cls_token": "[CLS]"}, 8)
    assert own.mask_token == "<gap>"
    assert own.special_ids() == {0, 1, 2, 4}  # not the word that a user has added


@given(
    st.lists(
        st.sampled_from(
            ["the", "foxes", "unbelievably", " ", "\n", "我", "爱北京", ",", "é", "3.14", "(", "'t", "привет"]
        ),
        max_size=20,
    ).map("".join)
)
def test_wordpiece_words_are_those_of_the_tokenizers_library(text):
    rust = wordpiece()
    result = rust.encode(text, add_special_tokens=False)
    words = np.array(result.word_ids, dtype=float)
    between = Tokenizer(rust, {}, 512).word_borders.between(np.array(result.ids, np.int64))
    known = np.array(result.ids) != rust.token_to_id("[UNK]")
    both = known[1:] & known[:-1]
    assert ((np.diff(words) != 0) == between)[both].all()


@cache
def wordpiece() -> Rust:
    return train_wordpiece()
