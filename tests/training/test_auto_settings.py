"""`auto` in whole runs: chosen once, said once, written as numbers, and the same again."""

from __future__ import annotations

import os
import signal

import pytest
import yaml

import bertune
from bertune.commands.train import prepare, train_on
from bertune.config.auto_rates import AUTO_SETTINGS, short
from bertune.config.load import read_config
from bertune.console import Console
from bertune.encoders.load import load_encoder
from bertune.errors import Interrupted
from bertune.heads.model import Model
from bertune.selection.fit import fit
from bertune.tasks.base.datasets import read_datasets
from bertune.training.auto_settings import expected_settings, settle_run
from bertune.training.optim import parameter_groups
from bertune.training.resume import choose_run_dir
from bertune.types import Example

WORDS = {"good": "pos", "great": "pos", "fine": "pos", "bad": "neg", "awful": "neg", "poor": "neg"}
ROWS = [{"text": f"the {n} is {w}", "label": label} for w, label in WORDS.items() for n in ("dog", "cat")]
PAIRS = [{"text": row["text"], "text_b": f"a {row['text']}"} for row in ROWS]


class Lines(Console):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)

    @property
    def auto(self) -> list[str]:
        return [line for line in self.lines if line.startswith("auto:")]


@pytest.fixture
def settings(tiny, write, tmp_path):
    def make(*more, task="classify", rows=ROWS, out="out"):
        file = write(f"{task}.jsonl", rows)
        return {
            "task": task, "model": str(tiny), "out": str(tmp_path / out), "device": "cpu",
            "data": {"train": file, "dev": file if task == "classify" else None},
            "train": {"precision": "fp32", "batch_size": 4, "epochs": 4, **dict(more)},
        }  # fmt: skip

    return make


def run_on(source, listeners=()):
    console = Lines()
    run, task = prepare(source)
    splits = read_datasets(run, task, console)
    return train_on(run, task, splits, listeners, console=console), console


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def rates_of(folder):
    train = read_config(folder / "run.yaml")["train"]
    return {name: train[name] for name in AUTO_SETTINGS}


def test_it_is_said_once_written_as_numbers_and_repeated_to_the_bit(settings, tmp_path):
    result, console = run_on(settings())
    rates = rates_of(result.folder)
    assert console.auto == [
        f"auto: learning_rate {short(rates['learning_rate'])} (encoder of width 32, 2 layers), "
        f"head_learning_rate {short(rates['head_learning_rate'])} (a new head), warm-up 2 of 12 steps"
    ]
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert f"learning rate {rates['learning_rate']:g} (head {rates['head_learning_rate']:g})" in card
    again = bertune.train(str(result.folder / "run.yaml"), [f"out={tmp_path / 'again'}"], quiet=True)
    assert weights(again.folder) == weights(result.folder)
    assert rates_of(again.folder) == rates
    fitted_run, task = prepare(settings(("eval_every", "end"), out="fit"))
    splits = read_datasets(fitted_run, task, Console(quiet=True))
    fit(fitted_run, task, splits).save(tmp_path / "fitted")
    assert rates_of(tmp_path / "fitted") == rates
    assert weights(tmp_path / "fitted") == weights(result.folder / "last")


def test_what_is_given_wins(settings):
    given = {"learning_rate": 1e-3, "head_learning_rate": 2e-3, "warmup_ratio": 0.25}
    result, console = run_on(settings(*given.items()))
    assert rates_of(result.folder) == given
    assert console.auto == []


def test_null_for_the_head_is_the_rate_of_the_encoder(settings):
    result, _ = run_on(settings(("learning_rate", 1e-3), ("head_learning_rate", None)))
    assert rates_of(result.folder)["head_learning_rate"] is None


def test_a_head_without_layers_gets_no_rate(settings):
    result, console = run_on(settings(task="embed", rows=PAIRS))
    assert rates_of(result.folder)["head_learning_rate"] is None
    assert len(console.auto) == 1
    assert "head_learning_rate" not in console.auto[0]


def test_a_head_that_is_kept_learns_as_the_encoder(tiny):
    encoder, _ = load_encoder(tiny)
    run, task = prepare("classify", [f"model={tiny}", "data.train=rows.csv", "data.labels=[a, b]"])
    task.fit([Example(("x",), "a"), Example(("y",), "b")], lambda _: None)
    model = Model(encoder, task.head(encoder, {}))
    kept = frozenset(name for name, _ in model.head.named_parameters())
    found, line = settle_run(run, task, model, 100, kept)
    assert found.train.head_learning_rate is None
    assert "a new head" not in line
    assert len({group["lr"] for group in parameter_groups(model, found.train)}) == 1
    found, line = settle_run(run, task, model, 100, kept - {"out.weight"})
    assert found.train.head_learning_rate == 1e-3
    assert found == expected_settings(run, task, 100)  # what a search begins with


class _Stop(bertune.Listener):
    """Stops a run as Ctrl-C does."""

    def on_step(self, step, total):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_goes_on_with_the_rates_it_began_with(settings, tmp_path, monkeypatch):
    straight, _ = run_on(settings(out="straight"))
    source = settings()
    with pytest.raises(Interrupted):
        run_on(source, [_Stop()])
    run, task = prepare(source)
    notes: list[str] = []
    run_dir = choose_run_dir(run, resume=True, note=notes.append)
    assert run_dir.checkpoint is not None
    monkeypatch.setattr("bertune.config.auto_rates.BASE_RATE", 1.0)  # the rule of another version
    splits = read_datasets(run, task, Console(quiet=True))
    resumed = train_on(run, task, splits, run_dir=run_dir)
    assert rates_of(resumed.folder) == rates_of(straight.folder)
    assert weights(resumed.folder) == weights(straight.folder)


def test_a_search_begins_with_the_rates_of_auto_and_its_winner_has_numbers(settings, tmp_path):
    source = settings(("epochs", 2))
    source["tune"] = {"trials": 2, "startup_trials": 2, "evaluations": 1}
    source["search"] = {"train.head_learning_rate": {"log_uniform": [1e-4, 1e-1]}}
    found = bertune.tune(source)
    assert found.study.trials[0].settings == {"train.head_learning_rate": 1e-3}
    rates = rates_of(found.folder / "model")
    assert "auto" not in rates.values()
    winner = yaml.safe_load(found.winner.read_text(encoding="utf-8"))["train"]
    assert {name: winner[name] for name in AUTO_SETTINGS} == rates
    before = (found.folder / "model" / "scores.json").stat().st_mtime_ns
    bertune.tune(str(found.folder), resume=True, trials=2)  # nothing is left to do
    assert (found.folder / "model" / "scores.json").stat().st_mtime_ns == before
    again = bertune.train(str(found.winner), [f"out={tmp_path / 'again'}"], quiet=True)
    assert weights(again.folder) == weights(found.folder / "model")


def test_folds_and_the_model_of_all_rows_have_numbers(settings):
    source = settings(("max_steps", 2))
    source["data"].pop("dev")
    result = bertune.crossval(source, folds=2, refit=True, ensemble=True)
    own = result.folder / "run.yaml"  # of the cross-validation: each fold has numbers of its own
    files = [file for file in result.folder.rglob("run.yaml") if file != own]
    assert len({file.parent.name for file in files} & {"model", "member-1", "member-2"}) == 3
    for file in files:
        train = read_config(file)["train"]
        assert all(train[name] != "auto" for name in AUTO_SETTINGS), file
