"""The weights of a saved folder are whole, on the disk, and those that were written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bertune
from bertune.artifact.artifact import sha256_of_tensors
from bertune.artifact.read import read_artifact, read_weights
from bertune.artifact.write import write_artifact
from bertune.errors import ArtifactError, TrainingError
from bertune.training.listener import Listener, Outcome

ROWS = [
    {"text": f"the {noun} is {mood}", "label": mood}
    for noun in ("dog", "cat", "tree", "house")
    for mood in ("good", "bad")
]


@pytest.fixture
def settings(tiny, write, tmp_path):
    file = write("rows.jsonl", ROWS)
    return [
        f"data.train={file}",
        f"data.dev={file}",
        f"model={tiny}",
        f"out={tmp_path / 'out'}",
        "device=cpu",
        "train.max_steps=2",
    ]


@pytest.fixture
def folder(settings) -> Path:
    return bertune.train("classify", settings, quiet=True).folder


def flip(path: Path, at: int = -9) -> None:
    """Flip a bit of a weight."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", [".", "last"])
def test_weights_have_their_hash_beside_them(part, folder):
    path = folder / part / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    assert metadata == {"format": "pt", "sha256": sha256_of_tensors(weights)}
    assert read_weights(folder / part, verify=True).keys() == weights.keys()


def test_equal_weights_are_equal_bytes(folder, tmp_path):
    """The order of the metadata in the header too, which safetensors draws."""
    artifact = read_artifact(folder)
    written = set()
    for n in range(8):
        write_artifact(artifact, tmp_path / str(n))
        written.add((tmp_path / str(n) / "model.safetensors").read_bytes())
    assert written == {(folder / "model.safetensors").read_bytes()}


def test_a_hash_is_of_names_types_shapes_and_values():
    def hashed(**tensors: torch.Tensor) -> str:
        return sha256_of_tensors(tensors)

    one, other = torch.arange(6.0), torch.ones(2)
    hashes = [
        hashed(a=one, b=other),
        hashed(a=one),
        hashed(b=one, a=other),
        hashed(a=one.view(2, 3), b=other),
        hashed(a=one.double(), b=other),
        hashed(a=one + torch.tensor([0, 0, 0, 0, 0, 1e-6]), b=other),
        hashed(a=one.view(torch.int32), b=other),
    ]
    assert len(set(hashes)) == len(hashes)
    assert hashed(b=other, a=one) == hashes[0]
    assert hashed(a=torch.stack([one, one], 1)[:, 0], b=other) == hashes[0]  # wherever the values lie
    assert hashed(a=one.bfloat16(), b=torch.tensor(1.0)) == hashed(a=one.bfloat16(), b=torch.tensor(1.0))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells which file a handle is of")
def test_weights_are_on_the_disk_before_they_get_their_name(folder, tmp_path, monkeypatch):
    artifact, calls = read_artifact(folder), []
    path = tmp_path / "new" / "model.safetensors"
    write_artifact(artifact, path.parent)
    before = path.read_bytes()
    fsync, replace = os.fsync, Path.replace

    def flushed(handle: int) -> None:
        fsync(handle)
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))

    def renamed(self: Path, target: Path) -> Path:
        if target == path:
            assert path.read_bytes() == before
            calls.append(("rename", str(target)))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flushed)
        patch.setattr(Path, "replace", renamed)
        write_artifact(artifact, path.parent)
    assert calls[:3] == [
        ("fsync", f"{path}.part/{path.name}"),
        ("rename", str(path)),
        ("fsync", str(path.parent)),
    ]


@pytest.mark.parametrize("moment", ["written", "flushed", "renamed"])
def test_older_weights_stay_where_new_ones_cannot_be_written(moment, folder, monkeypatch):
    artifact, path = read_artifact(folder), folder / "model.safetensors"
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    where = {
        "written": "bertune.tensor_file.save_file",
        "flushed": "os.fsync",
        "renamed": "pathlib.Path.replace",
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(ArtifactError, match="cannot be written: No space left on device"):
            write_artifact(artifact, folder)
    assert path.read_bytes() == before


def test_a_flipped_bit_is_found_on_demand(folder):
    flip(folder / "model.safetensors")
    with pytest.raises(
        ArtifactError, match=r"model\.safetensors: damaged: the weights are not those that were written"
    ):
        read_weights(folder, verify=True)
    assert read_weights(folder).keys() == load_file(folder / "model.safetensors").keys()


def test_weights_of_the_form_before_have_no_hash_and_are_read(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = read_weights(folder, verify=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


class Flip(Listener):
    """Damages the best weights when training is done, before they are scored."""

    def __init__(self, out: Path) -> None:
        self.path = out / "model.safetensors"

    def on_end(self, outcome: Outcome) -> None:
        flip(self.path)


def test_a_run_does_not_finish_on_damaged_weights(settings, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        TrainingError,
        match=r"model\.safetensors: damaged: the weights are not those that were written. .*new run",
    ) as failed:
        bertune.train("classify", settings, quiet=True, listeners=[Flip(out)])
    assert str(out) in str(failed.value)
    assert not (out / "scores.json").exists()
    with pytest.raises(
        TrainingError, match="the weights are not those that were written"
    ):  # training is done, so nothing repairs them
        bertune.train(out, quiet=True, resume=True)
    assert not (out / "scores.json").exists()
    flip(out / "model.safetensors")
    assert bertune.train(out, quiet=True, resume=True).folder == out
    assert (out / "scores.json").exists()
