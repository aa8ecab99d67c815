"""Several processes that compute one batch together.

All processes call each of these functions, in the same order; with one process they cost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bertune.errors import ConfigError

T = TypeVar("T")

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Environment variables in which MPI launchers state the number of processes."""

BUCKET_BYTES = 25 * 2**20
"""Bytes of gradients that are summed in one message, as in torch's DistributedDataParallel."""


_single_process = False


def init(*, use_cpu: bool) -> None:
    """Connect the processes that a launcher (torchrun, accelerate launch) has started, if any.

    A second call does nothing.

    Args:
        use_cpu: compute on the processor, over gloo, even if there is a GPU.

    Raises:
        ConfigError: mpirun has started them, which does not say where they meet.
    """
    for name in MPI_SIZES:
        if int(os.environ.get(name, "1")) > 1 and "RANK" not in os.environ:
            raise ConfigError(
                f"{name}={os.environ[name]} processes were started by MPI; start them with torchrun or "
                "accelerate launch"
            )
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if launched and not dist.is_initialized():
        from accelerate import PartialState

        # The others wait while the first one tokenizes large data, which may take longer than the ten minutes
        # of torch.
        PartialState(cpu=use_cpu, timeout=timedelta(hours=2))


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the first process run the block before the others, which then find what it has made."""
    if rank():
        barrier()
    yield
    if not rank():
        barrier()


def barrier() -> None:
    """Wait for all processes."""
    if num_processes() > 1:
        broadcast_object(None)


def num_processes() -> int:
    """Return how many processes compute one batch together."""
    return (
        dist.get_world_size() if not _single_process and dist.is_available() and dist.is_initialized() else 1
    )


@contextmanager
def single_process() -> Iterator[None]:
    """Let each process compute for itself while the block runs."""
    global _single_process
    before, _single_process = _single_process, True
    try:
        yield
    finally:
        _single_process = before


def rank() -> int:
    """Return the number of this process; process 0 writes the files."""
    return dist.get_rank() if num_processes() > 1 else 0


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Return the items of this process; the processes together have each item once."""
    return items[rank() :: num_processes()] if num_processes() > 1 else items


def all_gather_object(item: T) -> list[T]:
    """Return the item of every process, in their order; pickle must support it."""
    if num_processes() == 1:
        return [item]
    items: list[Any] = [None] * num_processes()
    dist.all_gather_object(items, item)
    return items


def broadcast_object(item: T) -> T:
    """Return the item of the first process in every process."""
    if num_processes() == 1:
        return item
    items = [item]
    dist.broadcast_object_list(items)
    return items[0]


def all_reduce_sum(values: Sequence[float], device: torch.device) -> list[float]:
    """Return the sums of numbers over all processes, in fp64."""
    if num_processes() == 1:
        return list(values)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    total = torch.tensor(values, dtype=dtype, device=device)
    dist.all_reduce(total)
    return [float(v) for v in total.tolist()]


def all_reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes.

    A parameter that has a gradient in any process has one in all of them afterwards.
    """
    if num_processes() == 1:
        return
    learning = [p for p in parameters if p.requires_grad]
    has_gradient = torch.tensor(
        [p.grad is not None for p in learning], dtype=torch.int32, device=learning[0].device
    )
    dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
    bucket: list[Tensor] = []
    size = 0
    for parameter, somewhere in zip(learning, has_gradient.tolist(), strict=True):
        if not somewhere:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        size += parameter.grad.numel() * parameter.grad.element_size()
        if size >= BUCKET_BYTES:
            _all_reduce_bucket(bucket)
            bucket, size = [], 0
    if bucket:
        _all_reduce_bucket(bucket)


def _all_reduce_bucket(tensors: list[Tensor]) -> None:
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def all_gather(x: Tensor) -> Tensor:
    """Return the rows (B, ...) of every process, in their order; B may differ between processes.

    It has a gradient.

    The gradient of a row returns to the process of the row, summed over all processes.
    """
    return x if num_processes() == 1 else _AllGather.apply(x)  # type: ignore[no-untyped-call]


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        own = torch.tensor([len(x)], device=x.device)
        sizes = [torch.zeros_like(own) for _ in range(num_processes())]
        dist.all_gather(sizes, own)
        counts = [int(size) for size in sizes]
        padded = F.pad(x, (0, 0) * (x.ndim - 1) + (0, max(counts) - len(x))).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.start, ctx.stop = sum(counts[: rank()]), sum(counts[: rank() + 1])
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[ctx.start : ctx.stop]
