"""A pretrained folder is opened once: settings, weights and shapes are read when asked for, and not again."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch
from tests.chinesebert_folder import write_folder

from bertune.config.schema import DataConfig
from bertune.encoders import pretrained
from bertune.encoders.families.registry import FAMILIES
from bertune.encoders.load import load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ConfigError


@pytest.fixture
def reads(monkeypatch):
    """How often each text file was read, and each file of weights."""
    count: collections.Counter[str] = collections.Counter()
    read_text, read_tensors, read_shapes = Path.read_text, pretrained._read_tensors, pretrained._read_shapes

    def counted(name, read):
        def wrapped(path, *args, **kwargs):
            count[f"{name} {path.name}"] += 1
            return read(path, *args, **kwargs)

        return wrapped

    monkeypatch.setattr(Path, "read_text", counted("text", read_text))
    monkeypatch.setattr(pretrained, "_read_tensors", counted("weights", read_tensors))
    monkeypatch.setattr(pretrained, "_read_shapes", counted("shapes", read_shapes))
    return count


def test_each_file_is_read_once(tiny, reads):
    folder = PretrainedFolder(tiny)
    encoder, _ = load_encoder(folder)
    tokenizer = folder.load_tokenizer(DataConfig())
    assert tokenizer.max_length == encoder.max_positions == folder.max_positions
    assert folder.family is FAMILIES["bert"]
    assert set(reads.values()) == {1}
    assert reads["text config.json"] == reads["weights model.safetensors"] == 1


def test_each_file_of_a_chinesebert_is_read_once(tmp_path, reads):
    folder = PretrainedFolder(write_folder(tmp_path / "m"))
    load_encoder(folder)
    folder.load_tokenizer(DataConfig(max_length=8))
    assert set(reads.values()) == {1}


def test_shapes_are_those_of_the_weights(tiny):
    folder = PretrainedFolder(tiny)
    assert folder.weight_shapes == {name: tuple(t.shape) for name, t in folder.weights.items()}
    assert folder.weight_files == [tiny / "model.safetensors"]


def test_pooler_is_that_of_the_checkpoint(tmp_path):
    folder = PretrainedFolder(write_folder(tmp_path / "m"))
    pooler = folder.pooler(32)
    assert sorted(pooler) == ["bias", "weight"]
    assert torch.equal(pooler["weight"], folder.weights["bert.pooler.dense.weight"])
    assert folder.pooler(31) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_a_config_that_cannot_be_read_is_empty(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    folder = PretrainedFolder(tmp_path)
    assert folder.config == {} and folder.family is None
    assert folder.weight_files == []
    with pytest.raises(ConfigError, match=r"it holds none of model\.safetensors"):
        _ = folder.weights
