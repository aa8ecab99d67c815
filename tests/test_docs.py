"""The documents are true: settings listed, links there, README's Python runs, verbs named."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

import bertune

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


def test_config_page_is_what_the_settings_say():
    spec = importlib.util.spec_from_file_location("config_docs", ROOT / "scripts" / "config_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == module.page()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    broken = [
        link
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda p: p.name)
def test_readme_python_runs(page, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "data")
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(
        compile(
            code.replace('"task": "classify"', f'"task": "classify", "model": {str(tiny)!r}'),
            str(page),
            "exec",
        ),
        {},
    )
    assert (tmp_path / "runs" / "classify-1" / "model.safetensors").exists()


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda p: p.name)
def test_readme_names_every_task_and_only_real_verbs(page):
    from bertune.cli.app import app

    text = page.read_text(encoding="utf-8")
    verbs = {command.callback.__name__ for command in app.registered_commands}
    assert (
        set(re.findall(r"bertune (init|[a-z]+) ", "".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))))
        <= verbs
    )
    for task in bertune.task_names():
        assert f"bertune train {task}" in text


def test_both_readmes_show_the_same_commands():
    first, second = (
        [
            line.split("#")[0].rstrip()
            for line in re.findall(r"^(?:bertune|scripts/|pip|echo) .*$", p.read_text(encoding="utf-8"), re.M)
        ]
        for p in PAGES[:2]
    )
    assert [c.replace("FILE", "F") for c in first if "train.tsv" not in c][:5] == [
        c.replace("文件", "F") for c in second if "train.tsv" not in c
    ][:5]


def test_every_example_file_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    examples = sorted(Path().glob("*.yaml"))
    assert examples
    local = tmp_path / "local.jsonl"  # in place of a data set of the Hub, under the names of its columns
    local.write_text(
        "".join(f'{{"sentence": "the dog {n} is {n % 3}", "label": {100 + n % 3}}}\n' for n in range(24))
    )
    for file in examples:
        out = tmp_path / file.stem
        data = (
            [f"data.{split}={local}" for split in ("train", "dev", "test")]
            if "hub:" in file.read_text(encoding="utf-8")
            else []
        )
        length = (
            ["data.max_length=64"] if "max_length" in file.read_text(encoding="utf-8") else []
        )  # all that a tiny encoder has
        bertune.train(
            str(file),
            [f"model={tiny}", f"out={out}", "train.max_steps=2", "data.limit=16", *data, *length],
            quiet=True,
        )
        assert (out / "scores.json").exists()


def test_example_data_is_whole():
    import csv

    total = 0
    for language in ("en", "zh"):
        texts = []
        for split in ("train", "dev"):
            with (ROOT / "examples" / "data" / f"intents.{language}.{split}.csv").open(
                encoding="utf-8", newline=""
            ) as file:
                rows = list(csv.DictReader(file))
            assert len({r["label"] for r in rows}) == 8
            assert all(1 <= float(r["urgency"]) <= 5 for r in rows)
            texts += [r["text"] for r in rows]
        assert len(set(texts)) == len(texts)
        total += len(texts)
    assert total >= 400


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")
def test_version_is_stated_once():
    import tomllib

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == bertune.__version__
