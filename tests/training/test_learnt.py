"""A run that has learnt nothing says so, at its first evaluation and at its end, with what to change."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.builders import build_step

import bertune
from bertune.config.schema import TrainConfig
from bertune.tasks.base.baselines import Sign
from bertune.training.learnt import MOST_CAUSES, RunFacts, likely_causes, peak_rates
from bertune.training.listener import Listener

NOUNS = ["dog", "cat", "tree", "house", "car", "book"]
MOODS = {"good": 1, "great": 1, "bad": 0, "awful": 0}
PLAIN = [(f"the {noun} is {mood}", mood, value) for noun in NOUNS for mood, value in MOODS.items()]
ROWS = {
    "classify": [{"text": text, "label": "pos" if value else "neg"} for text, _, value in PLAIN],
    "several": [{"text": text, "label": [mood]} for text, mood, _ in PLAIN],
    "regress": [{"text": text, "label": float(value)} for text, _, value in PLAIN],
    "noise": [{"text": text, "label": n * 7 % 5} for n, (text, *_) in enumerate(PLAIN)],
    "tag": [  # so many types that a head with random weights is hardly ever right
        {"text": text.split(), "label": ["O", f"B-{noun}-{mood}", "O", "O"]}
        for text, mood, _ in PLAIN
        for noun in [text.split()[1]]
    ],
    "match": [{"text": text, "text_b": "the book is good", "label": value} for text, _, value in PLAIN],
    "pairs": [
        {"text": text, "text_b": "the book is good", "label": "same" if value else "other"}
        for text, _, value in PLAIN
    ],
    "embed": [{"text": text, "text_b": f"a {mood} {text.split()[1]}"} for text, mood, _ in PLAIN],
}
TASKS = {"several": "classify", "pairs": "match", "noise": "regress"}
LEARNS = {"classify", "regress", "tag", "match"}


@pytest.fixture
def start(tiny, write, tmp_path):
    """Train on rows of a kind, two evaluations unless the settings say otherwise."""

    def train(kind: str, *settings: str, rows=None, resume=False, listeners=(), out="out"):
        file = write(f"{kind}.jsonl", rows or ROWS[kind])
        return bertune.train(
            TASKS.get(kind, kind),
            [
                *(f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / out}"),
                *(
                    "device=cpu",
                    "train.precision=fp32",
                    "train.batch_size=8",
                    "train.epochs=2",
                    "log.every=2",
                ),
                "train.head_learning_rate=null",  # that of the encoder
                *settings,
            ],
            resume=resume,
            listeners=listeners,
        )

    return train


def warnings_of(folder: Path) -> list[tuple[int, str]]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["step"], line["message"]) for line in lines if line["event"] == "warning"]


@pytest.mark.parametrize(
    ("kind", "baseline"),
    [
        ("classify", "the largest class, "),
        ("several", " for every row"),
        ("noise", "the mean, 1.958, for every row"),
        ("tag", "no entity at all"),
        ("match", "the model before training"),
        ("pairs", "the largest class, "),
        ("embed", "the model before training"),
    ],
)
def test_a_rate_that_changes_nothing_is_said(start, kind, baseline, capsys):
    rates = ["train.learning_rate=1e-12"]
    if kind == "pairs":  # its layer of labels has a rate of its own
        rates.append("options.classifier_learning_rate=1e-12")
    result = start(kind, *rates)
    shown = capsys.readouterr().err
    notes = [line for line in shown.splitlines() if line.startswith("note: dev ")]
    assert len(notes) == 1
    assert "better than " in notes[0]
    assert baseline in notes[0]
    assert "the learning rate of 1e-12 changes nothing: try train.learning_rate=auto" in notes[0]
    dev = json.loads((result.folder / "scores.json").read_text(encoding="utf-8"))["dev"]
    assert baseline in dev["baseline"]["name"]
    assert result.scores["dev"].baseline.values[dev["main"]] == dev["baseline"]["values"][dev["main"]]
    assert f"For comparison, {dev['baseline']['name']}: " in (result.folder / "README.md").read_text("utf-8")


def test_a_model_that_learns_is_not_blamed(start, capsys):
    for kind in LEARNS:
        result = start(kind, "train.learning_rate=5e-3", "train.epochs=12", "train.eval_every=end", out=kind)
        assert result.scores["dev"].baseline is not None
        assert "better than" not in capsys.readouterr().err
        assert warnings_of(result.folder) == []


def test_the_first_evaluation_warns_once_and_a_later_one_may_be_better(start, capsys):
    events = []

    class Order(Listener):
        def on_evaluate(self, record):
            events.append(("dev", record["step"]))

        def on_warning(self, step, message):
            events.append(("warning", step))

    settings = ("train.learning_rate=5e-3", "train.epochs=12", "train.eval_every=1", "train.warmup_steps=8")
    result = start("tag", *settings, listeners=[Order()])
    shown = capsys.readouterr().err
    (warning,) = [line for line in shown.splitlines() if line.startswith("warning: ")]
    assert re.match(
        r"warning: dev f1 0\.0\d+ at step 1 of 36 is \w+ better than no entity at all \(0\.0000\)", warning
    )
    assert "only 36 steps" in warning
    assert "note: dev" not in shown
    assert [step for step, _ in warnings_of(result.folder)] == [1]
    assert events[:3] == [("dev", 1), ("warning", 1), ("dev", 2)]
    assert events.count(("warning", 1)) == len([e for e in events if e[0] == "warning"]) == 1


def test_a_single_evaluation_says_it_once(start, capsys):
    result = start("tag", "train.learning_rate=1e-12", "train.epochs=1")
    shown = capsys.readouterr().err
    assert shown.count("better than no entity at all") == 1
    assert warnings_of(result.folder) == []  # the end says it


def test_without_a_difference_between_dev_rows_nothing_is_said(start, write, capsys):
    dev = write("same.jsonl", [{"text": "good", "label": "pos"}] * 3)
    result = start("classify", f"data.dev={dev}", "train.learning_rate=1e-12")
    assert result.scores["dev"].baseline is None
    assert "better than" not in capsys.readouterr().err


def test_without_dev_rows_nothing_is_said(start, capsys):
    result = start("classify", "data.dev=null", "data.dev_fraction=0", "train.learning_rate=1e-12")
    assert result.scores == {}
    assert "better than" not in capsys.readouterr().err


def test_test_rows_have_their_own_baseline(start, write):
    file = write("test.jsonl", ROWS["classify"][:3] + ROWS["classify"][3:4] * 5)
    result = start("classify", f"data.test={file}")
    assert result.scores["test"].baseline.values["accuracy"] == pytest.approx(6 / 8)
    assert result.scores["dev"].baseline.values["accuracy"] == 0.5


def events_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = {"seconds", "rows_per_s", "tokens_per_s", "eta_s"}
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


@pytest.mark.parametrize("kind", ["classify", "match"])
@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_run_that_goes_on_has_the_same_history(start, kind, step):
    settings = ("train.learning_rate=1e-12", "train.checkpoint_every=1", "train.patience=null")
    whole = start(kind, *settings, out="whole")

    class Fault(RuntimeError):
        pass

    class Breaks(Listener):
        def on_step(self, done, total):
            if done == step + 1:
                raise Fault

    with pytest.raises(Fault):
        start(kind, *settings, out="broken", listeners=[Breaks()])
    again = start(kind, *settings, out="broken", resume=True)
    assert events_of(again.folder) == events_of(whole.folder)
    assert len(warnings_of(again.folder)) == 1
    assert again.scores == whole.scores


def test_evaluate_shows_the_baseline_of_its_file(start, write, capsys):
    from typer.testing import CliRunner

    from bertune.cli.app import app

    model = start("classify", "train.learning_rate=1e-12").folder
    file = write("new.jsonl", ROWS["classify"])
    capsys.readouterr()
    shown = CliRunner().invoke(app, ["evaluate", str(model), file])
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("baseline")]
    assert line.split()[1] == "0.5000"
    assert line.endswith("the largest class, 'pos', alone")
    found = json.loads(CliRunner().invoke(app, ["evaluate", str(model), file, "--json"]).stdout)
    assert found["baseline"]["values"]["accuracy"] == 0.5


def test_a_cross_validation_says_it_once_of_all_rows(write, tiny, tmp_path):
    from typer.testing import CliRunner

    from bertune.cli.app import app

    file = write("rows.jsonl", ROWS["classify"])
    words = ["crossval", "classify", f"data.train={file}", f"model={tiny}", f"out={tmp_path / 'out'}"]
    words += ["train.learning_rate=1e-12", "train.epochs=1", "device=cpu", "--folds", "2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert " ".join(result.stdout.split()).count("note: accuracy of all rows is ") == 1
    pooled = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["pooled"]
    assert pooled["baseline"]["values"]["accuracy"] == 0.5


def test_the_untrained_model_is_scored_only_where_that_is_cheap(start, monkeypatch, capsys):
    monkeypatch.setattr("bertune.training.run.MOST_UNTRAINED_ROWS", 5)
    result = start("match", "train.learning_rate=1e-12")
    assert result.scores["dev"].baseline.name == "one similarity for all pairs"
    assert "dev before training" not in capsys.readouterr().err


STANDS_STILL = "the learning rate of 1e-09 changes nothing: try train.learning_rate=auto"


def facts(losses=(), total=1000, rate=5e-5, head=1e-3, *, vectors=False, **config):
    return RunFacts(TrainConfig(**config), total, rate, head, losses, vectors)


@pytest.mark.parametrize(
    ("given", "first"),
    [
        (facts(rate=1e-9, head=1e-9), STANDS_STILL),
        (facts(rate=1e-9, head=None), STANDS_STILL),
        (facts([(20, 0.6), (1000, 0.9)]),
         "the training loss rose, from 0.6000 at step 20 to 0.9000 at step 1000, so the rate is too high: "
         "try train.learning_rate=2e-05"),
        (facts(rate=2e-3), "the encoder's rate of 0.002 is high: try train.learning_rate=auto"),
        (facts(total=43, epochs=1), "only 43 steps: try train.epochs=4"),
        (facts(total=1, epochs=1), "only 1 step: try train.epochs=20"),
        (facts(total=43, head=5e-5, epochs=1),
         "only 43 steps, and the head learns at 5e-05: "
         "try train.epochs=4 train.head_learning_rate=auto"),
        (facts(total=43, max_steps=43), "only 43 steps: try train.max_steps=150"),
        (facts(total=300, head=5e-5),
         "the head learns at 5e-05: try train.head_learning_rate=auto"),
        (facts([(20, 0.69), (1000, 0.69)]),
         "the training loss did not fall, from 0.6900 at step 20 to 0.6900 at step 1000: see that "
         "data.columns names text and label, or try train.learning_rate=2e-05"),
        (facts([(20, 0.69), (1000, 0.1)]),
         "the training loss fell, from 0.6900 at step 20 to 0.1000 at step 1000, so dev rows may be "
         "of another kind: see data.dev"),
        (facts(vectors=True),
         "training did not help what the encoder could before: "
         "try train.learning_rate=2e-05, or fewer epochs"),
        (facts(), "the labels may not depend on the texts: see that data.columns names text and label"),
    ],
)  # fmt: skip
def test_causes_follow_from_facts(given, first):
    assert likely_causes(given)[0] == first
    assert len(likely_causes(given)) <= MOST_CAUSES


def test_advice_is_a_setting_that_exists():
    """Every setting that is advised can be typed."""
    known = set(TrainConfig.model_fields)
    given = [facts(total=43, epochs=1, head=5e-5), facts(rate=1e-9, head=None), facts(total=9, max_steps=9)]
    for line in (line for each in given for line in likely_causes(each)):
        words = [word for word in line.split() if word.startswith("train.")]
        assert words
        for word in words:
            name, _, value = word.removeprefix("train.").partition("=")
            assert name in known
            TrainConfig(**{name: value if value == "auto" else json.loads(value)})


def test_remedies_of_signs_come_with_the_other_causes():
    sign = Sign("all 10 rows get 'a'", "options.class_weights=balanced")
    causes = likely_causes(facts(total=43, epochs=1), [sign, Sign("no remedy")])
    assert causes == [
        "all 10 rows get 'a': try options.class_weights=balanced",
        "only 43 steps: try train.epochs=4",
    ]


def test_rates_are_those_of_the_optimizer(tiny):
    rows = ROWS["classify"]
    settings = {"task": "classify", "model": str(tiny)}
    step = build_step({**settings, "train": {"learning_rate": 1e-4, "head_learning_rate": None}}, rows)
    assert peak_rates(step.model, step.state.optimizer) == (1e-4, 1e-4)
    step = build_step({**settings, "train": {"learning_rate": 1e-4, "head_learning_rate": 1e-2}}, rows)
    assert peak_rates(step.model, step.state.optimizer) == (1e-4, 1e-2)
    step = build_step({**settings, "task": "match", "options": {"loss": "softmax"}}, ROWS["pairs"])
    assert peak_rates(step.model, step.state.optimizer)[1] is None
