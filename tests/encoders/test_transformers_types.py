"""Encoders of transformers: those that depend on padding, those in fp32 alone, those that are refused."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from tests.conftest import SMALL, VOCABULARY, make_encoder
from tests.encoders.test_load import LENGTHS, ragged

import bertune
from bertune.artifact.read import read_artifact
from bertune.encoders.architectures import (
    HEADS,
    reason_for_own_token_head,
    token_classification_class,
)
from bertune.encoders.auto_load import check_auto_folder, load_auto_encoder, reason_to_refuse
from bertune.encoders.load import check_folder, load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.encoders.tried import TRIED
from bertune.errors import ConfigError
from bertune.types import Numerics

DEPEND_ON_PADDING = {
    "fnet": {},
    "convbert": {"num_groups": 1, "embedding_size": 32},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4},
    "yoso": {},
    "big_bird": {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1},
    "mobilebert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
}
ROWS = [{"text": text, "label": label} for text, label in [("good dog", "+"), ("bad cat is", "-")] * 6]


def states_alone(folder, batch):
    """One row at a time, by a new model each: BigBird changes itself when a row is short."""
    from transformers import AutoModel

    states = []
    for start, stop in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            model = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
            ids = batch.input_ids[None, start:stop]
            types = batch.token_type_ids[None, start:stop]
            more = {"token_type_ids": types} if model.config.type_vocab_size > 1 else {}
            states.append(model(input_ids=ids, **more).last_hidden_state[0])
    return torch.cat(states)


@pytest.mark.parametrize("kind", DEPEND_ON_PADDING)
def test_rows_do_not_depend_on_the_rows_beside_them(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MobileBERT has an empty layer
        folder = make_encoder(tmp_path / kind, kind, **DEPEND_ON_PADDING[kind])
    encoder, report = load_encoder(folder)
    batch = ragged(LENGTHS).get_batch(range(len(LENGTHS)), list).ragged
    with torch.no_grad():
        ours = encoder.eval()(batch)
    torch.testing.assert_close(ours, states_alone(folder, batch), atol=1e-5, rtol=1e-4)
    assert any("only rows of one length are computed together" in note for note in report.notes)


def test_the_trial_finds_what_no_table_says(tmp_path, monkeypatch):
    monkeypatch.setattr("bertune.encoders.auto.ONE_LENGTH_AT_A_TIME", frozenset())
    for kind in ("fnet", "convbert"):
        folder = make_encoder(tmp_path / kind, kind, **DEPEND_ON_PADDING[kind])
        assert load_auto_encoder(folder)[0].one_length_at_a_time


@pytest.mark.parametrize("kind", ["squeezebert", "layoutlm", "roformer", "gpt2", "modernbert"])
def test_those_that_do_not_are_padded(kind, tmp_path):
    folder = make_small(tmp_path / kind, kind)
    encoder, report = load_encoder(folder)
    assert report.notes == [] and not encoder.one_length_at_a_time


def make_small(folder, kind, **changes):
    """Write an encoder of a type whose configuration has other names than BERT's, or no head for words."""
    from transformers import AutoConfig, AutoModel, BertTokenizer

    torch.manual_seed(0)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    BertTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    names = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}}
    special = dict.fromkeys(
        ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0
    )
    settings = {"vocab_size": len(VOCABULARY), **special, **names.get(kind, SMALL), **changes}
    if kind in {"squeezebert", "roformer"}:
        settings["embedding_size"] = 32
    AutoModel.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["deberta", "xmod", "big_bird"])
def test_fp32_where_bf16_cannot_be_computed(kind, tmp_path, write, capsys):
    more = {"languages": ["en_XX"], "default_language": "en_XX"} if kind == "xmod" else {}
    folder = make_encoder(tmp_path / kind, kind, **{**more, **DEPEND_ON_PADDING.get(kind, {})})
    settings = {
        "task": "classify", "model": str(folder), "out": str(tmp_path / "out"),
        "data": {"train": write("rows.jsonl", ROWS), "dev_fraction": 0.4},
        "train": {"max_steps": 1, "precision": "bf16"},
    }  # fmt: skip
    bertune.train(settings)
    assert (
        "computes in fp32 on cpu, since transformers cannot compute this encoder in bf16"
        in capsys.readouterr().err
    )
    assert len(bertune.load(tmp_path / "out", precision="bf16").predict(["good"])) == 1


def test_bf16_where_it_can(encoder_of):
    for kind in ("albert", "mpnet", "deberta-v2"):
        encoder = load_encoder(encoder_of(kind))[0]
        encoder.set_numerics(Numerics("bf16"))
        assert encoder.numerics.precision == "bf16"
        assert all(p.grad is None for p in encoder.parameters())


REFUSED = {
    "t5": "it is an encoder with a decoder",
    "bart": "it is an encoder with a decoder",
    "clip": "it is several models in one",
    "vit": "it reads images",
    "wav2vec2": "it reads sound",
    "perceiver": "not the ids of tokens",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_models_are_refused_before_data_is_read(kind, tmp_path):
    from transformers import AutoConfig

    folder = tmp_path / kind
    AutoConfig.for_model(kind).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    settings = {"task": "classify", "model": str(folder), "data": {"train": "no-such-file.csv"}}
    with pytest.raises(ConfigError, match=rf"type '{kind}', which bertune does not run: .*{REFUSED[kind]}"):
        bertune.train(settings, quiet=True)


@pytest.mark.parametrize("kind", ["canine", "dpr", "bros"])
def test_what_only_a_trial_can_tell_is_refused_before_data_is_read_too(kind, tmp_path):
    folder = make_small(tmp_path / kind, kind)
    assert kind not in TRIED
    with pytest.raises(ConfigError, match="is no encoder that bertune can run: a trial with 5 tokens fails"):
        check_folder(PretrainedFolder(folder))


def test_a_row_that_is_longer_than_is_said_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("bertune.encoders.auto_load.TRIED", frozenset())
    monkeypatch.setattr("bertune.encoders.auto.SHORTER_BY_PADDING", frozenset())
    folder = make_encoder(tmp_path / "m", "data2vec-text", pad_token_id=1)
    with pytest.raises(ConfigError, match="a trial with 64 tokens fails: IndexError"):
        check_auto_folder(folder)


def test_every_type_of_transformers_is_judged_without_a_traceback():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    judged = {}
    for kind in sorted(MODEL_MAPPING_NAMES)[::9]:
        try:
            config = CONFIG_MAPPING[kind]()
        except Exception:
            continue
        judged[kind] = reason_to_refuse(config)
    assert len(judged) > 40
    assert all(reason == "" for kind, reason in judged.items() if kind in TRIED)


def test_statements_about_heads_are_asked_of_transformers():
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    )

    for kind, spec in HEADS.items():
        assert spec.hf_class == MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[kind]
        assert token_classification_class(kind) == MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES[kind]
    for kind in ("modernbert", "roformer", "squeezebert", "longformer"):
        reason = reason_for_own_token_head(kind)
        assert MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES[kind] in reason and "no head" not in reason
    for kind in ("mamba", "falcon_mamba"):
        assert kind not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
        assert "transformers has no head for tokens" in reason_for_own_token_head(kind)


POOLER_CASES = [
    ("bert", "embed", {}, True),
    ("bert", "classify", {"pooling": "mean"}, True),
    ("bert", "tag", {}, False),  # BertForTokenClassification has none, and would warn
    ("xlm-roberta", "embed", {}, True),
    ("albert", "embed", {}, True),
    ("distilbert", "embed", {}, False),  # the architecture has none
]


@pytest.mark.parametrize(("kind", "task", "options", "has_pooler"), POOLER_CASES)
def test_the_pooler_of_the_base_is_kept(kind, task, options, has_pooler, tmp_path, write):
    from transformers import AutoModel, AutoModelForTokenClassification

    folder = make_encoder(tmp_path / "m", kind, **({"pad_token_id": 1} if kind == "xlm-roberta" else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModel.from_pretrained(str(folder))
    base.save_pretrained(folder)  # now with a pooler, where the architecture has one
    pooler = {name: t for name, t in base.state_dict().items() if name.startswith("pooler")}
    rows = {
        "embed": [{"text": text} for text in ("good dog", "bad cat", "red house", "a book")] * 3,
        "classify": ROWS,
        "tag": [
            {"tokens": ["good", word], "tags": ["O", "B-X"]}
            for word in ["dog", "cat", "house", "tree", "car"]
        ],
    }[task]
    settings = {
        "task": task, "model": str(folder), "out": str(tmp_path / "out"), "options": options,
        "data": {"train": write("rows.jsonl", rows), "dev_fraction": 0.4},
        "train": {"max_steps": 2, "learning_rate": 0.01},
    }  # fmt: skip
    bertune.train(settings, quiet=True)
    opens = AutoModelForTokenClassification if task == "tag" else AutoModel
    opened, info = opens.from_pretrained(str(tmp_path / "out"), output_loading_info=True)
    assert not info["missing_keys"]
    assert {name for name in info["unexpected_keys"] if "pooler" in name} == set()
    found = {name: t for name, t in opened.state_dict().items() if name.startswith("pooler")}
    assert bool(found) == has_pooler
    assert all(torch.equal(found[name], pooler[name]) for name in found)
    artifact = read_artifact(tmp_path / "out")
    assert set(artifact.model.encoder.kept_weights) == set(found)
    assert not any("pooler" in name for name, _ in artifact.model.encoder.named_parameters())


def test_a_model_with_a_head_of_a_pooler_saves_it_once(tiny, tmp_path, write):
    settings = {
        "task": "classify", "model": str(tiny), "out": str(tmp_path / "out"),
        "data": {"train": write("rows.jsonl", ROWS), "dev_fraction": 0.4}, "train": {"max_steps": 1},
    }  # fmt: skip
    bertune.train(settings, quiet=True)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]
    assert read_artifact(tmp_path / "out").model.encoder.kept_weights == {}
