"""Importance of settings: a setting that alone makes the score comes first; too little says why."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

import optuna
import pytest
from tests.selection.made_studies import SPACE, make_study

from bertune.selection.importance import setting_importance
from bertune.selection.space import Dimension, SearchSpace
from bertune.selection.trials import Study, Trial


@pytest.fixture(params=["fANOVA", "PED-ANOVA"])
def method(request, monkeypatch):
    if request.param == "PED-ANOVA":
        monkeypatch.setitem(sys.modules, "sklearn", None)
    return request.param


SCORES = {
    "train.learning_rate": None,
    "options.loss": lambda s: 0.7 if s["options.loss"] == "focal" else 0.4 + 1e-6 * s["train.epochs"],
    "data.labels": lambda s: 0.1 * len(str(s["data.labels"])) + 1e-6 * s["train.epochs"],
    "train.epochs": lambda s: 0.1 * s["train.epochs"],
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("higher", [True, False])
def test_the_setting_that_makes_the_score_is_first(name, higher):
    more = {"score": SCORES[name]} if SCORES[name] else {}
    study = make_study(60, states="c" * 60, higher_is_better=higher, **more)
    found = setting_importance(study, SPACE)
    assert next(iter(found.shares)) == name
    assert found.shares[name] > 0.9
    assert found.method == "fANOVA" and found.num_trials == 60 and not found.is_rough


def test_each_method_ranks_and_adds_up_to_one(method):
    study = make_study(60, states="c" * 60)
    found = setting_importance(study, SPACE)
    assert found.method == method
    assert next(iter(found.shares)) == "train.learning_rate"
    assert sum(found.shares.values()) == pytest.approx(1)
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)
    assert min(found.shares.values()) >= 0
    conditional = "options.focal_gamma"
    assert (conditional in found.shares) == (method == "fANOVA")
    assert set(found.shares) | {conditional} == {d.name for d in SPACE.dimensions}


def test_the_same_trials_give_the_same_numbers_and_pruned_ones_do_not_count(method):
    study = make_study(12, states="ccccpfcccccr")
    alone = replace(study, trials=tuple(study.complete))
    assert setting_importance(study, SPACE) == setting_importance(study, SPACE)
    assert setting_importance(study, SPACE) == setting_importance(alone, SPACE)
    assert setting_importance(study, SPACE).is_rough


def test_equal_to_optuna_on_its_own_trials():
    """Without conditions and logarithms the numbers are those of Optuna's study."""
    space = SearchSpace((Dimension("a", "uniform", (0.0, 1.0)), Dimension("b", "uniform", (0.0, 1.0))))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3), direction="maximize")
    study.optimize(lambda t: t.suggest_float("a", 0, 1) + 0.3 * t.suggest_float("b", 0, 1) ** 2, 30)
    trials = tuple(Trial(t.number, dict(t.params), "complete", t.value) for t in study.trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    found = setting_importance(Study(trials, "f1", True, (8, 2), 30), space)
    assert found.shares == pytest.approx(expected)


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        (make_study(0), "0 complete trials; 4 are needed"),
        (make_study(8, states="cccppppf"), "3 complete trials; 4 are needed"),
        (make_study(5, states="c" * 5, score=lambda s: 0.5), "all complete trials have the same score"),
        (make_study(5, states="c" * 5, score=lambda s: float("nan")), "0 complete trials; 4 are needed"),
        (
            Study(tuple(Trial(i, {}, "complete", i / 9) for i in range(6)), "f1", True, (8, 2), 6),
            "all complete trials have the same settings",
        ),
    ],
)
def test_too_little_says_why(study, reason, method):
    found = setting_importance(study, SPACE)
    assert (found.shares, found.reason) == ({}, reason)


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    found = setting_importance(make_study(9, states="c" * 9), SPACE)
    assert not found.shares and "pip install 'bertune[tune]'" in found.reason


def test_values_outside_the_space_and_of_another_kind_do_not_matter(method):
    """The run's own settings may lie outside the bounds; a setting may be in no space at all."""
    study = make_study(8, states="c" * 8)
    first = {
        **study.trials[0].settings,
        "train.learning_rate": 0.5,
        "train.epochs": "auto",
        "train.ema": True,
    }
    study = replace(study, trials=(replace(study.trials[0], settings=first), *study.trials[1:]))
    shares = setting_importance(study, SPACE).shares
    assert sum(shares.values()) == pytest.approx(1)


def test_choices_that_python_takes_for_equal_differ():
    space = SearchSpace((Dimension("options.x", "choice", (1, True, "1", None, "None")),))
    trials = tuple(
        Trial(i, {"options.x": space.dimensions[0].values[i % 5]}, "complete", float(i % 5))
        for i in range(20)
    )
    found = setting_importance(Study(trials, "f1", True, (8, 2), 20), space)
    assert found.shares == {"options.x": 1.0}


def test_optuna_stays_as_loud_as_it_was(capfd):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.INFO)
    try:
        setting_importance(make_study(8, states="c" * 8), SPACE)
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")
