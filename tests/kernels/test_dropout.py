"""Fast dropout keeps the right fraction and the mean, and repeats from a state."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as some

from bertune.kernels.dropout import (
    DROPOUT_GENERATOR,
    RandomBytes,
    apply_dropout,
    draw_keep_mask,
    dropout_add_layer_norm,
    layer_norm,
    rate_to_bytes,
)

RATES = [0.002, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9]
shapes = some.lists(some.integers(0, 13), min_size=1, max_size=4)


def inputs(tokens: int = 37, width: int = 24, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """x, residual, weight, bias."""
    random = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(tokens, width, generator=random).to(dtype) for _ in range(2))
    return [x, residual, torch.randn(width, generator=random) + 1, torch.randn(width, generator=random)]


@each(some.floats(1e-9, 1 - 1e-9))
def test_a_rate_in_bytes(rate):
    dropped, gain = rate_to_bytes(rate)
    assert 1 <= dropped <= 255  # something is dropped, something is kept
    assert abs(dropped / 256 - rate) <= (0.5 if 0.5 <= 256 * rate <= 255.5 else 1) / 256 + 1e-12
    assert gain * (1 - dropped / 256) == pytest.approx(1, rel=1e-12)


def test_no_rate_drops_nothing():
    assert rate_to_bytes(0.0) == (0, 1.0)
    x = inputs()[0]
    before = DROPOUT_GENERATOR.get_state()
    assert apply_dropout(x, 0.0) is x
    assert draw_keep_mask((1000,), 0.0).all()
    DROPOUT_GENERATOR.set_state(before)


@pytest.mark.parametrize("rate", RATES)
def test_the_share_that_is_kept(rate):
    DROPOUT_GENERATOR.seed(0)
    count, fraction = 400_000, 1 - rate_to_bytes(rate)[0] / 256
    mask = draw_keep_mask((count,), rate)
    assert mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) <= {0, 1}
    assert abs(mask.double().mean().item() - fraction) < 5 * math.sqrt(fraction * (1 - fraction) / count)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize("rate", RATES)
def test_the_mean_stays(rate, fast):
    DROPOUT_GENERATOR.seed(0)
    torch.manual_seed(0)
    dropped = apply_dropout(torch.ones(400_000), rate, fast).double()
    assert abs(dropped.mean().item() - 1) < 5 * math.sqrt(rate / (1 - rate) / 400_000)
    assert len(dropped.unique()) == 2


def test_all_bytes_are_as_frequent():
    counts = torch.bincount(RandomBytes(3).draw((2560 * 1000,)).long(), minlength=256).double()
    assert len(counts) == 256
    chi = ((counts - 10_000) ** 2 / 10_000).sum().item()  # 255 degrees of freedom
    assert abs(chi - 255) < 6 * math.sqrt(2 * 255)


def test_neighbours_are_independent():
    """In a row, and from one draw to the next."""
    mask = RandomBytes(1).draw((2000, 512)).ge(128).double() - 0.5
    for a, b in ((mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1]), (mask[:, 8:], mask[:, :-8])):
        assert abs((a * b).mean().item() * 4) < 5 / math.sqrt(a.numel())


@settings(deadline=None)
@each(shapes, some.integers(0, 2**63))
def test_draws_of_any_shape(shape, seed):
    first, again = RandomBytes(seed), RandomBytes(seed)
    drawn = first.draw(shape)
    assert (drawn.shape, drawn.dtype) == (torch.Size(shape), torch.uint8)
    assert torch.equal(drawn, again.draw(shape))
    drawn.zero_()  # the tensor is not shared
    assert torch.equal(first.draw(shape), again.draw(shape))


@settings(deadline=None)
@each(some.lists(shapes, max_size=4), shapes, some.integers(0, 2**63), some.booleans())
def test_a_state_repeats_what_comes_after_it(before, after, seed, in_json):
    source = RandomBytes(seed)
    for shape in before:
        source.draw(shape)
    state = json.loads(json.dumps(source.get_state())) if in_json else source.get_state()
    drawn = [source.draw(after) for _ in range(3)]
    for generator in (source, RandomBytes(5)):
        generator.set_state(state)
        assert generator.get_state() == state
        assert all(torch.equal(generator.draw(after), one) for one in drawn)


def test_seeds_differ():
    draws = [RandomBytes(seed).draw((64,)).tolist() for seed in range(50)]
    assert len({tuple(draw) for draw in draws}) == 50
    again = RandomBytes(7)
    again.draw((5,))
    again.seed(3)
    assert again.draw((64,)).tolist() == draws[3]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_drop_is_a_mask_and_a_factor(rate, dtype):
    x = inputs(dtype=dtype)[0].requires_grad_()
    DROPOUT_GENERATOR.seed(2)
    out = apply_dropout(x, rate)
    DROPOUT_GENERATOR.seed(2)
    mask, gain = draw_keep_mask(x.shape, rate), rate_to_bytes(rate)[1]
    assert out.dtype == dtype
    torch.testing.assert_close(out, (x * mask * gain).to(dtype))
    weights = torch.randn_like(x)
    (gradient,) = torch.autograd.grad((out * weights).sum(), x)
    torch.testing.assert_close(gradient, (weights * mask * gain).to(dtype))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.6])
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 0.02)], ids=str
)
def test_drop_add_norm_is_its_formula(rate, dtype, near):
    tensors = inputs(dtype=dtype)
    exact = [x.double() for x in tensors]
    tensors = [x.double() if dtype == torch.float64 else x for x in tensors]
    weights = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    results = []
    for values, fused in ((tensors, True), (exact, False)):
        values = [x.detach().clone().requires_grad_() for x in values]
        DROPOUT_GENERATOR.seed(9)
        if fused:
            out = dropout_add_layer_norm(*values, 1e-5, rate)
            assert out.dtype == dtype
        else:
            x, residual, weight, bias = values
            mask, gain = (draw_keep_mask(x.shape, rate), rate_to_bytes(rate)[1]) if rate else (1, 1)
            summed = residual + x * mask * gain
            centred = summed - summed.mean(-1, keepdim=True)
            out = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
        gradients = torch.autograd.grad((out * weights.to(out.dtype)).sum(), values)
        assert [g.dtype for g in gradients] == [v.dtype for v in values]
        results.append([t.double() for t in (out.detach(), *gradients)])
    for name, a, b in zip(("out", "x", "residual", "weight", "bias"), *results, strict=True):
        assert (a - b).norm() < near * b.norm(), name


def test_drop_add_norm_has_the_gradient_that_differences_give():
    tensors = [x.double().requires_grad_() for x in inputs(5, 7)]

    def compute(*x):
        DROPOUT_GENERATOR.seed(4)
        return dropout_add_layer_norm(*x, 1e-5, 0.3)

    assert torch.autograd.gradcheck(compute, tensors)


def test_a_gradient_that_lies_otherwise_in_memory():
    """Such as the gradient of a transposed product."""
    results = []
    for change in (lambda x: x, lambda x: x.t().contiguous().t()):
        tensors = [x.requires_grad_() for x in inputs()]
        DROPOUT_GENERATOR.seed(4)
        out = dropout_add_layer_norm(*tensors, 1e-5, 0.3)
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        results.append(torch.autograd.grad(out, tensors, change(gradient)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y, w, b, **f: apply_dropout(x, 0.4, **f),
        lambda *x, **f: dropout_add_layer_norm(*x, 1e-5, 0.4, **f),
    ],
    ids=["drop", "norm"],
)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
def test_where_the_random_numbers_come_from(function, fast):
    tensors = inputs()
    DROPOUT_GENERATOR.seed(0)
    torch.manual_seed(0)
    before = DROPOUT_GENERATOR.get_state(), torch.get_rng_state()
    first = function(*tensors, fast=fast)
    assert (DROPOUT_GENERATOR.get_state() != before[0]) == fast
    assert torch.equal(torch.get_rng_state(), before[1]) == fast
    assert not torch.equal(function(*tensors, fast=fast), first)
    DROPOUT_GENERATOR.set_state(before[0])
    torch.set_rng_state(before[1])
    assert torch.equal(function(*tensors, fast=fast), first)


def test_slow_drop_add_norm_is_torchs():
    x, residual, weight, bias = inputs()
    torch.manual_seed(0)
    fused = dropout_add_layer_norm(x, residual, weight, bias, 1e-5, 0.4, fast=False)
    torch.manual_seed(0)
    summed = residual + torch.nn.functional.dropout(x, 0.4)
    assert torch.equal(fused, torch.nn.functional.layer_norm(summed, weight.shape, weight, bias, 1e-5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_norm(dtype):
    x, _, weight, bias = inputs(dtype=dtype)
    exact = torch.nn.functional.layer_norm(x.double(), weight.shape, weight.double(), bias.double(), 1e-5)
    assert layer_norm(x, weight, bias, 1e-5).dtype == dtype
    assert (layer_norm(x, weight, bias, 1e-5) - exact).norm() < (
        1e-6 if dtype == torch.float32 else 0.01
    ) * exact.norm()
