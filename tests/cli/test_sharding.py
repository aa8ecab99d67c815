"""A model in pieces (train.fsdp) gives what a whole one gives, and goes on from a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from bertune.commands.train import prepare, train
from bertune.errors import ConfigError

ROWS = [
    {
        "text": " ".join(["good", "dog", "tree", "bad", "car", "not"][i % 5 : 2 + i % 7]) + " a",
        "label": "ab"[i % 2],
    }
    for i in range(31)
]
LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--standalone",
    "-m",
    "bertune",
    "train",
]


def settings(tiny: Path, data: str, out: Path, **train: object) -> list[str]:
    dev = Path(data).with_name("dev.jsonl")
    given = {
        "task": "classify", "model": tiny, "out": out, "device": "cpu", "data.train": data,
        **({"data.dev": dev} if dev.exists() else {}),
        "options.dropout": 0, "train.dropout": 0,
        "train.precision": "fp32", "train.batch_size": 8, "train.epochs": 3, "train.learning_rate": 3e-4,
        "log.every": 1,
        **{f"train.{name}": value for name, value in train.items()},
    }  # fmt: skip
    return [f"{name}={value}" for name, value in given.items()]


def launch(words: list[str], *, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    kept = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.Popen(
        [*LAUNCH, *words], env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if line["event"] == "train"]


def assert_close(ours: Path, theirs: Path) -> None:
    assert losses(ours) == pytest.approx(losses(theirs), abs=1e-5)
    for name in ("model.safetensors", "last/model.safetensors"):
        mine, other = load_file(ours / name), load_file(theirs / name)
        assert mine.keys() == other.keys()
        assert max((mine[n] - other[n]).abs().max().item() for n in mine) < 2e-5


@pytest.fixture
def whole(tiny, write, tmp_path) -> tuple[str, Path]:
    """A run in one process; its last batch has one row."""
    data = write("rows.jsonl", ROWS[:25])
    write("dev.jsonl", ROWS[25:])
    out = tmp_path / "whole"
    train("classify", settings(tiny, data, out)[1:], quiet=True)
    return data, out


def test_pieces_give_what_the_whole_gives(tiny, whole, tmp_path):
    """Also where the last batch has one row, so that a process has none."""
    data, expected = whole
    out = tmp_path / "pieces"
    process = launch(
        ["classify", *settings(tiny, data, out, fsdp="true", micro_batches=3)[1:]],
        environment={"ACCELERATE_USE_FSDP": "true"},
    )
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert said.count("asks for FSDP, so train.fsdp=true") == 1
    assert "rows: 25 train, 6 dev" in said
    assert_close(out, expected)


def test_pieces_go_on_from_a_checkpoint_bit_for_bit(tiny, write, tmp_path):
    data = write("rows.jsonl", ROWS)
    words = {"fsdp": "true", "dropout": 0.1, "epochs": 20, "checkpoint_every": 3}
    straight = launch(["classify", *settings(tiny, data, tmp_path / "straight", **words)[1:]])
    _, said = straight.communicate(timeout=120)
    assert straight.returncode == 0, said
    out = tmp_path / "cut"
    process = launch(["classify", *settings(tiny, data, out, **words)[1:]])
    while not list(out.glob("checkpoints/step-*[0-9]")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert not (out / "scores.json").exists()
    process = launch([str(out), "--resume"])
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "resume: goes on from" in said
    assert losses(out) == losses(tmp_path / "straight")
    for name in ("model.safetensors", "last/model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize("trick", ["ema: 0.9", "fgm: 1.0", "r_drop: 1.0"])
def test_tricks_that_need_the_whole_model_are_refused(trick):
    name, value = trick.split(": ")
    with pytest.raises(ConfigError, match="fsdp is not for ema, fgm and r_drop"):
        prepare("classify", ["train.fsdp=true", f"train.{name}={value}"])


def test_losses_of_whole_batches_are_refused(tiny, write, tmp_path):
    data = write(
        "rows.jsonl", [{"text": f"dog {w}", "text_b": f"cat {w}"} for w in ("good", "bad", "fine", "poor")]
    )
    with pytest.raises(ConfigError, match=r"train\.fsdp: a loss over a whole batch needs the whole model"):
        train(
            "embed",
            [f"model={tiny}", f"data.train={data}", "train.fsdp=true", f"out={tmp_path / 'out'}"],
            quiet=True,
        )


def test_deepspeed_is_refused(tiny, write, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="asks for DeepSpeed"):
        train(
            "classify",
            [f"model={tiny}", f"data.train={write('rows.jsonl', ROWS)}", f"out={tmp_path / 'out'}"],
            quiet=True,
        )
