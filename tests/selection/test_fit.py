"""Training without a folder: the model of `train`, nothing on the disk, and rows held out choose nothing."""

from __future__ import annotations

import pytest
import torch

from bertune.artifact.read import read_artifact
from bertune.commands.train import prepare, train_on
from bertune.console import Console
from bertune.selection.fit import fit
from bertune.tasks.base.datasets import read_datasets
from bertune.tasks.base.reading import Splits
from bertune.training.listener import Listener, StopTraining

WORDS = {"good": "pos", "great": "pos", "fine": "pos", "bad": "neg", "awful": "neg", "poor": "neg"}
ROWS = [{"text": f"the {n} is {w}", "label": label} for w, label in WORDS.items() for n in ("dog", "cat")]


@pytest.fixture
def setup(tiny, write, tmp_path):
    file = write("rows.jsonl", ROWS)

    def setup(**train):
        train = {"precision": "fp32", "batch_size": 4, "learning_rate": 1e-3, "epochs": 4, **train}
        data = {"train": str(file), "dev": str(file)}
        run, task = prepare(
            {
                "task": "classify",
                "model": str(tiny),
                "out": str(tmp_path / "out"),
                "data": data,
                "train": train,
            }
        )
        return run, task, read_datasets(run, task, Console(quiet=True))

    return setup


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"schedule": "cosine", "layer_decay": 0.9}])
def test_it_is_the_model_of_train_to_the_bit(changes, setup, tmp_path):
    run, task, splits = setup(eval_every="end", **changes)
    fitted = fit(run, task.refit(splits.train, lambda _: None), splits)
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.jsonl"]  # nothing is written
    result = train_on(run, task, splits)
    assert fitted.scores.values == result.scores["dev"].values
    fitted.save(tmp_path / "saved")
    saved, trained = (read_artifact(f).model.state_dict() for f in (tmp_path / "saved", result.folder))
    assert all(torch.equal(saved[name], trained[name]) for name in trained)
    assert [p.value for p in fitted.predict()] == [p.value for p in fitted.predict(to_score=True)]


def test_without_rows_held_out_there_are_no_scores(setup):
    run, task, splits = setup(max_steps=3)
    fitted = fit(run, task, Splits(splits.train, []))
    assert (fitted.scores, fitted.loss, fitted.outcome.steps) == (None, None, 3)
    assert len(fitted.predict("train")) == len(ROWS)


def test_patience_does_not_count(setup):
    run, task, splits = setup(patience=1, min_delta=2.0, epochs=5)
    assert fit(run, task, splits).outcome.steps == 15
    assert run.train.patience == 1


def test_each_evaluation_is_heard_and_may_end_training(setup):
    run, task, splits = setup(eval_every=2)
    heard = []

    def on_scores(scores, step, total):
        heard.append((step, total, scores.main_value))
        if step == 4:
            raise StopTraining

    fitted = fit(run, task, splits, on_scores=on_scores)
    assert [step for step, _, _ in heard] == [2, 4]
    assert heard[0][1] == 12
    assert (fitted.outcome.steps, fitted.outcome.stopped_early) == (4, True)
    assert fitted.scores.main_value == heard[-1][2]


def test_with_end_the_dev_rows_are_scored_once(setup):
    class Evaluations(Listener):
        steps: list[int] = []

        def on_evaluate(self, record):
            self.steps.append(record["step"])

    run, task, splits = setup(eval_every="end")
    train_on(run, task, splits, [Evaluations()])
    assert Evaluations.steps == [12]
