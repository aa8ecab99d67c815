"""Folders of encoders that begin from nothing."""

from __future__ import annotations

import json

import pytest
import torch

from bertune.config.new_encoder import NewEncoder
from bertune.data.dataset import EncodedDataset
from bertune.encoders import new
from bertune.encoders.load import load_encoder
from bertune.encoders.new import make_encoder_folder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ConfigError
from bertune.types import EncodedExample

TEXTS = ["the dog was in the green house", "北京是中国的首都。", "a cat and a dog"] * 3
SIZES = NewEncoder(layers=2, hidden_size=64, heads=4, vocab_size=80, max_positions=32)


def made(folder, options=SIZES, seed=1, texts=TEXTS):
    make_encoder_folder(folder, texts, options, seed, lambda _: None)
    return folder


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_it_is_a_pretrained_folder_as_any_other(kind, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = PretrainedFolder(made(tmp_path / "encoder", SIZES.model_copy(update={"tokenizer": kind})))
    encoder, report = load_encoder(folder)
    assert (report.missing_keys, report.unexpected_keys, report.notes) == ([], [], [])
    tokenizer = folder.load_tokenizer()
    assert (folder.max_positions, tokenizer.max_length) == (32, 32)
    theirs = AutoModel.from_pretrained(folder.path, add_pooling_layer=False).eval()
    text = "a dog in 北京"
    inputs = AutoTokenizer.from_pretrained(folder.path)(text, return_tensors="pt")
    [encoding] = tokenizer.encode([(text,)])
    assert list(encoding.input_ids) == inputs.input_ids[0].tolist()
    ragged = EncodedDataset([EncodedExample((encoding,))]).get_batch(range(1), list).ragged
    with torch.no_grad():
        ours, expected = encoder.eval()(ragged), theirs(**inputs).last_hidden_state[0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_weights_are_drawn_by_the_rule_of_bert_and_the_seed(tmp_path):
    before = torch.get_rng_state()
    one, same, other = (
        PretrainedFolder(made(tmp_path / str(n), seed=seed)) for n, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"):
        assert (one.path / name).read_bytes() == (same.path / name).read_bytes()
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        if weight.ndim > 1:
            assert abs(float(weight[1:].std()) - 0.02) < 0.006, name
            assert not torch.equal(weight, other.weights[name])
        else:
            assert torch.equal(weight, torch.full_like(weight, float(name.endswith("LayerNorm.weight")))), (
                name
            )
    assert not one.weights["embeddings.word_embeddings.weight"][0].any()  # [PAD]


def test_sizes_left_out_follow_from_the_width():
    options = NewEncoder(hidden_size=384)
    assert (options.num_heads, options.feed_forward_size) == (6, 1536)
    assert NewEncoder(hidden_size=7).num_heads == 1
    assert NewEncoder(hidden_size=7).feed_forward_size == 28


def test_a_folder_is_whole_or_not_there(tmp_path, monkeypatch):
    folder = made(tmp_path / "encoder")
    before = json.loads((folder / "config.json").read_text())

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new, "write_tensors", fail)
    with pytest.raises(ConfigError, match="cannot be written: No space left"):
        made(folder, NewEncoder(layers=1, hidden_size=32, vocab_size=80))
    assert json.loads((folder / "config.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    with pytest.raises(ConfigError, match="No space left"):
        made(tmp_path / "out" / "encoder")
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(new, "draw_encoder", fail)
    with pytest.raises(ConfigError, match=r"does not fit into memory.*width 64.*smaller"):
        made(tmp_path / "out" / "encoder")
    assert not (tmp_path / "out").exists()
