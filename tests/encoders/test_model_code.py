"""Code that a folder brings is never run, and nobody is asked, unless `model_code=trusted` is set."""

from __future__ import annotations

import builtins
import json
import shutil

import pytest
import torch
from tests.conftest import make_encoder

import bertune
from bertune.artifact.read import read_artifact
from bertune.encoders.load import build_encoder, check_folder, load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ArtifactError, ConfigError

CONFIGURATION = """
from transformers import BertConfig

class TwiceConfig(BertConfig):
    model_type = "twice"
"""
MODELING = """
from pathlib import Path
from transformers import BertModel
from .configuration_twice import TwiceConfig

class TwiceModel(BertModel):
    config_class = TwiceConfig

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **kwargs):
        out = super().forward(input_ids=input_ids, attention_mask=attention_mask)
        out.last_hidden_state = 2 * out.last_hidden_state
        return out
"""
ROWS = [{"text": text, "label": label} for text, label in [("good dog", "+"), ("bad cat", "-")] * 6]
OWN = {"AutoConfig": "configuration_twice.TwiceConfig", "AutoModel": "modeling_twice.TwiceModel"}
JINA = {
    "AutoConfig": "some/code--configuration_bert.JinaBertConfig",
    "AutoModel": "some/code--modeling_bert.JinaBertModel",
}
AUTO_MAPS = {
    "jina": ("bert", JINA),
    "dnabert": ("bert", {"AutoModelForMaskedLM": "bert_layers.BertForMaskedLM"}),
    "own type": ("twice", OWN),
    "decoder": ("qwen2", {"AutoModel": "modeling_qwen.Qwen2Model"}),
}
"""Types and `auto_map`s, as on the Hub."""


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch):
    def refuse(*_):
        raise AssertionError("standard input was read")

    monkeypatch.setattr(builtins, "input", refuse)


def with_code(tiny, folder, model_type, auto_map, *, files=True):
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": model_type, "auto_map": auto_map, "architectures": ["TwiceModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    if files:
        (folder / "configuration_twice.py").write_text(CONFIGURATION)
        (folder / "modeling_twice.py").write_text(MODELING)
    return folder


@pytest.mark.parametrize("kind", AUTO_MAPS)
def test_a_folder_with_code_is_refused(kind, tiny, tmp_path):
    folder = with_code(tiny, tmp_path / "m", *AUTO_MAPS[kind])
    for call in (load_encoder, build_encoder, lambda path: check_folder(PretrainedFolder(path))):
        with pytest.raises(ConfigError, match=r"Python code of its own \(auto_map.*set model_code=trusted"):
            call(folder)


def test_what_it_asks_for_is_said_too(tiny, tmp_path):
    folder = with_code(tiny, tmp_path / "m", *AUTO_MAPS["jina"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "position_embedding_type": "alibi"}))
    asked = (
        "Without that code, config.json asks for position_embedding_type='alibi', which would not be computed"
    )
    with pytest.raises(ConfigError, match=f"model_code=trusted. {asked}"):
        load_encoder(folder)


def test_it_is_refused_before_data_is_read(tiny, tmp_path):
    folder = with_code(tiny, tmp_path / "m", *AUTO_MAPS["dnabert"])
    settings = {"task": "classify", "model": str(folder), "data": {"train": "no-such-file.csv"}}
    with pytest.raises(ConfigError, match="model_code=trusted"):
        bertune.train(settings, quiet=True)


def test_what_transformers_has_taken_over_is_run_by_transformers(tmp_path):
    folder = make_encoder(tmp_path / "m", "nomic_bert")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"}
    (folder / "config.json").write_text(json.dumps(config))
    encoder, report = load_encoder(folder)
    assert encoder.hf_class == "NomicBertModel"
    assert "is not run: transformers' own is" in report.notes[0]


def test_auto_map_of_a_tokenizer_alone_says_nothing_of_the_encoder(tiny, tmp_path):
    folder = with_code(tiny, tmp_path / "m", "bert", {"AutoTokenizer": ["tokenization.T", None]})
    assert load_encoder(folder)[1].notes == []


@pytest.fixture
def trained(tiny, tmp_path, write):
    """A run that trusts the code."""
    folder = with_code(tiny, tmp_path / "m", *AUTO_MAPS["own type"])
    settings = {
        "task": "classify",
        "model": str(folder),
        "model_code": "trusted",
        "out": str(tmp_path / "out"),
        "data": {"train": write("rows.jsonl", ROWS), "dev_fraction": 0.4},
        "train": {"max_steps": 2, "precision": "fp32"},
        "options": {"pooling": "mean"},
    }
    bertune.train(settings, quiet=True)
    shutil.rmtree(folder)  # the result needs it no more
    return tmp_path / "out"


def test_trusted_code_is_run_and_saved(trained, tmp_path):
    assert {"configuration_twice.py", "modeling_twice.py"} <= {path.name for path in trained.iterdir()}
    assert json.loads((trained / "config.json").read_text())["auto_map"] == AUTO_MAPS["own type"][1]
    artifact = read_artifact(trained, model_code="trusted")
    assert artifact.model.encoder.hf_class == "TwiceModel"
    with pytest.raises(
        ArtifactError, match=r"Python code of its own.*--model-code trusted, or bertune\.load"
    ):
        bertune.load(trained)
    with pytest.raises(ConfigError, match="model_code: 'yes' is neither"):
        bertune.load(trained, model_code="yes")
    first = bertune.load(trained, model_code="trusted").predict(["good dog", "bad"])
    assert first == bertune.load(trained, model_code="trusted").predict(["good dog", "bad"])


def test_a_saved_folder_opens_elsewhere(trained):
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(str(trained), trust_remote_code=True).eval()
    ours = read_artifact(trained, model_code="trusted").model.encoder
    ids = torch.tensor([[2, 20, 21, 3]])
    from bertune.types import Ragged

    ragged = Ragged(ids[0], torch.zeros_like(ids[0]), torch.tensor([0, 4]), (4,))
    with torch.no_grad():
        torch.testing.assert_close(ours(ragged), theirs(ids).last_hidden_state[0])


def test_an_older_folder_of_bertune_whose_config_names_code(tiny, tmp_path, write):
    """Its encoder was bertune's own all the same, and its weights are too."""
    settings = {
        "task": "classify",
        "model": str(tiny),
        "out": str(tmp_path / "out"),
        "data": {"train": write("rows.jsonl", ROWS), "dev_fraction": 0.4},
        "train": {"max_steps": 1},
    }
    bertune.train(settings, quiet=True)
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "a.B"}}))
    assert len(bertune.load(tmp_path / "out").predict(["good"])) == 1
    again = {**settings, "model": str(tmp_path / "out"), "out": str(tmp_path / "again")}
    bertune.train(again, quiet=True)
    assert "auto_map" not in json.loads((tmp_path / "again" / "config.json").read_text())
