"""Regularization around a step: EMA of the weights and adversarial training (FGM).

R-Drop is part of the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """An exponential moving average of the weights.

    It follows faster at first, min(decay, (1 + steps) / (10 + steps)): otherwise short runs would keep their
    first weights.

    Source: Polyak and Juditsky 1992; the warm-up is TensorFlow's `ExponentialMovingAverage(num_updates)`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow: dict[str, Tensor] = {
            n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights as they are after optimizer step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = {n: p.detach() for n, p in model.named_parameters() if n in self.shadow}
        torch._foreach_lerp_([self.shadow[n] for n in live], list(live.values()), 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the averages in place of the weights while the block runs."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name in self.shadow:
                parameter.data, self.shadow[name] = self.shadow[name], parameter.data


@contextmanager
def fgm(embeddings: nn.Parameter, length: float) -> Iterator[None]:
    """Move the word embeddings by `length` along their gradient while the block runs.

    A backward pass inside adds the gradient at the moved embeddings to the one that is there.

    Source: Miyato et al. 2016, arXiv 1605.07725, equation 5.
    """
    gradient = embeddings.grad
    norm = None if gradient is None else torch.linalg.vector_norm(gradient)
    if gradient is None or norm is None:
        yield
        return
    original = embeddings.data.clone()
    embeddings.data.add_(gradient / norm.clamp_min(1e-12), alpha=length)
    try:
        yield
    finally:
        embeddings.data.copy_(original)
