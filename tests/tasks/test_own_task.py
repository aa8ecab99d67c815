"""A task of a user: what `prepare` may change, and what every task must keep in its state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.data.test_example_store import TASKS

import bertune
from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.tasks.base.reading import read_and_fit
from bertune.training.rng import step_seed
from bertune.types import Location, Row

FIXTURES = Path(__file__).parents[1] / "fixtures" / "format-1"
NOISY = '''
import json
from dataclasses import replace
from pathlib import Path

from bertune.tasks.classify import Classify


class Noisy(Classify):
    """Hides tokens at random, others each time."""

    def prepare(self, batch, seed):
        import numpy as np
        import torch
        from bertune.data.row_random import row_keys, uniform

        if seed is None:
            return batch
        ids, lengths = batch.ragged.input_ids, batch.ragged.lengths
        places = np.concatenate([np.arange(length) for length in lengths])
        hidden = torch.from_numpy(uniform(np.repeat(row_keys(batch.ragged, seed), lengths), places) < RATE)
        with Path("prepared.jsonl").open("a") as file:
            file.write(json.dumps([list(batch.rows), hidden.int().tolist()]) + "\\n")
        return replace(batch, ragged=replace(batch.ragged, input_ids=torch.where(hidden, ids[0], ids)))
'''


def train(folder: Path, tiny: Path, task: str, *more: str, resume: bool = False):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in TASKS["classify"][1]))
    settings = [
        f"model={tiny}", f"data.train={file}", f"out={folder / 'out'}", "train.max_steps=6", "train.batch_size=8",
        "train.checkpoint_every=3", "train.micro_batches=2", *more,
    ]  # fmt: skip
    return bertune.train(task, settings, quiet=True, resume=resume)


def noisy(folder: Path, monkeypatch: pytest.MonkeyPatch, rate: float) -> str:
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "noisy.py").write_text(NOISY.replace("RATE", str(rate)))
    return str(folder / "noisy.py")


def weights(folder: Path) -> bytes:
    return (folder / "out" / "last" / "model.safetensors").read_bytes()


def prepared(folder: Path) -> list[list[list[int]]]:
    return [json.loads(line) for line in (folder / "prepared.jsonl").read_text().splitlines()]


def test_a_task_may_change_a_batch(tiny, tmp_path, monkeypatch):
    plain = tmp_path / "plain"
    plain.mkdir()
    train(plain, tiny, "classify", "train.active_vocabulary=false")
    for name, rate in (("none", 0.0), ("some", 0.5), ("again", 0.5)):
        train(tmp_path / name, tiny, noisy(tmp_path / name, monkeypatch, rate))
    assert weights(tmp_path / "none") == weights(plain)
    assert weights(tmp_path / "some") != weights(plain)
    assert weights(tmp_path / "again") == weights(tmp_path / "some")
    batches = prepared(tmp_path / "some")
    assert len(batches) == 12  # 6 steps of 2 micro-batches
    assert batches == prepared(tmp_path / "again")
    assert len({str(hidden) for _, hidden in batches}) == 12


def test_random_numbers_of_prepare_are_the_same_after_a_resume(tiny, tmp_path, monkeypatch):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(straight, tiny, noisy(straight, monkeypatch, 0.5))
    task = noisy(stopped, monkeypatch, 0.5)

    class Stop(bertune.Listener):
        def on_step(self, *args: object, **more: object) -> None:
            if len(prepared(stopped)) >= 8:
                raise KeyboardInterrupt

    settings = [
        "train.max_steps=6",
        "train.batch_size=8",
        "train.checkpoint_every=3",
        "train.micro_batches=2",
    ]
    file = stopped / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in TASKS["classify"][1]))
    with pytest.raises((KeyboardInterrupt, bertune.BertuneError)):
        bertune.train(
            task,
            [f"model={tiny}", f"data.train={file}", f"out={stopped / 'out'}", *settings],
            quiet=True,
            listeners=[Stop()],
        )
    assert len(prepared(stopped)) == 8
    train(stopped, tiny, task, resume=True)
    assert weights(stopped) == weights(straight)


def test_every_step_of_every_run_has_a_seed_of_its_own():
    assert len({step_seed(seed, step) for seed in range(20) for step in range(20)}) == 400
    assert step_seed(1, 2) == step_seed(1, 2)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_built_anew_is_the_same_after_load_state(name, tmp_path):
    task_name, rows, settings = TASKS[name]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, task = prepare(task_name, [f"data.train={file}", *settings])
    examples = read_and_fit([str(file)], task, run.data, lambda _: None)
    _, other = prepare(task_name, [f"data.train={file}", *settings])
    other.load_state(json.loads(json.dumps(task.state())))
    assert other.state() == task.state()
    assert (other.describe(), other.min_batch_size) == (task.describe(), task.min_batch_size)
    assert [other.encode_target(e.target) for e in examples] == [
        task.encode_target(e.target) for e in examples
    ]


@pytest.mark.parametrize("name", TASKS)
def test_reading_changes_nothing_in_the_task(name):
    task_name, rows, settings = TASKS[name]
    _, task = prepare(task_name, ["data.train=rows.jsonl", *settings])
    before = dict(vars(task))
    reader = task.new_reader()
    renamed = {"tokens": "text", "tags": "label", "spans": "label"}
    rows = [{renamed.get(field, field): value for field, value in row.items()} for row in rows]
    examples = [reader.read(Row(row, Location("rows.jsonl", n))) for n, row in enumerate(rows, 1)]
    assert [task.read(Row(row, Location("rows.jsonl", n))) for n, row in enumerate(rows, 1)] == examples
    assert vars(task) == before


def test_with_data_returns_a_copy():
    _, task = prepare("tag", ["data.train=rows.jsonl"])
    data = DataConfig(encoding="gb18030")
    copy = task.with_data(data)
    assert (copy.data, task.data.encoding) == (data, "utf-8")
    assert copy.state() == task.state()


@pytest.mark.parametrize("name", ["classify", "multi", "regress", "tag", "match", "embed"])
def test_folders_of_format_1_predict_the_same(name):
    expected = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))[name]
    model = bertune.load(FIXTURES / name, precision="fp32", device="cpu")
    inputs = [tuple(i) if name in {"match", "embed"} else i for i in expected["inputs"]]
    for prediction, old in zip(model.predict(inputs), expected["outputs"], strict=True):
        value = prediction.value
        value = (
            [v._asdict() if hasattr(v, "_asdict") else v for v in value]
            if isinstance(value, tuple)
            else value
        )
        assert same(value, old["value"])
        assert same(prediction.probabilities, old["by_label"])
        assert same(prediction.confidence, old["confidence"])
    if name in {"match", "embed"}:
        vectors = model.encode(expected["encode"]["inputs"])
        np.testing.assert_allclose(vectors, expected["encode"]["outputs"], atol=1e-5)


def same(value, other):
    """Compare as JSON, numbers to 1e-5: other processors round otherwise."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[key], other[key]) for key in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(same, value, other))
    return value == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)
