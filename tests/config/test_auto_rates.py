"""The rule behind `auto`: bounded, monotone, deterministic, and never stronger than what is given."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertune.config.auto_rates import (
    AUTO_SETTINGS,
    HIGHEST_RATE,
    LOWEST_RATE,
    Learner,
    TaskRates,
    encoder_rate,
    has_auto,
    head_rate,
    nice,
    number,
    settle,
    short,
    take_settled,
    warmup_steps,
)
from bertune.config.schema import TrainConfig
from bertune.errors import ConfigError
from bertune.tasks import load_task, task_names

LEARNERS = st.builds(
    Learner,
    width=st.integers(8, 4096),
    layers=st.integers(1, 64),
    steps=st.integers(1, 10**6),
    task_rates=st.builds(
        TaskRates,
        head=st.none() | st.floats(1e-4, 1e-1),
        encoder_factor=st.floats(0.1, 1.0),
    ),
    head_is_new=st.booleans(),
)
MAYBE_RATE = st.just("auto") | st.floats(1e-7, 1.0)


@given(LEARNERS)
def test_rates_are_bounded_and_the_same_every_time(learner):
    rate = encoder_rate(learner)
    assert LOWEST_RATE <= rate <= HIGHEST_RATE
    assert encoder_rate(learner) == rate
    head = head_rate(learner, rate)
    assert head is None or head >= rate
    assert (head is None) == (learner.task_rates.head is None or not learner.head_is_new)


@given(LEARNERS, st.integers(0, 1000), st.integers(0, 30), st.integers(0, 10**6))
def test_larger_encoders_and_longer_runs_never_learn_faster(learner, wider, deeper, longer):
    rate = encoder_rate(learner)
    larger = Learner(
        learner.width + wider, learner.layers + deeper, learner.steps + longer, learner.task_rates
    )
    assert encoder_rate(larger) <= rate
    assert (head_rate(larger, LOWEST_RATE) or 0) <= (
        head_rate(Learner(learner.width, 1, 1, learner.task_rates), LOWEST_RATE) or 0
    )


@given(LEARNERS, MAYBE_RATE, st.none() | MAYBE_RATE, st.just("auto") | st.floats(0, 0.99))
def test_what_is_given_stays_and_nothing_remains_to_choose(learner, rate, head, warmup):
    asked = TrainConfig(learning_rate=rate, head_learning_rate=head, warmup_ratio=warmup)
    settled, line = settle(asked, learner)
    for name in AUTO_SETTINGS:
        value = getattr(asked, name)
        assert value == "auto" or getattr(settled, name) == value
    assert not has_auto(settled)
    assert settle(settled, learner) == (settled, "")
    assert bool(line) == any(x == "auto" for x in (rate, warmup)) or head == "auto"
    if head == "auto" and settled.head_learning_rate is not None:
        assert settled.head_learning_rate >= settled.learning_rate
    assert TrainConfig.model_validate(settled.model_dump()) == settled
    assert take_settled(asked, settled) == settled
    assert 0 <= warmup_steps(settled, learner.steps) <= max(learner.steps - 1, 0)


@given(st.integers(1, 10**6))
def test_the_default_warmup_is_never_the_whole_run(total):
    assert warmup_steps(TrainConfig(), total) == min(math.ceil(total * 0.1), total - 1)


@pytest.mark.parametrize(
    ("width", "layers", "steps", "low", "high"),
    [
        (768, 12, 200, 2e-5, 5e-5),  # BERT-base: the four rates of Devlin et al. 2018 are 2e-5 to 5e-5
        (768, 12, 36_000, 2e-5, 5e-5),
        (1024, 24, 300, 1e-5, 3e-5),  # BERT-large, RoBERTa-large: 1e-5 to 3e-5
        (1024, 24, 36_000, 1e-5, 3e-5),
        (256, 12, 1000, 1e-4, 3e-4),  # ELECTRA-small: 3e-4
        (384, 6, 43, 1e-4, 4e-4),
        (512, 4, 43, 1e-4, 4e-4),
    ],
)
def test_encoders_get_rates_of_the_field(width, layers, steps, low, high):
    assert low <= encoder_rate(Learner(width, layers, steps)) <= high


@pytest.mark.parametrize(("width", "layers"), [(0, 12), (768, 0), (0, 0)])
def test_an_encoder_of_unknown_size_learns_as_one_of_base_size(width, layers):
    settled, line = settle(TrainConfig(), Learner(width, layers, 100))
    assert settled.learning_rate == encoder_rate(Learner(768, 12, 100))
    assert "(encoder of unknown size)" in line


@given(st.floats(1e-9, 1.0))
def test_a_nice_rate_is_near_and_stays_as_it_is(rate):
    found = nice(rate)
    assert 0.77 < found / rate < 1.3
    assert nice(found) == found
    assert float(short(found)) == found


@pytest.mark.parametrize("name", task_names())
def test_every_task_has_rates(name):
    learner = Learner(768, 12, 100, load_task(name).auto_rates)
    settled, line = settle(TrainConfig(), learner)
    assert settled.warmup_ratio == 0.1
    assert line.startswith("learning_rate ") and "(encoder of width 768, 12 layers)" in line
    assert line.endswith("warm-up 10 of 100 steps")
    assert ("head_learning_rate" in line) == (settled.head_learning_rate is not None)


@pytest.mark.parametrize(
    ("train", "line"),
    [
        ({"learning_rate": 1e-4, "head_learning_rate": None, "warmup_steps": 3}, ""),
        ({"learning_rate": 1e-4, "head_learning_rate": None, "schedule": "constant"}, ""),
        ({"learning_rate": 1e-4, "warmup_ratio": 0}, "head_learning_rate 1e-3 (a new head)"),
        ({"learning_rate": 3e-2, "warmup_ratio": 0}, "head_learning_rate 3e-2 (a new head)"),
        ({"learning_rate": 1e-4, "head_learning_rate": None}, "warm-up 2 of 20 steps"),
    ],
)
def test_only_what_was_chosen_is_said(train, line):
    asked = TrainConfig(**train)
    settled, said = settle(asked, Learner(128, 2, 20))
    assert said == line
    assert settled.model_copy(update={name: getattr(asked, name) for name in AUTO_SETTINGS}) == asked


def test_a_number_is_needed_where_no_model_is_known():
    with pytest.raises(ConfigError, match=r"train\.learning_rate is auto"):
        number(TrainConfig(), "learning_rate")
    assert number(TrainConfig(learning_rate=1e-4), "learning_rate") == 1e-4
