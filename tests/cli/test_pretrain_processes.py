"""Pretraining by two processes, with a whole model and with one in pieces, gives what one process gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.conftest import ENGLISH

from bertune.commands.train import train

LAUNCH = [
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--standalone",
    "-m",
    "bertune",
    "train",
    "pretrain",
]


def settings(tiny: Path, data: str, out: Path, **more: object) -> list[str]:
    given = {
        "model": tiny, "out": out, "device": "cpu", "data.train": data, "data.max_length": 16,
        "train.dropout": 0, "train.precision": "fp32", "train.batch_size": 4, "train.epochs": 2,
        "train.learning_rate": 3e-4, "log.every": 1, **more,
    }  # fmt: skip
    return [f"{name}={value}" for name, value in given.items()]


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if line["event"] == "train"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> str:
    words = ENGLISH.split()
    lines = (" ".join(words[(7 * n + 3 * i) % len(words)] for i in range(3 + n % 9)) for n in range(30))
    file = tmp_path_factory.mktemp("texts") / "t.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def alone(tiny, texts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    train("pretrain", settings(tiny, texts, out), quiet=True)
    return out


@pytest.mark.parametrize("fsdp", ["true", "false"])
def test_two_processes_learn_what_one_does(fsdp, alone, tiny, texts, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, *LAUNCH, *settings(tiny, texts, out, **{"train.fsdp": fsdp})]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert losses(out) == pytest.approx(losses(alone), abs=1e-5)
    ours, theirs = load_file(out / "model.safetensors"), load_file(alone / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 2e-5


@pytest.mark.parametrize("more", [{"train.ema": 0.9}, {"train.fgm": 0.5}, {"train.micro_batches": 3}])
def test_what_else_a_step_does_works_with_the_shared_word_table(more, alone, tiny, texts, tmp_path):
    out = tmp_path / "out"
    train("pretrain", settings(tiny, texts, out, **more), quiet=True)
    same = losses(out) == pytest.approx(losses(alone), abs=1e-5)
    assert same is ("train.fgm" not in more)
    assert all(loss < 10 for loss in losses(out))
