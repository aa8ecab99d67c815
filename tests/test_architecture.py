"""A room imports only rooms above it; engine knows no concrete task; the names at the top are light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bertune

SOURCE = Path(bertune.__file__).parent
ABOVE = {
    "base": set(),
    "data": {"base"},
    "model": {"base"},
    "tasks": {"base", "data", "model"},
    "engine": {"base", "data", "model", "tasks"},
    "ship": {"base", "data", "model", "tasks"},
    "run": {"base", "data", "model", "tasks", "engine", "ship"},
    "cli": {"base", "data", "model", "tasks", "engine", "ship", "run"},
}
BASE = {"errors", "types", "config", "metrics", "ranking", "talk", "memory"}
STORIES = {"run", "training", "resume", "large", "preview", "starter", "corpus"}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.name not in {"__init__.py", "__main__.py"} or path.parent != SOURCE)


def room_of(module: str) -> str:
    first = module.removeprefix("bertune.").split(".")[0]
    return "base" if first in BASE else "run" if first in STORIES else first


def imports_of(path: Path) -> set[str]:
    """Every import, lazy ones and those under TYPE_CHECKING included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "bertune" else {node.module}
            found |= inside
    return {name for name in found if name.startswith("bertune.") and name != "bertune.__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above_it(path):
    here = room_of(".".join(["bertune", *path.relative_to(SOURCE).with_suffix("").parts]))
    for name in imports_of(path):
        there = room_of(name)
        assert there == here or there in ABOVE[here], f"{path.relative_to(SOURCE)} ({here}) imports {name} ({there})"


def test_engine_knows_no_concrete_task():
    for path in (SOURCE / "engine").glob("*.py"):
        tasks = {name for name in imports_of(path) if name.startswith("bertune.tasks")}
        assert tasks <= {"bertune.tasks.task"}, path


def test_every_public_name_resolves_and_is_listed_once():
    assert bertune.__all__ == sorted(bertune.__all__) or sorted(bertune.__all__) == sorted(bertune._HOMES)
    assert set(bertune.__all__) == set(bertune._HOMES)
    for name in bertune.__all__:
        assert getattr(bertune, name).__name__ in {name, name.lower()}
    with pytest.raises(AttributeError):
        bertune.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("code", ["import bertune", "from bertune.cli.verbs import app", "import bertune.config, bertune.data.rows"])
def test_light_things_load_no_torch(code):
    program = f"{code}\nimport sys\nprint([m for m in ('torch', 'transformers', 'accelerate', 'sklearn') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_file_and_no_function_is_too_long():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 70, f"{path}: {node.name}"
