"""A run that is written, built anew and read back goes on bit for bit as if nothing had been."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.builders import build_run

from bertune.data.batching import num_batches
from bertune.errors import ArtifactError
from bertune.kernels.dropout import DROPOUT_GENERATOR
from bertune.training.listener import Listener
from bertune.training.loop import TrainLoop
from bertune.training.state import Mean
from bertune.training.step import TrainStep
from bertune.types import Example

EXAMPLES = [
    Example((text,), label)
    for text, label in [
        ("good", "+"),
        ("the dog is very good", "+"),
        ("a bad cat and a bad house , not good", "-"),
        ("awful", "-"),
        ("great tree .", "+"),
        ("one two three poor cars", "-"),
        ("the book was fine and the house was big", "+"),
        ("not good", "-"),
        ("好 不 坏 , 我 是 大 人", "+"),
        ("坏 坏 坏", "-"),
    ]
]
SIZE = 4  # 3 batches an epoch, the last of 2 rows
PER_EPOCH = num_batches(len(EXAMPLES), SIZE)
STEPS = 2 * PER_EPOCH + 1


def build(folder: Path, seed: int = 42, **train: object) -> TrainStep:
    """Build everything of a run from its settings alone, with dropout and EMA on."""
    settings = {
        "epochs": 10,
        "max_steps": STEPS,
        "batch_size": SIZE,
        "micro_batches": 2,
        "learning_rate": 1e-3,
        "ema": 0.9,
        **train,
    }
    run = {"task": "classify", "model": str(folder), "seed": seed, "train": settings}
    built = build_run({**run, "log": {"every": PER_EPOCH}}, EXAMPLES)
    work, config = built.step(), built.model.encoder.config
    assert (config.hidden_dropout, config.attention_dropout, built.model.head.dropout.p) == (0.1, 0.1, 0.1)
    assert work.num_active_words is not None
    return work


def advance(work: TrainStep, until: int, losses: list[float]) -> None:
    """Train until so many steps are done; note the summed loss of each."""
    if work.state.progress.step == until:
        return
    for rows in work.batches():
        work.model.train()
        work.step(rows)
        before = work.state.progress.loss_since_epoch.total
        work.state.progress.loss_since_epoch.total = 0.0
        work.fetch_loss()
        losses.append(work.state.progress.loss_since_epoch.total)
        work.state.progress.loss_since_epoch.total += before
        if work.state.progress.step == until:
            return


def weights(work: TrainStep) -> dict[str, torch.Tensor]:
    return {n: t.detach().clone() for n, t in work.model.state_dict().items()}


def averages(work: TrainStep) -> dict[str, torch.Tensor]:
    with work.averaged_weights():
        return weights(work)


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [n for n in ours if not torch.equal(ours[n], theirs[n])] == []


def disturb() -> None:
    """Whatever else happens between two runs."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    DROPOUT_GENERATOR.seed(0)


Ended = tuple[list[float], dict[str, torch.Tensor], dict[str, torch.Tensor], TrainStep]


@pytest.fixture(scope="module")
def straight(tiny) -> Callable[..., Ended]:
    """Runs without interruption, made once each."""
    made: dict[str, Ended] = {}

    def get(**train: object) -> Ended:
        key = json.dumps(train)
        if key not in made:
            losses: list[float] = []
            work = build(tiny, **train)
            advance(work, STEPS, losses)
            made[key] = (losses, weights(work), averages(work), work)
        return made[key]

    return get


def test_every_step_is_another_and_dropout_is_on(straight, tiny):
    """Or the tests below would show nothing."""
    losses, final, average, work = straight()
    assert len(set(losses)) == len(losses) == STEPS
    assert (work.state.progress.epoch, work.state.progress.batches_done) == (2, 1)
    assert any(not torch.equal(final[n], average[n]) for n in final)
    model = work.model.train()
    batch = work.dataset.get_batch([0, 1], work.task.collate_target)
    assert not torch.equal(model(batch), model(batch))


def test_the_same_settings_give_the_same_run(straight, tiny):
    losses: list[float] = []
    disturb()
    work = build(tiny)
    advance(work, STEPS, losses)
    assert losses == straight()[0]
    assert_same(weights(work), straight()[1])
    assert_same(averages(work), straight()[2])


@pytest.mark.parametrize(
    "k", [1, PER_EPOCH, PER_EPOCH + 1, 2 * PER_EPOCH], ids=lambda k: f"step {k} of {PER_EPOCH} an epoch"
)
def test_a_run_goes_on_bit_for_bit(k, straight, tiny, tmp_path):
    losses: list[float] = []
    work = build(tiny)
    advance(work, k, losses)
    work.state.write(tmp_path / "state")
    advance(work, k + 1, [])  # what happens after writing is not in the file
    disturb()
    again = build(tiny, seed=42)
    disturb()
    again.state.read(tmp_path / "state")
    assert again.state.progress.step == k
    advance(again, STEPS, losses)
    whole, final, average, other = straight()
    assert losses == whole
    assert_same(weights(again), final)
    assert_same(averages(again), average)
    assert again.state.progress == other.state.progress


@pytest.mark.parametrize(
    "train",
    [{"ema": None}, {"ema": None, "fgm": 0.5, "r_drop": 1.0, "layer_decay": 0.9}],
    ids=["plain", "all tricks"],
)
def test_a_run_without_ema_goes_on_bit_for_bit(train, straight, tiny, tmp_path):
    losses: list[float] = []
    work = build(tiny, **train)
    advance(work, 4, losses)
    work.state.write(tmp_path)
    disturb()
    again = build(tiny, **train)
    again.state.read(tmp_path)
    advance(again, STEPS, losses)
    assert losses == straight(**train)[0]
    assert_same(weights(again), straight(**train)[1])


def test_a_state_goes_on_in_memory_too(straight, tiny):
    losses: list[float] = []
    work = build(tiny)
    advance(work, 4, losses)
    tensors, values = work.state.capture()
    advance(work, 5, [])  # what was captured is a copy
    again = build(tiny)
    again.state.restore(tensors, values)
    advance(again, STEPS, losses)
    assert losses == straight()[0]
    assert_same(weights(again), straight()[1])
    assert_same(averages(again), straight()[2])


class Recorder(Listener):
    """Keeps the events of training, but for times."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, object]]] = []
        self.steps: list[int] = []

    def _add(self, event: str, record: dict[str, object]) -> None:
        timed = ("rows_per_s", "tokens_per_s", "eta_s")
        self.records.append((event, {k: v for k, v in record.items() if k not in timed}))

    def on_step(self, step: int, total_steps: int) -> None:
        self.steps.append(step)

    def on_log(self, record: dict[str, object]) -> None:
        self._add("train", record)

    def on_evaluate(self, record: dict[str, object]) -> None:
        self._add("dev", record)

    def on_epoch(self, record: dict[str, object]) -> None:
        self._add("epoch", record)

    def on_warning(self, step: int, message: str) -> None:
        self._add("warning", {"step": step, "message": message})


def test_the_loop_goes_on_from_a_state(tiny, tmp_path):
    """With a constant rate the first epoch alone is the beginning of the whole run."""
    whole, parts = Recorder(), Recorder()
    straight = build(tiny, schedule="constant")
    kept: list[int] = []
    save_best = lambda *_: kept.append(straight.state.progress.step)  # noqa: E731
    TrainLoop(straight, evaluate=None, save_best=save_best, listeners=[whole]).run()
    assert kept == [PER_EPOCH, 2 * PER_EPOCH, STEPS]
    assert [event for event, _ in whole.records] == ["train", "epoch"] * 3

    first = build(tiny, schedule="constant", max_steps=PER_EPOCH)
    TrainLoop(first, evaluate=None, save_best=lambda *_: None, listeners=[parts]).run()
    first.state.write(tmp_path)
    disturb()
    again = build(tiny, schedule="constant")
    again.state.read(tmp_path)
    assert TrainLoop(again, evaluate=None, save_best=lambda *_: None, listeners=[parts]).run().steps == STEPS
    assert parts.steps == whole.steps == list(range(1, STEPS + 1))
    assert parts.records == whole.records
    assert_same(weights(again), weights(straight))
    assert_same(averages(again), averages(straight))


def test_all_of_the_progress_comes_back(tiny, tmp_path):
    work = build(tiny)
    advance(work, 4, [])
    progress = work.state.progress
    (
        progress.best_score,
        progress.best_loss,
        progress.best_step,
        progress.evals_without_gain,
        progress.reference_score,
    ) = (
        0.1 + 0.2,
        1 / 3,
        3,
        2,
        0.7,
    )
    progress.loss_since_log = Mean(1 / 7, 3.0)
    work.state.write(tmp_path)
    again = build(tiny)
    assert again.state.progress != progress
    again.state.read(tmp_path)
    assert again.state.progress == progress
    assert isinstance(again.state.progress.loss_since_log, Mean)


def test_random_numbers_come_back(tiny, tmp_path):
    def drawn() -> tuple[object, ...]:
        return (
            random.random(),
            random.gauss(0, 1),
            float(np.random.normal()),
            float(torch.rand(())),
            DROPOUT_GENERATOR.draw([9]).tolist(),
        )

    work = build(tiny)
    drawn()  # half of a pair of normal numbers is left over
    work.state.write(tmp_path)
    expected = drawn(), drawn()
    disturb()
    work.state.read(tmp_path)
    assert (drawn(), drawn()) == expected


def test_the_state_is_one_safetensors_file(tiny, tmp_path):
    from safetensors.torch import load_file

    work = build(tiny)
    advance(work, 2, [])
    work.state.write(tmp_path / "a" / "state")
    work.state.write(tmp_path / "a" / "state")  # over itself
    assert sorted(p.name for p in (tmp_path / "a" / "state").iterdir()) == ["state.safetensors"]
    tensors = load_file(tmp_path / "a" / "state" / "state.safetensors")
    for name, weight in weights(work).items():
        assert torch.equal(tensors[f"model.{name}"], weight)
    parameters = len(list(work.model.parameters()))
    assert sum(n.startswith("ema.") for n in tensors) == parameters
    assert sum(n.startswith("optimizer.") for n in tensors) == 3 * parameters  # two moments and a step each


@pytest.mark.parametrize("broken", ["missing", "cut", "empty"])
def test_a_missing_or_broken_file_is_named(broken, tiny, tmp_path):
    work = build(tiny)
    work.state.write(tmp_path)
    before, path = weights(work), tmp_path / "state.safetensors"
    content = path.read_bytes()
    path.unlink()
    if broken != "missing":
        path.write_bytes(content[: len(content) // 2] if broken == "cut" else b"")
    with pytest.raises(ArtifactError, match="no readable training state"):
        work.state.read(tmp_path)
    assert_same(weights(work), before)
