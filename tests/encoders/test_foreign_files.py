"""Damaged and foreign files are named for what they are; prefixes of training programs come off."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertune.encoders.checkpoint_report import make_checkpoint_report
from bertune.encoders.load import check_folder, load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.encoders.weight_names import find_renaming
from bertune.errors import ConfigError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 17098108\n"
HTML = "<!DOCTYPE html>\n<html><head><title>Hugging Face</title></head></html>"
CONTENTS = {
    "a pointer": (LFS, "is a pointer of git LFS.*git lfs pull"),
    "a web page": (HTML, "is a web page"),
    "a web page after blanks": ("\n\n <html>", "is a web page"),
    "nothing": ("", "is empty"),
    "a message": ("Entry not found", "message of the Hub"),
    "a refusal": ('{"error":"Invalid credentials"}', "refusal of a server"),
    "gzip": (b"\x1f\x8b\x08\x00aaaa", "packed by gzip"),
    "zeros": (b"\x00" * 4096, "holds zeros"),
}


@pytest.fixture
def folder(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "m")
    return tmp_path / "m"


def put(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_that_is_something_else(name, kind, folder):
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    content, message = CONTENTS[kind]
    put(folder / name, content)
    for call in (load_encoder, lambda path: check_folder(PretrainedFolder(path))):
        with pytest.raises(ConfigError, match=rf"{name}.*{message}"):
            call(folder)
    lacks = "; ".join(make_checkpoint_report(folder)["lacks"])
    assert name in lacks


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_cut_safetensors(folder, kept):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(
        ConfigError, match=r"model\.safetensors is cut: .* bytes are there; download it again"
    ):
        load_encoder(folder)
    path.write_bytes(content[:20])
    with pytest.raises(ConfigError, match="is cut"):
        load_encoder(folder)
    assert any("is cut" in line for line in make_checkpoint_report(folder)["lacks"])


def test_a_cut_file_of_torch(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ConfigError, match="is cut or damaged; download it again"):
        load_encoder(folder)


def test_a_whole_model_as_a_file_of_torch(folder):
    (folder / "model.safetensors").unlink()
    torch.save(torch.nn.Linear(2, 2), folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"holds Python objects besides tensors.*state_dict\(\)"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_model.h5", "weights of TensorFlow: convert them once.*from_tf=True"),
        ("flax_model.msgpack", "weights of Flax: convert them once.*from_flax=True"),
        ("bert_model.ckpt.index", "weights of TensorFlow 1"),
        ("adapter_model.safetensors", "an adapter .PEFT. without the model"),
        ("model.onnx", "a graph for ONNX"),
        ("last.ckpt", "if last.ckpt holds them, rename it to pytorch_model.bin"),
        ("model.fp16.safetensors", "if model.fp16.safetensors holds them, rename it to model.safetensors"),
    ],
)
def test_weights_of_other_programs(folder, name, message):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ConfigError, match=message):
        load_encoder(folder)
    assert any("weights" in line for line in make_checkpoint_report(folder)["lacks"])


PREFIXES = [
    "module.",
    "model.",
    "_orig_mod.",
    "module.model.",
    "model.bert_model_.",
    "0.auto_model.",
    "text_encoder.",
]


@pytest.mark.parametrize("inner", ["bert.", ""])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_training_programs(folder, tiny, prefix, inner):
    expected = load_encoder(tiny)[0].state_dict()
    weights = load_file(folder / "model.safetensors")
    bert = {name: tensor for name, tensor in weights.items() if name.startswith("bert.")}
    named = {prefix + inner + name.removeprefix("bert."): tensor.clone() for name, tensor in bert.items()}
    save_file({**named, f"{prefix}classifier.weight": torch.zeros(2, 32)}, folder / "model.safetensors")
    encoder, report = load_encoder(folder)
    assert report.missing_keys == [] and report.unexpected_keys == ["classifier.weight"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.state_dict().items())
    assert report.notes == [
        f"weights: the prefix {prefix!r}, as training programs write it, was taken off the names"
    ]
    found = make_checkpoint_report(folder)
    assert found["lacks"] == [] and found["notes"] == report.notes


@pytest.mark.parametrize("kind", ["bert", "albert", "mpnet", "deberta-v2"])
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "module"])
def test_wrapped_weights(encoder_of, tmp_path, kind, wrapper):
    """A checkpoint of Lightning, or of a loop of somebody's own."""
    folder = tmp_path / "m"
    shutil.copytree(encoder_of(kind), folder)
    expected = load_encoder(encoder_of(kind))[0].hf_state_dict()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    named = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"epoch": 3, wrapper: named, "optimizer": {"state": {}}}, folder / "pytorch_model.bin")
    encoder, report = load_encoder(folder)
    found = encoder.hf_state_dict()
    assert report.missing_keys == []
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert f"{wrapper}.module." in report.notes[0]


def test_names_of_wrapped_modules_inside(folder, tiny):
    weights = load_file(folder / "model.safetensors")
    named = {
        f"_orig_mod.{name}".replace("layer.0.", "layer.0._checkpoint_wrapped_module."): tensor
        for name, tensor in weights.items()
    }
    save_file(named, folder / "model.safetensors")
    encoder, report = load_encoder(folder)
    expected = load_encoder(tiny)[0].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.state_dict().items())
    assert "names of wrapped modules" in report.notes[0]


def test_several_encoders_in_one_file(folder):
    weights = load_file(folder / "model.safetensors")
    named = {f"{side}.{name}": t.clone() for side in ("query", "passage") for name, t in weights.items()}
    save_file(named, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"hold 2 encoders, 'passage.*'query"):
        load_encoder(folder)


def test_usual_names_are_left_alone(encoder_of):
    for kind in ("bert", "roberta", "distilbert", "albert", "electra"):
        assert not PretrainedFolder(encoder_of(kind)).renaming
    assert not find_renaming(["model.embeddings.tok.weight", "model.layers.0.w"], "", "model")
    assert find_renaming(["module.model.a.w", "module.model.b.w"], "", "model").prefix == "module."
    assert not find_renaming(["embeddings.w", "encoder.w"], "", "bert")


def test_config_that_is_no_json(folder):
    (folder / "config.json").write_text('{"model_type": "bert",')
    with pytest.raises(ConfigError, match=r"config\.json: is no JSON: .*line 1"):
        load_encoder(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json: holds no JSON object"):
        load_encoder(folder)


def test_an_index_whose_parts_are_pointers(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    part = "model-00001-of-00001.safetensors"
    index = {"weight_map": dict.fromkeys(weights, part)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    put(folder / part, LFS)
    with pytest.raises(ConfigError, match=rf"{part} is a pointer of git LFS"):
        load_encoder(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantized_weights_are_not_taken_for_numbers(folder, dtype):
    weights = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file({**weights, name: weights[name].to(dtype)}, folder / "model.safetensors")
    with pytest.raises(
        ConfigError, match=r"are quantized, without a word in config\.json: .*output\.dense\.weight"
    ):
        load_encoder(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_and_double_weights_are_read(folder, dtype):
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, folder / "model.safetensors")
    assert load_encoder(folder)[1].missing_keys == []
