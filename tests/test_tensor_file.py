"""Files of tensors: whole or as before, readable as any new file, the same bytes for the same tensors."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from safetensors.torch import load_file, safe_open

from bertune import tensor_file
from bertune.tensor_file import write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.ones(4, dtype=torch.bfloat16)}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_others_may_read_it_as_any_new_file(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "model.safetensors", TENSORS, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o666 & ~umask


def test_tensors_and_metadata_come_back_in_the_same_bytes(tmp_path):
    path = tmp_path / "model.safetensors"
    names = [f"name {n}" for n in range(9)]
    write_tensors(path, TENSORS, dict.fromkeys(names, "x"))
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == dict.fromkeys(names, "x")
    before = path.read_bytes()
    write_tensors(path, TENSORS, dict.fromkeys(reversed(names), "x"), durable=True)
    assert path.read_bytes() == before


def test_what_a_killed_process_left_is_cleared_away(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_tensors(path, TENSORS, {})
    before = path.read_bytes()

    def die(tensors, part, **_):
        part.with_name(".tmpAbCdEf").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "save_file", die)
        with pytest.raises(KeyboardInterrupt):
            write_tensors(path, {"a": torch.zeros(9)}, {})
    assert path.read_bytes() == before
    write_tensors(path, TENSORS, {})
    assert [child.name for child in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_part_of_an_earlier_version_is_cleared_away(tmp_path):
    (tmp_path / "model.safetensors.part").write_bytes(b"half")
    write_tensors(tmp_path / "model.safetensors", TENSORS, {})
    assert [child.name for child in tmp_path.iterdir()] == ["model.safetensors"]
