"""`bertune crossval` as it is typed: its table, its JSON, its exit codes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bertune.cli.app import app

ROWS = [{"text": f"the {n} is {w}", "label": label, "who": n}
        for w, label in {"good": "pos", "great": "pos", "bad": "neg", "poor": "neg"}.items()
        for n in ("dog", "cat", "tree")]  # fmt: skip


@pytest.fixture
def crossval(tiny, write, tmp_path, monkeypatch):
    """Type the command; return exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        rows = write("rows.jsonl", ROWS)
        fixed = [f"data.train={rows}", f"model={tiny}", "train.max_steps=1"]
        result = CliRunner().invoke(app, ["crossval", "classify", *fixed, *words])
        return result.exit_code, result.stdout, result.stderr

    return run


def test_the_table_fits_a_terminal_and_the_last_line_is_the_folder(crossval):
    code, out, err = crossval("--folds", "2", "-q")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == "runs/classify-crossval-1"
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["fold", "rows", "accuracy"]
    assert [line.split()[0] for line in lines[1:6]] == ["1", "2", "mean", "deviation", "all"]
    assert "whose training rows overlap" in out
    assert "so it is too narrow" in " ".join(out.split())
    assert crossval("--folds", "2", "-q")[1].splitlines()[-1] == "runs/classify-crossval-2"


def test_json_has_what_the_file_has(crossval, tmp_path):
    code, out, _ = crossval("--seeds", "1,2", "--json", "out=o", "-q")
    assert code == 0
    printed, written = json.loads(out), json.loads((tmp_path / "o/scores.json").read_text())
    assert printed.pop("folder") == "o"
    assert written.pop("request")["seeds"] == [1, 2]
    assert printed == written
    assert [part["number"] for part in printed["parts"]] == [1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "1"], "--folds: must be at least 2"),
        (["--group", "woh"], "did you mean 'who'?"),
        (["--seeds", "1,a"], "--seeds: must be whole numbers"),
        (["train.epoch=3"], "did you mean 'epochs'?"),
        (["--folds", "7"], "label 'pos' has 6 rows only"),
    ],
)
def test_bad_input_is_a_line_and_exit_code_2(crossval, tmp_path, words, message):
    code, out, err = crossval(*words, "out=o")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_several_processes_are_refused(crossval, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, _, err = crossval()
    assert code == 2
    assert "works in one process, and 2 were started" in err
