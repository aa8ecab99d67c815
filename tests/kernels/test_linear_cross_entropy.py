"""The loss over a large vocabulary is that of torch, with its gradients, in any number of parts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bertune.kernels import linear_cross_entropy as module
from bertune.kernels.linear_cross_entropy import linear_cross_entropy, token_losses


def numbers(dtype: torch.dtype, positions: int = 37, width: int = 12, tokens: int = 101):
    torch.manual_seed(0)
    features = (torch.randn(positions, width, dtype=torch.float64) * 2).to(dtype)
    table = torch.randn(tokens, width, dtype=torch.float64).to(dtype)
    bias = torch.randn(tokens, dtype=torch.float64).to(dtype)
    ids = torch.randint(0, tokens, (positions,))
    return features, table, bias, ids


def gradients(loss, features, table, bias, ids, factor=1.0):
    leaves = [tensor.clone().requires_grad_() for tensor in (features, table, bias)]
    value = loss(*leaves, ids)
    (value * factor).backward()
    return value.detach(), [leaf.grad for leaf in leaves]


def plain(features, table, bias, ids):
    return F.cross_entropy(F.linear(features, table, bias), ids, reduction="sum")


@pytest.mark.parametrize("rows_at_a_time", [1, 5, 37, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradients_are_those_of_torch(dtype, rows_at_a_time, monkeypatch):
    monkeypatch.setattr(module, "MAX_LOGITS", rows_at_a_time * 101)
    inputs = numbers(dtype)
    ours, theirs = (gradients(loss, *inputs, factor=0.3) for loss in (linear_cross_entropy, plain))
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-5}
    torch.testing.assert_close(ours[0], theirs[0], **tolerance)
    for our, their in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(our, their, **tolerance)


def test_gradients_in_bf16_are_near_those_in_fp32():
    features, table, bias, ids = numbers(torch.float32)
    low = features.bfloat16()
    value, (of_features, of_table, of_bias) = gradients(linear_cross_entropy, low, table, bias, ids)
    exact, wanted = gradients(plain, low.float(), table.bfloat16().float(), bias, ids)
    assert (of_features.dtype, of_table.dtype, of_bias.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    assert float(value) == pytest.approx(float(exact), rel=1e-2)
    for our, their in zip((of_features.float(), of_table, of_bias), wanted, strict=True):
        assert float((our - their).norm() / their.norm()) < 0.02


def test_a_loss_of_nothing_is_zero_and_has_gradients_of_zero():
    features, table, bias, ids = numbers(torch.float32, positions=0)
    value, (of_features, of_table, of_bias) = gradients(linear_cross_entropy, features, table, bias, ids)
    assert float(value) == 0
    assert of_features.shape == (0, 12)
    assert not of_table.any()
    assert not of_bias.any()
    losses, hits = token_losses(features, table, bias, ids)
    assert (len(losses), len(hits), hits.dtype) == (0, 0, torch.bool)


def test_very_large_logits_stay_finite():
    features, table, bias, ids = numbers(torch.float32)
    ours, theirs = (
        gradients(loss, features * 1e4, table, bias, ids) for loss in (linear_cross_entropy, plain)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("rows_at_a_time", [1, 5, 1000])
def test_losses_of_tokens_are_those_of_torch(rows_at_a_time, monkeypatch):
    monkeypatch.setattr(module, "MAX_LOGITS", rows_at_a_time * 101)
    features, table, bias, ids = numbers(torch.float32)
    losses, hits = token_losses(features, table, bias, ids)
    logits = F.linear(features, table, bias)
    torch.testing.assert_close(losses, F.cross_entropy(logits, ids, reduction="none"))
    assert hits.tolist() == (logits.argmax(-1) == ids).tolist()
    torch.testing.assert_close(losses.sum(), linear_cross_entropy(features, table, bias, ids))


def test_logits_of_all_positions_never_exist_at_once(monkeypatch):
    monkeypatch.setattr(module, "MAX_LOGITS", 101 * 4)
    sizes = []
    original = module._logits

    def watched(features, weight, bias):
        sizes.append(len(features))
        return original(features, weight, bias)

    monkeypatch.setattr(module, "_logits", watched)
    features, table, bias, ids = numbers(torch.float32)
    gradients(linear_cross_entropy, features, table, bias, ids)
    assert sizes == [4] * 9 + [1]
