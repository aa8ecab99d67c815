"""What bertune saves opens in transformers with the same numbers."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

import bertune
from bertune.encoders.architectures import HEADS
from bertune.types import Location

TEXTS = ["the dog is good", "a big red house", "天 很 好", "Not very great, is it?", "x"]
ROWS = [{"text": f"{t} {n}", "label": ["b", "a", "c"][n % 3]} for t in TEXTS for n in range(6)]


def train(tmp_path, folder, *settings, task="classify", rows=ROWS):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    fixed = [
        f"data.train={file}",
        f"data.dev={file}",
        f"model={folder}",
        f"out={tmp_path / 'out'}",
        "train.max_steps=3",
        "train.batch_size=8",
    ]
    return bertune.train(
        task, [*fixed, "train.learning_rate=1e-3", "train.precision=fp32", *settings], quiet=True
    ).folder


def logits_of_transformers(folder, texts, pairs=None):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder), output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        inputs = tokenizer(texts, pairs, return_tensors="pt", padding=True, truncation=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    with torch.inference_mode():
        return model.eval()(**inputs).logits, model.config


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_classifier_gives_the_same_logits(kind, encoder_of, tmp_path):
    folder = train(tmp_path, encoder_of(kind))
    logits, config = logits_of_transformers(folder, TEXTS)
    assert config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.label2id == {"a": 0, "b": 1, "c": 2}
    assert config.problem_type == "single_label_classification"
    ours = bertune.load(folder, precision="fp32").predict(TEXTS)
    found = torch.tensor([[p.probabilities[label] for label in "abc"] for p in ours])
    torch.testing.assert_close(found, logits.softmax(-1), atol=1e-5, rtol=1e-4)
    direct = logits_of_ours(folder, TEXTS)
    torch.testing.assert_close(direct, logits, atol=1e-4, rtol=1e-4)


def logits_of_ours(folder, texts):
    from bertune.data.dataset import EncodedDataset
    from bertune.types import Example

    pipeline = bertune.load(folder, precision="fp32")
    rows = EncodedDataset(pipeline.task.encode([Example((t,)) for t in texts], pipeline.tokenizer))
    with torch.inference_mode():
        return pipeline.model(rows.get_batch(range(len(texts)), list))


def test_pairs_give_the_same_logits(tiny, tmp_path):
    rows = [{"sentence1": r["text"], "sentence2": "a cat", "label": r["label"]} for r in ROWS]
    folder = train(tmp_path, tiny, rows=rows)
    pairs = [("the dog", "a big house"), ("one", "two three"), ("good " * 50, "bad " * 60)]
    logits, _ = logits_of_transformers(folder, [p[0] for p in pairs], [p[1] for p in pairs])
    ours = bertune.load(folder, precision="fp32").predict(pairs)
    found = torch.tensor([[p.probabilities[label] for label in "abc"] for p in ours])
    torch.testing.assert_close(found, logits.softmax(-1), atol=1e-5, rtol=1e-4)


def test_regression_gives_the_same_number(tiny, tmp_path):
    rows = [{"text": r["text"], "label": float(n)} for n, r in enumerate(ROWS)]
    folder = train(tmp_path, tiny, task="regress", rows=rows)
    logits, config = logits_of_transformers(folder, TEXTS)
    assert config.problem_type == "regression"
    ours = [p.value for p in bertune.load(folder, precision="fp32").predict(TEXTS)]
    np.testing.assert_allclose(ours, logits[:, 0].numpy(), atol=1e-4)


def test_multi_label_gives_the_same_logits(tiny, tmp_path):
    rows = [{"text": r["text"], "label": [r["label"], "z"]} for r in ROWS]
    folder = train(tmp_path, tiny, rows=rows)
    logits, config = logits_of_transformers(folder, TEXTS)
    assert config.problem_type == "multi_label_classification"
    ours = bertune.load(folder, precision="fp32").predict(TEXTS)
    found = torch.tensor([[p.probabilities[label] for label in ("a", "b", "c", "z")] for p in ours])
    torch.testing.assert_close(found, logits.sigmoid(), atol=1e-5, rtol=1e-4)


def test_what_transformers_cannot_open_does_not_pretend(tiny, tmp_path):
    from transformers import AutoConfig, AutoModel

    folder = train(tmp_path, tiny, "options.pooling=mean")
    assert AutoConfig.from_pretrained(str(folder)).architectures == ["BertModel"]
    assert "the head is bertune's own" in (folder / "README.md").read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, info = AutoModel.from_pretrained(str(folder), output_loading_info=True)
    assert set(info["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert set(info["unexpected_keys"]) == {"bertune_head.out.weight", "bertune_head.out.bias"}


def test_older_checkpoint_forms_are_read(tiny, tmp_path):
    """pytorch_model.bin, gamma and beta, a folder with only vocab.txt."""
    from safetensors.torch import load_file
    from tests.conftest import VOCABULARY

    from bertune.config.schema import DataConfig
    from bertune.encoders.load import load_encoder
    from bertune.text.load import load_tokenizer

    state = load_file(tiny / "model.safetensors")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in state.items()
    }
    assert old.keys() != state.keys()
    folder = tmp_path / "old"
    folder.mkdir()
    torch.save(old, folder / "pytorch_model.bin")
    (folder / "config.json").write_text((tiny / "config.json").read_text())
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    encoder, report = load_encoder(folder)
    fresh, _ = load_encoder(tiny)
    for name, tensor in fresh.hf_state_dict().items():
        assert torch.equal(tensor, encoder.hf_state_dict()[name]), name
    assert report.missing_keys == []
    assert all(name.startswith("cls.") for name in report.unexpected_keys)
    assert report.unexpected_keys
    texts = [("The dog is GOOD!",), ("天很好", "a cat")]
    ours, theirs = (load_tokenizer(f, 64, DataConfig()).encode(texts) for f in (folder, tiny))
    assert [p.input_ids for p in ours] == [p.input_ids for p in theirs]


def test_a_pretrained_pooler_becomes_the_hidden_layer(tmp_path):
    from tests.conftest import make_encoder
    from transformers import AutoConfig, AutoModel

    from bertune.commands.train import prepare
    from bertune.encoders.load import load_encoder

    folder = make_encoder(tmp_path / "base")
    model = AutoModel.from_config(AutoConfig.from_pretrained(str(folder)))
    model.save_pretrained(folder)
    encoder, report = load_encoder(folder)
    _, task = prepare("classify")
    task.labels = ("a", "b")
    head = task.head(encoder, report.pooler)
    assert torch.equal(head.dense.weight, model.pooler.dense.weight)
    assert torch.equal(head.dense.bias, model.pooler.dense.bias)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


SENTENCES = [
    {"text": ["the", "Dog", "is", "goodies", "."], "label": ["O", "B-X", "I-X", "O", "O"]},
    {"text": ["a", "", "big", "天", "地"], "label": ["O", "O", "O", "B-Y", "I-Y"]},
    {"text": ["not"], "label": ["B-X"]},
] * 4


@pytest.mark.parametrize("decoder", ["linear", "crf"])
@pytest.mark.parametrize("kind", sorted(HEADS))
def test_tagger_gives_the_same_logits(kind, decoder, encoder_of, tmp_path):
    """With a CRF these are the emissions, and transformers is told nothing of the scores of pairs."""
    if decoder == "crf" and kind not in {"bert", "distilbert"}:
        pytest.skip("the CRF stands on the same layer whatever the architecture")
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    folder = train(tmp_path, encoder_of(kind), f"options.decoder={decoder}", task="tag", rows=SENTENCES)
    words = [[w for w in row["text"] if w] for row in SENTENCES[:3]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = AutoModelForTokenClassification.from_pretrained(str(folder), output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt", padding=True)
    assert not info["missing_keys"], info
    crf = (
        {f"bertune_head.crf.{name}" for name in ("transitions", "start", "end")}
        if decoder == "crf"
        else set()
    )
    assert set(info["unexpected_keys"]) == crf
    assert model.config.id2label == {0: "O", 1: "B-X", 2: "I-X", 3: "B-Y", 4: "I-Y"}
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits
    theirs = []
    for row in range(3):
        places = inputs.word_ids(row)
        theirs += [logits[row, n] for n, p in enumerate(places) if p is not None and places[n - 1] != p]
    pipeline = bertune.load(folder, precision="fp32")
    rows = pipeline._encode(
        [pipeline.task.read(bertune.Row(r, Location("rows", n))) for n, r in enumerate(SENTENCES[:3], 1)]
    )
    with torch.inference_mode():
        ours = pipeline.model(rows.get_batch(range(3), pipeline.task.collate_target)).emissions
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-4, rtol=1e-4)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForTokenClassification" in card
    assert ("bertune_head.crf" in card) == (decoder == "crf")
