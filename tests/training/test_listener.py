"""Listeners hear every event of a run in order, may end it, and are closed however it ends."""

from __future__ import annotations

import inspect
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import bertune
from bertune.errors import Interrupted
from bertune.training.listener import Listener, Listeners, Outcome, StopTraining
from bertune.training.run import TrainResult
from bertune.training.step import TrainStep

METHODS = [name for name in vars(Listener) if not name.startswith("_")]
PER_EPOCH = 5
STEPS = 2 * PER_EPOCH
SCORES = {"accuracy", "precision", "recall", "f1", "f1_macro", "f1_micro", "f1_weighted", "mcc"}


class Recorder(Listener):
    """Keeps each event: the name of its method and the arguments."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[object, ...], dict[str, object]]] = []

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.events]

    def of(self, name: str) -> list[tuple[object, ...]]:
        """Return the arguments of each event of a kind."""
        return [arguments for event, arguments, _ in self.events if event == name]


def recording(name: str) -> Callable[..., None]:
    def method(self: Recorder, *arguments: object, **named: object) -> None:
        self.events.append((name, arguments, named))

    return method


for _name in METHODS:
    setattr(Recorder, _name, recording(_name))


@pytest.fixture
def start(tiny, write, tmp_path):
    """Train on 20 rows, 4 a batch, for 2 epochs."""
    rows = [
        {"text": f"the {noun} is {mood}", "label": label}
        for mood, label in {"good": "pos", "great": "pos", "bad": "neg", "awful": "neg"}.items()
        for noun in ("dog", "cat", "tree", "house", "car")
    ]
    file = write("rows.jsonl", rows)

    def train(*listeners: Listener, resume: bool = False, settings: tuple[str, ...] = ()) -> TrainResult:
        given = [
            f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / 'out'}",
            "device=cpu", "train.precision=fp32", "train.batch_size=4", "train.epochs=2",
            "train.learning_rate=3e-3", "log.every=2", *settings,
        ]  # fmt: skip
        return bertune.train("classify", given, quiet=True, resume=resume, listeners=listeners)

    return train


def when(method: str, step: int, act: Callable[[], None]) -> Recorder:
    """Return a recorder that does something at one event of one step."""

    class Acting(Recorder):
        pass

    def acting(self: Recorder, first: object, *more: object, **named: object) -> None:
        recording(method)(self, first, *more, **named)
        if (first["step"] if isinstance(first, dict) else first) == step:
            act()

    setattr(Acting, method, acting)
    return Acting()


def stop() -> None:
    raise StopTraining


def history(folder: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["event"], line["step"]) for line in lines]


def test_a_run_has_its_events_in_order(start):
    heard = Recorder()
    result = start(heard)
    expected = ["on_start"]
    for step in range(1, STEPS + 1):
        expected += ["on_step"]
        expected += ["on_log"] if step % 2 == 0 or step == STEPS else []
        expected += ["on_evaluate", "on_epoch"] if step % PER_EPOCH == 0 else []
    # That a first evaluation is no better than the largest class: tests/training/test_learnt.py.
    assert [name for name in heard.names if name != "on_warning"] == [*expected, "on_end", "close"]
    assert heard.events[0] == ("on_start", (0, STEPS), {"evaluated": True})
    assert heard.of("on_step") == [(step, STEPS) for step in range(1, STEPS + 1)]

    logs, evaluations, epochs = (
        [record for (record,) in heard.of(name)] for name in ("on_log", "on_evaluate", "on_epoch")
    )
    for record in logs:
        assert record.keys() == {
            "step",
            "epoch",
            "loss",
            "learning_rate",
            "rows_per_s",
            "tokens_per_s",
            "eta_s",
        }
    assert [record["step"] for record in logs] == [2, 4, 6, 8, 10]
    assert [record["epoch"] for record in logs] == [0.4, 0.8, 1.2, 1.6, 2.0]
    assert [record["eta_s"] for record in logs][-1] == 0
    for record in evaluations:
        assert record.keys() == {"step", "epoch", "train_loss", "dev_loss", "best", *SCORES}
    assert [(record["step"], record["epoch"]) for record in evaluations] == [(5, 1.0), (10, 2.0)]
    assert evaluations[0]["best"] is True
    assert [(r.keys(), r["step"], r["epoch"]) for r in epochs] == [
        ({"epoch", "step", "loss"}, 5, 1.0),
        ({"epoch", "step", "loss"}, 10, 2.0),
    ]
    assert [r["loss"] for r in epochs] == [r["train_loss"] for r in evaluations]

    ((outcome,),) = heard.of("on_end")
    best = [record for record in evaluations if record["best"]][-1]
    assert (outcome.steps, outcome.rows, outcome.stopped_early) == (STEPS, 2 * 20, False)
    assert (outcome.best_step, outcome.best_score) == (best["step"], best["accuracy"])
    assert outcome.train_seconds > 0
    assert outcome.tokens > 2 * 20 * 4
    assert result.scores["dev"].values["accuracy"] == best["accuracy"]


def test_a_warning_comes_before_its_step(start, monkeypatch):
    try_gradient, calls = TrainStep._try_gradient, []

    def short_once(train_step, rows):
        calls.append(rows)
        return (None, 0.0, "out of memory (step 2)") if len(calls) == 2 else try_gradient(train_step, rows)

    monkeypatch.setattr(TrainStep, "_try_gradient", short_once)
    heard = Recorder()
    result = start(heard)
    assert heard.names[:4] == ["on_start", "on_step", "on_warning", "on_step"]
    step, message = heard.of("on_warning")[0]
    assert step == 2
    assert message.startswith("out of memory: out of memory (step 2); ")
    assert ("warning", 2) in history(result.folder)


def test_a_listener_ends_training_after_an_evaluation(start):
    heard = when("on_evaluate", PER_EPOCH, stop)
    result = start(heard)
    assert heard.of("on_step")[-1] == (PER_EPOCH, STEPS)
    assert heard.names[-3:] == ["on_evaluate", "on_end", "close"]
    ((outcome,),) = heard.of("on_end")
    assert (outcome.steps, outcome.best_step, outcome.stopped_early) == (PER_EPOCH, PER_EPOCH, True)
    assert ("dev", PER_EPOCH) in history(result.folder)  # it heard of the evaluation after the history
    summary = json.loads((result.folder / "scores.json").read_text(encoding="utf-8"))["run"]
    assert (summary["steps"], summary["best_step"], summary["stopped_early"]) == (PER_EPOCH, PER_EPOCH, True)
    assert not (result.folder / "checkpoints").exists()
    for folder in (result.folder, result.folder / "last"):
        again = bertune.evaluate(folder, str(result.folder.parent / "rows.jsonl"), precision="fp32")
        assert again.scores.values["accuracy"] == result.scores["dev"].values["accuracy"]


@pytest.mark.parametrize("method", ["on_step", "on_log"])
def test_a_run_that_is_ended_before_its_first_evaluation_is_scored(method, start):
    heard = when(method, 2, stop)
    result = start(heard)
    assert heard.of("on_step")[-1] == (2, STEPS)
    ((evaluation,),) = heard.of("on_evaluate")
    assert (evaluation["step"], evaluation["best"]) == (2, True)
    ((outcome,),) = heard.of("on_end")
    assert (outcome.steps, outcome.best_step, outcome.stopped_early) == (2, 2, True)
    assert result.scores["dev"].values["accuracy"] == evaluation["accuracy"]
    assert bertune.load(result.folder).predict(["the dog is good"])


def test_a_listener_may_end_the_run_at_its_start(start):
    heard = when("on_start", 0, stop)
    result = start(heard)
    ((outcome,),) = heard.of("on_end")
    assert (outcome.steps, outcome.stopped_early) == (0, True)
    assert heard.names == ["on_start", "on_evaluate", "on_end", "close"]
    assert bertune.load(result.folder).predict(["the dog is good"])


def fail() -> None:
    raise ValueError("a bug of mine")


@pytest.mark.parametrize("method", ["on_step", "on_log", "on_evaluate", "on_epoch"])
def test_listeners_are_closed_when_one_fails(method, start):
    first, last = when(method, 10 if method in {"on_evaluate", "on_epoch"} else 4, fail), Recorder()
    with pytest.raises(ValueError, match="a bug of mine"):
        start(first, last)
    for heard in (first, last):
        assert heard.names.count("close") == 1
        assert heard.names[-1] == "close"
        assert "on_end" not in heard.names


def test_listeners_are_closed_when_training_fails(start, monkeypatch):
    def broken(train_step, rows):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(TrainStep, "step", broken)
    heard = Recorder()
    with pytest.raises(RuntimeError, match="no such kernel"):
        start(heard)
    assert heard.names == ["on_start", "close"]


@pytest.mark.parametrize("step", [3, PER_EPOCH])
def test_a_run_that_goes_on_says_from_where(step, start):
    """After a step with an evaluation, a signal leaves the evaluation for the next start."""
    stopped = when("on_step", step, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        start(stopped)
    assert stopped.of("on_step") == [(done, STEPS) for done in range(1, step + 1)]
    assert stopped.names[-1] == "close"
    assert "on_end" not in stopped.names
    heard = Recorder()
    start(heard, resume=True)
    assert heard.events[0] == ("on_start", (step, STEPS), {"evaluated": step != PER_EPOCH})
    assert heard.names[1] == ("on_evaluate" if step == PER_EPOCH else "on_step")
    assert heard.of("on_step") == [(done, STEPS) for done in range(step + 1, STEPS + 1)]
    assert [record["step"] for (record,) in heard.of("on_evaluate")] == [PER_EPOCH, STEPS]


def test_several_listeners_hear_all_that_one_hears():
    """Every method of the class, so that none is forgotten when one is added."""
    first, last = Recorder(), Recorder()
    both = Listeners([first, last])
    expected = []
    for name in METHODS:
        assert name in vars(Listeners), f"Listeners does not pass {name} on"
        parameters = list(inspect.signature(getattr(Listener, name)).parameters.values())[1:]
        arguments = tuple(f"{name} {p.name}" for p in parameters if p.kind is not p.KEYWORD_ONLY)
        named = {p.name: f"{name} {p.name}" for p in parameters if p.kind is p.KEYWORD_ONLY}
        getattr(both, name)(*arguments, **named)
        expected.append((name, arguments, named))
    assert first.events == last.events == expected


def test_listeners_hear_in_their_order_and_an_error_reaches_none_after_it():
    heard: list[str] = []

    class Named(Listener):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_step(self, step: int, total_steps: int) -> None:
            heard.append(self.name)
            if self.name == "b":
                raise StopTraining

    with pytest.raises(StopTraining):
        Listeners([Named("a"), Named("b"), Named("c")]).on_step(1, 2)
    assert heard == ["a", "b"]


def test_all_are_closed_when_one_cannot_be():
    class Broken(Recorder):
        def close(self) -> None:
            super().close()
            raise OSError("no connection")

    listeners = [Broken(), Recorder(), Broken()]
    with pytest.raises(OSError, match="no connection"):
        Listeners(listeners).close()
    assert [listener.names for listener in listeners] == [["close"]] * 3


def test_a_listener_of_ones_own_overrides_what_it_needs():
    listener = Listener()
    listener.on_start(0, 1)
    listener.on_step(1, 1)
    for name in ("on_log", "on_evaluate", "on_epoch"):
        getattr(listener, name)({"step": 1})
    listener.on_warning(1, "x")
    listener.on_end(Outcome(1, 1, 0.5, 1.0, 4, 16, stopped_early=False))
    listener.close()
