"""A leading "~" is the home folder wherever a path is given, also where no shell expands it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bertune
from bertune.commands.embed import embed, embed_stream
from bertune.commands.evaluate import SearchFiles
from bertune.commands.search import SearchRequest
from bertune.config.load import resolve_config
from bertune.config.schema import RunConfig, Section
from bertune.data.dataset_cache import cache_dir
from bertune.files import expand_user

TRAIN = "text,label\n" + "".join(f"{word} dog,{word}\n" for word in ("good", "bad") * 4)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder with data; the current folder is another, which stays empty."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "home" / "x.csv").write_text(TRAIN)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bertune", *arguments], capture_output=True, text=True, encoding="utf-8"
    )


def test_every_path_of_a_run_and_of_the_commands(home, tiny):
    result = run(
        "train", "classify", "data.train=~/x.csv", "out=~/out", f"model={tiny}", "train.max_steps=1", "-q"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(home / "out")
    result = run("predict", "~/out", "~/x.csv", "-o", "~/p.jsonl", "-q")
    assert result.returncode == 0, result.stderr
    assert len((home / "p.jsonl").read_text().splitlines()) == 8
    assert run("evaluate", "~/out", "~/x.csv").returncode == 0
    assert run("inspect", "~/out").returncode == 0
    assert run("inspect", "~/x.csv").returncode == 0
    assert list(Path().iterdir()) == []  # no folder named "~"
    assert bertune.load("~/out").predict(["good dog"])[0].value in {"good", "bad"}
    assert len(list(bertune.predict("~/out", home / "x.csv").results)) == 8
    assert (
        bertune.evaluate("~/out", "~/x.csv").scores == bertune.evaluate(home / "out", home / "x.csv").scores
    )


def test_vectors_search_and_its_scores_from_python(home, tiny):
    (home / "corpus.jsonl").write_text('{"_id": "a", "text": "good dog"}\n{"_id": "b", "text": "bad car"}\n')
    (home / "queries.jsonl").write_text('{"_id": "q", "text": "good"}\n')
    (home / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    (home / "pairs.jsonl").write_text(
        '{"text": "good", "text_b": "dog"}\n{"text": "bad", "text_b": "car"}\n' * 4
    )
    model = bertune.train(
        {"task": "embed", "model": str(tiny), "data": {"train": "~/pairs.jsonl", "dev": "~/pairs.jsonl"},
         "train": {"max_steps": 1}, "out": "~/vectors"}, quiet=True
    ).folder  # fmt: skip
    assert embed("~/vectors", "~/corpus.jsonl", "~/v.npy").num_rows == 2
    assert np.load(home / "v.npy").shape[0] == 2
    assert len(list(embed_stream(model, Path("~/corpus.jsonl")))) == 2
    assert SearchRequest("~/vectors", "~/corpus.jsonl", index_folder="~/ix").open()[1].info.num_rows == 2
    files = SearchFiles("~/corpus.jsonl", "~/qrels.tsv")
    assert "ndcg@10" in bertune.evaluate("~/vectors", "~/queries.jsonl", search=files).scores.values
    assert sorted(path.name for path in home.iterdir() if path.name in {"ix", "v.npy"}) == ["ix", "v.npy"]
    assert list(Path().iterdir()) == []


def test_settings_from_python_and_yaml(home):
    settings = {
        "task": "~/mine.py",
        "model": Path("~/encoder"),
        "out": "~/out",
        "data": {"train": ["~/a.csv", "b.csv"], "dev": home / "dev.csv", "labels": "~/labels.txt"},
    }
    resolved = resolve_config(settings, Section)[0]
    assert resolved.task == str(home / "mine.py")
    assert resolved.model == str(home / "encoder")
    assert resolved.out == str(home / "out")
    assert resolved.data.train == [str(home / "a.csv"), "b.csv"]
    assert resolved.data.dev == str(home / "dev.csv")
    assert resolved.data.labels == str(home / "labels.txt")


def test_the_cache_may_be_in_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("BERTUNE_CACHE", "~/cache")
    assert cache_dir() == home / "cache"


def test_only_a_leading_tilde_is_the_home_folder(home):
    assert expand_user("a~/b") == "a~/b"
    assert expand_user("~no-such-user/b") == "~no-such-user/b"
    assert RunConfig(task="classify", data={"train": "./~/x.csv"}).data.train == "./~/x.csv"
