"""Losses equal those of torch, or their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from bertune.losses.classification import (
    binary_cross_entropy,
    cross_entropy,
    focal_loss,
    symmetric_binary_kl,
    symmetric_kl,
)

ROWS, LABELS = 7, 4
EXACT = {"atol": 1e-5, "rtol": 1e-6}


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def logits(random) -> torch.Tensor:
    return 3 * torch.randn(ROWS, LABELS, generator=random)


@pytest.fixture
def other(random) -> torch.Tensor:
    return 3 * torch.randn(ROWS, LABELS, generator=random)


@pytest.fixture
def target(random) -> torch.Tensor:
    return torch.randint(LABELS, (ROWS,), generator=random)


@pytest.fixture
def applies(random) -> torch.Tensor:
    return torch.randint(2, (ROWS, LABELS), generator=random).float()


@pytest.fixture
def weights() -> torch.Tensor:
    return torch.tensor([0.5, 1.0, 2.0, 7.0])


def close(actual: torch.Tensor, reference: torch.Tensor | float) -> None:
    assert actual.shape == ()
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, torch.as_tensor(reference, dtype=torch.float32), **EXACT)


def same_gradient(actual, reference, *inputs: torch.Tensor) -> None:
    for loss in (actual, reference):
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        gradients = torch.autograd.grad(loss(*inputs), inputs)
        if loss is actual:
            first = gradients
    for a, b in zip(first, gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


class TestCrossEntropy:
    def test_is_the_sum_of_minus_the_log_of_each_probability(self, logits, target):
        loop = sum(
            -math.log(math.exp(row[t]) / sum(map(math.exp, row)))
            for row, t in zip(logits.tolist(), target.tolist(), strict=True)
        )
        close(cross_entropy(logits, target), loop)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_divided_by_the_weights_of_the_rows_is_the_mean_of_torch(
        self, logits, target, weights, smoothing, weighted
    ):
        weights = weights if weighted else None
        actual = cross_entropy(logits, target, weights, smoothing)
        count = weights[target].sum() if weighted else ROWS
        close(actual / count, F.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing))

    def test_parts_add_up(self, logits, target, weights):
        parts = [
            cross_entropy(logits[cut], target[cut], weights, 0.1)
            for cut in (slice(0, 3), slice(3, 4), slice(4, None))
        ]
        close(sum(parts), cross_entropy(logits, target, weights, 0.1))

    def test_is_computed_in_fp32(self, logits, target):
        half = logits.bfloat16()
        close(cross_entropy(half, target), cross_entropy(half.float(), target))


class TestFocal:
    @pytest.mark.parametrize("weighted", [False, True])
    def test_gamma_0_is_cross_entropy(self, logits, target, weights, weighted):
        weights = weights if weighted else None
        close(focal_loss(logits, target, 0.0, weights), cross_entropy(logits, target, weights))

    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_is_the_formula_of_the_paper(self, logits, target, weights, gamma, weighted):
        def loop(logits):
            total = torch.zeros(())
            for row, t in zip(logits, target, strict=True):
                p = row.exp()[t] / row.exp().sum()
                total = total - (weights[t] if weighted else 1) * (1 - p) ** gamma * p.log()
            return total

        def actual(logits):
            return focal_loss(logits, target, gamma, weights if weighted else None)

        close(actual(logits), loop(logits))
        same_gradient(actual, loop, logits)

    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
    def test_a_sure_model_has_a_finite_gradient(self, gamma):
        logits = torch.tensor(
            [[60.0, -60.0], [-60.0, 60.0]], requires_grad=True
        )  # certain and right, certain and wrong
        loss = focal_loss(logits, torch.tensor([0, 0]), gamma)
        close(loss, 120.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))


class TestBinaryCrossEntropy:
    @pytest.mark.parametrize("weighted", [False, True])
    def test_is_that_of_torch(self, logits, applies, weights, weighted):
        weights = weights if weighted else None
        reference = F.binary_cross_entropy_with_logits(logits, applies, pos_weight=weights, reduction="sum")
        close(binary_cross_entropy(logits, applies, weights), reference)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_is_its_formula(self, logits, applies, weights, gamma, smoothing, weighted):
        def loop(logits):
            total = torch.zeros(())
            for b in range(ROWS):
                for n in range(LABELS):
                    p, y = torch.sigmoid(logits[b, n]), applies[b, n]
                    soft = (1 - smoothing) * y + smoothing * 0.5
                    easy = 1 - p if y == 1 else p
                    positive = weights[n] if weighted else 1.0
                    total = total - (positive * soft * p.log() + (1 - soft) * (1 - p).log()) * easy**gamma
            return total

        def actual(logits):
            return binary_cross_entropy(logits, applies, weights if weighted else None, smoothing, gamma)

        close(actual(logits), loop(logits))
        same_gradient(actual, loop, logits)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
    def test_a_sure_model_has_a_finite_gradient(self, gamma):
        logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
        loss = binary_cross_entropy(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), gamma=gamma)
        close(loss, 120.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))

    def test_is_computed_in_fp32(self, logits, applies, weights):
        half = logits.bfloat16()
        close(
            binary_cross_entropy(half, applies, weights), binary_cross_entropy(half.float(), applies, weights)
        )


class TestDivergence:
    def test_of_softmax_is_that_of_torch(self, logits, other):
        def reference(logits, other):
            p, q = logits.log_softmax(-1), other.log_softmax(-1)
            forward = F.kl_div(p, q, reduction="sum", log_target=True)
            backward = F.kl_div(q, p, reduction="sum", log_target=True)
            return (forward + backward) / 2

        close(symmetric_kl(logits, other), reference(logits, other))
        same_gradient(symmetric_kl, reference, logits, other)

    def test_of_sigmoids_is_that_of_torch(self, logits, other):
        def reference(logits, other):
            p, q = (torch.stack([F.logsigmoid(x), F.logsigmoid(-x)]) for x in (logits, other))
            forward = F.kl_div(p, q, reduction="sum", log_target=True)
            backward = F.kl_div(q, p, reduction="sum", log_target=True)
            return (forward + backward) / 2

        close(symmetric_binary_kl(logits, other), reference(logits, other))
        same_gradient(symmetric_binary_kl, reference, logits, other)

    @pytest.mark.parametrize("divergence", [symmetric_kl, symmetric_binary_kl])
    def test_is_a_distance(self, divergence, logits, other):
        assert divergence(logits, logits.clone()).item() == 0.0
        assert divergence(logits, other) == divergence(other, logits)
        assert divergence(logits, other) > 0

    def test_a_shift_of_all_logits_is_no_distance_for_softmax_but_is_for_sigmoids(self, logits):
        assert symmetric_kl(logits, logits + 5).item() == pytest.approx(0, abs=1e-5)
        assert symmetric_binary_kl(logits, logits + 5) > 1

    def test_two_labels_are_one_sigmoid(self, logits, other):
        """A softmax of (x, 0) is a sigmoid of x."""
        p, q = (torch.stack([x.flatten(), torch.zeros(x.numel())], 1) for x in (logits, other))
        close(symmetric_kl(p, q), symmetric_binary_kl(logits, other))

    @pytest.mark.parametrize("divergence", [symmetric_kl, symmetric_binary_kl])
    def test_is_computed_in_fp32(self, divergence, logits, other):
        a, b = logits.bfloat16(), other.bfloat16()
        close(divergence(a, b), divergence(a.float(), b.float()))
