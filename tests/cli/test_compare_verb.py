"""`bertune compare` as a user types it: what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app

ROWS = {
    "abc": "text,label\n" + "".join(f"the dog is {w} {n},{w[0]}\n" for n in range(5) for w in ("awful", "bad", "car")),
    "ab": "text,label\n" + "".join(f"the dog is {w} {n},{w[0]}\n" for n in range(6) for w in ("awful", "bad")),
    "pairs": "text,text_b,label\n" + "".join(f"a dog {n},a {w},{w[0]}\n" for n in range(6) for w in ("awful", "bad")),
    "multi": "text\tlabel\n" + "".join(f"the dog is {n}\t{w}\n" for n in range(4) for w in ("a", "a;b", "b")),
    "numbers": "text,label\n" + "".join(f"the dog is {n},{n}\n" for n in range(12)),
    "tag": "".join(f"dog B-A\nis O\n{n} O\n\n" for n in range(12)),
    "embed": "query,document\n" + "".join(f"dog {n},a dog {n} here\n" for n in range(12)),
}  # fmt: skip
SETTINGS = {
    "multi": ["data.label_delimiter=;"],
    "numbers": [],
    "tag": [],
}
TASKS = {"numbers": "regress", "tag": "tag", "embed": "embed"}
SUFFIXES = {"multi": "tsv", "tag": "conll"}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    """A folder with a file and a model of each kind; `ab2` is a second model of `ab`."""
    root = tmp_path_factory.mktemp("verb")
    for kind, content in ROWS.items():
        file = root / f"{kind}.{SUFFIXES.get(kind, 'csv')}"
        file.write_text(content)
        for name, steps in ((kind, 2), (f"{kind}2", 12)):
            if name in {*ROWS, "ab2"}:
                data = [f"data.train={file}", f"data.dev={file}", *SETTINGS.get(kind, [])]
                train = ["train.batch_size=4", f"train.max_steps={steps}", "train.learning_rate=3e-3"]
                bertune.train(
                    TASKS.get(kind, "classify"),
                    [*data, *train, f"model={tiny}", f"seed={steps}", f"out={root / name}"],
                    quiet=True,
                )
    (root / "none.csv").write_text("text\nthe dog\na car\n")
    (root / "empty.csv").write_text("")
    (root / "other.csv").write_text("text,label\nthe dog,a\na car,zzz\n")
    (root / "notmodel").mkdir()
    return root


@pytest.fixture
def run(folder, monkeypatch):
    """Run the verb in that folder; return exit code, stdout, stderr, and whether a file was written."""
    monkeypatch.chdir(folder)

    def call(*words: str):
        before = sorted(os.listdir())
        found = CliRunner().invoke(app, ["compare", *words])
        return found.exit_code, found.stdout, found.stderr, sorted(set(os.listdir()) - set(before))

    return call


REFUSED = {
    "nothing but models": (["ab", "ab2"], ["needs a data file", "ab2"]),
    "one model": (["ab", "ab.csv"], ["needs two models or more", "got 'ab' alone"]),
    "a file alone": (["ab.csv"], ["needs two models or more"]),
    "the same twice": (["ab", "ab", "ab.csv"], ["'ab' is given twice"]),
    "the same by another path": (["ab", "./ab/../ab", "ab.csv"], ["given twice", "it is 'ab'"]),
    "no such model": (["ab", "./nothere", "ab.csv"], ["nothere: no such folder"]),
    "not a model": (["ab", "notmodel", "ab.csv"], ["notmodel: holds no bertune.json"]),
    "a file for a model": (["ab", "ab2", "ab.csv", "abc.csv"], ["ab.csv: is a file, not the folder"]),
    "no such file": (["ab", "ab2", "gone.csv"], ["gone.csv: no such file"]),
    "no targets": (["ab", "ab2", "none.csv"], ["no column for 'label'"]),
    "empty file": (["ab", "ab2", "empty.csv"], ["empty.csv: holds no rows"]),
    "a label nobody knows": (["ab", "ab2", "other.csv"], ["other.csv:3: label 'zzz'"]),
    "other tasks": (["ab", "numbers", "ab.csv"], ["different problems", "ab: classify, one label a row", "numbers: regress"]),
    "other tasks, words": (["tag", "embed", "tag.conll"], ["tag: tag, entities", "embed: similarity of texts"]),
    "single and multi": (["ab", "multi", "ab.csv"], ["one label a row", "several labels a row"]),
    "other labels": (["abc", "ab", "ab.csv"], ["ab has other labels than abc", "lacks 'c'"]),
    "more labels": (["ab", "abc", "ab.csv"], ["abc has other labels than ab", "has 'c' besides"]),
    "single texts and pairs": (["ab", "pairs", "ab.csv"], ["pairs cannot predict these rows", "ab.csv:2"]),
    "missing folder of -o": (["ab", "ab2", "ab.csv", "-o", "no/out.csv"], ["-o no/out.csv", "no folder 'no'"]),
    "unknown suffix": (["ab", "ab2", "ab.csv", "-o", "out.xlsx"], ["must end in .jsonl, .csv or .tsv"]),
    "a folder for -o": (["ab", "ab2", "ab.csv", "-o", "notmodel.csv/"], ["-o notmodel.csv"]),
    "the file itself": (["ab", "ab2", "ab.csv", "-o", "./ab.csv"], ["is the data file itself"]),
    "unknown setting": (["ab", "ab2", "ab.csv", "data.max_length=9"], ["'data.max_length=9': only these"]),
    "unknown device": (["ab", "ab2", "ab.csv", "--device", "tpu"], ["tpu"]),
    "unknown precision": (["ab", "ab2", "ab.csv", "--precision", "fp7"], ["fp7"]),
    "model code": (["ab", "ab2", "ab.csv", "--model-code", "yes"], ["model_code: 'yes'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input(case, run):
    words, parts = REFUSED[case]
    code, stdout, stderr, written = run(*words)
    assert (code, stdout, written) == (2, "", [])
    assert "Traceback" not in stderr
    for part in parts:
        assert part in stderr, stderr


def test_all_faults_at_once(run):
    code, _, stderr, written = run("ab", "ab", "./nothere", "gone.csv", "-o", "no/out.xyz", "--device", "tpu")
    assert (code, written) == (2, [])
    for part in ("5 faults", "given twice", "nothere", "gone.csv: no such file", "-o no/out.xyz", "tpu"):
        assert part in stderr, stderr


def test_what_is_printed_fits_a_terminal(run):
    code, stdout, stderr, written = run("ab", "ab2", "ab.csv", "data.format=csv", "-o", "out.csv")
    assert (code, written) == (0, ["out.csv"]), stderr
    Path("out.csv").unlink()
    for part in (
        "model ",
        "95 % interval",
        "B - A: accuracy",
        "verdict",
        "McNemar",
        "only A",
        "F1 of",
        "out.csv",
    ):
        assert part in stdout
    assert max(map(len, stdout.splitlines())) <= 80
    assert "model: ab2, 2 of 2" in stderr


def test_json(run):
    code, stdout, stderr, _ = run("ab", "ab2", "ab.csv", "--json", "-q")
    assert (code, stderr) == (0, "")
    found = json.loads(stdout)
    assert [m["name"] for m in found["models"]] == ["ab", "ab2"]
    assert found["pairs"][0]["mcnemar"].keys() >= {"both_right", "only_a", "only_b", "both_wrong", "p_value"}


def test_several_processes_print_once_and_the_same(run, folder):
    alone = json.loads(run("ab", "ab2", "ab.csv", "--json", "-q", "--device", "cpu")[1])
    words = ["ab", "ab2", "ab.csv", "--json", "-q", "--device", "cpu", "-o", "out.jsonl"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    found = subprocess.run(
        [*launcher, "-m", "bertune", "compare", *words], capture_output=True, text=True, cwd=folder
    )
    assert found.returncode == 0, found.stderr
    together = json.loads(found.stdout)
    assert together.pop("output") == "out.jsonl"
    alone.pop("output")
    assert together["pairs"] == alone["pairs"]
    lines = (folder / "out.jsonl").read_text().splitlines()
    assert len(lines) == together["num_disagreements"]
