"""Entries of another format: not used, listed as outdated, removed by `bertune cache clear`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.console import Console
from bertune.data import dataset_cache

OLD_CACHE = Path(__file__).parents[1] / "fixtures" / "format-1" / "cache"
OLD_NAMES = sorted(path.name for path in OLD_CACHE.iterdir())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cache_command(*words: str) -> dict:
    found = CliRunner().invoke(app, ["cache", *words, "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.output)


def test_old_entries_are_listed_as_outdated_and_removed(cache):
    shutil.copytree(OLD_CACHE, cache)
    assert json.loads((cache / OLD_NAMES[0] / "manifest.json").read_text())["format"] == 1
    entries = cache_command("list")["entries"]
    assert sorted((entry["name"], entry["kind"]) for entry in entries) == [
        (name, "outdated") for name in OLD_NAMES
    ]
    assert all(entry["bytes"] > 0 and entry["task"] for entry in entries)
    assert "outdated" in CliRunner().invoke(app, ["cache", "list"]).output
    removed = cache_command("clear")["removed"]
    assert sorted(entry["name"] for entry in removed) == OLD_NAMES
    assert {entry["kind"] for entry in removed} == {"outdated"}
    assert list(cache.iterdir()) == []


def test_an_entry_of_another_format_is_never_returned(cache):
    shutil.copytree(OLD_CACHE, cache)
    kind, _, key = OLD_NAMES[0].partition("-")
    lines: list[str] = []
    assert dataset_cache.find_entry(kind, key, lines.append) is None
    assert lines == [
        f"cache: {cache / OLD_NAMES[0]} is damaged (format 1, expected {dataset_cache.FORMAT_VERSION}); "
        "it is removed and written again"
    ]
    assert sorted(path.name for path in cache.iterdir()) == OLD_NAMES[1:]


def test_a_run_writes_new_entries_beside_old_ones(cache, tiny, tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"text": f"a dog {n}", "label": "ab"[n % 2]}) + "\n" for n in range(30))
    )
    settings = [f"model={tiny}", f"data.train={file}", "train.max_steps=2", "data.cache=on", "data.workers=1"]
    lines: list[str] = []
    monkeypatch.setattr(Console, "info", lambda self, line: lines.append(line))
    with monkeypatch.context() as patch:
        patch.setattr(dataset_cache, "FORMAT_VERSION", dataset_cache.FORMAT_VERSION - 1)
        bertune.train("classify", [*settings, f"out={tmp_path / 'old'}"])
    assert {entry.kind for entry in dataset_cache.list_entries()} == {"outdated"}
    bertune.train("classify", [*settings, f"out={tmp_path / 'new'}"])
    assert sorted(entry.kind for entry in dataset_cache.list_entries()) == [
        "outdated",
        "outdated",
        "rows",
        "tokens",
    ]
    assert not any("damaged" in line or "from the cache" in line for line in lines)
    weights = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("old", "new")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("manifest", ["", "[1]", "{}", "7"])
def test_a_folder_without_a_usable_manifest_is_unfinished(manifest, cache):
    folder = cache / "rows-a"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest)
    (entry,) = dataset_cache.list_entries()
    assert (entry.kind, entry.size) == ("unfinished", len(manifest))
    assert cache_command("clear")["removed"] == []  # it may belong to a run that is going on
    assert [removed.kind for removed in dataset_cache.remove_entries(unfinished=-1.0)] == ["unfinished"]
    assert list(cache.iterdir()) == []
