"""Runs on named sets, from the command line to the folder, on a tiny encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tests.catalog.set_files import forms_of, table, write_set
from typer.testing import CliRunner

from bertune.cli.app import app

QUICK = ["train.max_steps=2", "train.batch_size=4", "data.max_length=16"]
ROWS = [f"gj04|{n % 2}||the dog {n} is good" for n in range(24)]
COLA = {
    "train.tsv": table(*ROWS),
    "dev.tsv": table(*ROWS[2:4], "gj04|1||a cat", "gj04|0||a cat is"),
    "test.tsv": table(*(f"{n}|a dog {n}" for n in range(1063)), header="index|sentence"),
}


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_set(folder, "glue/CoLA", COLA)
    write_set(folder, "glue/RTE", forms_of("glue:rte"))
    write_set(folder, "glue/STS-B", forms_of("glue:stsb"))
    write_set(folder, "ner/weibo", forms_of("ner:weibo"))
    write_set(folder, "sts-b-zh", forms_of("sts:stsb-zh"))
    write_set(folder, "csl_public", forms_of("clue:csl"))
    write_set(folder, "QNLI", {"dev.tsv": forms_of("glue:qnli")["dev.tsv"]})
    return folder


@pytest.fixture(scope="module")
def model(tiny, root) -> Path:
    """A model of glue:cola."""
    out = root / "model"
    found = call("train", "glue:cola", f"model={tiny}", f"data.root={root}", f"out={out}", *QUICK)
    assert found.exit_code == 0, found.output
    assert f"note: glue:cola: train {root}/glue/CoLA/train.tsv, dev {root}/glue/CoLA/dev.tsv" in found.stderr
    assert "2 of 4 dev rows have a text that is also a training row" in found.stderr
    return out


def test_the_metric_of_the_set_decides(model):
    assert json.loads((model / "scores.json").read_text())["dev"]["main"] == "mcc"


def test_the_run_file_repeats_the_run(model, root, tmp_path):
    settings = yaml.safe_load((model / "run.yaml").read_text(encoding="utf-8"))
    assert settings["task"] == "classify"
    assert settings["data"]["root"] is None
    assert settings["data"]["train"] == str(root / "glue" / "CoLA" / "train.tsv")
    assert settings["data"]["columns"] == ["_", "label", "_", "text"]
    found = call("train", model / "run.yaml", f"out={tmp_path / 'again'}")
    assert found.exit_code == 0, found.output
    first, again = (
        json.loads((path / "scores.json").read_text())["dev"] for path in (model, tmp_path / "again")
    )
    assert again == first


def test_evaluate_scores_the_dev_rows(model, root):
    found = call("evaluate", model, "glue:cola", f"data.root={root}", "--json")
    assert found.exit_code == 0, found.output
    scores = json.loads((model / "scores.json").read_text())["dev"]
    assert json.loads(found.stdout)["values"]["mcc"] == pytest.approx(scores["values"]["mcc"], abs=1e-6)
    train = call("evaluate", model, "glue:cola:train", f"data.root={root}", "--json")
    assert train.exit_code == 0, train.output


def test_predict_writes_test_rows_and_what_the_leaderboard_takes(model, root, tmp_path):
    found = call("predict", model, "glue:cola", f"data.root={root}", "-o", tmp_path / "out.csv")
    assert found.exit_code == 0, found.output
    predicted = [line.split(",")[2] for line in (tmp_path / "out.csv").read_text().splitlines()]
    folder = tmp_path / "submission"
    folder.mkdir()
    found = call("predict", model, "glue:cola", f"data.root={root}", "-o", folder, "--format", "leaderboard")
    assert found.exit_code == 0, found.output
    lines = (folder / "CoLA.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[1] for line in lines] == predicted
    found = call(
        "predict", model, "glue:cola", f"data.root={root}", "-o", folder / "x.tsv", "--format", "leaderboard"
    )
    assert "the leaderboard expects the name CoLA.tsv" in found.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("predict", "glue:cola:dev", "-o", "x", "--format", "leaderboard"),
            "takes predictions of test rows",
        ),
        (
            ("predict", "glue:cola", "--format", "leaderboard"),
            "give -o FOLDER, or -o FILE such as -o CoLA.tsv",
        ),
        (("predict", "a.csv", "-o", "x", "--format", "leaderboard"), "needs a named set, such as glue:cola"),
        (("predict", "ner:weibo", "-o", "x", "--format", "leaderboard"), "has no leaderboard"),
        (("predict", "glue:qnli", "-o", "x.csv"), "glue:qnli: has no test rows here (test.tsv); it has dev"),
        (("evaluate", "glue:cola:test"), "its test rows have no targets to score"),
        (("evaluate", "glue:coal"), "glue has no set 'coal'; did you mean 'cola'?"),
        (("evaluate", "glue:mrpc"), "glue:mrpc: MRPC/train.tsv, MRPC/msr_paraphrase_train.txt is not in"),
    ],
)
def test_what_cannot_be_done_says_what_to_type(words, expected, model, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verb, *rest = words
    found = call(verb, model, rest[0], f"data.root={root}", *rest[1:])
    assert (found.exit_code, found.stdout) == (2, "")
    assert expected in found.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("glue:rte", []),
        ("glue:stsb", []),
        ("glue:stsb", ["task=match", "options.metric=spearman"]),
        ("ner:weibo", []),
        ("ner:weibo", ["options.decoder=crf"]),
        ("sts:stsb-zh", []),
        ("clue:csl", []),
    ],
)
def test_a_set_of_each_task_is_trained(name, more, tiny, root, tmp_path):
    out = tmp_path / "out"
    found = call("train", name, f"model={tiny}", f"data.root={root}", f"out={out}", *QUICK, *more)
    assert found.exit_code == 0, found.output
    assert (out / "scores.json").is_file()


def test_nothing_is_written_where_the_set_is_not_there(tiny, root, tmp_path):
    out = tmp_path / "out"
    found = call("train", "glue:qnli", f"model={tiny}", f"data.root={root}", f"out={out}")
    assert found.exit_code == 2
    assert f"glue:qnli: QNLI/train.tsv is not in {root}" in found.stderr
    assert not out.exists()


def test_crossval_and_tune_take_sets(tiny, root, tmp_path):
    common = [f"model={tiny}", f"data.root={root}", *QUICK]
    found = call("crossval", "glue:cola", *common, f"out={tmp_path / 'folds'}", "--folds", "2")
    assert found.exit_code == 0, found.output
    found = call("tune", "glue:cola", *common, f"out={tmp_path / 'study'}", "--trials", "1")
    assert found.exit_code == 0, found.output
    assert "glue:cola: train" in found.stderr


def test_a_run_file_may_name_a_set(tiny, root, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"task: glue:cola\nmodel: {tiny}\nout: {tmp_path / 'out'}\ndata:\n  root: {root}\n  max_length: 16\n"
        "train:\n  max_steps: 1\n"
    )
    found = call("train", tmp_path / "run.yaml")
    assert found.exit_code == 0, found.output


def test_inspect_and_compare_take_sets(model, root, tmp_path):
    found = call("inspect", "glue:rte", f"data.root={root}", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["rows"] == 4
    shutil.copytree(model, tmp_path / "other")
    found = call("compare", model, tmp_path / "other", "glue:cola", f"data.root={root}")
    assert found.exit_code == 0, found.output


def test_sets_are_listed_with_what_is_there(root):
    found = call("sets", "--root", root)
    assert found.exit_code == 0, found.output
    lines = {line.split()[0]: line for line in found.stdout.splitlines()[1:]}
    assert lines["glue:cola"].endswith("train dev test")
    assert lines["glue:qnli"].rstrip().endswith(" dev")
    assert lines["clue:tnews"].endswith("-")
    assert max(map(len, found.stdout.splitlines())) <= 80
    one = json.loads(call("sets", "glue:qnli", "--root", root, "--json").stdout)["glue:qnli"]
    assert one["why_not"] == f"QNLI/train.tsv is not in {root}"
    assert "published" in call("sets", "clue:tnews").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("glu",), "'glu' is no suite; did you mean 'glue'?"),
        (("glue:x",), "glue has no set 'x'"),
        (("--root", "nowhere"), "--root: 'nowhere' is no folder"),
    ],
)
def test_sets_refuses_what_it_does_not_know(words, expected):
    found = call("sets", *words)
    assert found.exit_code == 2
    assert expected in found.stderr


def test_a_root_for_files_of_ones_own(tiny, root, model, tmp_path):
    out = tmp_path / "out"
    columns = "data.columns=[_,label,_,text]"
    found = call(
        "train", "classify", f"model={tiny}", f"data.root={root / 'glue' / 'CoLA'}", "data.train=train.tsv",
        columns, f"out={out}", *QUICK,
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert str(root / "glue" / "CoLA" / "train.tsv") in (out / "run.yaml").read_text()
    found = call("evaluate", model, "CoLA/dev.tsv", f"data.root={root / 'glue'}", "--json")
    assert found.exit_code == 0, found.output
