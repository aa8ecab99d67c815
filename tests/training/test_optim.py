"""Rates move as those of transformers, and every parameter has the rate and the decay of the settings."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from bertune.config.schema import TrainConfig
from bertune.encoders.architectures import HEADS
from bertune.encoders.load import load_encoder
from bertune.errors import ConfigError
from bertune.heads.model import Model
from bertune.heads.pooled import PooledHead
from bertune.heads.sentence import SentenceHead
from bertune.training.optim import (
    build_optimizer,
    describe_warmup,
    lr_schedule,
    parameter_groups,
    set_learning_rates,
    warmup_steps,
)

SCHEDULES = ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]


def numbers(**given: object) -> TrainConfig:
    """Settings without `auto`."""
    return TrainConfig(**{"learning_rate": 5e-5, "head_learning_rate": None, "warmup_ratio": 0.1, **given})


def factors_of_transformers(config: TrainConfig, total: int, warmup: int) -> list[float]:
    """The rate at every step, and 3 steps beyond the end, as a share of the peak."""
    from transformers import get_scheduler

    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    optimizer = torch.optim.SGD([weight], lr=config.learning_rate)
    own = {
        "cosine_with_restarts": {"num_cycles": config.schedule_cycles},
        "polynomial": {"power": config.schedule_power},
    }
    scheduler = get_scheduler(config.schedule, optimizer, warmup, total, own.get(config.schedule))
    rates = []
    for _ in range(total + 4):
        rates.append(scheduler.get_last_lr()[0] / config.learning_rate)
        optimizer.step()
        scheduler.step()
    return rates


def check(config: TrainConfig, total: int, warmup: int) -> list[float]:
    factor = lr_schedule(config, total)
    ours = [factor(step) for step in range(total + 4)]
    assert ours == pytest.approx(factors_of_transformers(config, total, warmup), rel=1e-12, abs=1e-12)
    return ours


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("total", "ratio"), [(50, 0.1), (37, 0.25), (7, 0.0), (70, 0.1)])
def test_warmup_by_ratio(name, total, ratio):
    check(numbers(schedule=name, warmup_ratio=ratio), total, math.ceil(total * ratio))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("total", "steps"), [(50, 0), (50, 1), (50, 13), (20, 19)])
def test_warmup_by_steps_wins_over_the_ratio(name, total, steps):
    config = numbers(schedule=name, warmup_steps=steps, warmup_ratio=0.5)
    assert warmup_steps(config, total) == steps
    check(config, total, steps)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "constant"])
@pytest.mark.parametrize(("total", "steps", "shortened"), [(1, 1, 0), (20, 20, 19), (20, 35, 19)])
def test_warmup_leaves_a_step_at_the_full_rate(name, total, steps, shortened):
    config = numbers(schedule=name, warmup_steps=steps)
    factor = lr_schedule(config, total)
    assert warmup_steps(config, total) == shortened
    assert factor(total - 1) == 1  # with one step, the issue was a rate of 0
    assert f"train.warmup_steps={steps} leaves none of the {total} steps" in describe_warmup(config, total)


def test_warmup_that_fits_says_nothing():
    assert describe_warmup(numbers(warmup_steps=19), 20) == ""
    assert describe_warmup(numbers(warmup_ratio=0.9), 1) == ""
    assert describe_warmup(numbers(warmup_steps=20, schedule="constant"), 20) == ""


@pytest.mark.parametrize("cycles", [1, 2, 3, 5])
def test_cycles(cycles):
    ours = check(numbers(schedule="cosine_with_restarts", schedule_cycles=cycles, warmup_steps=4), 64, 4)
    assert sum(1 for before, after in itertools.pairwise(ours[4:]) if after > before) == cycles - 1


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("rate", [5e-5, 1e-3, 2e-7])
def test_power(power, rate):
    ours = check(
        numbers(schedule="polynomial", schedule_power=power, learning_rate=rate, warmup_steps=3), 23, 3
    )
    assert ours[23] * rate == pytest.approx(1e-7, rel=1e-9)


def test_set_learning_rates_keeps_the_proportions_of_groups():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [
        {"params": [w], "lr": rate, "peak_lr": rate} for w, rate in zip(weights, (1e-3, 5e-5), strict=True)
    ]
    optimizer = torch.optim.AdamW(groups)
    for factor in (0.25, 0.0, 1.0):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [1e-3 * factor, 5e-5 * factor]


@pytest.fixture
def model(tiny) -> Model:
    encoder, _ = load_encoder(tiny)
    return Model(encoder, PooledHead(encoder.hidden_size, 3, "pooler", HEADS["bert"], 0.1))


def settings_of(model: Model, config: TrainConfig) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter by name; no parameter may be there twice."""
    names = {id(p): n for n, p in model.named_parameters()}
    groups = parameter_groups(model, config)
    held = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(dict(held)) == len(held)
    assert all(group["lr"] == group["peak_lr"] for group in groups)
    return dict(held)


def test_every_trainable_parameter_once(model):
    for frozen in (model.encoder.word_embeddings(), model.head.out.bias):
        frozen.requires_grad = False
    found = settings_of(model, numbers(layer_decay=0.5, head_learning_rate=1e-2))
    every = {n for n, _ in model.named_parameters()}
    assert set(found) == every - {"encoder.embeddings.word_embeddings.weight", "head.out.bias"}


def test_what_has_one_dimension_does_not_decay(model):
    found = settings_of(model, numbers(weight_decay=0.03))
    assert {n: decay for n, (_, decay) in found.items()} == {
        n: 0.03 if p.ndim > 1 else 0.0 for n, p in model.named_parameters()
    }
    for name, (_, decay) in found.items():
        assert decay == (0.0 if name.endswith("bias") or "norm." in name else 0.03), name


def test_layers_decay_from_the_top_and_the_head_has_its_own_rate(model):
    found = settings_of(model, numbers(learning_rate=4e-5, layer_decay=0.8, head_learning_rate=3e-3))
    expected = {"embeddings": 4e-5 * 0.8**2, "layers.0": 4e-5 * 0.8, "layers.1": 4e-5}
    counted = dict.fromkeys([*expected, "head"], 0)
    for name, (rate, _) in found.items():
        place = next((p for p in expected if name.startswith(f"encoder.{p}.")), "head")
        assert place != "head" or name.startswith("head.")
        assert rate == expected.get(place, 3e-3), name
        counted[place] += 1
    assert counted == {"embeddings": 5, "layers.0": 16, "layers.1": 16, "head": 4}


def test_without_a_head_rate_the_head_learns_as_the_top_layer(model):
    found = settings_of(model, numbers(learning_rate=4e-5, layer_decay=0.8))
    assert {rate for n, (rate, _) in found.items() if n.startswith("head.")} == {4e-5}


def test_without_layer_decay_all_rates_are_one(model):
    found = settings_of(model, numbers(learning_rate=4e-5))
    assert {rate for rate, _ in found.values()} == {4e-5}
    assert len(parameter_groups(model, numbers())) == 2


def test_a_step_is_one_of_adamw(model):
    """Decoupled decay, bias correction: one step computed by hand."""
    config = numbers(learning_rate=1e-2, weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-3)
    optimizer = build_optimizer(model, config)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name, p in model.named_parameters():
        decay = 0.1 if p.ndim > 1 else 0.0
        expected = before[name] * (1 - 1e-2 * decay) - 1e-2 * p.grad / (p.grad.abs() + 1e-3)
        torch.testing.assert_close(p.detach(), expected, atol=1e-6, rtol=1e-5, msg=name)


def test_a_layer_may_have_a_rate_of_its_own(tiny):
    encoder, _ = load_encoder(tiny)
    model = Model(
        encoder,
        SentenceHead(encoder.hidden_size, "mean", [(8, "none")], num_labels=2, classifier_learning_rate=1e-3),
    )
    found = settings_of(model, numbers(learning_rate=4e-5, head_learning_rate=3e-4, weight_decay=0.03))
    assert {n: found[n] for n in found if n.startswith("head.")} == {
        "head.dense.0.weight": (3e-4, 0.03), "head.dense.0.bias": (3e-4, 0.0),
        "head.out.weight": (1e-3, 0.0), "head.out.bias": (1e-3, 0.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "words"),
    [(0, "leave it out"), (2, "'out' has its own learning rate in options; leave it out")],
)
def test_a_rate_that_no_layer_of_the_head_learns_at_is_refused(labels, words, tiny):
    encoder, _ = load_encoder(tiny)
    model = Model(
        encoder,
        SentenceHead(
            encoder.hidden_size, "mean", num_labels=labels, classifier_learning_rate=1e-3 if labels else None
        ),
    )
    with pytest.raises(
        ConfigError, match=f"train.head_learning_rate: no layer of this head learns at it; {words}"
    ):
        parameter_groups(model, numbers(head_learning_rate=1e-3))
    assert parameter_groups(model, numbers())
