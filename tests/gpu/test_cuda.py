"""On a CUDA GPU (`pytest -m gpu`): parity with the CPU, half precision, gradient caching, resume, memory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.conftest import make_encoder
from tests.data.test_example_store import TASKS

import bertune
from bertune.errors import TrainingError
from bertune.training.listener import Listener, StopTraining

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
STEPS = 6


def write_rows(folder: Path, name: str) -> tuple[str, str, list[str]]:
    """Write the rows of a task; return task, file and settings."""
    task, rows, settings = TASKS[name]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return task, str(file), settings


def train(folder: Path, name: str, model: Path, out: str, *settings: str, **more: object) -> list[dict]:
    """Train a little; return the events of the history."""
    task, file, own = write_rows(folder, name)
    common = [f"model={model}", f"data.train={file}", f"out={folder / out}", f"train.max_steps={STEPS}"]
    common += ["train.batch_size=16", "log.every=1", "train.learning_rate=1e-3", *own, *settings]
    bertune.train(task, common, quiet=True, **more)
    lines = (folder / out / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def losses(history: list[dict]) -> list[float]:
    return [event["loss"] for event in history if event["event"] == "train"]


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Path:
    """A tiny BERT without dropout."""
    folder = tmp_path_factory.mktemp("encoder") / "still"
    return make_encoder(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.mark.parametrize("name", TASKS)
def test_a_gpu_learns_what_a_processor_learns(name, still, tmp_path):
    dropout = [] if TASKS[name][0] in {"match", "embed"} else ["options.dropout=0"]
    found = {
        device: train(tmp_path, name, still, device, f"device={device}", "train.precision=fp32", *dropout)
        for device in ("cpu", "cuda")
    }
    assert losses(found["cuda"]) == pytest.approx(losses(found["cpu"]), rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["classify", "tag", "match", "SimCSE"])
def test_half_precision_learns_nearly_the_same(name, precision, still, tmp_path):
    dropout = [] if TASKS[name][0] in {"match", "embed"} else ["options.dropout=0"]
    exact, half = (
        train(tmp_path, name, still, p, "device=cuda", f"train.precision={p}", *dropout)
        for p in ("fp32", precision)
    )
    assert losses(half) == pytest.approx(losses(exact), rel=0.1, abs=0.05)


@pytest.mark.parametrize("name", TASKS)
def test_with_dropout_losses_are_finite_and_the_same_run_twice_is_nearly_the_same(name, tiny, tmp_path):
    first, again = (train(tmp_path, name, tiny, out, "device=cuda") for out in ("first", "again"))
    assert all(math.isfinite(loss) for loss in losses(first))
    assert losses(again) == pytest.approx(losses(first), rel=0.02, abs=0.01)


@pytest.mark.parametrize("name", ["SimCSE", "embed"])
def test_cached_gradients_repeat_the_dropout(name, tiny, tmp_path):
    """A part is computed twice; if the second pass dropped other values, the runs would part at once."""
    from tests.tasks.test_match_embed import PAIRS, SINGLE

    from bertune.commands.train import prepare
    from bertune.data.dataset import EncodedDataset
    from bertune.training.build import build_model
    from bertune.training.launch import build_accelerator
    from bertune.training.rng import RngState, seed_everything
    from bertune.training.step import TrainStep
    from bertune.types import Location, Row

    rows = SINGLE if name == "SimCSE" else PAIRS
    train = {"micro_batches": 3, "dropout": 0.3, "max_grad_norm": 0, "max_steps": 1, "precision": "fp32"}
    run, task = prepare({"task": "embed", "model": str(tiny), "device": "cuda", "train": train})
    accelerator, numerics, _ = build_accelerator(run, tmp_path)
    examples = [task.read(Row(row, Location("rows", n))) for n, row in enumerate(rows, 1)]
    task.fit(examples, lambda _: None)
    seed_everything(1)
    built = build_model(run, task)
    built.model.encoder.set_numerics(numerics)
    dataset = EncodedDataset(task.encode(examples, built.tokenizer))
    work = TrainStep(built.model.cuda(), task, dataset, run, accelerator)
    model, indices = work.model.train(), list(range(9))
    batch = dataset.get_batch(indices, task.collate_target).to(work.device)
    parts = work.gradient.text_parts(batch, 1)
    assert len(parts) > 1
    before = RngState.capture(work.device)
    work.gradient.backward(batch, 1.0, 1)
    cached = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    before.restore(work.device)
    vectors = torch.cat([model.vectors(batch.ragged.slice_rows(part[0], part[-1] + 1)) for part in parts])
    task.loss(model.compare(vectors, batch.pair_index), batch).backward()
    for parameter, gradient in cached.items():
        torch.testing.assert_close(
            gradient, dict(model.named_parameters())[parameter].grad, rtol=1e-4, atol=1e-5
        )


class StopAt(Listener):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, total_steps: int) -> None:
        if step == self.step:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_is_stopped_goes_on(tiny, tmp_path):
    whole = train(tmp_path, "classify", tiny, "whole", "device=cuda", "train.ema=0.9")
    with pytest.raises(bertune.Interrupted):
        train(tmp_path, "classify", tiny, "out", "device=cuda", "train.ema=0.9", listeners=[StopAt(3)])
    again = train(tmp_path, "classify", tiny, "out", "device=cuda", "train.ema=0.9", resume=True)
    assert losses(again) == pytest.approx(losses(whole), rel=1e-3, abs=1e-4)
    print("\nlosses equal to the bit after a resume on CUDA:", losses(again) == losses(whole))


@pytest.mark.parametrize("name", ["classify", "regress", "tag", "match"])
def test_predictions_are_those_of_a_processor(name, tiny, tmp_path):
    train(tmp_path, name, tiny, "out", "device=cuda", "train.precision=fp32")
    _, rows, _ = TASKS[name]
    texts = [
        (row["text"], row["text_b"]) if "text_b" in row else row.get("text", row.get("tokens"))
        for row in rows[:20]
    ]
    found = {
        device: bertune.load(tmp_path / "out", device=device, precision="fp32").predict(texts)
        for device in ("cpu", "cuda")
    }
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        if name in {"regress", "match"}:
            assert ours.value == pytest.approx(theirs.value, abs=1e-4)
        elif name == "classify":
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
        else:
            assert [e[:3] for e in ours.value] == [e[:3] for e in theirs.value]


def test_a_loss_that_is_not_finite_is_found_although_the_host_does_not_wait(tiny, tmp_path):
    settings = ["device=cuda", "train.precision=fp32", "train.learning_rate=1e30", "train.max_grad_norm=0"]
    with pytest.raises(TrainingError, match=r"not finite at step \d of 6; the batch: '.*classify.jsonl:"):
        train(tmp_path, "classify", tiny, "out", *settings)


def test_short_memory_halves_the_micro_batches(tmp_path):
    """A real shortage: the process may use a part of the GPU only."""
    big = make_encoder(
        tmp_path / "encoder",
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=512,
    )
    file = tmp_path / "long.jsonl"
    text = "the dog is good and " * 90
    file.write_text("".join(json.dumps({"text": f"{text} {n}", "label": n % 2}) + "\n" for n in range(600)))
    warnings: list[str] = []

    class Heard(Listener):
        def on_warning(self, step: int, message: str) -> None:
            warnings.append(message)

        def on_step(self, step: int, total_steps: int) -> None:
            if step == 2:
                raise StopTraining

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(4e9 / total)
    try:
        settings = [f"model={big}", f"data.train={file}", f"out={tmp_path / 'out'}", "device=cuda"]
        settings += ["train.batch_size=512", "train.micro_batch_tokens=null", "train.precision=fp32"]
        bertune.train("classify", [*settings, "train.epochs=9"], quiet=True, listeners=[Heard()])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert warnings
    assert all("out of memory" in message and "train.micro_batches=" in message for message in warnings)
