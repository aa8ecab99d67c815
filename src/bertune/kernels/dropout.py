"""Dropout with cheap random bits on a processor.

torch draws one float a value, in one thread, which took a quarter of a training step. Here each byte of a
fast generator decides one value: the value is kept if the byte is at least `round(256 * p)`. So `p` is
rounded to 1/256 (0.1 becomes 26/256 = 0.1016), from 1/256 to 255/256, and kept values are scaled by exactly
the rounded rate. GPUs use torch's dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertune.types import JSON


class RandomBytes:
    """A generator of bytes: numpy's SFC64, 0.1 ns a byte, with a state of four integers."""

    def __init__(self, seed: int = 0) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start the sequence of a seed."""
        self._generator = np.random.SFC64(seed)

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Return uniform bytes (uint8)."""
        size = prod(shape)
        words = self._generator.random_raw(-(-size // 8))
        return torch.from_numpy(words.view(np.uint8)[:size]).view(*shape)

    def get_state(self) -> JSON:
        """Return the state as JSON values."""
        return {"words": self._generator.state["state"]["state"].tolist()}

    def set_state(self, state: JSON) -> None:
        """Restore what `get_state` returned."""
        words: Any = {"state": np.asarray(state["words"], np.uint64)}
        self._generator.state = {"bit_generator": "SFC64", "state": words, "has_uint32": 0, "uinteger": 0}


DROPOUT_GENERATOR = RandomBytes()
"""The generator of all fast dropout, one a process like torch's own. The training loop seeds it, and its
state is part of a checkpoint. `torch.utils.checkpoint` does not restore it for a layer that is computed
twice, so that the two must not be used together."""


def rate_to_bytes(rate: float) -> tuple[int, float]:
    """Return how many of 256 bytes drop a value, and the factor on kept values.

    >>> rate_to_bytes(0.5)
    (128, 2.0)
    """
    dropped = min(max(round(256 * rate), 1), 255) if rate else 0
    return dropped, 256 / (256 - dropped)


def draw_keep_mask(shape: Sequence[int], rate: float) -> Tensor:
    """Return 1 for each value to keep and 0 for each to drop (uint8)."""
    return DROPOUT_GENERATOR.draw(shape).ge_(rate_to_bytes(rate)[0])


def apply_dropout(x: Tensor, rate: float, fast: bool = True) -> Tensor:
    """Set a fraction `rate` of values to 0 and scale the others so that the mean stays."""
    if not rate:
        return x
    if not fast or x.device.type != "cpu":
        return F.dropout(x, rate)
    return x * draw_keep_mask(x.shape, rate) * rate_to_bytes(rate)[1]


def dropout_add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, rate: float, fast: bool = True
) -> Tensor:
    """Return LayerNorm(residual + dropout(x)), the last step of both halves of a BERT layer.

    Args:
        x: (T, W).
        residual: (T, W).
        weight: (W,).
        bias: (W,).
        eps: added to the variance.
        rate: dropout; 0 for none.
        fast: on a processor, use `DROPOUT_GENERATOR`.
    """
    if fast and rate and x.device.type == "cpu":
        arguments = x, residual, weight, bias, eps, rate
        output: Tensor = _DropAddNorm.apply(*arguments)  # type: ignore[no-untyped-call]
        return output
    summed = residual + F.dropout(x, rate) if rate else residual + x
    return layer_norm(summed, weight, bias, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return LayerNorm(x). On a processor its weights may stay in fp32."""
    if x.device.type != "cpu":
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    return F.layer_norm(x, weight.shape, weight, bias, eps)


class _DropAddNorm(torch.autograd.Function):
    """One node of autograd that saves only the sum and one byte a value for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, rate: float
    ) -> Tensor:
        keep_mask = draw_keep_mask(x.shape, rate)
        gain = rate_to_bytes(rate)[1]
        summed = torch.add(residual, x * keep_mask, alpha=gain)
        out, mean, rstd = torch.native_layer_norm(summed, weight.shape, weight, bias, eps)
        ctx.save_for_backward(summed, mean, rstd, weight, bias, keep_mask)
        ctx.gain = gain
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        summed, mean, rstd, weight, bias, keep_mask = ctx.saved_tensors
        d_sum, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
            grad.contiguous(), summed, weight.shape, mean, rstd, weight, bias, [True, True, True]
        )
        return (d_sum * keep_mask).mul_(ctx.gain), d_sum, d_weight, d_bias, None, None
