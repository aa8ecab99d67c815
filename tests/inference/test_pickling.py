"""A model that was pickled or copied predicts the same, in this process and in another one."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from tests.chinesebert_folder import write_folder
from tests.encoders.test_int8 import on_such_processors
from tests.sentence_folders import PAIRS, write_rows

import bertune

LABELLED = [{**row, "label": ["no", "yes"][n % 2]} for n, row in enumerate(PAIRS)]
NUMBERS = [{**row, "label": n % 5} for n, row in enumerate(PAIRS)]
TAGGED = [{"words": row["text"].split(), "tags": ["O", "B-X", "O", "O"]} for row in PAIRS]
SINGLE = [{"text": row["text"], "label": n % 2} for n, row in enumerate(PAIRS)]
CASES = {
    "classify": ("bert", "classify", SINGLE, []),
    "regress": ("bert", "regress", NUMBERS, ["options.pooling=mean"]),
    "tag": ("bert", "tag", TAGGED, ["options.decoder=crf"]),
    "match": ("bert", "match", LABELLED, ["options.loss=softmax"]),
    "embed": ("bert", "embed", PAIRS, ["options.pooling=pooler", "options.prompts={query: 'the dog '}"]),
    "transformers": ("mpnet", "classify", SINGLE, []),
    "transformers padded": ("deberta-v2", "embed", PAIRS, []),
    "chinesebert": ("chinesebert", "classify", SINGLE, []),
}
INPUTS = {
    "tag": ["the dog is good", "a cat"] * 20,  # enough for the word cache
    "regress": [("a", "b"), ("the dog is good", "a good dog")] * 20,
    "match": [("a", "b"), ("the dog is good", "a good dog")] * 20,
}


@pytest.fixture(params=CASES, scope="module")
def folder(request, encoder_of, tmp_path_factory):
    kind, task, rows, settings = CASES[request.param]
    place = tmp_path_factory.mktemp("pickled")
    base = write_folder(place / "base") if kind == "chinesebert" else encoder_of(kind)
    base = place / "base" if kind == "chinesebert" else base
    file = write_rows(place / "rows.jsonl", rows)
    files = [f"data.train={file}", f"data.dev={file}", f"model={base}", f"out={place / 'out'}"]
    return bertune.train(task, [*files, "train.max_steps=1", *settings], quiet=True).folder


def outputs(model):
    """Everything that a model says of some texts."""
    if hasattr(model, "encode"):
        texts = [row["text"] for row in PAIRS]
        return [model.encode(texts).tolist(), model.encode_query(texts).tolist()]
    task = type(model.task).__name__.lower()
    return [repr(p) for p in model.predict(INPUTS.get(task, [row["text"] for row in PAIRS * 2]))]


def copies(model):
    outputs(model)  # so that caches are full
    return [pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_copies_predict_the_same(precision, folder):
    model = bertune.load(folder, precision=precision)
    expected = outputs(model)
    for again in copies(model):
        assert outputs(again) == expected
        assert type(again) is type(model)
        assert again.model.encoder.numerics.precision == precision
    assert outputs(model) == expected
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model))))
    assert outputs(twice) == expected


@on_such_processors
def test_copies_predict_the_same_in_int8(tiny, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", PAIRS)
    files = [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / 'out'}"]
    folder = bertune.train("embed", [*files, "train.max_steps=1"], quiet=True).folder
    model = bertune.load(folder, precision="int8")
    expected = outputs(model)
    assert expected != outputs(bertune.load(folder, precision="fp32"))
    for again in copies(model):
        assert again.model.encoder.layers[0].int8_forward is not None
        assert outputs(again) == expected


def test_prepared_weights_do_not_travel(tiny, tmp_path):
    """The copy has the weights once, and casts them itself."""
    file = write_rows(tmp_path / "rows.jsonl", PAIRS)
    files = [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / 'out'}"]
    folder = bertune.train("embed", [*files, "train.max_steps=1"], quiet=True).folder
    model = bertune.load(folder, precision="bf16")
    size = sum(p.numel() * 4 for p in model.model.parameters())
    assert len(pickle.dumps(model)) < 1.3 * size + 100_000
    again = pickle.loads(pickle.dumps(model))
    linear = again.model.encoder.layers[0].query
    assert linear.prepared is not None
    assert linear.prepared[0] == linear._weights_key(linear.prepared[0][0])


def test_a_spawned_process_predicts_the_same(tiny, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", PAIRS)
    files = [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / 'out'}"]
    folder = bertune.train("embed", [*files, "train.max_steps=1"], quiet=True).folder
    model = bertune.load(folder, precision="fp32")
    texts = [row["text"] for row in PAIRS]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(model.encode, texts).result()
    np.testing.assert_array_equal(there, model.encode(texts))
