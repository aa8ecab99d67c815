"""The top layers of an encoder are drawn anew, and nothing else changes."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.builders import build_run
from tests.chinesebert_folder import write_folder

import bertune
from bertune.encoders.auto import layer_number
from bertune.encoders.load import load_encoder
from bertune.encoders.reinit import reinit_top_layers
from bertune.errors import ConfigError
from bertune.training.build import build_model, describe_drawn

OWN = ["bert", "roberta", "xlm-roberta", "camembert", "ernie", "electra", "distilbert"]
FOREIGN = ["mpnet", "deberta-v2", "megatron-bert", "modernbert"]
ROWS = [
    {"text": f"the {n} is {a}", "label": a} for n in ("dog", "cat", "tree", "car") for a in ("good", "bad")
]


def is_in(name, layers):
    number = layer_number(f".{name}")
    return number is not None and number in layers


def state_of(encoder):
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


@pytest.mark.parametrize("kind", [*OWN, *FOREIGN])
@pytest.mark.parametrize("count", [1, 2])
def test_only_the_top_layers_change(kind, count, encoder_of):
    encoder, _ = load_encoder(encoder_of(kind))
    before = state_of(encoder)
    torch.manual_seed(7)
    layers = reinit_top_layers(encoder, count)
    assert layers == list(range(2 - count, 2))
    for name, tensor in encoder.state_dict().items():
        if not is_in(name, layers):
            assert torch.equal(tensor, before[name]), name
        elif tensor.ndim > 1:
            assert 0.01 < float(tensor.std()) < 0.03, name
            assert not torch.equal(tensor, before[name]), name
        else:
            assert tensor.eq(0.0 if name.endswith("bias") else 1.0).all(), name


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_the_same_seed_gives_the_same_bits(kind, encoder_of):
    states = []
    for seed in (1, 1, 2):
        encoder, _ = load_encoder(encoder_of(kind))
        torch.manual_seed(seed)
        reinit_top_layers(encoder, 1)
        states.append(state_of(encoder))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_no_layer_is_drawn_anew_by_default(kind, encoder_of):
    encoder, _ = load_encoder(encoder_of(kind))
    before = state_of(encoder)
    assert reinit_top_layers(encoder, 0) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_layers_of_chinesebert(tmp_path):
    encoder, _ = load_encoder(write_folder(tmp_path / "encoder"))
    before = state_of(encoder)
    last = encoder.num_layers - 1
    assert reinit_top_layers(encoder, 1) == [last]
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith(f"layers.{last}.") for name in changed)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_more_layers_than_there_are_is_refused(kind, encoder_of):
    encoder, _ = load_encoder(encoder_of(kind))
    with pytest.raises(ConfigError, match=r"train.reinit_layers: 3 is more than the 2 layers of the encoder"):
        reinit_top_layers(encoder, 3)


def test_layers_that_share_their_weights_are_refused(encoder_of):
    encoder, _ = load_encoder(encoder_of("albert"))
    with pytest.raises(ConfigError, match=r"albert: all layers share their weights; leave it out"):
        reinit_top_layers(encoder, 1)


def test_a_pretrained_pooler_is_drawn_anew_with_the_layers(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    pooler = {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
    save_file({**weights, **pooler}, folder / "model.safetensors", {"format": "pt"})
    settings = {"task": "classify", "model": str(folder)}
    kept = build_run(settings, ROWS)
    drawn = build_run({**settings, "train": {"reinit_layers": 2}}, ROWS)
    assert kept.model.head.dense.bias.all() and not drawn.model.head.dense.bias.any()
    lines = build_model(drawn.run, drawn.task).describe()
    assert lines[0] == "layers 0 and 1 drawn anew (train.reinit_layers=2), and the head with them"
    assert lines[1].startswith("new, to be learnt: head.dense.weight, head.dense.bias, head.out.weight")


def test_a_kept_head_on_new_layers_is_refused():
    with pytest.raises(ConfigError, match="head=keep does not fit reinit_layers"):
        bertune.train("classify", ["train.head=keep", "train.reinit_layers=1"], quiet=True)


@given(st.integers(1, 12), st.integers(0, 12))
def test_the_line_about_layers_counts_them(count, first):
    line = describe_drawn(range(first, first + count))
    assert f"train.reinit_layers={count}" in line
    assert all(str(number) in line for number in range(first, first + count))
