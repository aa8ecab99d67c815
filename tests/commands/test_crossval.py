"""Whole cross-validations: what is trained on what, what is written, what is resumed, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import bertune
from bertune.console import Console
from bertune.errors import ConfigError, DataError, Interrupted, TrainingError
from bertune.selection import crossval as crossval_module
from bertune.selection.parts import Part, prediction_from_json, prediction_to_json
from bertune.types import Entity, Prediction

NOUNS, WORDS = ("dog", "cat", "tree"), {"good": "pos", "great": "pos", "bad": "neg", "awful": "neg"}
ROWS = [
    {"text": f"the {n} is {w} {c}", "label": label, "who": n}
    for w, label in WORDS.items()
    for n in NOUNS
    for c in ("red", "blue")
]
REPEATED = [*ROWS, *({**row, "label": "pos"} for row in ROWS[:3])]


class Listening(Console):
    """Keeps the lines that it is given."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def settings(tiny, write, tmp_path):
    """Settings of a run of two steps."""

    def make(rows=ROWS, task="classify", out="out", **data):
        data = {"train": write(f"{task}.jsonl", rows), **data}
        train = {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"}
        return {"task": task, "model": str(tiny), "out": str(tmp_path / out), "data": data, "train": train}

    return make


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_has_one_prediction_in_its_order_and_equal_texts_share_a_fold(settings, tmp_path):
    result = bertune.crossval(settings(REPEATED), folds=3)
    rows = rows_of(tmp_path / "out/out_of_fold.jsonl")
    assert [(row["texts"], row["label"]) for row in rows] == [([r["text"]], r["label"]) for r in REPEATED]
    assert [row["line"] for row in rows] == list(range(1, len(REPEATED) + 1))
    fold_of = {}
    for row in rows:
        assert fold_of.setdefault(row["texts"][0], row["fold"]) == row["fold"]
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == max(row["probabilities"], key=row["probabilities"].get)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    right = [row["prediction"] == row["label"] for row in rows]
    assert scores["pooled"]["values"]["accuracy"] == pytest.approx(np.mean(right))
    folds = np.array([row["fold"] for row in rows])
    by_fold = [np.mean(np.array(right)[folds == fold]) for fold in (1, 2, 3)]
    assert [part["scores"]["values"]["accuracy"] for part in scores["parts"]] == pytest.approx(by_fold)
    spread = scores["spread"]["accuracy"]
    assert (spread["mean"], spread["deviation"]) == pytest.approx((np.mean(by_fold), np.std(by_fold, ddof=1)))
    assert result.spread["accuracy"].mean == spread["mean"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "out_of_fold.jsonl", "run.yaml", "scores.json",
    ]  # fmt: skip


def test_a_fold_is_the_model_of_the_other_folds_alone(settings, tmp_path, write):
    bertune.crossval(settings(), folds=2, ensemble=True)
    rows = rows_of(tmp_path / "out/out_of_fold.jsonl")
    others = [row for row, out in zip(ROWS, rows, strict=True) if out["fold"] != 1]
    alone = bertune.train(
        {**settings(others, out="alone"), "data": {"train": write("o.jsonl", others), "dev_fraction": 0}},
        quiet=True,
    )
    weights, member = (
        load_file(folder / "model.safetensors")
        for folder in (alone.folder, tmp_path / "out/ensemble/members/member-1")
    )
    assert all((weights[name] == member[name]).all() for name in weights)
    model = bertune.load(alone.folder)
    held_out = [row for row in rows if row["fold"] == 1]
    for row, prediction in zip(held_out, model.predict([r["texts"][0] for r in held_out]), strict=True):
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=2e-3)


def test_the_refit_model_is_repeated_by_its_run_file_and_its_card_has_the_score(settings, tmp_path):
    test = settings(ROWS[::3], "classify", out="unused")["data"]["train"]
    result = bertune.crossval(settings(test=test), folds=2, refit=True)
    folder = tmp_path / "out/model"
    again = bertune.train(folder / "run.yaml", [f"out={tmp_path / 'again'}"], quiet=True)
    first, second = (load_file(f / "model.safetensors") for f in (folder, again.folder))
    assert all((first[name] == second[name]).all() for name in first)
    card = (folder / "README.md").read_text()
    assert f"| accuracy | {result.pooled.main_value:.4f} |" in card
    assert "each on rows that it was not trained on" in card
    assert result.models["model"].keys() == {"test"}
    assert again.scores.keys() == {"test"}


def test_groups_stay_together(settings, tmp_path):
    console = Listening()
    bertune.crossval(settings(), folds=3, group="who", console=console)
    fold_of = {}
    for row, out in zip(ROWS, rows_of(tmp_path / "out/out_of_fold.jsonl"), strict=True):
        assert fold_of.setdefault(row["who"], out["fold"]) == out["fold"]
    assert any("3 groups" in line for line in console.lines)


def test_seeds_score_the_same_dev_rows(settings, tmp_path):
    result = bertune.crossval(settings(dev_fraction=0.25), seeds=[3, 1], ensemble=True)
    rows = rows_of(tmp_path / "out/dev_by_seed.jsonl")
    by_seed = {seed: [row for row in rows if row["seed"] == seed] for seed in (3, 1)}
    assert [row["line"] for row in by_seed[3]] == [row["line"] for row in by_seed[1]]
    assert by_seed[3][0]["probabilities"] != by_seed[1][0]["probabilities"]
    assert [part.number for part in result.parts] == [3, 1]
    assert result.pooled is None
    model = bertune.load(tmp_path / "out/ensemble")
    for a, b in zip(by_seed[3], by_seed[1], strict=True):
        mean = {name: (a["probabilities"][name] + b["probabilities"][name]) / 2 for name in ("neg", "pos")}
        assert model.predict([a["texts"][0]])[0].probabilities == pytest.approx(mean, abs=2e-3)


TAG = [
    {"tokens": ["the", n, "is", w], "tags": ["O", "B-THING", "O", f"B-{label}"]}
    for w, label in WORDS.items()
    for n in NOUNS
]
PAIRS = [{"text": f"{n} {w}", "text_b": f"the {w} {n}"} for w in WORDS for n in NOUNS]
NUMBERS = [{**row, "label": n % 7 / 3} for n, row in enumerate(PAIRS)]
SEVERAL = [
    {"text": row["text"], "label": [row["label"], *(["red"] if "red" in row["text"] else [])]} for row in ROWS
]


@pytest.mark.parametrize(
    ("task", "rows", "options", "pooled"),
    [
        ("classify", SEVERAL, {}, True),
        ("classify", [{**row, "label": "ab"[n % 2]} for n, row in enumerate(PAIRS)], {}, True),
        ("regress", NUMBERS, {}, True),
        ("tag", TAG, {}, True),
        ("tag", TAG, {"decoder": "crf"}, True),
        ("match", NUMBERS, {}, True),
        ("match", [{**row, "label": n % 2} for n, row in enumerate(PAIRS)], {}, True),
        ("match", [{**row, "label": "ab"[n % 2]} for n, row in enumerate(PAIRS)], {}, True),
        ("embed", PAIRS, {}, False),
        ("embed", [{"text": row["text"]} for row in ROWS], {}, False),
    ],
    ids=["several", "pairs", "numbers", "tag", "crf", "scores", "binary", "softmax", "embed", "simcse"],
)
def test_every_task_that_can_be_scored(settings, tmp_path, task, rows, options, pooled):
    result = bertune.crossval(
        {**settings(rows, task), "options": options}, folds=2, refit=True, ensemble=True
    )
    out = tmp_path / "out"
    assert (result.pooled is not None) == pooled
    read = bertune.read_out_of_fold(out)
    texts = [[r[k] for k in ("text", "text_b") if k in r] or [" ".join(r["tokens"])] for r in rows]
    assert [list(row.example.texts) for row in read] == texts
    for folder in ("model", "ensemble"):
        model = bertune.load(out / folder)
        if task != "embed" or len(texts[0]) > 1:
            given = [tuple(t) if len(t) > 1 else t[0] for t in texts]
            assert len(model.predict(given)) == len(rows)
    if task != "embed":
        task_of_model = model.task
        assert task_of_model.score([r.prediction for r in read], [r.example for r in read]).values == (
            pytest.approx(result.pooled.values, nan_ok=True)
        )


def test_thresholds_of_a_fold_come_from_the_other_folds(settings, tmp_path):
    from bertune.metrics.classification import best_threshold

    bertune.crossval(settings(SEVERAL), folds=3, refit=True)
    rows = rows_of(tmp_path / "out/out_of_fold.jsonl")
    for fold in (1, 2, 3):
        others = [row for row in rows if row["fold"] != fold]
        for label in ("neg", "pos", "red"):
            gold = np.array([label in row["label"] for row in others])
            limit = best_threshold(gold, np.array([row["probabilities"][label] for row in others]))
            for row in rows:
                distance = row["probabilities"][label] - limit
                if row["fold"] == fold and abs(distance) > 1e-5:
                    assert (label in row["prediction"]) == (distance > 0)
    thresholds = json.loads((tmp_path / "out/model/bertune.json").read_text())["state"]["thresholds"]
    assert thresholds != [0.5, 0.5, 0.5]


@pytest.mark.parametrize("with_dev", [False, True])
def test_the_refit_model_is_calibrated_on_out_of_fold_rows(settings, tmp_path, with_dev):
    given = settings()
    dev = {"dev": given["data"]["train"]} if with_dev else {}
    given = {**settings(**dev), "options": {"calibration": "auto"}}
    bertune.crossval(given, folds=2, refit=True, ensemble=True)
    for folder in ("model", "ensemble"):
        state = json.loads((tmp_path / "out" / folder / "bertune.json").read_text())["state"]
        assert state["calibration"]["rows"] == "out-of-fold rows"
        assert state["calibration"]["num_rows"] == len(ROWS)


class Killed(BaseException):
    """What ends a process at once, as far as a test can."""


@pytest.fixture
def killed_in(monkeypatch):
    """Raise an error when a fold begins to train."""

    def arrange(fold, error):
        fit = crossval_module.fit
        count = iter(range(1, 100))

        def failing(*args, **kwargs):
            if next(count) == fold:
                raise error
            return fit(*args, **kwargs)

        monkeypatch.setattr(crossval_module, "fit", failing)
        return lambda: monkeypatch.setattr(crossval_module, "fit", fit)

    return arrange


def test_a_killed_cross_validation_goes_on_and_comes_to_the_same(settings, tmp_path, killed_in):
    restore = killed_in(3, Killed())
    with pytest.raises(Killed):
        bertune.crossval(settings(), folds=3, refit=True, ensemble=True)
    restore()
    console = Listening()
    result = bertune.crossval(str(tmp_path / "out"), resume=True, console=console)
    assert sum(line.startswith("resume: fold") for line in console.lines) == 2
    whole = bertune.crossval(settings(out="whole"), folds=3, refit=True, ensemble=True)
    assert result.pooled == whole.pooled
    for name in (
        "out_of_fold.jsonl",
        "model/model.safetensors",
        "ensemble/members/member-1/model.safetensors",
    ):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out/folds").exists()
    assert bertune.crossval(str(tmp_path / "out"), resume=True).spread == result.spread  # finished


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (
            KeyboardInterrupt(),
            Interrupted,
            r"stopped in fold 2; finished folds are kept; go on with: ",
        ),
        (MemoryError(), TrainingError, r"fold 2: out of memory; set train.micro_batches"),
        (
            TrainingError("the loss is nan"),
            TrainingError,
            r"fold 2: the loss is nan. Finished folds are",
        ),
        (OSError(28, "No space left"), TrainingError, r"cannot be written: No space left"),
    ],
)
def test_a_fold_that_fails_says_how_to_go_on(settings, tmp_path, killed_in, error, raised, message):
    killed_in(2, error)
    with pytest.raises(raised, match=message) as caught:
        bertune.crossval(settings(), folds=3)
    assert "--resume" in str(caught.value)
    assert (tmp_path / "out/folds/fold-1.json").is_file()


def test_a_resumed_one_must_have_the_same_settings_rows_and_folds(settings, tmp_path, write, killed_in):
    restore = killed_in(2, Killed())
    given = settings()
    with pytest.raises(Killed):
        bertune.crossval(given, folds=3)
    restore()
    for changed, match in [
        ({"folds": 4}, "--folds was 3, is 4"),
        ({"folds": 3, "group": "who"}, "--group was None, is who"),
        ({"seeds": "1,2"}, "--folds was 3, is None"),
        ({"folds": 3, "ensemble": True}, "models of finished folds are gone"),
        ({"folds": 3, "overrides": ["train.max_steps=3"]}, "train.max_steps was 2, is 3"),
    ]:
        with pytest.raises(ConfigError, match=match):
            bertune.crossval(given, resume=True, **changed)
    write("classify.jsonl", [{**ROWS[0], "text": "another dog"}, *ROWS[1:]])
    with pytest.raises(ConfigError, match="the data has changed"):
        bertune.crossval(given, resume=True, folds=3)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"folds": 1}, "--folds: must be at least 2, got 1"),
        ({"folds": True}, "--folds: must be a whole number"),
        ({"folds": 13}, r"--folds 13: label 'pos' has 12 rows only .2 labels.*--folds 12 would do"),
        ({"folds": 4, "group": "who"}, "only 3 groups that share no text; --folds 3 would do"),
        ({"group": "whom"}, r"has no column 'whom'; did you mean 'who'\?; columns: 'text', 'label', 'who'"),
        ({"group": " "}, "--group: must name a column"),
        ({"folds": 3, "seeds": [1, 2]}, "--folds: without effect with --seeds"),
        ({"refit": True, "seeds": [1, 2]}, "--refit: without effect with --seeds"),
        ({"seeds": "1,2,1"}, "--seeds: names 1 twice"),
        ({"seeds": "1"}, "at least 2 are needed"),
        ({"seeds": "1,x,-2,1.5"}, "--seeds: must be whole numbers .* got 'x', '-2', '1.5'"),
        ({"seeds": "1,2", "overrides": ["data.dev_fraction=0"]}, "--seeds: needs dev rows to score"),
        ({"overrides": ["data.train=no.csv"]}, "no.csv"),
        ({"overrides": ["model=nowhere/here"]}, "nowhere/here"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(settings, tmp_path, request_, message):
    with pytest.raises((ConfigError, DataError), match=message):
        bertune.crossval(settings(), **request_)
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_is_named_at_once(settings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/other.txt").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        bertune.crossval(settings(), folds=0, seeds="1,1", refit=True)
    for part in ("--folds: must be at least 2", "--seeds: names 1 twice", "without effect", "is not empty"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="holds no cross-validation"):
        bertune.crossval(settings(), resume=True)


def test_rows_that_no_group_names(settings, tmp_path):
    rows = [*ROWS[:5], {**ROWS[5], "who": ""}, *ROWS[6:], {"text": "a", "label": "pos"}]
    with pytest.raises(DataError, match=r"classify.jsonl:6: column 'who' .--group. is empty.*1 more bad row"):
        bertune.crossval(settings(rows), group="who", folds=2)
    assert not (tmp_path / "out").exists()


def test_training_on_all_rows_goes_on_after_an_interruption(settings, tmp_path):
    class Stop(bertune.Listener):
        def on_step(self, step, total_steps):
            if step == 3:
                raise Killed

    given = settings(dev_fraction=0)
    given["train"] |= {"max_steps": 5, "checkpoint_every": 2, "patience": 1}
    from bertune.commands.train import train

    with pytest.raises(Killed):
        train(given, quiet=True, listeners=[Stop()])
    resumed = train(given, quiet=True, resume=True)
    whole = train({**given, "out": str(tmp_path / "whole")}, quiet=True)
    assert resumed.scores == whole.scores == {}
    assert (resumed.folder / "model.safetensors").read_bytes() == (
        whole.folder / "model.safetensors"
    ).read_bytes()
    assert not (whole.folder / "last").exists()
    assert "Trained without dev rows" in (whole.folder / "README.md").read_text()
    assert train(given, quiet=True, resume=True).scores == {}  # it is finished


def test_predictions_are_kept_to_the_last_bit():
    for prediction in (
        Prediction("a", 1 / 3, {"a": 1 / 3, "b": 2 / 3}),
        Prediction(0.1 + 0.2),
        Prediction(("a", "b"), None, {"a": 0.7}),
        Prediction(()),
        Prediction((Entity(0, 3, "X", "好的!", 1 / 7),), tags=(("好", "B-X"), ("!", "O"))),
    ):
        text = json.dumps(prediction_to_json(prediction))
        assert prediction_from_json(json.loads(text)) == prediction


def test_figures_that_are_not_defined_are_null_in_the_file(tmp_path):
    from bertune.selection.spread import without_nan
    from bertune.types import Scores

    part = Part(1, Scores("pearson", True, {"pearson": float("nan")}), float("nan"), (3, 2), 4, 0.5)
    values = json.loads(json.dumps(without_nan(part.to_json()), allow_nan=False))
    assert np.isnan(Part.from_json(values).scores.main_value)
