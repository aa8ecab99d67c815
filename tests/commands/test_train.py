"""Whole runs: what is evaluated when, what is kept, what every switch does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bertune
from bertune.commands.train import prepare, train_on
from bertune.console import Console
from bertune.errors import ArtifactError, ConfigError, TrainingError
from bertune.metrics.classification import best_threshold
from bertune.tasks.base.datasets import read_datasets
from bertune.training.listener import Listener

WORDS = {"good": "pos", "great": "pos", "fine": "pos", "bad": "neg", "awful": "neg", "poor": "neg"}
ROWS = [
    {"text": f"the {n} is {w}", "label": label}
    for w, label in WORDS.items()
    for n in ("dog", "cat", "tree", "house", "car")
]


@pytest.fixture
def go(tiny, write, tmp_path):
    """Train on 30 rows, 8 a batch: 4 steps an epoch."""
    counter = iter(range(100))

    def train(*settings: str, task: str = "classify", rows=ROWS, dev=True):
        file = write("rows.jsonl", rows)
        fixed = [
            f"data.train={file}",
            *([f"data.dev={file}"] if dev else []),
            f"model={tiny}",
            f"out={tmp_path / f'out{next(counter)}'}",
        ]
        usual = [
            "train.precision=fp32",
            "train.batch_size=8",
            "train.learning_rate=1e-3",
            "train.epochs=2",
        ]  # auto differs from machine to machine
        return bertune.train(task, [*fixed, *usual, *settings], quiet=True)

    return train


class Steps(Listener):
    """Keeps the number of every step."""

    def __init__(self):
        self.steps = []

    def on_step(self, step, total_steps):
        self.steps.append(step)


def history(result, event):
    lines = [
        json.loads(line)
        for line in (result.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if line["event"] == event]


def weights(folder):
    return load_file(folder / "model.safetensors")


def differ(a, b):
    return any(not torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ([], [4, 8]),
        (["train.eval_every=3"], [3, 6, 8]),
        (["train.eval_every=100"], [8]),
        (["train.max_steps=5"], [4, 5]),
        (["train.epochs=0.5"], [2]),
        (["train.epochs=1.25"], [4, 5]),
    ],
)
def test_dev_is_scored_as_asked_and_always_at_the_end(go, settings, steps):
    result = go(*settings)
    assert [h["step"] for h in history(result, "dev")] == steps
    assert history(result, "train")[-1]["step"] == steps[-1]
    summary = json.loads((result.folder / "scores.json").read_text())["run"]
    assert summary["steps"] == steps[-1]
    assert summary["peak_memory_gb"] > 0.05


def test_best_and_last_are_kept_apart(go, write):
    # A rate that climbs again spoils what was learnt: the best checkpoint is not the last.
    result = go(
        "train.epochs=8",
        "train.learning_rate=2e-2",
        "train.schedule=constant",
        "options.metric=f1_macro",
        "train.max_grad_norm=0",
    )
    evaluations = history(result, "dev")
    best = [h["step"] for h in evaluations if h["best"]][-1]
    assert json.loads((result.folder / "scores.json").read_text())["run"]["best_step"] == best
    file = str(Path(write("rows.jsonl", ROWS)))
    for folder, entry in (
        (result.folder, next(h for h in evaluations if h["step"] == best)),
        (result.folder / "last", evaluations[-1]),
    ):
        again = bertune.evaluate(folder, file, precision="fp32")
        assert again.scores.values["f1_macro"] == pytest.approx(entry["f1_macro"])
        assert again.loss == pytest.approx(entry["dev_loss"], rel=1e-4)
    assert max(h["f1_macro"] for h in evaluations) == next(
        h["f1_macro"] for h in evaluations if h["step"] == best
    )


def test_early_stopping(go):
    result = go("train.learning_rate=1e-12", "train.epochs=10", "train.patience=2")
    summary = json.loads((result.folder / "scores.json").read_text())["run"]
    assert summary["stopped_early"] is True
    assert [h["step"] for h in history(result, "dev")] == [4, 8, 12]


def test_the_same_seed_gives_the_same_model_and_another_does_not(go):
    first, second, other = go(), go(), go("seed=7")
    assert not differ(weights(first.folder), weights(second.folder))
    assert differ(weights(first.folder), weights(other.folder))
    assert [h["loss"] for h in history(first, "train")] == [h["loss"] for h in history(second, "train")]


SWITCHES = {
    "ema": ["train.ema=0.9"],
    "fgm": ["train.fgm=1.0"],
    "r_drop": ["train.r_drop=1.0"],
    "layer_decay": ["train.layer_decay=0.5"],
    "head_learning_rate": ["train.head_learning_rate=1e-2"],
    "label_smoothing": ["options.label_smoothing=0.1"],
    "focal": ["options.loss=focal"],
    "class_weights": ["options.class_weights={pos: 3}"],
    "dropout": ["options.dropout=0.5"],
    "pooling": ["options.pooling=cls"],
    "schedule": ["train.schedule=cosine"],
    "warmup": ["train.warmup_steps=4"],
    "decay": ["train.weight_decay=0.5"],
    "bf16": ["train.precision=bf16"],
    "slow dropout": ["train.fast_dropout=false"],
    "truncation": ["data.max_length=5"],
    "batch": ["train.batch_size=4"],
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_model(go, name):
    plain, switched = (
        weights(go("train.epochs=1").folder),
        weights(go("train.epochs=1", *SWITCHES[name]).folder),
    )
    assert all(torch.isfinite(t).all() for t in switched.values())
    assert plain.keys() != switched.keys() or differ(plain, switched)


def test_training_the_active_words_alone_changes_nothing(go, tiny, tmp_path):
    """Both draw the same dropout, so the saved models differ by rounding alone."""
    settings = ["train.epochs=4", "train.ema=0.9", "train.fgm=0.5", "train.weight_decay=0.1"]
    active = weights(go(*settings, "train.active_vocabulary=true").folder)
    dense = weights(go(*settings, "train.active_vocabulary=false").folder)
    assert active.keys() == dense.keys()
    before = load_file(tiny / "model.safetensors")
    for name, tensor in dense.items():
        torch.testing.assert_close(
            active[name], tensor, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert name not in before or not torch.equal(before[name], tensor)


def test_the_number_of_parameters_is_that_of_the_saved_model(go):
    for settings in (["train.active_vocabulary=true"], ["train.active_vocabulary=false"]):
        result = go("train.max_steps=1", *settings)
        summary = json.loads((result.folder / "scores.json").read_text())["run"]
        assert summary["parameters"] == sum(t.numel() for t in weights(result.folder).values()), settings


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_all_tricks_together_learn(go, task):
    settings = ["train.r_drop=0.5", "train.fgm=0.2", "train.ema=0.9", "train.micro_batches=2"]
    rows = [{**r, "label": float(r["label"] == "pos")} if task == "regress" else r for r in ROWS]
    result = go(
        "train.epochs=30", "train.learning_rate=5e-3", *settings, task=task, rows=rows
    )  # with 12 one seed in five learns nothing
    assert result.scores["dev"].main_value > 0.8


def test_r_drop_on_several_labels(go):
    rows = [{**r, "label": [r["label"], "any"]} for r in ROWS]
    assert go("train.r_drop=1", rows=rows).scores["dev"].values["f1_micro"] > 0.3


def test_thresholds_are_tuned_kept_and_used(go, write):
    rows = [{**r, "label": [r["label"]] if "dog" in r["text"] else []} for r in ROWS]
    result = go("train.epochs=4", rows=rows)
    state = json.loads((result.folder / "bertune.json").read_text())["state"]
    assert state["thresholds"] != [0.5, 0.5]
    model = bertune.load(result.folder, precision="fp32")
    for prediction in model.predict([r["text"] for r in rows]):
        expected = {
            label
            for label, t in zip(state["labels"], state["thresholds"], strict=True)
            if prediction.probabilities[label] >= t
        }
        assert set(prediction.value) == expected
    for folder in (result.folder, result.folder / "last"):  # each with the thresholds of its own weights
        held = json.loads((folder / "bertune.json").read_text())["state"]["thresholds"]
        found = bertune.load(folder, precision="fp32").predict([r["text"] for r in rows])
        for label, threshold in zip(state["labels"], held, strict=True):
            gold = np.array([label in r["label"] for r in rows])
            assert threshold == pytest.approx(
                best_threshold(gold, np.array([p.probabilities[label] for p in found])), abs=1e-3
            )
    fixed = go("options.threshold=0.25", rows=rows)
    assert json.loads((fixed.folder / "bertune.json").read_text())["state"]["thresholds"] == [0.25, 0.25]


def test_a_test_file_is_scored_once_at_the_end(go, write):
    result = go(f"data.test={write('test.jsonl', ROWS[:7])}")
    assert sum(result.scores["test"].confusion["pos"].values()) == 7
    assert "### test" in (result.folder / "README.md").read_text(encoding="utf-8")


def test_dev_split_and_limit(go):
    result = go("data.dev_fraction=0.2", "data.limit=10", dev=False)
    meta = json.loads((result.folder / "bertune.json").read_text())["data"]
    assert (meta["train"]["rows"], meta["dev"]["rows"]) == (10, 6)


def test_a_loss_that_is_not_finite_ends_the_run(go):
    with pytest.raises(
        TrainingError, match=r"loss or gradient is not finite at step \d+ of 40; the batch: .*rows.jsonl:\d+"
    ):
        go(
            "train.learning_rate=1e30",
            "train.max_grad_norm=0",
            "train.epochs=10",
            "log.every=1",
            "train.warmup_ratio=0",
        )


def test_tensorboard(go):
    result = go("log.trackers=[tensorboard]")
    assert list((result.folder / "bertune").glob("events.out.tfevents.*"))


SHARED = ["classify", "classify, several labels", "match"]


@pytest.mark.parametrize("name", SHARED)
def test_runs_that_share_their_rows_give_what_train_gives(name, tiny, write, tmp_path):
    """Neither what the first run has learnt nor what it has tuned reaches the second one."""
    task, _, several = name.partition(", ")
    rows = (
        [{**row, "label": ["x", *([row["label"]] if "dog" in row["text"] else [])]} for row in ROWS]
        if several
        else ROWS
    )
    rows = (
        [{**row, "text_b": f"a {row['text']}", "label": int(row["label"] == "pos")} for row in ROWS]
        if task == "match"
        else rows
    )
    file = write("rows.jsonl", rows)

    def settings(out: str, rate: float) -> list[str]:
        return [
            f"data.train={file}", "data.dev_fraction=0.3", f"model={tiny}", f"out={tmp_path / out}",
            "train.precision=fp32", "train.batch_size=8", "train.epochs=3", f"train.learning_rate={rate}",
            "device=cpu",
        ]  # fmt: skip

    run, shared = prepare(task, settings("first", 3e-3))
    splits = read_datasets(run, shared, Console(quiet=True))
    results = {}
    for out, rate in (("first", 3e-3), ("second", 5e-3)):
        run, _ = prepare(task, settings(out, rate))
        heard = Steps()
        results[out] = train_on(run, shared, splits, [heard])
        assert heard.steps == list(range(1, heard.steps[-1] + 1))
        expected = bertune.train(task, settings(f"{out} alone", rate), quiet=True)
        assert results[out].folder == tmp_path / out
        assert results[out].scores == expected.scores
        for part in (".", "last"):
            ours, theirs = results[out].folder / part, expected.folder / part
            assert not differ(weights(ours), weights(theirs))
            assert (ours / "bertune.json").read_text() == (theirs / "bertune.json").read_text()
        for event, value in (("dev", "dev_loss"), ("train", "loss")):
            assert [h[value] for h in history(results[out], event)] == [
                h[value] for h in history(expected, event)
            ]
        without = [{k: v for k, v in h.items() if k != "seconds"} for h in history(results[out], "dev")]
        assert without == [{k: v for k, v in h.items() if k != "seconds"} for h in history(expected, "dev")]
    assert differ(weights(results["first"].folder), weights(results["second"].folder))


def test_train_on_writes_only_where_nothing_is(tiny, write, tmp_path):
    run, task = prepare(
        "classify",
        [
            f"data.train={write('rows.jsonl', ROWS)}",
            f"model={tiny}",
            f"out={tmp_path / 'out'}",
            "train.max_steps=1",
        ],
    )
    splits = read_datasets(run, task, Console(quiet=True))
    train_on(run, task, splits)
    with pytest.raises(ConfigError, match="is not empty and may hold another run"):
        train_on(run, task, splits)


def test_settings_as_a_dictionary_with_overrides(tiny, write, tmp_path):
    settings = {
        "task": "classify",
        "model": str(tiny),
        "data": {"train": write("rows.jsonl", ROWS)},
        "train": {"max_steps": 1},
    }
    result = bertune.train(settings, [f"out={tmp_path / 'a'}", "train.max_steps=2"], quiet=True)
    assert json.loads((result.folder / "scores.json").read_text())["run"]["steps"] == 2
    assert settings["train"] == {"max_steps": 1}


def test_without_out_the_first_free_folder_is_taken(tiny, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "task": "classify",
        "model": str(tiny),
        "data": {"train": write("rows.jsonl", ROWS)},
        "train": {"max_steps": 1},
    }
    assert [str(bertune.train(settings, quiet=True).folder) for _ in range(2)] == [
        "runs/classify-1",
        "runs/classify-2",
    ]


def test_a_task_of_ones_own_is_one_file(go, tmp_path):
    mine = tmp_path / "shout.py"
    mine.write_text(
        "from bertune.tasks.classify import Classify\nfrom dataclasses import replace\n\n"
        "class Shout(Classify):\n"
        "    def read(self, row):\n        example = super().read(row)\n"
        "        return replace(example, texts=tuple(t.upper() for t in example.texts))\n"
    )
    result = go(task=str(mine))
    with pytest.raises(ArtifactError, match="was made with the task file"):
        bertune.load(result.folder)
    predictions = bertune.load(result.folder, task=str(mine)).predict(["the dog is good"])
    assert predictions[0].value in {"pos", "neg"}
    sys.modules.pop("bertune_task_shout")


def test_predict_refuses_what_is_no_list_of_texts(go):
    model = bertune.load(go("train.max_steps=1").folder)
    with pytest.raises(bertune.DataError, match="write predict"):
        model.predict("one text")
    with pytest.raises(bertune.DataError, match=r"texts:2: 'text' is empty"):
        model.predict(["a", " "])
    with pytest.raises(bertune.DataError, match="a pair has two texts, got 3"):
        model.predict([("a", "b", "c")])
    assert model.predict([]) == []


def test_training_goes_on_from_a_saved_folder(go):
    first = go("train.epochs=10", "train.learning_rate=3e-3")
    again = go(f"model={first.folder}", "train.max_steps=1", "train.learning_rate=1e-9")
    before, after = weights(first.folder), weights(again.folder)
    name = "bert.encoder.layer.1.output.dense.weight"
    torch.testing.assert_close(before[name], after[name])


def test_a_damaged_folder_is_named(go):
    folder = go("train.max_steps=1").folder
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"model\.safetensors: missing or damaged"):
        bertune.load(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "run.yaml").write_text("task: [")
    with pytest.raises(ArtifactError, match=r"run\.yaml: damaged"):
        bertune.load(folder)


def test_thin_arguments_are_refused_together(go):
    with pytest.raises(ConfigError, match="2 settings are wrong"):
        go("train.micro_batches=0", "train.ema=2")


def test_a_long_file_is_predicted_in_chunks_in_its_order(go, write, monkeypatch):
    folder = go("train.epochs=4").folder
    rows = [{"id": n, "text": f"{ROWS[n % 30]['text']} {'very ' * (n % 9)}"} for n in range(100)]
    file = write("long.jsonl", rows)
    whole = [(row.raw["id"], p.probabilities) for row, p in bertune.predict(folder, file).results]
    monkeypatch.setattr("bertune.inference.pipeline.CHUNK_ROWS", 7)
    chunks = [(row.raw["id"], p.probabilities) for row, p in bertune.predict(folder, file).results]
    assert [n for n, _ in chunks] == [n for n, _ in whole] == list(range(100))
    for (_, first), (_, second) in zip(whole, chunks, strict=True):
        assert first == pytest.approx(second, abs=1e-5)
    alone = bertune.load(folder).predict([rows[57]["text"]])[0].probabilities
    assert alone == pytest.approx(whole[57][1], abs=1e-5)


def test_a_causal_model_is_refused_where_its_first_token_would_decide(tiny, tmp_path, write):
    from transformers import GPT2Config, GPT2Model

    folder = tmp_path / "gpt"
    GPT2Model(
        GPT2Config(
            vocab_size=200, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=2, eos_token_id=3
        )
    ).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    fixed = [
        f"data.train={write('rows.jsonl', ROWS)}",
        f"model={folder}",
        f"out={tmp_path / 'out'}",
        "train.max_steps=1",
    ]
    with pytest.raises(ConfigError, match=r"set options\.pooling=mean"):
        bertune.train("classify", fixed, quiet=True)
    assert not (tmp_path / "out").exists()
    assert bertune.train("classify", [*fixed, "options.pooling=mean"], quiet=True).folder.exists()
