"""bertune cache: what it lists, what it removes, what it refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bertune.cli.app import app
from bertune.data import dataset_cache


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(*words: object):
    return CliRunner().invoke(app, ["cache", *map(str, words)])


def make(key: str, age: float = 0.0) -> None:
    about = {
        "task": "classify",
        "model": "minilm",
        "train": "reviews.csv",
        "rows": {"train": 90, "dev": 10, "test": 0},
    }
    with dataset_cache.create_entry("tokens", key) as part:
        (part / "train.texts.arrow").write_bytes(b"x" * 1000)
        entry = dataset_cache.commit_entry(part, "tokens", key, about, {})
    manifest = {**entry.manifest, "made": entry.manifest["made"] - age}
    (entry.path / "manifest.json").write_text(json.dumps(manifest))


def test_an_empty_cache(place):
    assert run("list").output == f"0 entries, 0.0 MB, in {place}\n"
    assert run("clear").output == f"0 entries, 0.0 MB, removed from {place}\n"
    assert not place.exists()


def test_list_and_clear(place):
    make("a", 3600)
    make("b", 5 * 86400)
    text = run("list").output
    assert "classify minilm reviews.csv  tokens   100  0.0 MB" in text
    assert "1 h 00 min" in text
    assert "2 entries" in text
    found = json.loads(run("list", "--json").output)
    assert [e["name"] for e in found["entries"]] == ["tokens-a", "tokens-b"]
    assert found["entries"][0] | {"age_s": 0} == {
        "name": "tokens-a", "kind": "tokens", "task": "classify", "model": "minilm", "train": ["reviews.csv"],
        "rows": {"train": 90, "dev": 10, "test": 0}, "bytes": 1000, "age_s": 0,
    }  # fmt: skip
    assert [e["name"] for e in json.loads(run("clear", "--older-than", 2, "--json").output)["removed"]] == [
        "tokens-b"
    ]
    assert "1 entries" in run("list").output
    assert "1 entries" in run("clear").output
    assert list(place.iterdir()) == []


def test_foreign_files_stay(place):
    make("a")
    (place / "mine.txt").write_text("x")
    (place / "folder").mkdir()
    assert run("clear").exit_code == 0
    assert sorted(path.name for path in place.iterdir()) == ["folder", "mine.txt"]


def test_other_words_are_refused():
    found = run("burn")
    assert found.exit_code == 2
