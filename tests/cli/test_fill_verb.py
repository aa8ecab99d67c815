"""`bertune fill` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.cli.fill import fill_lines
from bertune.commands.fill import FilledText
from bertune.console import display_width

ONE, TWO = "good [MASK] is a 很 big car", "[MASK] dog [MASK] red"


def call(*words: object):
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_table_for_each_text(tiny):
    found = call("fill", tiny, ONE, TWO, "-k", "3", "--precision", "fp32")
    assert found.exit_code == 0, found.output
    one, two = found.stdout.split("\n\n")
    lines = one.splitlines()
    assert lines[0] == ONE
    assert all(line.split()[-1].startswith("0.0") for line in lines[2:])
    expected = bertune.load(tiny, precision="fp32").fill(ONE, 3)
    scores = [line.split()[-1] for line in lines[2:]]
    assert scores == [f"{filling['score']:.4f}" for filling in expected]
    assert len({display_width(line) for line in lines[1:]}) == 1  # wide characters are in line
    assert [line for line in two.splitlines() if line.startswith("mask")] == ["mask 1 of 2:", "mask 2 of 2:"]


def test_json_lines_have_the_columns_of_the_file(tiny, tmp_path, write):
    file = write("t.csv", f"id,text,masks\n1,{ONE},x\n2,{TWO},y\n")
    out = tmp_path / "out.jsonl"
    found = call("fill", tiny, "--file", file, "-k", "2", "-o", out, "--precision", "fp32")
    assert found.exit_code == 0, found.output
    assert found.stdout == "" and f"2 texts filled, written to {out}" in found.stderr
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["text"], row["masks"]) for row in rows] == [("1", ONE, "x"), ("2", TWO, "y")]
    model = bertune.load(tiny, precision="fp32")
    assert [len(row["masks_"]) for row in rows] == [1, 2]
    assert rows[0]["masks_"][0][0] == {
        **model.fill(ONE, 1)[0], "score": pytest.approx(model.fill(ONE, 1)[0]["score"])
    }  # fmt: skip


def test_standard_input_and_texts_together(tiny):
    words = ["fill", str(tiny), "a [MASK]", "--file", "-", "--json", "-k", "1"]
    found = subprocess.run(
        [sys.executable, "-m", "bertune", *words],
        input=f"{ONE}\n\n{TWO}\n",
        capture_output=True,
        encoding="utf-8",
    )
    assert found.returncode == 0, found.stderr
    assert [json.loads(line)["text"] for line in found.stdout.splitlines()] == ["a [MASK]", ONE, TWO]


def test_targets(tiny):
    one, other = (
        call("fill", tiny, ONE, *words, "--json").stdout
        for words in (("--targets", "dog,cat"), ("--targets", "cat", "--targets", "dog"))
    )
    assert one == other
    assert {filling["token_str"] for filling in json.loads(one)["masks"][0]} == {"dog", "cat"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "fill: give a text with [MASK] in it, or --file FILE"),
        (("no mask",), "texts:1: no mask in 'no mask'"),
        (("a [MASK]", "no mask"), "texts:2: no mask"),
        (("a [MASK]", "-k", "97"), "k: 97 is not from 1 to 96, the tokens of the vocabulary"),
        (("a [MASK]", "--targets", "dogs"), "targets: 'dogs' is 2 tokens: dog ##s"),
        (("a [MASK]", "data.format=csv"), "'data.format=csv' is a setting, not a text"),
        (("a [MASK]", "--data", "data.format=csv"), "--data: without effect here"),
        (("a [MASK]", "-o", "x.csv"), "-o x.csv: the name must end in .jsonl"),
        (("a [MASK]", "-o", "x.jsonl", "--json"), "--json: without effect here"),
        (("--file", "none.txt"), "none.txt"),
    ],
)
def test_bad_input(words, message, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = call("fill", tiny, *words)
    assert found.exit_code == 2
    assert message in found.stderr and "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_row_without_a_mask_is_named_by_its_line(tiny, tmp_path, write):
    file = write("t.txt", "a [MASK]\nno mask\n")
    found = call("fill", tiny, "--file", file, "-o", tmp_path / "out.jsonl")
    assert found.exit_code == 2 and f"{file}:2: no mask in 'no mask'" in found.stderr
    assert not (tmp_path / "out.jsonl").exists()


def filling(token: str, number: int = 7) -> dict[str, object]:
    return {"score": 0.25, "token": number, "token_str": token, "sequence": ""}


def test_a_long_text_is_shown_around_its_mask():
    text = f"{'前' * 100} dog [MASK] cat {'后' * 100}"
    lines = fill_lines(FilledText(text, {}, [[filling("中"), filling(" Paris"), filling(""), filling("\t")]]))
    assert "dog [MASK] cat" in lines[0] and lines[0].startswith("...") and lines[0].endswith("...")
    assert 76 <= display_width(lines[0]) <= 80
    assert [line.split()[0] for line in lines[2:]] == ["中", "Paris", "(id", "'\\t'"]
    assert fill_lines(FilledText("[MASK] " + "a" * 100, {}, []))[0].startswith("[MASK] a")
