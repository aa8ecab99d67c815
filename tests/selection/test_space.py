"""The section `search`: what it may hold, what each fault is answered, and what is drawn from it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertune.commands.train import prepare
from bertune.config.tuning import take_sections
from bertune.errors import ConfigError
from bertune.selection.space import apply_settings, read_space
from bertune.tasks import load_task, task_names

RAW = {"task": "classify", "data": {"train": "rows.csv"}}
Classify = load_task("classify")


class Draws:
    """Draws as Optuna does, from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance, self.names = random.Random(seed), []

    def suggest_float(self, name, low, high, *, log=False):
        self.names.append(name)
        return low * (high / low) ** self.chance.random() if log else self.chance.uniform(low, high)

    def suggest_int(self, name, low, high, *, log=False):
        self.names.append(name)
        return self.chance.randint(low, high)

    def suggest_categorical(self, name, choices):
        self.names.append(name)
        return self.chance.choice(choices)


def space(search, raw=RAW, options=Classify.Options):
    return read_space(search, raw, options)


FAULTS = {
    "nothing": ({}, "names no setting"),
    "no such setting": ({"train.learning_rat": {"uniform": [0, 1]}}, "did you mean 'learning_rate'"),
    "no such option": ({"options": {"poling": {"choice": ["cls"]}}}, "did you mean 'pooling'"),
    "reversed": ({"train.learning_rate": {"log_uniform": [1e-3, 1e-5]}}, "write [1e-05, 0.001]"),
    "equal": ({"train.epochs": {"int": [3, 3]}}, "nothing to search"),
    "log of 0": ({"train.learning_rate": {"log_uniform": [0, 1e-3]}}, "the logarithm needs more than 0"),
    "not whole": ({"train.epochs": {"int": [1, 2.5]}}, "must be whole numbers"),
    "one bound": ({"train.epochs": {"int": [1]}}, "must be two numbers"),
    "three bounds": ({"train.epochs": {"int": [1, 2, 3]}}, "must be two numbers"),
    "text": ({"train.epochs": {"int": ["1", "2"]}}, "must be two numbers"),
    "a bool": ({"train.epochs": {"int": [False, True]}}, "must be two numbers"),
    "endless": ({"train.epochs": {"uniform": [1, float("inf")]}}, "must be finite"),
    "no list": ({"train.epochs": {"choice": 3}}, "must be a list"),
    "empty choice": ({"train.epochs": {"choice": []}}, "must be a list"),
    "twice": ({"train.epochs": {"choice": [1, 2, 1]}}, "names a value twice"),
    "a plain value": ({"train.epochs": 3}, "must be one of log_uniform"),
    "two ways": ({"train.epochs": {"int": [1, 2], "choice": [1]}}, "must be one of log_uniform"),
    "a misspelt way": ({"train.epochs": {"loguniform": [1, 2]}}, "did you mean 'log_uniform'"),
    "a value that is refused": ({"train.dropout": {"uniform": [0, 2]}}, "train.dropout"),
    "a choice that is refused": ({"options.pooling": {"choice": ["cls", "last"]}}, "options.pooling"),
    "the data": ({"data.limit": {"int": [10, 20]}}, "changes which rows there are"),
    "the metric": ({"options.metric": {"choice": ["f1", "mcc"]}}, "compared by one metric"),
    "the seed": ({"seed": {"int": [1, 2]}}, "says nothing of how good a model is"),
    "patience": ({"train.patience": {"int": [1, 2]}}, "search train.epochs"),
    "a condition without a parent": (
        {"options.focal_gamma": {"uniform": [0, 1], "when": {"options.loss": "focal"}}},
        "'options.loss' is not searched",
    ),
    "a condition that never holds": (
        {
            "options.loss": {"choice": ["cross_entropy", "focal"]},
            "options.focal_gamma": {"uniform": [0, 1], "when": {"options.loss": "hinge"}},
        },
        "never is 'hinge'",
    ),
    "conditions in a circle": (
        {
            "train.epochs": {"int": [1, 2], "when": {"train.batch_size": 8}},
            "train.batch_size": {"choice": [8, 16], "when": {"train.epochs": 1}},
        },
        "wait for each other",
    ),
    "an empty condition": ({"train.epochs": {"int": [1, 2], "when": {}}}, "must name another setting"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named(name):
    search, expected = FAULTS[name]
    with pytest.raises(ConfigError) as error:
        space(search)
    assert expected in str(error.value)
    assert "search" in str(error.value)


def test_all_faults_at_once():
    search = {}
    names = ("no such setting", "reversed", "the metric", "twice")
    for name in names:
        search |= FAULTS[name][0]
    with pytest.raises(ConfigError) as error:
        space(search)
    text = str(error.value)
    assert all(FAULTS[name][1] in text for name in names)


CONDITIONAL = {
    "options.focal_gamma": {"uniform": [0.5, 3], "when": {"options.loss": "focal"}},
    "options": {"loss": {"choice": ["focal", "cross_entropy"]}},
    "train": {"learning_rate": {"log_uniform": [1e-5, 1e-3]}, "epochs": {"int": [1, 5]}},
    "options.class_weights": {"choice": [None, "balanced", {"a": 2.0}]},
}


@given(st.integers(0, 10_000))
def test_what_is_drawn_is_allowed_and_conditions_hold(seed):
    found = space(CONDITIONAL)
    draws = Draws(seed)
    settings = found.suggest(draws)
    assert ("options.focal_gamma" in settings) == (settings["options.loss"] == "focal")
    assert 1e-5 <= settings["train.learning_rate"] <= 1e-3
    assert float(f"{settings['train.learning_rate']:.4g}") == settings["train.learning_rate"]
    assert settings["train.epochs"] in range(1, 6)
    assert settings["options.class_weights"] in (None, "balanced", {"a": 2.0})
    assert sorted(draws.names) == sorted(settings)
    run, task = prepare(apply_settings(RAW, settings))
    assert run.train.learning_rate == settings["train.learning_rate"]
    assert task.options.class_weights == settings["options.class_weights"]


def test_the_runs_own_values_are_a_point_of_the_space_or_none():
    found = space(CONDITIONAL)
    run, _ = prepare({**RAW, "options": {"loss": "focal"}, "train": {"learning_rate": 5e-5}})
    assert found.values_of(run) == {
        "options.loss": "focal",
        "options.focal_gamma": 2.0,
        "train.learning_rate": 5e-5,
        "train.epochs": 3,
        "options.class_weights": None,
    }
    outside, _ = prepare({**RAW, "train": {"learning_rate": 1.0}})
    assert found.values_of(outside) is None


@pytest.mark.parametrize("name", task_names())
def test_the_space_of_each_task_is_allowed_in_a_run_of_it(name):
    task_class = load_task(name)
    found = space(task_class.search_space, {**RAW, "task": name}, task_class.Options)
    assert {d.name for d in found.dimensions} == set(task_class.search_space)
    assert space(found.to_json(), {**RAW, "task": name}, task_class.Options) == found
    for seed in range(20):
        prepare(apply_settings({**RAW, "task": name}, found.suggest(Draws(seed))))


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ({"trials": 0}, "tune.trials"),
        ({"time": "soon"}, "such as 90s, 30m"),
        ({"time": -1}, "tune.time"),
        ({"engine": "grid"}, "tune.engine"),
        ({"trails": 3}, "did you mean 'trials'"),
        ({"holdout": 1.5}, "tune.holdout"),
        ({"folds": 1}, "tune.folds"),
        ({"limit": 0}, "tune.limit"),
    ],
)
def test_wrong_settings_of_the_search(tune, expected):
    with pytest.raises(ConfigError) as error:
        take_sections({**RAW, "tune": tune})
    assert expected in str(error.value)
