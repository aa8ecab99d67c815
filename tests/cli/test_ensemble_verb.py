"""bertune ensemble, and the other verbs with what it writes, as a user calls them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import ENGLISH
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app

WORDS = ENGLISH.split()


def call(*words: object, code: int = 0):
    found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == code, found.output
    assert "Traceback" not in found.output
    return found


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models each of labels, of several labels and of vectors; their rows; ensembles of both."""
    place = tmp_path_factory.mktemp("verb")
    texts = [" ".join(WORDS[n % 20 : n % 20 + 3 + n % 4]) for n in range(30)]
    rows = {
        "labels": [{"text": t, "label": "ab"[n % 2]} for n, t in enumerate(texts)],
        "several": [{"text": t, "label": [w for w in ("red", "blue") if w in t]} for t in texts],
        "pairs": [
            {"text": t, "text_b": f"{u} the"} for t, u in zip(texts, texts[3:] + texts[:3], strict=True)
        ],
    }
    for name, values in rows.items():
        task = "embed" if name == "pairs" else "classify"
        file = place / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in values))
        for seed in (1, 2):
            out = place / f"{name}-{seed}"
            data = {"train": str(file), "dev": str(file)}
            train = {"max_steps": 3, "batch_size": 8, "learning_rate": 3e-3}
            run = {
                "task": task,
                "model": str(tiny),
                "seed": seed,
                "out": str(out),
                "data": data,
                "train": train,
            }
            bertune.train(run, quiet=True)
        found = call("ensemble", place / name, place / f"{name}-1", place / f"{name}-2")
        assert found.stdout == f"{place / name}\n"
        expected = "thresholds: the mean" if name == "several" else ""
        assert (expected in found.stderr) if expected else found.stderr == ""
        if expected:
            assert f"bertune calibrate {place / name} FILE" in found.stderr
    return place


def test_predict_and_evaluate(place):
    columns = {}
    for name in ("labels-1", "labels-2", "labels"):
        call(
            "predict",
            place / name,
            place / "labels.jsonl",
            "-o",
            place / f"{name}.csv",
            "--precision",
            "fp32",
        )
        with (place / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            columns[name] = np.array([float(row["p_a"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(columns["labels"], (columns["labels-1"] + columns["labels-2"]) / 2, atol=1e-6)
    scores = json.loads(call("evaluate", place / "labels", place / "labels.jsonl", "--json").stdout)
    found = np.where(columns["labels"] > 0.5, "a", "b")
    gold = [json.loads(line)["label"] for line in (place / "labels.jsonl").read_text().splitlines()]
    assert scores["values"]["accuracy"] == np.mean(found == gold)
    assert scores["loss"] == pytest.approx(
        -np.mean(np.log(np.where(np.array(gold) == "a", columns["labels"], 1 - columns["labels"]))), abs=1e-4
    )


def test_embed_and_search(place, tmp_path):
    corpus = place / "pairs.jsonl"
    call("embed", place / "pairs", corpus, "-o", tmp_path / "whole.npy")
    call("embed", place / "pairs-1", corpus, "-o", tmp_path / "first.npy")
    whole, first = np.load(tmp_path / "whole.npy"), np.load(tmp_path / "first.npy")
    unit = first / np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(whole[:, :32], unit / np.sqrt(2), atol=2e-3)
    index = tmp_path / "index"
    hits = call("search", place / "pairs", corpus, "good bad", "--index", index, "-k", 3, "--json").stdout
    best = json.loads(hits)["hits"]
    query = bertune.load(place / "pairs").encode("good bad")
    expected = np.sort(whole @ query)[::-1][:3]
    np.testing.assert_allclose([hit["score"] for hit in best], expected, atol=5e-3)
    found = call("search", place / "pairs-1", corpus, "good bad", "--index", index, code=2)
    assert "another model" in found.stderr
    found = call("embed", place / "pairs", corpus, "-o", tmp_path / "x.npy", "--truncate-dim", 8, code=2)
    assert "truncate_dim: 8 is for the vectors of one model" in found.stderr
    found = call("evaluate", place / "pairs", corpus, "--truncate-dim", 8, code=2)
    assert "an ensemble has those of 2 models side by side, 64 features in all" in found.stderr


def test_inspect_shows_the_members(place):
    lines = call("inspect", place / "several").stdout.splitlines()
    assert lines[0] == f"ensemble: {place / 'several'}, of 2 models of task classify; it predicts their mean"
    assert lines[1].startswith("task: multi-label classification")
    assert [line.split(":")[0].strip() for line in lines[2:4]] == ["member-1", "member-2"]
    assert lines[-1] == "lacks: nothing"
    report = json.loads(call("inspect", place / "several", "--json").stdout)
    assert list(report["members"]) == ["member-1", "member-2"]
    assert report["members"]["member-1"]["kind"] == "bert"


def test_a_member_given_twice_is_said(place, tmp_path):
    found = call("ensemble", tmp_path / "out", *[place / "labels-1"] * 2)
    assert "is given 2 times, and counts as often" in found.stderr
    found = call("ensemble", tmp_path / "other", *[place / "labels-1"] * 2, "-q")
    assert found.stderr == ""


BAD = [
    (["{new}", "labels-1"], "two or more models, got 1"),
    (
        ["{new}", "labels-1", "pairs-1"],
        "is a model of task embed, and {place}/labels-1 is one of task classify",
    ),
    (["{new}", "labels-1", "several-1"], "labels differ from {place}/labels-1"),
    (["{new}", "labels-1", "labels"], "is an ensemble itself; give its members: {place}/labels/members/..."),
    (["{new}", "labels-1", "nowhere"], "{place}/nowhere: no such folder"),
    (["{new}", "labels-1", "labels.jsonl"], "labels.jsonl: is a file"),
    (["labels", "labels-1", "labels-2"], "{place}/labels: exists already; give a new folder"),
    (["labels.jsonl", "labels-1", "labels-2"], "{place}/labels.jsonl: exists already"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=lambda v: str(v)[:60])
def test_bad_input_writes_nothing(words, message, place, tmp_path):
    before = sorted(place.rglob("*"))
    given = [str(tmp_path / "new") if word == "{new}" else place / word for word in words]
    found = call("ensemble", *given, code=2)
    assert message.format(place=place) in found.stderr
    assert sorted(place.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []
    assert found.stdout == ""


def test_training_from_an_ensemble_is_refused(place, tmp_path):
    data = f"data.train={place / 'labels.jsonl'}"
    found = call("train", "classify", data, f"model={place / 'labels'}", f"out={tmp_path / 'x'}", code=2)
    assert f"give the folder of a member, such as {place / 'labels/members/member-1'}" in found.stderr
    found = call("train", place / "labels", "--resume", code=2)
    assert "is an ensemble of finished models" in found.stderr
    assert list(tmp_path.iterdir()) == []
