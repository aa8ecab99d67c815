"""The head for masked tokens: the numbers of transformers, its weights from and to checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import chinesebert_folder
from tests.conftest import make_encoder
from transformers import AutoModelForMaskedLM, AutoTokenizer

from bertune.artifact.artifact import Artifact
from bertune.artifact.write import write_artifact
from bertune.commands.train import prepare
from bertune.config.schema import RunConfig
from bertune.data.dataset import EncodedDataset
from bertune.encoders.families.registry import FAMILIES
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ConfigError
from bertune.heads.masked_lm import masked_lm_head
from bertune.heads.model import Model
from bertune.kernels.precision import FP32
from bertune.tasks.base.head_outputs import MASKED_TOKENS, HeadOutputs
from bertune.tasks.base.task import Task
from bertune.training.build import BuiltModel, build_model
from bertune.types import Batch, Columns, EncodedExample, Numerics

OWN = [name for name, family in FAMILIES.items() if not family.bertune_only_reason]
OTHERS = [
    "albert", "mpnet", "megatron-bert", "deberta", "deberta-v2", "modernbert", "convbert", "big_bird", "fnet",
    "mra", "nystromformer", "roformer", "yoso", "data2vec-text", "longformer", "roberta-prelayernorm",
    "xlm-roberta-xl",
]  # fmt: skip
TEXTS = ["good [MASK] is a big [MASK]", "[MASK]", "你 [MASK] 好 dog", "the cat was not red"]
AS_TEXTS = [(text,) for text in TEXTS]


class Masked(Task):
    """As much of a task as the head needs."""

    columns = Columns(("text",), (), "label")

    def head(self, encoder, pretrained):
        return masked_lm_head(encoder)

    def head_outputs(self):
        return HeadOutputs(MASKED_TOKENS)

    def hf_config(self, head):
        return head.hf_config()

    def read(self, row): ...
    def fit(self, examples, note): ...
    def encode(self, examples, tokenizer): ...
    def loss(self, out, batch): ...
    def decode(self, out, batch): ...
    def score(self, predictions, examples): ...
    def describe(self): ...


def run_of(folder: Path, **train: object) -> RunConfig:
    return RunConfig.model_validate({"task": "pretrain", "model": str(folder), "train": train})


def build(folder: Path, **train: object) -> BuiltModel:
    run = run_of(folder, **train)
    torch.manual_seed(0)
    return build_model(run, Masked(Masked.Options(), run.data))


def masked_batch(built: BuiltModel) -> Batch:
    encodings = built.tokenizer.encode(AS_TEXTS)
    dataset = EncodedDataset([EncodedExample((encoding,)) for encoding in encodings])
    batch = dataset.get_batch(range(len(encodings)), list)
    mask_id = encodings[1].input_ids[1]  # the second text is a mask and nothing else
    places = torch.nonzero(batch.ragged.input_ids == mask_id).flatten()
    return replace(batch, target=torch.stack([places, torch.zeros_like(places)]))


def logits(built: BuiltModel, batch: Batch | None = None) -> torch.Tensor:
    model = built.model.eval()
    with torch.no_grad():
        return model(batch or masked_batch(built)).logits()


def logits_of_transformers(folder: Path) -> torch.Tensor:
    """The scores of the masked tokens, and a check that the folder has each weight once and no other."""
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for text in TEXTS:  # one by one: some architectures look at the padding
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores.append(model.eval()(input_ids=ids).logits[ids == tokenizer.mask_token_id])
    return torch.cat(scores)


def save(built: BuiltModel, folder: Path) -> Path:
    run = run_of(folder)
    task = Masked(Masked.Options(), run.data)
    write_artifact(Artifact(built.model, task, built.tokenizer, run, {"max_length": 64}), folder)
    return folder


def changed_copy(folder: Path, to: Path, change=lambda state: state, **config: object) -> Path:
    shutil.copytree(folder, to)
    settings = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**settings, **config}))
    state = change(load_file(to / "model.safetensors"))
    save_file(dict(state), to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("kind", [*OWN, *OTHERS])
def test_logits_are_those_of_transformers(kind, encoder_of, tmp_path):
    folder = encoder_of(kind)
    built = build(folder)
    assert built.describe() == ["new, to be learnt: none"]
    expected = logits_of_transformers(folder)
    torch.testing.assert_close(logits(built), expected, atol=2e-5, rtol=1e-4)
    with torch.no_grad():  # a trained model: every weight has moved
        for parameter in built.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    trained = logits(built)
    assert not torch.allclose(trained, expected, atol=1e-2)
    saved = save(built, tmp_path / "saved")
    assert json.loads((saved / "config.json").read_text())["architectures"][0].endswith("ForMaskedLM")
    torch.testing.assert_close(logits_of_transformers(saved), trained, atol=2e-5, rtol=1e-4)
    (saved / "bertune.json").unlink()
    torch.testing.assert_close(logits(build(saved)), trained, atol=0, rtol=0)


NORM = "cls.predictions.transform.LayerNorm"


@pytest.mark.parametrize(
    ("kind", "activation"),
    [("bert", "relu"), ("distilbert", "relu"), ("electra", "relu"), ("roberta", "silu")],
)
def test_the_activation_is_the_one_of_the_class(kind, activation, tmp_path):
    name = "activation" if kind == "distilbert" else "hidden_act"
    folder = make_encoder(tmp_path / "model", kind, **{name: activation})
    torch.testing.assert_close(logits(build(folder)), logits_of_transformers(folder), atol=2e-5, rtol=1e-4)


def test_an_activation_that_nobody_computes_is_refused(encoder_of):
    encoder = build(encoder_of("bert")).model.encoder
    encoder._hf_config = {**encoder._hf_config, "hidden_act": "mish"}
    with pytest.raises(ConfigError, match=r"activation 'mish'.*'gelu'"):
        masked_lm_head(encoder)


def test_without_masked_tokens_there_is_nothing_to_score(encoder_of):
    built = build(encoder_of("bert"))
    batch = masked_batch(built)
    none = torch.zeros(2, 0, dtype=torch.int64)
    for empty in (replace(batch, target=None), replace(batch, target=none)):
        out = built.model(empty).logits()
        assert out.shape == (0, len(built.model.encoder.word_embeddings()))
        out.sum().backward()


def test_the_word_table_learns_through_the_decoder(encoder_of):
    built = build(encoder_of("bert"))
    assert not any("word" in name or "decoder" in name for name, _ in built.model.head.named_parameters())
    batch = masked_batch(built)
    loss = torch.nn.functional.cross_entropy(built.model(batch).logits(), batch.target[1] + 7)
    loss.backward()
    gradient = built.model.encoder.word_embeddings().grad
    unused = torch.ones(len(gradient), dtype=torch.bool)
    unused[batch.ragged.input_ids] = False
    assert (gradient[unused].abs().sum(1) > 0).all()  # only the decoder reads these rows
    assert all(parameter.grad is not None for parameter in built.model.parameters())


def test_features_are_computed_in_the_encoders_precision(encoder_of):
    for kind in ("bert", "mpnet"):
        built = build(encoder_of(kind))
        exact = logits(built)
        built.model.encoder.set_numerics(Numerics("bf16"))
        with torch.no_grad():
            out = built.model.eval()(masked_batch(built))
        assert (out.features.dtype, out.word_table.dtype, out.bias.dtype) == (
            torch.bfloat16, torch.float32, torch.float32,
        )  # fmt: skip
        assert out.logits().dtype == torch.float32
        torch.testing.assert_close(out.logits(), exact, atol=0.05, rtol=0.05)
        built.model.encoder.set_numerics(FP32)


def old_names(state):
    """As TensorFlow's checkpoints are converted."""

    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    return {old(name): tensor for name, tensor in state.items()}


def with_decoder(state):
    table = state["bert.embeddings.word_embeddings.weight"]
    return {**state, "cls.predictions.decoder.weight": table.clone()}


def bias_of_the_decoder_alone(state):
    return {name.replace("predictions.bias", "predictions.decoder.bias"): t for name, t in state.items()}


def bias_of_the_decoder_besides(state):
    bias = state["cls.predictions.bias"]
    return {**state, "cls.predictions.decoder.bias": bias, "cls.predictions.bias": torch.zeros_like(bias)}


def of_a_training_program(state):
    return {f"module.model.{name}": tensor for name, tensor in with_decoder(state).items()}


@pytest.mark.parametrize(
    "change",
    [old_names, with_decoder, bias_of_the_decoder_alone, bias_of_the_decoder_besides, of_a_training_program],
)
def test_other_names_of_the_same_head(change, tiny, tmp_path):
    built = build(changed_copy(tiny, tmp_path / "other", change))
    assert built.describe() == ["new, to be learnt: none"]
    assert torch.equal(logits(built), logits(build(tiny)))


def test_an_equal_decoder_counts_as_the_word_table(tiny, tmp_path):
    folder = changed_copy(tiny, tmp_path / "other", with_decoder, tie_word_embeddings=False)
    built = build(folder)
    assert torch.equal(logits(built), logits(build(tiny)))
    saved = save(built, tmp_path / "saved")
    torch.testing.assert_close(logits_of_transformers(saved), logits(built), atol=2e-5, rtol=1e-4)


def change_decoder(state):
    state = with_decoder(state)
    state["cls.predictions.decoder.weight"][3, 2] += 1e-3
    return state


def test_a_decoder_of_its_own_is_refused(tiny, tmp_path):
    for number, tied in enumerate((True, False)):
        folder = changed_copy(tiny, tmp_path / str(number), change_decoder, tie_word_embeddings=tied)
        with pytest.raises(ConfigError, match=r"decoder of its own.*96 x 32.*train.head=new") as caught:
            build(folder)
        assert ("tie_word_embeddings: false" in str(caught.value)) is not tied
        assert "new, to be learnt: head.bias, head.dense.weight" in build(folder, head="new").describe()[0]


@pytest.mark.parametrize(
    ("name", "shape", "numbers"),
    [
        ("cls.predictions.bias", (95,), "cls.predictions.bias is 95, and 96 is needed"),
        ("cls.predictions.decoder.weight", (95, 32), r"\(95 x 32\) is not the word table \(96 x 32\)"),
        (f"{NORM}.weight", (16,), "LayerNorm.weight is 16, and 32 is needed"),
        ("cls.predictions.transform.dense.weight", (32, 16), "32 x 16, and 32 x 32 is needed"),
    ],
)
def test_a_head_of_another_size_is_refused(name, shape, numbers, tiny, tmp_path):
    folder = changed_copy(tiny, tmp_path / "other", lambda state: {**state, name: torch.zeros(shape)})
    with pytest.raises(ConfigError, match=numbers):
        build(folder)


def test_what_is_new_is_said(tiny, tmp_path):
    def without_norm(state):
        return {name: tensor for name, tensor in state.items() if not name.startswith(NORM)}

    def without_head(state):
        return {name: tensor for name, tensor in state.items() if not name.startswith("cls")}

    part = changed_copy(tiny, tmp_path / "part", without_norm)
    assert build(part).describe() == ["new, to be learnt: head.norm.weight, head.norm.bias"]
    with pytest.raises(ConfigError, match=r"train.head=keep.*'norm.weight', 'norm.bias'"):
        build(part, head="keep")
    assert build(tiny, head="keep").describe() == ["new, to be learnt: none"]
    none = build(changed_copy(tiny, tmp_path / "none", without_head)).model.head
    assert none.bias.count_nonzero() == 0 and none.norm.weight.eq(1).all()
    assert 0.01 < none.dense.weight.std() < 0.03


def test_an_architecture_without_names_has_a_head_of_bertune(encoder_of, tmp_path):
    folder = encoder_of("ibert")
    built = build(folder)
    assert built.model.head.hf_incompatibility() and len(built.describe()[0].split(", ")) >= 5
    saved = save(built, tmp_path / "saved")
    assert json.loads((saved / "config.json").read_text())["architectures"] == ["IBertModel"]
    assert "bertune_head.bias" in load_file(saved / "model.safetensors")
    (saved / "bertune.json").unlink()
    again = build(saved)
    assert again.describe() == ["new, to be learnt: none"]
    torch.testing.assert_close(logits(again), logits(built), atol=0, rtol=0)


@pytest.fixture
def chinesebert(tmp_path):
    state = chinesebert_folder.weights()
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    return chinesebert_folder.write_folder(tmp_path / "chinesebert", state=state)


def test_chinesebert_keeps_the_names_of_its_release(chinesebert, tmp_path):
    built = build(chinesebert)
    assert "new, to be learnt: none" in built.describe()
    saved = load_file(save(built, tmp_path / "saved") / "model.safetensors")
    before = PretrainedFolder(chinesebert).weights
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert before.keys() - saved.keys() <= {*tied, "bert.embeddings.position_ids"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in saved.items())
    assert "bert.pooler.dense.weight" in saved
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["architectures"] == ["ChineseBertForMaskedLM"]


def with_pooler(state):
    torch.manual_seed(3)
    pooler = {"bert.pooler.dense.weight": torch.randn(32, 32), "bert.pooler.dense.bias": torch.randn(32)}
    return {**state, **pooler}


def test_a_pooler_is_left_out_and_that_is_said(tiny, tmp_path):
    folder = changed_copy(tiny, tmp_path / "pooled", with_pooler)
    built = build(folder)
    assert any("pooler is not saved" in note for note in built.report.notes)
    assert not any(
        "pooler" in name for name in load_file(save(built, tmp_path / "saved") / "model.safetensors")
    )
    assert not any("pooler" in note for note in build(tiny).report.notes)


def test_the_result_is_an_encoder_for_other_tasks(tiny, tmp_path):
    built = build(tiny)
    saved = save(built, tmp_path / "saved")
    (saved / "bertune.json").unlink()
    run, task = prepare({"task": "regress", "model": str(saved)}, ())
    task.num_texts = 1
    regress = build_model(run, task)
    assert regress.describe()[0] == (
        "new, to be learnt: head.dense.weight, head.dense.bias, head.out.weight, head.out.bias"
    )
    ragged = masked_batch(built).ragged
    with torch.no_grad():
        assert torch.equal(regress.model.eval().encoder(ragged), built.model.eval().encoder(ragged))


def test_a_plain_head_still_gets_states_in_fp32(encoder_of):
    class Plain(torch.nn.Module):
        def forward(self, states, batch):
            return states.dtype

    built = build(encoder_of("bert"))
    built.model.encoder.set_numerics(Numerics("bf16"))
    assert Model(built.model.encoder, Plain())(masked_batch(built)) == torch.float32
