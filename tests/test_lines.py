"""No line of code is longer than 110 columns. Pages of the docs: tests/test_docs_site.py."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_COLUMNS = 110
FOLDERS = ("src", "benchmarks", "scripts", "examples", ".ci", "tests")
FILES = ("pyproject.toml", "constraints.txt", "mkdocs.yml", ".gitignore", ".gitattributes")
SUFFIXES = {".py", ".yaml", ".yml", ""}
DATA = {ROOT / "examples" / "data", ROOT / "tests" / "fixtures"}
LONG_LINES_ALLOWED = {
    ROOT / "tests" / room
    for room in ("artifact", "cli", "encoders", "inference", "retrieval", "tasks", "text")
}
"""Folders of tests that still have long lines; pyproject.toml names the same ones for ruff."""


def columns(line: str) -> int:
    """The columns that a terminal gives a line: a wide character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def files_of(folder: str) -> list[Path]:
    return sorted(
        path
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and path.suffix in SUFFIXES
        and "__pycache__" not in path.parts
        and not (DATA | LONG_LINES_ALLOWED) & set(path.parents)
    )


def long_lines(path: Path) -> list[str]:
    """Lines with a link may be longer."""
    return [
        f"{path.relative_to(ROOT)}:{number} has {columns(line)} columns"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if columns(line) > MAX_COLUMNS and "://" not in line
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_line_of_a_folder_is_too_long(folder):
    files = files_of(folder)
    assert files
    assert [line for path in files for line in long_lines(path)] == []


@pytest.mark.parametrize("name", FILES)
def test_no_line_of_a_file_is_too_long(name):
    assert long_lines(ROOT / name) == []


def test_wide_characters_count_two():
    assert columns("a好。") == 5
