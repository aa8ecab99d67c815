"""The verbs as a user calls them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app

TEXTS = ["the dog is good", 'a "big", red house', "天 很 好", "a very awful cat , is it ?", "one two three"]


def call(*words: str, stdin: str | None = None):
    return CliRunner().invoke(app, list(words), input=stdin)


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    """A classifier trained on a header-less TSV file, in three steps."""
    folder = tmp_path_factory.mktemp("verbs")
    (folder / "t.tsv").write_text(
        "".join(f"{t} {n}\t{'pos' if n % 2 else 'neg'}\n" for t in TEXTS for n in range(8)), encoding="utf-8"
    )
    found = call(
        "train", "classify", f"data.train={folder / 't.tsv'}", "data.columns=[text,label]", f"model={tiny}", f"out={folder / 'out'}",
        "train.max_steps=3", "data.max_length=8",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert found.stdout == f"{folder / 'out'}\n"  # standard output is the folder and nothing else
    return folder / "out"


def test_training_says_what_on_how_many_rows_and_where(tiny, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"dog {n},{'ab'[n % 2]}\n" for n in range(20)))
    found = call(
        "train",
        "classify",
        f"data.train={tmp_path / 't.csv'}",
        f"model={tiny}",
        f"out={tmp_path / 'o'}",
        "train.max_steps=1",
    )
    said = found.stderr.splitlines()
    what = next(i for i, line in enumerate(said) if line.startswith("task: "))
    assert (
        said[what]
        == "task: single-label classification, since the labels are single values; 2 labels: 'a', 'b', positive label 'b'"
    )
    assert said[what + 1] == "rows: 18 train, 2 dev, 0 test"
    assert said[what + 2] == f"output: {tmp_path / 'o'}"
    assert any("split off as dev set" in line for line in said)
    new = next(line for line in said if line.startswith("weights: new"))
    assert "head.dense.weight" in new
    assert "head.out.bias" in new
    assert any(line.startswith("weights: in the checkpoint but not used: cls.predictions") for line in said)


def test_predict_a_file_without_labels_of_a_model_trained_without_header(model, tmp_path):
    source = tmp_path / "new.tsv"
    source.write_text("".join(f"{t}\n" for t in TEXTS), encoding="utf-8")
    found = call("predict", str(model), str(source))
    assert found.exit_code == 0, found.output
    assert "taken as rows without 'label'" in found.stderr
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert [r["text"] for r in rows] == TEXTS
    for row in rows:
        assert row["prediction"] in {"neg", "pos"}
        assert float(row["p_neg"]) + float(row["p_pos"]) == pytest.approx(1, abs=1e-5)
        assert float(row["confidence"]) == max(float(row["p_neg"]), float(row["p_pos"]))
    assert "rows are longer than max_length 8 and were cut" in found.stderr


def test_predict_keeps_columns_and_names_beside_them(model, tmp_path):
    source = tmp_path / "new.csv.gz"
    with gzip.open(source, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "prediction", "label"])
        writer.writerows([n, t, "mine", "whatever"] for n, t in enumerate(TEXTS))
    out = tmp_path / "out.jsonl"
    found = call("predict", str(model), str(source), "data.columns=null", "-o", str(out), "--quiet")
    assert found.exit_code == 0, found.output
    assert found.stdout == found.stderr == ""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(r["id"], r["text"], r["prediction"], r["label"]) for r in rows] == [
        (str(n), t, "mine", "whatever") for n, t in enumerate(TEXTS)
    ]
    assert {r["prediction_"] for r in rows} <= {"neg", "pos"}
    assert not out.with_name("out.jsonl.part").exists()


def test_predict_to_csv_of_json_rows_with_different_keys(model, tmp_path):
    source = tmp_path / "new.jsonl"
    source.write_text('{"text": "a dog", "tags": ["x"]}\n{"text": "a cat", "extra": 1}\n')
    found = call("predict", str(model), str(source), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert [r["tags"] for r in rows] == ['["x"]', ""]
    assert [r["extra"] for r in rows] == ["", "1"]


@pytest.mark.parametrize(
    "lines", ["the dog is good\n", "the dog\na cat\n", '{"text": "a dog", "id": 7}\n', "the dog\r\n"]
)
def test_predict_standard_input(model, lines):
    found = subprocess.run(
        [sys.executable, "-m", "bertune", "predict", str(model), "-"],
        input=lines,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert found.returncode == 0, found.stderr
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(rows) == len(lines.splitlines())
    assert all(set(r["probabilities"]) == {"neg", "pos"} for r in rows)
    assert rows[0]["text"] in {"the dog is good", "the dog", "a dog"}
    assert rows[0].get("id") == (7 if "id" in lines else None)


@pytest.mark.parametrize(
    ("content", "expected"), [("text\n", "holds no rows"), ("text\na dog\n\" \"\n", "new.csv:3: 'text' is empty"), ("words\na dog\n", "no column for 'text'")]
)  # fmt: skip
def test_predict_refuses_before_it_writes(model, tmp_path, content, expected):
    (tmp_path / "new.csv").write_text(content)
    found = call(
        "predict", str(model), str(tmp_path / "new.csv"), "data.columns=null", "-o", str(tmp_path / "out.csv")
    )
    assert found.exit_code == 2
    assert expected in found.stderr.splitlines()[-1]
    assert not (tmp_path / "out.csv").exists()


def test_a_model_of_gb18030_files_reads_utf8_from_standard_input(tiny, tmp_path):
    (tmp_path / "t.csv").write_bytes(
        ("text,label\n" + "".join(f"天{'好' if n % 2 else '坏'},{n % 2}\n" for n in range(12))).encode(
            "gb18030"
        )
    )
    fixed = [
        f"data.train={tmp_path / 't.csv'}",
        f"model={tiny}",
        f"out={tmp_path / 'o'}",
        "train.max_steps=1",
        "data.encoding=gb18030",
    ]
    assert call("train", "classify", *fixed).exit_code == 0
    program = [sys.executable, "-m", "bertune", "predict", str(tmp_path / "o"), "-"]
    found = subprocess.run(program, input="天很好\n".encode(), capture_output=True)
    assert json.loads(found.stdout.decode())["text"] == "天很好"
    (tmp_path / "new.dat").write_bytes("text\n天坏\n".encode("gb18030"))
    found = call("predict", str(tmp_path / "o"), str(tmp_path / "new.dat"), "data.format=csv")
    assert [r["text"] for r in csv.DictReader(io.StringIO(found.stdout))] == ["天坏"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.max_length=4"], "only these can be given here: data.columns"),
        (["train.epochs=4"], "only these can be given here: data.columns"),
        (["--precision", "bfloat16"], "precision: 'bfloat16' is none of auto, fp32, bf16, fp16"),
        (["--device", "gpu"], "device: 'gpu' is none of auto, cpu, cuda, mps"),
    ],
)
def test_what_cannot_be_said_at_prediction_is_refused(model, tmp_path, words, expected):
    (tmp_path / "new.csv").write_text("text,label\na dog,pos\n")
    for verb in ("predict", "evaluate"):
        found = call(verb, str(model), str(tmp_path / "new.csv"), "data.columns=null", *words)
        assert found.exit_code == 2
        assert expected in found.stderr.splitlines()[-1]


def test_a_hub_data_set_is_scored_on_a_stated_split_only(model):
    found = call("evaluate", str(model), "hub:glue/cola")
    assert found.exit_code == 2
    assert "say which split" in found.stderr


def test_standard_input_can_be_csv(model):
    program = [
        sys.executable,
        "-m",
        "bertune",
        "predict",
        str(model),
        "-",
        "data.format=csv",
        "data.columns=null",
    ]
    found = subprocess.run(program, input='id,text\n7,"a dog, a cat"\n', capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    (row,) = csv.DictReader(io.StringIO(found.stdout))
    assert (row["id"], row["text"]) == ("7", "a dog, a cat")
    assert set(row) == {"id", "text", "prediction", "confidence", "p_neg", "p_pos"}


def test_labels_of_a_row_are_joined_as_in_the_training_file(tiny, tmp_path):
    rows = "".join(f"dog {n},{'a;b' if n % 2 else 'b'}\n" for n in range(12))
    (tmp_path / "t.csv").write_text("text,label\n" + rows)
    fixed = [
        f"data.train={tmp_path / 't.csv'}",
        f"model={tiny}",
        f"out={tmp_path / 'o'}",
        "data.label_delimiter=semicolon",
        "options.threshold=0.01",
    ]
    assert call("train", "classify", *fixed, "train.max_steps=1").exit_code == 0
    found = call("predict", str(tmp_path / "o"), str(tmp_path / "t.csv"))
    assert [r["prediction"] for r in csv.DictReader(io.StringIO(found.stdout))] == ["a;b"] * 12


@pytest.mark.parametrize(
    "content", ["[]", '{"format": 1}', '{"format": 1, "task": "classify", "state": {}, "max_length": 8}']
)
def test_a_damaged_bertune_json_is_named(model, tmp_path, content):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "bertune.json").write_text(content)
    found = call("evaluate", str(broken), "t.csv")
    assert found.exit_code == 2
    assert "bertune: " in found.stderr


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", "run.yaml"])
def test_a_missing_file_of_a_model_is_named(model, tmp_path, name):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / name).unlink()
    found = call("predict", str(broken), "-")
    assert found.exit_code == 2
    assert str(broken) in found.stderr


def test_predict_refuses_an_output_it_cannot_name(model, tmp_path):
    found = call("predict", str(model), str(tmp_path / "new.csv"), "-o", "out.xlsx")
    assert found.exit_code == 2
    assert "must end in .csv, .jsonl or .conll" in found.stderr


def test_predict_refuses_pairs_for_a_model_of_single_texts(model, tmp_path):
    (tmp_path / "new.csv").write_text("text,text_b\na dog,a cat\n")
    found = call("predict", str(model), str(tmp_path / "new.csv"), "data.columns=null")
    assert found.exit_code == 2
    assert "new.csv:2: a pair of texts, where the training rows have a single text" in found.stderr


def test_bad_rows_can_be_skipped_and_are_counted(model, tmp_path):
    (tmp_path / "new.csv").write_text('text\na dog\n" "\na cat\n')
    found = call("predict", str(model), str(tmp_path / "new.csv"), "data.columns=null", "data.bad_rows=skip")
    assert found.exit_code == 0, found.output
    assert [r["text"] for r in csv.DictReader(io.StringIO(found.stdout))] == ["a dog", "a cat"]
    assert "1 rows left out as unusable" in found.stderr


def test_evaluate_prints_figures_and_json(model, tmp_path):
    source = tmp_path / "dev.csv"
    source.write_text(
        "text,label\n"
        + "".join(f'"{t.replace(chr(34), "")}",{"pos" if n % 2 else "neg"}\n' for n, t in enumerate(TEXTS))
    )
    shown = call("evaluate", str(model), str(source), "data.columns=null")
    assert shown.exit_code == 0, shown.output
    assert "accuracy" in shown.stdout
    assert "95 % interval" in shown.stdout
    assert "rows by gold label (down) and predicted label (across)" in shown.stdout
    found = call("evaluate", str(model), str(source), "data.columns=null", "--json")
    report = json.loads(found.stdout)
    assert report["main"] == "accuracy"
    assert report["num_truncated_rows"] > 0
    assert sum(sum(row.values()) for row in report["confusion"].values()) == len(TEXTS)
    assert set(report["values"]) >= {
        "accuracy",
        "precision",
        "recall",
        "f1",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "mcc",
    }


def test_evaluate_needs_known_labels(model, tmp_path):
    (tmp_path / "dev.csv").write_text("text,label\na dog,pos\na cat,never\n")
    found = call("evaluate", str(model), str(tmp_path / "dev.csv"), "data.columns=null")
    assert found.exit_code == 2
    assert "dev.csv:3: label 'never' is not among the 2 labels" in found.stderr


def test_inspect_shows_what_the_model_sees(tiny, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nthe dogs,pos\na cat,neg\nthe zebra,pos\n")
    found = call("inspect", str(tmp_path / "t.csv"), "--model", str(tiny), "--rows", "10")
    assert found.exit_code == 0, found.output
    for part in (
        "task: single-label classification",
        "rows: 3",
        "66.7%  pos",
        "[CLS] the dog ##s [SEP]",
        "decoded [CLS] a cat [SEP]",
        "tokens a row: min 4",
    ):
        assert part in found.stdout
    assert "task: classify, since a label is the text 'pos'" in found.stdout
    report = json.loads(call("inspect", str(tmp_path / "t.csv"), "--model", str(tiny), "--json").stdout)
    assert report["targets"] == report["rows_with_label"] == {"pos": 2, "neg": 1}
    assert report["task"] == "classify"
    assert report["description"].startswith("single-label classification")
    assert {s["location"].rpartition(":")[2] for s in report["samples"]} == {"2", "3", "4"}
    assert len(report["samples"]) == 3
    assert all(len(s["tokens"]) == len(s["ids"]) == s["length"] for s in report["samples"])


def test_inspect_takes_fractions_as_regression(tiny, tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"sentence1": "a dog", "sentence2": "a cat", "score": 2.5}\n{"sentence1": "a", "sentence2": "b", "score": 4}\n'
    )
    found = call("inspect", str(tmp_path / "t.jsonl"), "--model", str(tiny))
    assert found.exit_code == 0, found.output
    assert "task: regress, since 1 of 2 labels are fractions" in found.stdout
    assert "text = column 'sentence1', text_b = column 'sentence2', label = column 'score'" in found.stdout


def test_init_writes_a_run_that_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for task in bertune.task_names():
        found = call("init", task)
        assert found.exit_code == 0, found.output
        assert found.stdout.splitlines()[0] == f"{task}.yaml"
        written = Path(f"{task}.yaml").read_text(encoding="utf-8")
        assert yaml.safe_load(written)["task"] == task
        run = call("train", f"{task}.yaml", f"model={tiny}", "train.max_steps=1", "data.limit=8")
        assert run.exit_code == 0, run.output
        assert Path(run.stdout.strip()) == Path("runs") / f"{task}-1"
        everything = "\n".join(
            line.lstrip().removeprefix("# ") if ": " in line and "." not in line else line
            for line in written.splitlines()
        )
        assert "learning_rate" in everything
    Path("classify.yaml").write_text("mine")
    found = call("init", "classify")
    assert found.exit_code == 2
    assert Path("classify.yaml").read_text() == "mine"


def test_init_in_chinese(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for task in bertune.task_names():
        found = call("init", task, "folder", "--lang", "zh")
        assert found.exit_code == 0, found.output
        files = [Path(line) for line in found.stdout.splitlines()]
        written = files[0].read_text(encoding="utf-8")
        assert yaml.safe_load(written)["model"] == "e5-small"
        assert f"bertune train {task}.yaml" in written.splitlines()[0]
        for file in files[1:]:
            assert any("一" <= c <= "鿿" for c in file.read_text(encoding="utf-8"))
        monkeypatch.chdir(tmp_path / "folder")
        run = call(
            "train", f"{task}.yaml", f"model={tiny}", "train.max_steps=1", "data.limit=8", f"out=../{task}"
        )
        assert run.exit_code == 0, run.output
        monkeypatch.chdir(tmp_path)
    assert len(files) > 1


def test_init_in_a_language_that_there_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = call("init", "classify", "--lang", "fr")
    assert found.exit_code == 2
    assert "--lang: 'fr' is none of 'en', 'zh'" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_never_mixes_languages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("init", "classify").exit_code == 0
    before = Path("classify.yaml").read_text(encoding="utf-8")
    found = call("init", "classify", "--lang", "zh")
    assert found.exit_code == 2
    assert "bertune init classify FOLDER --lang zh" in found.stderr
    assert Path("classify.yaml").read_text(encoding="utf-8") == before
    assert not list(Path("data").glob("*.zh.*"))


def test_tasks_lists_every_task():
    found = call("tasks")
    assert [line.split()[0] for line in found.stdout.splitlines()[::2]] == bertune.task_names()
    assert set(json.loads(call("tasks", "--json").stdout)) == set(bertune.task_names())


def test_version_and_help():
    assert call("--version").stdout.startswith(f"bertune {bertune.__version__}")
    for verb in ("init", "train", "evaluate", "predict", "inspect", "tasks"):
        assert call(verb, "--help").exit_code == 0


def test_help_shows_whole_sentences(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call("--help").stdout.splitlines()
    first = shown.index("Commands:") + 1
    described = [line.split(maxsplit=1) for line in shown[first : shown.index("", first)]]
    commands = [name for name, _ in described]
    assert commands == [
        "init",
        "train",
        "evaluate",
        "predict",
        "embed",
        "search",
        "inspect",
        "cache",
        "tasks",
        "ensemble",
        "crossval",
        "tune",
        "compare",
        "calibrate",
        "convert",
        "fill",
        "sets",
        "bench",
        "trim",
    ]
    assert all(text.endswith(".") and not text.endswith("..") for _, text in described), described
    assert all(len(line) <= 80 for line in shown)


@pytest.mark.parametrize(
    ("words", "old", "new"),
    [
        (("embed", "model", "corpus.csv"), "--format", "--dtype"),
        (("embed", "model", "corpus.csv"), "--width", "--truncate-dim"),
        (("search", "model", "corpus.csv", "--pairs"), "--most", "--max-pairs"),
        (("search", "model", "corpus.csv", "query"), "--read", "--data"),
    ],
)
def test_renamed_options_answer_with_their_new_name(words, old, new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ((old, "4"), (f"{old}=4",)):
        found = call(*words, *given)
        assert found.exit_code == 2
        assert found.stdout == ""
        assert f"'{old}': renamed to {new}" in found.stderr
    assert f"{new} " in (shown := call(words[0], "--help").stdout)
    assert old not in shown
    assert not list(tmp_path.iterdir())
