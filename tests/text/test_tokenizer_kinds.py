"""Tokenizers without a fast form, with a SentencePiece model alone, of other versions, and damaged ones."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import pytest
import torch
from tests.conftest import make_encoder

import bertune
from bertune.config.schema import DataConfig
from bertune.errors import ArtifactError, ConfigError, MissingExtra
from bertune.text.load import load_tokenizer
from bertune.text.python_tokenizer import PythonTokenizer

MERGES = [
    "g o 5",
    "o d</w> 4",
    "go od</w> 3",
    "d o 2",
    "do g</w> 2",
    "b a 2",
    "ba d</w> 2",
    "c a 1",
    "ca t</w> 1",
]
LETTERS = sorted(set("goodbadcat"))
PIECES = [*LETTERS, *(f"{c}@@" for c in LETTERS), "good", "go@@", "od", "do@@", "dog", "ba@@", "bad", "cat"]


def write_bpe(folder: Path, tokenizer_class: str, **settings) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bpe.codes").write_text("".join(f"{line}\n" for line in MERGES))
    (folder / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in PIECES))
    settings = {"tokenizer_class": tokenizer_class, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_japanese(folder: Path) -> Path:
    folder.mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "犬", "猫", *"godbact"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic"}
    settings |= {"subword_tokenizer_type": "character"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


SLOW = {
    "phobert": lambda folder: write_bpe(folder, "PhobertTokenizer"),
    "bertweet": lambda folder: write_bpe(folder, "BertweetTokenizer"),
    "japanese": write_japanese,
}
TEXTS = [
    ("good dog",),
    ("bad",),
    ("good dog", "bad cat"),
    ("good dog cat dog bad cat good dog", "bad cat"),
    ("犬 猫",),
    ("",),
]


@pytest.fixture(params=SLOW)
def slow(request, tmp_path):
    return SLOW[request.param](tmp_path / request.param)


def test_ids_are_those_of_transformers(slow):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(slow))
    ours = load_tokenizer(slow, 64, DataConfig())
    assert isinstance(ours, PythonTokenizer)
    for texts, encoding in zip(TEXTS, ours.encode(TEXTS), strict=True):
        expected = theirs(*texts, return_token_type_ids=True)
        assert list(encoding.input_ids) == expected["input_ids"]
        assert list(encoding.token_type_ids) == expected["token_type_ids"]
        assert encoding.num_truncated == 0
    assert "has no fast form" in ours.notes[0]
    assert ours.unk_token_id == theirs.unk_token_id
    assert ours.vocab_size == len(theirs)
    assert ours.starts_with_special_token


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
def test_truncation(slow, truncation):
    whole = load_tokenizer(slow, 64, DataConfig())
    tokenizer = load_tokenizer(slow, 64, DataConfig(max_length=9, truncation=truncation))
    for texts in TEXTS:
        full, cut = whole.encode([texts])[0], tokenizer.encode([texts])[0]
        assert len(cut.input_ids) == min(len(full.input_ids), 9)
        assert cut.num_truncated == len(full.input_ids) - len(cut.input_ids)
        assert cut.input_ids[0] == full.input_ids[0] and cut.input_ids[-1] == full.input_ids[-1]


def test_words(slow):
    tokenizer = load_tokenizer(slow, 64, DataConfig())
    ((encoding, present),) = tokenizer.encode_words([("good dog", [(0, 4), (5, 8)])], 2)
    assert present == [0, 1] and len(encoding.word_positions) == 2
    alone = tokenizer.encode([("good",)])[0].input_ids[1:-1]
    assert list(encoding.input_ids[1 : 1 + len(alone)]) == list(alone)


def test_it_travels_and_comes_back_from_a_saved_folder(slow, tmp_path):
    tokenizer = load_tokenizer(slow, 64, DataConfig(max_length=8))
    expected = tokenizer.encode(TEXTS)
    assert pickle.loads(pickle.dumps(tokenizer)).encode(TEXTS) == expected
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "bertune.json").write_text("{}")
    for path in slow.iterdir():
        path.unlink()  # the saved folder needs the first one no more
    tokenizer.save(saved)
    again = load_tokenizer(saved, 64, DataConfig(max_length=8))
    assert again.encode(TEXTS) == expected
    assert again.fingerprint() == tokenizer.fingerprint()


def test_a_model_with_it_is_trained_saved_and_opened(tmp_path, write):
    folder = make_encoder(tmp_path / "m", "roberta", pad_token_id=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    write_bpe(folder, "PhobertTokenizer")
    rows = [{"text": text, "label": label} for text, label in [("good dog", "+"), ("bad cat", "-")] * 6]
    settings = {
        "task": "classify",
        "model": str(folder),
        "out": str(tmp_path / "out"),
        "data": {"train": write("rows.jsonl", rows), "dev_fraction": 0.4},
        "train": {"max_steps": 2},
    }
    bertune.train(settings, quiet=True)
    assert (tmp_path / "out" / "bpe.codes").is_file() and not (tmp_path / "out" / "tokenizer.json").exists()
    assert len(bertune.load(tmp_path / "out").predict(["good dog", "cat"])) == 2
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    logits = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "out")).eval()
    with torch.no_grad():
        assert logits(**theirs("good dog", return_tensors="pt")).logits.shape == (1, 2)


def test_emojis_are_not_left_out_silently(tmp_path):
    if importlib.util.find_spec("emoji") is not None:
        pytest.skip("the package emoji is installed")
    folder = write_bpe(tmp_path / "m", "BertweetTokenizer", normalization=True)
    with pytest.raises(ConfigError, match="pip install emoji"):
        load_tokenizer(folder, 64, DataConfig())


def test_a_package_that_a_tokenizer_needs(tmp_path):
    if importlib.util.find_spec("fugashi") is not None:
        pytest.skip("the package fugashi is installed")
    folder = write_japanese(tmp_path / "m")
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="fugashi"):
        load_tokenizer(folder, 64, DataConfig())


@pytest.mark.parametrize("name", ["spm.model", "sentencepiece.bpe.model", "spiece.model", "source.spm"])
def test_a_sentencepiece_model_alone_names_the_extra(name, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda module, *rest: None if module == "sentencepiece" else find_spec(module, *rest),
    )
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (tmp_path / name).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(
        MissingExtra, match=rf"{name}.*needs the package 'sentencepiece'.*bertune\[sentencepiece\]"
    ):
        load_tokenizer(tmp_path, 64, DataConfig())


def test_files_of_another_class_make_no_empty_tokenizer(tmp_path):
    """transformers makes a BertTokenizer of five tokens, for which every word is unknown."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    with pytest.raises(ConfigError, match=r"a BertTokenizer without words of 'vocab\.json'; tokenizer_class"):
        load_tokenizer(tmp_path, 64, DataConfig())


DAMAGED = {
    "another kind of model": lambda written: {**written, "model": {"type": "Tokens2030", "vocab": {}}},
    "another pre-tokenizer": lambda written: {**written, "pre_tokenizer": {"type": "NewSplit", "mode": 3}},
    "another shape": lambda written: {"version": "9.0", "parts": []},
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("by_bertune", [False, True])
def test_tokenizer_json_of_another_version(kind, by_bertune, tiny, tmp_path):
    written = json.loads((tiny / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(DAMAGED[kind](written)))
    (tmp_path / "tokenizer_config.json").write_text((tiny / "tokenizer_config.json").read_text())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if by_bertune:
        (tmp_path / "bertune.json").write_text("{}")
    error = ArtifactError if by_bertune else ConfigError
    with pytest.raises(
        error, match=r"tokenizer\.json cannot be read by tokenizers .*another version.*pip install -U"
    ):
        load_tokenizer(tmp_path, 64, DataConfig())


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spm.model", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [("version https://git-lfs.github.com/spec/v1\n", "git LFS"), ("<html>", "a web page"), ("", "is empty")],
)
def test_pointers_and_pages(name, content, message, tiny, tmp_path):
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / file).write_text((tiny / file).read_text())
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"{name} .*{message}"):
        load_tokenizer(tmp_path, 64, DataConfig())


def test_ids_beyond_the_word_table(tiny, tmp_path, write):
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(tiny, folder)
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text())
    written["model"]["vocab"]["gooood"] = 5000
    path.write_text(json.dumps(written))
    settings = {"task": "classify", "model": str(folder), "out": str(tmp_path / "out")}
    settings["data"] = {
        "train": write("rows.jsonl", [{"text": "good", "label": "+"}, {"text": "bad", "label": "-"}] * 5)
    }
    with pytest.raises(ConfigError, match=r"its highest id is 5000; they do not belong together"):
        bertune.train(settings, quiet=True)


def test_a_tokenizer_of_the_folders_own_code_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "vocab.txt").write_text("[UNK]\na\nb\n")
    (tmp_path / "tokenization.py").write_text("raise AssertionError('it was run')")
    settings = {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization.OwnTokenizer", None]},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"auto_map in tokenizer_config.json.*does not run"):
        load_tokenizer(tmp_path, 64, DataConfig())
