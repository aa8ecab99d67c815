"""The settings page is current, README's Python runs, its commands exist, and every example runs.

Links, tutorials and style of the docs: tests/test_docs_site.py.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

import bertune

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def blocks(page: Path, language: str) -> list[str]:
    """The fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[str]:
    """The lines of the bash fences, without comments; a command over several lines is one."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].rstrip() for line in lines if not line.startswith("#")]


def test_config_page_is_what_the_settings_say():
    spec = importlib.util.spec_from_file_location("config_docs", ROOT / "scripts" / "config_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == module.page()


@pytest.mark.parametrize("page", READMES, ids=lambda p: p.name)
def test_readme_python_runs(page, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "data")
    (code,) = blocks(page, "python")
    with_tiny = code.replace('"task": "classify"', f'"task": "classify", "model": {str(tiny)!r}')
    assert with_tiny != code
    exec(compile(with_tiny, str(page), "exec"), {})
    assert (tmp_path / "runs" / "classify-1" / "model.safetensors").exists()


@pytest.mark.parametrize("page", READMES, ids=lambda p: p.name)
def test_readme_names_every_task_and_only_real_commands(page):
    from bertune.cli.app import app

    text = page.read_text(encoding="utf-8")
    real = {command.callback.__name__ for command in app.registered_commands} | {
        group.name for group in app.registered_groups
    }
    in_fences = re.findall(r"bertune ([a-z]+)", "\n".join(commands(page)))
    in_prose = re.findall(r"`bertune ([a-z]+)[^`]*`", text)
    assert in_fences
    assert in_prose
    assert {*in_fences, *in_prose} <= real
    for task in bertune.task_names():
        assert f"bertune train {task}" in text


def in_english(code: str) -> str:
    """Chinese readers begin with Chinese rows, texts and an encoder that knows Chinese."""
    code = (
        code.replace(" --lang zh", "")
        .replace(".zh.", ".en.")
        .replace("bertune[multilingual", "bertune[starter")
    )
    code = code.replace('"model": "e5-small", ', "")
    return re.sub(r'(?<=echo )"[^"]*"|(?<=predict\()\[.*\]', "TEXTS", code)


def test_both_readmes_show_the_same_commands():
    """Chinese readers are shown one more: a Chinese encoder on a file without header."""
    first, second = ([in_english(c) for c in commands(page) if "train.tsv" not in c] for page in READMES)
    assert len(first) >= 5
    assert first == second
    python = [[in_english(code) for code in blocks(page, "python")] for page in READMES]
    assert python[0] == python[1]


@pytest.mark.parametrize(
    "file", [file for file in EXAMPLES if not file.name.startswith("seed-")], ids=lambda p: p.name
)
def test_every_example_file_runs(file, tiny, tmp_path, monkeypatch):
    """Those of the references run in tests/migration/test_seed_examples.py, on made rows."""
    monkeypatch.chdir(ROOT / "examples")
    text, out = file.read_text(encoding="utf-8"), tmp_path / "model"
    settings = [f"model={tiny}", f"out={out}", "train.max_steps=2", "data.limit=16"]
    if "max_length" in text:
        settings.append("data.max_length=64")  # the most that the tiny encoder has
    bertune.train(file.name, settings, quiet=True)
    assert (out / "scores.json").exists()


def test_example_data_is_whole():
    import csv

    assert len(EXAMPLES) >= 10
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
