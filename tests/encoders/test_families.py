"""A family is one module: everything about it is found through its `Family`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.encoders.test_load import ragged

import bertune
from bertune.config.schema import DataConfig
from bertune.encoders import architectures
from bertune.encoders.bert import Bert
from bertune.encoders.checkpoint_report import format_checkpoint_report, make_checkpoint_report
from bertune.encoders.families import registry
from bertune.encoders.families.glyphs import GlyphOptions
from bertune.encoders.load import build_encoder, load_encoder
from bertune.encoders.pretrained import PretrainedFolder

MODULE = '''
from dataclasses import dataclass

from bertune.encoders.families.family import BERT_DEFAULTS, BERT_EMBEDDING_NAMES, Family, HeadSpec


@dataclass(frozen=True)
class ScaledFamily(Family):
    """BERT whose summed embeddings are doubled, in folders that call themselves "bert"."""

    def recognizes(self, config, folder):
        return "embedding_scale" in config

    def encoder_class(self):
        from bertune.encoders.bert import Bert

        class ScaledBert(Bert):
            def forward(self, ragged, output="last"):
                return super().forward(ragged, output) * self.hf_config()["embedding_scale"]

        return ScaledBert

    def after_load(self, encoder, missing_keys, folder, glyphs):
        with_bias = [name for name in missing_keys if name == "embeddings.norm.bias"]
        missing_keys[:] = [name for name in missing_keys if name not in with_bias]
        return [f"scaled: {folder.path.name}, {len(with_bias)} filled"]

    def add_to_report(self, report, folder):
        report["scale"] = folder.config["embedding_scale"]

    def format_report(self, report):
        return [f"scale: {report['scale']}"]


SCALED = ScaledFamily(
    "scaled",
    "ScaledModel",
    HeadSpec("top.dense", "top.out", "gelu", True, ("top_dropout",), "ScaledForSequenceClassification"),
    token_dropout_keys=("top_dropout",),
    defaults={**BERT_DEFAULTS, "width": 48, "embedding_scale": 1.0},
    attribute_map={"hidden_size": "width"},
    overrides=lambda settings: {"type_vocab_size": 0},
    positions_after_padding=True,
    embedding_names={**BERT_EMBEDDING_NAMES, "word_embeddings": "words", "norm": "start_norm"},
    layers_name="blocks",
    bertune_only_reason="nobody else has it",
)
'''


@pytest.fixture
def scaled(tmp_path, monkeypatch):
    """A family written to one file, and entered in the registry."""
    file = tmp_path / "scaled.py"
    file.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("scaled", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scaled", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(registry.FAMILIES, "scaled", module.SCALED)
    return module.SCALED


@pytest.fixture
def folder(scaled, tiny, tmp_path):
    """A folder of the made-up family, with the weights of a tiny BERT under other names."""
    new = tmp_path / "model"
    new.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (new / name).write_bytes((tiny / name).read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    config |= {"embedding_scale": 2.0, "width": config.pop("hidden_size"), "pad_token_id": 0}
    (new / "config.json").write_text(json.dumps(config))
    state = {name.removeprefix("bert."): t for name, t in load_file(tiny / "model.safetensors").items()}
    renames = {
        "embeddings.word_embeddings": "words",
        "embeddings.LayerNorm": "start_norm",
        "encoder.layer": "blocks",
    }
    for before, after in renames.items():
        state = {name.replace(before, after): tensor for name, tensor in state.items()}
    del state["start_norm.bias"]
    save_file({f"scaled.{name}": tensor for name, tensor in state.items()}, new / "model.safetensors")
    return new


def test_a_new_family_loads(folder, tiny, scaled):
    encoder, report = load_encoder(folder, GlyphOptions(trainable=True))
    assert isinstance(encoder, Bert) and type(encoder).__name__ == "ScaledBert"
    assert (encoder.model_type, encoder.prefix, encoder.hf_class) == ("scaled", "scaled.", "ScaledModel")
    assert encoder.max_positions == 63 and encoder.config.type_vocab_size == 0
    assert report.missing_keys == []
    assert "embeddings.token_type_embeddings.weight" in report.unexpected_keys
    assert report.notes[0] == "scaled: model, 1 filled"
    assert report.notes[1].startswith("train.glyphs and train.glyph_font have no effect")
    assert {"words.weight", "start_norm.weight", "blocks.0.attention.self.query.weight"} <= (
        encoder.hf_state_dict().keys()
    )
    plain = load_encoder(tiny)[0]
    assert torch.equal(encoder.layers[1].query.weight, plain.layers[1].query.weight)


def test_a_new_family_computes_with_its_own_encoder(folder):
    encoder = load_encoder(folder)[0].eval()
    batch = ragged([5, 3]).get_batch(range(2), list).ragged
    with torch.no_grad():
        assert torch.equal(encoder(batch), 2 * Bert.forward(encoder, batch))


def test_a_new_family_is_built_without_weights_and_filled(folder):
    weights = load_encoder(folder)[0].hf_state_dict()
    encoder = build_encoder(folder)
    encoder.load_hf_state_dict(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.hf_state_dict().items())


def test_a_new_family_has_its_head_and_its_reason(scaled):
    assert architectures.get_head_spec("scaled") is scaled.head
    assert architectures.token_dropout_keys("scaled") == ("top_dropout",)
    assert architectures.token_classification_class("scaled") == "ScaledForTokenClassification"
    assert architectures.bertune_only_reason("scaled") == "nobody else has it"


def test_a_new_family_is_in_the_report(folder):
    report = make_checkpoint_report(folder)
    assert report["kind"] == "scaled" and report["read_by"] == "bertune's own BERT"
    assert report["encoder"]["missing"] == ["scaled.start_norm.bias"]
    assert "scale: 2.0" in format_checkpoint_report(report)
    assert report["tokenizer"]["max_length"] == 63


def test_a_new_family_is_not_opened_by_transformers(folder):
    (folder / "model.safetensors").unlink()
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(
        bertune.ConfigError, match=r"holds no scaled that can be read: no weight 'words\.weight'"
    ):
        load_encoder(folder)


def test_its_tokenizer_is_that_of_its_kind(folder, monkeypatch, scaled):
    pretrained = PretrainedFolder(folder)
    assert type(pretrained.load_tokenizer(DataConfig())).__name__ == "Tokenizer"
    assert pretrained.config["model_type"] == "scaled"


def test_families_load_no_torch():
    code = (
        "import sys\nfrom bertune.encoders.families.registry import FAMILIES\n"
        "import bertune.encoders.architectures, bertune.encoders.pretrained\n"
        "print(len(FAMILIES), sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "8 []"


@pytest.mark.parametrize("model_type", [None, 3, ["bert"], {}, "mamba"])
def test_no_family(model_type):
    assert registry.get_family(model_type) is None
    assert not registry.is_native({"model_type": model_type})
