"""The command line with entities: what goes in as columns, lines or JSON comes out as spans or columns, complete and in order."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app

ANIMALS = {"dog": "animal", "cat": "animal", "tree": "plant", "house": "thing"}


def columns(words, *more):
    return "".join("\t".join(cells) + "\n" for cells in zip(words, *more, strict=True)) + "\n"


@pytest.fixture(scope="module")
def tagger(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    file = folder / "rows.conll"
    sentences = [
        (["the", *size, noun, "is", mood], kind)
        for size in ([], ["big"])
        for noun, kind in ANIMALS.items()
        for mood in ("good", "bad")
    ]
    with file.open("w", encoding="utf-8") as out:
        out.write("-DOCSTART- -X- O\n\n")
        for words, kind in sentences:
            middle = ["B", "I"][: len(words) - 3]
            out.write(columns(words, ["X"] * len(words), ["O", *(f"{p}-{kind}" for p in middle), "O", "O"]))
    settings = [
        f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={folder / 'out'}", "train.epochs=20", "train.batch_size=4",
        "train.learning_rate=3e-3", "options.decoder=crf", "log.every=1000",
    ]  # fmt: skip
    return bertune.train("tag", settings, quiet=True).folder, file


def call(*words, stdin=None):
    return CliRunner().invoke(app, [str(w) for w in words], input=stdin)


def test_columns_stay_and_the_tag_is_added(tagger, tmp_path):
    out, file = tagger
    found = call("predict", out, file, "-o", tmp_path / "found.conll")
    assert found.exit_code == 0, found.output
    given = [line for line in file.read_text().splitlines() if not line.startswith("-DOCSTART-")]
    written = (tmp_path / "found.conll").read_text().splitlines()
    assert [line.rpartition("\t")[0] for line in written] == given[1:]
    right = sum(line.split("\t")[-1] == line.split("\t")[-2] for line in written if line)
    assert right == sum(bool(line) for line in written)


def test_evaluate_reads_other_schemes(tagger, tmp_path):
    out, _ = tagger
    other = tmp_path / "other.bmes"
    other.write_text("the O\nbig B-animal\ndog E-animal\nis O\ngood O\n\nthe O\nhouse S-thing\nis O\nbad O\n")
    found = call("evaluate", out, other, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["values"]["f1"] == 1.0
    assert "BMES" in found.stderr or "BIOES" in found.stderr


def test_json_keeps_every_column(tagger, tmp_path, write):
    out, _ = tagger
    rows = [
        {"id": 7, "text": "the dog is good"},
        {"id": 8, "text": "the big house is bad"},
        {"id": 9, "text": "good"},
    ]
    found = call("predict", out, write("rows.jsonl", rows))
    read = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(r["id"], r["text"]) for r in read] == [(r["id"], r["text"]) for r in rows]
    spans = [[(s["start"], s["end"], s["label"], s["text"]) for s in r["prediction"]] for r in read]
    assert spans == [[(4, 7, "animal", "dog")], [(4, 13, "thing", "big house")], []]
    assert all(0 < s["confidence"] <= 1 for r in read for s in r["prediction"])


def test_csv_holds_spans_as_json(tagger, tmp_path, write):
    out, _ = tagger
    found = call("predict", out, write("rows.csv", "n,text\n1,the cat is bad\n2,is\n"))
    read = list(csv.DictReader(found.stdout.splitlines()))
    assert [[s["text"] for s in json.loads(r["prediction"])] for r in read] == [["cat"], []]


def test_a_file_of_lines_and_tabs_in_a_line(tagger, write):
    out, _ = tagger
    file = write("texts.txt", "the dog is good\nthe\tbig house is bad\n")
    found = call("predict", out, file, "data.format=lines")
    assert [[s["text"] for s in json.loads(line)["prediction"]] for line in found.stdout.splitlines()] == [
        ["dog"],
        ["big house"],
    ]
    refused = call("predict", out, file)
    assert refused.exit_code == 2
    assert "data.format=lines" in refused.stderr
    one = call("predict", out, write("one.txt", "good\nbad\n"))
    assert one.exit_code == 2
    assert "data.format=conll" in one.stderr
    assert "data.format=lines" in one.stderr


def test_standard_input_is_a_text_a_line(tagger):
    import subprocess

    out, _ = tagger
    done = subprocess.run(
        [sys.executable, "-m", "bertune", "predict", str(out), "-", "--format", "conll"], input="the big\tdog, is good\n", capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    words, tags = zip(*(line.split("\t") for line in done.stdout.splitlines() if line), strict=True)
    assert words == ("the", "big", "dog", ",", "is", "good")
    assert tags[:3] == ("O", "B-animal", "I-animal")


def test_columns_of_another_task_are_refused(tagger, tiny, tmp_path, write):
    file = write("rows.csv", "text,label\n" + "the dog is good,a\nthe cat is bad,b\n" * 4)
    folder = bertune.train(
        "classify",
        [
            f"data.train={file}",
            f"data.dev={file}",
            f"model={tiny}",
            f"out={tmp_path / 'c'}",
            "train.max_steps=1",
        ],
        quiet=True,
    ).folder
    found = call("predict", folder, file, "--format", "conll")
    assert found.exit_code == 2
    assert "this model gives no tag for each word" in found.stderr


def test_inspect_recognises_sentences(tagger, tiny, write):
    _, file = tagger
    for name in (
        str(file),
        write("s.jsonl", [{"tokens": ["a", "dog"], "ner_tags": ["O", "B-x"]}]),
        write("t.jsonl", [{"text": "a dog", "label": [[2, 5, "x"]]}]),
    ):
        found = call("inspect", name, "--model", tiny)
        assert found.exit_code == 0, found.output
        assert "task: sequence labelling" in found.stdout
    found = call(
        "inspect",
        write("m.jsonl", [{"text": "a dog", "label": ["x", "y"]}, {"text": "a cat", "label": ["x"]}]),
        "--model",
        tiny,
    )
    assert "multi-label" in found.stdout


def test_a_table_with_a_word_a_row_keeps_its_rows(tagger, write, tmp_path):
    out, _ = tagger
    rows = [(1, "the", "O"), (1, "big", "B-animal"), (1, "dog", "I-animal"), (1, "is", "O"),
            (2, "the", "O"), (2, "house", "B-thing"), (2, "is", "O"), (2, "bad", "O")]  # fmt: skip
    text = "".join(
        f"{number},{word},{tag}\n" for number, word, tag in [("sentence_id", "word", "tag"), *rows]
    )
    file = write("rows.csv", text)
    found = call("evaluate", out, file, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["values"]["f1"] == 1.0
    assert "8 rows grouped to 2 sentences by column 'sentence_id'" in found.stderr
    found = call("predict", out, file)
    lines = ["sentence_id,word,tag,prediction", *(f"{n},{word},{tag},{tag}" for n, word, tag in rows)]
    assert found.stdout.splitlines() == lines
    found = call("predict", out, file, "-o", tmp_path / "rows.conll")
    assert (tmp_path / "rows.conll").read_text().startswith("the\tO\nbig\tB-animal\n")
    assert call("evaluate", out, tmp_path / "rows.conll").exit_code == 0


def test_words_with_tabs_are_written_as_words(tagger, write, tmp_path):
    out, _ = tagger
    file = write("rows.jsonl", [{"tokens": ["the", "big\tdog", "is\n"]}])
    found = call("predict", out, file, "-o", tmp_path / "rows.conll")
    assert "2 words hold tabs or line ends" in found.stderr
    lines = (tmp_path / "rows.conll").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["the", "big dog", "is ", ""]
