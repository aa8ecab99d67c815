"""Files are whole or as they were before, and folders lose their name before their content."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertune import files


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_then_full(path: Path, text: str, *_: object, **__: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text[: len(text) // 2])
    full()


def test_text_is_written_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "run.yaml"
    for text in ("task: classify\n", "任务\n", ""):
        files.write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
        assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(("name", "fault"), [("write_text", half_then_full), ("replace", full)])
@pytest.mark.parametrize("existed", [True, False])
def test_a_file_that_cannot_be_written_stays_as_it_was(existed, name, fault, tmp_path, monkeypatch):
    path = tmp_path / "run.yaml"
    if existed:
        path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, name, fault)
        with pytest.raises(OSError, match="No space left on device"):
            files.write_text(path, "new and longer")
    assert (path.read_text() if path.exists() else None) == ("old" if existed else None)
    assert {p.name for p in tmp_path.iterdir()} <= {"run.yaml", "run.yaml.part"}
    files.write_text(path, "new")  # over what the failure has left
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_json_is_indented_and_keeps_its_characters(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": ["好", 1.5], "a": None})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"b": ["好", 1.5], "a": None}
    assert "好" in text
    assert text.startswith('{\n  "b"')
    assert text.endswith("}\n")


def test_json_that_cannot_be_said_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert (tmp_path / "a.json").read_text() == "1\n"


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 3 * 2**20 + 5])
def test_the_hash_of_a_file(size, tmp_path):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    expected = hashlib.sha256(content[:size]).hexdigest()
    assert files.sha256(tmp_path / "a") == files.sha256(str(tmp_path / "a")) == expected
    file = io.BytesIO(b"before" + content[:size])
    file.seek(6)
    assert files.sha256_of(file) == expected


def test_the_hash_of_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.sha256(tmp_path / "a")


def test_the_hash_of_json_does_not_depend_on_the_order_of_keys():
    value = {"a": 1, "b": {"d": [1, 2], "c": "好"}}
    assert files.sha256_of_json(value) == files.sha256_of_json({"b": {"c": "好", "d": [1, 2]}, "a": 1})
    others = [{**value, "a": 2}, {**value, "a": "1"}, {**value, "b": {"d": [2, 1], "c": "好"}}]
    assert len({files.sha256_of_json(v) for v in [value, *others]}) == 4


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_flushing(kind, tmp_path, monkeypatch):
    (tmp_path / "a").write_text("a")
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    files.fsync(tmp_path / "a" if kind == "file" else tmp_path)
    (handle,) = flushed
    with pytest.raises(OSError, match="Bad file descriptor"):  # it is closed
        os.fstat(handle)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            files.fsync(tmp_path / "a" if kind == "file" else tmp_path)
    with pytest.raises(FileNotFoundError):
        files.fsync(tmp_path / "b")


def filled(folder: Path) -> Path:
    (folder / "inside").mkdir(parents=True)
    (folder / "a").write_text("12345")
    (folder / "inside" / "b").write_text("678")
    return folder


def test_a_folder_is_removed_with_all_that_is_in_it(tmp_path):
    files.remove_folder(filled(tmp_path / "step-1"))
    assert list(tmp_path.iterdir()) == []
    files.remove_folder(tmp_path / "step-1")  # nothing is there


def test_a_folder_loses_its_name_first(tmp_path, monkeypatch):
    """What a killed process leaves has a name that nobody reads, and is removed the next time."""
    folder = filled(tmp_path / "step-1")
    doomed = files.doomed_name(folder)
    assert doomed.name == "step-1.gone.part"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        files.remove_folder(folder)
    assert [p.name for p in tmp_path.iterdir()] == [doomed.name]
    files.remove_folder(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_removed_over_the_rest_of_an_old_one(tmp_path):
    filled(files.doomed_name(tmp_path / "step-1"))
    files.remove_folder(filled(tmp_path / "step-1"))
    assert list(tmp_path.iterdir()) == []


def test_unfinished_names_are_unique_and_do_not_grow(tmp_path):
    names = {files.unique_part_of(tmp_path / "rows-1").name for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith("rows-1.") and name.endswith(".part") for name in names)
    again = files.unique_part_of(tmp_path / "rows-1.part").name
    assert again.count(".part") == 1 and len(again) == len(names.pop())


def test_a_shared_folder_gets_a_name_of_its_own_before_it_is_removed(tmp_path, monkeypatch):
    """Two processes that remove folders of one name do not meet."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        for _ in range(2):
            files.remove_folder(filled(tmp_path / "rows-1"), shared=True)
    left = list(tmp_path.iterdir())
    assert len(left) == 2 and all(path.suffix == files.PART for path in left)
    files.remove_folder(filled(tmp_path / "rows-2"), shared=True)
    files.remove_folder(tmp_path / "rows-2", shared=True)  # nothing is there
    assert sorted(tmp_path.iterdir()) == sorted(left)


def test_a_folder_that_cannot_be_renamed_stays_whole(tmp_path, monkeypatch):
    folder = filled(tmp_path / "step-1")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left on device"):
            files.remove_folder(folder)
    assert (folder / "inside" / "b").read_text() == "678"


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path):
    assert files.folder_size(filled(tmp_path / "a")) == 5
    assert files.folder_size(tmp_path / "nothing") == 0


def test_no_torch_is_loaded():
    program = "import sys, bertune.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
