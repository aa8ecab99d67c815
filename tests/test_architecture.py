"""A room imports only rooms above it; training knows no concrete task; light modules load no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bertune

SOURCE = Path(bertune.__file__).parent
ORDER = (
    {"base"},
    {"config", "metrics"},
    {"text", "data", "kernels"},
    {"catalog"},
    {"encoders"},
    {"losses", "heads"},
    {"tasks"},
    {"inference"},
    {"artifact"},
    {"training"},
    {"retrieval", "selection", "migration"},
    {"commands"},
    {"cli"},
)
"""Rooms from the top down. Rooms of one level do not import each other."""
BASE = {"errors", "types", "files", "console", "distributed", "memory", "tensor_file"}
MODULES = sorted(
    path
    for path in SOURCE.rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py"} or path.parent != SOURCE
)


def room_of(module: str) -> str:
    first = module.removeprefix("bertune.").split(".")[0]
    return "base" if first in BASE else first


def level_of(room: str) -> int:
    return next(level for level, rooms in enumerate(ORDER) if room in rooms)


def name_of(path: Path) -> str:
    parts = ["bertune", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports_of(path: Path, *, types_too: bool = True) -> set[str]:
    """The modules of bertune that a file imports, lazily too; those under TYPE_CHECKING if `types_too`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not types_too:
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ]
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in members if name in NAMES or node.module == "bertune"}
            imported |= modules or {node.module}
    return {name for name in imported if name.startswith("bertune.") and name != "bertune.__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above_it(path):
    room = room_of(".".join(["bertune", *path.relative_to(SOURCE).with_suffix("").parts]))
    for name in imports_of(path):
        other = room_of(name)
        assert other == room or level_of(other) < level_of(room), (
            f"{path.relative_to(SOURCE)} ({room}) imports {name} ({other})"
        )


def test_training_knows_no_concrete_task():
    for path in (SOURCE / "training").glob("*.py"):
        tasks = {name for name in imports_of(path) if name.startswith("bertune.tasks")}
        assert all(name.startswith("bertune.tasks.base") for name in tasks), path


def test_no_circle():
    """Modules of one room, too, import each other in one direction; imports for types alone do not count."""
    graph = {name_of(path): imports_of(path, types_too=False) & NAMES for path in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_every_public_name_resolves_and_is_listed_once():
    assert bertune.__all__ == sorted(bertune._MODULES)
    for name in bertune.__all__:
        assert getattr(bertune, name).__name__ in {name, name.lower()}
    with pytest.raises(AttributeError):
        bertune.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import bertune",
        "from bertune.cli.app import app",
        "import bertune.config.load, bertune.data.rows, bertune.text.load",
    ],
)
def test_light_things_load_no_torch(code):
    heavy = {"torch", "transformers", "accelerate", "sklearn"}
    program = f"{code}\nimport sys\nprint(sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_file_and_no_function_is_too_long():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 70, f"{path}: {node.name}"
