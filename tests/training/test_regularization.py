"""EMA follows its formula and gives weights back; FGM steps along the gradient and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bertune.training.regularization import EMA, fgm


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 3)
    )  # equal shapes too: bias, scale, bias


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def move(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


class TestEMA:
    @pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
    def test_is_its_formula(self, decay):
        model = network()
        ema = EMA(model, decay)
        slow = {n: w.double() for n, w in weights_of(model).items()}
        for step in range(1, 30):
            move(model)
            ema.update(model, step)
            here = min(decay, (1 + step) / (10 + step))
            slow = {n: here * slow[n] + (1 - here) * w.double() for n, w in weights_of(model).items()}
        assert ema.shadow.keys() == slow.keys()
        for name, average in slow.items():
            torch.testing.assert_close(ema.shadow[name].double(), average, atol=1e-5, rtol=1e-5, msg=name)

    def test_weights_and_average_go_by_name(self):
        """Whatever the order in which the averages are held, as after reading them from a file."""
        model = network()
        first, second = EMA(model, 0.9), EMA(model, 0.9)
        second.shadow = {n: second.shadow[n] for n in sorted(second.shadow, reverse=True)}
        move(model)
        for ema in (first, second):
            ema.update(model, 1)
        assert same(first.shadow, second.shadow)

    def test_starts_at_the_weights_but_is_not_them(self):
        model = network()
        ema = EMA(model, 0.9)
        start = weights_of(model)
        assert same(ema.shadow, start)
        move(model)
        assert same(ema.shadow, start)

    def test_weights_are_exchanged_and_come_back_bit_for_bit(self):
        model = network()
        ema = EMA(model, 0.9)
        move(model)
        ema.update(model, 5)
        live, average = weights_of(model), {n: t.clone() for n, t in ema.shadow.items()}
        assert not same(live, average)
        with ema.applied(model):
            assert same(weights_of(model), average)
        assert same(weights_of(model), live)
        assert same(ema.shadow, average)

    def test_weights_come_back_after_an_error(self):
        model = network()
        ema = EMA(model, 0.9)
        move(model)
        live = weights_of(model)

        def scored() -> None:
            with ema.applied(model):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scored()
        assert same(weights_of(model), live)

    def test_training_goes_on_after_an_exchange(self):
        """The parameters are still those of the optimizer, and the average is still apart from them."""
        model, other = network(), network()
        for m, exchanged in ((model, True), (other, False)):
            ema, optimizer = EMA(m, 0.9), torch.optim.SGD(m.parameters(), lr=0.1)
            torch.manual_seed(1)
            for step in range(1, 4):
                optimizer.zero_grad()
                m(torch.randn(5, 4)).square().sum().backward()
                optimizer.step()
                ema.update(m, step)
                if exchanged:
                    with ema.applied(m):
                        pass
        assert same(weights_of(model), weights_of(other))

    def test_frozen_weights_are_left_alone(self):
        model = network()
        model[0].weight.requires_grad = False
        ema = EMA(model, 0.9)
        assert "0.weight" not in ema.shadow
        assert len(ema.shadow) == 5
        move(model)
        ema.update(model, 1)
        moved = model[0].weight.detach().clone()
        with ema.applied(model):
            assert torch.equal(model[0].weight, moved)


def embeddings(dtype: torch.dtype = torch.float64) -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(10, 6, dtype=dtype))


class TestFGM:
    @pytest.mark.parametrize("length", [0.1, 1.0, 25.0])
    @pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
    def test_moves_by_the_length_along_the_gradient(self, length, size):
        table = embeddings()
        table.grad = size * torch.randn_like(table)
        start = table.detach().clone()
        with fgm(table, length):
            step = table.detach() - start
            assert step.norm().item() == pytest.approx(length, rel=1e-9)
            torch.testing.assert_close(step, length * table.grad / table.grad.norm(), atol=1e-12, rtol=1e-9)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_comes_back_bit_for_bit(self, dtype):
        table = embeddings(dtype)
        table.grad = torch.randn_like(table)
        start, storage = table.detach().clone(), table.data_ptr()
        with fgm(table, 1.7):
            assert not torch.equal(table, start)
        assert torch.equal(table, start)
        assert table.data_ptr() == storage

    def test_comes_back_after_an_error(self):
        table = embeddings()
        table.grad = torch.randn_like(table)
        start = table.detach().clone()

        def step() -> None:
            with fgm(table, 1.0):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            step()
        assert torch.equal(table, start)

    def test_the_gradient_of_the_worse_place_is_added(self):
        table = embeddings()
        start = table.detach().clone()
        (table**2).sum().backward()  # gradient 2 x, so the worse place is x (1 + 1 / |x|)
        with fgm(table, 1.0):
            (table**2).sum().backward()
        torch.testing.assert_close(
            table.grad, 2 * start + 2 * start * (1 + 1 / start.norm()), atol=1e-12, rtol=1e-12
        )

    def test_makes_the_loss_larger(self):
        torch.manual_seed(1)
        table, network = embeddings(), nn.Linear(6, 1, dtype=torch.float64)
        places, wanted = torch.tensor([1, 4, 4, 7]), torch.randn(4, 1, dtype=torch.float64)

        def loss() -> torch.Tensor:
            return (network(table[places]) - wanted).square().mean()

        before = loss()
        before.backward()
        with fgm(table, 0.01):
            assert loss() > before

    @pytest.mark.parametrize("gradient", [None, 0.0], ids=["none", "zero"])
    def test_without_a_gradient_nothing_moves(self, gradient):
        table = embeddings()
        table.grad = None if gradient is None else torch.zeros_like(table)
        start = table.detach().clone()
        with fgm(table, 1.0):
            assert torch.equal(table, start)
        assert torch.equal(table, start)
