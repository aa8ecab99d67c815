"""What runs can do, ChineseBERT's can too: rows kept on disk, going on, several processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.chinesebert_folder import HAN, write_folder
from tests.encoders.test_int8 import on_such_processors

from bertune.artifact.read import load
from bertune.commands.train import train
from bertune.errors import Interrupted
from bertune.training import checkpoint

NO_DROPOUT = ["train.dropout=0", "options.dropout=0", "train.precision=fp32"]


@pytest.fixture
def start(tmp_path, write, monkeypatch):
    """Settings of a run on three hundred texts, enough for processes that tokenise to get some of them."""
    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    draw = random.Random(0)
    texts = ["".join(draw.choice(HAN) for _ in range(draw.randint(2, 20))) for _ in range(300)]
    data = write(
        "rows.jsonl", [{"text": text, "label": "ab"["好" in text or "成" in text]} for text in texts]
    )
    model = write_folder(tmp_path / "chinesebert")

    def settings(name: str, *more: str) -> list[str]:
        given = {
            "model": model,
            "data.train": data,
            "out": tmp_path / name,
            "device": "cpu",
            "train.batch_size": 32,
            "log.every": 1,
        }
        return [*(f"{key}={value}" for key, value in given.items()), *more]

    return settings


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes() + (folder / "last" / "model.safetensors").read_bytes()


def test_rows_kept_on_disk_change_nothing(start):
    usual = train("classify", start("usual"), quiet=True).folder
    for name in ("cold", "warm"):
        kept = train("classify", start(name, "data.cache=on", "data.workers=2"), quiet=True).folder
        assert weights(kept) == weights(usual)


def test_a_run_goes_on_bit_for_bit(start, monkeypatch):
    straight = train(
        "classify", start("straight", "train.checkpoint_every=4", "train.glyphs=trained"), quiet=True
    ).folder
    written = checkpoint.Checkpoints.write

    def stop(self: checkpoint.Checkpoints, state: object) -> None:
        written(self, state)
        raise Interrupted("stopped", 15)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "write", stop)
        with pytest.raises(Interrupted):
            train("classify", start("cut", "train.checkpoint_every=4", "train.glyphs=trained"), quiet=True)
    again = train(
        "classify", start("cut", "train.checkpoint_every=4", "train.glyphs=trained"), quiet=True, resume=True
    ).folder
    assert weights(again) == weights(straight)


def test_two_processes_give_what_one_gives(start, tmp_path):
    settings = ["train.learning_rate=1e-4", "train.adam_epsilon=1e-2", *NO_DROPOUT]
    one = train("classify", start("one", *settings), quiet=True).folder
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "bertune",
        "train",
        "classify",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*launch, *start("two", *settings)], check=True, env=environment, capture_output=True, timeout=300
    )
    ours, theirs = load_file(tmp_path / "two" / "model.safetensors"), load_file(one / "model.safetensors")
    assert max((ours[n] - theirs[n]).abs().max().item() for n in theirs) < 1e-5
    lines = [
        [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        for out in (one, tmp_path / "two")
    ]
    losses = [[line["loss"] for line in found if line["event"] == "train"] for found in lines]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@on_such_processors
def test_predictions_in_int8(start):
    folder = train("classify", start("out", "train.learning_rate=1e-3"), quiet=True).folder
    texts = [HAN[n : n + 6] for n in range(len(HAN) - 6)]
    shares = [
        np.array([list(p.probabilities.values()) for p in load(folder, precision=p).predict(texts)])
        for p in ("fp32", "int8")
    ]
    assert 0 < np.abs(shares[0] - shares[1]).max() < 0.05
