"""Tensors of all processes in every process, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


def num_processes() -> int:
    """Return how many processes compute one batch together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def everyone(x: Tensor) -> Tensor:
    """Return the rows (B, ...) of every process, in the order of the processes; B may differ between them.

    The gradient of a row goes back to the process that it came from, summed over what every process made of it.
    """
    return x if num_processes() == 1 else _Everyone.apply(x)  # type: ignore[no-untyped-call]


class _Everyone(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        own = torch.tensor([len(x)], device=x.device)
        sizes = [torch.zeros_like(own) for _ in range(num_processes())]
        dist.all_gather(sizes, own)
        counts = [int(size) for size in sizes]
        padded = F.pad(x, (0, 0) * (x.ndim - 1) + (0, max(counts) - len(x))).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        rank = dist.get_rank()
        ctx.start, ctx.stop = sum(counts[:rank]), sum(counts[: rank + 1])
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[ctx.start : ctx.stop]
