"""bertune trim as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.small_tokenizers import SENTENCES, make_masked_lm, unigram
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app


def call(*words: object, stdin: str | None = None):
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_masked_lm(tmp_path_factory.mktemp("trim") / "model", "xlm-roberta", unigram())


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(SENTENCES[:2]), encoding="utf-8")
    (tmp_path / "b.tsv").write_text(f"{SENTENCES[2]}\tx\n{SENTENCES[3]}\ty\n", encoding="utf-8")
    return [tmp_path / "a.txt", tmp_path / "b.tsv"]


def test_it_says_sizes_what_was_kept_and_what_changes_in_80_columns(model, files, tmp_path):
    out = tmp_path / "out"
    found = call("trim", model, "--texts", *files, "data.format=lines", "-o", out, "--held-out", files[0])
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    tokens = next(line for line in lines if line.startswith("tokens ")).split()
    assert tokens[1] == str(unigram().get_vocab_size())
    assert int(tokens[2]) == json.loads((out / "config.json").read_text())["vocab_size"] < int(tokens[1])
    assert any(line.startswith("kept: 5 special, ") and line.endswith(" that 6 texts use") for line in lines)
    assert f"measured on {files[0]}" in lines
    assert "texts with other tokens: 0 of 2 (0.00%)" in lines
    assert lines[-1] == f"saved in {out}"


def test_json_has_the_figures_of_python(model, files, tmp_path):
    words = [
        "--texts",
        files[0],
        "--texts",
        files[1],
        "data.format=lines",
        "--keep",
        90,
        "--prompt",
        "walkers: ",
    ]
    found = call("trim", model, *words, "-o", tmp_path / "out", "--json", "-q")
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    result = bertune.trim(
        model, files, tmp_path / "py", ["data.format=lines"], keep=90, prompts=["walkers: "]
    ).to_json()
    assert {**values, "folder": ""} == {**json.loads(json.dumps(result)), "folder": ""}
    assert values["folder"] == str(tmp_path / "out")
    assert values["after"]["tokens"] == 90
    assert found.stderr == ""


def test_texts_can_come_from_standard_input(model, tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "bertune", "trim", str(model), "--texts", "-", "-o", str(tmp_path / "out")],
        input="the dog\nthe fox\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert found.returncode == 0, found.stderr
    assert " that 2 texts use" in found.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--texts", "FILE", "keep=3"], "write --keep 3"),
        (["--texts", "FILE", "--keep", "3"], "keep: 3 is less than the"),
        (["--texts", "FILE", "--keep", "x"], "Invalid value for '--keep'"),
        (["--texts", "FILE", "data.colums=x"], "data.colums"),
        (["--texts", "FILE", "train.seed=1"], "train.seed=1"),
        (["--texts", "nothing.txt"], "nothing.txt"),
        (["FILE"], "--texts"),
    ],
)
def test_refusals_exit_with_2(model, files, tmp_path, words, said):
    out = tmp_path / "out"
    found = call("trim", model, *[str(files[0]) if word == "FILE" else word for word in words], "-o", out)
    assert found.exit_code == 2, found.output
    assert said in found.output
    assert "Traceback" not in found.output
    assert not out.exists()


def test_one_process_is_asked_for(model, files, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    found = call("trim", model, "--texts", files[0], "-o", tmp_path / "out")
    assert found.exit_code == 2
    assert "trim: works in one process" in found.output
